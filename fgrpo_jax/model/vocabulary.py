"""From hidden states to log-probs: the one product that is V wide, in chunks, forward and backward.

A chunk of positions is projected, its log-probs and entropies are taken, and its logits are forgotten; the backward
pass projects it again. The room of a chunk's logits is a constant number, so memory does not grow with V.

Letters: n chunks, r rows of a chunk, D width, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fgrpo_jax import mesh as meshes

BANNED = -1e30
"""Logit of a banned id. Its probability is exactly 0 in float32, and differences of two such log-probs are not NaN."""

ROOM = 1 << 25
"""Logits of one chunk on one device, at most: 128 MiB of float32."""

LARGE_ROOM = 1 << 28
"""The same on devices of tens of GB. Every chunk reads the table and adds to its gradient; fewer chunks move less: at
152k words and 2,048 wide 367 GB instead of 1,013 for 16 prompts, for 0.5 GB of memory (counted for an H200)."""

_LARGEST = 1024  # rows; more gain nothing where the vocabulary is small


def rows(vocab_size: int, device: Any = None) -> int:
    """Positions of a chunk that fit the room there is on such a device (None: `ROOM`)."""
    small = device is None or device.platform == "cpu" or "v5 lite" in device.device_kind  # a v5e has 16 GB
    return max(1, min(_LARGEST, (ROOM if small else LARGE_ROOM) // vocab_size))


def token_logps(
    table: jax.Array,
    hidden: jax.Array,
    targets: jax.Array,
    *,
    temperature: float | jax.Array,
    banned: jax.Array | None,
    rows: int,
    count: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-prob of each target and entropy of its distribution, both float32 of the shape of `targets`.

    Args:
      table: [V, D], cast to the dtype of `hidden`; its gradient is summed over chunks in at least float32.
      hidden, targets: [..., D] and int [...].
      temperature: divides the logits; takes no gradient.
      banned: bool [V], ids of probability 0, or None.
      rows: positions of a chunk, on each device.
      count: int32 [p], with hidden [p, n, D] of which only so many first positions of each part are wanted. Chunks that
        have none of them are left out, and what is not wanted is arbitrary.
      mesh: where the leading axis is split over the batch axes, each device cuts its own rows into chunks, the table is
        gathered once for all of them, and its gradient is summed over devices once.
    """
    banned = jnp.zeros(table.shape[0], bool) if banned is None else banned
    temperature = jnp.asarray(temperature, jnp.promote_types(hidden.dtype, jnp.float32))
    with jax.named_scope("token_logps"):
        count = jnp.full(targets.shape[:1], targets[0].size, jnp.int32) if count is None else count
        if mesh is None or not meshes.splits(mesh, batch=targets.shape[0], width=table.shape[1]):
            return _of_rows(table, hidden, targets, temperature, banned, count, rows=rows, axis=None)
        split, columns = PartitionSpec(meshes.BATCH_AXES), PartitionSpec(None, meshes.WEIGHT_AXIS)
        return jax.shard_map(
            functools.partial(_of_rows, rows=rows, axis=meshes.WEIGHT_AXIS),
            mesh=mesh,
            in_specs=(columns, split, split, PartitionSpec(), PartitionSpec(), split),
            out_specs=(split, split),
            axis_names=set(meshes.BATCH_AXES),
            check_vma=False,
        )(table, hidden, targets, temperature, banned, count)


def _of_rows(
    table: jax.Array,
    hidden: jax.Array,
    targets: jax.Array,
    temperature: jax.Array,
    banned: jax.Array,
    count: jax.Array,
    *,
    rows: int,
    axis: str | None,
) -> tuple[jax.Array, jax.Array]:
    """`token_logps` on one device, which has its part of the table on mesh axis `axis`, or all of it (None)."""
    total = targets.size
    size = min(rows, total)
    pad = -total % size
    flat = jnp.pad(hidden.reshape(total, -1), ((0, pad), (0, 0))).reshape(-1, size, hidden.shape[-1])
    ids = jnp.pad(targets.reshape(-1), (0, pad)).reshape(-1, size)
    # Of several parts the last that has any says how far to go.
    last = jnp.max(jnp.where(count > 0, jnp.arange(len(count)) * (total // len(count)) + count, 0))
    logps, entropy = _logps(table, flat, ids, temperature, banned, (last + size - 1) // size, axis)
    return logps.reshape(-1)[:total].reshape(targets.shape), entropy.reshape(-1)[:total].reshape(targets.shape)


def _whole(table: jax.Array, dtype: Any, axis: str | None) -> jax.Array:
    table = table.astype(dtype)
    return table if axis is None else jax.lax.all_gather(table, axis, axis=1, tiled=True)


def _logits(table: jax.Array, hidden: jax.Array, temperature: jax.Array, banned: jax.Array) -> jax.Array:
    """[r, V] in at least float32; `table` in the dtype of `hidden`."""
    logits = jnp.einsum("nd,vd->nv", hidden, table, preferred_element_type=temperature.dtype) / temperature
    return jnp.where(banned, BANNED, logits)


def _forward(
    table: Any, hidden: Any, ids: Any, temperature: Any, banned: Any, chunks: Any, axis: str | None
) -> tuple[Any, Any]:
    whole = _whole(table, hidden.dtype, axis)

    def of_chunk(number: jax.Array, out: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        logits = _logits(whole, hidden[number], temperature, banned)
        norm = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, ids[number][:, None], axis=-1)[:, 0]
        mean = jnp.sum(jnp.exp(logits - norm[:, None]) * logits, axis=-1)
        return tuple(x.at[number].set(row) for x, row in zip(out, (picked - norm, norm - mean, norm), strict=True))

    zero = jnp.zeros(ids.shape, temperature.dtype)
    logps, entropy, norm = jax.lax.fori_loop(0, chunks, of_chunk, (zero, zero, zero))
    return (logps, entropy), (table, hidden, ids, temperature, banned, chunks, entropy, norm)


def _backward(axis: str | None, saved: Any, gradients: tuple[jax.Array, jax.Array]) -> tuple[Any, ...]:
    table, hidden, ids, temperature, banned, chunks, entropy, norm = saved
    whole = _whole(table, hidden.dtype, axis)

    def of_chunk(number: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own, mine, h, logz, g_logp, g_entropy = (x[number] for x in (hidden, ids, entropy, norm, *gradients))
        mine, h, logz, g_logp, g_entropy = (x[:, None] for x in (mine, h, logz, g_logp, g_entropy))
        logq = _logits(whole, own, temperature, banned) - logz
        p = jnp.exp(logq)
        # d log p_i / d logit_j = [i = j] - p_j and d entropy / d logit_j = -p_j (log p_j + entropy).
        mine = jnp.arange(logq.shape[1]) == mine
        g_logits = jnp.where(mine, g_logp, 0.0) - p * (g_logp + g_entropy * (logq + h))
        g_logits = (jnp.where(banned, 0.0, g_logits) / temperature).astype(own.dtype)
        g_table = totals[0] + jnp.einsum("nv,nd->vd", g_logits, own, preferred_element_type=totals[0].dtype)
        g_hidden = jnp.einsum("nv,vd->nd", g_logits, whole, preferred_element_type=own.dtype)
        return g_table, totals[1].at[number].set(g_hidden)

    zero = jnp.zeros(whole.shape, jnp.promote_types(table.dtype, jnp.float32)), jnp.zeros_like(hidden)
    g_table, g_hidden = jax.lax.fori_loop(0, chunks, of_chunk, zero)
    if axis is not None:
        g_table = jax.lax.psum_scatter(g_table, axis, scatter_dimension=1, tiled=True)
    return g_table.astype(table.dtype), g_hidden, None, jnp.zeros_like(temperature), None, None


def _value(
    table: Any, hidden: Any, ids: Any, temperature: Any, banned: Any, chunks: Any, axis: str | None
) -> tuple[Any, Any]:
    """(log-probs, entropies) [n, r] of ids [n, r] under hidden [n, r, D]; of the first `chunks` of n."""
    return _forward(table, hidden, ids, temperature, banned, chunks, axis)[0]


_logps = jax.custom_vjp(_value, nondiff_argnums=(6,))
_logps.defvjp(_forward, _backward)
