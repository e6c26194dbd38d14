"""Sources of examples: what one is, and parts of one.

Sets in files are opened by `data.sets`, and the built-in world has a source of its own in `world.examples`.

A source knows its length and gives any example by index, so that Grain can shuffle and shard it. Files are read and
checked when a source is made; images are decoded when their example is asked for, in the workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fgrpo_jax.records import Example


class Source(Protocol):
    """Examples by index. The same index gives the same example in every process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def outline(source: Source, index: int) -> Example:
    """The example with images that have nothing but their size, where the source has such a method, else itself.

    Counting tokens and looking up ids needs no more. `images.outline_image` makes such images without decoding.
    """
    return getattr(source, "outline", source.__getitem__)(index)


def digest(source: Source) -> str:
    """Names what the examples of a source are, wherever their files lie; '' where the config alone says it."""
    known = getattr(source, "entries", None)
    if known is None and isinstance(source, Part):
        known = (whole := digest(source.source)) and [whole, *map(int, source.places)]
    return hashlib.sha256(repr(list(known)).encode()).hexdigest()[:16] if known else ""


def in_range(index: int, source: Source) -> int:
    """`index`; IndexError where the source has no such example."""
    if not 0 <= index < len(source):
        raise IndexError(f"example {index} of a source of {len(source)}")
    return int(index)


class Part:
    """Some examples of another source, in the order of `places`."""

    def __init__(self, source: Source, places: Sequence[int] | np.ndarray) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.places[in_range(index, self)])]

    def outline(self, index: int) -> Example:
        return outline(self.source, int(self.places[in_range(index, self)]))


class First(Part):
    """The first `size` examples of another source; ValueError where it has fewer."""

    def __init__(self, source: Source, size: int) -> None:
        if size > len(source):
            raise ValueError(
                f"{size} examples were asked of a source that holds {len(source)}; ask for fewer: "
                "config.eval.examples, of traces config.sft.eval_examples, of filter config.data.difficulty.examples"
            )
        super().__init__(source, range(size))
