"""What judging came to: shares, failures, latencies and tokens of a step, and when failures are too many to go on."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterable

import numpy as np

from fgrpo_jax.rewards.judges.protocol import Judgement


@dataclasses.dataclass(frozen=True)
class Counts:
    """Judgements that counted for a signal, by who made them; all but the first four are of the model alone."""

    rule: int = 0  # these three: how many came from each, those without a verdict too
    cache: int = 0
    model: int = 0
    abstained: int = 0  # how many the rules left open with no model behind them
    failed: int = 0  # requests to the model that came back without a verdict
    seconds: tuple[float, ...] = ()  # from asking the model to its answer, for each request
    tokens_in: int = 0  # what the model says it read
    tokens_out: int = 0  # and wrote
    error: str = ""  # why most of the failed ones failed; '' when none did

    def metrics(self) -> dict[str, float | int | None]:
        """By their names in a row; None where there is nothing to take a share or a percentile of."""
        everything, asked = self.rule + self.cache + self.model, self.model
        shares = {name: getattr(self, name) / everything if everything else None for name in ("rule", "cache", "model")}
        return {
            **{f"judge/share_{name}": share for name, share in shares.items()},
            "judge/requests": asked,
            "judge/failure_rate": self.failed / asked if asked else None,
            "judge/latency_p50": float(np.percentile(self.seconds, 50)) if self.seconds else None,
            "judge/latency_p95": float(np.percentile(self.seconds, 95)) if self.seconds else None,
            "judge/tokens_in": self.tokens_in or None,
            "judge/tokens_out": self.tokens_out or None,
            "judge/abstained": self.abstained,
        }


METRICS = tuple(Counts().metrics())
"""The names of `Counts.metrics`."""


class Tally:
    """Counts judgements as they come, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Judgement] = []

    def add(self, judgements: Iterable[Judgement]) -> None:
        """Counts these."""
        with self._lock:
            self._seen += judgements

    def take(self) -> Counts:
        """All that were counted since the last call."""
        with self._lock:
            seen, self._seen = self._seen, []
        by = collections.Counter(judgement.how for judgement in seen)
        asked = [judgement for judgement in seen if judgement.how == "model"]
        errors = collections.Counter(judgement.error for judgement in asked if judgement.failed)
        return Counts(
            rule=by["rule"],
            cache=by["cache"],
            model=by["model"],
            abstained=sum(judgement.abstained for judgement in seen),
            failed=sum(judgement.failed for judgement in asked),
            seconds=tuple(judgement.seconds for judgement in asked),
            tokens_in=sum(judgement.tokens_in for judgement in asked),
            tokens_out=sum(judgement.tokens_out for judgement in asked),
            error=errors.most_common(1)[0][0] if errors else "",
        )


class FailureGuard:
    """Says when a judge fails too often to train on what is left.

    Args:
      most: share of failed requests above which it is too often.
      least: failed requests below which a share says nothing yet.
      window: steps that are pooled.
    """

    def __init__(self, *, most: float, least: int, window: int) -> None:
        self.most, self.least = most, least
        self._steps: collections.deque[tuple[int, int]] = collections.deque(maxlen=window)

    def add(self, failed: int, asked: int) -> str | None:
        """Counts a step; what is wrong, or None."""
        self._steps.append((failed, asked))
        failed, asked = (sum(step[i] for step in self._steps) for i in (0, 1))
        if failed < max(self.least, 1) or failed <= self.most * asked:
            return None
        return (
            f"the judge failed on {failed} of {asked} requests of the last {len(self._steps)} steps "
            f"({failed / asked:.0%}, the limit is {self.most:.0%})"
        )


class NoClaimWatch:
    """Warns when the share of right answers that claim nothing doubles: a policy can learn to say nothing to judge.

    The first `window` steps with a share are what it is compared with, the mean of the last `window` is what it is now.
    """

    FLOOR = 0.05  # below this, twice as much is noise

    def __init__(self, *, window: int = 10) -> None:
        self._first: list[float] = []
        self._last: collections.deque[float] = collections.deque(maxlen=window)
        self._window = window
        self.warned = False

    def add(self, share: float | None) -> str | None:
        """Counts a step; what to warn of, once a run, or None."""
        if share is None:
            return None
        if len(self._first) < self._window:
            self._first.append(share)
            return None
        self._last.append(share)
        before, now = float(np.mean(self._first)), float(np.mean(self._last))
        if self.warned or len(self._last) < self._window or now < max(2 * before, self.FLOOR):
            return None
        self.warned = True
        return (
            f"reasoning without any visual claim has gone from {before:.1%} to {now:.1%} of the judged responses "
            "(judge/no_claim): the policy may be learning to claim nothing; see config.rewards.no_claim"
        )
