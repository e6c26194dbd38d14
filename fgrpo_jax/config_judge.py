"""Who judges a reasoning: the sections `config.judge` and `config.eval.judge`, and what must not combine in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fgrpo_jax.config_schema import AtLeast, Between

if TYPE_CHECKING:
    from fgrpo_jax.config import Config

Fraction = Annotated[float, Between(0.0, 1.0)]
Count = Annotated[int, AtLeast(1)]

FREE = ("max_failure_rate", "min_failures", "window")
"""Fields of a judge that may differ when a run is resumed: no verdict depends on them."""


@dataclasses.dataclass(frozen=True)
class JudgeSection:
    backend: Literal["rules", "none"]
    precheck: bool
    max_failure_rate: Fraction
    min_failures: Count
    window: Count

    @property
    def asks_a_model(self) -> bool:
        """Whether a model answers what rules leave open."""
        return self.backend not in ("rules", "none")


@dataclasses.dataclass(frozen=True)
class EvalJudgeSection(JudgeSection):
    backend: Literal["same", "rules", "none"]


def eval_judge(config: Config) -> JudgeSection:
    """The judge of evaluations: `config.eval.judge`, or the training judge where that says 'same'."""
    return config.judge if config.eval.judge.backend == "same" else config.eval.judge


def refuse_moved(raw: Mapping[str, Any]) -> None:
    """A field of earlier versions, by the name of the one that took its place."""
    if isinstance(rewards := raw.get("rewards"), Mapping) and "judge" in rewards:
        raise ValueError(
            f"config.rewards.judge={rewards['judge']!r} has moved: set config.judge.backend to the same value "
            "(rules | none; docs/judges.md)"
        )


def check_constraints(config: Config) -> None:
    """That somebody judges what is constrained."""
    if config.judge.backend == "none" and config.data.source == "world":
        for constraint in config.active_constraints:
            if constraint.signal == "semantic_grounding":
                raise ValueError(
                    "constraint 'semantic_grounding' needs a judge; set config.judge.backend='rules' or "
                    f"config.constraints.{constraint.name}.enabled=False"
                )
