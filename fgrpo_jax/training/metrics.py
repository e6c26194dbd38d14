"""Names and numbers of what a run reports.

One row a rollout step. Every name is in every row; a value that is undefined (no applicable rollout, a constraint
switched off) is None and becomes JSON null, never NaN and never left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.records import Rollouts, Signals
from fgrpo_jax.rewards.judges.tally import METRICS as JUDGING

Row = dict[str, float | int | None]

PER_CONSTRAINT = ("mean", "applicable", "lambda", "violation", "saturated")

_COMMON = (
    *("loss/policy", "loss/kl"),
    *("sampler/logp_diff_max", "sampler/logp_diff_mean", "sampler/tokens", "sampler/tokens_per_second"),
    "judge/failed",
    *("optim/grad_norm", "optim/skipped", "optim/moved_share", "compile/count"),
    *("time/rollout", "time/reward", "time/learner", "time/data"),
    *("loss/total", "policy/entropy", "policy/clip_share", "rollout/length", "rollout/truncated", "judge/no_claim"),
    *JUDGING,
    *("data/padding_waste", "data/padding_waste_patches"),
    *("rollout/dead_groups", "rollout/resampled"),
)

IMPORTANCE = ("importance/mean", "importance/max", "importance/capped_share", "importance/ess")
"""In every row of a run that corrects for its sampler; in none of the others."""

AHEAD = ("rollout/staleness",)
"""In every row of a run that draws ahead: updates between the policy that drew and the one that learns."""

VOLATILE = (
    *("time/*", "*tokens_per_second", "compile/count"),
    *("judge/share_cache", "judge/share_model", "judge/requests", "judge/failure_rate"),  # what the cache held before
    *("judge/latency_*", "judge/tokens_*"),
)
"""Names, as patterns, that differ between two runs of the same seed on the same machine."""


def train_names(
    constraints: Sequence[str], *, importance: bool = False, ahead: bool = False, custom: Iterable[str] = ()
) -> tuple[str, ...]:
    """The keys of a row of metrics.jsonl, in order.

    Args:
      constraints, custom: names of all constraints, in force or not, and of the user's own signals.
      importance, ahead: whether the run corrects for its sampler, and draws ahead of its learner.
    """
    per_constraint = [f"constraint/{name}/{what}" for name in constraints for what in PER_CONSTRAINT]
    shares = [f"advantage/share/{name}" for name in ("task", *constraints)]
    own = [f"reward/custom/{name}" for name in custom]
    rewards = ("reward/task", "reward/accuracy", "reward/format")
    some = (*(IMPORTANCE if importance else ()), *(AHEAD if ahead else ()))
    return ("step", *rewards, *per_constraint, *shares, *_COMMON, *some, *own)


def number(value: Any) -> float | int | None:
    """A Python number of a scalar (numpy, jax or Python); None for None, NaN and infinities."""
    if value is None:
        return None
    value = value.item() if not isinstance(value, bool | int | float) else value
    if isinstance(value, bool):
        return int(value)
    return value if math.isfinite(value) else None


def violation(mean: float | None, threshold: float, *, direction: str) -> float | None:
    """How far a constraint is from being met, positive = violated: τ − mean for '>=', mean − τ for '<='."""
    if mean is None:
        return None
    return threshold - mean if direction == ">=" else mean - threshold


def of_rollouts(rollouts: Rollouts, signals: Signals) -> dict[str, Any]:
    """Means over the rollouts of a step; numpy leaves."""
    return {
        "reward/task": signals.task.mean(),
        "reward/accuracy": signals.accuracy.mean(),
        "reward/format": signals.format.mean(),
        "rollout/length": rollouts.mask.sum(-1).mean(),
        "rollout/truncated": 1.0 - rollouts.finished.mean(),
    }


def of_learner(figures: Mapping[str, Any], constraints: Sequence[Any]) -> dict[str, Any]:
    """The figures of a learner step by their names in a row.

    Args:
      figures: scalars by their names; arrays 'advantage/share' [1 + C] and 'constraint/*' [C].
      constraints: of the config, in the order of the arrays.
    """
    out: dict[str, Any] = {"advantage/share/task": figures["advantage/share"][0]}
    for index, constraint in enumerate(constraints):
        applicable = int(figures["constraint/applicable"][index])
        mean = float(figures["constraint/mean"][index]) if applicable else None
        name = f"constraint/{constraint.name}"
        out[f"{name}/mean"], out[f"{name}/applicable"] = mean, applicable
        out[f"{name}/lambda"] = figures["constraint/lambda"][index]
        out[f"{name}/saturated"] = figures["constraint/saturated"][index]
        out[f"{name}/violation"] = violation(mean, constraint.threshold, direction=constraint.direction)
        out[f"advantage/share/{constraint.name}"] = figures["advantage/share"][1 + index]
    return out | {name: value for name, value in figures.items() if np.ndim(value) == 0}


def row(names: Sequence[str], values: Mapping[str, Any]) -> Row:
    """All `names` in order, those without a value as None; a value under another name is a ValueError."""
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"metric '{unknown[0]}' is not declared; add it to train_names")
    return {name: number(values.get(name)) for name in names}


def up_to(step: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Keeps the rows of the steps that a checkpoint holds; a run that goes on from it writes the later ones again."""
    return lambda rows: [row for row in rows if row["step"] <= step]


def postfix(current: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, str]:
    """Figures for the progress bar: {label: metric name} → {label: text}; '–' where undefined."""
    texts = {}
    for label, name in shown.items():
        value = current.get(name)
        texts[label] = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return texts
