"""Examples as published, before their images are decoded, and what becomes of rows that cannot be used.

    reader ─▶ Published | BadRow ─▶ gather(bad='error' | 'skip') ─▶ PublishedSource ─▶ Example

With 'error' the first bad row stops the reading; what only its pixels show stops it when they are asked for. With
'skip' every image is decoded once when the set is opened, so that the length of a source never changes; `prepare` pays
that price once for all.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from fgrpo_jax.data.images import decode_image, outline_image
from fgrpo_jax.data.sets.readers import texts
from fgrpo_jax.data.sets.readers.records import BadRow, Found, HeldImages, Images, Record
from fgrpo_jax.data.styles import LETTERS
from fgrpo_jax.records import Box, Example

POLICIES = ("error", "skip")
BOX_SLACK = 1.0  # pixels by which a published box may leave its image: annotators' rounding
UNIT_SLACK = 0.01  # the same for boxes in 0..1, which models wrote; they are cut to the image


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of an example without its pixels.

    Attributes:
      id: of the example.
      answer: letter, or text of an open question.
      options: how many there are, 0 for an open question.
    """

    id: str
    answer: str
    options: int


@dataclasses.dataclass(frozen=True)
class Published:
    """One example as published: all of it but its pixels.

    Attributes:
      example: without images; boxes in the frame `frame`.
      images: where they are.
      place: file and row, for errors.
      frame: frame of the boxes, 'original' pixels or 'unit' (0..1 of the first image).
    """

    example: Example
    images: Images
    place: str
    frame: str = "original"

    @property
    def entry(self) -> Entry:
        return Entry(self.example.id, self.example.answer, len(self.example.options))

    def encoded(self) -> HeldImages:
        """Its images in memory, as they are encoded.

        Raises:
          BadRow: one cannot be read.
        """
        out = []
        for name, data in self.images.load():
            try:
                out.append((name, data if isinstance(data, bytes) else data.read_bytes()))
            except OSError as error:
                raise BadRow(self.place, f"image {name} does not read ({error})", kind="missing image") from error
        return HeldImages(tuple(out))

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
        boxes = self.example.boxes
        if boxes:
            if not pixels:
                raise BadRow(
                    self.place, "'boxes' without 'images'; they are in pixels of the first image", kind="bad box"
                )
            height, width = pixels[0].shape[:2]
            boxes = tuple(_in_pixels(box, self, width=width, height=height) for box in boxes)
        return dataclasses.replace(self.example, images=tuple(pixels), boxes=boxes)


Layout = Callable[[pathlib.Path, str], Iterator[Published | BadRow]]
"""Reads one split of a set below a folder."""


def _in_pixels(box: Box, row: Published, *, width: int, height: int) -> Box:
    if row.frame == "unit":
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
        return x1 * width, y1 * height, x2 * width, y2 * height
    x1, y1, x2, y2 = box
    if min(x1, y1) < -BOX_SLACK or x2 > width + BOX_SLACK or y2 > height + BOX_SLACK:
        raise BadRow(
            row.place,
            f"'boxes' has {[x1, y1, x2, y2]}, outside the image of {width}x{height} pixels; give pixels of the first "
            "image as published",
            kind="bad box",
        )
    return box


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


def parsed(found: Found, parse: Callable[[Record], Iterable[Published]]) -> Iterator[Published | BadRow]:
    """What `parse` makes of each record; its `BadRow`s in their place."""
    for record in found:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield from parse(record)
        except BadRow as bad:
            yield bad


# -------------------------------------------------------------------------------------------------------------- gather
@dataclasses.dataclass(frozen=True)
class Skipped:
    """Rows that were left out, and why."""

    rows: tuple[BadRow, ...] = ()

    @property
    def count(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def kinds(self) -> dict[str, int]:
        """{kind of trouble: rows}, the commonest first."""
        kinds: collections.Counter[str] = collections.Counter()
        for row in self.rows:
            kinds[row.kind] += row.count
        return dict(kinds.most_common())

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{self.count} rows skipped ({kinds}); the first: {self.rows[0]}" if self.rows else "no rows skipped"


def gather(rows: Iterable[Published | BadRow], *, bad: str, what: str) -> tuple[list[Published], Skipped]:
    """All rows that can be used, by all but their pixels, and those left out.

    Args:
      bad: 'error' or 'skip'.
      what: name of the data in errors.

    Raises:
      BadRow: the first bad row, a repeated id among them, where `bad` is 'error'.
      ValueError: nothing is left, or `bad` is neither.
    """
    if bad not in POLICIES:
        raise ValueError(f"data.bad='{bad}'; use one of {', '.join(map(repr, POLICIES))}")
    kept: list[Published] = []
    skipped: list[BadRow] = []
    places: dict[str, str] = {}
    for row in rows:
        if isinstance(row, Published):
            name = row.example.id
            if name not in places:
                places[name] = row.place
                kept.append(row)
                continue
            row = BadRow(row.place, f"id {name!r} already stands in {places[name]}; make it unique", kind="repeated id")
        if bad == "error":
            raise row
        skipped.append(row)
    if not kept:
        raise ValueError(f"{what} holds no examples{f': {Skipped(tuple(skipped))}' if skipped else ''}")
    return kept, Skipped(tuple(skipped))


def sound(rows: Sequence[Published], *, what: str) -> tuple[list[Published], Skipped]:
    """Rows whose images decode and whose boxes lie inside, and those left out. Decodes every image."""
    kept: list[Published] = []
    skipped: list[BadRow] = []
    for row in tqdm(rows, desc=f"checking {what}", unit="row", leave=False):
        try:
            row.decode()
        except BadRow as bad:
            skipped.append(bad)
        else:
            kept.append(row)
    return kept, Skipped(tuple(skipped))


# -------------------------------------------------------------------------------------------------------------- source
class PublishedSource:
    """One split of a set in its published layout.

    Attributes:
      skipped: rows left out by `bad='skip'`.
    """

    def __init__(self, layout: Layout, path: str | pathlib.Path, split: str, *, bad: str = "error") -> None:
        what = f"{path}{f' ({split})' if split else ''}"
        rows, self.skipped = gather(layout(pathlib.Path(path), split), bad=bad, what=what)
        if bad == "skip":
            rows, broken = sound(rows, what=what)
            self.skipped = Skipped((*self.skipped.rows, *broken.rows))
            if not rows:
                raise ValueError(f"{what} holds no examples: {self.skipped}")
            if self.skipped.rows:
                warnings.warn(f"{what}: {self.skipped}", stacklevel=2)
        self.rows: Sequence[Published] = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self.rows):
            raise IndexError(f"example {index} of a source of {len(self.rows)}")
        return self.rows[index].decode()

    def outline(self, index: int) -> Example:
        """The example with images that have nothing but their size."""
        return self.rows[index].decode(outline_image)

    @property
    def entries(self) -> Sequence[Entry]:
        """What is known of each example without its pixels, in order."""
        return [row.entry for row in self.rows]


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
    found = texts.letter(answer, options) or texts.letter_of_text(answer, options)
    if found is None and not sure and texts.letter(answer, LETTERS) is None:
        return texts.plain(text), (), answer
    return question, options, letter_or_bad(found, record, answer=answer, options=options)


def letter_or_bad(found: str | None, record: Record, *, answer: str, options: Sequence[str]) -> str:
    """`found`, or the error that an answer fits none or several of the options."""
    if found is None:
        raise record.bad(
            f"answer {answer!r} is none, or fits several, of the options {list(options)}; give the letter "
            f"A..{LETTERS[len(options) - 1]} or the exact text of one",
            kind="answer not among the options",
        )
    return found
