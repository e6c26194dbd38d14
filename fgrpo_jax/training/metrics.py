"""Names and numbers of what a run reports, and the file they go into.

One row a rollout step. Every name is in every row; a value that is undefined (no applicable rollout, a constraint
switched off) is None and becomes JSON null, never NaN and never left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgrpo_jax.records import Rollouts, Signals
from fgrpo_jax.rewards.judges.tally import METRICS as JUDGING

Row = dict[str, float | int | None]

PER_CONSTRAINT = ("mean", "applicable", "lambda", "violation", "saturated")

_REWARDS = ("reward/task", "reward/accuracy", "reward/format")

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

VOLATILE = (
    *("time/*", "*tokens_per_second", "compile/count"),
    *("judge/share_cache", "judge/share_model", "judge/requests", "judge/failure_rate"),  # what the cache held before
    *("judge/latency_*", "judge/tokens_*"),
)
"""Names, as patterns, that differ between two runs of the same seed on the same machine."""


def train_names(constraints: Sequence[str], *, importance: bool = False, custom: Iterable[str] = ()) -> tuple[str, ...]:
    """The keys of a row of metrics.jsonl, in order.

    Args:
      constraints: names of all constraints, in force or not.
      importance: whether the run corrects for its sampler.
      custom: names of the user's own signals.
    """
    per_constraint = [f"constraint/{name}/{what}" for name in constraints for what in PER_CONSTRAINT]
    shares = [f"advantage/share/{name}" for name in ("task", *constraints)]
    own = [f"reward/custom/{name}" for name in custom]
    return ("step", *_REWARDS, *per_constraint, *shares, *_COMMON, *(IMPORTANCE if importance else ()), *own)


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
    """All `names` in order, those without a value as None.

    Raises:
      ValueError: a value under a name that is not declared.
    """
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"metric '{unknown[0]}' is not declared; add it to train_names")
    return {name: number(values.get(name)) for name in names}


def postfix(current: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, str]:
    """Figures for the progress bar: {label: metric name} → {label: text}; '–' where undefined."""
    texts = {}
    for label, name in shown.items():
        value = current.get(name)
        texts[label] = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return texts


# -------------------------------------------------------------------------------------------------------------- writers
class JsonlWriter:
    """Appends one JSON object a line, flushed at once.

    Args:
      path: the file; its folder is made.
      resume_step: keep only the rows whose `key` is at most this (a resumed run writes the later ones again); None
        keeps all.
      key: name of the step in a row.

    Raises:
      ValueError: a line in the middle of the file that is not JSON. (A cut last line, as a killed run leaves it, is
        dropped.)
    """

    def __init__(self, path: str | os.PathLike[str], *, resume_step: int | None = None, key: str = "step"):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._truncate(resume_step, key)
        self._file = self.path.open("a", encoding="utf8")

    def _truncate(self, resume_step: int | None, key: str) -> None:
        rows = read_jsonl(self.path)
        kept = [r for r in rows if resume_step is None or r[key] <= resume_step]
        text = "".join(_line(r) for r in kept)
        if text != self.path.read_text(encoding="utf8"):
            # Beside, then renamed: a kill in between must not cost the rows of the whole run.
            beside = self.path.with_name(self.path.name + ".tmp")
            beside.write_text(text, encoding="utf8")
            beside.replace(self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; a NaN or infinity in it is an error (use `row` to turn it into null)."""
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All records of a file; a last line cut short by a kill is left out.

    Raises:
      ValueError: any other line that is not JSON, with its number.
    """
    lines = Path(path).read_text(encoding="utf8").split("\n")  # splitlines would also split at U+2028 in a text
    records = []
    for index, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if index == len(lines) - 1:
                break
            raise ValueError(f"{path}:{index + 1} is not JSON ({error.msg}); repair or remove the line") from error
    return records
