"""A rollout batch on the host, scored, and how groups of it are replaced by others."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fgrpo_jax.data.pipeline import PromptIterator
from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.records import Example, PromptBatch, Rollouts, Signals

PROMPT_AXIS = {"task": 0, "accuracy": 0, "format": 0, "values": 1, "mask": 1}
"""Arrays of `Signals`, and which of their axes the prompts are: those of constraints are [C, M, G]."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """Prompts of this process with what was drawn and earned; numpy leaves.

    Attributes:
      texts: [M][G], the responses.
      diagnostics: of `rewards.score.score`.
      placed: the prompts on the devices; None where they are not there.
      replaced: how many groups stand in the place of dead ones.
    """

    examples: Sequence[Example]
    encoded: Sequence[EncodedPrompt]
    prompts: PromptBatch
    rollouts: Rollouts
    texts: Sequence[Sequence[str]]
    signals: Signals
    diagnostics: dict[str, np.ndarray]
    placed: Any = None
    replaced: int = 0

    def with_groups(self, rows: np.ndarray, other: Collected, others: np.ndarray, *, data: PromptIterator) -> Collected:
        """This batch with its groups `rows` replaced by the groups `others` of another, padded to one shape again."""
        place = dict(zip(rows.tolist(), others.tolist(), strict=True))

        def pick(mine: Sequence[Any], theirs: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(theirs[place[row]] if row in place else item for row, item in enumerate(mine))

        def put(axis: int, mine: Any, theirs: Any) -> Any:
            out, at = np.array(mine), (slice(None),) * axis
            out[(*at, rows)] = np.asarray(theirs)[(*at, others)]
            return out

        first = lambda a, b: jax.tree.map(lambda x, y: put(0, x, y), a, b)  # noqa: E731
        signals = {
            name: put(axis, getattr(self.signals, name), getattr(other.signals, name))
            for name, axis in PROMPT_AXIS.items()
        }
        examples, encoded = pick(self.examples, other.examples), pick(self.encoded, other.encoded)
        occurrence = put(0, self.prompts.occurrence, other.prompts.occurrence)
        return Collected(
            examples=examples,
            encoded=encoded,
            prompts=data.join(encoded, occurrence=occurrence),
            rollouts=first(self.rollouts, other.rollouts),
            texts=pick(self.texts, other.texts),
            signals=Signals(**signals),
            diagnostics=first(self.diagnostics, other.diagnostics),
            replaced=self.replaced + len(rows),
        )

    def lines(self, step: int, lam: Mapping[str, float]) -> list[dict[str, Any]]:
        """A JSON object a prompt, with its rollouts and what they earned; `lam` is in the order of the signals."""
        return [
            {
                "step": step,
                "id": example.id,
                "question": example.question,
                "options": list(example.options),
                "gold": example.answer,
                "lambda": dict(lam),
                "rollouts": [self._sample(row, g, tuple(lam)) for g in range(len(self.texts[row]))],
            }
            for row, example in enumerate(self.examples)
        ]

    def _sample(self, row: int, g: int, names: Sequence[str]) -> dict[str, Any]:
        signals, rollouts = self.signals, self.rollouts
        values, mask = signals.values[:, row, g], signals.mask[:, row, g]
        return {
            "text": self.texts[row][g],
            "tokens": int(rollouts.mask[row, g].sum()),
            "finished": bool(rollouts.finished[row, g]),
            "accuracy": float(signals.accuracy[row, g]),
            "format": float(signals.format[row, g]),
            **{name: float(value) if known else None for name, value, known in zip(names, values, mask, strict=True)},
        }


def anywhere(flags: np.ndarray) -> bool:
    """Whether any process has a True: what all of them decide alike."""
    return bool(everywhere(flags).any())


def everywhere(values: Any) -> np.ndarray:
    """The values of all processes, [process, ...]."""
    mine = np.asarray(values)
    return mine[None] if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(mine))


SUMMED = (
    *("sampler/tokens", "sampler/tokens_per_second", "rollout/dead_groups", "rollout/resampled"),
    *("judge/failed", "judge/abstained"),
)
"""Metrics that count what a process has of its own; of those named *_max the largest is taken, of others the mean."""


def together(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metrics of one step over all processes, each of which has as many prompts; None where no process has a value."""
    if jax.process_count() == 1:
        return values
    mine = [np.nan if value is None else float(value) for value in values.values()]
    every = np.asarray(everywhere(np.array(mine, np.float32)), np.float64)
    return {name: _joined(name, found[~np.isnan(found)]) for name, found in zip(values, every.T, strict=True)}


def _joined(name: str, found: np.ndarray) -> float | int | None:
    if not found.size:
        return None
    if name in SUMMED:
        value = found.sum()
    else:
        value = found.max() if name.endswith("_max") else found.mean()
    return int(value) if value == int(value) else float(value)


def suffix() -> str:
    """What a process adds to the names of files that each writes for itself; nothing for the first."""
    return f".{jax.process_index()}" if jax.process_index() else ""


def redrawn(prompts: PromptBatch, earlier: Iterable[np.ndarray]) -> PromptBatch:
    """Prompts of a further draw of a step: occurrences go on from the draws before, so that no noise comes twice.

    Those draws are given by their prompt ids, of all processes.
    """
    before = Counter(int(i) for ids in earlier for i in np.ravel(ids))
    more = np.array([before[int(i)] for i in np.asarray(prompts.prompt_id)], np.uint32)
    return prompts.replace(occurrence=np.asarray(prompts.occurrence) + more)  # type: ignore[attr-defined]
