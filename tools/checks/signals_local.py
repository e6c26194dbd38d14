"""The judge in the process of training: what its choices cost against decoding them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench_rollout import timed

from checks import runs
from checks.record import Check, above
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.model.qwen2_5_vl import Model, unrolls
from fgrpo_jax.records import Example
from fgrpo_jax.rewards.judges.scorer import VerdictScorer
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.weights import importer

CASES = 100
VERDICTS = ("CORRECT", "INCORRECT", "SKIP")
DECODED = 16
"""Tokens of an answer that is decoded instead; a chatty judge says more."""

MIXED = (((56, 84),), ((112, 112),), ((70, 200),), ((140, 90), (84, 84)), ((100, 100),), (), ((196, 168),), ())
"""(height, width) of the images of each example: one, two, or none."""

LARGE = (((336, 448),), ((392, 392),), ((448, 280),), ((308, 420),))
"""About 170 tokens each, which a served judge reads anew with every sentence."""

SENTENCES = (
    "The red circle is at <bbox>[0,14,42,56]</bbox>.",
    "The blue square is left of the red circle.",
    "There are 3 objects.",
    "So the answer is A.",
    "The green triangle is above the blue square, and the red circle is below it.",
)


def cases(processor: Any, *, pictures: Any = MIXED, count: int = CASES) -> tuple[list[Any], list[Any]]:
    """(`count` prompts as a judge gets them, the images of each): reasonings of many lengths about few examples."""
    rng = np.random.default_rng(0)
    examples = []
    for number, sizes in enumerate(pictures):
        images = tuple(rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes)
        question = f"Where is the {'red circle' if number % 2 else 'blue square'}?"
        examples.append(
            Example(id=f"e{number}", images=images, question=question, options=("left", "right"), answer="")
        )
    encoded = [processor.encode(example, style="tiny") for example in examples]
    prompts, shown = [], []
    for number in range(count):
        at = number % len(examples)
        said = " ".join(rng.choice(SENTENCES, rng.integers(0, 5)))
        user = f"{examples[at].question}\nSo far: {said}\nNow: {rng.choice(SENTENCES)}\nCORRECT, INCORRECT or SKIP?"
        prompts.append(processor.reworded(encoded[at], system="Judge.", user=user))
        shown.append(examples[at].images)
    return prompts, shown


def throughput(context: runs.Context) -> Iterator[Check]:
    """Seconds of 100 judgements, and of the same prompts answered by the sampler in 16 tokens; both are compiled."""
    scored, decoded = seconds(context.policy)
    yield above(f"local/judgements a second, {CASES} prompts on CPU", CASES / scored, 0)
    yield above(f"local/the same, {DECODED} tokens decoded for each", CASES / decoded, 0)
    yield above("local/times faster than decoding", decoded / scored, 2.0)


def seconds(folder: Path) -> tuple[float, float]:
    """(of scoring, of decoding DECODED tokens each), the best of three, compilation apart."""
    processor = Processor.load(folder)
    model = Model.create(processor.config, unrolled=unrolls(None))
    params = importer.load_hf(folder, model, dtype="float32")
    prompts, _ = cases(processor, pictures=LARGE)
    scorer = VerdictScorer(model, params, processor)
    sampler = Sampler(
        model,
        Sampling(group_size=1, max_new_tokens=DECODED, temperature=0.0),
        eos_ids=(),
        pad_id=processor.pad_id,
        banned=processor.banned,
    )

    def decode() -> None:
        # As a served judge is asked: every prompt by itself, in batches of the same length.
        order = sorted(prompts, key=lambda prompt: len(prompt.tokens))
        for start in range(0, len(order), 20):
            batch = collate(order[start : start + 20], buckets=Buckets(), pad_id=processor.pad_id)
            jax.block_until_ready(sampler.sample(params, batch, seed=0, purpose="check", step=0).tokens)

    scorer.choose(prompts, VERDICTS)  # compiles, and so does the next
    decode()
    best = lambda run: min(timed(run).wall for _ in range(3))  # noqa: E731
    return best(lambda: scorer.choose(prompts, VERDICTS)), best(decode)
