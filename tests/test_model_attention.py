"""Attention in parts: equal to one softmax in value and gradient, whole or in blocks, with empty rows and parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.model.attention import Keys, Part, attend, attend_shared, merge

B, T, S, K, Q, H = 2, 6, 11, 2, 3, 4


def inputs(seed: int, t: int = T, s: int = S, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((B, t, K, Q, H), (B, s, K, H), (B, s, K, H))
    return [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)]


def plain(q, k, v, seen):
    """One softmax over the keys of `seen` [B, T, S]; rows that see nothing give 0."""
    scores = jnp.einsum("btkqh,bskh->bkqts", q, k) / q.shape[-1] ** 0.5
    seen = seen[:, None, None]
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, scores - jnp.max(scores, -1, keepdims=True), 0.0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    return jnp.einsum("bkqts,bskh->btkqh", weights / jnp.where(total == 0, 1.0, total), v)


def key_mask(s: int = S):
    return jnp.asarray(np.random.default_rng(0).random((B, s)) < 0.7)


def assert_close(ours, theirs, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("causal", "block"), [(False, 16), (True, 16), (True, 4)])
def test_equals_one_softmax(causal, block):
    t = s = S
    q, k, v = inputs(1, t, s)
    mask = key_mask(s).at[1, 0].set(False)  # causal row 0 of batch 1 then sees nothing
    seen = jnp.broadcast_to(mask[:, None, :], (B, t, s)) & (jnp.tril(jnp.ones((t, s), bool)) | (not causal))
    probe = jax.random.normal(jax.random.key(7), q.shape)

    def ours(q, k, v):
        return jnp.sum(attend(q, k, v, key_mask=mask, causal=causal, block=block).out * probe)

    def theirs(q, k, v):
        return jnp.sum(plain(q, k, v, seen) * probe)

    both = jax.jit(lambda *qkv: [jax.value_and_grad(f, (0, 1, 2))(*qkv) for f in (ours, theirs)])
    assert_close(*both(q, k, v), 1e-5)


def test_merged_parts_equal_the_whole():
    """Also with parts of -inf: their value is 0 and their gradient is 0, not NaN."""
    q, k, v = inputs(2)
    cut = 4
    probe = jax.random.normal(jax.random.key(3), q.shape)

    def parted(q, k, v, mask):
        parts = [attend(q, k[:, a], v[:, a], key_mask=mask[:, a], block=3) for a in (slice(0, cut), slice(cut, S))]
        return jnp.sum(merge(*parts) * probe)

    def whole(q, k, v, mask):
        return jnp.sum(plain(q, k, v, jnp.broadcast_to(mask[:, None], (B, T, S))) * probe)

    both = jax.jit(lambda *args: [jax.value_and_grad(f, (0, 1, 2))(*args) for f in (parted, whole)])
    columns = np.arange(S)
    for allowed in (columns >= 0, columns >= cut, columns < cut, columns < 0):  # no part empty, one, the other, both
        assert_close(*both(q, k, v, key_mask() & allowed), 1e-5)


@pytest.mark.parametrize("block", [16, 4])
def test_shared_keys_and_own_ones_are_one_softmax(block):
    """Against every completion in a row of its own with its prompt's keys; some keys masked, a prompt without any."""
    g, t = 3, 5
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)  # noqa: E731
    q, k, v = draw(0, B, g, t, K, Q, H), draw(1, B, g, t, K, H), draw(2, B, g, t, K, H)
    _, shared_k, shared_v = inputs(3)
    probe = draw(4, *q.shape)
    shared_mask = key_mask().at[1].set(False)
    own_mask = np.random.default_rng(1).random((B, g, t)) < 0.8
    seen = jnp.concatenate(
        [
            jnp.broadcast_to(jnp.repeat(shared_mask, g, 0)[:, None], (B * g, t, S)),
            own_mask.reshape(B * g, 1, t) & jnp.tril(jnp.ones((t, t), bool)),
        ],
        axis=-1,
    )

    def ours(q, k, v, shared_k, shared_v):
        out = attend_shared(q, Keys(k, v, own_mask), Keys(shared_k, shared_v, shared_mask), block=block)
        return jnp.sum(out * probe)

    def theirs(q, k, v, shared_k, shared_v):
        keys, values = (
            jnp.concatenate([jnp.repeat(far, g, 0), near.reshape(B * g, t, K, H)], axis=1)
            for far, near in ((shared_k, k), (shared_v, v))
        )
        return jnp.sum(plain(q.reshape(B * g, t, K, Q, H), keys, values, seen) * probe.reshape(B * g, t, K, Q, H))

    both = jax.jit(lambda *args: [jax.value_and_grad(f, tuple(range(5)))(*args) for f in (ours, theirs)])
    assert_close(*both(q, k, v, shared_k, shared_v), 1e-5)


def test_gradient_through_the_log_sum_exp():
    """The merge weights depend on lse, so its gradient counts as much as that of the output."""
    q, k, v = inputs(3)
    mask = key_mask()

    def ours(q, k, v):
        part = attend(q, k, v, key_mask=mask, block=4)
        return jnp.sum(jnp.sin(part.lse)) + jnp.sum(part.out**2)

    def theirs(q, k, v):
        scores = jnp.einsum("btkqh,bskh->bkqts", q, k) / H**0.5
        lse = jax.nn.logsumexp(jnp.where(mask[:, None, None, None], scores, -jnp.inf), axis=-1)
        return jnp.sum(jnp.sin(lse)) + jnp.sum(plain(q, k, v, jnp.broadcast_to(mask[:, None], (B, T, S))) ** 2)

    both = jax.jit(lambda *qkv: [jax.value_and_grad(f, (0, 1, 2))(*qkv) for f in (ours, theirs)])
    assert_close(*both(q, k, v), 1e-5)


def test_masked_keys_have_no_influence():
    q, k, v = inputs(4)
    mask = key_mask()
    run = jax.jit(lambda k, v: attend(q, k, v, key_mask=mask))
    wild = np.where(mask[..., None, None], 0.0, 1e30).astype(np.float32)
    for ours, again in zip(run(k, v), run(k + wild, v + wild), strict=True):
        np.testing.assert_array_equal(ours, again)


def test_bfloat16_softmax_runs_in_float32():
    low = inputs(5, dtype=jnp.bfloat16)
    run = jax.jit(lambda q, k, v: attend(q, k, v, key_mask=jnp.ones((B, S), bool)))
    part, exact = run(*low), run(*(x.astype(jnp.float32) for x in low))
    assert part.out.dtype == jnp.bfloat16 and part.lse.dtype == jnp.float32
    np.testing.assert_allclose(part.lse, exact.lse, atol=1e-5)
    np.testing.assert_allclose(part.out.astype(jnp.float32), exact.out, atol=2e-2)


def test_no_buffer_of_queries_times_keys():
    """With blocks, neither pass holds a T·S array (here 512·512; a block is 512·64)."""
    t = 512
    shape = jax.ShapeDtypeStruct((1, t, 1, 1, 8), jnp.float32)
    keys = jax.ShapeDtypeStruct((1, t, 1, 8), jnp.float32)

    def loss(q, k, v):
        return jnp.sum(attend(q, k, v, key_mask=jnp.ones((1, t), bool), causal=True, block=64).out ** 2)

    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, keys, keys).compile().as_text()
    assert "512,64]" in text
    assert "512,512]" not in text


def test_causal_needs_equal_lengths():
    q, k, v = inputs(6)
    with pytest.raises(ValueError, match="6 and 11"):
        attend(q, k, v, key_mask=key_mask(), causal=True)


def test_merge_of_two_empty_parts_is_zero():
    part = Part(jnp.ones((1, 1, 1, 1, 2)), jnp.full((1, 1, 1, 1), -jnp.inf))
    np.testing.assert_array_equal(merge(part, part), jnp.zeros((1, 1, 1, 1, 2)))
