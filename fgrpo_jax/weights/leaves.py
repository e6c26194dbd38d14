"""The weights of a model as a checkpoint sees them: paths, names, and blocks of numbers on their way.

Both directions (`importer` reads, `exporter` writes) are built on what stands here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fgrpo_jax.model.layers import ParamSpec
from fgrpo_jax.model.qwen2_5_vl import Model

Progress = Callable[[int], object]
"""Called, from any thread, with how many more bytes are done."""

THREADS = 4  # tensors in flight
_RENAMES = (("model.language_model.", "model."), ("model.visual.", "visual."))
BLOCK = 1 << 21  # numbers that are moved at a time: their source and their target stay in the cache
TILE = 256  # rows and columns that are turned together


def ignore(_: int) -> None:
    """No progress is shown."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One weight of the params."""

    path: str  # keys of the params dict, joined by dots; its name in a checkpoint
    spec: ParamSpec
    names: tuple[str, ...]  # hub names of its tensors, in layer order

    @property
    def stacked(self) -> bool:
        """Whether the first dimension counts layers, each a tensor of its own."""
        return self.spec.axes[0] == "layers"

    @property
    def piece(self) -> tuple[int, ...]:
        """Shape of what one tensor becomes."""
        return self.spec.shape[1:] if self.stacked else self.spec.shape

    @property
    def outputs(self) -> int:
        """How many of the last dimensions of a transposed piece are torch's first one."""
        sizes = self.piece[::-1]
        return next(k for k in range(1, len(sizes) + 1) if math.prod(sizes[:k]) == self.spec.hf.shape[0])


def leaves(model: Model) -> list[Leaf]:
    """Every weight of the model, in the order of the params' leaves."""
    return [Leaf(path, spec, _names(spec)) for path, spec in by_path(model.specs).items()]


def by_path(params: Any) -> dict[str, Any]:
    """Keys joined by dots -> leaf, in the order of the leaves."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _names(spec: ParamSpec) -> tuple[str, ...]:
    """Hub names of the tensors behind a leaf, in layer order."""
    if spec.axes[0] != "layers":
        return (spec.hf.name,)
    return tuple(spec.hf.name.format(layer) for layer in range(spec.shape[0]))


def hub_name(name: str) -> str:
    for new, hub in _RENAMES:
        if name.startswith(new):
            return hub + name[len(new) :]
    return name


def move(source: np.ndarray, target: np.ndarray) -> None:
    """target = source, cast; over plain integers, which numpy copies several times faster than ml_dtypes' numbers.

    What is turned on the way goes in square tiles: 1.1 GB/s of bfloat16 on a core, 0.4 without them (measured).
    """
    source = source.astype(target.dtype, copy=False)
    bits = f"u{target.dtype.itemsize}"
    source, target = source.view(bits), target.view(bits)
    if source.ndim != 2 or (source.strides[0] >= source.strides[1]) == (target.strides[0] >= target.strides[1]):
        target[...] = source
        return
    for row in range(0, source.shape[0], TILE):
        for column in range(0, source.shape[1], TILE):
            tile = (slice(row, row + TILE), slice(column, column + TILE))
            target[tile] = source[tile]
