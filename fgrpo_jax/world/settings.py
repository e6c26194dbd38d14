"""Settings of the built-in world's reference traces: a section of the config."""

from __future__ import annotations

import dataclasses
from typing import Any

from fgrpo_jax.fields import NOT_NEGATIVE, field


@dataclasses.dataclass(frozen=True)
class FlawMix:
    """Weights of the kinds of flaw among flawed traces."""

    contradicts_right: float = field(0.3, "Sound reasoning, then another answer, which is wrong.", NOT_NEGATIVE)
    lucky: float = field(0.4, "A false claim that entails another option, then the right answer all the same.", NOT_NEGATIVE)
    wrong_box: float = field(0.15, "Right claim and answer, but an object pointed at in a wrong place.", NOT_NEGATIVE)
    false_claim: float = field(0.15, "Right claim and answer, and one more sentence, which is false.", NOT_NEGATIVE)

    def draw(self, rng: Any) -> str:
        """One kind at random by these weights; `rng` is a numpy generator."""
        kinds = [field.name for field in dataclasses.fields(self)]
        weights = [float(getattr(self, kind)) for kind in kinds]
        total = sum(weights)
        return kinds[int(rng.choice(len(kinds), p=[weight / total for weight in weights]))]
