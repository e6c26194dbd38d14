"""Which examples each step holds: shuffled epochs, cut into batches, grouped by what the examples need.

A batch is padded to its largest prompt, so small prompts in its company cost as much as the large. With `group` = K,
the prompts of K batches in a row are sorted by what they need and cut anew; the batches then come in an order of their
own, and so do the prompts in each. A window of K batches never reaches over the end of an epoch, and a batch that does
stays as it is: every epoch still holds every example exactly once, wherever a run stops.

Everything here is a function of (source, seed, batch size, group) and the number of the step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from fgrpo_jax.data.buckets import Shape

Need = Callable[[int], Shape]
"""What the example of an index needs of a batch."""


def step_indices(
    length: int, batch_size: int, *, seed: int | None, epochs: int | None, drop: bool, group: int, need: Need
) -> grain.MapDataset[np.ndarray]:
    """Indices int [batch_size] of each step, lazily. Epochs follow each other without a seam.

    Args:
      length: examples of the source.
      seed: of the shuffle, anew in every epoch; None keeps the order of the source.
      epochs: passes over the source; None goes on for ever.
      drop: whether a last incomplete batch is left out; it is shorter otherwise.
      group: batches of a window in which prompts are grouped; 0 and 1 group nothing.
      need: what they are grouped by; asked for the examples of a window when a step of it is.
    """
    indices: Any = grain.MapDataset.range(length)
    if seed is not None:
        indices = indices.seed(seed).shuffle()
    indices = indices.repeat(epochs) if epochs != 1 else indices
    batches = indices.batch(batch_size, drop_remainder=drop)
    if group < 2:
        return batches
    return grain.MapDataset.range(len(batches)).map(_Grouped(batches, length, batch_size, seed, group, need))


@dataclasses.dataclass
class _Grouped:
    """From the number of a step to its indices."""

    batches: Any  # grain.MapDataset of int [batch_size], without holes
    length: int
    batch_size: int
    seed: int | None
    group: int
    need: Need
    last: tuple[range, np.ndarray] | None = None  # the window arranged last, whose steps come next

    def __call__(self, step: int) -> np.ndarray:
        window = self.window(int(step))
        if window is None:
            return self.batches[int(step)]
        if self.last is None or self.last[0] != window:
            self.last = window, self._arranged(window)
        return self.last[1][int(step) - window.start]

    def window(self, step: int) -> range | None:
        """The steps among which this one's prompts are shared out; None for a batch of two epochs, or a short one."""
        begin, size = step * self.batch_size, self.batch_size
        epoch = begin // self.length
        if begin + size > (epoch + 1) * self.length:
            return None
        first, beyond = -(-epoch * self.length // size), (epoch + 1) * self.length // size
        start = step - (step - first) % self.group
        return range(start, min(start + self.group, beyond))

    def _arranged(self, window: range) -> np.ndarray:
        """int [steps of the window, batch_size]."""
        indices = np.concatenate([self.batches[step] for step in window])
        batches = indices[by_need([self.need(int(index)) for index in indices])].reshape(len(window), -1)
        if self.seed is None:
            return batches
        # Without this the updates of a step would see rising lengths, and so would the steps of a window.
        rng = np.random.default_rng([self.seed, window.start])
        return rng.permutation(rng.permuted(batches, axis=1))


def by_need(needs: Sequence[Shape]) -> np.ndarray:
    """The order of rising work in which equal needs stand together; it is stable."""
    return np.array(sorted(range(len(needs)), key=lambda row: (needs[row].work, needs[row])), np.int64)
