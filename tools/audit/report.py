"""What an audit of a judge leaves: tables of agreement, and a page of the responses on which two judges differ."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from audit.agreement import ABSTAINED, FAILED, Agreement, Pair, Rating, compare
from fgrpo_jax.evaluation.tables import Grid
from fgrpo_jax.records import Box
from fgrpo_jax.world.traces import letter

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
    def pairs(self) -> list[tuple[str, Rating, Rating]]:
        """(CONSISTENCY or SEMANTIC, rating of the first judge, of the second) of all that both judged."""
        whole = [] if self.consistency is None else [(CONSISTENCY, *self.consistency)]
        return whole + [(SEMANTIC, a, b) for a, b in self.semantic or ()]

    @property
    def kinds(self) -> set[str]:
        """Kinds of disagreement: 'semantic: correct → skip'; empty when the judges say the same throughout."""
        return {f"{kind}: {a.word} → {b.word}" for kind, a, b in self.pairs if a.word != b.word}

    @property
    def contrary(self) -> bool:
        """Whether the judges said different things somewhere, and not only one of them nothing."""
        return any(a.verdict != b.verdict for _, a, b in self.pairs if a.verdict is not None and b.verdict is not None)

    @property
    def answer(self) -> str:
        """The end of the response: what stands behind its reasoning, at most 300 characters."""
        return (self.response.rpartition("</think>")[2] or self.response).strip()[-300:]


# -------------------------------------------------------------------------------------------------------------- tables
def agreements(shown: Sequence[Shown], *, by: str = "") -> dict[str, Agreement]:
    """Agreement on verdicts and on scores, of either kind that was judged; with `by`, of each value of that tag too."""
    parts = {"": shown}
    if by:
        values = sorted({one.tags.get(by, "") for one in shown})
        parts |= {f" ({by} {value})": [one for one in shown if one.tags.get(by, "") == value] for value in values}
    out = {}
    for name, part in parts.items():
        for kind in (CONSISTENCY, SEMANTIC):
            pairs = [Pair(one.id, a, b) for one in part for judged, a, b in one.pairs if judged == kind]
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
    lines.append(Grid(HEAD, [cells(name, one) for name, one in found.items()]).markdown())
    for name, one in found.items():
        if "(" not in name and "verdict" in name:
            lines += ["", f"## {name}: a down, b across", "", Grid(*confusion(one)).markdown()]
    return "\n".join(lines) + "\n"


def confusion(found: Agreement) -> tuple[list[str], list[list[str]]]:
    """(head, body) of who said what, a down and b across."""
    order = ("yes", "no", "uncertain", "correct", "incorrect", "skip", "1", "0", ABSTAINED, FAILED)
    words = [word for word in order if any(word in pair for pair in found.table)]
    body = [[a, *(str(found.table.get((a, b), 0)) for b in words)] for a in words]
    return ["", *words], body


# ---------------------------------------------------------------------------------------------------------------- page
LONGEST_SIDE = 1024  # pixels of an embedded picture; larger ones are shrunk
TONES = dict.fromkeys(("yes", "correct"), "good") | dict.fromkeys(("no", "incorrect", FAILED), "bad")
TONES |= dict.fromkeys(("uncertain", ABSTAINED), "warn")


def page(
    title: str, shown: Sequence[Shown], found: Mapping[str, Agreement], names: tuple[str, str], *, most: int = 300
) -> str:
    """A self-contained page: figures, who said what, and every response with a disagreement (up to `most` of them)."""
    differing = sorted((one for one in shown if one.kinds), key=lambda one: not one.contrary)  # contrary verdicts first
    listed = differing[:most]
    context = {"title": title, "names": names, "total": len(shown), "differing": len(differing), "most": most}
    context |= {"found": found, "head": HEAD, "cells": cells, "confusion": confusion}
    context |= {"kinds": Counter(kind for one in listed for kind in one.kinds).most_common(), "tones": TONES}
    context |= {"cards": listed, "source": _source, "rectangles": _rectangles, "letter": letter}
    return _environment().get_template("page.html.jinja").render(context)


def _environment() -> jinja2.Environment:
    """Every text that a template shows is escaped, and so is every character that a browser would drop or obey."""
    out = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else _visible(str(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    out.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return out


def _visible(text: str) -> str:
    """The text with a code such as '\\u202e' in place of each character that is invisible or turns the direction."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def _rectangles(one: Shown) -> list[tuple[float, float, float, float, str, str]]:
    """(x, y, width, height, label, class) of the boxes over the picture of a response, in pixels of its image."""
    boxes = [(box, f"gold {at}", "gold") for at, box in enumerate(one.gold_boxes, 1)]
    boxes += [(box, f"box {at} of the reasoning", "said") for at, box in enumerate(one.boxes, 1)]
    return [
        (min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1), label, kind) for (x1, y1, x2, y2), label, kind in boxes
    ]


def _source(pixels: np.ndarray) -> str:
    """The image as a data: address; photographs as JPEG, which takes a tenth of their PNG."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=90)
    kind, smaller = ("png", png) if png.tell() < 2 * jpeg.tell() else ("jpeg", jpeg)
    return f"data:image/{kind};base64," + base64.b64encode(smaller.getvalue()).decode()
