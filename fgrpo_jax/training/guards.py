"""What watches over the steps of a run: warnings of what looks wrong, and reasons not to go on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.config.sections import Config
from fgrpo_jax.records import Rollouts
from fgrpo_jax.rewards.judges.tally import Counts, FailureGuard, NoClaimWatch
from fgrpo_jax.training.collect import everywhere


class Guards:
    """Watches over one run of a config, step after step."""

    def __init__(self, config: Config) -> None:
        judge = config.judge
        self._config = config
        self._failures = FailureGuard(most=judge.max_failure_rate, least=judge.min_failures, window=judge.window)
        self._no_claim = NoClaimWatch()
        self._judge_trouble: str | None = None
        self._steps_over = 0  # in a row, in which the log-probs differed by more than their limit
        self._warned: set[str] = set()  # constraints, and 'judge'

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes up the rows of metrics of the steps before a restart, without warning of them again."""
        for row in rows:
            self._no_claim.add(row["judge/no_claim"])

    def logps(self, rollouts: Rollouts, logps: np.ndarray, *, stale: bool = False) -> dict[str, float]:
        """Compares the log-probs of sampler and learner, which are those of one model; figures for the row.

        Where both compute in float32 the largest difference of the step counts, else the mean. Two models are a
        ValueError.

        Args:
          rollouts: with the sampler's log-probs; numpy leaves.
          logps: float32 [M, G, T], the learner's.
          stale: the rollouts are of an earlier policy, so that a difference says nothing of two models.
        """
        mask, limits = rollouts.mask, self._config.rollout
        difference = np.abs(rollouts.logps - logps)[mask]
        shift = (np.exp(logps) - np.exp(rollouts.logps))[mask]
        # What a truncated distribution keeps it makes likelier, so there only the other sign tells two models apart.
        truncated = limits.top_p < 1.0 or limits.top_k > 0 or limits.min_p > 0
        shift = np.maximum(shift, 0) if truncated else np.abs(shift)
        if self._config.model.compute_dtype == "float32":
            kind, value, warn, stop, patience = "max", shift.max(), limits.logp_max_warn, limits.logp_max_stop, 1
        else:
            kind, value, warn, stop = "mean", shift.mean(), limits.logp_mean_warn, limits.logp_mean_stop
            patience = limits.logp_patience
        figures = {"sampler/logp_diff_max": float(difference.max()), "sampler/logp_diff_mean": float(difference.mean())}
        if stale:
            return figures
        self._steps_over = 0 if value <= stop else self._steps_over + 1  # NaN is over
        message = f"sampler and learner give token probabilities that differ by {value:.3g} ({kind} of the step)"
        if self._steps_over >= patience:
            raise ValueError(
                f"{message}, above {stop}: they do not run the same model; compare their weights, positions and masks, "
                f"or raise config.rollout.logp_{kind}_stop"
            )
        if value > warn:
            warnings.warn(message, stacklevel=2)
        return figures

    def saturation(self, saturated: Sequence[Any]) -> None:
        """Warns, once a run each, of constraints that are violated with their multiplier at its bound."""
        for constraint, at_bound in zip(self._config.constraints, saturated, strict=True):
            if at_bound and self._first(constraint.name):
                warnings.warn(
                    f"constraint '{constraint.name}' is violated with its multiplier at its bound {constraint.max}: "
                    f"mean {constraint.direction} {constraint.threshold} is probably infeasible; ease the threshold "
                    f"or raise config.constraints.{constraint.name}.max",
                    stacklevel=2,
                )

    def judging(self, counts: Counts, diagnostics: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The values under 'judge/' of a step's row; warns when claims vanish and when judgements fail.

        Args:
          counts: of all judging of the step.
          diagnostics: of the batch as first drawn, see `rewards.score.score`.
        """
        judged, silent = int(diagnostics["judged"].sum()), int(diagnostics["no_claim"].sum())
        share = silent / judged if judged else None
        if warning := self._no_claim.add(share):
            warnings.warn(warning, stacklevel=2)
        if self._config.judge.asks_a_model:  # all processes stop together, so all must know of all
            failed, asked = everywhere([counts.failed, counts.model]).sum(axis=0).tolist()
            self._judge_trouble = self._failures.add(failed, asked)
        if counts.error and self._first("judge"):
            what = f"{counts.failed} judgements failed and are masked, most of them: {counts.error}"
            warnings.warn(what, stacklevel=2)
        if self._judge_trouble is not None and counts.error:
            self._judge_trouble += f", most of them now: {counts.error}"
        failed = int(diagnostics["judge_failed"].sum())
        return {"judge/failed": failed, "judge/no_claim": share, **counts.metrics()}

    def trouble(self, skipped: int) -> str | None:
        """Why a run should stop after a step, once its state is saved; None while it may go on.

        Args:
          skipped: updates in a row that were skipped, as the state counts them.
        """
        limit = self._config.optim.max_skipped
        if skipped >= limit:
            return (
                f"{skipped} updates in a row had a gradient that is not finite (config.optim.max_skipped={limit}); the "
                "last state is saved; look at the newest rows of metrics.jsonl and lower the learning rate"
            )
        return self._judge_trouble and (
            f"{self._judge_trouble}; the last state is saved, and verdicts that came are in the cache: look after the "
            "judge (config.judge) and start the same command again, or raise config.judge.max_failure_rate"
        )

    def _first(self, name: str) -> bool:
        """Whether this is the first warning about a name."""
        first = name not in self._warned
        self._warned.add(name)
        return first
