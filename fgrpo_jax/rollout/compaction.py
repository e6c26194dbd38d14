"""Long tails: as rows end, the others move into smaller batches, an eighth to a fifth smaller each time.

Layout. Living rows become a flat batch [R, 1] in which a row may be any rollout of any prompt: all that a step does to
a row alone (projections, MLP, vocabulary, draw, its own cache) shrinks with R. Only the attention to prefixes needs
rows by prompt, and there the queries, one token each, are laid out on the places prompts × group and taken back
(`cache.Places`); so a prefix is still read once a prompt, and is moved only when there are more prompts than rows.
A prompt's living rows take its first places, so that a machine that pays for every place may leave the last ones out.
The alternative, [M', G'] with as many members for each prompt, saves nothing as long as one group has most of its
members alive: of 8 × 8 rollouts of which a random half lives, the fullest group has 6. Copying the prefix to each row
would read it G times a token.

Sizes are multiples of 8 rows, four of them to every halving where there are so many, down to `SMALLEST`: 64, 56, 48,
40, 32, 24, 16 and 8. So the sizes of a batch shape are bounded by its rows and not by its lengths. Halves alone would
be 4, and gain nothing at all while 33 of 64 rows go on: with half of the rollouts long, every other batch is such a
one. Rows that have ended fill the last places and draw nothing more. On a mesh every part of the batch shrinks alike
and keeps its own rows: nothing crosses devices, and group members stay with their prompt.

Outputs do not change: noise belongs to the rollout (`noise`), and attention to what its row points at.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.model.cache import Places
from fgrpo_jax.records import Rollouts
from fgrpo_jax.rollout.loop import Rows, Shared

SMALLEST = 8
"""Rows of a part that are not made fewer any more: a step of so few costs what reading the weights costs."""


@struct.dataclass
class Batch:
    """A batch being drawn: its rows, and what those that were left behind have drawn."""

    rows: Rows  # [M, G], or [R, 1] once compacted
    shared: Shared
    home: jax.Array | None = None  # int32 [parts, R/parts]   rollout m·G + g of each row, within its part
    whole: Rollouts | None = None  # [M, G, T]                of all rollouts; None: `rows` are all of them


def living(rows: Rows, parts: int) -> jax.Array:
    """int32 []: rows still drawing, in the part that has most of them."""
    return jnp.max(jnp.sum(~rows.done.reshape(parts, -1), axis=1))


def smaller(size: int) -> int | None:
    """Rows of a part of `size` after one more compaction; None when it is too small for one."""
    if size <= SMALLEST:
        return None
    step = max(SMALLEST, 1 << (size - 1).bit_length() - 3)
    return (size - 1) // step * step


def shrink(batch: Batch, *, parts: int, size: int) -> Batch:
    """The batch with `size` rows a part, all living rows among them."""
    rows, alive = batch.rows, ~batch.rows.done.reshape(parts, -1)
    order = jnp.argsort(~alive, axis=1, stable=True)[:, :size]
    shared = _places(batch.shared, order, alive=_pick(alive, order), group=_group(batch))
    home = jnp.broadcast_to(jnp.arange(alive.shape[1]), alive.shape) if batch.home is None else batch.home

    def take(x: jax.Array) -> jax.Array:
        """Rows [A, W, ...] -> [R, 1, ...]."""
        return _pick(x.reshape(parts, -1, *x.shape[2:]), order).reshape(parts * size, 1, *x.shape[2:])

    others = {name: value for name, value in vars(rows).items() if name not in ("t", "next_position", "cache")}
    fields: dict[str, Any] = jax.tree.map(take, others)
    cache = jax.tree.map(lambda x: jax.vmap(take)(x), rows.cache)
    next_position = take(jnp.broadcast_to(rows.next_position[:, None], rows.done.shape))[:, 0]
    moved = rows.replace(next_position=next_position, cache=cache, **fields)
    return Batch(rows=moved, shared=shared, home=_pick(home, order), whole=collect(batch))


def collect(batch: Batch) -> Rollouts:
    """All rollouts [M, G, T] as far as they are drawn."""
    rows, whole, home = batch.rows, batch.whole, batch.home
    here = Rollouts(tokens=rows.tokens, mask=rows.mask, logps=rows.logps, finished=rows.finished)
    if whole is None or home is None:
        return here
    parts = home.shape[0]

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        new = new.reshape(parts, -1, *new.shape[2:])
        put = jax.vmap(lambda old, home, new: old.at[home].set(new, unique_indices=True))
        return put(old.reshape(parts, -1, *old.shape[2:]), home, new).reshape(old.shape)

    return jax.tree.map(write, whole, here)


def _group(batch: Batch) -> int:
    """G, the places of a prompt."""
    places = batch.shared.places
    if places is None:
        return batch.rows.done.shape[1]
    return places.row.size // batch.shared.mask.shape[0]


def _places(shared: Shared, order: jax.Array, *, alive: jax.Array, group: int) -> Shared:
    """Where the rows of `order` [parts, R/parts], those that stay, stand; `alive` is bool, like `order`.

    The prefixes of unused prompts are dropped if rows are fewer than prompts.
    """
    parts, size = order.shape
    prompts = shared.mask.shape[0] // parts
    place = order if shared.places is None else _pick(shared.places.place, order)
    keep = min(prompts, size)
    if keep < prompts:
        used = jax.vmap(lambda at, alive: jnp.zeros(prompts, bool).at[at].max(alive))(place // group, alive)
        kept = jnp.argsort(~used, axis=1, stable=True)[:, :keep]
        rank = jax.vmap(lambda kept: jnp.zeros(prompts, jnp.int32).at[kept].set(jnp.arange(keep)))(kept)
        place = _pick(rank, place // group) * group + place % group

        def take(x: jax.Array) -> jax.Array:
            return _pick(x.reshape(parts, prompts, *x.shape[1:]), kept).reshape(parts * keep, *x.shape[1:])

        shared = shared.replace(prefix=jax.tree.map(lambda x: jax.vmap(take)(x), shared.prefix), mask=take(shared.mask))
    places = keep * group
    prompt = place // group
    earlier = (prompt[:, :, None] == prompt[:, None, :]) & alive[:, None, :] & jnp.tri(size, k=-1, dtype=bool)
    rank = jnp.sum(earlier, axis=-1)
    place = prompt * group + rank
    at = jnp.where(alive, place, places)  # a row that has ended stands nowhere
    empty = jnp.full((parts, places), size, jnp.int32)
    row = jax.vmap(lambda row, at: row.at[at].set(jnp.arange(size), mode="drop"))(empty, at)
    breadth = jnp.max(jnp.where(alive, rank + 1, 0))
    return shared.replace(places=Places(place=jnp.where(alive, place, 0), row=row, breadth=breadth))


def _pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [parts, n, ...] at index [parts, k] -> [parts, k, ...]."""
    return jax.vmap(lambda x, index: x[index])(x, index)
