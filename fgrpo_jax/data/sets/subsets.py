"""Lists of kept ids: `python -m fgrpo_jax.filter` writes one, training reads it.

A list is made for one set of data. It names every example by source and id, says where it stood and what it asked, and
is refused by data that lacks an id or asks something else under it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.records import Example

KEPT, SUMMARY = "kept.jsonl", "summary.json"


def name_of(example: Example) -> str:
    """What tells an example from all others of a mix."""
    return f"{example.source}/{example.id}"


def question_digest(example: Example) -> str:
    """Eight hex digits of what the example asks and which answer is right; its images are not looked at."""
    asked = json.dumps([example.question, list(example.options), example.answer], ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()[:8]


def row_of(index: int, example: Example) -> dict[str, Any]:
    """How a list of ids names an example."""
    return {"index": index, "source": example.source, "id": example.id, "digest": question_digest(example)}


def read_kept(path: str | pathlib.Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a list of kept ids, and the summary beside it.

    Args:
      path: the list, its folder, or the workdir of the filter.

    Raises:
      ValueError: there is no such list, or no summary beside it.
    """
    path = pathlib.Path(path)
    file = next((f for f in (path, path / KEPT, path / "filter" / KEPT) if f.is_file()), None)
    if file is None:
        raise ValueError(
            f"config.data.filter='{path}' is no list of kept ids and no folder with {KEPT}; make one with "
            "python -m fgrpo_jax.filter (an unfinished one goes on with the same command)"
        )
    summary = file.with_name(SUMMARY)
    if not summary.is_file():
        raise ValueError(f"{file} has no {SUMMARY} beside it, which says what data it is for; copy both")
    lines = file.read_text(encoding="utf-8").split("\n")
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
        return rows, json.loads(summary.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} or {summary.name} is not JSON ({error}); copy both again") from error


def require_same_data(made_for: Mapping[str, Any], data: Mapping[str, Any], *, what: str) -> None:
    """ValueError, naming what differs, unless a list made for data of one description fits data of another."""
    odd = [name for name in sorted({*made_for, *data}) if made_for.get(name) != data.get(name)]
    if odd:
        shown = "; ".join(f"{name}: {made_for.get(name)} there, {data.get(name)} here" for name in odd)
        raise ValueError(
            f"{what} was made for other data ({shown}); run python -m fgrpo_jax.filter on this data, or set "
            "config.data.filter=''"
        )


def find_rows(source: Source, rows: Iterable[Mapping[str, Any]], *, what: str) -> np.ndarray:
    """int64, rising: where the examples of a list stand in `source`.

    Each is looked for where it stood; only if another stands there, everywhere.

    Raises:
      ValueError: an example that the source lacks, or one that asks something else now.
    """
    places: dict[str, int] | None = None
    found = []
    for row in rows:
        name, index = f"{row['source']}/{row['id']}", int(row["index"])
        example = outline(source, index) if index < len(source) else None
        if example is None or name_of(example) != name:
            if places is None:
                places = {name_of(outline(source, i)): i for i in range(len(source))}
            if name not in places:
                raise ValueError(
                    f"{what} keeps {name!r}, which the data does not have; run python -m fgrpo_jax.filter on this data"
                )
            index = places[name]
            example = outline(source, index)
        if question_digest(example) != row["digest"]:
            raise ValueError(
                f"{what} keeps {name!r}, which asks something else in this data (another question, other options or "
                "another answer); run python -m fgrpo_jax.filter on this data"
            )
        found.append(index)
    return np.unique(np.array(found, np.int64))
