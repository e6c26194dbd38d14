"""Spatial facts about boxes: one definition each, shared by the built-in world that asks and the oracle that judges.

Boxes are (x1, y1, x2, y2) in pixels of one common frame, x to the right, y downwards. Every predicate is exact and
total (no grey zone); the world keeps its *questions* away from the borders by margins of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fgrpo_jax.reading.frames import area
from fgrpo_jax.records import Box

OPPOSITE = {
    "left": "right", "right": "left", "above": "below", "below": "above",
    "larger": "smaller", "smaller": "larger", "nearest": "farthest", "farthest": "nearest",
}  # fmt: skip
"""Each two-place relation with the one that holds when the places are swapped (nearest/farthest: its antonym)."""

INSIDE_SLACK = 1.0
"""Pixels by which an inner box may stick out: boxes rounded in another frame move by up to one pixel."""
BETWEEN_WIDTH = 0.25
"""An object is between two others when its centre is this near their line, as a share of their distance."""


def centre(box: Box) -> tuple[float, float]:
    """Centre (x, y) of a box in pixels."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def distance(a: Box, b: Box) -> float:
    """Distance of the centres in pixels."""
    (ax, ay), (bx, by) = centre(a), centre(b)
    return math.hypot(ax - bx, ay - by)


def offset(relation: str, a: Box, b: Box) -> float:
    """By how many pixels the centre of `a` is on the `relation` side of that of `b`; negative on the other side."""
    (ax, ay), (bx, by) = centre(a), centre(b)
    return {"left": bx - ax, "right": ax - bx, "above": by - ay, "below": ay - by}[relation]


def is_inside(inner: Box, outer: Box) -> bool:
    """Whether `inner` lies within `outer` (but for `INSIDE_SLACK`) and is smaller."""
    slack = INSIDE_SLACK
    within = inner[0] >= outer[0] - slack and inner[1] >= outer[1] - slack
    within = within and inner[2] <= outer[2] + slack and inner[3] <= outer[3] + slack
    return within and area(inner) < area(outer)


def along(middle: Box, a: Box, b: Box) -> tuple[float, float]:
    """Where the centre of `middle` falls on the line from a to b: (share of the way, distance from the line / |ab|)."""
    (ax, ay), (bx, by), (mx, my) = centre(a), centre(b), centre(middle)
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy
    if square == 0:
        return 0.0, math.inf
    share = ((mx - ax) * dx + (my - ay) * dy) / square
    return share, abs((mx - ax) * dy - (my - ay) * dx) / square


def is_between(middle: Box, a: Box, b: Box) -> bool:
    """Whether `middle` lies between a and b: past one, before the other, near their line."""
    share, away = along(middle, a, b)
    return 0 < share < 1 and away <= BETWEEN_WIDTH


def holds(relation: str, a: Box, b: Box) -> bool:
    """Whether left, right, above, below, larger, smaller or inside holds of two boxes."""
    if relation in ("left", "right", "above", "below"):
        return offset(relation, a, b) > 0
    if relation == "larger":
        return area(a) > area(b)
    if relation == "smaller":
        return area(a) < area(b)
    assert relation == "inside", f"unknown relation {relation!r}"
    return is_inside(a, b)


def extreme(relation: str, reference: Box, others: Sequence[Box]) -> int:
    """Index of the box of `others` that is 'nearest' to or 'farthest' from `reference` (first one on a tie)."""
    distances = [distance(reference, box) for box in others]
    return distances.index(min(distances) if relation == "nearest" else max(distances))
