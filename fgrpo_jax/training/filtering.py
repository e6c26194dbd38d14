"""The difficulty filter from a config to its lists."""

from __future__ import annotations

import argparse
import dataclasses

import jax
import numpy as np
from tqdm import tqdm

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import buckets
from fgrpo_jax.data.pipeline import Encoder, Needs
from fgrpo_jax.data.sources import First, Part, Source
from fgrpo_jax.data.steps import by_need
from fgrpo_jax.training import datasets, selection, setup
from fgrpo_jax.training.difficulty import Difficulty, settings
from fgrpo_jax.training.policy import Named


def run(args: argparse.Namespace) -> None:
    """Answers what is not answered yet, then writes the lists."""
    named = Named.of(args, door="train")
    config, policy = named.config, named.policy
    meshes.require_divisible(policy.mesh, config__data__difficulty__batch_prompts=config.data.difficulty.batch_prompts)
    whole, first = datasets.source(config, config.data.train_split), config.data.difficulty.examples
    if config.data.source == "world" and not first:
        raise ValueError(
            "the built-in world has no end; say how many of its examples are tried: "
            "--config.data.difficulty.examples=1000"
        )
    tried = First(whole, first) if first else whole
    encoder = setup.encoder(config, policy)
    order, needs, long = _order(config, tried, encoder)
    data, weights = selection.description(config, whole), named.identity["fingerprint"]
    found = Difficulty(args.workdir / "filter", config, policy, Part(tried, order.tolist()))
    found.claim(settings(config, data, weights), overwrite=args.overwrite)
    rows = found.answers(lambda: named.params, setup.sampler(config, policy, purpose="filter"), needs, encoder)
    if jax.process_index() == 0:
        who = {"hf": named.identity["name"], "revision": named.identity["revision"], "weights": weights}
        print(found.write(rows, {"data": data, "policy": who, "examples": len(tried), "too_long": long}))


def _order(config: Config, source: Source, encoder: Encoder) -> tuple[np.ndarray, np.ndarray, int]:
    """(places in the source, the largest prompts first; int32 [N, 4] what each needs; how many are too long).

    So batches hold what is alike, and what does not fit into memory shows at once.
    """
    if config.data.source == "world":
        need = Needs(source, encoder)
        bar = tqdm(range(len(source)), desc="measuring prompts", unit="prompt", leave=False)
        known = np.array([dataclasses.astuple(need(index)) for index in bar], np.int32)
    else:
        known = selection.needs(config, source, encoder)
    indices = np.arange(len(source))
    if config.data.overlong == "drop":
        indices = selection.short(known, indices, config.data.max_prompt_tokens)
    order = indices[by_need([buckets.Shape(*map(int, known[index])) for index in indices])[::-1]]
    return order, known[order], len(source) - len(indices)
