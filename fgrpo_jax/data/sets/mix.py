"""Several sets as one: so many examples of each, drawn without replacement, in proportion at every length.

    member 1 ─▶ permutation by (seed, its name) ─▶ first `count`: split 'train'   ┐ in proportion, so that the first
    member 2 ─▶ …                               ─▶ the rest: split 'heldout'      ┘ N hold as large a share of each

Which examples of a set are drawn depends on its own length and name, the count and the seed, not on the other members.
"""

from __future__ import annotations

import dataclasses
import operator
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from fgrpo_jax.data.sets.catalogue import SetSource
from fgrpo_jax.data.sets.published import Skipped
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sources import in_range, outline
from fgrpo_jax.records import Example

NAME = "mix"
SPLITS = ("train", "heldout")


@dataclasses.dataclass(frozen=True)
class Member:
    """One set of a mix."""

    name: str  # in the mix
    source: SetSource
    count: int = 0  # how many are trained on; 0 is all
    boxes: bool = True  # whether its boxes, where it has any, serve R_G; else its examples are masked there


class MixSource:
    """A mix of sets, see above.

    Args:
      split: 'train' or 'heldout', what the former leaves of each member.

    Raises:
      ValueError: a member with fewer examples than its count, one example twice, or nothing held out.
    """

    def __init__(self, members: Sequence[Member], *, split: str, seed: int) -> None:
        if split not in SPLITS:
            raise ValueError(f"a mix has the splits {' and '.join(SPLITS)}, not '{split}'")
        self._members, self._split = tuple(sorted(members, key=lambda member: member.name)), split
        rows, keys = [], []
        for number, member in enumerate(self._members):
            drawn = _drawn(member, split=split, seed=seed)
            rows.append(np.stack([np.full(len(drawn), number), drawn], axis=1))
            # What is held out is in proportion to what is trained on: the k-th comes before the (k+1)-th of any other.
            keys.append((np.arange(len(drawn)) + 0.5) / max(1, member.count or len(member.source)))
        order = np.argsort(np.concatenate(keys), kind="stable") if keys else []
        self._rows = np.concatenate(rows)[order] if keys else np.zeros((0, 2), np.int64)
        if not len(self._rows):
            raise ValueError(f"the mix holds nothing for split '{split}': {self}; lower a count, or add a member")
        self._refuse_twice()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, operator.getitem)

    def outline(self, index: int) -> Example:
        return self._example(index, outline)

    def _example(self, index: int, read: Callable[[SetSource, int], Example]) -> Example:
        number, place = self._rows[in_range(index, self)].tolist()
        member = self._members[number]
        example = read(member.source, place)
        return example if member.boxes else dataclasses.replace(example, boxes=None)

    @property
    def entries(self) -> Sequence[Entry]:
        entries = [member.source.entries for member in self._members]
        return [entries[number][place] for number, place in self._rows.tolist()]

    @property
    def skipped(self) -> Skipped:
        return Skipped(tuple(row for member in self._members for row in member.source.skipped.rows))

    def __str__(self) -> str:
        counts = np.bincount(self._rows[:, 0], minlength=len(self._members)).tolist()
        parts = [
            f"{count:,} of {len(member.source):,} {member.name}{'' if member.boxes else ' (no R_G)'}"
            for member, count in zip(self._members, counts, strict=True)
        ]
        return f"{self._split}: {', '.join(parts)}"

    def _refuse_twice(self) -> None:
        """Two members of one set may hold the same examples, which would be drawn with replacement after all."""
        seen: dict[str, str] = {}
        for member in self._members:
            for entry in member.source.entries:
                if seen.setdefault(entry.id, member.name) != member.name:
                    raise ValueError(
                        f"the members '{seen[entry.id]}' and '{member.name}' of the mix both hold an example "
                        f"{entry.id!r}; give them splits that do not overlap, or make the ids of your files unique"
                    )


def _drawn(member: Member, *, split: str, seed: int) -> np.ndarray:
    """int64: places of a member's examples for a split, in the order they are drawn."""
    length = len(member.source)
    if member.count > length:
        raise ValueError(
            f"the mix asks for {member.count:,} examples of '{member.name}', which holds {length:,}; lower "
            f"config.data.mix.{member.name}.count, or set it to 0 for all"
        )
    order = np.random.default_rng([seed, zlib.crc32(member.name.encode())]).permutation(length)
    count = member.count or length
    return order[:count] if split == "train" else order[count:]
