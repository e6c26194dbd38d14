"""Sources of examples: the built-in world, NLVR in its published layout, and the JSONL format users bring.

A source knows its length and gives any example by index, so that Grain can shuffle and shard it. Files are read and
checked when a source is made; images are decoded when their example is asked for, in the workers.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fgrpo_jax.data.images import decode_image, outline_image
from fgrpo_jax.data.styles import LETTERS
from fgrpo_jax.data.world import World
from fgrpo_jax.data.world_traces import FlawMix
from fgrpo_jax.records import Box, Example


class Source(Protocol):
    """Examples by index. The same index gives the same example in every process."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class Outlined(Protocol):
    """A source that can also tell what an example is like without decoding its images.

    An outline is the example with images that have nothing but their size (`images.outline_image`, `images.blank`).
    Counting tokens and looking up ids needs no more.
    """

    def outline(self, index: int, /) -> Example: ...


def outline(source: Source, index: int) -> Example:
    """The outline of an example, where the source gives one, else the example itself."""
    return source.outline(index) if isinstance(source, Outlined) else source[index]


# -------------------------------------------------------------------------------------------------------------- world
class First:
    """The first `size` examples of another source.

    Raises:
      ValueError: the source has fewer.
    """

    def __init__(self, source: Source, size: int) -> None:
        if size > len(source):
            raise ValueError(f"{size} examples were asked of a source that holds {len(source)}; ask for fewer")
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._source[_inside(index, self._size)]

    def outline(self, index: int) -> Example:
        return outline(self._source, _inside(index, self._size))


class WorldSource:
    """The first `size` examples of one split of the built-in world.

    Args:
      families: weight of each question family; None takes the difficulty's own mix.
      flawed: share of traces that are flawed on purpose.
      flaws: weight of each kind of flaw, by the field names of `FlawMix`; None takes its defaults.
      yes_no: share of yes/no questions, the others being multiple choice.
      seed: of the world.
      with_trace: whether examples carry reference responses.
    """

    def __init__(
        self,
        *,
        split: str,
        difficulty: str = "tiny",
        families: Mapping[str, float] | None = None,
        flawed: float = 0.28,
        flaws: Mapping[str, float] | None = None,
        yes_no: float = 0.5,
        seed: int = 0,
        with_trace: bool = False,
        size: int = 1_000_000,
    ) -> None:
        mix = FlawMix(**flaws) if flaws else FlawMix()
        self._world = World(difficulty, families=families, flawed=flawed, flaws=mix, yes_no=yes_no, split_seed=seed)
        self._split, self._with_trace, self._size = split, with_trace, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        return self._world.example(_inside(index, self._size), split=self._split, with_trace=self._with_trace)

    def outline(self, index: int) -> Example:
        at = _inside(index, self._size)
        return self._world.example(at, split=self._split, with_trace=self._with_trace, drawn=False)


def _inside(index: int, size: int) -> int:
    if not 0 <= index < size:
        raise IndexError(f"example {index} of a source of {size}")
    return int(index)


# --------------------------------------------------------------------------------------------------------- JSON lines
@dataclasses.dataclass(frozen=True)
class _Record:
    """One parsed line, and where it stands, for errors."""

    path: pathlib.Path
    line: int
    fields: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.line}"

    def need(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        """A required field of the given type."""
        if key not in self.fields:
            raise ValueError(f"{self.place}: no {key!r}; add {what} or remove the line")
        return self.take(key, kind, what)

    def take(self, key: str, kind: type | tuple[type, ...], what: str, *, default: Any = None) -> Any:
        """An optional field of the given type; null counts as absent."""
        value = self.fields.get(key)
        if value is None:
            if key in self.fields and default is None:
                raise ValueError(f"{self.place}: {key!r} is null; give {what} or remove the line")
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{self.place}: {key!r} must be {what}, got {json.dumps(value)[:80]}")
        return value


def _read_lines(path: pathlib.Path) -> Iterator[_Record]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; check data.path and the split's name")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}); one object a line is expected") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, line {number}: a JSON object is expected, got {line[:60]}")
        yield _Record(path, number, fields)


def _refuse_duplicates(records: Sequence[_Record], key: str) -> None:
    seen: dict[str, int] = {}
    for record in records:
        name = record.fields[key]
        if name in seen:
            raise ValueError(f"{record.place}: {key} {name!r} already stands in line {seen[name]}; make it unique")
        seen[name] = record.line


# --------------------------------------------------------------------------------------------------------------- NLVR
NLVR_BOX_PITCH = 150  # pixels between the left edges of the three grey boxes of an image, each 100 wide


class NlvrSource:
    """One split of Cornell NLVR v1.0 in its published layout (Suhr, Lewis, Yeh, Artzi, ACL 2017).

    `PATH/SPLIT/SPLIT.json` holds a JSON object a line, `PATH/SPLIT/images/DIRECTORY/SPLIT-IDENTIFIER-0.png` the image
    whose boxes stand in the order of the line's `structured_rep`. The images of lines without `directory` are found by
    their name. Gold boxes are those of all drawn items; none are given where nothing is drawn. Which of the options
    `true` and `false` comes first depends on the identifier.
    """

    def __init__(self, path: str | pathlib.Path, split: str) -> None:
        folder = pathlib.Path(path) / split
        self._split = split
        self._records = list(_read_lines(folder / f"{split}.json"))
        for record in self._records:
            record.need("identifier", str, "the sentence's identifier")
            record.need("sentence", str, "the sentence")
            record.need("structured_rep", list, "the drawn items of the three boxes")
            if record.need("label", str, "'true' or 'false'").lower() not in ("true", "false"):
                raise ValueError(
                    f"{record.place}: label {record.fields['label']!r} is neither 'true' nor 'false'; correct it"
                )
        _refuse_duplicates(self._records, "identifier")
        found = {file.name: file for file in sorted((folder / "images").glob("*/*.png"))}
        self._images = [self._find_image(record, folder, found) for record in self._records]

    def _find_image(self, record: _Record, folder: pathlib.Path, found: Mapping[str, pathlib.Path]) -> pathlib.Path:
        name, directory = f"{self._split}-{record.fields['identifier']}-0.png", record.fields.get("directory")
        file = found.get(name) if directory is None else folder / "images" / str(directory) / name
        if file is None or not file.is_file():
            where = "any of images/*" if directory is None else f"images/{directory}"
            raise ValueError(f"{record.place}: image {name} is not in {where} of {folder}; fetch it or remove the line")
        return file

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, decode_image)

    def outline(self, index: int) -> Example:
        return self._example(index, outline_image)

    def _example(self, index: int, read: Callable[[pathlib.Path], np.ndarray]) -> Example:
        record, file = self._records[_inside(index, len(self))], self._images[index]
        name, sentence = record.fields["identifier"], record.fields["sentence"]
        options = ("true", "false") if zlib.crc32(name.encode()) % 2 else ("false", "true")
        return Example(
            id=f"{self._split}-{name}",
            images=(read(file),),
            question=f'Is this statement about the image true or false? "{sentence}"',
            options=options,
            answer=LETTERS[options.index(record.fields["label"].lower())],
            boxes=_nlvr_boxes(record),
            source="nlvr",
        )


def _nlvr_boxes(record: _Record) -> tuple[Box, ...]:
    boxes = []
    for place, items in enumerate(record.fields["structured_rep"]):
        for item in items:
            try:
                left, top, side = NLVR_BOX_PITCH * place + item["x_loc"], item["y_loc"], item["size"]
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{record.place}: structured_rep holds {item}, without x_loc, y_loc or size"
                ) from error
            boxes.append((float(left), float(top), float(left + side), float(top + side)))
    return tuple(boxes)


# -------------------------------------------------------------------------------------------------------------- JSONL
JSONL_FIELDS = ("id", "images", "question", "options", "answer", "boxes", "source", "trace")


class JsonlSource:
    """Our own format: one JSON object a line.

    id: text, unique in the file.
    images: paths, relative to the file.
    question: text.
    options: texts; absent or [] for an open question.
    answer: text; with options, the letter or the exact text of the right one.
    boxes: [[x1, y1, x2, y2], ...] in pixels of the first image as published; absent where there are none.
    source: name of the data; the file's by default.
    trace: reference response, for supervised training.

    Raises:
      ValueError: anything wrong, naming file, line and key.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self._path = pathlib.Path(path)
        self._records = list(_read_lines(self._path))
        if not self._records:
            raise ValueError(f"{self._path} holds no examples; write one JSON object a line")
        for record in self._records:
            _check_keys(record)
        _refuse_duplicates(self._records, "id")
        self._examples = [self._parse(record) for record in self._records]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, decode_image)

    def outline(self, index: int) -> Example:
        return self._example(index, outline_image)

    def _example(self, index: int, read: Callable[[pathlib.Path], np.ndarray]) -> Example:
        example, record = self._examples[_inside(index, len(self))], self._records[index]
        try:
            images = tuple(read(self._path.parent / name) for name in record.fields.get("images") or ())
        except ValueError as error:
            raise ValueError(f"{record.place}: {error}") from error
        for x1, y1, x2, y2 in example.boxes or ():
            height, width = images[0].shape[:2]
            if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
                raise ValueError(
                    f"{record.place}: 'boxes' has {[x1, y1, x2, y2]}, outside the image of {width}x{height} pixels; "
                    "give pixels of the first image as published"
                )
        return dataclasses.replace(example, images=images)

    def _parse(self, record: _Record) -> Example:
        """Everything but the images."""
        files = record.take("images", list, "a list of paths", default=[])
        for file in files:
            if not isinstance(file, str) or not (self._path.parent / file).is_file():
                raise ValueError(
                    f"{record.place}: 'images' names {file!r}, which is not in {self._path.parent}; correct it"
                )
        options = tuple(record.take("options", list, "a list of texts", default=[]))
        if any(not isinstance(option, str) for option in options) or len(options) > len(LETTERS):
            raise ValueError(f"{record.place}: 'options' must be at most {len(LETTERS)} texts, got {list(options)}")
        boxes = _parse_boxes(record)
        if boxes and not files:
            raise ValueError(f"{record.place}: 'boxes' without 'images'; they are in pixels of the first image")
        return Example(
            id=record.fields["id"],
            images=(),
            question=record.need("question", str, "the question"),
            options=options,
            answer=_parse_answer(record, options),
            boxes=boxes,
            source=record.take("source", str, "the name of the data", default=self._path.stem),
            trace=record.fields.get("trace") and record.take("trace", str, "a reference response"),
        )


def _check_keys(record: _Record) -> None:
    for key in record.fields:
        if key not in JSONL_FIELDS:
            near = difflib.get_close_matches(key, JSONL_FIELDS, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"the fields are {', '.join(JSONL_FIELDS)}"
            raise ValueError(f"{record.place}: unknown key {key!r}; {hint}")
    record.need("id", str, "a text that is unique in the file")


def _parse_answer(record: _Record, options: tuple[str, ...]) -> str:
    answer = record.need("answer", str, "the right answer").strip()
    if not answer:
        raise ValueError(f"{record.place}: 'answer' is empty; add the right answer or remove the line")
    if not options:
        return answer
    by_text = [letter for letter, option in zip(LETTERS, options, strict=False) if option.strip() == answer]
    by_letter = [letter for letter in LETTERS[: len(options)] if letter == answer]
    found = set(by_text + by_letter)
    if len(found) != 1:
        problem = "fits several" if found else "is none"
        raise ValueError(
            f"{record.place}: answer {answer!r} {problem} of the options {list(options)}; give the letter "
            f"A..{LETTERS[len(options) - 1]} or the exact text of one"
        )
    return found.pop()


def _parse_boxes(record: _Record) -> tuple[Box, ...] | None:
    if record.fields.get("boxes") is None:
        return None
    boxes = []
    for box in record.take("boxes", list, "a list of [x1, y1, x2, y2]"):
        numbers = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
        if not numbers or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(f"{record.place}: 'boxes' has {box}; four numbers with x1 < x2 and y1 < y2 are expected")
        boxes.append(tuple(map(float, box)))
    return tuple(boxes)
