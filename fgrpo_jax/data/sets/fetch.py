"""Where a data set's files come from: a folder, or a dataset id of the hub, fetched and unpacked."""

from __future__ import annotations

import io
import pathlib
import tarfile
import zipfile
from typing import Self

from fgrpo_jax.data import hub
from fgrpo_jax.data.hub import Files
from fgrpo_jax.data.sets.catalogue import SetSpec
from fgrpo_jax.rows import beside


def find(spec: SetSpec, src: str, *, revision: str = "") -> Files:
    """The files that `src` names, fetched first where it is an id. A folder's name is without its path: cards travel.

    Args:
      src: a folder or file, or OWNER/NAME[@REVISION]; '' is the set's own id.
      revision: branch, tag or commit of an id; '' is the one in `src`, else main.

    Raises:
      FileNotFoundError: no such folder and no such repository, or the hub is out of reach.
      ValueError: a revision of a folder, two revisions, or a set that is not on the hub.
    """
    if src and pathlib.Path(src).exists():
        if revision:
            raise ValueError(f"'{src}' is a folder, and revision '{revision}' belongs to a hub id; drop it")
        return Files(pathlib.Path(src), pathlib.Path(src).resolve().name)
    if not (src or spec.hub):
        raise ValueError(f"{spec.name} is not on the hub; give its folder with --src")
    name, asked = hub.split(src or spec.hub)
    revision = hub.one_revision(src, asked, revision)
    folder = hub.snapshot(name, revision, spec.files, data=True, remedy="give its folder with --src")
    return Files(folder, name, folder.name)


# ------------------------------------------------------------------------------------------------------------- archives
def unpack(spec: SetSpec, files: Files, into: pathlib.Path) -> pathlib.Path:
    """The folder with the set's files: that of `files`, or `into` where archives had to be unpacked.

    Each archive is unpacked beside and renamed, so one that is there is whole. The other files are linked.

    Raises:
      ValueError: an archive is broken, or holds a path that climbs out.
    """
    archives = {} if files.folder.is_file() else _archives(spec, files.folder)
    if not archives:
        return files.folder
    into.mkdir(parents=True, exist_ok=True)
    for name, parts in archives.items():
        if not (into / name).is_dir():
            with beside(into / name) as place:
                _extract(parts, place)
    packed = {part for parts in archives.values() for part in parts}
    for file in files.folder.rglob("*"):
        link = into / file.relative_to(files.folder)
        if file.is_file() and file not in packed and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
    return into


def _archives(spec: SetSpec, folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """{name to unpack under: files}. Files without an archive's ending are the parts of one tar archive."""
    found: dict[str, list[pathlib.Path]] = {}
    for pattern in spec.archives:
        for file in sorted(file for file in folder.glob(pattern) if file.is_file()):
            whole = file.name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))
            found.setdefault(file.name.partition(".")[0] if whole else file.parent.name, []).append(file)
    return found


def _extract(parts: list[pathlib.Path], into: pathlib.Path) -> None:
    if empty := [part.name for part in parts if not part.stat().st_size]:
        raise ValueError(f"{parts[0].parent / empty[0]} is empty; fetch it again")
    try:
        if parts[0].suffix == ".zip":
            with zipfile.ZipFile(parts[0]) as packed:  # drops '..' and leading '/' of names itself
                packed.extractall(into)
        else:
            with _Joined(parts) as joined, tarfile.open(fileobj=joined, mode="r|*", tarinfo=_Member) as packed:
                packed.extractall(into, filter="data")  # refuses what climbs out, links and devices
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{parts[0]} does not unpack ({error}); fetch it again") from error


class _Member(tarfile.TarInfo):
    """A member of an archive. `tarfile` takes whatever is no member for the end; here only the end is one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error or 'no end'} after {archive.offset:,} bytes; a part is missing") from error


class _Joined(io.RawIOBase):
    """Several files read as one, as far as `tarfile` reads a stream."""

    def __init__(self, parts: list[pathlib.Path]) -> None:
        self._rest, self._file = parts[1:], parts[0].open("rb")

    def read(self, size: int = -1) -> bytes:
        while not (data := self._file.read(size)) and self._rest:
            self._file.close()
            self._file = self._rest.pop(0).open("rb")
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
