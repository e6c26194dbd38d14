"""Prompts and completions of many lengths as one stream of tokens, and back: products with weights follow real tokens.

Letters: p parts that a batch is split into over devices, R prompts of a part, S and G·T padded tokens of a prompt and
of its completions, L = S + G·T cells of a prompt, N tokens of a stream.

A stream holds a part's prompts one after the other, each followed by its completions. Projections and the MLP run on
[p, N]; attention runs on the padded cells, a prompt at a time, and leaves out places where there is no prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Packing:
    """Where the tokens of a stream come from. `pack` makes it."""

    cell: jax.Array  # int32 [p, N]     cell of each token of the stream; R·L behind the last
    place: jax.Array  # int32 [p, R·L]   place in the stream of each cell; N of a cell that is not in it
    mask: jax.Array  # bool [p, R, L]   cells that may be attended to
    prompt: int = struct.field(pytree_node=False)  # S
    group: int = struct.field(pytree_node=False)  # G

    @property
    def used(self) -> jax.Array:
        """bool [R], False where no part has a prompt."""
        return self.mask.any(axis=(0, 2))

    def ints(self, cells: jax.Array) -> jax.Array:
        """Cells [p·R, L, ...] of whole numbers → their stream [p, N, ...]; any behind the last token."""
        return pick(cells.reshape(*self.place.shape, *cells.shape[2:]), self.cell)

    def attend(self, attention: Callable[..., jax.Array], *stream: jax.Array) -> jax.Array:
        """`attention` of cells [b, L, ...] and mask [b, L] → [b, L, ...], of and to streams [p, N, ...].

        On CPU it runs for one prompt at a time and not for places without a prompt; elsewhere for all of them at once,
        where a loop would wait for the host and a kernel leaves out what is masked.
        """
        cells = [_spread(x, self.place, self.cell, self.used) for x in stream]

        def whole(*cells: jax.Array) -> jax.Array:
            return attention(*(x.reshape(-1, *x.shape[2:]) for x in cells)).reshape(cells[0].shape)

        def one_by_one(*cells: jax.Array) -> jax.Array:
            return each(self.used, attention, *cells)

        out = jax.lax.platform_dependent(*cells, self.mask, cpu=one_by_one, default=whole)
        return _collect(out, self.place, self.cell, self.used)


def pack(prompts: jax.Array, mask: jax.Array, *, parts: int, room: int | None = None) -> Packing:
    """The stream of prompts and of their completions up to the last token but one, which nothing is predicted from.

    Args:
      prompts: bool [p·R, S], the prompts' masks.
      mask: bool [p·R, G, T], completion tokens that count.
      room: N. None takes all cells. Whoever calls sees to it that no part has more tokens.
    """
    m, group, length = mask.shape
    beyond = jnp.flip(jnp.cumsum(jnp.flip(mask, -1), axis=-1, dtype=jnp.int32), -1) - mask  # tokens that follow
    inside = jnp.concatenate([prompts, (beyond > 0).reshape(m, -1)], axis=1).reshape(parts, -1)
    keys = jnp.concatenate([prompts, mask.reshape(m, -1)], axis=1)
    cell, place = compact(inside, inside.shape[1] if room is None else room)
    split = keys.reshape(parts, m // parts, prompts.shape[1] + group * length)
    return Packing(cell, place, split, prompt=prompts.shape[1], group=group)


def compact(wanted: jax.Array, room: int) -> tuple[jax.Array, jax.Array]:
    """Indices that move the wanted of [p, n] to the front: (index of each of `room` rows, row of each of n).

    An index is n, and a row is `room`, where there is none.
    """
    count = jnp.cumsum(wanted, axis=1, dtype=jnp.int32)
    numbers = jnp.arange(1, room + 1, dtype=jnp.int32)
    index = jax.vmap(lambda count: jnp.searchsorted(count, numbers))(count).astype(jnp.int32)
    return index, jnp.where(wanted, count - 1, room)


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [p, n, ...] at index [p, r] → [p, r, ...]; an index beyond the end takes the last."""
    return jax.vmap(lambda x, index: jnp.take(x, index, axis=0, mode="clip"))(x, index)


@jax.custom_vjp
def rows(x: jax.Array, index: jax.Array, back: jax.Array) -> jax.Array:
    """x [p, n, ...] at index [p, r] → [p, r, ...], zero where the index is n or more.

    `back` [p, n] is the inverse, r or more where an item is not taken: with it the gradient is a move of the same kind.
    A scatter would be serial on CPU.
    """
    return _move(x, index)


def _move(x: jax.Array, index: jax.Array) -> jax.Array:
    there = index < x.shape[1]
    return jnp.where(there.reshape(*there.shape, *[1] * (x.ndim - 2)), pick(x, index), 0)


def _rows_fwd(x: jax.Array, index: jax.Array, back: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return rows(x, index, back), (index, back)


def _rows_bwd(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None, None]:
    index, back = saved
    return rows(gradient, back, index), None, None


rows.defvjp(_rows_fwd, _rows_bwd)


@jax.custom_vjp
def _spread(x: jax.Array, place: jax.Array, cell: jax.Array, used: jax.Array) -> jax.Array:
    """A stream [p, N, ...] → cells [p, R, L, ...]; zero where there is no token."""

    def whole(x: jax.Array) -> jax.Array:
        return _move(x, place).reshape(len(x), len(used), -1, *x.shape[2:])

    def one_by_one(x: jax.Array) -> jax.Array:  # a move costs what it moves: none for places without a prompt
        return each(used, functools.partial(_move, x), place.reshape(len(x), len(used), -1))

    return jax.lax.platform_dependent(x, cpu=one_by_one, default=whole)


@jax.custom_vjp
def _collect(cells: jax.Array, place: jax.Array, cell: jax.Array, used: jax.Array) -> jax.Array:
    """The inverse of `_spread`."""
    return _move(cells.reshape(*place.shape, *cells.shape[3:]), cell)


def _spread_fwd(x: jax.Array, *where: jax.Array) -> tuple[jax.Array, Any]:
    return _spread(x, *where), where


def _collect_fwd(cells: jax.Array, *where: jax.Array) -> tuple[jax.Array, Any]:
    return _collect(cells, *where), where


_spread.defvjp(_spread_fwd, lambda where, gradient: (_collect(gradient, *where), None, None, None))
_collect.defvjp(_collect_fwd, lambda where, gradient: (_spread(gradient, *where), None, None, None))


def each(used: jax.Array, function: Callable[..., jax.Array], *inputs: Any) -> jax.Array:
    """`function` of inputs [p, ...] for each of R places of [p, R, ...] → [p, R, ...]; zeros where it is not used."""
    turned = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), inputs)
    shape = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], turned))

    def one(place: tuple[jax.Array, Any]) -> jax.Array:
        return jax.lax.cond(place[0], function, lambda *_: jnp.zeros(shape.shape, shape.dtype), *place[1])

    return jnp.moveaxis(jax.lax.map(one, (used, turned)), 0, 1)
