"""Records of published files, with the place they stand at: JSON, JSON lines, CSV and TSV; Parquet is in `tables`.

A record that cannot be read is yielded as a `BadRow`, so that whoever reads may stop at it or count it and go on.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import functools
import json
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from fgrpo_jax.data.styles import LETTERS


class BadRow(ValueError):
    """A row, or `count` of them, that cannot be used: where it stands, and what is wrong and what to do about it.

    `kind` is the sort of trouble in a few words, by which rows are counted.
    """

    def __init__(self, place: str, reason: str, *, kind: str = "unreadable row", count: int = 1) -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason, self.kind, self.count = place, reason, kind, count

    def __reduce__(self) -> Any:  # across worker processes, where an exception is made anew of its arguments
        return functools.partial(BadRow, kind=self.kind, count=self.count), (self.place, self.reason)


class Images(Protocol):
    """The images of one example, not yet read."""

    def load(self) -> Sequence[tuple[str, bytes | pathlib.Path]]:
        """(name for errors, encoded bytes or file) of each image; raises `BadRow` where they cannot be read."""
        ...

    def stamp(self) -> str:
        """What tells these images from others, without reading them: it changes when their files do."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One record, and where it stands, for errors."""

    path: pathlib.Path
    number: int  # line or row in it, from 1
    fields: dict[str, Any]  # what it holds, but for image columns
    unit: str = "line"  # 'line' or 'row'
    cells: Mapping[str, Images] | None = None  # its image columns; None where all is in `fields`

    @property
    def place(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"

    def bad(self, reason: str, *, kind: str) -> BadRow:
        return BadRow(self.place, reason, kind=kind)

    def require(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        """A required field of the given type."""
        if key not in self.fields:
            raise self.bad(f"no {key!r}; add {what} or remove the {self.unit}", kind="missing field")
        return self.take(key, kind, what)

    def take(self, key: str, kind: type | tuple[type, ...], what: str, *, default: Any = None) -> Any:
        """An optional field of the given type; null counts as absent."""
        value = self.fields.get(key)
        if value is None:
            if key in self.fields and default is None:
                raise self.bad(f"{key!r} is null; give {what} or remove the {self.unit}", kind="missing field")
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            shown = json.dumps(value, default=repr)[:80]
            raise self.bad(f"{key!r} must be {what}, got {shown}", kind="field of a wrong type")
        return value

    def text(self, *keys: str, strip: bool = True) -> str:
        """A required text, under the first of several names that is there, without spaces around it if `strip`."""
        key = next((key for key in keys if key in self.fields), keys[0])
        value = self.require(key, str, "a text")
        if not value.strip():
            raise self.bad(f"{key!r} is empty; fill it in or remove the {self.unit}", kind="missing field")
        return value.strip() if strip else value

    def texts(self, key: str) -> tuple[str, ...]:
        """A required list of texts, at most as many as there are letters."""
        values = self.require(key, list, "a list of texts")
        if any(not isinstance(value, str) for value in values) or len(values) > len(LETTERS):
            why = f"{key!r} must be at most {len(LETTERS)} texts, got {values!r:.120}"
            raise self.bad(why, kind="field of a wrong type")
        return tuple(values)

    def images(self, column: str) -> Images:
        """The images of an image column of a Parquet file."""
        if self.cells is None or column not in self.cells:
            there = ", ".join(self.fields if self.cells is None else self.cells) or "none"
            raise self.bad(f"no image column {column!r} (image columns: {there})", kind="missing field")
        return self.cells[column]


Found = Iterator[Record | BadRow]


# ---------------------------------------------------------------------------------------------------------------- files
def find_files(root: pathlib.Path, *patterns: str, what: str) -> list[pathlib.Path]:
    """Files below `root` (or `root` itself, if it is a file) by the first pattern that any matches, in order of name.

    Raises:
      ValueError: none; says what was looked for and what is there.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{root} does not exist; give the folder of {what} (data.path, or --src of prepare)")
    for pattern in patterns:
        if found := sorted(file for file in root.glob(pattern) if file.is_file()):
            return found
    there = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    raise ValueError(f"{root} holds no {' nor '.join(patterns)}, the files of {what}; there is: {there}")


def inside(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """The path `name` below `root`; None when it is absolute or climbs out.

    Decided by the letters of the path: a hub cache links every file to a blob outside of the snapshot.
    """
    parts = pathlib.PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or pathlib.PureWindowsPath(name).drive:
        return None
    return root / parts


def json_lines(path: pathlib.Path) -> Found:
    """A JSON object a line."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; check data.path and the split's name")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                yield _json_line(path, number, line)


def _json_line(path: pathlib.Path, number: int, line: bytes) -> Record | BadRow:
    place = f"{path}, line {number}"
    try:
        fields = json.loads(_decoded(line))
    except json.JSONDecodeError as error:
        return BadRow(place, f"not JSON ({error}); one object a line is expected", kind="not JSON")
    if not isinstance(fields, dict):
        shown = line[:60].decode(errors="replace").strip()
        return BadRow(place, f"a JSON object is expected, got {shown}", kind="not JSON")
    return whole(Record(path, number, fields))


def json_file(path: pathlib.Path) -> Found:
    """A file that holds one list of objects, or an object a line, as `.jsonl` always does."""
    if path.suffix == ".jsonl":
        return json_lines(path)
    with path.open("rb") as file:
        first = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    return json_list(path) if first == b"[" else json_lines(path)


def json_list(path: pathlib.Path) -> Found:
    """A file that holds one list of objects."""
    try:
        rows = json.loads(_decoded(path.read_bytes().removeprefix(codecs.BOM_UTF8)))
    except json.JSONDecodeError as error:
        yield BadRow(str(path), f"not JSON ({error}); copy the file again", kind="not JSON")
        return
    if not isinstance(rows, list):
        yield BadRow(str(path), f"a list of objects is expected, got {type(rows).__name__}", kind="not JSON")
        return
    for number, fields in enumerate(rows, start=1):
        record = Record(path, number, fields if isinstance(fields, dict) else {}, "row")
        yield whole(record) if isinstance(fields, dict) else record.bad("an object is expected", kind="not JSON")


def _decoded(data: bytes) -> str:
    """The text of a file; bytes that are no UTF-8 become surrogates, by which `whole` knows the row they stand in."""
    return data.decode("utf-8", errors="surrogateescape")


def whole(record: Record) -> Record | BadRow:
    """The record, unless a text in it cannot be written: half of a character, or bytes that are no UTF-8."""
    try:
        json.dumps(record.fields, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        what = ascii(error.object[max(0, error.start - 20) : error.end])
        why = f"text that is no Unicode, at {what}; save the file as UTF-8, or remove the {record.unit}"
        return record.bad(why, kind="broken text")
    return record


def table(path: pathlib.Path, *, delimiter: str) -> Found:
    """A CSV or TSV file with a header line; cells are texts."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # cells hold whole images in base64
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(rows, [])]
        for number, row in enumerate(rows, start=1):
            record = Record(path, number, dict(zip(header, row, strict=False)), "row")
            if len(row) == len(header):
                yield whole(record)
            elif row:
                yield record.bad(f"{len(row)} cells under a header of {len(header)}", kind="unreadable row")


# --------------------------------------------------------------------------------------------------------------- images
@dataclasses.dataclass(frozen=True)
class HeldImages:
    """Images that are at hand, each with its name: encoded in memory, or in a file that is known to be there."""

    images: tuple[tuple[str, bytes | pathlib.Path], ...]

    @classmethod
    def of(cls, files: Iterable[pathlib.Path]) -> HeldImages:
        """Those in these files."""
        return cls(tuple((str(file), file) for file in files))

    def load(self) -> Sequence[tuple[str, bytes | pathlib.Path]]:
        return list(self.images)

    def stamp(self) -> str:
        return " ".join(f"{zlib.crc32(one):x}" if isinstance(one, bytes) else stamp(one) for _, one in self.images)


def stamp(file: pathlib.Path) -> str:
    """Name, size and time of change of a file."""
    about = file.stat()
    return f"{file.name}:{about.st_size}:{about.st_mtime_ns}"


def existing(root: pathlib.Path, name: str, *, place: str) -> pathlib.Path:
    """The file `name` below `root`; `BadRow` where it is not there, or its path climbs out."""
    file = inside(root, name)
    if file is None:
        why = f"image path {name!r} leaves {root}; give paths below that folder"
        raise BadRow(place, why, kind="image path outside the root")
    if not file.is_file():
        raise BadRow(place, f"image {name!r} is not in {root}; fetch it or remove the row", kind="missing image")
    return file


class Finder:
    """Image files below a root by the paths a set was published with.

    The published path below the root comes first. Where a set was unpacked one or more folders deeper, the file whose
    path ends with the whole published path is taken if there is exactly one: a base name alone never decides.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    def find(self, name: str, place: str, *, within: Sequence[str] = ()) -> pathlib.Path:
        """The file of a published path.

        Args:
          within: folders, the first that has the file, where the set names them beside the path.

        Raises:
          BadRow: none, several, or a path that climbs out.
        """
        direct = inside(self._root, name)
        if direct is None:
            return existing(self._root, name, place=place)  # says what is wrong
        if not within and direct.is_file():
            return direct
        wanted = direct.relative_to(self._root).parts
        found = [file for file in self._by_name.get(direct.name, ()) if file.parts[-len(wanted) :] == wanted]
        if within:
            inside_of = ([f for f in found if folder in f.relative_to(self._root).parts[:-1]] for folder in within)
            found = next(filter(None, inside_of), [])
        if len(found) > 1:
            shown = " and ".join(str(file.relative_to(self._root)) for file in found[:3])
            why = f"image {name!r} may be {shown}; name its folder, or lay the files out as published"
            raise BadRow(place, why, kind="ambiguous image name")
        if not found:
            where = f"{self._root}{' in a folder ' if within else ''}{' or '.join(map(repr, within))}"
            raise BadRow(place, f"image {name!r} is not in {where}; fetch it or remove the row", kind="missing image")
        return found[0]

    def all(self, names: Iterable[object], place: str) -> HeldImages:
        """The images of several published paths."""
        return HeldImages.of(self.find(str(name), place) for name in names)

    @functools.cached_property
    def _by_name(self) -> dict[str, list[pathlib.Path]]:
        out: dict[str, list[pathlib.Path]] = {}
        for file in sorted(self._root.rglob("*.*")):
            if file.is_file():
                out.setdefault(file.name, []).append(file)
        return out
