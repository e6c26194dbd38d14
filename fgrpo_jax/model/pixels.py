"""Pixels as the vision tower takes them: 8-bit levels until they are on the device, normalised there.

Levels travel in a quarter of the bytes. What becomes of them is looked up in a table, and not computed, so that every
device gives the very numbers that the reference's processor computes on the host.
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
    table = levels()
    # A row of the table for each third of a patch.
    row = np.repeat(np.arange(len(table), dtype=np.int32) * table.shape[1], patches.shape[-1] // len(table))
    values = jnp.asarray(table.reshape(-1)).at[patches.astype(jnp.int32) + row].get(mode="promise_in_bounds")
    return jnp.where(valid[..., None], values, 0)
