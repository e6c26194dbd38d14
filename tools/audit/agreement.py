"""How far two judges agree: Cohen's kappa with an interval, who said what, and how often each said nothing.

Sentences of one response are no independent cases, so intervals draw whole responses (a cluster bootstrap).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ABSTAINED, FAILED = "abstained", "failed"
DRAWS = 2_000


@dataclasses.dataclass(frozen=True)
class Rating:
    """What a judge said of one case.

    Attributes:
      verdict: a word; None when there is none.
      why: when there is none: ABSTAINED, or the text of the failure.
    """

    verdict: str | None
    why: str = ""

    @property
    def word(self) -> str:
        """The verdict, 'abstained' or 'failed'."""
        if self.verdict is not None:
            return self.verdict
        return ABSTAINED if self.why == ABSTAINED else FAILED


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two ratings of one case, and the response it belongs to."""

    cluster: str
    a: Rating
    b: Rating


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Two judges on the same cases.

    Attributes:
      total: cases.
      decided: those on which both have a verdict; kappa, interval, agreed and confusion are of these.
      agreed: share of them with the same verdict; None when nothing is decided.
      kappa: Cohen's kappa; None when nothing is decided, or both know but one word.
      low, high: 95% percentile interval of kappa; None likewise.
      abstained, failed: of each judge, as shares of all cases.
      table: (word of a, word of b) → cases, 'abstained' and 'failed' among the words.
    """

    total: int
    decided: int
    agreed: float | None
    kappa: float | None
    low: float | None
    high: float | None
    abstained: tuple[float, float]
    failed: tuple[float, float]
    table: Mapping[tuple[str, str], int]

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        out = dataclasses.asdict(self)
        out["table"] = [{"a": a, "b": b, "cases": n} for (a, b), n in sorted(self.table.items())]
        return out


def compare(pairs: Sequence[Pair], *, seed: int = 0, draws: int = DRAWS) -> Agreement:
    """The agreement of two judges over cases."""
    table = Counter((pair.a.word, pair.b.word) for pair in pairs)
    both = [pair for pair in pairs if pair.a.verdict is not None and pair.b.verdict is not None]
    words = sorted({str(rating.verdict) for pair in both for rating in (pair.a, pair.b)})
    counts = _by_cluster(both, words)
    low, high = _interval(counts, seed=seed, draws=draws)

    def share(which: str, word: str) -> float:
        return sum(getattr(pair, which).word == word for pair in pairs) / len(pairs) if pairs else 0.0

    return Agreement(
        total=len(pairs),
        decided=len(both),
        agreed=float(sum(pair.a.verdict == pair.b.verdict for pair in both) / len(both)) if both else None,
        kappa=_number(kappa(counts.sum(0))),
        low=low,
        high=high,
        abstained=(share("a", ABSTAINED), share("b", ABSTAINED)),
        failed=(share("a", FAILED), share("b", FAILED)),
        table=dict(table),
    )


def kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960) of confusion counts [.., L, L]: (p_o − p_e) / (1 − p_e); NaN where p_e is 1 or nothing is.

    Returns:
      float64 [..].
    """
    counts = np.asarray(confusion, np.float64)
    total = counts.sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(counts, axis1=-2, axis2=-1) / total
        expected = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
        # By the counts and not by 1 − p_e == 0, which rounding may miss.
        constant = (counts.sum(-1) == total[..., None]).any(-1) & (counts.sum(-2) == total[..., None]).any(-1)
        return np.where(constant & (observed == 1), np.nan, (observed - expected) / (1 - expected))


def _by_cluster(both: Sequence[Pair], words: Sequence[str]) -> np.ndarray:
    """float64 [clusters, L, L] counts."""
    clusters = {name: at for at, name in enumerate(dict.fromkeys(pair.cluster for pair in both))}
    index = {word: at for at, word in enumerate(words)}
    counts = np.zeros((len(clusters), len(words), len(words)))
    for pair in both:
        counts[clusters[pair.cluster], index[str(pair.a.verdict)], index[str(pair.b.verdict)]] += 1
    return counts


def _interval(counts: np.ndarray, *, seed: int, draws: int) -> tuple[float | None, float | None]:
    """95% percentiles over draws of clusters with replacement; draws on which kappa is undefined are left out."""
    clusters, labels, _ = counts.shape
    if not clusters:
        return None, None
    times = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    drawn = kappa((times @ counts.reshape(clusters, -1)).reshape(draws, labels, labels))
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return None, None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _number(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
