"""A field of a config, declared once: its type, its default, its range and what it means.

Sections of the config are frozen dataclasses whose fields are made by `field`. They stand in the rooms that read them,
so this module stands on the ground and imports nothing. `fgrpo_jax.config` composes the sections, checks values against
their types and ranges, and writes the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The values that a field may have."""

    holds: Callable[[float], bool]
    rule: str  # for people, after 'it'


def AtLeast(bound: float) -> Range:
    """value ≥ bound."""
    return Range(lambda value: value >= bound, f"must be at least {bound}")


def MoreThan(bound: float) -> Range:
    """value > bound."""
    return Range(lambda value: value > bound, f"must be more than {bound}")


def Between(low: float, high: float) -> Range:
    """low ≤ value ≤ high."""
    return Range(lambda value: low <= value <= high, f"must lie between {low} and {high}")


FRACTION = Between(0, 1)
POSITIVE = MoreThan(0)
NOT_NEGATIVE = AtLeast(0)
COUNT = AtLeast(1)


def field(default: Any, doc: str, *ranges: Range) -> Any:
    """A field of a section with its default, its meaning and the ranges its value (or each of its items) lies in.

    Args:
      default: the value, or a function without arguments that makes it: of a section, or of an empty mapping.
    """
    made: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(metadata={"doc": doc, "ranges": ranges}, **made)


def required(doc: str, *ranges: Range) -> Any:
    """A field without a default, of sections that a config may add by name."""
    return dataclasses.field(metadata={"doc": doc, "ranges": ranges})
