"""Our model against `transformers` 5.23 in float32: parts to 1e-5, logits to 1e-4, greedy tokens exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
import qwen_reference as ref  # noqa: E402

from fgrpo_jax.model import attention, rope, text, vision, weights  # noqa: E402
from fgrpo_jax.model.config import ModelConfig  # noqa: E402
from fgrpo_jax.model.qwen2_5_vl import Model  # noqa: E402

# 2×2, 2×N, N×2, sides not divisible by 8, sides exactly divisible by 8.
GRIDS = [(1, 2, 2), (1, 2, 14), (1, 12, 2), (1, 10, 14), (1, 8, 16)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(reference, our model, our params), the weights carried over by save_pretrained and load_hf."""
    theirs = ref.reference_model()
    folder = tmp_path_factory.mktemp("reference")
    theirs.save_pretrained(folder)
    ours = Model.create(ModelConfig.load(folder))
    return theirs, ours, weights.load_hf(folder, ours, dtype=jnp.float32)


def encode_and_prefix(model, params, prompts):
    hidden, kv = model.prefix(params, prompts, model.encode(params, prompts.vision))
    return model.logits(params, hidden), kv


def our_logits(model, params, prompts, **how) -> list[np.ndarray]:
    """Logits of each prompt's real tokens."""
    inputs = ref.batch(prompts, model.config, **how)
    logits, _ = jax.jit(encode_and_prefix, static_argnums=0)(model, params, inputs)
    return [np.asarray(row)[np.asarray(mask)] for row, mask in zip(logits, inputs.mask, strict=True)]


def their_logits(model, prompt, extra=()) -> np.ndarray:
    inputs = ref.reference_inputs([prompt], extra=[np.asarray(extra, np.int64)])
    with torch.no_grad():
        return model(**inputs).logits[0].numpy()


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def test_logits(pair):
    theirs, ours, params = pair
    prompts = [ref.make_prompt(i, [grid]) for i, grid in enumerate(GRIDS)]
    prompts += [ref.make_prompt(9, [(1, 4, 6), (1, 10, 14)]), ref.make_prompt(10, [])]
    for prompt, logits in zip(prompts, our_logits(ours, params, prompts), strict=True):
        error = relative_error(logits, their_logits(theirs, prompt))
        print(prompt.grids, error)
        assert error <= 1e-4, prompt.grids
