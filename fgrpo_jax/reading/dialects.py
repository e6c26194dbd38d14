"""Dialects: how the responses of different models carry reasoning, answer, boxes and points, and in which frame.

`DIALECTS` names one a family of checkpoints; the prompt presets of `data.styles` go by the same names. Reading boxes
and points is total and linear: what is no box is counted, never raised.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Literal

from fgrpo_jax.reading.frames import FRAMES_OF_BOXES, Point, convert_box, extent, move
from fgrpo_jax.records import Box, ImageSize

Form = Literal["tags", "direct", "cot"]
Notation = Literal["bbox", "box", "json", "sot"]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How the responses of a model are to be read.

    Form 'tags' is a think block, then an answer block; 'direct': all of it is the answer; 'cot': free text, from whose
    last sentence that names the answer on it is the answer, and what comes before is the reasoning.

    Raises:
      ValueError: a value that is none of those named.
    """

    name: str  # key of DIALECTS
    form: Form = "tags"
    prefilled: bool = False  # the prompt ends in '<think>', so a response starts inside the block
    notation: Notation = "bbox"  # how a box is written
    points: bool = False  # whether '(x, y)' in the reasoning is a point
    frame: str = "processed"  # of its boxes and points, a name of `reading.frames.FRAMES_OF_BOXES`
    boxes_in_answer: bool = False  # boxes of the answer count as well as those of the reasoning

    def __post_init__(self) -> None:
        choices = {"form": ("tags", "direct", "cot"), "notation": tuple(_BOXES), "frame": FRAMES_OF_BOXES}
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ValueError(f"dialect {self.name!r}: {field}={getattr(self, field)!r}; known: {', '.join(known)}")


# Every repeat is bounded, and none can hold the mark that opens the next box, so a scan is linear in the text.
_BOXES: dict[str, re.Pattern[str]] = {
    "bbox": re.compile(r"<bbox>([^<>]{0,200})</bbox>"),
    "box": re.compile(r"<box>([^<>]{0,200})</box>"),
    "json": re.compile(r"[\"']bbox(?:_2d)?[\"']\s{0,9}:\s{0,9}(?:\[\s{0,9}){1,3}([^\[\]:]{0,200})\]"),
    "sot": re.compile(r"<sot>([^<>]{0,200})<eot>"),
}
_COORDINATE = r"\s{0,9}([+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))\s{0,9}"
_POINT = re.compile(rf"\({_COORDINATE},{_COORDINATE}\)")
_NUMBER = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,4})?")
_QUOTED = re.compile(rf"([\"']?)({_NUMBER.pattern})\1")

PAPER = Dialect("paper")

_ALL = (
    PAPER,
    Dialect("direct", form="direct"),
    Dialect("cot", form="cot"),
    Dialect("vigorl", points=True),
    Dialect("treevgr", prefilled=True, notation="box"),
    # The boxes it answers with are pixels of what it saw; whoever scores them takes them to the original image.
    Dialect("vlm_r1", notation="json", boxes_in_answer=True),
    Dialect("vgr", notation="sot", frame="unit"),
)
DIALECTS = {dialect.name: dialect for dialect in _ALL}


def find_dialect(name: str) -> Dialect:
    """The dialect of this name, or a ValueError where there is none."""
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}; one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


# ----------------------------------------------------------------------------------------------------- boxes and points
def read_boxes(text: str, *, dialect: Dialect = PAPER) -> tuple[tuple[Box, ...], int]:
    """(boxes in the order written, number of marks that hold no box), in the dialect's own frame."""
    found = [read_box(match[1]) for match in _BOXES[dialect.notation].finditer(text)]
    return tuple(box for box in found if box is not None), found.count(None)


def read_box(text: str) -> Box | None:
    """'[28, 56, 56, 84]' as numbers; None unless they are exactly four and finite.

    Brackets may be absent or doubled, spaces may stand between, and each number may be quoted.
    """
    inner = text.strip()
    while inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1].strip()
    parts = [_QUOTED.fullmatch(part.strip()) for part in inner.split(",")]
    numbers = [float(part[2]) for part in parts if part is not None]
    if len(parts) != 4 or len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def read_points(text: str, *, dialect: Dialect) -> tuple[Point, ...]:
    """Points '(x, y)' in the order written, for the dialects that have any."""
    if not dialect.points:
        return ()
    return tuple((float(match[1]), float(match[2])) for match in _POINT.finditer(text))


def spans(text: str, *, dialect: Dialect) -> list[tuple[int, int]]:
    """Where boxes and points stand, from left to right: no sentence ends inside one."""
    found = [match.span() for match in _BOXES[dialect.notation].finditer(text)]
    if dialect.points:
        found = sorted([*found, *(match.span() for match in _POINT.finditer(text))])
    return found


def points_at(text: str, *, dialect: Dialect) -> bool:
    """Whether a sentence holds a box or a point, or what is meant to be one."""
    opening = {"bbox": "<bbox>", "box": "<box>", "json": "bbox", "sot": "<sot>"}[dialect.notation]
    return opening in text or (dialect.points and _POINT.search(text) is not None)


# ------------------------------------------------------------------------------------------------------ between frames
def boxes_in(boxes: tuple[Box, ...], size: ImageSize, *, dialect: Dialect, dst: str = "processed") -> tuple[Box, ...]:
    """Boxes that were read, in another frame: by default the one the policy speaks, in which R_G is measured."""
    if dialect.frame == dst:
        return boxes
    return tuple(convert_box(box, size, src=dialect.frame, dst=dst) for box in boxes)


def text_in(text: str, size: ImageSize, *, dialect: Dialect, dst: str, src: str = "") -> str:
    """A text with its boxes and points in another frame and nothing else changed: other lists and pairs stay.

    What counts as a box or a point is what `read_boxes` and `read_points` read. Whole numbers come out, but for the
    frame `unit`, which has four decimals.

    Args:
      src: the frame they are in; '' is that of the dialect.
    """
    src = src or dialect.frame
    if extent(size, src) == extent(size, dst):
        return text

    def moved(match: re.Match[str]) -> str:
        found = list(_NUMBER.finditer(match[0], match.start(1) - match.start()))
        if match.re is not _POINT and read_box(match[1]) is None:
            return match[0]
        out, at = "", 0
        for number, value in zip(found, move([float(n[0]) for n in found], size, src=src, dst=dst), strict=True):
            out, at = out + match[0][at : number.start()] + value, number.end()
        return out + match[0][at:]

    text = _BOXES[dialect.notation].sub(moved, text)
    return _POINT.sub(moved, text) if dialect.points else text


@functools.lru_cache(maxsize=1 << 12)
def in_paper_notation(sentence: str, dialect: Dialect) -> str:
    """A sentence with its boxes as <bbox>[x1,y1,x2,y2]</bbox>, the numbers as they are: what rules can read."""
    if dialect.notation == PAPER.notation:
        return sentence
    return _BOXES[dialect.notation].sub(lambda match: f"<bbox>{match.group(1)}</bbox>", sentence)
