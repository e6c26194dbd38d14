"""Results as tables: for the terminal, Markdown and LaTeX, with the paper's own numbers beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgrpo_jax.evaluation import benchmarks, results
from fgrpo_jax.evaluation.figures import FIGURES, Estimate, is_share
from fgrpo_jax.evaluation.paper import rows
from fgrpo_jax.evaluation.results import SetResult
from fgrpo_jax.rows import write_atomically

COLUMNS: Mapping[str, str] = {
    "accuracy_paper": "accuracy",
    "accuracy_official": "official",
    "inconsistency": "inconsist.",
    "semantic_grounding": "semantic",
    "spatial_grounding": "spatial",
    **{name: name for name in ("unparsed", "format", "tokens")},
}
"""Figures of the summary and their headings; 'accuracy' is the paper's variant."""

NONE = "–"


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of texts; the first column is of names.

    Attributes:
      rules: numbers of rows that begin a new part.
      left: columns of words, the others being of numbers.
    """

    head: Sequence[str]
    body: Sequence[Sequence[str]]
    rules: Sequence[int] = ()
    left: Sequence[int] = (0,)

    def text(self) -> str:
        """For a terminal."""
        widths = [max(len(row[i]) for row in (self.head, *self.body)) for i in range(len(self.head))]

        def line(row: Sequence[str]) -> str:
            padded = zip(row, widths, range(len(row)), strict=True)
            return "  ".join(cell.ljust(w) if i in self.left else cell.rjust(w) for cell, w, i in padded).rstrip()

        lines = [line(self.head)]
        for number, row in enumerate(self.body):
            if number in self.rules or number == 0:
                lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
            lines.append(line(row))
        return "\n".join(lines)

    def markdown(self) -> str:
        """A Markdown table."""
        ends = ["---" if i in self.left else "---:" for i in range(len(self.head))]
        lines = [self.head, ends, *self.body]
        return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines)

    def latex(self) -> str:
        """A LaTeX tabular with rules of booktabs."""
        signs = {**{sign: "\\" + sign for sign in "&%_#"}, "±": r"$\pm$", "λ": r"$\lambda$", "–": "--"}
        row = lambda cells: " & ".join(cell.translate(str.maketrans(signs)) for cell in cells) + r" \\"  # noqa: E731
        body = []
        for number, cells in enumerate(self.body):
            body += [r"\midrule"] * (number in self.rules) + [row(cells)]
        columns = "".join("l" if i in self.left else "r" for i in range(len(self.head)))
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", row(self.head), r"\midrule", *body]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def show(grids: Sequence[Grid], notes: Sequence[str]) -> None:
    """Prints tables, and what a reader must know of them."""
    print("\n\n".join(grid.text() for grid in grids))
    print("\n" + "\n".join(notes))


def write(folder: Path, name: str, grids: Sequence[Grid], notes: Sequence[str]) -> None:
    """The same as FOLDER/NAME.md and NAME.tex."""
    listed, comments = ("\n".join(f"{mark} {note}" for note in notes) for mark in "-%")
    write_atomically(folder / f"{name}.md", "\n\n".join([*(grid.markdown() for grid in grids), listed]) + "\n")
    write_atomically(folder / f"{name}.tex", "\n\n".join([comments, *(grid.latex() for grid in grids)]) + "\n")


# --------------------------------------------------------------------------------------------------------------- shown
def number(estimate: Estimate, *, share: bool = True, interval: bool = False) -> str:
    """'61.3' of 0.613, or '61.3 [58.0, 64.1]'; a dash where it is undefined."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return NONE
    scale = 100 if share else 1
    text = f"{scale * estimate.value:.1f}"
    return f"{text} [{scale * estimate.low:.1f}, {scale * estimate.high:.1f}]" if interval else text


def summary(found: Sequence[SetResult], *, label: str) -> Grid:
    """A line a set, then averages over the paper's benchmarks, then the paper's own rows."""

    def cells(found: Mapping[str, Estimate]) -> list[str]:
        return [number(found[key], share=is_share(key), interval=key == "accuracy_paper") for key in COLUMNS]

    body = [[result.name, str(result.questions), *cells(result.figures)] for result in found]
    rules = []
    seven = [result for result in found if result.base in benchmarks.SEVEN]
    if seven:
        rules.append(len(body))
        whole = results.is_whole(found)
        which = f"average of the seven, {label}" if whole else f"average of {len(seven)} of the paper's 7 sets, {label}"
        total = sum(result.questions for result in seven)
        body.append([which, str(total), *cells(results.average(found))])
        rules.append(len(body))
        for row in rows():
            known = {"accuracy_paper": row.accuracy, "inconsistency": row.inconsistency}
            known["semantic_grounding"] = row.semantic
            body.append(["paper: " + row.name, "", *(stated(known.get(name)) for name in COLUMNS)])
    return Grid(("set", "n", *COLUMNS.values()), body, rules)


def by_set(runs: Mapping[str, Sequence[SetResult]]) -> list[Grid]:
    """Accuracy of runs on each of the paper's sets, and what the paper prints for them; [] where none was evaluated."""
    sets = [name for name in benchmarks.SEVEN if any(one.base == name for found in runs.values() for one in found)]
    body = []
    for label, found in runs.items():
        accuracy = {one.base: number(one.figures["accuracy_paper"]) for one in found}
        body.append([label, *(accuracy.get(name, NONE) for name in sets)])
    stated_rows = [[f"paper: {row.name}", *(stated(row.sets[name]) for name in sets)] for row in rows() if row.sets]
    return [Grid(("accuracy", *sets), [*body, *stated_rows], rules=[len(body)])] if sets else []


def stated(value: float | None) -> str:
    """A number of the paper, in percent."""
    return NONE if value is None else f"{value:.1f}"


def details(result: SetResult) -> Grid:
    """All figures of a set with their intervals."""
    how = benchmarks.find(result.name)
    about = {"accuracy_paper": how.paper.about, "accuracy_official": how.official.about}
    shown = {"accuracy_paper": "accuracy (paper)", "accuracy_official": "accuracy (official)"}
    body = []
    for name, estimate in result.figures.items():
        if name == "accuracy":
            continue  # the paper's variant of every set
        share = is_share(name)
        unit = "%" if share and estimate.value is not None else ""
        value = number(estimate, share=share)
        ends = number(estimate, share=share, interval=True).partition(" ")[2] or NONE
        meaning = about.get(name) or FIGURES[name].about
        body.append([shown.get(name, name), value + unit, ends, str(estimate.count), meaning])
    return Grid((result.name, "value", "95% interval", "n", "what it is"), body, left=(0, 4))


def groups(result: SetResult) -> Grid | None:
    """Accuracy by the published kinds of questions; None where the set has none."""
    body = [
        [f"{tag}: {value or 'none'}", f"{100 * right / count:.1f}", str(count)]
        for tag, found in result.groups.items()
        for value, (right, count) in found.items()
    ]
    return Grid((f"{result.name}, questions by", "accuracy", "n"), body) if body else None


def notes(found: Sequence[SetResult], protocol: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the numbers, a sentence each."""
    flat = {name: value for name, value in protocol.items() if not isinstance(value, Mapping)}
    out = [_listed(flat), *(f"{name}: {_listed(v)}" for name, v in protocol.items() if isinstance(v, Mapping))]
    for result in found:
        published = benchmarks.find(result.name).questions
        if published and result.questions != published:
            out.append(f"{result.name}: {result.questions} of {published} published questions")
        for what, text in (
            ("unparsed", "answers could not be read and count as wrong"),
            ("truncated", "answers were cut off"),
            ("extractor_failed", "answers the extractor could not read, and rules have"),
            ("judge_failed", "judgements failed and are out of inconsistency"),
            ("judge_abstained", "judgements the rules left open, and are out of inconsistency"),
            ("units_not_whole", "units are not whole and are out of the official accuracy"),
        ):
            if result.counts[what]:
                out.append(f"{result.name}: {result.counts[what]} {text}")
    return out


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
