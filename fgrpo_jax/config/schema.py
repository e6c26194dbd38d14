"""Plain nested values ↔ frozen dataclasses by their type hints and ranges, with the errors a person needs.

Knows nothing of what the fields mean: types are numbers, strings, tuples, mappings, nested dataclasses, `Literal`
choices and `X | None`; ranges are those of `fgrpo_jax.fields`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fgrpo_jax.fields import Range

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' for the known name closest to `name`, or the known names when none is close."""
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


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """The type of each field of a section."""
    return typing.get_type_hints(cls)


def default(cls: type) -> ConfigDict:
    """The defaults of a section as a ConfigDict; `X | None` takes None or an X.

    Left out are fields without a default, and sequences of sections, which a config has by name.
    """
    out = ConfigDict()
    for field in dataclasses.fields(cls):
        hint = hints(cls)[field.name]
        if dataclasses.is_dataclass(hint):
            out[field.name] = default(typing.cast(type, hint))
        elif field.default_factory is not dataclasses.MISSING:
            out[field.name] = ConfigDict(field.default_factory())
        elif field.default is None:
            out[field.name] = placeholder(_present(hint))
        elif field.default is not dataclasses.MISSING and entry(hint) is None:
            out[field.name] = field.default
    return out


def entry(hint: Any) -> Any:
    """What each entry is of a field that a config has by name, a mapping or a sequence of sections; else None."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping:
        return args[1]
    return args[0] if origin is tuple and dataclasses.is_dataclass(args[0]) else None


def build(cls: type[T], values: Mapping[str, Any], *, path: str) -> T:
    """Makes the dataclass `cls` of `values`; `path` names the place in errors ('config.data').

    Raises:
      ValueError: a key that `cls` lacks (with the nearest name), a missing key, a wrong type, a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must be a section with fields, got {values!r}")
    known = hints(cls)
    for key in values:
        if key not in known:
            raise ValueError(f"unknown config key '{path}.{key}'; {nearest(key, known)}")
    if missing := [key for key in known if key not in values]:
        raise ValueError(
            f"config key '{path}.{missing[0]}' is missing; start from configs/default.py and change fields"
        )
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    return cls(
        **{
            key: convert(values[key], hint, path=f"{path}.{key}", ranges=fields[key].metadata.get("ranges", ()))
            for key, hint in known.items()
        }
    )


def convert(value: Any, hint: Any, *, path: str, ranges: tuple[Range, ...] = ()) -> Any:
    """`value` as the type `hint` says, or ValueError; the ranges are those of its items where it has some."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{path}={value!r}; use one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else convert(value, _present(hint), path=path, ranges=ranges)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} must be a sequence, got {value!r}")
        items = enumerate(value)
        return tuple(convert(v, args[0], path=f"{path}[{i}]", ranges=ranges) for i, v in items)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must map names to values, got {value!r}")
        return {str(k): convert(v, args[1], path=f"{path}.{k}", ranges=ranges) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, path=path)
    out = _scalar(value, hint, path=path)
    for allowed in ranges:
        if not allowed.holds(out):
            raise ValueError(f"{path}={out} is out of range: it {allowed.rule}")
    return out


def _present(hint: Any) -> Any:
    """X of X | None."""
    return next(arg for arg in typing.get_args(hint) if arg is not type(None))


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
