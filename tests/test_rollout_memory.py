"""What the compiled programs of the sampler hold: no buffer of a length squared, and no copy of a cache."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sampler_model import MODEL, PROMPTS, QUICK, UNROLLED, G, make

from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.rollout.noise import key_words


def size(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if x.dtype != jax.random.key(0).dtype)


def abstract(length: int, patches: int = 64):
    """Prompts [4, length] with images of `patches`, as shapes."""
    buckets = Buckets(prompt=(length,), patches=(patches,), images=(2,), window_slack=(4.0,))
    prompts = collate(PROMPTS, buckets=buckets, pad_id=80)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), prompts)


def decoding(model, window: int):
    """(temporary bytes, aliased bytes, cache bytes) of the decode program at a window."""
    sampler = make(model, max_new_tokens=window, compact=True)
    args = sampler.lay_out.abstract(MODEL.abstract()), abstract(32), key_words(0, purpose=0, step=0)
    batch, _ = jax.eval_shape(sampler._begin, *args)
    memory = sampler._programs["more"].lower(args[0], batch).compile().memory_analysis()
    return memory.temp_size_in_bytes, memory.alias_size_in_bytes, size(batch.rows.cache)


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, UNROLLED], ids=["scanned", "unrolled"])
def test_a_growing_cache_costs_the_decode_program_nothing_else(model):
    """Temporary memory grows by less than a tenth of what the cache grows by; the cache itself is donated.

    Besides, layers one by one hold the scores of a whole chunk: the longest grows from 256 columns to 1,024.
    """
    (small, _, small_cache), (large, alias, cache) = decoding(model, 512), decoding(model, 2048)
    scores = 3 * 4 * G * len(PROMPTS) * MODEL.config.text.num_heads * (1024 - 256) if model.unrolled else 0
    assert large - small < 0.1 * (cache - small_cache) + scores, (small, large, small_cache, cache)
    assert alias >= cache


@pytest.mark.slow
def test_more_rollouts_do_not_multiply_the_prefix():
    """Peak memory grows with M·prefix + B·suffix: eight times the rollouts, and the growth is below one more prefix."""

    def peak(group: int) -> int:
        memory = make(group_size=group, max_new_tokens=4).compile(MODEL.abstract(), abstract(2048)).memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    prefix = size(jax.eval_shape(lambda: MODEL.empty_cache(4, 1, 2048, jnp.float32)))
    assert peak(16) - peak(2) < prefix


@pytest.mark.parametrize("part", ["vision", "prefill"])
def test_no_buffer_grows_as_the_square_of_a_length(part):
    """Patches and prompt tokens are attended to by blocks: twice the length, about twice the memory."""

    def program(length: int):
        if part == "vision":
            return jax.jit(MODEL.encode, compiler_options=QUICK).lower(MODEL.abstract(), abstract(32, length).vision)
        prompts = abstract(length)
        features = jax.eval_shape(MODEL.encode, MODEL.abstract(), prompts.vision)
        return jax.jit(MODEL.prefix, compiler_options=QUICK).lower(MODEL.abstract(), prompts, features)

    held = {}
    for length in (2048, 4096):
        compiled = program(length).compile()
        held[length] = compiled.memory_analysis().temp_size_in_bytes
        shapes = re.findall(r"\[([\d,]+)\]", compiled.as_text())
        long = [s for s in shapes if sum(int(n) >= length for n in s.split(",")) > 1]
        assert not [s for s in long if np.prod([int(n) for n in s.split(",")]) >= length**2], set(long)
    assert held[4096] < 2.2 * held[2048], held
