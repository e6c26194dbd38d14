"""Which examples of the training source a run sees: kept by the difficulty filter, and not too long."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgrpo_jax.config import effects
from fgrpo_jax.config.load import to_dict
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import lengths
from fgrpo_jax.data.pipeline import Encoder
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.data.sources import Part, Source


@dataclasses.dataclass(frozen=True)
class Selected:
    """What training reads.

    Attributes:
      source: the examples that are left.
      known: int32 [N, 4], what each of them needs of a batch; None where that was not measured.
      digest: names the choice; '' where all examples of the source are left.
    """

    source: Source
    known: np.ndarray | None = None
    digest: str = ""


def description(config: Config, source: Source) -> dict[str, Any]:
    """What tells the training data of this config from others, wherever it lies; JSON types."""
    drawn = config.data.source == "world"
    fields = effects.depending(to_dict(config), "data")
    found = {name: value for name, value in fields.items() if drawn or not name.startswith("data.world.")}
    return {**found, "examples": len(source)}


def folders(config: Config) -> list[Path]:
    """Where the training data of this config lies."""
    data = config.data
    if data.mix:
        return [Path(data.path) / (member.path or name) for name, member in data.mix.items()]
    return [Path(data.path)] if data.path else []


def select(config: Config, source: Source, encoder: Encoder) -> Selected:
    """Applies `data.filter` and `data.overlong`, and prints what they left out; a ValueError where nothing is left."""
    data, known = config.data, None
    indices = _kept(config, source) if data.filter else None
    if data.overlong == "drop" or (data.buckets.group > 1 and data.source != "world"):
        known = needs(config, source, encoder, indices)
    if data.overlong == "drop":
        assert known is not None
        indices = short(known, np.arange(len(source)) if indices is None else indices, data.max_prompt_tokens)
    if indices is None or len(indices) == len(source):
        return Selected(source, known)
    digest = hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
    return Selected(Part(source, indices.tolist()), None if known is None else known[indices], digest)


def needs(config: Config, source: Source, encoder: Encoder, indices: np.ndarray | None = None) -> np.ndarray:
    """int32 [N, 4]: what the examples (those at `indices`) need, from the cache where they were measured before."""
    data = {**description(config, source), "files": [lengths.files_below(folder) for folder in folders(config)]}
    folder = lengths.cache_folder(config.data.length_cache)
    return lengths.measured(source, encoder, data=data, folder=folder, indices=indices)


def _kept(config: Config, source: Source) -> np.ndarray:
    path = config.data.filter
    rows, summary = subsets.read_kept(path)
    what = f"the filter {path}"
    subsets.require_same_data(summary["data"], description(config, source), what=what)
    indices = subsets.find_rows(source, rows, what=what)
    if not len(indices):
        raise ValueError(f"{what} keeps no example; filter with another policy, more examples, or set data.filter=''")
    tried = summary["examples"]
    _say(f"filter: {len(indices):,} of {tried:,} examples kept ({path}, by the policy {summary['policy']['hf']})")
    return indices


def short(known: np.ndarray, indices: np.ndarray, most: int) -> np.ndarray:
    """Those of the examples at `indices` whose prompts have at most `most` tokens; says how many have more."""
    tokens = known[indices, 0]
    kept = indices[tokens <= most]
    if not len(kept):
        raise ValueError(
            f"every prompt exceeds config.data.max_prompt_tokens={most} (the shortest has {tokens.min()} tokens); "
            "raise it or lower max_pixels"
        )
    longest = f", the longest with {tokens.max():,} tokens" if len(kept) < len(indices) else ""
    left = len(indices) - len(kept)
    _say(f"length filter: {left:,} of {len(indices):,} prompts exceed {most:,} tokens and are left out{longest}")
    return kept


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text)
