"""Randomness of rollouts: noise that is a function of what is drawn, and of nothing about how the work is laid out.

A token's noise is keyed by (seed, purpose, step, prompt id, occurrence, group index, token index) alone, so batch
order, batch size, device count, compaction, streaming and restarts do not change it, in bits.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np

IMPL = "threefry2x32"
"""The only generator whose bits under vmap do not depend on the layout; those of 'rbg' and 'unsafe_rbg' do."""


def key_words(seed: int, *, purpose: int | str, step: int) -> np.ndarray:
    """(seed, purpose, step) as uint32 [3]: an array, so that a new step is no new program.

    A purpose given by name is its CRC-32, which, unlike `hash`, is the same in every process.
    """
    number = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
    for name, value in (("seed", seed), ("purpose", number), ("step", step)):
        if not 0 <= int(value) < 2**32:
            raise ValueError(f"sampler {name} is {value}, outside [0, 2**32): pass a value that fits 32 bits unsigned")
    return np.array([seed, number, step], np.uint32)


def noise_keys(words: jax.Array, *, prompt_id: jax.Array, occurrence: jax.Array, group_size: int) -> jax.Array:
    """Keys [M, G], one a rollout: fold-in of seed, purpose, step, prompt id, occurrence, group index, in this order.

    `words` are those of `key_words`; prompt ids and occurrences are uint32 [M].
    """
    shape = (prompt_id.shape[0], group_size)
    rows = jnp.stack([prompt_id, occurrence], axis=1)[:, None]
    members = jnp.arange(group_size, dtype=jnp.uint32)[None, :, None]
    parts = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (words[1:], rows, members)]

    def chain(parts: jax.Array) -> jax.Array:
        # A scan and not five calls: one threefry in the program, a third of its compile time.
        fold = lambda key, part: (jax.random.fold_in(key, part), None)  # noqa: E731
        return jax.lax.scan(fold, jax.random.key(words[0], impl=IMPL), parts)[0]

    return jax.vmap(jax.vmap(chain))(jnp.concatenate(parts, axis=-1))


def gumbel(keys: jax.Array, t: jax.Array, vocab: int) -> jax.Array:
    """Gumbel noise float32 [M, G, V] for rollout keys [M, G] at token index t (int32 [] or [M, G]).

    The bits are the same for any M and G.
    """

    def one(key: jax.Array, t: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, t), (vocab,), jnp.float32)

    t = jnp.asarray(t)
    over = None if t.ndim == 0 else 0
    return jax.vmap(jax.vmap(one, in_axes=(0, over)), in_axes=(0, over))(keys, t)


def require_partitionable() -> None:
    """Raises a ValueError where the generator would draw other bits in another batch layout."""
    if not jax.config.jax_threefry_partitionable:
        raise ValueError("jax_threefry_partitionable is off, which changes every draw; leave it at its default (on)")
