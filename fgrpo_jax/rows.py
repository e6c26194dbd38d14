"""What commands leave on disk: files that are whole or absent, JSON rows that survive a kill, folders with one owner.

Every command that can be killed and started again writes through this module. HF folders alone, which several processes
fill together, appear by rules of their own (`weights.hub_folder`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""One JSON object of a file of rows."""

Process = tuple[int, int]
"""(which process this is, how many write together). All of them see the same folder."""

ALONE: Process = (0, 1)

RUN_FILES = (
    *("config.json", "shapes.json", "metrics.jsonl", "metrics.*.jsonl", "eval.jsonl", "eval.*.jsonl", "rollouts"),
    *("checkpoints", "best", "eval", "tensorboard", "export"),
)
"""What a run leaves in its workdir, as patterns, and all that --overwrite removes."""

_SHOWN = 12  # differing settings that an error lists

Free = Callable[[str], bool]
"""Whether a field, by its dotted path, may differ."""


def matching(*patterns: str) -> Free:
    """Fields that match one of the patterns may differ; without patterns none may."""
    return lambda path: any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def this_process() -> Process:
    """This process among those of `jax.distributed`."""
    import jax  # a process that only reads rows need not wait until jax is imported

    return jax.process_index(), jax.process_count()


def barrier(name: str, process: Process) -> None:
    """Waits until all processes have come to the same place; nothing for a process alone."""
    if process[1] > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


# ------------------------------------------------------------------------------------------------------ whole or absent
@contextlib.contextmanager
def beside(path: Path, *, ending: str = "tmp") -> Iterator[Path]:
    """A place for a file or folder that takes the name `path` when the block ends, so that what is there is whole.

    What stands under that name until then goes only once the new one is there, and what a kill left of one is removed.
    Processes that write at the same time need different endings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f"{path.name}.{ending}")
    if place.is_dir():
        shutil.rmtree(place)
    yield place
    if place.is_dir() and path.is_dir():  # renaming replaces a file, but no folder that holds something
        shutil.rmtree(path)
    place.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text that is there whole or not at all."""
    with beside(path) as place:
        place.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """The same of one JSON value, for people to read."""
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


# -------------------------------------------------------------------------------------------------------- rows of JSON
def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows of a file at once, whole or not at all."""
    write_atomically(path, _lines(rows))


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows to a file, on the disk when it returns; a NaN, for which JSON has no word, is a ValueError."""
    text = _lines(rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """All rows of a file, but for a last line that a kill cut short; any other that is not JSON is a ValueError."""
    # Bytes, since a kill may cut a letter in two; and only newlines break lines, of all that splitlines splits at.
    lines = Path(path).read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number} is not JSON ({error}); repair or remove the line") from error
    return rows


def resume_rows(path: Path, *, keep: Callable[[list[Row]], list[Row]] = list) -> list[Row]:
    """Readies a file for `append_rows` after a kill, or makes it; returns the rows in it, cut down by `keep`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    kept = keep(read_rows(path))
    if _lines(kept).encode() != path.read_bytes():
        write_rows(path, kept)
    return kept


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


@dataclasses.dataclass(frozen=True)
class NumberedRows:
    """Rows 0 .. N − 1 in the order they are made, by one process or several, and at the end in one file in their order.

    A process alone appends to the file itself. Several append to files of their own below parts/, which the first of
    them merges. Settings beside the file say what the rows depend on.

    Attributes:
      path: where all rows stand in the end, such as W/eval/SET.jsonl.
      settings: what the rows depend on, JSON types; kept in SET.settings.json.
      free: which settings may change between a kill and the next start.
      process: this process among those that write.
    """

    path: Path
    settings: Mapping[str, Any]
    free: Free = matching()
    process: Process = ALONE

    @property
    def part(self) -> Path:
        """Where this process appends."""
        number, count = self.process
        return self.path if count == 1 else self._parts / f"{self.path.stem}.{number}-of-{count}.jsonl"

    def begin(self) -> dict[int, Row]:
        """Rows that are there already, of all processes, by their number; a ValueError if of other settings."""
        header, files = self.path.with_suffix(".settings.json"), self._files()
        if files and not header.is_file():
            raise ValueError(
                f"{self.path} holds rows without {header.name}, so nobody knows whose; remove it or use another "
                "--workdir"
            )
        if header.is_file():
            what = f"{self.path} was begun under other settings"
            remedy = "use another --workdir, repeat the command it was begun with, or remove "
            remedy += f"{self.path.stem}.* to start afresh"
            require_same(header, self.settings, free=self.free, what=what, remedy=remedy)
        found = self._read()
        barrier(f"{self.path.name}: read", self.process)
        if self.part in files:
            resume_rows(self.part)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        if self.process[0] == 0:
            write_json(header, self.settings)
        return found

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows, each with its number under 'index'; on the disk when it returns."""
        if rows:
            append_rows(self.part, rows)

    def finish(self, count: int, *, asked_by: str) -> list[Row]:
        """All `count` rows in order; the first process puts them into one file.

        Some missing, or more, is a ValueError, which names `asked_by`, the settings that say how many are asked for.
        """
        barrier(f"{self.path.name}: written", self.process)
        found = self._read()
        if odd := sorted(set(range(count)) ^ set(found)):
            raise ValueError(
                f"{self.path.parent} holds {len(found)} rows of '{self.path.stem}', and {count} are asked for here; "
                f"the first that does not fit is number {odd[0]}. Ask for as many as before ({asked_by}), let all "
                "processes see one --workdir, or use another one"
            )
        rows = [found[index] for index in range(count)]
        barrier(f"{self.path.name}: merging", self.process)
        if self.process[0] == 0:
            write_rows(self.path, rows)
            for file in self._files():
                if file != self.path:
                    file.unlink()
        return rows

    @property
    def _parts(self) -> Path:
        return self.path.parent / "parts"

    def _files(self) -> list[Path]:
        files = (self.path, *sorted(self._parts.glob(f"{self.path.stem}.*.jsonl")))
        return [file for file in files if file.is_file()]

    def _read(self) -> dict[int, Row]:
        return {row["index"]: row for file in self._files() for row in read_rows(file)}


# ------------------------------------------------------------------------------------------------------------- whose
def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted path: value} of nested mappings."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out.update(leaves(value, f"{prefix}{name}."))
        else:
            out[f"{prefix}{name}"] = value
    return out


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, ignore: Free = matching()) -> list[str]:
    """Lines 'key: old → new' for every leaf that differs, but for those that are to be ignored."""
    before, after = leaves(old), leaves(new)
    pairs = {key: (before.get(key, "absent"), after.get(key, "absent")) for key in sorted({*before, *after})}
    return [f"{key}: {a} → {b}" for key, (a, b) in pairs.items() if a != b and not ignore(key)]


def require_same(stored: Path, settings: Mapping[str, Any], *, what: str, remedy: str, free: Free = matching()) -> None:
    """Refuses, by a ValueError, to go on with what was begun under other settings than these.

    Args:
      stored: JSON file of the settings it was begun under.
      what, remedy: first and last line of the error, around the fields that differ.
    """
    before = json.loads(stored.read_text(encoding="utf-8"))
    if lines := differences(before, json.loads(json.dumps(settings)), ignore=free):
        shown = "\n  ".join(lines[:_SHOWN])
        raise ValueError(f"{what}:\n  {shown}\n{remedy}")


def claim_workdir(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    free: Free = matching(),
    overwrite: bool = False,
    process: Process = ALONE,
) -> bool:
    """Makes the workdir this run's own; its resolved config is stored as config.json. True for a run to be resumed.

    Args:
      config: resolved config, JSON types.
      overwrite: start afresh, removing what a run left there (RUN_FILES, nothing else).
      process: this process among those of the run; all decide alike, and the first alone removes and writes.

    Raises:
      ValueError: the folder holds another run, or files that are no run's.
    """
    workdir = Path(workdir)
    stored = workdir / "config.json"
    held = stored.exists()
    resumed = held and not overwrite
    if resumed:
        what = f"{workdir} holds another run, whose config differs"
        remedy = "use another --workdir, the same config to resume it, or --overwrite to delete it and start afresh"
        require_same(stored, config, free=free, what=what, remedy=remedy)
    elif not held and workdir.exists() and any(workdir.iterdir()):
        some = ", ".join(sorted(path.name for path in workdir.iterdir())[:3])
        raise ValueError(f"{workdir} is not empty ({some}) and holds no run; choose a new or empty --workdir")
    barrier("workdir looked at", process)  # before the first process changes what the others decide by
    if process[0] == 0:
        if not resumed:
            _remove_run(workdir)
        write_json(stored, config)
    barrier("workdir claimed", process)
    return resumed


def _remove_run(workdir: Path) -> None:
    for pattern in RUN_FILES:
        for found in list(workdir.glob(pattern)):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()
