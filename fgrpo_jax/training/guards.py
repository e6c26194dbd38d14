"""What watches over the steps of a run: warnings of what looks wrong, and reasons not to go on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.config.sections import Config
from fgrpo_jax.records import Rollouts, TrainState
from fgrpo_jax.rewards.judges.tally import Counts, FailureGuard, NoClaimWatch
from fgrpo_jax.training.collect import everywhere


class LogpGuard:
    """Compares the log-probs of sampler and learner, which are those of one model.

    Where both compute in float32 the largest difference of a step counts, else the mean.
    """

    def __init__(self, config: Config) -> None:
        self._limits, self._exact = config.rollout, config.model.compute_dtype == "float32"
        self._over = 0  # steps in a row beyond the limit

    def compare(self, rollouts: Rollouts, logps: np.ndarray) -> dict[str, float]:
        """Figures of the difference, for the row of a step.

        Args:
          rollouts: with the sampler's log-probs; numpy leaves.
          logps: float32 [M, G, T], the learner's.

        Raises:
          ValueError: they are two models.
        """
        mask, limits = rollouts.mask, self._limits
        difference = np.abs(rollouts.logps - logps)[mask]
        shift = (np.exp(logps) - np.exp(rollouts.logps))[mask]
        # What a truncated distribution keeps it makes likelier, so there only the other sign tells two models apart.
        truncated = limits.top_p < 1.0 or limits.top_k > 0 or limits.min_p > 0
        shift = np.maximum(shift, 0) if truncated else np.abs(shift)
        if self._exact:
            kind, value, warn, stop = "max", shift.max(), limits.logp_max_warn, limits.logp_max_stop
        else:
            kind, value, warn, stop = "mean", shift.mean(), limits.logp_mean_warn, limits.logp_mean_stop
        self._over = 0 if value <= stop else self._over + 1  # NaN is over
        message = f"sampler and learner give token probabilities that differ by {value:.3g} ({kind} of the step)"
        if self._over >= (1 if self._exact else limits.logp_patience):
            raise ValueError(
                f"{message}, above {stop}: they do not run the same model; compare their weights, positions and masks, "
                f"or raise config.rollout.logp_{kind}_stop"
            )
        if value > warn:
            warnings.warn(message, stacklevel=2)
        return {"sampler/logp_diff_max": float(difference.max()), "sampler/logp_diff_mean": float(difference.mean())}


class SaturationWatch:
    """Warns of constraints whose multiplier has come to its bound without bringing them about; once a run each."""

    def __init__(self, config: Config) -> None:
        self._constraints = config.constraints
        self._reported: set[str] = set()

    def look(self, saturated: Sequence[Any]) -> None:
        """Looks at a step.

        Args:
          saturated: for each constraint, whether it is violated with its multiplier at the bound.
        """
        for constraint, at_bound in zip(self._constraints, saturated, strict=True):
            if at_bound and constraint.name not in self._reported:
                self._reported.add(constraint.name)
                warnings.warn(
                    f"constraint '{constraint.name}' is violated with its multiplier at its bound {constraint.max}: "
                    f"mean {constraint.direction} {constraint.threshold} is probably infeasible; ease the threshold "
                    f"or raise config.constraints.{constraint.name}.max",
                    stacklevel=2,
                )


class JudgeWatch:
    """Looks at the judging of each step: its metrics, a warning when claims vanish, and when it fails too often.

    Attributes:
      trouble: why the run should not go on; None while it may.
    """

    def __init__(self, config: Config) -> None:
        section = self._section = config.judge
        self._failures = FailureGuard(most=section.max_failure_rate, least=section.min_failures, window=section.window)
        self._no_claim = NoClaimWatch()
        self._warned = False
        self.trouble: str | None = None

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes up the rows of metrics of the steps before a restart, without warning of them again."""
        for row in rows:
            self._no_claim.add(row["judge/no_claim"])

    def step(self, counts: Counts, diagnostics: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The values under 'judge/' of a step's row.

        Args:
          counts: of all judging of the step.
          diagnostics: of the batch as first drawn, see `rewards.score.score`.
        """
        judged, silent = int(diagnostics["judged"].sum()), int(diagnostics["no_claim"].sum())
        share = silent / judged if judged else None
        if warning := self._no_claim.add(share):
            warnings.warn(warning, stacklevel=2)
        if self._section.asks_a_model:  # all processes stop together, so all must know of all
            failed, asked = everywhere([counts.failed, counts.model]).sum(axis=0).tolist()
            self.trouble = self._failures.add(failed, asked)
        if counts.error and not self._warned:
            self._warned = True
            warnings.warn(
                f"{counts.failed} judgements failed and are masked, most of them: {counts.error}", stacklevel=2
            )
        if self.trouble is not None and counts.error:
            self.trouble += f", most of them now: {counts.error}"
        failed = int(diagnostics["judge_failed"].sum())
        return {"judge/failed": failed, "judge/no_claim": share, **counts.metrics()}


@dataclasses.dataclass(frozen=True)
class Guards:
    """All that watches over a run."""

    logps: LogpGuard
    saturation: SaturationWatch
    judging: JudgeWatch
    max_skipped: int

    @classmethod
    def of(cls, config: Config) -> Guards:
        """Those of a config."""
        return cls(LogpGuard(config), SaturationWatch(config), JudgeWatch(config), config.optim.max_skipped)

    def trouble(self, state: TrainState) -> str | None:
        """Why a run should stop after the step that led to a state, once that is saved; None while it may go on."""
        skipped = int(state.skipped)
        if skipped >= self.max_skipped:
            return (
                f"{skipped} updates in a row had a gradient that is not finite "
                f"(config.optim.max_skipped={self.max_skipped}); the last state is saved; look at the newest rows of "
                "metrics.jsonl and lower the learning rate"
            )
        if self.judging.trouble is None:
            return None
        return (
            f"{self.judging.trouble}; the last state is saved, and verdicts that came are in the cache: look after the "
            "judge (config.judge) and start the same command again, or raise config.judge.max_failure_rate"
        )
