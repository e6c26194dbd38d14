"""What becomes of a checkpoint's tensors, as a table: for planning a slice before anything is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jax.sharding import AbstractMesh

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights.leaves import Leaf, leaves


@dataclasses.dataclass(frozen=True)
class Row:
    """One weight of the params."""

    name: str  # hub name of its tensors, '{0-35}' where there is one a layer
    hf_shape: tuple[int, ...]  # of one tensor
    path: str  # keys of the params dict, joined by dots
    shape: tuple[int, ...]  # of the array
    sharding: tuple[str | None, ...]  # mesh axis of each dimension, trailing whole ones left out
    nbytes: int  # on each device


def rows(model: Model, *, dtype: str, data: int = 1, fsdp: int = 1, tensor: int = 1) -> list[Row]:
    """Every weight of the model on a mesh of data × fsdp × tensor devices, which need not be there.

    Raises:
      ValueError: a mesh axis does not divide a weight (with the sizes that would do).
    """
    mesh = AbstractMesh((data, fsdp, tensor), meshes.MESH_AXES)
    itemsize = np.dtype(dtype).itemsize
    return [_row(leaf, mesh, itemsize) for leaf in leaves(model)]


def _row(leaf: Leaf, mesh: AbstractMesh, itemsize: int) -> Row:
    spec = leaf.spec
    parts = meshes.partition_spec(spec, mesh, rules=meshes.TRAIN_RULES, path=leaf.path)
    name = spec.hf.name.format(f"{{0-{spec.shape[0] - 1}}}") if leaf.stacked else spec.hf.name
    split = math.prod(mesh.shape[axis] for axis in parts if axis)
    return Row(name, spec.hf.shape, leaf.path, spec.shape, tuple(parts), math.prod(spec.shape) * itemsize // split)


def table(found: list[Row]) -> Iterator[str]:
    """Lines for people, with a total."""
    cells = [("HF tensor", "shape", "parameter", "shape", "sharding", "MB a device")]
    for row in found:
        sharding = ", ".join(axis or "-" for axis in row.sharding) or "whole"
        hf, ours = _sizes(row.hf_shape), _sizes(row.shape)
        cells.append((row.name, hf, row.path, ours, sharding, f"{row.nbytes / 1e6:,.1f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        *left, last = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join((*left, last.strip().rjust(widths[-1])))
    numbers = sum(math.prod(row.shape) for row in found)
    tensors = sum(row.shape[0] if "{" in row.name else 1 for row in found)
    yield (
        f"{tensors} tensors, {numbers:,} parameters in {len(found)} arrays, "
        f"{sum(row.nbytes for row in found) / 1e9:.2f} GB a device"
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
