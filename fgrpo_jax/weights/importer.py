"""A Hugging Face safetensors folder into params, derived from what each weight declares of itself.

Two namings are read: the hub's (`model.layers.N`, `visual.*`) and the in-memory one of newer transformers
(`model.language_model.layers.N`, `model.visual.*`). Nothing is skipped: a tensor that is unknown,
missing, duplicate or mis-shaped is an error with its name and file, before anything is read.

Tensors go a block at a time from the mapped files into the arrays of their devices, and a process reads only its part.
No whole tensor is copied on the host on the way, let alone the model. `exporter` is the way back.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgrpo_jax.model.qwen2_5_vl import Model, Params
from fgrpo_jax.weights.leaves import BLOCK, THREADS, TILE, Leaf, hub_name, leaves, move
from fgrpo_jax.weights.shards import Shards, Tensor

Index = tuple[slice, ...]

_TIED_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"
_INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F80 << 16, "float64": 0x7FF0 << 48}  # as bits


class Source:
    """The tensors of a folder that is known to hold exactly what the model declares.

    Attributes:
      odd: hub name -> number of values that are not finite, of the parts read so far.
      bytes_read: of the files, so far.
    """

    def __init__(self, folder: str | Path, model: Model):
        self._shards = Shards(folder)
        self._homes = _homes(self._shards)
        self.leaves = leaves(model)
        self.odd: dict[str, int] = {}
        self.bytes_read = 0
        _check_names(self._homes, self.leaves, self._shards, tied=model.config.text.tie_word_embeddings)
        for leaf in self.leaves:
            for name in leaf.names:
                _check_shape(self._homes[name], leaf.spec.hf.shape)

    def read(self, leaf: Leaf, tensor: int, index: Index, out: np.ndarray) -> None:
        """Part `index` of the piece that a leaf's `tensor`-th tensor becomes, into `out` of that part's shape."""
        home = self._homes[leaf.names[tensor]]
        whole = self._shards.view(home)
        count = 0
        for source, target in _blocks(whole, out, leaf, index):
            count += _not_finite(source)
            move(source, target)
        self._shards.release(home)
        self.bytes_read += out.size * whole.dtype.itemsize
        if count:
            self.odd[leaf.names[tensor]] = self.odd.get(leaf.names[tensor], 0) + count

    def read_rows(self, leaf: Leaf, start: int, out: np.ndarray) -> None:
        """Rows of a leaf's first dimension, from `start` on, into `out`."""
        whole = tuple(slice(0, size) for size in leaf.piece)
        if leaf.stacked:
            for layer in range(len(out)):
                self.read(leaf, start + layer, whole, out[layer])
        else:
            self.read(leaf, 0, (slice(start, start + len(out)), *whole[1:]), out)

    def warn(self) -> None:
        """One warning when values were not finite."""
        if self.odd:
            first = min(self.odd)
            home = self._homes[first]
            warnings.warn(
                f"{len(self.odd)} tensors of {self._shards.folder} hold {sum(self.odd.values())} values that are NaN "
                f"or infinite, first {home.name!r} in {home.file.name}: the model will not compute with them",
                stacklevel=3,
            )


def _homes(shards: Shards) -> dict[str, Tensor]:
    """Hub name -> tensor."""
    homes: dict[str, Tensor] = {}
    for name, tensor in shards.tensors.items():
        first = homes.setdefault(hub_name(name), tensor)
        if first is not tensor:
            raise ValueError(
                f"duplicate tensor: {name!r} in {tensor.file.name} is {first.name!r} in {first.file.name} "
                f"({shards.folder}): remove one of them"
            )
    return homes


def _check_names(homes: Mapping[str, Tensor], expected: list[Leaf], shards: Shards, *, tied: bool) -> None:
    names = {name for leaf in expected for name in leaf.names}
    if missing := sorted(names - homes.keys()):
        raise ValueError(
            f"{len(missing)} tensors missing from {shards.folder}, first {missing[:3]}: take config.json and weights "
            "from one checkpoint, or fetch the missing file"
        )
    extra = sorted(homes.keys() - names)
    if tied and extra == [_TIED_HEAD]:
        _check_tied(homes, shards)
    elif extra:
        places = [f"{homes[name].name!r} in {homes[name].file.name}" for name in extra[:3]]
        raise ValueError(
            f"{len(extra)} unknown tensors in {shards.folder}, first {', '.join(places)}: remove them, or take "
            "the config.json of the model they belong to"
        )


def _check_tied(homes: Mapping[str, Tensor], shards: Shards) -> None:
    """A tied checkpoint may repeat the table as lm_head, if it is the same table."""
    head, table = homes[_TIED_HEAD], homes[_EMBEDDING]
    first, second = (shards.view(tensor).view(np.uint8) for tensor in (head, table))
    rows = max(1, BLOCK // max(1, first.shape[-1]))
    same = first.shape == second.shape and all(
        np.array_equal(first[at : at + rows], second[at : at + rows]) for at in range(0, len(first), rows)
    )
    shards.release(head)
    shards.release(table)
    if not same:
        raise ValueError(
            f"tensor {head.name!r} in {head.file.name} differs from {table.name!r}, but config.json says they are "
            "tied: set tie_word_embeddings to false"
        )


def _check_shape(tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(
            f"tensor {tensor.name!r} in {tensor.file.name} has shape {tensor.shape}, the model's config gives {shape}: "
            "the weights and config.json are of different models; take both from one checkpoint"
        )
    tensor.require_float()


def _blocks(tensor: np.ndarray, out: np.ndarray, leaf: Leaf, index: Index) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(part of a tensor, the same part of `out`): views of like shape, that together are part `index` of the piece."""
    if leaf.spec.hf.transposed:
        split = len(leaf.piece) - leaf.outputs
        order = (*leaf.piece[split:], *leaf.piece[:split])
        part = tensor.reshape(order)[(*index[split:], *index[:split])]
        axes = (*range(split, len(leaf.piece)), *range(split))
        target = _matrix(out.transpose(axes), leaf.outputs)
        source = _matrix(part, leaf.outputs)
        if source is None or target is None:
            yield part, out.transpose(axes)
            return
        step = TILE
    else:
        source, target = tensor.reshape(leaf.piece)[index], out
        step = max(1, BLOCK // max(1, math.prod(source.shape[1:])))
    for start in range(0, len(source), step):
        yield source[start : start + step], target[start : start + step]


def _matrix(array: np.ndarray, rows: int) -> np.ndarray | None:
    """The view with the first `rows` dimensions as one and the others as one; None when they do not lie so."""
    shape = (math.prod(array.shape[:rows]), math.prod(array.shape[rows:]))
    try:
        return np.reshape(array, shape, copy=False)
    except ValueError:
        return None


def _not_finite(block: np.ndarray) -> int:
    """How many values of a block are NaN or infinite; two passes over plain integers when there are none."""
    infinity, size = _INFINITY[block.dtype.name], block.dtype.itemsize
    # As signed integers all that is negative lies below, as unsigned ones above, what is positive.
    sign = 1 << (8 * size - 1)
    if block.view(f"i{size}").max() < infinity and block.view(f"u{size}").max() < infinity + sign:
        return 0
    return int(np.count_nonzero(~np.isfinite(block.astype(np.float64))))


def load_hf(folder: str | Path, model: Model, *, dtype: Any, shardings: Any = None) -> Params:
    """Params of `model` from a Hugging Face folder, single-file or sharded.

    A process reads the slices of its own devices and nothing else. On the host there is one weight at a time, on its
    way to the devices; where the devices are the host (CPU), the arrays are what is read into.

    Args:
      folder: holds `model.safetensors`, or shards and their index.
      model: says which tensors there must be.
      dtype: of the result; bfloat16 from bfloat16 is bit-exact.
      shardings: pytree of `jax.sharding.Sharding` like the params; None puts them on the default device.

    Raises:
      FileNotFoundError: no weights in the folder.
      ValueError: a tensor is unknown, missing, duplicate, mis-shaped, or its file is truncated; names tensor and file.
    """
    source = Source(folder, model)
    placements = [None] * len(source.leaves) if shardings is None else jax.tree.leaves(shardings)
    if len(placements) != len(source.leaves):
        raise ValueError(f"shardings have {len(placements)} leaves, the params {len(source.leaves)}")
    with ThreadPoolExecutor(THREADS) as pool:
        pairs = zip(source.leaves, placements, strict=True)
        arrays = [_load_leaf(source, leaf, np.dtype(dtype), placement, pool) for leaf, placement in pairs]
    source.warn()
    return jax.tree.unflatten(jax.tree.structure(model.specs), arrays)


def _load_leaf(source: Source, leaf: Leaf, dtype: np.dtype, placement: Any, pool: ThreadPoolExecutor) -> jax.Array:
    shape = leaf.spec.shape
    if placement is None:
        whole = tuple(slice(0, size) for size in shape)
        return jax.device_put(read_parts(source, leaf, dtype, {None: whole}, pool)[None])
    parts = read_parts(source, leaf, dtype, placement.addressable_devices_indices_map(shape), pool)
    arrays = [jax.device_put(part, device) for device, part in parts.items()]
    array = jax.make_array_from_single_device_arrays(shape, placement, arrays, dtype=dtype)
    return jax.block_until_ready(array)  # the parts may be freed, before the next weight asks for room


def read_parts(
    source: Source, leaf: Leaf, dtype: np.dtype, indices: Mapping[Any, Index], pool: ThreadPoolExecutor
) -> dict[Any, np.ndarray]:
    """Device -> its part of a leaf; devices with the same part share one buffer, which is read once."""
    bounds = {
        device: tuple(slice(*s.indices(size)[:2]) for s, size in zip(index, leaf.spec.shape, strict=True))
        for device, index in indices.items()
    }
    buffers = {_key(index): _aligned(tuple(s.stop - s.start for s in index), dtype) for index in bounds.values()}
    jobs = []
    for index in {_key(index): index for index in bounds.values()}.values():
        buffer = buffers[_key(index)]
        if leaf.stacked:
            first, last = index[0].start, index[0].stop
            jobs += [(layer, index[1:], buffer[layer - first]) for layer in range(first, last)]
        else:
            jobs += [(0, (rows, *index[1:]), buffer[to]) for rows, to in _split(leaf, index[0])]
    list(pool.map(lambda job: source.read(leaf, *job), jobs))
    return {device: buffers[_key(index)] for device, index in bounds.items()}


def _split(leaf: Leaf, rows: slice) -> Iterator[tuple[slice, slice]]:
    """(rows of a weight, the same rows of its part): a few MB each, so that several threads have work."""
    step = rows.stop - rows.start
    if not leaf.spec.hf.transposed:
        step = max(1, 8 * BLOCK // max(1, math.prod(leaf.piece[1:])))
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        yield slice(start, stop), slice(start - rows.start, stop - rows.start)


def _key(index: Index) -> tuple[tuple[int, int], ...]:
    return tuple((s.start, s.stop) for s in index)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array at a multiple of 64 bytes, which a CPU device takes as it is, without a copy."""
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype).reshape(shape)
