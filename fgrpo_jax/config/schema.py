"""Plain nested values → frozen dataclasses by their type hints, with the errors a person needs.

Knows nothing of what the fields mean: `build` reads the hints of a dataclass (numbers, strings, tuples, mappings,
nested dataclasses, `Literal` choices, `X | None`) and the ranges hung on them with `Annotated`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class AtLeast:
    bound: float

    def __call__(self, value: float) -> bool:
        return value >= self.bound

    def __str__(self) -> str:
        return f"must be at least {self.bound}"


@dataclasses.dataclass(frozen=True)
class MoreThan:
    bound: float

    def __call__(self, value: float) -> bool:
        return value > self.bound

    def __str__(self) -> str:
        return f"must be more than {self.bound}"


@dataclasses.dataclass(frozen=True)
class Between:
    low: float
    high: float

    def __call__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"must lie between {self.low} and {self.high}"


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean …?' for the known name closest to `name`, or the known names when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def plain(value: Any) -> Any:
    """Nested mappings and sequences (ConfigDict included) → nested dict, list and scalars, as JSON has them."""
    if isinstance(value, Mapping | ConfigDict):  # a ConfigDict is no Mapping
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def build(cls: type[T], values: Mapping[str, Any], *, path: str) -> T:
    """Makes the dataclass `cls` of `values`; `path` names the place in errors ('config.data').

    Raises:
      ValueError: a key that `cls` lacks (with the nearest name), a missing key, a wrong type, a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must be a section with fields, got {values!r}")
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in values:
        if key not in hints:
            raise ValueError(f"unknown config key '{path}.{key}'; {nearest(key, hints)}")
    missing = [key for key in hints if key not in values]
    if missing:
        raise ValueError(
            f"config key '{path}.{missing[0]}' is missing; start from configs/default.py and change fields"
        )
    return cls(**{key: convert(values[key], hint, path=f"{path}.{key}") for key, hint in hints.items()})


def convert(value: Any, hint: Any, *, path: str) -> Any:
    """`value` as the type `hint` says, or ValueError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _ranged(value, args[0], args[1:], path=path)
    if origin is Literal:
        if value not in args:
            choices = ", ".join(repr(a) for a in args)
            raise ValueError(f"{path}={value!r}; use one of {choices}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else convert(value, next(a for a in args if a is not type(None)), path=path)
    if origin is tuple:
        return tuple(convert(v, args[0], path=f"{path}[{i}]") for i, v in enumerate(_sequence(value, path)))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must map names to values, got {value!r}")
        return {str(k): convert(v, args[1], path=f"{path}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, path=path)
    return _scalar(value, hint, path=path)


def _ranged(value: Any, hint: Any, rules: tuple[Any, ...], *, path: str) -> Any:
    out = convert(value, hint, path=path)
    for rule in rules:
        if out is not None and not rule(out):
            raise ValueError(f"{path}={out} is out of range: it {rule}")
    return out


def _sequence(value: Any, path: str) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError(f"{path} must be a sequence, got {value!r}")
    return list(value)


def _scalar(value: Any, hint: Any, *, path: str) -> Any:
    # bool is an int in Python, and 1 must not pass for True nor True for 1.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number:
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{path}={value} is not a finite number")
        return float(value)
    if hint is int and number and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise ValueError(f"{path}={value!r} must be {_NAMES[hint]}, not {type(value).__name__}")


_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a string"}
