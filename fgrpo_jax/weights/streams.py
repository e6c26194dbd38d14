"""Parameters into and out of an Orbax checkpoint a few layers at a time, so that a model need not fit the host.

What is written is an ordinary checkpoint: `checkpoint.load_params` and Orbax itself read it. It is laid out for
streaming, in chunks of one layer and without compression (bfloat16 weights hardly compress, and reading gets no slower
by what is not decoded). Any checkpoint can be read, at the grain it was written in.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from fgrpo_jax.weights import page_cache
from fgrpo_jax.weights.leaves import THREADS, Leaf

_CHUNK = 1 << 26  # bytes of a weight without layers that are one chunk
_FILE = 1 << 27  # bytes of a data file; what is not yet in a file is in memory
_IN_FLIGHT = 1 << 30  # bytes of rows that are in memory, read or on their way to the disk


@dataclasses.dataclass(frozen=True)
class Unread:
    """An array of a checkpoint that is made while it is written."""

    leaf: Leaf  # which weight; its first dimension is what is cut
    dtype: np.dtype
    read: Callable[[Leaf, int, int], np.ndarray]  # (leaf, start, stop) -> those rows; called from several threads

    @property
    def shape(self) -> tuple[int, ...]:
        return self.leaf.spec.shape

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def rows(self) -> int:
        """Rows of a chunk: one layer, or a few MB of a table."""
        row = max(1, self.nbytes // self.shape[0])
        return 1 if self.leaf.stacked else max(1, min(self.shape[0], _CHUNK // row))


class _Room:
    """So many bytes at a time; what is larger than all of them goes alone."""

    def __init__(self, nbytes: int):
        self._free = self._all = nbytes
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, nbytes: int) -> Iterator[None]:
        """Waits until there is room."""
        nbytes = min(nbytes, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


@contextlib.contextmanager
def _named(leaf: Leaf, start: int) -> Iterator[None]:
    """Errors of tensorstore, which knows paths alone, name the HF tensor that row `start` of a weight comes from."""
    try:
        yield
    except ValueError as error:  # whatever went wrong
        name = leaf.names[start if leaf.stacked else 0]
        raise ValueError(f"tensor {name!r} could not be written: {error}") from error


class _UnreadHandler(ocp.type_handlers.NumpyHandler):
    """Writes `Unread` arrays as Orbax writes numpy ones, but chunk by chunk, few at a time.

    A row is written once tensorstore has committed it, together with what else had come by then. While some threads
    wait for that, others read the next rows.
    """

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)
        self._pool = ThreadPoolExecutor(3 * THREADS)
        self._readers = threading.Semaphore(THREADS)
        self._room = _Room(_IN_FLIGHT)
        self._due = page_cache.Due()
        self._failed = False

    async def _open_and_write(self, value: Any, tspec: dict[str, Any], ts_context: ts.Context) -> None:
        tspec["metadata"] |= {"chunks": [value.rows, *value.shape[1:]], "compressor": None}
        tspec["kvstore"]["target_data_file_size"] = _FILE
        with _named(value.leaf, 0):
            store = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)

        def write(start: int) -> None:
            if self._failed:  # what is queued after an error, of whichever array, must not go on
                return
            stop = min(start + value.rows, value.shape[0])
            try:
                with self._room.of(value.nbytes * (stop - start) // value.shape[0]):
                    with self._readers:
                        block = value.read(value.leaf, start, stop)
                    with _named(value.leaf, start):
                        # The rows are not written to again: tensorstore need not copy them.
                        store[start:stop].write(block, can_reference_source_data_indefinitely=True).result()
                if self._due.after(block.nbytes):
                    page_cache.drop(Path(tspec["kvstore"]["base"]["path"]))
            except BaseException:
                self._failed = True
                raise

        loop = asyncio.get_running_loop()
        # All weights are here at once; the pool bounds how many rows are in memory.
        jobs = [loop.run_in_executor(self._pool, write, start) for start in range(0, value.shape[0], value.rows)]
        await asyncio.gather(*jobs)


@dataclasses.dataclass
class StreamSave(ocp.args.CheckpointArgs):
    """Args of a checkpoint item that is a nested dict of `Unread`."""

    item: Mapping[str, Any]


@dataclasses.dataclass
class StreamRestore(ocp.args.CheckpointArgs):
    """Args that give the item's folder."""

    item: Any = None


class StreamHandler(ocp.CheckpointHandler):
    """Saves a nested dict of `Unread`; `checkpoint.load_params` restores it."""

    def __init__(self) -> None:
        registry = ocp.type_handlers.create_type_handler_registry(
            (Unread, _UnreadHandler()),
            (jax.Array, ocp.type_handlers.ArrayHandler()),  # none comes; Orbax warns where it is not known
        )
        self._inner = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)

    def save(self, directory: Any, args: StreamSave) -> None:
        self._inner.save(directory, args=ocp.args.PyTreeSave(dict(args.item)))
        page_cache.drop(Path(directory))

    def restore(self, directory: Any, args: StreamRestore | None = None) -> Path:
        return Path(directory)  # an ordinary item: `checkpoint.load_params` reads it, or `Stored` in parts

    def finalize(self, directory: Any) -> None:
        self._inner.finalize(directory)

    def close(self) -> None:
        self._inner.close()


ocp.args.register_with_handler(StreamHandler, for_save=True)(StreamSave)
ocp.args.register_with_handler(StreamHandler, for_restore=True)(StreamRestore)


class Stored:
    """The arrays of a checkpoint's params folder, read in parts (`exporter.Stored`).

    Args:
      folder: `params/` of a checkpoint step.
      paths: names of the arrays, keys joined by dots.
    """

    def __init__(self, folder: Path, paths: list[str]):
        metadata = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))
        driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        base = {"driver": "file", "path": f"{folder}/"}
        context = ts.Context({"cache_pool": {"total_bytes_limit": 0}, "file_io_concurrency": {"limit": THREADS}})
        opened = {}
        for path in paths:
            if metadata.get("use_ocdbt"):
                kvstore = {"driver": "ocdbt", "base": base, "path": f"{path}/"}
            else:
                kvstore = {**base, "path": f"{folder}/{path}/"}
            opened[path] = ts.open({"driver": driver, "kvstore": kvstore}, read=True, context=context)
        self._stores = {path: future.result() for path, future in opened.items()}

    def rows(self, leaf: Leaf) -> int:
        return min(int(self._stores[leaf.path].chunk_layout.read_chunk.shape[0]), leaf.spec.shape[0])

    def read(self, leaf: Leaf, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._stores[leaf.path][start:stop].read().result())
