"""Paired comparison of two evaluations of the same questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

Row = Mapping[str, float | str | None]


@dataclasses.dataclass(frozen=True)
class Paired:
    """Mean of a figure before and after over the questions where both are defined, and the interval of the change."""

    name: str
    before: float
    after: float
    low: float  # 2.5% point of the mean paired difference
    high: float  # 97.5% point
    count: int

    @property
    def change(self) -> float:
        """Mean paired difference."""
        return self.after - self.before


def paired(name: str, before: Sequence[Row], after: Sequence[Row], *, resamples: int = 10_000, seed: int = 0) -> Paired:
    """Percentile bootstrap over questions of the mean paired difference.

    Args:
      name: key of the figure in the rows; None marks it undefined for a question.
      before: one row a question, with 'id'.
      after: the same questions in any order.

    Raises:
      ValueError: if the two do not hold the same ids, or no question has both figures.
    """
    first = {row["id"]: row for row in before}
    second = {row["id"]: row for row in after}
    if first.keys() != second.keys():
        odd = sorted(map(str, first.keys() ^ second.keys()))
        raise ValueError(f"the two evaluations hold different questions ({len(odd)} ids in one only, such as {odd[0]})")
    pairs = [(first[i][name], second[i][name]) for i in sorted(first, key=str)]
    values = np.asarray([(a, b) for a, b in pairs if a is not None and b is not None], np.float64)
    if not len(values):
        raise ValueError(f"no question has '{name}' in both evaluations")
    difference = values[:, 1] - values[:, 0]
    rng = np.random.default_rng(seed)
    means = np.asarray(
        [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(resamples)]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Paired(name, values[:, 0].mean(), values[:, 1].mean(), float(low), float(high), len(values))


def table(rows: Sequence[Paired]) -> str:
    """A plain-text table, one figure a line, percentages with one digit."""
    lines = [f"{'held-out figure':<22}{'before':>9}{'after':>9}{'change':>9}   95% interval        n"]
    for row in rows:
        lines.append(
            f"{row.name:<22}{100 * row.before:>8.1f}%{100 * row.after:>8.1f}%{100 * row.change:>+8.1f} "
            f"  [{100 * row.low:+.1f}, {100 * row.high:+.1f}]{row.count:>10}"
        )
    return "\n".join(lines)
