"""What completions attend to while they are drawn: keys and values of their prompts, and their own as they come.

Letters: M prompts, G rollouts a prompt, T completion tokens, S prompt tokens, L layers, K kv heads, Q = heads per kv
head, H head_dim; B = M·G.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.model.attention import Part, attend_blocks, attend_whole

Turned = Callable[..., Part]
"""`attend_turned`, or a kernel that does the same."""

WINDOW = 256
"""Columns of the suffix cache that a decode step reads at least, or all of a shorter one (`windows`)."""


@struct.dataclass
class KV:
    """Rotated keys and values of every layer: [L, M, S, K, H] for prompts, [L, M, G, K, T, H] for completions.

    Completions have their columns beside the head's width, which is how a step's product wants to read them. Where
    layers run one by one keys are turned besides, [1, M, G, K, H, T] (`attend_turned`), and T is a chunk of columns.
    """

    k: jax.Array
    v: jax.Array


@struct.dataclass
class Unrolled:
    """What a decode step reads over and over, taken apart by layer before the loop (`TextModel.unroll`).

    A scan hands each layer its weights and prefix as slices of stacked arrays. A TPU reads a slice where it lies; XLA
    on CPU and GPU copies it out first, at every token. On CPU that was 17% of a step's time for weights and 19% for
    keys and values that had to be turned besides (25M parameters, 64 rows); on an H200 13 of 34 GB a token were such
    copies (3B, counted from the program). Taken apart they are copied once: prefixes a call, weights a rollout batch.
    """

    layers: tuple[Any, ...]  # L times the weights of a layer, in the structure of the stacked ones
    prefix: tuple[KV, ...]  # L times k [M, K, H, S], v [M, K, S, H]


@struct.dataclass
class Places:
    """Which rollouts the rows [R] of a decode step are, when they are no longer M·G in order.

    A place is a number m·G + g. Rows and prompts come in as many equal parts as the batch is split into over devices,
    and both numbers count within a part, so that a row is never away from its prompt's prefix.
    """

    place: jax.Array  # int32 [parts, R/parts]    place of each row; some place or other for a row that has ended
    row: jax.Array  # int32 [parts, M·G/parts]  row at each place; R/parts where there is none
    breadth: jax.Array  # int32 []                  rows of the prompt that has most; they take its first places


def windows(length: int) -> tuple[int, ...]:
    """Columns of a cache of this length that the steps of a decode loop read: WINDOW, then twice as many, at last all.

    Each is a number that the program knows: where it is found out on the way, a GPU asks the host at every token. Each
    is a loop of its own in the program, hence few; the last takes what is less than half of another one.
    """
    ends = [WINDOW]
    while 2 * length >= 3 * ends[-1]:
        ends.append(2 * ends[-1])
    return (*ends[:-1], length)


def written_once(results: Any) -> Any:
    """What stands in memory before it is used: XLA on GPU would add the parts of a product up anew for each use."""
    return jax.lax.platform_dependent(results, cuda=jax.lax.optimization_barrier, default=lambda results: results)


def over_chunks(
    q: jax.Array,
    chunks: tuple[KV, ...],
    k: jax.Array,
    v: jax.Array,
    *,
    column: jax.Array,
    window: int,
    turned: Turned,
) -> tuple[list[Part], tuple[KV, ...]]:
    """Attention of q [B, 1, K, Q, H], B = M·G, over the chunks of one layer's cache that lie within the window.

    Each is an array of its own, read whole: a part of a larger one would be copied out at every token. The last is
    written to at `column`, those before are full. Returns the parts, and all chunks.
    """
    ends = [0]
    for chunk in chunks:
        ends.append(ends[-1] + chunk.v.shape[-2])
    last = ends.index(window) - 1
    at = column - ends[last]
    new = KV(_write_row(chunks[last].k, k, at, axis=3), _write_row(chunks[last].v, v, at, axis=2))
    written = jnp.arange(new.v.shape[-2])[None] <= at
    parts = [turned(q, full.k, full.v, key_mask=None) for full in chunks[:last]]
    return [*parts, turned(q, new.k, new.v, key_mask=written)], (*chunks[:last], new, *chunks[last + 1 :])


def over_layer(
    q: jax.Array, cache: KV, k: jax.Array, v: jax.Array, *, layer: jax.Array, column: jax.Array, window: int
) -> tuple[list[Part], KV]:
    """Attention of q [B, 1, K, Q, H], B = M·G, over layer `layer` of the cache [L, M, G, K, T, H]; and the cache.

    A window longer than WINDOW is read by blocks: a layer's keys are then never copied out whole.
    """
    new = KV(_write(cache.k, k, layer, column), _write(cache.v, v, layer, column))

    def read(start: jax.Array | int, size: int) -> tuple[jax.Array, jax.Array]:
        """Columns of keys and values [B, K, size, H]."""
        at, sizes = (layer, 0, 0, 0, start, 0), (1, *new.k.shape[1:4], size, new.k.shape[5])
        shape = (q.shape[0], new.k.shape[3], size, -1)
        return tuple(jax.lax.dynamic_slice(x, at, sizes).reshape(shape) for x in (new.k, new.v))

    if window <= WINDOW:
        return [attend_whole(q, *read(0, window), key_mask=jnp.arange(window)[None] <= column)], new

    def block(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The last block is moved back to end with the window; what it repeats of the one before is masked.
        start = jnp.minimum(number * WINDOW, window - WINDOW)
        k, v = (jnp.swapaxes(x, 1, 2) for x in read(start, WINDOW))
        at = start + jnp.arange(WINDOW)
        seen = (at <= column) & (at >= number * WINDOW)
        return k, v, jnp.broadcast_to(seen, (q.shape[0], WINDOW))

    return [attend_blocks(q, block, blocks=-(-window // WINDOW))], new


def at_places(attention: Callable[[jax.Array], Part], q: jax.Array, places: Places, *, prompts: int) -> Part:
    """Attention of rows q [R, 1, K, Q, H] over the prefixes of their prompts.

    The rows are laid out a prompt at a time, so that a prefix is read once for all of them and never copied. XLA on CPU
    pays for each place, so there only as many are laid out a prompt as the fullest one has rows, in quarters of G. The
    others pay for each prefix read, and a GPU would ask the host which way to take.
    """
    group = places.row.size // prompts
    over: Any = functools.partial(at_first_places, attention, places=places, prompts=prompts)

    def few(q: jax.Array) -> Part:
        widths = sorted({-(-group * quarters // 4) for quarters in range(1, 5)}, reverse=True)
        fits = sum(places.breadth <= width for width in widths[1:])
        return jax.lax.switch(fits, [functools.partial(over, width=width) for width in widths], q)

    return jax.lax.platform_dependent(q, cpu=few, default=functools.partial(over, width=group))


def at_first_places(
    attention: Callable[[jax.Array], Part], q: jax.Array, *, places: Places, prompts: int, width: int
) -> Part:
    """The same at as many places of each prompt as `width`, in which all living rows are."""
    parts = places.row.shape[0]
    row = places.row.reshape(parts, prompts // parts, -1)
    group = row.shape[-1]
    laid = row[..., :width].reshape(parts, -1)
    part = attention(_pick(q.reshape(parts, -1, *q.shape[2:]), laid).reshape(prompts, -1, *q.shape[2:]))
    place = places.place // group * width + places.place % group
    out = _pick(part.out.reshape(parts, -1, *q.shape[2:]), place)
    lse = _pick(jnp.moveaxis(part.lse, 3, 1).reshape(parts, -1, *q.shape[2:4]), place)
    return Part(out.reshape(q.shape), lse.reshape(*q.shape[:1], *q.shape[2:4], 1))


def _pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [parts, n, ...] at index [parts, k] -> [parts, k, ...]; an index beyond the end takes some row or other."""
    return jax.vmap(lambda x, index: jnp.take(x, index, axis=0, mode="clip"))(x, index)


def _write(cache: jax.Array, row: jax.Array, layer: jax.Array, t: jax.Array) -> jax.Array:
    """Put row [M, G, K, H] at (layer, :, :, :, t) of cache [L, M, G, K, T, H]."""
    zero = jnp.zeros((), jnp.int32)
    start = (layer.astype(jnp.int32), zero, zero, zero, jnp.asarray(t, jnp.int32), zero)
    return jax.lax.dynamic_update_slice(cache, row[None, :, :, :, None].astype(cache.dtype), start)


def _write_row(chunk: jax.Array, row: jax.Array, t: jax.Array, *, axis: int) -> jax.Array:
    """Put row [M, G, K, H] at column t, which is this axis, of a chunk of one layer [M·G, K, ...]."""
    row = jnp.expand_dims(row.reshape(chunk.shape[0], *row.shape[2:]), axis)
    return jax.lax.dynamic_update_slice_in_dim(chunk, row.astype(chunk.dtype), t, axis)


def by_rows(theirs: Part, *, groups: int) -> Part:
    """The prefix part [M, G·T, K, Q, H] a row at a time, [M·G, T, K, Q, H]."""
    m, t = theirs.out.shape[0], theirs.out.shape[1] // groups
    lse = theirs.lse.reshape(m, *theirs.lse.shape[1:3], groups, t)
    lse = jnp.moveaxis(lse, 3, 1).reshape(m * groups, *lse.shape[1:3], t)
    return Part(theirs.out.reshape(m * groups, t, *theirs.out.shape[2:]), lse)
