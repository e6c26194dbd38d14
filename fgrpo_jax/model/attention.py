"""Attention in parts: each part returns its output and the log of its softmax sum, and parts are merged exactly.

Letters: B batch, T queries, S keys, K kv heads, Q = heads per kv head, H head_dim; M prompts of G completions.

`attend` walks blocks of keys with a running maximum (Milakov & Gimelshein 2018; Dao 2022), and its backward pass
recomputes each block from the saved log-sum-exp, so nothing of size T·S is ever kept. `attend_shared` walks two sets of
keys, a completion's own and its prompt's, as one softmax. Masks are validity of keys plus an index comparison: no
additive mask, no [T, S] array. Softmax runs in at least float32. A query that may see no key at all yields output 0 and
log-sum-exp -inf, with zero gradients, so empty parts merge as if absent.

Inside, heads come before positions, and every product is written in the order in which its result lies in memory: in
any other XLA on CPU turns arrays as large as the scores around, which took longer than the products themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fgrpo_jax.model.layers import keep

BLOCK = 512


class Part(NamedTuple):
    """A softmax over some of the keys: out [B, T, K, Q, H] in the dtype of v, lse float32 [B, K, Q, T]."""

    out: jax.Array
    lse: jax.Array


class Keys(NamedTuple):
    """Keys and values [..., S, K, H], and mask bool [..., S], True on real ones."""

    k: jax.Array
    v: jax.Array
    mask: jax.Array


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, key_mask: jax.Array, causal: bool = False, block: int = BLOCK
) -> Part:
    """Softmax attention of q over the keys that `key_mask` allows.

    Args:
      q: [B, T, K, Q, H]; scaled by H^-1/2 here.
      k, v: [B, S, K, H].
      key_mask: bool [B, S], True on real keys.
      causal: query i sees keys j <= i only; needs T == S.
      block: keys handled at a time.

    Raises:
      ValueError: causal with T != S.
    """
    if causal and q.shape[1] != k.shape[1]:
        raise ValueError(f"causal attention needs as many queries as keys, got {q.shape[1]} and {k.shape[1]}")
    keys = _heads_first(Keys(*(x[:, None] for x in (k, v, key_mask))))
    out, lse = _attend(_rows(q[:, None]), (keys,), (q.shape[1] if causal else 0,), block)
    return _part(out, lse, q)


def attend_shared(q: jax.Array, own: Keys, shared: Keys, *, block: int = BLOCK) -> jax.Array:
    """Softmax attention of completions over their prompt and, causally, over themselves: [M, G, T, K, Q, H].

    The prompt's keys are read once for all G·T queries; nothing of them is repeated.

    Args:
      q: [M, G, T, K, Q, H]; scaled by H^-1/2 here.
      own: of the completions, k and v [M, G, T, K, H].
      shared: of the prompts, k and v [M, S, K, H].
      block: keys handled at a time.
    """
    keys = (_heads_first(Keys(*(x[:, None] for x in shared))), _heads_first(own))
    out, _ = _attend(_rows(q), keys, (0, q.shape[2]), block)
    return _unrows(out, q.shape)


def attend_blocks(
    q: jax.Array, read: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]], *, blocks: int
) -> Part:
    """Softmax attention of q over keys that are read a block at a time.

    For decoding: no gradient. What is held at a time is one block, however long the cache.

    Args:
      q: [B, T, K, Q, H].
      read: number of a block -> (k [B, s, K, H], v [B, s, K, H], key_mask bool [B, s]), the same s for all.
      blocks: how many there are.
    """
    rows = _rows(q[:, None])

    def step(number: jax.Array, state: _State) -> _State:
        keys = _heads_first(Keys(*(x[:, None] for x in read(number))))
        return _add_block(state, _scores(rows, keys, 0, 0), keys.v)

    return _part(*_finish(jax.lax.fori_loop(0, blocks, step, _start(rows)), q.dtype), q)


def attend_whole(q: jax.Array, k: jax.Array, v: jax.Array, *, key_mask: jax.Array) -> Part:
    """Softmax attention over keys and values [B, K, S, H], all at once.

    For decoding: no gradient. Heads come before keys, as both products want them: turned inside a loop over tokens,
    keys would be copied at every token.

    Args:
      q: [B, T, K, Q, H].
      key_mask: bool [B, S], or [1, S] for all.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("btkqh,bksh->bkqts", q, k, preferred_element_type=wide) * (q.shape[-1] ** -0.5)
    top, p = _exponentials(jnp.where(key_mask[:, None, None, None, :], scores, -jnp.inf))
    out = jnp.einsum("bkqts,bksh->bkqth", p.astype(v.dtype), v, preferred_element_type=wide)
    out, lse = _finish((out, top, jnp.sum(p, axis=-1)), q.dtype)
    return Part(jnp.moveaxis(out, 3, 1), lse)


def attend_turned(q: jax.Array, k: jax.Array, v: jax.Array, *, key_mask: jax.Array | None) -> Part:
    """As `attend_whole`, with keys [B, K, H, S]: XLA on CPU then takes both products as they stand and turns nothing.

    Of keys [B, K, S, H] it makes the wide side of the first product, with as few columns as there are queries, and
    turns its result: at one query a row, twice the time for scores. Without a mask all keys are seen.
    """
    b, t, heads, group, width = q.shape
    wide = jnp.promote_types(q.dtype, jnp.float32)
    q = jnp.moveaxis(q, 1, 3).reshape(b, heads, group * t, width)
    scores = jnp.einsum("bkqh,bkhs->bkqs", q, k, preferred_element_type=wide) * (width**-0.5)
    scores = scores if key_mask is None else jnp.where(key_mask[:, None, None, :], scores, -jnp.inf)
    top, p = _exponentials(scores)
    out = jnp.einsum("bkqs,bksh->bkqh", p.astype(v.dtype), v, preferred_element_type=wide)
    out, lse = _finish((out, top, jnp.sum(p, axis=-1)), q.dtype)
    out, lse = (x.reshape(b, heads, group, t, *x.shape[3:]) for x in (out, lse))
    return Part(jnp.moveaxis(out, 3, 1), lse)


def _exponentials(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(largest score [...], exp(scores - largest) [..., S]); all 0 where no key may be seen."""
    top = jnp.max(scores, axis=-1)
    return top, jnp.exp(scores - jnp.where(jnp.isneginf(top), 0.0, top)[..., None])


def merge(*parts: Part) -> jax.Array:
    """The softmax over the keys of all parts: [B, T, K, Q, H]. Any may be empty, or all (then 0)."""
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [part.lse for part in parts]))
    top = jnp.where(jnp.isneginf(top), 0.0, top)
    weights = [jnp.exp(part.lse - top) for part in parts]
    total = functools.reduce(jnp.add, weights)
    total = jnp.where(total == 0.0, 1.0, total)
    shares = [jnp.moveaxis(w / total, -1, 1)[..., None] for w in weights]
    mixed = functools.reduce(jnp.add, [share * part.out for share, part in zip(shares, parts, strict=True)])
    return mixed.astype(parts[0].out.dtype)


# --------------------------------------------------------------------------------------------- heads before positions
# Letters here: n completions that have keys of their own (G, or 1 where keys are shared), R = the rest of G·Q·T rows.
def _rows(q: jax.Array) -> jax.Array:
    """[M, G, T, K, Q, H] -> [M, K, G, Q·T, H]."""
    m, g, t, heads, group, width = q.shape
    return keep(jnp.transpose(q, (0, 3, 1, 4, 2, 5)).reshape(m, heads, g, group * t, width))


def _unrows(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_rows`, to this shape."""
    m, g, t, heads, group, width = shape
    return jnp.transpose(rows.reshape(m, heads, g, group, t, width), (0, 2, 4, 1, 3, 5))


def _part(out: jax.Array, lse: jax.Array, q: jax.Array) -> Part:
    """Rows and their log-sum-exp as the part of queries q [B, T, K, Q, H]."""
    return Part(_unrows(out, q[:, None].shape)[:, 0], lse.reshape(lse.shape[0], *q.shape[2:4], q.shape[1]))


def _heads_first(keys: Keys) -> Keys:
    """k and v [M, n, S, K, H] -> [M, K, n, S, H]; mask [M, n, S] as it is."""
    k, v = (keep(jnp.transpose(x, (0, 3, 1, 2, 4))) for x in keys[:2])
    return Keys(k, v, keys.mask)


def _scores(q: jax.Array, keys: Keys, start: jax.Array | int, order: int) -> jax.Array:
    """Masked scores [M, K, n, R, s] of one block of keys in at least float32; -inf where a key may not be seen.

    Args:
      order: 0, or the number of positions T of causal attention: row r is at position r mod T, key j at start + j.
    """
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("mknrh,mknsh->mknrs", q, keys.k, preferred_element_type=dtype) * (q.shape[-1] ** -0.5)
    seen = keys.mask[:, None, :, None, :]
    if order:
        rows = jnp.arange(q.shape[3])[:, None] % order
        seen = seen & (start + jnp.arange(keys.k.shape[3])[None, :] <= rows)
    return jnp.where(seen, scores, -jnp.inf)


def _blocks(keys: Keys, block: int) -> tuple[Keys, jax.Array | None, int]:
    """Keys padded to whole blocks, and the block starts; None where a single block holds them."""
    length = keys.k.shape[3]
    if length <= block:
        return keys, None, length
    pad = -length % block
    k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, pad), (0, 0))) for x in keys[:2])
    mask = jnp.pad(keys.mask, ((0, 0), (0, 0), (0, pad)))
    return Keys(k, v, mask), jnp.arange(0, length + pad, block), block


def _cut(keys: Keys, start: jax.Array, size: int) -> Keys:
    k, v = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=3) for x in keys[:2])
    return Keys(k, v, jax.lax.dynamic_slice_in_dim(keys.mask, start, size, axis=2))


_State = tuple[jax.Array, jax.Array, jax.Array]
"""Of the blocks so far: unnormalised output [M, K, n, R, H], largest score and sum [M, K, n, R]."""


def _start(q: jax.Array) -> _State:
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    top = jnp.full(q.shape[:-1], -jnp.inf, dtype)
    return jnp.zeros(q.shape, dtype), top, jnp.zeros_like(top)


def _add_block(state: _State | None, scores: jax.Array, v: jax.Array) -> _State:
    """The state (None: before all) after one more block of scores [M, K, n, R, s] with values v [M, K, n, s, H]."""
    top = jnp.max(scores, axis=-1)
    top = top if state is None else jnp.maximum(state[1], top)
    finite = jnp.where(jnp.isneginf(top), 0.0, top)
    p = jnp.exp(scores - finite[..., None])
    add = jnp.einsum("mknrs,mknsh->mknrh", p.astype(v.dtype), v, preferred_element_type=scores.dtype)
    if state is None:
        return add, top, jnp.sum(p, axis=-1)
    shrink = jnp.exp(state[1] - finite)
    return state[0] * shrink[..., None] + add, top, state[2] * shrink + jnp.sum(p, axis=-1)


def _finish(state: _State, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(output, log-sum-exp) of all blocks."""
    out, top, total = state
    safe = jnp.where(total == 0.0, 1.0, total)
    return (out / safe[..., None]).astype(dtype), jnp.where(total == 0.0, -jnp.inf, top + jnp.log(safe))


def _regroup(x: jax.Array, like: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """x [M, K, n, R, ...] with the rows dealt to as many completions as `like` has: keys are shared or are not."""
    return x.reshape(*x.shape[:2], like.shape[2], -1, *shape)


def _forward(q: Any, sets: tuple[Keys, ...], orders: tuple[int, ...], block: int) -> tuple[jax.Array, jax.Array]:
    """(out [M, K, G, R, H], lse [M, K, G, R]) of q [M, K, G, R, H], one softmax over the keys of all sets."""
    state: _State | None = None
    for keys, order in zip(sets, orders, strict=True):
        rows = _regroup(q, keys.k, q.shape[4:])
        if state is not None:
            out, top, total = state
            state = _regroup(out, keys.k, q.shape[4:]), _regroup(top, keys.k, ()), _regroup(total, keys.k, ())
        keys, starts, size = _blocks(keys, block)
        if starts is None:
            state = _add_block(state, _scores(rows, keys, 0, order), keys.v)
            continue

        def step(state: _State, start: jax.Array, keys=keys, rows=rows, size=size, order=order) -> tuple[_State, None]:
            one = _cut(keys, start, size)
            return _add_block(state, _scores(rows, one, start, order), one.v), None

        state, _ = jax.lax.scan(step, _start(rows) if state is None else state, starts)
    assert state is not None
    out, lse = _finish(state, sets[0].v.dtype)
    return out.reshape(q.shape), lse.reshape(q.shape[:-1])


def _attend_fwd(q, sets, orders, block):
    out, lse = (keep(x) for x in _forward(q, sets, orders, block))
    return (out, lse), (q, sets, out, lse)


def _attend_bwd(orders, block, saved, gradients):
    q, sets, out, lse = saved
    g_out, g_lse = gradients
    # d lse / d scores is p itself, so both cotangents meet in one row term.
    row = jnp.sum(g_out.astype(lse.dtype) * out.astype(lse.dtype), axis=-1) - g_lse
    safe = jnp.where(jnp.isneginf(lse), 0.0, lse)
    g_q, g_sets = jnp.zeros((), lse.dtype), []
    for keys, order in zip(sets, orders, strict=True):
        rows, g_rows = (_regroup(x, keys.k, q.shape[4:]) for x in (q, g_out))
        sums = _regroup(safe, keys.k, ()), _regroup(row, keys.k, ())
        add, g_k, g_v = _set_gradients(rows, g_rows, keys, sums, order=order, block=block)
        g_q = g_q + add.reshape(q.shape)
        no_gradient: Any = None
        g_sets.append(Keys(g_k.astype(keys.k.dtype), g_v.astype(keys.v.dtype), no_gradient))
    return g_q.astype(q.dtype), tuple(g_sets)


def _set_gradients(
    q: jax.Array, g_out: jax.Array, keys: Keys, sums: tuple[jax.Array, jax.Array], *, order: int, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v of one set, in at least float32; `sums` are the log-sum-exp and row term of all sets."""
    lse, row = sums
    dtype, scale, length = lse.dtype, q.shape[-1] ** -0.5, keys.k.shape[3]

    def of_block(one: Keys, start: jax.Array | int) -> tuple[jax.Array, jax.Array, jax.Array]:
        p = jnp.exp(_scores(q, one, start, order) - lse[..., None])
        g_v = jnp.einsum("mknrh,mknrs->mknhs", g_out, p.astype(q.dtype), preferred_element_type=dtype)
        g_p = jnp.einsum("mknrh,mknsh->mknrs", g_out, one.v, preferred_element_type=dtype)
        g_s = (p * (g_p - row[..., None]) * scale).astype(q.dtype)
        g_k = jnp.einsum("mknrh,mknrs->mknhs", q, g_s, preferred_element_type=dtype)
        g_q = jnp.einsum("mknrs,mknsh->mknrh", g_s, one.k, preferred_element_type=dtype)
        return g_q, g_k, g_v

    keys, starts, size = _blocks(keys, block)
    if starts is None:
        g_q, g_k, g_v = of_block(keys, 0)
        return g_q, jnp.swapaxes(g_k, -1, -2), jnp.swapaxes(g_v, -1, -2)

    def step(total: jax.Array, start: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        g_q, g_k, g_v = of_block(_cut(keys, start, size), start)
        return total + g_q, (g_k, g_v)

    g_q, stacked = jax.lax.scan(step, jnp.zeros(q.shape, dtype), starts)
    # [blocks, M, K, n, H, s] -> [M, K, n, S, H]
    whole = [jnp.moveaxis(x, 0, -1).swapaxes(-1, -2) for x in stacked]
    g_k, g_v = (jnp.moveaxis(x.reshape(*keys.k.shape[:3], keys.k.shape[4], -1), -1, -2)[..., :length, :] for x in whole)
    return g_q, g_k, g_v


_attend = jax.custom_vjp(_forward, nondiff_argnums=(2, 3))
_attend.defvjp(_attend_fwd, _attend_bwd)
