"""Padded shapes: fixed ladders of lengths, or a few joint shapes chosen from what the data needs.

Each shape that a batch may have is one compiled program, and every padded token is work for nothing; more shapes waste
less and compile longer. `choose` finds the best few for batches that were measured (`PromptIterator.needs`).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from fgrpo_jax.data import images

PROMPT_STEP, PATCH_STEP = 32, 64
"""Chosen shapes are multiples of these: tiles of the matrix units, and whole attention windows."""


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Padded sizes of a batch, or what a batch needs at least."""

    prompt: int  # S, prompt tokens
    patches: int  # P, patches of an image slot
    images: int  # I, image slots of a prompt
    windows: int  # W, attention windows of an image slot

    @property
    def work(self) -> float:
        """What a row of this shape costs, in prompt tokens.

        Four patches, which become one token, count as one more: in the released shapes the tower has a fifth to a
        tenth of the weights, so that four patches in it cost about a token in the language model.
        """
        return self.prompt + self.images * self.patches / images.MERGE**2

    def holds(self, need: Shape) -> bool:
        """Whether a batch that needs `need` fits."""
        return all(a >= b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(need), strict=True))

    def join(self, other: Shape) -> Shape:
        """The smallest shape that holds both."""
        return Shape(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))

    @property
    def rounded(self) -> Shape:
        """The smallest multiple of the steps that holds it."""
        patches = _up(self.patches, PATCH_STEP)
        windows = max(self.windows, patches // PATCH_STEP)
        return Shape(_up(self.prompt, PROMPT_STEP), patches, max(self.images, 1), windows)


def _up(value: int, step: int) -> int:
    return max(step, -(-value // step) * step)


def ladder(smallest: int, largest: int, *, multiple: int) -> tuple[int, ...]:
    """Lengths in steps of about 1.25, each a multiple: few enough to compile, close enough to waste at most a fifth."""
    rungs = [smallest]
    while rungs[-1] < largest:
        rungs.append(max(rungs[-1] + multiple, -(-rungs[-1] * 5 // (4 * multiple)) * multiple))
    return tuple(rungs)


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The padded lengths that batches may have. One compile serves each combination met; single entries fix a shape."""

    prompt: tuple[int, ...] = ladder(32, 40960, multiple=32)  # S, prompt tokens
    completion: tuple[int, ...] = ladder(32, 20480, multiple=32)  # T of supervised batches, completion tokens
    patches: tuple[int, ...] = (64, *ladder(128, 65536, multiple=128))  # P, patches of an image slot, multiples of 4
    # I, image slots of a prompt, one for each pair of video frames. Text-only batches have one, all invalid.
    images: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
    # W, windows of an image slot, is P/64 times one of these; 4 always suffices (images one cell high).
    window_slack: tuple[float, ...] = (1.0, 1.25, 2.0, 4.0)
    # Joint shapes are tried before the ladders, and the cheapest that holds a batch is taken.
    shapes: tuple[Shape, ...] = ()

    def __post_init__(self) -> None:
        for name in ("prompt", "completion", "patches", "images", "window_slack"):
            rungs = getattr(self, name)
            if not rungs or min(rungs) <= 0 or list(rungs) != sorted(set(rungs)):
                raise ValueError(f"buckets.{name} must rise and be positive, got {rungs}")
        if odd := [n for n in (*self.patches, *(s.patches for s in self.shapes)) if n % images.MERGE**2]:
            raise ValueError(f"buckets.patches must be multiples of 4, got {odd}")

    @property
    def single(self) -> bool:
        """Whether every batch of prompts has the same shape."""
        rungs = (self.prompt, self.patches, self.images, self.window_slack)
        return not self.shapes and all(len(lengths) == 1 for lengths in rungs)

    def windows(self, patches: int) -> tuple[int, ...]:
        """The window counts W that go with a patch bucket."""
        return tuple(sorted({-(-int(patches * slack) // images.WINDOW_PATCHES) for slack in self.window_slack}))

    def fit(self, need: Shape) -> Shape:
        """The shape of a batch that needs `need`; ValueError for a length that no bucket holds."""
        for shape in sorted(self.shapes, key=lambda shape: shape.work):
            if shape.holds(need):
                return shape
        patches = rung(need.patches, self.patches, "patches of an image")
        return Shape(
            prompt=rung(need.prompt, self.prompt, "prompt tokens"),
            patches=patches,
            images=rung(need.images, self.images, "images of a prompt"),
            windows=rung(need.windows, self.windows(patches), "windows of an image"),
        )


def rung(needed: int, rungs: Sequence[int], what: str) -> int:
    """The smallest of rising `rungs` that holds `needed`; ValueError, naming `what`, when none does."""
    for size in rungs:
        if size >= needed:
            return size
    remedy = "add a larger bucket or shorten the input"
    raise ValueError(f"{needed} {what} do not fit the largest bucket, {rungs[-1]}; {remedy}")


def choose(needs: Iterable[Shape], *, count: int) -> tuple[Shape, ...]:
    """At most `count` shapes for batches of these needs, with the least padded work.

    The needs, in the order of their work, are cut into at most `count` runs by dynamic programming; each run is padded
    to its joint maximum. Of all such cuts the result is the best one.

    Raises:
      ValueError: no needs, or a count below 1.
    """
    seen = collections.Counter(need.rounded for need in needs)
    if not seen or count < 1:
        raise ValueError(f"choosing {count} shapes for {len(seen)} needs; both must be at least 1")
    order = sorted(seen, key=lambda shape: (shape.work, shape))
    size = len(order)
    # cost[j] is that of the first j needs with the shapes so far; `cuts` says where the last run of that cut begins.
    cost, cuts = [0.0] + [math.inf] * size, []
    for _ in range(min(count, size)):
        following, starts = [0.0] + [math.inf] * size, [0] * (size + 1)
        for end in range(1, size + 1):
            joint, rows = order[end - 1], 0
            for start in range(end - 1, -1, -1):
                joint, rows = joint.join(order[start]), rows + seen[order[start]]
                total = cost[start] + rows * joint.work
                if total < following[end]:
                    following[end], starts[end] = total, start
        cost = following
        cuts.append(starts)
    shapes, end = [], size
    for starts in reversed(cuts):
        if end:
            run = order[starts[end] : end]
            shapes.append(functools.reduce(Shape.join, run))
            end = starts[end]
    return tuple(sorted(set(shapes), key=lambda shape: (shape.work, shape)))


def padding(batch: Any) -> dict[str, float]:
    """Shares of a `PromptBatch` with numpy leaves that are padding: of its prompt tokens, and of its image patches.

    A batch without images wastes no patches, whatever its empty slot holds.
    """
    valid = batch.vision.valid
    used = valid.any(axis=-1)
    return {"tokens": float(1.0 - batch.mask.mean()), "patches": float(1.0 - valid.mean()) if used.any() else 0.0}
