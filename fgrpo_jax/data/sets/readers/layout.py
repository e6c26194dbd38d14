"""What the reader of a published layout makes: one example by all but its pixels, or the row that cannot be used.

Readers yield `Published | BadRow`. Boxes and answers are checked here, the same way for every set.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data import marks
from fgrpo_jax.data.images import decode_image
from fgrpo_jax.data.sets.readers import records, tables, texts
from fgrpo_jax.data.sets.readers.records import BadRow, Found, Images, Record
from fgrpo_jax.data.styles import LETTERS
from fgrpo_jax.records import Box, Example

BOX_SLACK = 1.0  # pixels by which a published box may leave its image: annotators round
UNIT_SLACK = 0.01  # the same for boxes in 0..1, which models wrote; they are cut to the image


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of an example without its pixels."""

    id: str
    answer: str  # letter, or text of an open question
    options: int  # how many there are, 0 for an open question
    content: str = ""  # digest of question, options, answer and boxes as published; '' where it was not noted


@dataclasses.dataclass(frozen=True)
class Published:
    """One example as published: all of it but its pixels."""

    example: Example  # without images; boxes in the frame `frame`
    images: Images  # where they are
    place: str  # file and row, for errors
    frame: str = "original"  # frame of the boxes, 'original' pixels or 'unit' (0..1 of the first image)

    @property
    def entry(self) -> Entry:
        example = self.example
        content = repr((example.question, example.options, example.answer, example.boxes, self.frame))
        digest = hashlib.blake2b(content.encode(errors="backslashreplace"), digest_size=8).hexdigest()
        return Entry(example.id, example.answer, len(example.options), digest)

    def encoded(self) -> tuple[tuple[str, bytes], ...]:
        """(name, bytes as they are encoded) of its images; `BadRow` where one cannot be read."""
        out = []
        for name, data in self.images.load():
            try:
                out.append((name, data if isinstance(data, bytes) else data.read_bytes()))
            except OSError as error:
                raise BadRow(self.place, f"image {name} does not read ({error})", kind="missing image") from error
        return tuple(out)

    def decode(self, read: Callable[..., np.ndarray] = decode_image) -> Example:
        """The example with its images, boxes in pixels of the first.

        Args:
          read: makes pixels of encoded bytes or a file: `decode_image`, or `outline_image` for their size alone.

        Raises:
          BadRow: an image is missing, broken or too large, or a box lies outside.
        """
        pixels = []
        for name, encoded in self.images.load():
            try:
                pixels.append(read(encoded, name=name))
            except ValueError as error:
                raise BadRow(self.place, str(error), kind="image that does not decode") from error
        example, boxes = self.example, self.example.boxes
        try:
            question = marks.settle(example.question, example.options, count=len(pixels))
        except ValueError as error:
            raise BadRow(self.place, str(error), kind="marks and images differ") from error
        if boxes:
            if not pixels:
                message = "'boxes' without 'images'; they are in pixels of the first image"
                raise BadRow(self.place, message, kind="bad box")
            height, width = pixels[0].shape[:2]
            boxes = tuple(self._in_pixels(box, width=width, height=height) for box in boxes)
        return dataclasses.replace(example, images=tuple(pixels), question=question, boxes=boxes)

    def _in_pixels(self, box: Box, *, width: int, height: int) -> Box:
        x1, y1, x2, y2 = box
        if self.frame == "unit":
            x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
            return x1 * width, y1 * height, x2 * width, y2 * height
        if min(x1, y1) < -BOX_SLACK or x2 > width + BOX_SLACK or y2 > height + BOX_SLACK:
            where = f"outside the image of {width}x{height} pixels; give pixels of the first image as published"
            raise BadRow(self.place, f"'boxes' has {[x1, y1, x2, y2]}, {where}", kind="bad box")
        return box


Rows = Iterator[Published | BadRow]
Layout = Callable[[pathlib.Path, str], Rows]
"""Reads one split of a set below a folder."""

Parse = Callable[[Record], Iterable[Published]]
"""The examples that a record holds; raises `BadRow` where it cannot be used."""


def made(record: Record, images: Images, *, frame: str = "original", **fields: Any) -> Published:
    """One example; `fields` are those of `Example`."""
    return Published(Example(images=(), **fields), images, record.place, frame)


def parsed(found: Found, parse: Parse) -> Rows:
    """What `parse` makes of each record; its `BadRow`s in their place."""
    for record in found:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield from parse(record)
        except BadRow as bad:
            yield bad


def parquet_rows(root: pathlib.Path, *patterns: str, what: str, parse: Parse) -> Rows:
    """The examples in Parquet files below a folder, see `records.find_files`."""
    files = records.find_files(root, *patterns, what=what)
    return parsed(tables.parquet(files, root if root.is_dir() else root.parent), parse)


# --------------------------------------------------------------------------------------------------- boxes and answers
def check_boxes(values: Iterable[object], record: Record, *, unit: bool = False) -> tuple[Box, ...]:
    """Boxes [x1, y1, x2, y2] with an area, as floats; of those in 0..1 also that they are.

    Raises:
      BadRow: one is none.
    """
    boxes: list[Box] = []
    for box in values:
        numbers = isinstance(box, list | tuple) and len(box) == 4 and all(type(v) in (int, float) for v in box)
        x1, y1, x2, y2 = map(float, box) if numbers else (math.nan,) * 4  # type: ignore[arg-type]
        if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 >= x2 or y1 >= y2:
            raise record.bad(f"'boxes' has {box}; four numbers with x1 < x2 and y1 < y2 are expected", kind="bad box")
        if unit and not (min(x1, y1) >= -UNIT_SLACK and max(x2, y2) <= 1 + UNIT_SLACK):
            raise record.bad(f"'boxes' has {box}; parts of the image's sides in 0..1 are expected", kind="bad box")
        boxes.append((x1, y1, x2, y2))
    return tuple(boxes)


def instance_boxes(values: Iterable[object], record: Record) -> tuple[Box, ...]:
    """The boxes of instances, which are {bbox, …} or the box itself; an instance may be null, or have none."""
    found = (value.get("bbox") if isinstance(value, Mapping) else value for value in values)
    return check_boxes([box for box in found if box is not None], record)


def asked(record: Record, text: str, *, answer: str, sure: bool = True) -> tuple[str, tuple[str, ...], str]:
    """(question, options, answer) of a text that may hold options; the answer's letter where it does.

    Args:
      answer: as published, a letter or a text.
      sure: every question of the set with labels has options. Else one whose answer is no letter, and none of what
        the labels begin, is an open question that happens to hold them.

    Raises:
      BadRow: the answer is none of the options.
    """
    question, options = texts.split_options(text)
    if not options:
        return question, (), answer
    known = texts.letter(answer, options) or texts.letter(answer, LETTERS)
    if not (sure or known or texts.letter_of_text(answer, texts.distinct(options))):
        return texts.plain(text), (), answer
    return question, *chosen(record, answer, options)


def chosen(record: Record, answer: str, options: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """(options, letter) of an answer that the set writes as a letter or as the text of an option.

    An option that stands there twice, as the right one of some sets does, has one place where texts count.

    Raises:
      BadRow: the answer is none of the options.
    """
    if (found := texts.letter(answer, options)) is None:
        options = texts.distinct(options)
        found = texts.letter_of_text(answer, options)
    return tuple(options), letter_or_bad(found, record, answer=answer, options=options)


def letter_or_bad(
    found: str | None,
    record: Record,
    *,
    answer: str,
    options: Sequence[str],
    problem: str = "is none, or fits several,",
) -> str:
    """`found`, or the error that an answer fits none or several of the options."""
    if found is None:
        raise record.bad(
            f"answer {answer!r} {problem} of the options {list(options)}; give the letter "
            f"A..{LETTERS[len(options) - 1]} or the exact text of one",
            kind="answer not among the options",
        )
    return found
