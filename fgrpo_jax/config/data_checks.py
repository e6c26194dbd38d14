"""What the settings of the data may not be together. `config.load` asks here.

Each function takes checked sections and raises a ValueError that names the fields, their values and the remedy.
"""

from __future__ import annotations

from fgrpo_jax.config.schema import nearest
from fgrpo_jax.config.sections import Config, DataSection
from fgrpo_jax.data.sets import mix, prepared
from fgrpo_jax.data.sets.catalogue import SETS, SplitPart, parse_split
from fgrpo_jax.data.styles import find_style

WORLD = "world"
SOURCES = (WORLD, mix.NAME, prepared.NAME, *SETS)
"""What `data.source` may be."""

_LONG = 1_000_000_000  # rows, more than any bound


def check_data(config: Config) -> None:
    """The source is known, has its folder, and trains on other examples than it is held against; sizes fit together."""
    _check_source(config.data)
    _check_sizes(config.data)


def _check_source(data: DataSection) -> None:
    if data.source not in SOURCES:
        raise ValueError(f"config.data.source='{data.source}' is no data set; {nearest(data.source, SOURCES)}")
    if data.source not in (WORLD, mix.NAME) and not data.path:
        raise ValueError(f"config.data.source='{data.source}' needs config.data.path, the folder that holds the data")
    if data.source == WORLD and data.path:
        raise ValueError(
            f"config.data.path='{data.path}' is not read by the built-in world; set data.source or drop it"
        )
    if data.source == WORLD and data.open_answers != "keep":
        raise ValueError(
            f"config.data.open_answers='{data.open_answers}': the built-in world asks no open questions; set 'keep'"
        )
    if (data.columns or data.images) and data.source in (WORLD, mix.NAME):
        what, where = "columns" if data.columns else "images", "its members" if data.mix else "source = 'files'"
        raise ValueError(f"config.data.{what} is not read by data.source='{data.source}'; it is for {where}")
    _check_mix(data)
    _check_splits(data)


def _check_mix(data: DataSection) -> None:
    if (data.source == mix.NAME) != bool(data.mix):
        what = "needs members in config.data.mix" if data.source == mix.NAME else "does not read config.data.mix"
        raise ValueError(f"config.data.source='{data.source}' {what}; see configs/paper_mix.py, or change the source")
    if data.source == mix.NAME and {data.train_split, data.eval_split} != set(mix.SPLITS):
        raise ValueError(
            f"config.data.train_split='{data.train_split}' and eval_split='{data.eval_split}': a mix trains on 'train' "
            "and holds 'heldout' against it; parts of sets are named by their members' split"
        )
    for name, member in data.mix.items():
        at = f"config.data.mix.{name}"
        if member.set not in (prepared.NAME, *SETS):
            raise ValueError(f"{at}.set='{member.set}' is no data set; {nearest(member.set, (prepared.NAME, *SETS))}")
        if not (data.path or member.path):
            raise ValueError(f"{at} has no folder; set config.data.path to the one above all, or {at}.path")
        if member.boxes and member.set in SETS and not SETS[member.set].boxes:
            raise ValueError(f"{at}.boxes=True, but boxes of '{member.set}' do not serve R_G; set it to False")
        try:
            parse_split(member.split)
        except ValueError as error:
            raise ValueError(f"{at}.split: {error}") from error


def _check_splits(data: DataSection) -> None:
    train, held = (_split(data, name) for name in ("train_split", "eval_split"))
    if train == held:
        raise ValueError(
            f"train and eval split are both '{data.train_split}': held-out figures would be of training data"
        )
    if train.name == held.name and not _comparable(train, held):
        raise ValueError(
            f"config.data.train_split='{train}' and eval_split='{held}' cannot be told apart without knowing the "
            "length; write both in rows, or both in percent, from the same end"
        )
    if train.name == held.name and _overlap(train, held):
        raise ValueError(
            f"config.data.train_split='{train}' and eval_split='{held}' share examples: held-out figures would be of "
            "training data; let one end where the other begins"
        )


def _split(data: DataSection, field: str) -> SplitPart:
    try:
        part = parse_split(getattr(data, field))
    except ValueError as error:
        raise ValueError(f"config.data.{field}: {error}") from error
    if data.source == WORLD and (part.start is not None or part.stop is not None):
        raise ValueError(f"config.data.{field}='{part}': the built-in world is endless; name a split without rows")
    return part


def _comparable(one: SplitPart, other: SplitPart) -> bool:
    """Whether bounds of both are rows, or percent, and all counted from the same end."""
    bounds = [bound for part in (one, other) for bound in (part.start, part.stop) if bound is not None]
    parts = [part for part in (one, other) if part.start is not None or part.stop is not None]
    return len({part.percent for part in parts}) < 2 and len({bound < 0 for bound in bounds}) < 2


def _overlap(one: SplitPart, other: SplitPart) -> bool:
    """Whether two comparable parts of one split share rows: seen at a length beyond all bounds."""
    rows = [part.places(_LONG) for part in (one, other)]
    return max(rows[0].start, rows[1].start) < min(rows[0].stop, rows[1].stop)


def _check_sizes(data: DataSection) -> None:
    find_style(data.prompt)
    if data.min_pixels > data.max_pixels:
        raise ValueError(f"config.data.min_pixels={data.min_pixels} exceeds max_pixels={data.max_pixels}; swap them")
    lists = data.buckets
    given = [name for name in ("prompt", "patches") if getattr(lists, name)]
    if lists.choose and given:
        raise ValueError(
            f"config.data.buckets.choose={lists.choose} chooses lengths from the data, but buckets.{given[0]} "
            "gives them; drop one of the two"
        )
    if lists.group > 1 and (lists.choose == 1 or (len(lists.prompt) == 1 and len(lists.patches) == 1)):
        raise ValueError(
            f"config.data.buckets.group={lists.group} puts prompts of one size together, but there is one shape of "
            "batches; set group=0, or choose several shapes (data.buckets.choose=4)"
        )
    if data.source == WORLD and data.overlong == "drop":
        raise ValueError(
            "config.data.overlong='drop' measures every prompt before the run, and the built-in world has no end; set "
            "overlong='error' and raise max_prompt_tokens"
        )
    if data.source == WORLD and data.world.families and not any(data.world.families.values()):
        raise ValueError("config.data.world.families gives every family weight 0; give one a positive weight")
