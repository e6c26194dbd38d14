"""Attention in parts: each part returns its output and the log of its softmax sum, and parts are merged exactly.

Letters: B batch, T queries, S keys, K kv heads, Q = heads per kv head, H head_dim.

`attend` walks blocks of keys with a running maximum (Milakov & Gimelshein 2018; Dao 2022), and its backward pass
recomputes each block from the saved log-sum-exp, so nothing of size T·S is ever kept. Masks are validity of keys plus
an index comparison: no additive mask, no [T, S] array. Softmax runs in at least float32. A query that may see no key at
all yields output 0 and log-sum-exp -inf, with zero gradients, so empty parts merge as if absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK = 512


class Part(NamedTuple):
    """A softmax over some of the keys: out [B, T, K, Q, H] in the dtype of v, lse float32 [B, K, Q, T]."""

    out: jax.Array
    lse: jax.Array


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, key_mask: jax.Array, causal: bool = False, block: int = BLOCK
) -> Part:
    """Softmax attention of q over the keys that `key_mask` allows.

    Args:
      q: [B, T, K, Q, H]; scaled by H^-1/2 here.
      k: [B, S, K, H].
      v: [B, S, K, H].
      key_mask: bool [B, S], True on real keys.
      causal: query i sees keys j <= i only; needs T == S.
      block: keys handled at a time.

    Raises:
      ValueError: causal with T != S.
    """
    if causal and q.shape[1] != k.shape[1]:
        raise ValueError(f"causal attention needs as many queries as keys, got {q.shape[1]} and {k.shape[1]}")
    return Part(*_attend(q, k, v, key_mask, causal, block))


def attend_blocks(
    q: jax.Array, read: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]], *, blocks: jax.Array
) -> Part:
    """Softmax attention of q over keys that are read a block at a time; as many as `blocks`, known at run time only.

    For decoding: no gradient. What is held at a time is one block, however long the cache.

    Args:
      q: [B, T, K, Q, H].
      read: number of a block -> (k [B, s, K, H], v [B, s, K, H], key_mask bool [B, s]), the same s for all.
      blocks: int32 [], how many there are.
    """

    def step(number: jax.Array, state: _State) -> _State:
        k, v, mask = read(number)
        return _add_block(state, _scores(q, k, mask, 0, False), v)

    return Part(*_finish(jax.lax.fori_loop(0, blocks, step, _start(q)), q.dtype))


def attend_whole(q: jax.Array, k: jax.Array, v: jax.Array, *, key_mask: jax.Array) -> Part:
    """Softmax attention over keys and values [B, K, S, H], all at once.

    For decoding: no gradient. Heads come before keys, as both products want them: turned inside a loop over tokens,
    keys would be copied at every token.

    Args:
      q: [B, T, K, Q, H].
      key_mask: bool [B, S].
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("btkqh,bksh->bkqts", q, k, preferred_element_type=wide) * (q.shape[-1] ** -0.5)
    scores = jnp.where(key_mask[:, None, None, None, :], scores, -jnp.inf)
    top = jnp.max(scores, axis=-1)
    p = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0.0, top)[..., None])
    out = jnp.einsum("bkqts,bksh->bkqth", p.astype(v.dtype), v, preferred_element_type=wide)
    return Part(*_finish((out, top, jnp.sum(p, axis=-1)), q.dtype))


def merge(first: Part, second: Part) -> jax.Array:
    """The softmax over the keys of both parts: [B, T, K, Q, H]. Either may be empty, or both (then 0)."""
    top = jax.lax.stop_gradient(jnp.maximum(first.lse, second.lse))
    top = jnp.where(jnp.isneginf(top), 0.0, top)
    weights = [jnp.exp(part.lse - top) for part in (first, second)]
    total = weights[0] + weights[1]
    total = jnp.where(total == 0.0, 1.0, total)
    shares = [jnp.moveaxis(w / total, -1, 1)[..., None] for w in weights]
    dtype = first.out.dtype
    return (shares[0] * first.out + shares[1] * second.out).astype(dtype)


def _scores(q, k, mask_block, start, causal):
    """Masked scores of one block of keys, float32 [B, K, Q, T, s]; -inf where a key may not be seen."""
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("btkqh,bskh->bkqts", q, k, preferred_element_type=dtype) * (q.shape[-1] ** -0.5)
    seen = mask_block[:, None, None, None, :]
    if causal:
        rows = jnp.arange(q.shape[1])[:, None]
        columns = start + jnp.arange(k.shape[1])[None, :]
        seen = seen & (columns <= rows)
    return jnp.where(seen, scores, -jnp.inf)


def _blocks(k, v, key_mask, block):
    """Keys padded to whole blocks, and the block starts; a single block when they fit."""
    length = k.shape[1]
    if length <= block:
        return k, v, key_mask, jnp.zeros((1,), jnp.int32), length
    pad = -length % block
    k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (k, v))
    key_mask = jnp.pad(key_mask, ((0, 0), (0, pad)))
    return k, v, key_mask, jnp.arange(0, length + pad, block), block


def _cut(arrays, start, size):
    return tuple(jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in arrays)


_State = tuple[jax.Array, jax.Array, jax.Array]
"""Of the blocks so far: unnormalised output [B, K, Q, T, H], largest score and sum [B, K, Q, T]."""


def _start(q: jax.Array) -> _State:
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    b, t, heads, group, width = q.shape
    top = jnp.full((b, heads, group, t), -jnp.inf, dtype)
    return jnp.zeros((b, heads, group, t, width), dtype), top, jnp.zeros_like(top)


def _add_block(state: _State, scores: jax.Array, v: jax.Array) -> _State:
    """The state after one more block of scores [B, K, Q, T, s] with values v [B, s, K, H]."""
    out, top, total = state
    new_top = jnp.maximum(top, jnp.max(scores, axis=-1))
    finite = jnp.where(jnp.isneginf(new_top), 0.0, new_top)
    p = jnp.exp(scores - finite[..., None])
    shrink = jnp.exp(top - finite)
    add = jnp.einsum("bkqts,bskh->bkqth", p.astype(v.dtype), v, preferred_element_type=scores.dtype)
    return out * shrink[..., None] + add, new_top, total * shrink + jnp.sum(p, axis=-1)


def _finish(state: _State, dtype) -> tuple[jax.Array, jax.Array]:
    """(output [B, T, K, Q, H], log-sum-exp [B, K, Q, T]) of all blocks."""
    out, top, total = state
    out = out / jnp.where(total == 0.0, 1.0, total)[..., None]
    lse = jnp.where(total == 0.0, -jnp.inf, top + jnp.log(jnp.where(total == 0.0, 1.0, total)))
    return jnp.moveaxis(out, 3, 1).astype(dtype), lse


def _forward(q, k, v, key_mask, causal, block) -> tuple[jax.Array, jax.Array]:
    k, v, key_mask, starts, size = _blocks(k, v, key_mask, block)

    def step(state, start):
        kb, vb, mb = (k, v, key_mask) if len(starts) == 1 else _cut((k, v, key_mask), start, size)
        return _add_block(state, _scores(q, kb, mb, start, causal), vb), None

    state = _start(q)
    state, _ = step(state, 0) if len(starts) == 1 else jax.lax.scan(step, state, starts)
    return _finish(state, v.dtype)


def _attend_fwd(q, k, v, key_mask, causal, block):
    out, lse = _forward(q, k, v, key_mask, causal, block)
    return (out, lse), (q, k, v, key_mask, out, lse)


def _attend_bwd(causal, block, saved, gradients):
    q, k, v, key_mask, out, lse = saved
    g_out, g_lse = gradients
    length = k.shape[1]
    kp, vp, mask, starts, size = _blocks(k, v, key_mask, block)
    dtype = lse.dtype
    # d lse / d scores is p itself, so both cotangents meet in one row term.
    row = jnp.einsum("btkqh,btkqh->bkqt", g_out, out, preferred_element_type=dtype) - g_lse
    safe = jnp.where(jnp.isneginf(lse), 0.0, lse)
    scale = q.shape[-1] ** -0.5

    def step(g_q, start):
        kb, vb, mb = (kp, vp, mask) if len(starts) == 1 else _cut((kp, vp, mask), start, size)
        p = jnp.exp(_scores(q, kb, mb, start, causal) - safe[..., None])
        g_v = jnp.einsum("bkqts,btkqh->bskh", p.astype(q.dtype), g_out, preferred_element_type=dtype)
        g_p = jnp.einsum("btkqh,bskh->bkqts", g_out, vb, preferred_element_type=dtype)
        g_s = (p * (g_p - row[..., None]) * scale).astype(q.dtype)
        g_k = jnp.einsum("bkqts,btkqh->bskh", g_s, q, preferred_element_type=dtype)
        g_q = g_q + jnp.einsum("bkqts,bskh->btkqh", g_s, kb, preferred_element_type=dtype)
        return g_q, (g_k, g_v)

    g_q = jnp.zeros(q.shape, dtype)
    if len(starts) == 1:
        g_q, (g_k, g_v) = step(g_q, 0)
    else:
        g_q, stacked = jax.lax.scan(step, g_q, starts)
        g_k, g_v = (jnp.moveaxis(x, 0, 1).reshape(kp.shape)[:, :length] for x in stacked)
    return g_q.astype(q.dtype), g_k.astype(k.dtype), g_v.astype(v.dtype), None


_attend = jax.custom_vjp(_forward, nondiff_argnums=(4, 5))
_attend.defvjp(_attend_fwd, _attend_bwd)
