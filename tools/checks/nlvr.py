"""NLVR's photographs: train, export, and the same numbers from `transformers`."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, at_most, same, skipped

STEPS = 20
PROMPTS = 10
TOKENS = 32
CONFIG = runs.CONFIGS / "nlvr.py"


def checks(context: runs.Context) -> Iterator[Check]:
    """Twenty steps on real images; the export loads in transformers with our logits and our greedy tokens."""
    if not (context.nlvr / "test" / "test.json").is_file():
        reason = f"no NLVR at {context.nlvr}; give its folder with --nlvr=FOLDER (docs/data.md)"
        yield skipped("nlvr/steps", reason, f"== {STEPS}")
        return
    work, out = context.scratch / "nlvr", context.scratch / "nlvr-export"
    given = {"model.hf": context.policy, "data.path": context.nlvr, "num_steps": STEPS, "eval.examples": 0}
    runs.door("train", f"--config={CONFIG}", f"--workdir={work}", *runs.overrides(given)).require()
    yield same("nlvr/steps", len((work / "metrics.jsonl").read_text().splitlines()), STEPS)
    runs.door("export", f"--checkpoint={work / 'checkpoints'}", f"--out={out}").require()
    if importlib.util.find_spec("torch") is None:
        yield skipped("nlvr/logits_relative_error", "torch is not installed; pip install '.[test]'", "<= 0.0001")
        return
    yield from _parity(out, context.nlvr)


@dataclasses.dataclass(frozen=True)
class Compared:
    """What transformers says of a folder: problems while loading it, worst logits, prompts whose tokens differ."""

    problems: dict[str, list[str]]
    relative_error: float
    differing: int


def _parity(folder: Path, data: Path) -> Iterator[Check]:
    """Loads the folder with both and compares them on the first held-out prompts."""
    found = compare(folder, data, prompts=PROMPTS, tokens=TOKENS)
    yield same("nlvr/transformers_loading_problems", found.problems, {})
    yield at_most(f"nlvr/logits_relative_error on {PROMPTS} prompts", found.relative_error, 1e-4)
    yield same(f"nlvr/prompts of {PROMPTS} whose {TOKENS} greedy tokens differ", found.differing, 0)


def compare(folder: Path, data: Path, *, prompts: int, tokens: int) -> Compared:
    """Logits and greedy tokens of both on the first held-out prompts."""
    theirs, problems = load_theirs(folder)
    encoded, pictures, ours, drawn = _ours(folder, data, count=prompts, new=tokens)
    pixels = _pixels(folder, pictures)
    worst, differing = 0.0, 0
    for prompt, image, logits, row in zip(encoded, pixels, ours, drawn, strict=True):
        inputs = their_inputs(prompt, image, theirs.config.image_token_id)
        worst = max(worst, _relative_error(logits, their_logits(theirs, inputs)))
        differing += _greedy(theirs, inputs, new=tokens) != row.tolist()
    return Compared(problems, worst, differing)


# ------------------------------------------------------------------------------------------------------------- ours
def _ours(
    folder: Path, data: Path, *, count: int, new: int
) -> tuple[Sequence[Any], list[np.ndarray], list[np.ndarray], np.ndarray]:
    """(encoded prompts, their images, logits [s, V] of every prompt, greedy tokens int [prompts, new])."""
    import jax

    from fgrpo_jax.config import files
    from fgrpo_jax.config import load as configs
    from fgrpo_jax.data.prompts import collate
    from fgrpo_jax.rollout.sampler import Sampler
    from fgrpo_jax.training import datasets, setup

    raw: Any = files.load_config(CONFIG, runs.overrides({"model.hf": folder, "data.path": data}))
    config = configs.load(raw, door="evaluate")
    policy = setup.policy(config)
    params, model, processor = policy.load("float32"), policy.model, policy.processor
    source = datasets.source(config, config.data.eval_split, size=count)
    examples = [source[index] for index in range(count)]
    encode = setup.encoder(config, policy)
    prompts = [encode(example)[1] for example in examples]
    batch = collate(prompts, buckets=setup.buckets(config), pad_id=processor.pad_id)

    def forward(params: Any, batch: Any) -> jax.Array:
        hidden, _ = model.prefix(params, batch, model.encode(params, batch.vision))
        return model.logits(params, hidden)

    logits = np.asarray(jax.jit(forward)(params, batch))
    rows = [row[mask] for row, mask in zip(logits, batch.mask, strict=True)]
    # Nothing is banned and nothing ends: the comparison is of the bare models, to the last token.
    sampler = Sampler(
        model,
        group_size=1,
        max_new_tokens=new,
        eos_ids=(),
        pad_id=processor.pad_id,
        banned=np.zeros(model.config.text.vocab_size, bool),
        temperature=0.0,
    )
    drawn = sampler.sample(params, batch, seed=0, purpose="check", step=0)
    return prompts, [example.images[0] for example in examples], rows, np.asarray(drawn.tokens)[:, 0]


# ----------------------------------------------------------------------------------------------------------- theirs
def load_theirs(folder: Path) -> tuple[Any, dict[str, list[str]]]:
    """The folder's model in transformers, float32, and what its loader complains of."""
    import torch
    import transformers

    loaded: Any = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    model, info = loaded
    model.generation_config.eos_token_id = None  # as ours: all 32 tokens, whatever they are
    return model.eval(), {name: sorted(map(str, found)) for name, found in info.items() if found}


def _pixels(folder: Path, pictures: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Pixel values and grids by the image processor of transformers, not ours."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    return [dict(processor(images=[picture], return_tensors="pt")) for picture in pictures]


def their_inputs(prompt: Any, image: dict[str, Any], image_token: int) -> dict[str, Any]:
    import torch

    ids = torch.tensor(prompt.tokens[None], dtype=torch.long)
    # Without the token types transformers 5 would give image tokens the positions of text.
    types = (ids == image_token).int()
    return {**image, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}


def their_logits(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**inputs).logits[0].float().numpy()


def _greedy(model: Any, inputs: dict[str, Any], *, new: int) -> list[int]:
    import torch

    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=new, do_sample=False, repetition_penalty=1.0)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def _relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
