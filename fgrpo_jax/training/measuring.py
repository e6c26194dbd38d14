"""Whether the training data can be measured by all that a run bounds or rewards, seen before its first step.

A signal that applies to no example is masked for ever: its multiplier stands still, and no figure says why.
"""

from __future__ import annotations

from fgrpo_jax.config.sections import Config, JudgeSection
from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.records import Example

A_READER = "somebody who reads free text; set config.judge.backend to 'server' or 'local' (docs/judges.md)"
BOXES = "gold boxes; give examples that have them, in a mix from a member with boxes=True (docs/data.md)"
TAKES = {"consistency": A_READER, "semantic_grounding": A_READER, "spatial_grounding": BOXES, "box_iou": BOXES}
"""The signals that do not apply to every example, and what they take."""


def require_measured(config: Config, source: Source) -> None:
    """Raises a ValueError where a signal that has a say applies to no training example: what it takes, and remedies."""
    left = {signal: off for signal, off in _needed(config).items() if signal in TAKES}
    # The built-in world's examples are alike, and there is no end of them.
    for index in range(100 if config.data.source == "world" else len(source)):
        if not left:
            return
        example = outline(source, index)
        left = {signal: off for signal, off in left.items() if not _applies(signal, example, config.judge)}
    for signal, off in left.items():
        raise ValueError(
            f"'{signal}' applies to none of the {len(source):,} training examples and would be masked for ever; it "
            f"takes {TAKES[signal]}, or do without it: {off}"
        )


def _needed(config: Config) -> dict[str, str]:
    """The signals that have a say in the advantage, and how each would lose it."""
    kind = config.algorithm.aggregation
    mixed = ("consistency", "spatial_grounding") if kind in ("additive", "multiplicative") else ()
    active = [c for c in config.active_constraints if kind == "fgrpo" or (kind == "gdpo" and c.weight > 0)]
    return {
        **{name: f"config.rewards.weights.{name}=0" for name, weight in config.rewards.weights.items() if weight},
        **dict.fromkeys(mixed, "another config.algorithm.aggregation"),
        **{c.measured: f"config.constraints.{c.name}.enabled=False" for c in active},
    }


def _applies(signal: str, example: Example, judge: JudgeSection) -> bool:
    if TAKES[signal] is BOXES:
        return bool(example.boxes)
    if signal == "consistency" and (example.query is not None or example.options):
        return True  # rules read which option a reasoning commits itself to
    return judge.asks_a_model or (judge.backend == "rules" and example.scene is not None)
