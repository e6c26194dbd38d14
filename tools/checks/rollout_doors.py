"""Rollouts against what is known of them: a peer's greedy tokens, exact probabilities, counted programs, throughput."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from checks import nlvr, runs
from checks.record import Check, at_least, at_most, same, skipped

PROMPTS, TOKENS = 50, 64
DRAWS, GROUP = 20_000, 500
SMALLEST_P = 1e-3
"""Of a chi-square test with fixed seeds: a right sampler falls below it once in a thousand choices of the seed."""

DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "temperature 1": {"temperature": 1.0},
    "temperature 0.5": {"temperature": 0.5},
    "top-k 5": {"temperature": 1.0, "top_k": 5},
    "top-p 0.7": {"temperature": 1.0, "top_p": 0.7},
    "min-p 0.1": {"temperature": 1.0, "min_p": 0.1},
    "top-k 20, top-p 0.9, temperature 1.5": {"temperature": 1.5, "top_k": 20, "top_p": 0.9},
}
MIXED = {
    "num_steps": 25,
    "data.world.difficulty": "easy",
    "data.min_pixels": 28 * 28,
    "data.max_pixels": 448 * 448,
    "data.max_prompt_tokens": 512,
    "data.buckets.prompt": "()",
    "data.buckets.patches": "()",
    "data.buckets.choose": 3,
    "rollout.max_new_tokens": 8,
    "rollout.group_size": 2,
    "data.prompts_per_step": 8,
}
"""Two hundred prompts of the `easy` world, whose images are 168 to 448 pixels a side."""


def peer_greedy(context: runs.Context) -> Iterator[Check]:
    """Greedy tokens on real images equal those of `generate` of transformers."""
    name = f"peer/NLVR prompts of {PROMPTS} whose {TOKENS} greedy tokens differ"
    if not (context.nlvr / "test" / "test.json").is_file():
        yield skipped(name, f"no NLVR at {context.nlvr}; give its folder with --nlvr=FOLDER (docs/data.md)", "== 0")
    elif importlib.util.find_spec("torch") is None:
        yield skipped(name, "torch is not installed; pip install '.[test]'", "== 0")
    else:
        found = nlvr.compare(context.policy, context.nlvr, prompts=PROMPTS, tokens=TOKENS)
        yield same(name, found.differing, 0)


def frequencies(context: runs.Context) -> Iterator[Check]:
    """How often each token is drawn, against its exact probability, by a chi-square test a distribution."""
    from fgrpo_jax.rollout.sampler import Sampler

    processor, model, params, batch, logits = _one_prompt(context)
    for name, settings in DISTRIBUTIONS.items():
        sampler = Sampler(
            model,
            group_size=GROUP,
            max_new_tokens=1,
            eos_ids=processor.eos_ids,
            pad_id=processor.pad_id,
            banned=processor.banned,
            **settings,
        )
        counts = np.zeros(len(logits), np.int64)
        for step in range(DRAWS // GROUP):
            drawn = np.asarray(sampler.sample(params, batch, seed=0, purpose="check", step=step).tokens)
            counts += np.bincount(drawn.reshape(-1), minlength=len(logits))
        exact = exact_probabilities(logits, processor.banned, **settings)
        yield at_least(f"frequencies/p of {DRAWS} draws, {name}", chi_square(counts, exact), SMALLEST_P)


def _one_prompt(context: runs.Context) -> tuple[Any, Any, Any, Any, np.ndarray]:
    """(processor, model, random params whose logits are far from flat, a batch of one image prompt, its logits [V])."""
    import jax

    from fgrpo_jax.data.buckets import Buckets
    from fgrpo_jax.data.processor import Processor
    from fgrpo_jax.data.prompts import collate
    from fgrpo_jax.model.qwen2_5_vl import Model
    from fgrpo_jax.world.examples import World

    processor = Processor.load(context.policy)
    model = Model.create(processor.config)
    params = model.init(jax.random.key(0))
    params["text"]["embed"]["table"] = params["text"]["embed"]["table"] * 8
    prompt = processor.encode(World("tiny").example(0), style="tiny")
    batch = collate([prompt], buckets=Buckets(), pad_id=processor.pad_id)

    def last(params: Any, batch: Any) -> jax.Array:
        hidden, _ = model.prefix(params, batch, model.encode(params, batch.vision))
        return model.logits(params, hidden[0, len(prompt.tokens) - 1])

    return processor, model, params, batch, np.asarray(jax.jit(last)(params, batch))


def exact_probabilities(
    logits: np.ndarray,
    banned: np.ndarray,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> np.ndarray:
    """Probabilities float64 [V] of the distribution drawn from, written down once more and otherwise: by ranks."""
    scores = np.where(banned, -np.inf, logits.astype(np.float64) / temperature)
    order = np.argsort(-scores, kind="stable")
    kept = order[: top_k or len(order)]
    p = np.exp(scores[kept] - scores[kept[0]])
    p /= p.sum()
    kept = kept[: int(np.searchsorted(np.cumsum(p), top_p)) + 1] if top_p < 1 else kept
    kept = kept[: int((p[: len(kept)] >= min_p * p[0]).sum())]
    out = np.zeros(len(scores))
    out[kept] = p[: len(kept)] / p[: len(kept)].sum()
    return out


def chi_square(counts: np.ndarray, exact: np.ndarray) -> float:
    """p-value of the counts; tokens expected fewer than 5 times are one cell, and one that cannot come makes it 0."""
    from scipy import stats

    if counts[exact == 0].any():
        return 0.0
    expected = exact * counts.sum()
    large = expected >= 5
    pooled = [counts[~large].sum()], [expected[~large].sum()]
    observed, wanted = (np.concatenate([a[large], rest]) for a, rest in zip((counts, expected), pooled, strict=True))
    if wanted[-1] < 5:  # too few even together: with the smallest of the others
        smallest = int(np.argmin(wanted[:-1]))
        observed[smallest], wanted[smallest] = observed[smallest] + observed[-1], wanted[smallest] + wanted[-1]
        observed, wanted = observed[:-1], wanted[:-1]
    return float(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)


def shapes(context: runs.Context) -> Iterator[Check]:
    """A run over mixed image sizes compiles sampler and learner once a chosen shape, all before its first step."""
    work = context.scratch / "mixed"
    chosen = MIXED["data.buckets.choose"]
    flags = runs.tiny(context.policy, work, **{name.replace(".", "__"): value for name, value in MIXED.items()})
    runs.door("train", *flags).require()
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    counts = [row["compile/count"] for row in rows]
    prompts = len(rows) * MIXED["data.prompts_per_step"]
    yield at_most(
        f"shapes/programs of sampler and learner over {prompts} prompts, {chosen} shapes", max(counts), 2 * chosen
    )
    yield same("shapes/programs compiled after the first step", max(counts) - counts[0], 0)
    waste = float(np.mean([row["data/padding_waste"] for row in rows]))
    yield at_most("shapes/mean share of prompt tokens that are padding", waste, 0.5)


def throughput(context: runs.Context) -> Iterator[Check]:
    """tools/bench_rollout.py: tokens/s against transformers on torch, and what compaction saves on a long tail."""
    del context
    tool = runs.ROOT / "tools" / "bench_rollout.py"
    if importlib.util.find_spec("torch") is None:
        yield skipped("throughput/ratio to torch", "torch is not installed; pip install '.[test]'", ">= 3")
    else:
        found = json.loads(runs.python(tool).require().out.splitlines()[-1])
        yield at_least("throughput/ratio to transformers on torch, CPU", found["ratio"], 3.0)
    found = json.loads(runs.python(tool, "--tail").require().out.splitlines()[-1])
    yield at_least("throughput/decode time without over with compaction, long tail", found["ratio"], 1.3)
    yield same("throughput/rollouts that compaction changed", found["differing"], 0)
