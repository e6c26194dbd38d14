"""Scenes of the built-in world: difficulties, and the random layout of objects. They are drawn in `world.drawing`."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from fgrpo_jax.reading.frames import area, intersection
from fgrpo_jax.reading.words import COLORS, SHAPES
from fgrpo_jax.records import Box, Scene, SceneObject
from fgrpo_jax.world.relations import is_inside

CONTAINERS = ("circle", "square", "ring")


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What the scenes of one difficulty look like. Lengths in pixels."""

    name: str
    sides: tuple[int, int]  # shortest and longest image side
    cell: int  # pitch of the grid that objects sit in and sides are multiples of; 0: free positions and any side
    objects: tuple[int, int]  # fewest and most
    colors: int  # how many of COLORS occur
    shapes: int  # how many of SHAPES occur
    sizes: tuple[tuple[str, int, int], ...]  # (name, least side, greatest side) of each object size
    margin: float  # least difference in centres, or in distances, that a question may hang on
    families: tuple[tuple[str, float], ...]  # (family, weight) of the questions asked by default
    options: int = 3  # most options of a question about objects
    overlap: float = 0.0  # largest share of the smaller of two objects that may lie over the other
    containers: float = 0.0  # chance that a scene is laid out with an object inside another
    clutter: int = 0  # most grey bars, which are no objects
    noise: int = 0  # greatest absolute pixel noise
    # How reference traces answer: with the option's 'letter' or its 'text'. Both count as right; looking a letter up in
    # the list of options is what a small policy learns last.
    answers: str = "letter"


_FAMILIES = ("left_right", "above_below", "nearest", "farthest", "between", "inside", "larger", "counting", "compound")
_EVERY_FAMILY = tuple((name, 1.0) for name in _FAMILIES)

# fmt: off
_ALL = (
    Difficulty(
        "tiny", sides=(84, 112), cell=28, objects=(3, 5), colors=5, shapes=4, margin=20.0, answers="text",
        sizes=(("small", 14, 14), ("large", 28, 28)),
        # Nothing is inside anything when every object has a cell of its own. Comparing all distances takes a small
        # policy longest to learn, so those families are few.
        families=(("left_right", 3.0), ("above_below", 3.0), ("larger", 2.0), ("counting", 1.0), ("compound", 1.0),
                  ("nearest", 0.5), ("farthest", 0.5), ("between", 0.5)),
    ),
    Difficulty(
        "easy", sides=(168, 448), cell=0, objects=(4, 7), colors=7, shapes=5, margin=24.0, options=4,
        sizes=(("small", 20, 26), ("medium", 36, 46), ("large", 64, 82)),
        families=_EVERY_FAMILY, overlap=0.2, containers=0.3, clutter=4, noise=2,
    ),
    Difficulty(
        "hard", sides=(300, 1000), cell=0, objects=(6, 12), colors=8, shapes=6, margin=30.0, options=4,
        sizes=(("small", 20, 28), ("medium", 42, 60), ("large", 90, 130)),
        families=_EVERY_FAMILY, overlap=0.35, containers=0.4, clutter=14, noise=6,
    ),
)
# fmt: on
DIFFICULTIES = {one.name: one for one in _ALL}


def name_of(thing: SceneObject) -> str:
    """The words for an object, 'red circle'; unique within a scene."""
    return f"{thing.color} {thing.shape}"


def raster(objects: tuple[SceneObject, ...]) -> tuple[SceneObject, ...]:
    """The objects from top to bottom, then left to right, by the corners of their boxes."""
    return tuple(sorted(objects, key=lambda thing: (thing.box[1], thing.box[0])))


def make_scene(rng: np.random.Generator, difficulty: Difficulty) -> Scene:
    """A random scene: size, names, sizes and places. Every (colour, shape) occurs at most once."""
    low, high = difficulty.sides
    step = difficulty.cell if difficulty.cell else 1
    width, height = (int(side) * step for side in rng.integers(low // step, high // step + 1, size=2))
    count = int(rng.integers(difficulty.objects[0], difficulty.objects[1] + 1))
    kinds = rng.permutation(difficulty.colors * difficulty.shapes)[:count].tolist()
    names = [(COLORS[kind % difficulty.colors], SHAPES[kind // difficulty.colors]) for kind in kinds]
    sizes = rng.integers(0, len(difficulty.sizes), size=count).tolist()
    place = _place_in_cells if difficulty.cell else _place_freely
    return Scene(width=width, height=height, objects=place(rng, difficulty, (width, height), names, sizes))


Names = list[tuple[str, str]]
"""Colour and shape of each object."""


def _place_in_cells(
    rng: np.random.Generator, difficulty: Difficulty, extent: tuple[int, int], names: Names, sizes: list[int]
) -> tuple[SceneObject, ...]:
    """Each object in the middle of a cell of its own."""
    (width, height), cell = extent, difficulty.cell
    columns = width // cell
    cells = rng.permutation(columns * (height // cell))[: len(names)].tolist()
    objects = []
    for (color, shape), size, where in zip(names, sizes, cells, strict=True):
        label, side, _ = difficulty.sizes[size]
        x, y = where % columns * cell + (cell - side) // 2, where // columns * cell + (cell - side) // 2
        objects.append(SceneObject(color=color, shape=shape, size=label, box=(x, y, x + side, y + side)))
    return tuple(objects)


def _place_freely(
    rng: np.random.Generator, difficulty: Difficulty, extent: tuple[int, int], names: Names, sizes: list[int]
) -> tuple[SceneObject, ...]:
    """Random places with bounded overlap; objects that find no room in 20 tries are left out."""
    objects: list[SceneObject] = []
    if rng.random() < difficulty.containers:
        objects.extend(_contained_pair(rng, difficulty, extent, names))
    for (color, shape), size in itertools.islice(zip(names, sizes, strict=True), len(objects), None):
        label, least, most = difficulty.sizes[size]
        for _ in range(20):
            box = _random_box(rng, int(rng.integers(least, most + 1)), (0, 0, *extent))
            if all(_apart(box, other.box, difficulty.overlap) for other in objects):
                objects.append(SceneObject(color=color, shape=shape, size=label, box=box))
                break
    return tuple(objects)


def _contained_pair(
    rng: np.random.Generator, difficulty: Difficulty, extent: tuple[int, int], names: Names
) -> list[SceneObject]:
    """A large object and a small one well inside it, named by the first two names (none if the shape can't contain)."""
    (outer_color, outer_shape), (inner_color, inner_shape) = names[:2]
    if outer_shape not in CONTAINERS:
        return []
    (small, small_least, small_most), (large, large_least, large_most) = difficulty.sizes[0], difficulty.sizes[-1]
    outer = _random_box(rng, int(rng.integers(large_least, large_most + 1)), (0, 0, *extent))
    # A circle's inscribed square leaves 15% on every side.
    inset = int(np.ceil(0.15 * (outer[2] - outer[0])))
    room = (outer[0] + inset, outer[1] + inset, outer[2] - inset, outer[3] - inset)
    inner = _random_box(rng, int(rng.integers(small_least, small_most + 1)), room)
    return [
        SceneObject(color=outer_color, shape=outer_shape, size=large, box=outer),
        SceneObject(color=inner_color, shape=inner_shape, size=small, box=inner),
    ]


def _random_box(rng: np.random.Generator, side: int, room: Box) -> Box:
    left, top, right, bottom = (int(edge) for edge in room)
    x = int(rng.integers(left, right - side + 1))
    y = int(rng.integers(top, bottom - side + 1))
    return (x, y, x + side, y + side)


def _apart(a: Box, b: Box, overlap: float) -> bool:
    """Whether two boxes overlap little enough for both to be seen, and neither is inside the other by accident."""
    return intersection(a, b) <= overlap * min(area(a), area(b)) and not is_inside(a, b) and not is_inside(b, a)
