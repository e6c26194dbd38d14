"""Parquet files: their texts at once, their image columns when an image is asked for.

Row groups of up to 64 MB are read whole and kept until another is asked for. Larger ones, such as files written in one
piece have, are read as a stream: forward at the price of what lies between, backward from the start. Whoever reads rows
in order reads a file once.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fgrpo_jax.data.sets.readers.records import BadRow, Found, Record, existing, stamp

WHOLE = 64 * 2**20  # bytes of a column in a row group that is read at once
BATCH = 32  # rows a step of a stream


class ParquetTable:
    """One Parquet file.

    Image columns hold bytes anywhere: binary, lists of it, or structs {bytes, path} as `datasets` writes them.
    """

    def __init__(self, path: pathlib.Path, root: pathlib.Path) -> None:
        import pyarrow as pa

        self.path, self.root, self.stamp = path, root, stamp(path)
        schema, counts, self._sizes = self._outline()
        self.light = [field.name for field in schema if not _holds_bytes(field.type)]
        self.heavy = [field.name for field in schema if _holds_bytes(field.type)]
        self._starts = [sum(counts[:at]) for at in range(len(counts) + 1)]
        self._errors = (pa.ArrowException, OSError, UnicodeDecodeError)
        self._stream: _Stream | None = None

    def _outline(self) -> tuple[Any, list[int], list[dict[str, int]]]:
        """(schema, rows and bytes by column of each row group)"""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            return file.schema_arrow, [group.num_rows for group in groups], [_sizes(group) for group in groups]

    def __getstate__(self) -> dict[str, Any]:  # workers read their own
        return {**self.__dict__, "_stream": None}

    def records(self) -> Found:
        """The records of all row groups; a group that cannot be read is one `BadRow` for all of its rows."""
        for group, start in enumerate(self._starts[:-1]):
            count = self._starts[group + 1] - start
            try:
                rows = self._group(group, self.light)
            except self._errors as error:
                yield self._broken(group, error)
                continue
            for offset in range(count):
                row = start + offset
                cells = {column: CellImages(self, row, column) for column in self.heavy}
                yield Record(self.path, row + 1, rows[offset] if rows else {}, "row", cells)

    def in_order(self, row: int, column: str) -> bool:
        """Whether the row lies in a row group that is read a few rows at a time."""
        return self._is_large(self._group_of(row), column)

    def cell(self, row: int, column: str) -> Any:
        """What an image column holds in a row; `BadRow` where its row group does not read."""
        group = self._group_of(row)
        offset, stream = row - self._starts[group], self._stream
        try:
            if stream is None or stream.name != (group, column) or offset < stream.start:
                stream = self._stream = _Stream((group, column), self._batches(group, column))
            return stream.at(offset)
        except self._errors as error:
            raise self._broken(group, error) from error

    def _is_large(self, group: int, column: str) -> bool:
        return self._sizes[group].get(column, 0) > WHOLE

    def _batches(self, group: int, column: str) -> Iterator[list[Any]]:
        """What a column of a row group holds: all of it at once, or a few rows at a time."""
        import pyarrow.parquet as pq

        if not self._is_large(group, column):
            yield [values[column] for values in self._group(group, [column])]
            return
        # A buffer makes it read a column piece by piece and not as a whole.
        with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column], use_threads=False):
                yield [values[column] for values in batch.to_pylist()]

    def _group(self, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(group, columns=list(columns)).to_pylist()

    def _group_of(self, row: int) -> int:
        return next(group for group, end in enumerate(self._starts[1:]) if row < end)

    def _broken(self, group: int, error: BaseException) -> BadRow:
        first, last = self._starts[group] + 1, self._starts[group + 1]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        place, why = (
            f"{self.path}, rows {first} to {last}",
            f"the row group does not read ({reason}); fetch the file again",
        )
        return BadRow(place, why, kind="corrupt Parquet", count=last - first + 1)


class ArrowTable(ParquetTable):
    """One Arrow file, as `save_to_disk` of `datasets` writes it; its batches of rows are the row groups."""

    def _outline(self) -> tuple[Any, list[int], list[dict[str, int]]]:
        batches = self._read()
        return batches[0].schema, [batch.num_rows for batch in batches], [{}] * len(batches)

    def _group(self, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        return self._read()[group].select(list(columns)).to_pylist()

    def _read(self) -> list[Any]:
        import pyarrow as pa

        return list(pa.ipc.open_stream(pa.memory_map(str(self.path))))  # mapped, so only what is used is read


class _Stream:
    """The rows of a column in a row group, forward."""

    def __init__(self, name: tuple[int, str], batches: Iterator[list[Any]]) -> None:
        self.name, self.start = name, 0
        self._batches, self._rows = batches, next(batches)

    def at(self, offset: int) -> Any:
        while offset >= self.start + len(self._rows):
            self.start += len(self._rows)
            self._rows = next(self._batches)
        return self._rows[offset - self.start]


def _sizes(group: Any) -> dict[str, int]:
    """{column: bytes} of a row group; the parts of a nested column together."""
    sizes: dict[str, int] = {}
    for at in range(group.num_columns):
        column = group.column(at)
        name = column.path_in_schema.split(".")[0]
        sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
    return sizes


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _holds_bytes(kind.value_type)
    return pa.types.is_struct(kind) and any(_holds_bytes(field.type) for field in kind)


def parquet(paths: Sequence[pathlib.Path], root: pathlib.Path) -> Found:
    """Records of several Parquet files; a file without a readable footer is one `BadRow`."""
    import pyarrow as pa

    for path in paths:
        try:
            opened = (ArrowTable if path.suffix == ".arrow" else ParquetTable)(path, root)
        except (pa.ArrowException, OSError, IndexError) as error:
            reason = str(error).splitlines()[0]
            what = f"not a whole {path.suffix[1:].capitalize() or 'Parquet'} file"
            yield BadRow(str(path), f"{what} ({reason}); fetch it again", kind="corrupt Parquet")
            continue
        yield from opened.records()


def count_rows(path: pathlib.Path) -> int:
    """Rows of a Parquet file; 0 where its footer does not read, which the reading reports."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        return 0


@dataclasses.dataclass(frozen=True)
class CellImages:
    """Images in a cell of a Parquet file: bytes, {bytes, path}, or a list of either."""

    table: ParquetTable
    row: int
    column: str
    optional: bool = False  # whether null is a row without images, and not one that lacks them

    def load(self) -> Sequence[tuple[str, bytes | pathlib.Path]]:
        place = f"{self.table.path}, row {self.row + 1}"
        try:
            value = self.table.cell(self.row, self.column)
        except BadRow as bad:  # of a whole row group; here it is this row that lacks its images
            rows = bad.place.rpartition(", ")[2]
            raise BadRow(place, f"of {rows} {bad.reason}", kind=bad.kind) from bad
        values = value if isinstance(value, list) else [value]
        if value is None and self.optional:
            return []
        return [self._one(item, f"{self.column}[{at}]", place=place) for at, item in enumerate(values)]

    def stamp(self) -> str:
        return f"{self.table.stamp} {self.row}"

    @property
    def in_order(self) -> bool:
        """Whether they are read in order or at a high price."""
        return self.table.in_order(self.row, self.column)

    def _one(self, item: Any, name: str, *, place: str) -> tuple[str, bytes | pathlib.Path]:
        if isinstance(item, Mapping):
            item = item.get("bytes") or item.get("path")
        if isinstance(item, bytes) and item:
            return name, item
        if isinstance(item, str) and item:
            return item, existing(self.table.root, item, place=place)
        raise BadRow(place, f"{name} holds no image; remove the row", kind="missing image")
