"""Two evaluations of the same questions: paired differences with intervals, and whether they could be chance.

Questions pair by id. A difference is of the means over the answers that both runs define; its interval comes from
resampling units (`figures`), both runs under the same draws. For accuracy there is McNemar's exact test besides: of
the units that one run has right and the other wrong, is either way the likelier? Where many differences are looked at,
some are large by chance alone, so the tests of one comparison are adjusted together (Holm 1979).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.evaluation import benchmarks, figures
from fgrpo_jax.evaluation.benchmarks import SEVEN
from fgrpo_jax.evaluation.figures import FIGURES, RESAMPLES, Answer, Figure

UNPAIRED = ("accuracy", "inconsistency_correct")
"""Figures that are not compared: one is the paper's accuracy again, one is over other questions in each run."""

JUDGED = ("consistency", "semantic_grounding", "spatial_grounding", "box_iou")


@dataclasses.dataclass(frozen=True)
class Difference:
    """One figure of a set in two runs.

    Attributes:
      before, after: in the first and the other run, over what both define.
      low, high: 95% interval of `after - before`.
      count: answers (or units) that both define.
    """

    name: str
    before: float
    after: float
    low: float
    high: float
    count: int

    @property
    def change(self) -> float:
        """after − before."""
        return self.after - self.before

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in result files."""
        return {**dataclasses.asdict(self), "change": self.change}


@dataclasses.dataclass(frozen=True)
class McNemar:
    """The exact test on the units of a set.

    Attributes:
      gained, lost: units that only the other run, or only the first, has right.
      p: two-sided, under equal odds of both.
      adjusted: the same after Holm's adjustment over all tests of the comparison.
    """

    gained: int
    lost: int
    p: float
    adjusted: float


@dataclasses.dataclass(frozen=True)
class SetComparison:
    """One set in two runs; `drawn` are the bootstrap values of each difference, for the average over sets."""

    name: str
    differences: Mapping[str, Difference]
    mcnemar: McNemar
    drawn: Mapping[str, np.ndarray]


def compare(
    first: Mapping[str, Sequence[Answer]],
    others: Mapping[str, Mapping[str, Sequence[Answer]]],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, list[SetComparison]]:
    """The sets that each other run shares with the first, by the name of the run; p-values adjusted over all."""
    raw = {}
    for run, other in others.items():
        shared = [name for name in first if name in other]
        if not shared:
            raise ValueError(
                f"{run} shares no set with the first run: that has {', '.join(first)}, {run} has {', '.join(other)}"
            )
        raw[run] = [_set(name, first[name], other[name], resamples=resamples) for name in shared]
    values = iter(holm([one.mcnemar.p for found in raw.values() for one in found]))
    adjusted = lambda one: dataclasses.replace(one.mcnemar, adjusted=next(values))  # noqa: E731
    return {run: [dataclasses.replace(one, mcnemar=adjusted(one)) for one in found] for run, found in raw.items()}


def _set(name: str, first: Sequence[Answer], other: Sequence[Answer], *, resamples: int) -> SetComparison:
    how = benchmarks.find(name)
    one, two = _in_pairs(name, first, other)
    measured: dict[str, Figure] = {"accuracy_paper": how.paper}
    measured |= {} if how.official is how.paper else {"accuracy_official": how.official}
    measured |= {key: figure for key, figure in FIGURES.items() if key not in UNPAIRED}
    units = [figures.group(answers, how.unit_of) for answers in (one, two)]
    a, b = (figures.Sums.of(found, measured) for found in units)
    values = figures.point(a), figures.point(b)
    parts = [
        {key: b.values(weights)[key] - value for key, value in a.values(weights).items()}
        for weights in figures.resampled(len(a.sums), resamples=resamples, seed=figures.seed_of(name))
    ]
    drawn = {key: np.concatenate([part[key] for part in parts]) for key in measured}
    differences = {}
    for key in measured:
        before, after = values[0][key], values[1][key]
        if np.isfinite(before) and np.isfinite(after):
            low, high = np.nanpercentile(drawn[key], [2.5, 97.5])
            differences[key] = Difference(key, before, after, float(low), float(high), a.count(key))
    right = [np.array([all(answer["accuracy"] > 0 for answer in unit) for unit in found]) for found in units]
    return SetComparison(name, differences, mcnemar(*right), drawn)


def paired(
    name: str, before: Sequence[Answer], after: Sequence[Answer], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """The paired difference of one number of single answers, as training shows it before and after.

    Args:
      name: key of the number in the answers; None marks it undefined for a question.
      before, after: one answer a question, in any order.
    """
    first, second = _by_id(before, after, what="the two evaluations hold different questions")
    pairs = [(first[i][name], second[i][name]) for i in sorted(first, key=str)]
    values = np.asarray([(a, b) for a, b in pairs if a is not None and b is not None], np.float64)
    if not len(values):
        raise ValueError(f"no question has '{name}' in both evaluations")
    change, rng = values[:, 1] - values[:, 0], np.random.default_rng(seed)
    means = [change[rng.integers(len(change), size=len(change))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(name, values[:, 0].mean(), values[:, 1].mean(), float(low), float(high), len(values))


def table(found: Sequence[Difference]) -> str:
    """Paired differences of shares as plain text: one a line, percentages with one digit."""
    lines = [f"{'held-out figure':<22}{'before':>9}{'after':>9}{'change':>9}   95% interval        n"]
    for one in found:
        lines.append(
            f"{one.name:<22}{100 * one.before:>8.1f}%{100 * one.after:>8.1f}%{100 * one.change:>+8.1f} "
            f"  [{100 * one.low:+.1f}, {100 * one.high:+.1f}]{one.count:>10}"
        )
    return "\n".join(lines)


def _by_id(*runs: Sequence[Answer], what: str) -> list[dict[str, Answer]]:
    """The answers of two runs by the ids of their questions, which must be the same; `what` begins the error."""
    one, two = ({answer["id"]: answer for answer in answers} for answers in runs)
    if odd := sorted(map(str, one.keys() ^ two.keys())):
        raise ValueError(f"{what} ({len(odd)} ids in one only, such as {odd[0]})")
    return [one, two]


def _in_pairs(name: str, first: Sequence[Answer], other: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """The answers of both runs in one order; what one of them leaves undefined, both do."""
    here, there = _by_id(first, other, what=f"set '{name}' holds different questions in the two runs")
    one, two = [], []
    for key, mine in here.items():
        theirs = there[key]
        unknown = {field: None for field in JUDGED if mine[field] is None or theirs[field] is None}
        one.append({**mine, **unknown})
        two.append({**theirs, **unknown})
    return one, two


def mcnemar(first: np.ndarray, other: np.ndarray) -> McNemar:
    """McNemar's exact test of two bool arrays [units]; p is 1 where they differ nowhere."""
    gained, lost = int((~first & other).sum()), int((first & ~other).sum())
    changed = gained + lost
    tail = sum(math.comb(changed, count) for count in range(min(gained, lost) + 1))
    p = min(1.0, 2 * tail / 2**changed)
    return McNemar(gained, lost, p, p)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false finding among them stays below the level (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    out, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        out[place] = largest
    return out


def average(found: Sequence[SetComparison]) -> dict[str, Difference]:
    """Unweighted means over the sets of the paper's seven that are compared, each figure over those that have it.

    `count` is the number of sets.
    """
    seven = [one for one in found if one.name.partition("-")[0] in SEVEN]
    out = {}
    for key in dict.fromkeys(key for one in seven for key in one.differences):
        having = [one for one in seven if key in one.differences]
        before, after = (
            float(np.mean([getattr(one.differences[key], end) for one in having])) for end in ("before", "after")
        )
        low, high = np.nanpercentile(np.mean([one.drawn[key] for one in having], axis=0), [2.5, 97.5])
        out[key] = Difference(key, before, after, float(low), float(high), len(having))
    return out


def to_json(found: Sequence[SetComparison]) -> dict[str, Any]:
    """As it stands in comparison.json."""
    plain = lambda some: {key: difference.json for key, difference in some.items()}  # noqa: E731
    sets = {
        one.name: {"differences": plain(one.differences), "mcnemar": dataclasses.asdict(one.mcnemar)} for one in found
    }
    return {"sets": sets, "average": plain(average(found))}
