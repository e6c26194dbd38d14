"""A field of a config, declared once: its type, its default, its range and what it means.

Sections of the config are frozen dataclasses whose fields are made by `field`. They stand in the rooms that read them,
so this module stands on the ground and imports nothing. `fgrpo_jax.config` composes the sections, checks values against
their types and ranges, and writes the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """value ≥ bound."""

    bound: float

    def __call__(self, value: float) -> bool:
        return value >= self.bound

    def __str__(self) -> str:
        return f"must be at least {self.bound}"


@dataclasses.dataclass(frozen=True)
class MoreThan:
    """value > bound."""

    bound: float

    def __call__(self, value: float) -> bool:
        return value > self.bound

    def __str__(self) -> str:
        return f"must be more than {self.bound}"


@dataclasses.dataclass(frozen=True)
class Between:
    """low ≤ value ≤ high."""

    low: float
    high: float

    def __call__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"must lie between {self.low} and {self.high}"


Range = AtLeast | MoreThan | Between

FRACTION = Between(0, 1)
POSITIVE = MoreThan(0)
NOT_NEGATIVE = AtLeast(0)
COUNT = AtLeast(1)

_REQUIRED: Any = object()


def field(default: Any, doc: str, *ranges: Range) -> Any:
    """A field of a section with its default, its meaning and the ranges its value (or each of its items) lies in.

    Args:
      default: the value, or a function without arguments that makes it: of a section, or of an empty mapping.
    """
    more: dict[str, Any] = {"metadata": {"doc": doc, "ranges": ranges}}
    if default is _REQUIRED:
        return dataclasses.field(**more)
    if isinstance(default, Callable):
        return dataclasses.field(default_factory=default, **more)
    return dataclasses.field(default=default, **more)


def required(doc: str, *ranges: Range) -> Any:
    """A field without a default, of sections that a config may add by name."""
    return field(_REQUIRED, doc, *ranges)
