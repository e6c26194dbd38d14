"""Params into a Hugging Face folder, from memory or straight from a checkpoint, a block at a time.

Names and shapes are known before any number is, so headers and index are planned first and every tensor is written to
its place in its file. Several processes that share a file system write one folder together, each its own files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from fgrpo_jax.model.qwen2_5_vl import Model, Params
from fgrpo_jax.rows import ALONE, Process
from fgrpo_jax.weights import hub_folder, page_cache
from fgrpo_jax.weights.leaves import BLOCK, THREADS, TILE, Leaf, Progress, by_path, ignore, leaves, move
from fgrpo_jax.weights.shards import INDEX, Planned, index_of, plan_files


class Stored(Protocol):
    """Where the arrays of an export are: in memory, or in a checkpoint that is read bit by bit."""

    def rows(self, leaf: Leaf) -> int:
        """How many rows of the first dimension are best read together."""
        ...

    def read(self, leaf: Leaf, start: int, stop: int) -> np.ndarray:
        """Rows start … stop of a leaf, on the host; called from several threads."""
        ...


@dataclasses.dataclass(frozen=True)
class _InMemory:
    """Params as they are; nothing is copied where they are on the host, a layer at a time elsewhere."""

    arrays: Mapping[str, Any]

    def rows(self, leaf: Leaf) -> int:
        return 1 if leaf.stacked else leaf.spec.shape[0]

    def read(self, leaf: Leaf, start: int, stop: int) -> np.ndarray:
        array = self.arrays[leaf.path]
        if isinstance(array, jax.Array) and all(device.platform != "cpu" for device in array.devices()):
            # An accelerator array keeps the host copy that is made of it: copy rows, which are freed, not the whole.
            return np.asarray(array[start:stop])
        return np.asarray(array)[start:stop]


def save_hf(
    folder: str | Path,
    params: Params,
    model: Model,
    *,
    dtype: Any = None,
    source: str | Path | None = None,
    shard_bytes: float = 5e9,
) -> None:
    """Write a hub-layout folder that `transformers` loads. It appears whole or not at all.

    Args:
      params: as `model.init` or `load_hf` give them, all of them on devices of this process.
      dtype: of the tensors; None keeps that of the params.
      folder, model, source, shard_bytes: see `write_hf`.

    Raises:
      FileExistsError: `folder` holds something.
      OSError: the disk is full; names file and tensor.
      ValueError: a leaf has another shape than the model declares.
    """
    arrays = by_path(params)
    expected = {leaf.path: leaf.spec.shape for leaf in leaves(model)}
    if odd := sorted(expected.keys() ^ arrays.keys()):
        raise ValueError(f"params do not have the structure of the model: {odd[:3]} missing or unknown")
    for path, shape in expected.items():
        if arrays[path].shape != shape:
            raise ValueError(f"{path} has shape {arrays[path].shape}, the model declares {shape}")
    dtype = np.dtype(dtype or params["text"]["embed"]["table"].dtype)
    write_hf(folder, _InMemory(arrays), model, dtype=dtype, source=source, shard_bytes=shard_bytes)


def write_hf(
    folder: str | Path,
    stored: Stored,
    model: Model,
    *,
    dtype: Any,
    source: str | Path | None = None,
    shard_bytes: float = 5e9,
    process: Process = ALONE,
    progress: Progress = ignore,
) -> None:
    """`save_hf` of arrays that need not be in memory, by one process or several that share a file system.

    Args:
      folder: must not exist, or be empty; it appears when the last process is done.
      model: its config becomes config.json.
      source: Hugging Face folder whose tokenizer, processor and generation files are copied. The repetition penalty of
        the generation config becomes 1.0: the policy was trained without one.
      shard_bytes: a file is closed before it grows beyond this.
      process: (k, n): of every n files this process writes the k-th; process 0 writes what is not weights.
      progress: called with the bytes of every tensor, or part of it, that is written.
    """
    target, dtype, every = Path(folder), np.dtype(dtype), leaves(model)
    number, count = process
    tensors = [(name, leaf.spec.hf.shape) for leaf in every for name in leaf.names]
    files = plan_files(tensors, dtype, shard_bytes=shard_bytes)
    own = files[number::count]
    hub_folder.require_new(target)
    hub_folder.require_room(target, sum(file.size for file in own))
    with hub_folder.appearing(target, process) as beside:
        with contextlib.ExitStack() as stack:
            places = _places(beside, own, stack)
            with ThreadPoolExecutor(THREADS) as pool:
                jobs = [(leaf, rows) for leaf in every for rows in _groups(leaf, stored)]
                list(pool.map(lambda job: _write_rows(job[0], job[1], stored, dtype, places, progress), jobs))
            for place in {place.path: place for place in places.values()}.values():
                with _disk_errors(f"{place.path.name} could not be written"):
                    page_cache.to_disk(place.handle)
        if number == 0:
            if len(files) > 1:
                hub_folder.write_json(beside / INDEX, index_of(files))
            # Transformers 4 and vLLM know the dtype by the second name.
            dtypes = dict.fromkeys(("dtype", "torch_dtype"), dtype.name)
            hub_folder.write_json(beside / "config.json", {**model.config.to_hf(), **dtypes})
            hub_folder.write_travellers(beside, model.config, None if source is None else Path(source))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor is to be written: an open file, its path, the tensor's first byte, and what is due to the disk."""

    handle: int
    path: Path
    start: int
    due: page_cache.Due


def _places(folder: Path, files: list[Planned], stack: contextlib.ExitStack) -> dict[str, _Place]:
    """Tensor name -> place, the files opened and begun with their headers."""
    places: dict[str, _Place] = {}
    for file in files:
        path, due = folder / file.name, page_cache.Due()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        stack.callback(os.close, handle)
        places |= {name: _Place(handle, path, start, due) for name, start in file.starts.items()}
        _write_at(handle, np.frombuffer(file.header, np.uint8), 0)
    return places


def _groups(leaf: Leaf, stored: Stored) -> Iterator[slice]:
    """Rows of the first dimension that are read and written together."""
    size = leaf.spec.shape[0]
    step = stored.rows(leaf) if leaf.stacked or not leaf.spec.hf.transposed else size
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _write_rows(
    leaf: Leaf, rows: slice, stored: Stored, dtype: np.dtype, places: Mapping[str, _Place], progress: Progress
) -> None:
    names = leaf.names[rows] if leaf.stacked else leaf.names
    if places.keys().isdisjoint(names):
        return
    block = stored.read(leaf, rows.start, rows.stop)
    pieces, first = (block, 0) if leaf.stacked else ([block], rows.start)
    for name, piece in zip(names, pieces, strict=True):
        if name not in places:
            continue
        place = places[name]
        with _disk_errors(f"tensor {name!r} could not be written into {place.path.name}"):
            _write_piece(leaf, piece, place, first, dtype)
        progress(piece.size * dtype.itemsize)


@contextlib.contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    """Adds to errors of the disk what they kept from being written, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{what}: {error.strerror or error}; nothing of the folder is kept. Free some room or choose a folder on "
            "another disk",
        ) from error


def _write_piece(leaf: Leaf, piece: np.ndarray, place: _Place, first: int, dtype: np.dtype) -> None:
    """A piece in torch's layout, a few MB at a time; `first` counts the rows of the tensor that lie before it."""
    if leaf.spec.hf.transposed:
        matrix = piece.reshape(-1, leaf.spec.hf.shape[0]).T
    else:
        matrix = piece.reshape(len(piece), -1)
    width = matrix.shape[1]
    step = TILE * max(1, BLOCK // (TILE * width))
    buffer = np.empty((min(step, len(matrix)), width), dtype)
    for start in range(0, len(matrix), step):
        part = buffer[: min(step, len(matrix) - start)]
        move(matrix[start : start + step], part)
        _write_at(place.handle, part, place.start + (first + start) * width * dtype.itemsize)
        if place.due.after(part.nbytes):
            page_cache.to_disk(place.handle)


def _write_at(handle: int, block: np.ndarray, start: int) -> None:
    """All bytes of a contiguous block at `start`."""
    rest = memoryview(block.reshape(-1).view(np.uint8).data)
    while rest:
        done = os.pwrite(handle, rest, start)
        rest, start = rest[done:], start + done
