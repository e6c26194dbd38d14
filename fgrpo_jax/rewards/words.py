"""The words of the built-in world's grammar, and the words that make a sentence a visual claim."""

from __future__ import annotations

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
SIZES = ("small", "medium", "large")

PLURALS = {"cross": "crosses", **{shape: shape + "s" for shape in SHAPES if shape != "cross"}}
THING_WORDS = ("object", "thing", "shape", "item")

NUMBERS = {
    word: number
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}

_SPATIAL = (
    *("left", "right", "above", "below", "over", "under", "beneath", "underneath", "top", "bottom", "higher", "lower"),
    *("near", "nearer", "nearest", "close", "closer", "closest", "far", "farther", "farthest", "further", "furthest"),
    *("between", "inside", "within", "outside", "contains", "beside", "behind", "front", "next", "adjacent", "corner"),
    *("middle", "center", "centre", "row", "column", "touching", "overlaps", "overlapping", "position", "located"),
)
_LOOKS = (
    *("black", "grey", "gray", "brown", "pink", "rectangle", "star", "heart", "oval", "hexagon", "box", "boxes"),
    *("big", "bigger", "biggest", "larger", "largest", "smaller", "smallest", "tall", "tiny", "huge", "same"),
    *("image", "picture", "scene", "photo", "background", "see", "seen", "sees", "visible", "shows", "shown", "bbox"),
)
VISUAL_WORDS = frozenset((*COLORS, *SHAPES, *PLURALS.values(), *SIZES, *_SPATIAL, *_LOOKS))
"""A sentence that can't be read is INCORRECT if it holds one of these (or a <bbox> tag), else SKIP."""
