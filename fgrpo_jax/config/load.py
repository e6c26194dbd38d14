"""Between a ConfigDict, as files and flags make it, and the frozen record that the code reads.

`default` is what config files change, `load` the only way in: an unknown key fails with the nearest name, a wrong value
with the rule and the remedy. `to_dict` is the way out, into a run's config.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fgrpo_jax.config import schema
from fgrpo_jax.config.sections import CONSTRAINT_NAMES, Config, MixSection
from fgrpo_jax.fgrpo.settings import Constraint


def default() -> ConfigDict:
    """Every field with its default, which is the paper's value where the paper states one."""
    out = schema.default(Config)
    out.constraints = ConfigDict()
    for one in Config().constraints:
        out.constraints[one.name] = constraint(one.threshold, direction=one.direction)
    return out


def constraint(threshold: float, *, direction: str = ">=") -> ConfigDict:
    """A constraint with the paper's settings; for configs that add one, see configs/response_length.py."""
    out = schema.default(Constraint)
    out.threshold, out.direction = threshold, direction
    return out


def member(name: str, *, count: int, boxes: bool, split: str = "train") -> ConfigDict:
    """One set of a mix; for configs that have one, see configs/paper_mix.py."""
    out = schema.default(MixSection)
    out.set, out.count, out.boxes, out.split = name, count, boxes, split
    return out


def load(config: Mapping[str, Any], *, door: str = "train") -> Config:
    """Checks a ConfigDict (or plain nested dict) and freezes it.

    Args:
      config: all sections and fields of configs/default.py, no more and no less.
      door: what the run does: 'train', 'sft' or 'evaluate'. Some settings are refused in training only.

    Raises:
      ValueError: unknown or missing field, wrong type, value out of range, contradiction; names field and remedy.
    """
    from fgrpo_jax.config import checks  # here, since it reads the catalogue of sets, which no mistyped flag waits for

    raw = schema.plain(config)
    checks.refuse_moved(raw)
    named = raw.get("constraints")
    if not isinstance(named, Mapping):
        raise ValueError(
            "config.constraints must map constraint names to their settings; start from configs/default.py"
        )
    known = checks.signal_names(raw)
    # The order of every [C] array: the paper's constraints, then the others by name.
    order = [*(n for n in CONSTRAINT_NAMES if n in named), *sorted(set(named) - set(CONSTRAINT_NAMES))]
    raw["constraints"] = [checks.named_constraint(name, named[name], known) for name in order]
    made = schema.build(Config, raw, path="config")
    checks.check(made, door=door)
    return made


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved config as plain JSON types; `load` takes it back."""
    out = schema.plain(dataclasses.asdict(config))
    out["constraints"] = {c.pop("name"): c for c in out["constraints"]}
    return out
