"""Pixels as the vision tower takes them: 8-bit levels until they are on the device, normalised there.

Levels travel in a quarter of the bytes. What becomes of them is looked up in a table, and not computed, so that the
numbers are the very ones that the reference's processor computes on the host.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of each channel, in units of the full level."""


@functools.cache
def levels() -> np.ndarray:
    """float32 [3, 256]: the normalised value of each 8-bit level, rounded where the reference rounds."""
    scaled = np.arange(256).astype(np.float64) * (1 / 255)
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    return (scaled.astype(np.float32)[None] - mean) / std


def normalise(patches: jax.Array, valid: jax.Array) -> jax.Array:
    """float32 [..., P, W] of patches [..., P, W] whose values stand channel by channel; 0 where not `valid` [..., P].

    Patches that are floats already are taken as normalised, and come back as they are.
    """
    if patches.dtype != jnp.uint8:
        return patches
    values = jax.lax.platform_dependent(patches, tpu=computed, default=looked_up)
    return jnp.where(valid[..., None], values, 0)


def looked_up(patches: jax.Array) -> jax.Array:
    """Each level's entry of the table of its channel."""
    table = levels()
    row = _by_channel(np.arange(len(table), dtype=np.int32) * table.shape[1], patches.shape[-1])
    return jnp.asarray(table.reshape(-1)).at[patches.astype(jnp.int32) + row].get(mode="promise_in_bounds")


def computed(patches: jax.Array) -> jax.Array:
    """The same by arithmetic, for a TPU, which is slow at looking up single numbers.

    It is within 2 units in the last place of the table, and the same once rounded to bfloat16.
    """
    value, width = patches.astype(jnp.float32), patches.shape[-1]
    # 1/255 in two parts, of which the first times a level is exact: the sum is rounded once, as the table's is.
    high = np.float32(np.round(2**24 / 255) / 2**24)
    scaled = value * high + value * np.float32(1 / 255 - float(high))
    return (scaled - _by_channel(np.float32(MEAN), width)) * _by_channel(np.float32(1) / np.float32(STD), width)


def _by_channel(values: np.ndarray, width: int) -> np.ndarray:
    """[W] of a value a channel."""
    return np.repeat(values, width // len(values))
