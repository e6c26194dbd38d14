"""What an audit of a judge leaves: tables of agreement, and a page of the responses on which two judges differ."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from audit.agreement import ABSTAINED, FAILED, Agreement, Pair, Rating, compare
from fgrpo_jax.records import Box

CONSISTENCY, SEMANTIC = "consistency", "semantic"
SCORES: Mapping[str, Mapping[str, str]] = {
    CONSISTENCY: {"yes": "1", "no": "0", "uncertain": "0"},
    SEMANTIC: {"correct": "1", "incorrect": "0"},
}
"""What verdicts are worth as scores; SKIP is worth nothing and leaves the comparison."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """One response with both judges' ratings.

    Attributes:
      id: of the response.
      tags: facts that agreement is also given by, such as {'part': 'held'}.
      question, options, gold, response: texts; `gold` is a letter or ''.
      image: uint8 [height, width, 3], or None where there is none at hand.
      boxes, gold_boxes: of the reasoning and of the example, in pixels of the image.
      sentences: of the reasoning.
      consistency: ratings of the two judges; None where one did not judge.
      semantic: the same a sentence.
    """

    id: str
    tags: Mapping[str, str]
    question: str
    options: Sequence[str]
    gold: str
    response: str
    image: np.ndarray | None
    boxes: Sequence[Box]
    gold_boxes: Sequence[Box]
    sentences: Sequence[str]
    consistency: tuple[Rating, Rating] | None
    semantic: Sequence[tuple[Rating, Rating]] | None

    @property
    def kinds(self) -> set[str]:
        """Kinds of disagreement: 'semantic: correct → skip'; empty when the judges say the same throughout."""
        out = {_cell(CONSISTENCY, *self.consistency)} if self.consistency is not None else set()
        out |= {_cell(SEMANTIC, a, b) for a, b in self.semantic or ()}
        return out - {""}

    @property
    def contrary(self) -> bool:
        """Whether the judges said different things somewhere, and not only one of them nothing."""
        pairs = [*([self.consistency] if self.consistency is not None else []), *(self.semantic or ())]
        return any(a.verdict != b.verdict for a, b in pairs if a.verdict is not None and b.verdict is not None)


def _cell(kind: str, a: Rating, b: Rating) -> str:
    return "" if a.word == b.word else f"{kind}: {a.word} → {b.word}"


# -------------------------------------------------------------------------------------------------------------- tables
def agreements(shown: Sequence[Shown], *, by: str = "") -> dict[str, Agreement]:
    """Agreement on verdicts and on scores, of either kind that was judged; with `by`, of each value of that tag too."""
    parts = {"": shown}
    if by:
        values = sorted({one.tags.get(by, "") for one in shown})
        parts |= {f" ({by} {value})": [one for one in shown if one.tags.get(by, "") == value] for value in values}
    out = {}
    for name, part in parts.items():
        consistency = [Pair(one.id, *one.consistency) for one in part if one.consistency is not None]
        semantic = [Pair(one.id, *pair) for one in part for pair in one.semantic or ()]
        for kind, pairs in ((CONSISTENCY, consistency), (SEMANTIC, semantic)):
            if pairs:
                out[f"{kind} verdict{name}"] = compare(pairs)
                out[f"{kind} score{name}"] = compare(_scores(kind, pairs))
    return out


def _scores(kind: str, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with '1' and '0' for verdicts; those on which a judge's verdict has no score are left out."""
    worth = SCORES[kind]

    def score(rating: Rating) -> Rating:
        return rating if rating.verdict is None else Rating(worth[rating.verdict])

    known = [pair for pair in pairs if all(r.verdict is None or r.verdict in worth for r in (pair.a, pair.b))]
    return [Pair(pair.cluster, score(pair.a), score(pair.b)) for pair in known]


HEAD = ("", "cases", "decided by both", "same", "κ", "95% interval", "abstained", "failed")


def cells(name: str, found: Agreement) -> list[str]:
    """A row of the table of agreements, under HEAD."""
    share = lambda value: "–" if value is None else f"{100 * value:.1f}%"  # noqa: E731
    number = lambda value: "–" if value is None else f"{value:.3f}"  # noqa: E731
    return [
        name,
        str(found.total),
        str(found.decided),
        share(found.agreed),
        number(found.kappa),
        "–" if found.low is None else f"{number(found.low)} … {number(found.high)}",
        " / ".join(map(share, found.abstained)),
        " / ".join(map(share, found.failed)),
    ]


def markdown(title: str, found: Mapping[str, Agreement], names: tuple[str, str]) -> str:
    """The tables as Markdown: agreements, then who said what."""
    lines = [f"# {title}", "", f"a is {names[0]}, b is {names[1]}; shares of abstentions and failures are a / b.", ""]
    lines += _markdown_table(HEAD, [cells(name, one) for name, one in found.items()])
    for name, one in found.items():
        if "(" not in name and "verdict" in name:
            head, body = confusion(one)
            lines += ["", f"## {name}: a down, b across", "", *_markdown_table(head, body)]
    return "\n".join(lines) + "\n"


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]


def confusion(found: Agreement) -> tuple[list[str], list[list[str]]]:
    """(head, body) of who said what, a down and b across."""
    order = ("yes", "no", "uncertain", "correct", "incorrect", "skip", "1", "0", ABSTAINED, FAILED)
    words = [word for word in order if any(word in pair for pair in found.table)]
    body = [[a, *(str(found.table.get((a, b), 0)) for b in words)] for a in words]
    return ["", *words], body


# ---------------------------------------------------------------------------------------------------------------- page
_TONES = {"yes": "good", "correct": "good", "1": "good", "no": "bad", "incorrect": "bad", "0": "bad"}
_TONES |= {"uncertain": "warn", FAILED: "bad", ABSTAINED: "warn"}


def page(
    title: str, shown: Sequence[Shown], found: Mapping[str, Agreement], names: tuple[str, str], *, most: int = 300
) -> str:
    """A self-contained page: figures, who said what, and every response with a disagreement (up to `most` of them)."""
    differing = sorted((one for one in shown if one.kinds), key=lambda one: not one.contrary)  # contrary verdicts first
    listed = differing[:most]
    left = len(differing) - len(listed)
    note = f" The first {most} are shown; {left} more are in the JSON file." if left else ""
    body = [
        html.tag("h1", html.text(title)),
        html.tag(
            "p",
            html.text(f"{names[0]} (a) beside {names[1]} (b) on {len(shown)} responses; they differ on "),
            html.tag("strong", str(len(differing))),
            html.text(f".{note}"),
            class_="lead",
        ),
        html.tiles(_headlines(found)),
        html.tag("h2", "Agreement"),
        html.table(
            list(map(html.text, HEAD)),
            [list(map(html.text, cells(name, one))) for name, one in found.items()],
            numbers=range(1, len(HEAD)),
        ),
        html.tag("h2", "Who said what"),
        html.tag(
            "div",
            *(_matrix(name, one, names) for name, one in found.items() if "verdict" in name and "(" not in name),
            class_="matrices",
        ),
        html.tag("h2", "Disagreements"),
        _filters(listed),
        html.tag("div", *(_card(one, names) for one in listed), id="cards"),
        html.tag("p", "Nothing matches.", id="none", class_="lead", hidden="") if listed else "",
    ]
    return html.page(title, html.tag("main", *body), script=_SCRIPT, style=_STYLE)


def _headlines(found: Mapping[str, Agreement]) -> dict[str, tuple[str, str]]:
    out = {}
    for name, one in found.items():
        if "(" not in name:
            value = "–" if one.kappa is None else f"{one.kappa:.3f}"
            interval = "" if one.low is None else f", {one.low:.3f} … {one.high:.3f}"
            out[f"κ, {name}"] = (value, f"{one.decided} of {one.total} decided{interval}")
    return out


def _matrix(name: str, found: Agreement, names: tuple[str, str]) -> str:
    head, body = confusion(found)
    most = max(found.table.values(), default=1)
    rows = []
    for a, *counts in body:
        shaded = []
        for b, count in zip(head[1:], counts, strict=True):
            weight = (int(count) / most) ** 0.5 * 60 if count != "0" else 0
            tone = "good" if a == b else "bad"
            style = f"background:color-mix(in srgb,var(--{tone}) {weight:.0f}%,transparent)"
            shaded.append(html.tag("td", count if count != "0" else "·", class_="n", style=style))
        rows.append(html.tag("tr", html.tag("th", html.text(a)), *shaded))
    top = html.tag("tr", html.tag("th", "a ↓ · b →"), *(html.tag("th", html.text(b), class_="n") for b in head[1:]))
    caption = html.tag("h3", html.text(name))
    who = html.tag("p", html.text(f"a: {names[0]}, b: {names[1]}"), class_="lead small")
    return html.tag("div", caption, who, html.tag("table", html.tag("tbody", top, *rows)), class_="card matrix")


def _filters(listed: Sequence[Shown]) -> str:
    counts = Counter(kind for one in listed for kind in one.kinds)
    chips = [html.tag("button", html.text(f"all ({len(listed)})"), class_="chip on", data_kind="", type="button")]
    chips += [
        html.tag("button", html.text(f"{kind} ({count})"), class_="chip", data_kind=kind, type="button")
        for kind, count in counts.most_common()
    ]
    search = '<input id="search" type="search" placeholder="find in question, reasoning, id" aria-label="find">'
    whole = '<label><input id="only" type="checkbox"> only what differs</label>'
    return html.tag("div", html.tag("div", *chips, class_="chips"), search, whole, class_="filters")


def _badge(rating: Rating) -> str:
    title = rating.why if rating.verdict is None and rating.why != ABSTAINED else None
    return html.tag("span", html.text(rating.word), class_=f"badge {_TONES.get(rating.word, '')}".strip(), title=title)


def _card(one: Shown, names: tuple[str, str]) -> str:
    kinds = sorted(one.kinds)
    tags = "".join(html.tag("span", html.text(f"{key}: {value}"), class_="badge") for key, value in one.tags.items())
    top = html.tag("div", html.tag("code", html.text(one.id)), tags, class_="top")
    left = ""
    if one.image is not None:
        boxes = [(box, f"gold {at + 1}", "gold") for at, box in enumerate(one.gold_boxes)]
        boxes += [(box, f"box {at + 1} of the reasoning", "said") for at, box in enumerate(one.boxes)]
        key = '<p class="key"><span><i></i>boxes of the reasoning</span> <span><i class="gold"></i>gold</span></p>'
        left = html.tag("div", html.picture(one.image, boxes), key if boxes else "", class_="left")
    right = html.tag(
        "div", html.tag("h3", html.text(one.question)), _options(one), _verdicts(one, names), class_="right"
    )
    return html.tag(
        "article", top, html.tag("div", left, right, class_="cols"), class_="card case", data_kinds="|".join(kinds)
    )


def _options(one: Shown) -> str:
    items = []
    for at, option in enumerate(one.options):
        letter = chr(ord("A") + at)
        items.append(
            html.tag("li", html.text(f"{letter}. {option}"), class_="right-one" if letter == one.gold else None)
        )
    return html.tag("ul", *items, class_="options") if items else ""


def _verdicts(one: Shown, names: tuple[str, str]) -> str:
    head = html.tag("tr", html.tag("th", ""), *(html.tag("th", html.text(name)) for name in names))
    rows = []
    for at, sentence in enumerate(one.sentences):
        pair = one.semantic[at] if one.semantic is not None else None
        badges = ("", "") if pair is None else (_badge(pair[0]), _badge(pair[1]))
        same = pair is None or pair[0].word == pair[1].word
        row = html.tag("td", html.text(sentence)), html.tag("td", badges[0]), html.tag("td", badges[1])
        rows.append(html.tag("tr", *row, class_="same" if same else "differs"))
    answer = one.response.rpartition("</think>")[2] or one.response
    said = html.tag("span", "answer", class_="badge") + " " + html.tag("code", html.text(answer.strip()[-300:]))
    rows.append(html.tag("tr", html.tag("td", said), "<td></td><td></td>"))
    if one.consistency is not None:
        a, b = one.consistency
        cell = html.tag("td", html.tag("strong", "the reasoning entails the answer"))
        row = html.tag("tr", cell, html.tag("td", _badge(a)), html.tag("td", _badge(b)))
        rows.append(row.replace("<tr>", f'<tr class="{"whole" if a.word == b.word else "whole differs"}">', 1))
    return html.tag("div", html.tag("table", html.tag("tbody", head, *rows)), class_="scroll said")


_STYLE = """
.matrices{display:grid;grid-template-columns:repeat(auto-fit,minmax(360px,1fr));gap:14px}.matrix{margin:0;overflow-x:auto}
.matrix td,.matrix th{border:0;padding:6px 10px}.matrix td{min-width:52px;border-radius:4px}.small{font-size:13px}
.filters{position:sticky;top:0;z-index:2;background:var(--bg);padding:8px 0 10px;border-bottom:1px solid var(--line);
display:flex;flex-wrap:wrap;gap:10px;align-items:center}.chips{display:flex;flex-wrap:wrap;gap:6px;flex-basis:100%}
.chip{font:inherit;font-size:13px;padding:3px 11px;border-radius:999px;border:1px solid var(--line);
background:var(--card);color:var(--ink);cursor:pointer}.chip.on{background:var(--accent);border-color:var(--accent);color:var(--bg)}
#search{font:inherit;padding:5px 10px;border:1px solid var(--line);border-radius:8px;background:var(--card);
color:var(--ink);min-width:280px}.filters label{color:var(--soft);font-size:14px}
.case .top{display:flex;gap:8px;align-items:center;flex-wrap:wrap;margin-bottom:10px;color:var(--soft)}
.cols{display:flex;gap:20px;align-items:flex-start}.left{flex:0 0 260px}.right{flex:1;min-width:0}
@media(max-width:760px){.cols{flex-direction:column}.left{flex:none;width:100%;max-width:340px}}
.options{list-style:none;margin:0 0 10px;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);
font-size:14px}
.right-one{color:var(--good);font-weight:600}.right-one::after{content:" ✓"}
.said table{width:100%}.said td{vertical-align:top;overflow-wrap:anywhere}.said td+td,.said th+th{width:112px}
.differs td{background:var(--mark)}.same{color:var(--soft)}.only tr.same{display:none}
.whole td{border-top:2px solid var(--line)}
.key{font-size:12.5px;color:var(--soft);margin:6px 0 0;display:flex;gap:4px 14px;flex-wrap:wrap}
.key i{display:inline-block;width:14px;height:10px;
margin-right:5px;border:2px solid #ff2fa0;vertical-align:-1px}.key i.gold{border:2px dashed var(--soft)}
"""

_SCRIPT = """
(() => {
  const cards = [...document.querySelectorAll('.case')], chips = [...document.querySelectorAll('.chip')];
  const find = document.getElementById('search'), none = document.getElementById('none');
  let kind = '';
  const show = () => {
    const word = find.value.toLowerCase();
    let seen = 0;
    for (const card of cards) {
      const fits = (!kind || card.dataset.kinds.split('|').includes(kind)) &&
        (!word || card.textContent.toLowerCase().includes(word));
      card.hidden = !fits;
      seen += fits;
    }
    if (none) none.hidden = seen > 0;
  };
  for (const chip of chips) chip.addEventListener('click', () => {
    kind = chip.dataset.kind;
    for (const other of chips) other.classList.toggle('on', other === chip);
    show();
  });
  find.addEventListener('input', show);
  document.getElementById('only').addEventListener('change', (event) =>
    document.getElementById('cards').classList.toggle('only', event.target.checked));
})();
"""
