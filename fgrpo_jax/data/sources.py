"""Sources of examples: what one is, parts of one, and the built-in world. Sets in files are opened by `data.sets`.

A source knows its length and gives any example by index, so that Grain can shuffle and shard it. Files are read and
checked when a source is made; images are decoded when their example is asked for, in the workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from fgrpo_jax.records import Example
from fgrpo_jax.world.traces import FlawMix
from fgrpo_jax.world.world import World


class Source(Protocol):
    """Examples by index. The same index gives the same example in every process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class Outlined(Protocol):
    """A source that can also tell what an example is like without decoding its images.

    An outline is the example with images that have nothing but their size (`images.outline_image`, `images.blank`).
    Counting tokens and looking up ids needs no more.
    """

    def outline(self, index: int, /) -> Example: ...


def outline(source: Source, index: int) -> Example:
    """The outline of an example, where the source gives one, else the example itself."""
    return source.outline(index) if isinstance(source, Outlined) else source[index]


# --------------------------------------------------------------------------------------------------------------- parts
class First:
    """The first `size` examples of another source.

    Raises:
      ValueError: the source has fewer.
    """

    def __init__(self, source: Source, size: int) -> None:
        if size > len(source):
            raise ValueError(f"{size} examples were asked of a source that holds {len(source)}; ask for fewer")
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._source[_inside(index, self._size)]

    def outline(self, index: int) -> Example:
        return outline(self._source, _inside(index, self._size))


class Part:
    """Some examples of another source, in the order of `places`."""

    def __init__(self, source: Source, places: Sequence[int] | np.ndarray) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.places[_inside(index, len(self))])]

    def outline(self, index: int) -> Example:
        return outline(self.source, int(self.places[_inside(index, len(self))]))


# --------------------------------------------------------------------------------------------------------------- world
class WorldSource:
    """The first `size` examples of one split of the built-in world.

    Args:
      families: weight of each question family; None takes the difficulty's own mix.
      flawed: share of traces that are flawed on purpose.
      flaws: weight of each kind of flaw, by the field names of `FlawMix`; None takes its defaults.
      yes_no: share of yes/no questions, the others being multiple choice.
      seed: of the world.
      with_trace: whether examples carry reference responses.
    """

    def __init__(
        self,
        *,
        split: str,
        difficulty: str = "tiny",
        families: Mapping[str, float] | None = None,
        flawed: float = 0.28,
        flaws: Mapping[str, float] | None = None,
        yes_no: float = 0.5,
        seed: int = 0,
        with_trace: bool = False,
        size: int = 1_000_000,
    ) -> None:
        mix = FlawMix(**flaws) if flaws else FlawMix()
        self._world = World(difficulty, families=families, flawed=flawed, flaws=mix, yes_no=yes_no, split_seed=seed)
        self._split, self._with_trace, self._size = split, with_trace, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._world.example(_inside(index, self._size), split=self._split, with_trace=self._with_trace)

    def outline(self, index: int) -> Example:
        at = _inside(index, self._size)
        return self._world.example(at, split=self._split, with_trace=self._with_trace, drawn=False)


def _inside(index: int, size: int) -> int:
    if not 0 <= index < size:
        raise IndexError(f"example {index} of a source of {size}")
    return int(index)
