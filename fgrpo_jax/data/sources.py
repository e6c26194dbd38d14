"""Sources of examples: what one is, and parts of one.

Sets in files are opened by `data.sets`, and the built-in world has a source of its own in `world.examples`.

A source knows its length and gives any example by index, so that Grain can shuffle and shard it. Files are read and
checked when a source is made; images are decoded when their example is asked for, in the workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from fgrpo_jax.records import Example


class Source(Protocol):
    """Examples by index. The same index gives the same example in every process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class Outlined(Protocol):
    """A source that can also tell what an example is like without decoding its images.

    An outline is the example with images that have nothing but their size, as `images.outline_image` makes them.
    Counting tokens and looking up ids needs no more.
    """

    def outline(self, index: int, /) -> Example: ...


def outline(source: Source, index: int) -> Example:
    """The outline of an example, where the source gives one, else the example itself."""
    return source.outline(index) if isinstance(source, Outlined) else source[index]


class Part:
    """Some examples of another source, in the order of `places`."""

    def __init__(self, source: Source, places: Sequence[int] | np.ndarray) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        return self.source[self._place(index)]

    def outline(self, index: int) -> Example:
        return outline(self.source, self._place(index))

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of a source of {len(self)}")
        return int(self.places[index])


class First(Part):
    """The first `size` examples of another source; ValueError where it has fewer."""

    def __init__(self, source: Source, size: int) -> None:
        if size > len(source):
            raise ValueError(f"{size} examples were asked of a source that holds {len(source)}; ask for fewer")
        super().__init__(source, range(size))
