"""What an evaluation says of a policy, from its saved answers: definitions of the figures, and their intervals.

An answer is a row of W/eval/SET.jsonl (`judged` makes it, docs/evaluation.md lists its keys). Answers that stand or
fall together, such as the two rotations of a SAT question, make a *unit*. A figure is made of columns:
each takes the answers of one unit to (sum, count), the column's value is Σ sum / Σ count over units, and the figure is
the plain mean of its columns (one, but for means of strata). Intervals come from resampling units, with all figures of
a set under the same draws.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Answer = Mapping[str, Any]
Unit = Sequence[Answer]
Column = Callable[[Unit], tuple[float, float]]

RESAMPLES = 10_000
_CELLS = 8_000_000  # resampled weights held at once


@dataclasses.dataclass(frozen=True)
class Figure:
    """What a figure says and its columns; a share is shown in percent, others are numbers of tokens or words."""

    about: str
    columns: tuple[Column, ...]
    share: bool = True


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
      value: None where no answer defines it, as are `low` and `high`, the 2.5% and 97.5% points.
      count: answers (or units) that the value is a mean over.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int


def mean_of(read: Callable[[Answer], float | None]) -> Column:
    """The column of a number that single answers have; None where one has none."""

    def column(unit: Unit) -> tuple[float, float]:
        values = [value for answer in unit if (value := read(answer)) is not None]
        return float(sum(values)), float(len(values))

    return column


def _of(name: str) -> tuple[Column]:
    return (mean_of(lambda answer: answer[name]),)


def _inconsistent(answer: Answer) -> float | None:
    return None if answer["consistency"] is None else 1.0 - answer["consistency"]


FIGURES: dict[str, Figure] = {
    "accuracy": Figure("the answer is right; without a readable answer it is wrong", _of("accuracy")),
    "inconsistency": Figure(
        "the reasoning does not entail the final answer: over all answers, right or wrong, that the judge decided",
        (mean_of(_inconsistent),),
    ),
    "inconsistency_correct": Figure(
        "the same over right answers alone, as the constraint in training sees it",
        (mean_of(lambda answer: _inconsistent(answer) if answer["accuracy"] > 0 else None),),
    ),
    "semantic_grounding": Figure(
        "share of an answer's scored sentences that are true, over answers with at least one", _of("semantic_grounding")
    ),
    "spatial_grounding": Figure("boxes against gold boxes (Eq. 1), where there are any", _of("spatial_grounding")),
    "box_iou": Figure("the same with plain IoU", _of("box_iou")),
    "unparsed": Figure("no answer could be read", (mean_of(lambda answer: 1.0 - answer["answered"]),)),
    "format": Figure("exactly the asked form", _of("format")),
    "truncated": Figure("cut off by max_new_tokens", _of("truncated")),
    "tokens": Figure("tokens of the response, the EOS included", _of("tokens"), share=False),
    "words": Figure("words of the reasoning", _of("words"), share=False),
}
"""Of every set, in the order of the tables."""


def is_share(name: str) -> bool:
    """Whether a figure is shown in percent; the two variants of accuracy are, besides those of FIGURES."""
    return name not in FIGURES or FIGURES[name].share


MEANS = ("accuracy", "format", "consistency", "semantic_grounding", "spatial_grounding", "box_iou")
"""Keys of an answer whose plain means training reports before and after."""


def means(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Mean of each of MEANS over the answers where it is defined; None where it is for none."""
    values = {name: [answer[name] for answer in answers if answer[name] is not None] for name in MEANS}
    return {name: float(np.mean(found)) if found else None for name, found in values.items()}


# ------------------------------------------------------------------------------------------------------------ estimates
@dataclasses.dataclass(frozen=True)
class Sums:
    """The columns of figures over the units of a set; `figures` names each one's figure, and those of one lie together.

    `sums` and `counts` are float64 [units, columns].
    """

    figures: tuple[str, ...]
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, units: Sequence[Unit], figures: Mapping[str, Figure]) -> Sums:
        """Of units of answers."""
        columns = [(name, column) for name, figure in figures.items() for column in figure.columns]
        cells = np.array([[column(unit) for _, column in columns] for unit in units], np.float64)
        cells = cells.reshape(len(units), len(columns), 2)
        return cls(tuple(name for name, _ in columns), cells[..., 0], cells[..., 1])

    def values(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """{figure: float64 [n]} under weights [n, units] of the units; NaN where a column is undefined."""
        total, count = weights @ self.sums, weights @ self.counts
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = total / count
        names = np.array(self.figures)
        return {name: columns[:, names == name].mean(axis=1) for name in dict.fromkeys(self.figures)}

    def count(self, name: str) -> int:
        """Answers (or units) that a figure is a mean over."""
        return int(self.counts[:, np.array(self.figures) == name].sum())


def group(answers: Sequence[Answer], unit: Callable[[Answer], str | None]) -> list[list[Answer]]:
    """Answers by unit, in the order they come; one whose unit is None is its own."""
    units: dict[Any, list[Answer]] = {}
    for place, answer in enumerate(answers):
        key = unit(answer)
        units.setdefault(place if key is None else key, []).append(answer)
    return list(units.values())


def resampled(units: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Weights float64 [n, units] of bootstrap samples: how often each unit is drawn. In pieces, `resamples` in all."""
    rng = np.random.default_rng(seed)
    left = resamples
    while left:
        rows = min(left, max(1, _CELLS // units))
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
        left -= rows


def seed_of(name: str) -> int:
    """Seed of the draws of one set: its name alone, so that a table is the same again, and sets are independent."""
    return zlib.crc32(name.encode())


def draws(sums: Sums, *, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """{figure: float64 [resamples]} under the same bootstrap samples of units."""
    parts = [sums.values(weights) for weights in resampled(len(sums.sums), resamples=resamples, seed=seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def point(sums: Sums) -> dict[str, float]:
    """{figure: its value}, NaN where it is undefined."""
    return {name: float(value[0]) for name, value in sums.values(np.ones((1, len(sums.sums)))).items()}


def estimate(value: float, drawn: np.ndarray, count: int) -> Estimate:
    """With the percentile interval of what was drawn; samples in which the figure is undefined are left out."""
    if not np.isfinite(value):
        return Estimate(None, None, None, 0)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high), count)
