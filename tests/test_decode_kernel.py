"""The decode kernel for GPUs, run as jax operations, beside what it stands for; and what is drawn with it."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_sampler_model as small
from jax.sharding import Mesh

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model import cache, decode_kernel
from fgrpo_jax.model.attention import attend_turned

INTERPRETED = functools.partial(decode_kernel.attend, interpret=True)


def test_kernel_differs_from_products_and_softmax_by_rounding_alone():
    shares = decode_kernel.differences(small.CONFIG.text, dtype=jnp.bfloat16, interpret=True)
    assert max(shares) < decode_kernel.TOLERANCE / 2


def test_a_kernel_that_sees_a_masked_key_would_not_pass(monkeypatch):
    """The trial by itself: one column too many, as a wrong bound would have it."""

    def wrong(q, k, v, *, key_mask, interpret=False):
        mask = None if key_mask is None else key_mask | jnp.roll(key_mask, 1, axis=1)
        return attend_turned(q, k, v, key_mask=mask)

    monkeypatch.setattr(decode_kernel, "attend", wrong)
    assert max(decode_kernel.differences(small.CONFIG.text, dtype=jnp.bfloat16)) > 2 * decode_kernel.TOLERANCE


def test_other_devices_and_dtypes_do_without_and_a_failing_kernel_is_named():
    ask = functools.partial(decode_kernel.able, small.CONFIG.text)
    cpu, gpu = jax.devices()[0], types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    assert ask(device=gpu, dtype="bfloat16")
    assert not ask(device=cpu, dtype="bfloat16") and not ask(device=gpu, dtype="float32")
    with pytest.warns(UserWarning, match="decode kernel on NVIDIA H200 fails.*XLA is used instead"):
        assert not decode_kernel.right(small.CONFIG.text, device=gpu, dtype="bfloat16")  # it is not there


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")
@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 1, 4)])
def test_each_device_attends_for_its_own_prompts_and_heads(sizes):
    """Two kv heads over a tensor axis of 2; one of 4 does not divide them, and XLA's form stands in."""
    mesh: Mesh = meshes.make_mesh(*sizes, devices=jax.devices()[:8])
    rng = np.random.default_rng(0)
    shapes = (4, 3, 2, 2, 8), (4, 2, 8, 64), (4, 2, 64, 8)
    q, k, v = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    for mask in (jnp.asarray(rng.random((4, 64)) < 0.5), jnp.arange(64)[None] < 9, None):
        ours = jax.jit(functools.partial(INTERPRETED, mesh=mesh))(q, k, v, key_mask=mask)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, attend_turned(q, k, v, key_mask=mask)
        )


def test_the_kernel_draws_the_same_tokens(monkeypatch):
    monkeypatch.setattr(cache, "WINDOW", 2)
    monkeypatch.setattr(decode_kernel, "attend", lambda *args, mesh, **known: INTERPRETED(*args, **known))
    drawn = small.draw(small.make(dataclasses.replace(small.UNROLLED, decode_kernel=True)))
    np.testing.assert_array_equal(drawn.tokens, small.draw().tokens)
    np.testing.assert_allclose(drawn.logps, small.draw().logps, atol=2e-6)
