"""Rotary positions: M-RoPE position ids on the host, rotation tables in float32 on the device.

Frequencies are made on the host: the power in float64, rounded to float32 before it is inverted, which was within one
ulp of torch on every shape tried. Made in float32 they were off by up to 2 ulp with numpy and 9 with jnp, and compiled
jnp differed from eager jnp: 2e-3 in an angle at position 32,768. Tables stay in float32 whatever the model's dtype:
bfloat16 rounds 257 to 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgrpo_jax.model.config import ModelConfig


class Rotation(NamedTuple):
    """cos and sin, float32 [..., H/2]; the leading axes are those of the tokens."""

    cos: jax.Array
    sin: jax.Array


def inverse_frequencies(width: int, theta: float) -> np.ndarray:
    """theta^(-i/width) for even i below width: float32 [width / 2]."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    return np.float32(1.0) / np.power(float(theta), exponents.astype(np.float64)).astype(np.float32)


def text_rotation(positions: jax.Array, *, head_dim: int, theta: float, sections: Sequence[int]) -> Rotation:
    """Tables for M-RoPE positions int32 [..., 3]: the half-dims are dealt to (t, h, w) in runs of `sections`."""
    axis = np.repeat(np.arange(len(sections)) % 3, sections)
    angles = positions.astype(jnp.float32)[..., axis] * inverse_frequencies(head_dim, theta)
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def vision_rotation(positions: jax.Array, *, head_dim: int, theta: float) -> Rotation:
    """Tables for patch (row, column) int32 [..., 2]: half of the half-dims turns by row, the rest by column."""
    frequencies = inverse_frequencies(head_dim // 2, theta)
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    angles = angles.reshape(*positions.shape[:-1], head_dim // 2)
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotate x [..., heads, H] by tables [..., H/2]: dim i turns with dim i + H/2. Computed in at least float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    first, second = jnp.split(wide, 2, axis=-1)
    cos, sin = rotation.cos[..., None, :], rotation.sin[..., None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def mrope_positions(
    tokens: np.ndarray,
    grids: Sequence[tuple[int, int, int]],
    config: ModelConfig,
    *,
    video_seconds: Sequence[float] | None = None,
) -> tuple[np.ndarray, int]:
    """M-RoPE positions of one prompt, as `Qwen2_5_VLModel.get_rope_index` of transformers has them.

    Text advances all three axes together. An image or video takes (t, h, w) of its merged grid, counted from the
    current position; the text after it goes on from there plus the longer merged side. A video's frames are apart by
    `tokens_per_second` times the seconds between grid steps, rounded down.

    Args:
      tokens: int [S], one prompt without padding.
      grids: (t, h, w) in patches of each image and video, in the order they stand in the prompt.
      video_seconds: seconds between grid steps of each video, in order; 1.0 each when absent.

    Returns:
      positions int32 [S, 3], and the position of the first completion token (the largest position plus 1).

    Raises:
      ValueError: the placeholders do not match the grids.
    """
    tokens = np.asarray(tokens)
    merge = config.vision.spatial_merge_size
    kinds = (tokens == config.image_token_id) * 1 + (tokens == config.video_token_id) * 2
    seconds = iter([1.0] * len(grids) if video_seconds is None else video_seconds)
    out = np.zeros((len(tokens), 3), np.int32)
    at = position = used = 0
    while at < len(tokens):
        if not kinds[at]:
            stop = at + int(np.argmax(kinds[at:] > 0)) if kinds[at:].any() else len(tokens)
            out[at:stop] = (position + np.arange(stop - at))[:, None]
            position += stop - at
        else:
            if used >= len(grids):
                place = f"a placeholder at token {at} for image {used}"
                raise ValueError(f"the prompt has {place}, but only {len(grids)} grids are given")
            grid = grids[used]
            # Both factors are float32, as in the reference, since frame times are rounded down afterwards.
            rate = np.float32(config.vision.tokens_per_second)
            interval = float(rate * np.float32(next(seconds))) if kinds[at] == 2 else 1.0
            block = _block_positions(grid, merge=merge, interval=interval) + position
            stop = at + len(block)
            if stop > len(tokens) or np.any(kinds[at:stop] != kinds[at]):
                found = int(np.argmax(np.append(kinds[at:], 0) != kinds[at]))
                raise ValueError(
                    f"image {used} has grid {tuple(grid)}, which needs {len(block)} placeholder tokens, but {found} "
                    f"stand at token {at}: encode the prompt with the grid of its image"
                )
            out[at:stop] = block
            position += max(grid[1], grid[2]) // merge
            used += 1
        at = stop
    if used != len(grids):
        raise ValueError(f"{len(grids)} image grids given, but the prompt has placeholders for {used}")
    return out, int(out.max(initial=-1)) + 1


def _block_positions(grid: tuple[int, int, int], *, merge: int, interval: float) -> np.ndarray:
    """(t, h, w) of each merged token of a grid, int [n, 3], from 0; frame times rounded down in float32."""
    t, h, w = grid[0], grid[1] // merge, grid[2] // merge
    axes = np.meshgrid(np.arange(t), np.arange(h), np.arange(w), indexing="ij")
    block = np.stack([axis.reshape(-1) for axis in axes], axis=-1)
    block[:, 0] = np.floor(block[:, 0].astype(np.float32) * np.float32(interval))
    return block.astype(np.int32)
