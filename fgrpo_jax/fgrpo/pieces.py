"""How the prompts of an update are put together for a gradient: by tokens, so that short completions make room.

Letters: U updates, p parts that a batch is split into over devices, c prompts of an update and part, n pieces, R places
for prompts in a piece and part. A part keeps its own prompts; nothing moves between devices.

A piece has room for as many tokens as `micro` prompts with completions of full length, and takes more prompts where
they are shorter. How many pieces there are is known at run time only, so one program serves batches of all lengths.
Without packing a piece is `micro` prompts, padding and all.
Every sum is normalised by global counts, so that pieces change a result by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from fgrpo_jax.model import packing
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import PromptBatch

PLACES = (1, 2, 4)
"""Prompts in a piece, at most one of these times as many as fit at full length.

A place that stays empty costs memory, and attention its moves; with too few places a piece is not full.
"""


@struct.dataclass
class Pieces:
    """The pieces of one update (of all, where every array leads with U)."""

    prompt: jax.Array  # int32 [n, p, R]  prompt in each place; c where there is none
    home: jax.Array  # int32 [p, c]     place of each prompt, a number of n·R
    count: jax.Array  # int32 []         pieces that have prompts; they come first
    room: int | None = struct.field(pytree_node=False)  # tokens of a piece and part; None: all cells of its places

    def take(self, number: jax.Array, tree: Any) -> tuple[Any, jax.Array]:
        """(leaves [p, c, ...] → [p·R, ...] of a piece, bool [p·R] True where there is a prompt)."""
        index = self.prompt[number]
        take = jax.vmap(lambda x, index: jnp.take(x, index, axis=0, mode="clip"))
        there = index < self.home.shape[-1]
        return jax.tree.map(lambda x: take(x, index).reshape(-1, *x.shape[2:]), tree), there.reshape(-1)

    def collect(self, stacked: jax.Array) -> jax.Array:
        """What the pieces gave, [n, p·R, ...], by prompt: [p, c, ...]."""
        places = stacked.reshape(*self.prompt.shape, *stacked.shape[2:])
        flat = jnp.moveaxis(places, 1, 0).reshape(self.home.shape[0], -1, *places.shape[3:])
        return jax.vmap(lambda x, index: jnp.take(x, index, axis=0))(flat, self.home)


def deal(tree: Any, *, updates: int, parts: int) -> Any:
    """[M, ...] leaves → [U, p, c, ...]. Row r goes to update r mod U, whatever the devices."""

    def one(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(parts, -1, updates, *x.shape[1:]), 2, 0)

    return jax.tree.map(one, tree)


def gather(x: jax.Array) -> jax.Array:
    """The inverse of `deal` for one array: [U, p, c, ...] → [M, ...]."""
    return jnp.moveaxis(x, 0, 2).reshape(-1, *x.shape[3:])


def places(prompts: np.ndarray, mask: np.ndarray) -> int:
    """Of PLACES, the first that lets pieces be full, of prompts' masks [M, S] and completions' [M, G, T]."""
    full = prompts.shape[1] + mask[0].size
    share = (prompts.sum() + mask.sum()) / (len(mask) * full)
    return next((times for times in PLACES if times * share > 0.9), PLACES[-1])


def cut(sizes: jax.Array, *, micro: int, full: int, packs: bool, times: int = PLACES[-1]) -> Pieces:
    """The pieces of prompts of these sizes, the larger first, each into the first piece that has room.

    That never takes more pieces than prompts of full length would.

    Args:
      sizes: int32 [U, p, c], tokens of each prompt with its completions, at most `full`.
      micro: prompts of full length that a piece has room for, on all devices together.
      packs: False: prompts in their order, `micro` a piece.
      times: one of PLACES.
    """
    own, count = max(1, micro // sizes.shape[1]), sizes.shape[2]
    pieces, places = -(-count // own), min(count, times * own)
    if not packs:
        number = jnp.arange(pieces * own, dtype=jnp.int32)
        prompt = jnp.minimum(number, count).reshape(pieces, 1, own)
        whole = Pieces(jnp.repeat(prompt, sizes.shape[1], axis=1), number[:count], jnp.int32(pieces), room=None)
        whole = whole.replace(home=jnp.broadcast_to(whole.home, sizes.shape[1:]))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(sizes), *x.shape)), whole)

    def of_part(sizes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        order = jnp.argsort(-sizes, stable=True)

        def place(held: tuple[jax.Array, jax.Array], size: jax.Array) -> tuple[Any, jax.Array]:
            tokens, prompts = held
            number = jnp.argmax((tokens + size <= own * full) & (prompts < places))
            held = tokens.at[number].add(size), prompts.at[number].add(1)
            return held, number * places + prompts[number]

        zero = jnp.zeros(pieces, jnp.int32)
        (_, prompts), found = jax.lax.scan(place, (zero, zero), sizes[order])
        home = jnp.zeros(count, jnp.int32).at[order].set(found.astype(jnp.int32))
        prompt = jnp.full(pieces * places, count, jnp.int32).at[home].set(jnp.arange(count, dtype=jnp.int32))
        return prompt.reshape(pieces, places), home, jnp.sum(prompts > 0)

    prompt, home, used = jax.vmap(jax.vmap(of_part))(sizes)
    return Pieces(jnp.swapaxes(prompt, 1, 2), home, used.max(axis=1).astype(jnp.int32), room=own * full)


def tokens(prompts: jax.Array, mask: jax.Array) -> jax.Array:
    """int32 [...], tokens of prompts (mask [..., S]) and of completions (mask [..., G, T]) but for the last."""
    length = mask.shape[-1]
    own = jnp.max(jnp.where(mask, jnp.arange(length), 0), axis=-1)
    return jnp.sum(prompts, axis=-1, dtype=jnp.int32) + jnp.sum(own, axis=-1, dtype=jnp.int32)


def encode(
    model: Model, params: Any, prompts: PromptBatch, *, parts: int, done: jax.Array | None = None, first: int = 0
) -> jax.Array:
    """Image tokens [p·R, I*F, D] of a piece (`Model.encode`), where it packs a prompt at a time and none of a place
    without one."""
    if not model.packs:
        return model.encode(params, prompts.vision, done=done, first=first)
    split = lambda x: x.reshape(parts, -1, *x.shape[1:])  # noqa: E731
    given = jax.tree.map(split, (prompts.vision, done))
    one = lambda vision, done: model.encode(params, vision, done=done, first=first)  # noqa: E731
    features = packing.each(split(prompts.mask).any(axis=(0, 2)), one, *given)
    return features.reshape(-1, *features.shape[2:])


def stack(pieces: Pieces, function: Callable[[jax.Array], Any]) -> Any:
    """`function` of the number of each piece of an update, stacked [n, ...]; zeros for pieces without prompts."""

    def body(number: jax.Array, out: Any) -> Any:
        return jax.tree.map(lambda x, new: x.at[number].set(new), out, function(number))

    shapes = jax.eval_shape(function, jnp.int32(0))
    zero = jax.tree.map(lambda x: jnp.zeros((len(pieces.prompt), *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, pieces.count, body, zero)


def accumulate(loss: Callable[..., tuple[jax.Array, Any]], params: Any, pieces: Pieces) -> tuple[Any, jax.Array, Any]:
    """Sums loss and gradient over the pieces of one update.

    Args:
      loss: (params, number of a piece) → (scalar already divided by the global normaliser, aux).

    Returns:
      (gradients, loss, aux stacked [n, ...] with zeros for pieces without prompts).
    """
    # bfloat16 parameters have bfloat16 gradients, whose sum needs more than 8 bits.
    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
    shapes = jax.eval_shape(lambda params: loss(params, jnp.int32(0))[1], params)
    stacked = jax.tree.map(lambda x: jnp.zeros((len(pieces.prompt), *x.shape), x.dtype), shapes)

    def body(number: jax.Array, carry: Any) -> Any:
        grads, total, out = carry
        (value, aux), new = jax.value_and_grad(loss, has_aux=True)(params, number)
        out = jax.tree.map(lambda x, new: x.at[number].set(new), out, aux)
        return jax.tree.map(jnp.add, grads, new), total + value, out

    return jax.lax.fori_loop(0, pieces.count, body, (zero, jnp.float32(0), stacked))
