"""Frames of coordinates: one family of functions that moves boxes and points between all of them.

| frame | unit | who speaks it |
|---|---|---|
| `original` | pixels of the image as published | gold boxes, JSONL files, what is shown to people |
| `resized` | pixels of the image after a first reduction, where there was one | sets resized beforehand |
| `processed` | pixels of the smart-resized image, multiples of 28 | Qwen2.5-VL: the policy |
| `unit` | 0..1 of either side | VGR |
| `thousand` | 0..1000 of either side | Qwen3-VL |

Nothing is rounded or clipped, so there and back again is exact to the last digits of a double. Texts hold rounded
numbers: whole ones, which is half a pixel of the frame they are in, or four decimals for `unit`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgrpo_jax.records import Box, ImageSize

Point = tuple[float, float]
"""(x, y) in a frame that is named where it is used."""

FRAMES_OF_BOXES = ("original", "resized", "processed", "unit", "thousand")


def convert_box(box: Box, size: ImageSize, *, src: str, dst: str) -> Box:
    """Moves a box from one frame to another.

    Raises:
      ValueError: an unknown frame, or an image without pixels.
    """
    (from_w, from_h), (to_w, to_h) = _extents(size, src, dst)
    x1, y1, x2, y2 = box
    return x1 * to_w / from_w, y1 * to_h / from_h, x2 * to_w / from_w, y2 * to_h / from_h


def _extents(size: ImageSize, src: str, dst: str) -> tuple[tuple[float, float], tuple[float, float]]:
    found = extent(size, src), extent(size, dst)
    if not all(found[0]):
        raise ValueError(f"an image of {size.width}x{size.height} pixels has no boxes to move from frame {src!r}")
    return found


def extent(size: ImageSize, frame: str) -> tuple[float, float]:
    """(width, height) of the whole image in a frame; an unknown one is a ValueError."""
    extents = {
        "original": (size.width, size.height),
        "resized": (size.resized_width or size.width, size.resized_height or size.height),
        "processed": (size.processed_width, size.processed_height),
        "unit": (1.0, 1.0),
        "thousand": (1000.0, 1000.0),
    }
    if frame not in extents:
        raise ValueError(f"unknown frame of boxes {frame!r}; one of {', '.join(FRAMES_OF_BOXES)}")
    return extents[frame]


def move(numbers: Sequence[float], size: ImageSize, *, src: str, dst: str) -> list[str]:
    """Coordinates x, y, x, y, … in another frame, as texts write them: whole, but with four decimals for `unit`."""
    sources, targets = _extents(size, src, dst)
    digits = 4 if dst == "unit" else 0
    moved = (number * targets[i % 2] / sources[i % 2] for i, number in enumerate(numbers))
    return [f"{round(value, digits) + 0.0:.{digits}f}" for value in moved]


def area(box: Box) -> float:
    """Area in square pixels; 0 for a degenerate or inverted box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    """Area of the overlap of two boxes in square pixels."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 when either box is degenerate."""
    overlap = intersection(a, b)
    return overlap / (area(a) + area(b) - overlap) if overlap > 0 else 0.0
