"""Safetensors files, memory-mapped: what stands in a folder, and any part of a tensor as a view of its file.

A file is eight bytes with the length of its header, the header (JSON: name -> dtype, shape, data_offsets) and the bytes
of the tensors. The header is read here rather than by the safetensors library, so that whatever is off can be named
with its file and tensor, and so that pages of a file can be given back once they are read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES: Mapping[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
"""Names of dtypes in a header -> numpy's, of those that weights may have."""

_METADATA = "__metadata__"
_AGAIN = "download or export it again"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where one tensor lies."""

    name: str  # as in the file
    file: Path
    dtype: str  # as the header names it
    shape: tuple[int, ...]
    start: int  # its first byte, counted from the beginning of the file
    nbytes: int

    def require_float(self) -> None:
        """Raises a ValueError unless weights may have this dtype."""
        if self.dtype not in DTYPES:
            raise ValueError(
                f"tensor {self.name!r} in {self.file.name} has dtype {self.dtype}; readable are {sorted(DTYPES)}"
            )


class Shards:
    """The tensors of a folder, one file or many with their index; only headers are read until `view` is called.

    Raises:
      FileNotFoundError: no weights in the folder, or a shard that the index names is missing.
      ValueError: a file is cut off or broken, two shards hold the same tensor, the index and a shard disagree.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.tensors: dict[str, Tensor] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        index = read_index(self.folder)
        for file in sorted(set(index.values())) if index else [SINGLE]:
            placed = {name for name, place in index.items() if place == file}
            if not (self.folder / file).is_file():
                raise FileNotFoundError(
                    f"{self.folder / file} is named in {INDEX} but does not exist ({len(placed)} tensors, first "
                    f"{min(placed)!r}): download the missing shard"
                )
            found = read_header(self.folder / file)
            if index:
                _check_shard(found, placed, self.folder / file, index)
            self.tensors |= found

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def view(self, tensor: Tensor) -> np.ndarray:
        """The tensor as a read-only view of its mapped file; pages are read when they are touched."""
        dtype = np.dtype(DTYPES[tensor.dtype])
        flat = np.frombuffer(self._mapped(tensor.file), dtype, math.prod(tensor.shape), tensor.start)
        return flat.reshape(tensor.shape)

    def release(self, tensor: Tensor) -> None:
        """Takes the tensor's pages out of this process (not out of the page cache): they count as its memory."""
        first = -(-tensor.start // mmap.PAGESIZE) * mmap.PAGESIZE  # a page shared with a neighbour may be in use
        length = tensor.start + tensor.nbytes - first
        if length > mmap.PAGESIZE:
            self._mapped(tensor.file).madvise(mmap.MADV_DONTNEED, first, length)

    def _mapped(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as stream:
                self._maps[file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[file]


def read_index(folder: Path) -> dict[str, str]:
    """Tensor name -> file of a sharded checkpoint; empty when there is a single file."""
    path = folder / INDEX
    if path.is_file():
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not an index with a weight_map ({error}): {_AGAIN}") from error
    if not (folder / SINGLE).is_file():
        raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}: expected a Hugging Face model folder")
    return {}


def read_header(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of one file, every byte range checked against the file's size."""
    begins, entries = _entries(path)
    size = path.stat().st_size
    found: dict[str, Tensor] = {}
    for name, entry in entries:
        if name == _METADATA:
            continue
        if name in found:
            raise ValueError(f"duplicate tensor: {name!r} stands twice in the header of {path}: {_AGAIN}")
        found[name] = _tensor(path, name, entry, begins)
    cut = [tensor for tensor in found.values() if tensor.start + tensor.nbytes > size]
    if cut:
        first = min(cut, key=lambda tensor: tensor.start)
        raise ValueError(
            f"{path} is not a whole safetensors file: it has {size:,} bytes, tensor {first.name!r} ends at byte "
            f"{first.start + first.nbytes:,} ({len(cut)} of {len(found)} tensors are cut off): {_AGAIN}"
        )
    return found


def _entries(path: Path) -> tuple[int, list[tuple[str, Any]]]:
    """(first byte after the header, the header's entries in order, repeated names kept)."""
    with path.open("rb") as stream:
        size = stream.read(8)
        (length,) = struct.unpack("<Q", size) if len(size) == 8 else (-1,)
        # A truncated or foreign file would otherwise ask for an absurd read.
        text = stream.read(length) if 0 < length <= path.stat().st_size - 8 else b""
    if not text:
        raise ValueError(f"{path} is not a whole safetensors file (its header is cut off): {_AGAIN}")
    pairs: list[tuple[str, Any]] = []

    def keep(items: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = items  # the outermost object ends last
        return dict(items)

    try:
        json.loads(text, object_pairs_hook=keep)
    except ValueError as error:
        raise ValueError(f"{path} is not a safetensors file (its header is no JSON: {error}): {_AGAIN}") from error
    return 8 + length, pairs


def _tensor(path: Path, name: str, entry: Any, begins: int) -> Tensor:
    try:
        dtype, shape, (start, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tensor {name!r} in {path} has a broken header entry {entry!r}: {_AGAIN}") from error
    if dtype in DTYPES:
        expected = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        if expected != end - start:
            raise ValueError(
                f"tensor {name!r} in {path} has {end - start} bytes, its dtype {dtype} and shape {shape} need "
                f"{expected}: {_AGAIN}"
            )
    return Tensor(name, path, dtype, shape, begins + start, end - start)


def _check_shard(found: Mapping[str, Tensor], expected: set[str], path: Path, index: Mapping[str, str]) -> None:
    extra = sorted(found.keys() - expected)
    for name in extra:
        other = path.parent / index.get(name, "")
        if name in index and other.is_file() and name in read_header(other):
            raise ValueError(
                f"duplicate tensor: {name!r} is in {path} and in {index[name]}, where {INDEX} places it: {_AGAIN}"
            )
    if missing := sorted(expected - found.keys()):
        raise ValueError(f"missing tensor {missing[0]!r}: {INDEX} places it in {path}, which lacks it: {_AGAIN}")
    if extra:
        raise ValueError(f"unknown tensor {extra[0]!r} in {path}: {INDEX} does not place it there; {_AGAIN}")


# -------------------------------------------------------------------------------------------------------------- write
@dataclasses.dataclass(frozen=True)
class Planned:
    """One file to be written."""

    name: str
    header: bytes  # its first bytes
    starts: Mapping[str, int]  # tensor name -> first byte in the file
    size: int  # bytes of the whole file


def plan_files(tensors: Iterable[tuple[str, tuple[int, ...]]], dtype: Any, *, shard_bytes: float) -> list[Planned]:
    """The files that hold `tensors` (name, shape), in their order; a file ends before it grows beyond `shard_bytes`."""
    itemsize = np.dtype(dtype).itemsize
    batches: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in tensors:
        nbytes = math.prod(shape) * itemsize
        if batches[-1] and held + nbytes > shard_bytes:
            batches.append({})
            held = 0
        batches[-1][name] = shape
        held += nbytes
    names = [f"model-{k + 1:05d}-of-{len(batches):05d}.safetensors" for k in range(len(batches))]
    names = [SINGLE] if len(batches) == 1 else names
    return [_planned(name, batch, np.dtype(dtype)) for name, batch in zip(names, batches, strict=True)]


def _planned(name: str, batch: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> Planned:
    (code,) = [code for code, ours in DTYPES.items() if np.dtype(ours) == dtype]
    entries: dict[str, dict[str, Any]] = {}
    at = 0
    for tensor, shape in batch.items():
        end = at + math.prod(shape) * dtype.itemsize
        entries[tensor] = {"dtype": code, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps({_METADATA: {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    header = struct.pack("<Q", len(text)) + text
    starts = {tensor: len(header) + entry["data_offsets"][0] for tensor, entry in entries.items()}
    return Planned(name, header, starts, len(header) + at)


def index_of(files: Sequence[Planned]) -> dict[str, Any]:
    """Content of the index file."""
    total = sum(file.size - len(file.header) for file in files)
    weight_map = {name: file.name for file in files for name in file.starts}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
