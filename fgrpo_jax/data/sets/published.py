"""The rows of a set in its published layout, and what becomes of those that cannot be used.

    reader ─▶ Published | BadRow ─▶ gather(bad='error' | 'skip') ─▶ PublishedSource ─▶ Example

With 'error' the first bad row stops the reading; what only its pixels show stops it when they are asked for. With
'skip' every image is decoded once when the set is opened, so that the length of a source never changes; `prepare` pays
that price once for all.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import warnings
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from fgrpo_jax.data.images import outline_image
from fgrpo_jax.data.sets.readers.layout import Entry, Layout, Published
from fgrpo_jax.data.sets.readers.records import BadRow
from fgrpo_jax.data.sources import in_range
from fgrpo_jax.records import Example

POLICIES = ("error", "skip")


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Rows that were left out, and why."""

    rows: tuple[BadRow, ...] = ()

    @property
    def count(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def kinds(self) -> dict[str, int]:
        """{kind of trouble: rows}, the commonest first."""
        kinds: collections.Counter[str] = collections.Counter()
        for row in self.rows:
            kinds[row.kind] += row.count
        return dict(kinds.most_common())

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{self.count} rows skipped ({kinds}); the first: {self.rows[0]}" if self.rows else "no rows skipped"


def gather(rows: Iterable[Published | BadRow], *, bad: str, what: str) -> tuple[list[Published], Skipped]:
    """All rows that can be used, by all but their pixels, and those left out.

    Args:
      bad: 'error' or 'skip'.
      what: name of the data in errors.

    Raises:
      BadRow: the first bad row, a repeated id among them, where `bad` is 'error'.
      ValueError: nothing is left, or `bad` is neither.
    """
    if bad not in POLICIES:
        raise ValueError(f"data.bad='{bad}'; use one of {', '.join(map(repr, POLICIES))}")
    kept: dict[str, Published] = {}
    skipped: list[BadRow] = []
    for row in rows:
        if isinstance(row, Published):
            first = kept.setdefault(row.example.id, row)
            if first is row:
                continue
            why = f"id {row.example.id!r} already stands in {first.place}; make it unique"
            row = BadRow(row.place, why, kind="repeated id")
        if bad == "error":
            raise row
        skipped.append(row)
    if not kept:
        raise ValueError(f"{what} holds no examples{f': {Skipped(tuple(skipped))}' if skipped else ''}")
    return list(kept.values()), Skipped(tuple(skipped))


class PublishedSource:
    """One split of a set in its published layout; `skipped` are the rows left out by `bad='skip'`."""

    def __init__(self, layout: Layout, path: str | pathlib.Path, split: str, *, bad: str = "error") -> None:
        what = f"{path}{f' ({split})' if split else ''}"
        rows, self.skipped = gather(layout(pathlib.Path(path), split), bad=bad, what=what)
        if bad == "skip":
            read, rows, faults = rows, [], []
            for row in tqdm(read, desc=f"checking {what}", unit="row", leave=False):
                try:
                    row.decode()
                    rows.append(row)
                except BadRow as fault:  # an image that does not decode, or a box outside
                    faults.append(fault)
            self.skipped = Skipped((*self.skipped.rows, *faults))
            if not rows:
                raise ValueError(f"{what} holds no examples: {self.skipped}")
            if self.skipped.rows:
                warnings.warn(f"{what}: {self.skipped}", stacklevel=2)
        self.rows: Sequence[Published] = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[in_range(index, self)].decode()

    def outline(self, index: int) -> Example:
        return self.rows[index].decode(outline_image)

    @property
    def entries(self) -> Sequence[Entry]:
        return [row.entry for row in self.rows]
