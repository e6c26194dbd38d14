"""How parameters are laid out for a rollout batch: what is copied, what is not; the windows and draws of its loop."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_sampler_model as small

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model import cache
from fgrpo_jax.rollout import loop
from fgrpo_jax.rollout.layout import Layout

NARROW = dataclasses.replace(small.MODEL, compute_dtype=jnp.dtype(jnp.bfloat16))
NARROW_UNROLLED = dataclasses.replace(NARROW, unrolled=True)


def kept(laid, params) -> int:
    """Leaves that are the very arrays they were."""
    return sum(a is b for a, b in zip(jax.tree.leaves(laid.params), jax.tree.leaves(params), strict=True))


def test_what_has_the_dtype_already_is_not_copied():
    params = small.params()
    laid = Layout(small.MODEL, None)(params)
    assert kept(laid, params) == len(jax.tree.leaves(params)) and laid.apart is None
    laid = Layout(small.UNROLLED, None)(params)
    assert kept(laid, params) == len(jax.tree.leaves(params)) and len(laid.apart) == 2
    assert Layout(small.UNROLLED, None)(laid) is laid


@pytest.mark.parametrize("model", [NARROW, NARROW_UNROLLED], ids=["scanned", "unrolled"])
def test_masters_are_cast_once_and_the_unread_stay(model):
    params = small.params()
    laid = Layout(model, None)(params)
    if model.unrolled:  # the tower and the stacks are read by the prompts alone
        assert {str(x.dtype) for x in jax.tree.leaves(laid.apart)} == {"bfloat16"}
        unread = jax.tree.leaves((params["visual"], params["text"]["layers"]))
        assert kept(laid, params) == len(unread)
        stacked = params["text"]["layers"]["mlp"]["up"]["kernel"]
        one = laid.apart[1]["mlp"]["up"]["kernel"]
        np.testing.assert_array_equal(one, stacked[1].astype(jnp.bfloat16))
    else:
        assert {str(x.dtype) for x in jax.tree.leaves(laid.params)} == {"bfloat16"}
    expected = Layout(model, None).abstract(params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), expected) == jax.tree.map(lambda x: (x.shape, x.dtype), laid)


@pytest.mark.parametrize("model", [NARROW, NARROW_UNROLLED], ids=["scanned", "unrolled"])
def test_a_layout_made_once_draws_what_one_for_each_call_does(model):
    sampler = small.make(model)
    laid = sampler.lay_out(small.params())
    key = {"seed": 3, "purpose": "train", "step": 0}
    once = jax.device_get(sampler.sample(laid, small.batch(), **key))
    each = small.draw(sampler)
    jax.tree.map(np.testing.assert_array_equal, once, each)
    assert sampler.compilations == 1


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")
def test_on_a_mesh_weights_are_whole_where_they_are_split_for_training():
    mesh = meshes.make_mesh(2, 2, 2, devices=jax.devices()[:8])
    rules = meshes.shardings(small.MODEL.specs, mesh, rules=meshes.SAMPLE_RULES)
    placed = jax.device_put(small.params(), meshes.shardings(small.MODEL.specs, mesh))
    layout = Layout(NARROW_UNROLLED, rules)
    laid, expected = layout(placed), layout.abstract(placed)
    up = laid.apart[0]["mlp"]["up"]["kernel"]
    assert up.sharding.spec == jax.sharding.PartitionSpec(None, "tensor")
    for ours, said in zip(jax.tree.leaves(laid), jax.tree.leaves(expected), strict=True):
        assert ours.sharding.is_equivalent_to(said.sharding, ours.ndim)


def test_windows_double_and_the_last_takes_the_rest():
    found = {length: cache.windows(length) for length in (1, 7, 256, 300, 384, 512, 520, 768, 1024, 4096)}
    assert found == {
        1: (1,), 7: (7,), 256: (256,), 300: (300,), 384: (256, 384), 512: (256, 512), 520: (256, 520),
        768: (256, 512, 768), 1024: (256, 512, 1024), 4096: (256, 512, 1024, 2048, 4096),
    }  # fmt: skip


def test_one_pass_over_the_vocabulary_is_the_plain_passes():
    """The reduction that other backends than CPU run; ties go to the first, and ids of -inf are never drawn."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 5, 1000)).astype(np.float32) * 5
    scores[0, 0, 7] = scores[0, 0, 900] = 50.0
    scores[1, :, :600] = -np.inf
    noisy = scores + rng.gumbel(size=scores.shape).astype(np.float32)
    noisy[0, 0] = scores[0, 0]
    (token, logp), (plain, want) = (jax.jit(f)(scores, noisy) for f in (loop._in_one_pass, loop._in_plain_passes))
    np.testing.assert_array_equal(token, plain)
    np.testing.assert_array_equal(token, noisy.argmax(-1))
    np.testing.assert_allclose(logp, want, atol=1e-5)
    exact = np.take_along_axis(np.asarray(jax.nn.log_softmax(scores)), np.asarray(token)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(logp, exact, atol=1e-5)
