"""Drawing of the built-in world's scenes as uint8 RGB arrays, with numpy masks and no anti-aliasing.

The backdrop is a ramp in absolute pixels, red growing to the right and blue growing downwards over a constant green,
and the same light tints the objects: so every patch, even one that an object fills, tells where in the image it is.
Object colours keep clear of the backdrop's range in at least one channel by 40 levels.
"""

from __future__ import annotations

import functools

import numpy as np

from fgrpo_jax.reading.frames import area
from fgrpo_jax.records import Scene, SceneObject
from fgrpo_jax.world.scenes import Difficulty

PALETTE = {
    "red": (225, 30, 35), "green": (30, 195, 55), "blue": (35, 55, 235), "yellow": (235, 220, 25),
    "purple": (205, 40, 215), "orange": (235, 150, 15), "cyan": (25, 220, 225), "white": (230, 250, 230),
}  # fmt: skip
_GREEN, _DARK, _BRIGHT = 110, 70, 150
_TINT = 0.4  # share of the backdrop's departure from mid-grey that an object takes on: at most 16 levels


def draw(scene: Scene, difficulty: Difficulty, *, rng: np.random.Generator) -> np.ndarray:
    """The picture of a scene: uint8 [height, width, 3]. `rng` is used for clutter and noise only."""
    image = _backdrop(scene.width, scene.height, difficulty.sides[1]).copy()
    if difficulty.clutter:
        _draw_clutter(image, difficulty.clutter, rng)
    for thing in sorted(scene.objects, key=lambda thing: -area(thing.box)):  # what is inside is drawn on top
        _draw_object(image, thing, difficulty.sides[1])
    if difficulty.noise:
        image += rng.integers(-difficulty.noise, difficulty.noise + 1, size=image.shape, dtype=np.int16)
    return np.clip(image, 0, 255).astype(np.uint8)


def blank(height: int, width: int) -> np.ndarray:
    """A black picture, uint8 [height, width, 3], that takes no memory and cannot be written to."""
    return np.broadcast_to(np.uint8(0), (height, width, 3))


@functools.lru_cache(maxsize=32)
def _backdrop(width: int, height: int, longest: int) -> np.ndarray:
    """int16 [height, width, 3]; the ramp reaches its brightest at `longest` pixels."""
    image = np.full((height, width, 3), _GREEN, dtype=np.int16)
    image[:, :, 0] = _DARK + (_BRIGHT - _DARK) * np.arange(width) // longest
    image[:, :, 2] = (_DARK + (_BRIGHT - _DARK) * np.arange(height) // longest)[:, None]
    return image


def _draw_object(image: np.ndarray, thing: SceneObject, longest: int) -> None:
    x1, y1, x2, y2 = (int(side) for side in thing.box)
    light = _backdrop(image.shape[1], image.shape[0], longest)[y1:y2, x1:x2] - np.int16(_GREEN)
    paint = np.array(PALETTE[thing.color], dtype=np.int16) + (_TINT * light).astype(np.int16)
    region = image[y1:y2, x1:x2]
    np.copyto(region, paint, where=shape_mask(thing.shape, x2 - x1)[:, :, None])


@functools.lru_cache(maxsize=1024)
def shape_mask(shape: str, side: int) -> np.ndarray:
    """bool [side, side]: where a shape of SHAPES has ink. Every shape touches all four sides of its box."""
    # These are the coordinates of pixel centres in [-1, 1].
    grid = (2 * np.arange(side) + 1) / side - 1
    x, y = grid[None, :], grid[:, None]
    edge = 1 + 0.5 / side  # keeps the outermost row of curved and pointed shapes
    if shape == "square":
        return np.ones((side, side), dtype=bool)
    if shape == "circle":
        return x * x + y * y <= edge
    if shape == "triangle":
        return np.abs(x) <= (y + 1) / 2 + 0.5 / side
    if shape == "cross":
        return (np.abs(x) <= 0.3) | (np.abs(y) <= 0.3)
    if shape == "diamond":
        return np.abs(x) + np.abs(y) <= edge
    assert shape == "ring", f"unknown shape {shape!r}"
    radius = x * x + y * y
    return (radius <= edge) & (radius >= 0.42)


def _draw_clutter(image: np.ndarray, most: int, rng: np.random.Generator) -> None:
    """Grey bars a few pixels thick: marks that are no object of the scene."""
    height, width, _ = image.shape
    for _ in range(int(rng.integers(0, most + 1))):
        thickness, length, level = rng.integers((1, 4, 40), (4, 40, 90)).tolist()
        x, y = int(rng.integers(0, width - 3)), int(rng.integers(0, height - 3))
        if rng.random() < 0.5:
            thickness, length = length, thickness
        image[y : y + thickness, x : x + length] = level
