"""The reference of all fields, docs/config.md, written from their declarations.

python -m fgrpo_jax.config.reference > docs/config.md
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from fgrpo_jax.config import schema
from fgrpo_jax.config.effects import effects
from fgrpo_jax.config.sections import Config
from fgrpo_jax.fgrpo.settings import Constraint

_HEAD = """# Config reference

Every field, with its default, what it may be and what it means. This page is written from the declarations in
`fgrpo_jax/config/sections.py` and the settings that it composes:

    python -m fgrpo_jax.config.reference > docs/config.md

Set a field on the command line as `--config.SECTION.FIELD=VALUE`, or in a file of your own that starts from
`fgrpo_jax.configs.default`. A field marked **·** may differ when a run is resumed, since no step depends on it.
"""


def markdown() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_section(Config, "")]) + "\n"


def _section(cls: type, at: str) -> Iterator[str]:
    """The table of a section's own fields, then the sections inside it."""
    known = schema.hints(cls)
    inner: list[tuple[str, type, str]] = []
    rows = []
    for field in dataclasses.fields(cls):
        hint, path = known[field.name], f"{at}{field.name}"
        entry = schema.entry(hint)
        if field.name == "name" and cls is Constraint:
            continue
        if dataclasses.is_dataclass(hint):
            inner.append((path, typing.cast(type, hint), field.metadata["doc"]))
        elif dataclasses.is_dataclass(entry):
            inner.append((f"{path}.NAME", typing.cast(type, entry), field.metadata["doc"]))
        else:
            rows.append(_row(field, hint, path))
    if rows:
        yield "\n| field | default | may be | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
    for path, section, doc in inner:
        yield f"\n{'#' * min(2 + path.count('.'), 4)} `{path}`\n\n{doc}"
        yield from _section(section, f"{path}.")


def _row(field: dataclasses.Field[Any], hint: Any, path: str) -> str:
    mark = "" if "steps" in effects(path) else " **·**"
    doc = field.metadata["doc"].replace("|", "\\|")
    return f"| `{path}`{mark} | {_default(field)} | {_values(hint, field.metadata['ranges'])} | {doc} |"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "`{}`"
    return "none" if field.default is dataclasses.MISSING else f"`{field.default!r}`".replace("|", "\\|")


def _values(hint: Any, ranges: tuple[Any, ...]) -> str:
    """What a value may be, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in args)
    if origin is tuple:
        return f"sequence of: {_values(args[0], ranges)}"
    if origin is Mapping:
        return f"by name: {_values(args[1], ranges)}"
    if type(None) in args:
        return f"None, or {_values(args[0], ranges)}"
    names = {bool: "True, False", int: "whole number", float: "number", str: "text"}
    return ", ".join([names[hint], *(allowed.rule.removeprefix("must ").removeprefix("be ") for allowed in ranges)])


if __name__ == "__main__":
    print(markdown(), end="")
