"""Which questions a config asks: its training and held-out data, and the sets of `evaluate`, as sources."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import jax

from fgrpo_jax.config.sections import Config, MixSection
from fgrpo_jax.data.sets import mix
from fgrpo_jax.data.sets.catalogue import SetSource, open_set
from fgrpo_jax.data.sets.choices import SettledSource
from fgrpo_jax.data.sets.mix import Member, MixSource
from fgrpo_jax.data.sets.readers.files import Reading
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sources import First, Source
from fgrpo_jax.reading.formulas import is_latex, require_math


def source(config: Config, split: str, *, traces: bool = False, size: int | None = None) -> Source:
    """The data source of one split, or the first `size` examples of it, which must be there.

    Args:
      traces: whether examples carry reference responses (supervised training), captions of scenes among them.
    """
    data = config.data
    if data.source == "world":
        return _world(config, split, traces=traces, size=size)
    if data.source == mix.NAME:
        whole: Source = _mix(config, split, traces=traces)
    else:
        whole = _set(config, data.source, data.path, split, Reading(data.columns, data.images, traces=traces))
    if not traces:
        _require_gradable(whole.entries)
    return whole if size is None else First(whole, size)


def _require_gradable(entries: Sequence[Entry]) -> None:
    """Raises a ValueError where open answers are LaTeX and math-verify, which grades them, is not installed."""
    if any(not entry.options and is_latex(entry.answer) for entry in entries):
        require_math()


def _world(config: Config, split: str, *, traces: bool, size: int | None) -> Source:
    """The built-in world. It is imported here alone, so that without its folder every other source still works."""
    from fgrpo_jax.world.examples import World, WorldSource

    section = config.data.world
    world = World(
        section.difficulty,
        families=dict(section.families) or None,
        flawed=section.flawed,
        flaws=section.flaws,
        yes_no=section.yes_no,
        split_seed=section.seed,
        captions=config.sft.describe if traces else 0.0,
    )
    whole = WorldSource(world, split, with_trace=traces)
    return whole if size is None else dataclasses.replace(whole, size=size)


def _set(config: Config, name: str, path: str | Path, split: str, reading: Reading) -> SetSource:
    """One set with its open answers settled; says what became of them."""
    data = config.data
    whole = open_set(name, path, split=split, bad=data.bad, reading=reading)
    if data.open_answers == "keep":
        return whole
    settled = SettledSource(whole, data.open_answers)
    turned, dropped = (settled.settled.counts[what] for what in ("turned", "dropped"))
    if jax.process_index() == 0 and (turned or dropped):
        print(f"open answers of {name} ({split}): {turned:,} turned into choices, {dropped:,} dropped")
    return settled


def _mix(config: Config, split: str, *, traces: bool) -> MixSource:
    """The mix of `data.mix`; says what it is made of."""
    members = [_member(config, name, member, traces=traces) for name, member in config.data.mix.items()]
    made = MixSource(members, split=split, seed=config.data.mix_seed)
    if jax.process_index() == 0:
        print(f"mix, {made}")
    return made


def _member(config: Config, name: str, member: MixSection, *, traces: bool) -> Member:
    folder, reading = (
        Path(config.data.path) / (member.path or name),
        Reading(member.columns, member.images, traces=traces),
    )
    return Member(name, _set(config, member.set, folder, member.split, reading), member.count, member.boxes)


def heldout(config: Config) -> Source:
    """The held-out questions of the config's own data."""
    return source(config, config.data.eval_split, size=config.eval.examples)


def heldout_sets(config: Config) -> dict[str, Source]:
    """The questions of `evaluate` by the name of their file: those of `eval.sets`, else `heldout`."""
    if not config.eval.sets:
        return {_file_name(f"{config.data.source}:{config.data.eval_split}"): heldout(config)}
    out: dict[str, Source] = {}
    for asked in config.eval.sets:
        name = _file_name(asked)
        if name in out:
            raise ValueError(f"config.eval.sets names '{asked}' twice; drop one")
        whole = _evaluation_set(config, asked)
        out[name] = First(whole, min(config.eval.limit, len(whole))) if config.eval.limit else whole
    return out


def _file_name(asked: str) -> str:
    """'nlvr:hidden[:200]' → 'nlvr-hidden-200'"""
    return re.sub(r"[^\w.]+", "-", asked).strip("-")


def _evaluation_set(config: Config, asked: str) -> Source:
    """One of `eval.sets`, 'NAME' or 'NAME:SPLIT'."""
    name, _, split = asked.partition(":")
    if name == "world":
        data = dataclasses.replace(config.data, source="world", path="")
        return source(dataclasses.replace(config, data=data), split or config.data.eval_split)
    folder = config.eval.paths.get(name) or (config.eval.root and str(Path(config.eval.root) / name))
    if not folder:
        raise ValueError(f"config.eval.sets has '{asked}', but no folder; set config.eval.root or eval.paths.{name}")
    data = config.data
    reading = Reading(data.columns, data.images) if name == data.source else None
    whole = open_set(name, folder, split=split, bad=data.bad, reading=reading)
    _require_gradable(whole.entries)
    return whole
