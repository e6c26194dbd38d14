"""Config files: where one is found, what it builds on, and what flags change in it.

`--config=tiny` and `--config=baselines/gdpo.py` are configs of the package (fgrpo_jax.configs, the folder configs/ of a
checkout), `--config=MINE.py` is a file. What stands behind a colon is what the file builds on, itself such a name or
file: `--config=baselines/gdpo.py:MINE.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict, config_flags

from fgrpo_jax.config import schema
from fgrpo_jax.config.load import constraint
from fgrpo_jax.config.sections import Config
from fgrpo_jax.fgrpo.settings import Constraint

SHIPPED = Path(__file__).parents[1] / "configs"
"""The configs that come with the package."""


def load_config(name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ConfigDict:
    """The ConfigDict of a config file, with overrides such as '--config.optim.learning_rate=2e-6' applied.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file has no get_config, or none that takes what stands behind the colon; or an override names no
        field (with the nearest name) or has a bad value.
    """
    config = base(str(name))
    dotted = [override.partition("=")[0].removeprefix("--config.") for override in overrides]
    constraints: Any = config.constraints
    known = set(constraints)
    for path in dotted:
        _find_or_add(config, path)
    for name in sorted(set(constraints) - known):
        if f"constraints.{name}.threshold" not in dotted:
            raise ValueError(
                f"config.constraints.{name} is new and has no threshold; give --config.constraints.{name}.threshold=τ"
            )
    # A set of flags of its own: commands may be imported together, and each has a --config.
    values, command = flags.FlagValues(), ["config", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command)
    try:
        values(command)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return values.config


def base(name: str) -> ConfigDict:
    """The config of a name or file as its get_config() makes it; for configs that build on others.

    Raises:
      FileNotFoundError, ValueError: as `load_config`.
    """
    file, colon, below = name.partition(":")
    return _made(find(file), *([below] if colon else []))


def find(name: str) -> Path:
    """The file of a config: the path itself, else among the configs of the package.

    Raises:
      FileNotFoundError: neither is there.
    """
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        return path
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    shipped = SHIPPED / inside.with_suffix(".py")
    if not inside.is_absolute() and ".." not in inside.parts and shipped.is_file():
        return shipped
    known = [str(file.relative_to(SHIPPED).with_suffix("")) for file in sorted(SHIPPED.rglob("*.py"))]
    known = [name for name in known if not name.endswith("__init__")]
    raise FileNotFoundError(f"no config file at {name}, and no config of that name; {schema.nearest(name, known)}")


def _made(file: Path, *below: str) -> ConfigDict:
    module = _module(file)
    if "get_config" not in vars(module):
        raise ValueError(f"{file} has no get_config(); see configs/default.py")
    if len(below) > len(inspect.signature(module.get_config).parameters):
        raise ValueError(f"{file} builds on nothing that is named behind a colon, got ':{below[0]}'; leave it out")
    return module.get_config(*below)


def _module(file: Path) -> Any:
    if file.is_relative_to(SHIPPED):
        return importlib.import_module("fgrpo_jax.configs." + ".".join(file.relative_to(SHIPPED).with_suffix("").parts))
    name = f"fgrpo_config_{hashlib.sha1(str(file.absolute()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file; a config is a .py file with get_config()")
    module = importlib.util.module_from_spec(spec)
    # Modules beside the file can be imported, and `configs` where the file lies in a checkout's folder of that name.
    roots = [str(file.absolute().parent)]
    if file.absolute().parent.name == "configs":
        roots.append(str(file.absolute().parent.parent))
    sys.path[:0] = roots
    try:
        spec.loader.exec_module(module)
    finally:
        for root in roots:
            sys.path.remove(root)
    return module


# ----------------------------------------------------------------------------------------------------------- overrides
def _find_or_add(config: ConfigDict, dotted: str) -> None:
    """Sees that a field is there, and adds it where it is an entry of a mapping that takes any name.

    Raises:
      ValueError: there is no such field; names the nearest.
    """
    here, hint, walked = config, Config, "config"
    for key in dotted.split("."):
        entry = schema.entry(hint)
        if isinstance(here, ConfigDict) and key not in here and entry is not None:
            blank = schema.default(cast(type, entry)) if dataclasses.is_dataclass(entry) else entry()  # for its type
            here[key] = constraint(0.0) if entry is Constraint else blank
        if not isinstance(here, ConfigDict) or key not in here:
            known = here.keys() if isinstance(here, ConfigDict) else ()
            what = schema.nearest(key, known) if known else f"{walked} is a value, not a section"
            raise ValueError(f"unknown config key 'config.{dotted}': {walked} has no '{key}'; {what}")
        hint = schema.hints(hint).get(key) if dataclasses.is_dataclass(hint) else entry
        here, walked = here[key], f"{walked}.{key}"
