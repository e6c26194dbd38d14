"""Two signals of your own on the built-in world: one weighed in the reward, one bounded by a constraint.

    python -m fgrpo_jax.train --config=configs/custom_reward.py --workdir=runs/custom

Functions usually live in a package or a file of yours; docs/rewards.md says what they are given and may return.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from fgrpo_jax.configs import default, tiny
from fgrpo_jax.reading.parsing import Parsed
from fgrpo_jax.rewards.custom import signal


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.rewards.custom.points = "fgrpo_jax.configs.custom_reward:points"
    config.rewards.custom.brevity = "fgrpo_jax.configs.custom_reward:brevity"
    config.rewards.weights.points = 0.2
    config.constraints.brevity = default.constraint(0.9)
    return config


@signal("the reasoning points at what it speaks of", low=0, high=1)
def points(parsed: Sequence[Parsed], **_) -> list[float | None]:
    """Boxes a sentence, up to one; does not apply where there is no reasoning."""
    return [min(len(p.boxes) / len(p.sentences), 1.0) if p.sentences else None for p in parsed]


@signal("no sentence is longer than 20 words", low=0, high=1)
def brevity(parsed: Sequence[Parsed], **_) -> list[float | None]:
    """1 or 0."""
    return [float(max(map(len, map(str.split, p.sentences)), default=0) <= 20) for p in parsed]
