"""What users bring, by one reader: JSON lines, a JSON list, Parquet or Arrow, whatever project they were written for.

A field is looked for under the names in `_NAMES`, or the one that `data.columns` gives; a dot goes into a struct. The
question is a text, or the turns of a conversation, of which the first exchange is read. docs/data.md shows the formats.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import difflib
import functools
import json
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fgrpo_jax.data import marks
from fgrpo_jax.data.sets.readers import records, tables, texts
from fgrpo_jax.data.sets.readers.layout import Published, Rows, check_boxes, letter_or_bad, made, parsed
from fgrpo_jax.data.sets.readers.records import BadRow, HeldImages, Images, Record
from fgrpo_jax.data.styles import LETTERS
from fgrpo_jax.reading.answers import choose

_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "images": ("images", "image", "image_paths", "image_path", "file_name", "file_names"),
    "question": ("question", "problem", "prompt", "messages", "conversations", "instruction"),
    "input": (),  # goes on after the question
    "options": ("options", "choices"),
    "answer": ("answer", "solution", "ground_truth", "reward_model.ground_truth", "completion", "output"),
    "boxes": ("boxes",),
    "source": ("source", "data_source"),
    "trace": ("trace",),
    "licence": ("licence", "license"),
    "tags": ("tags",),
}
_ENDINGS = (".jsonl", ".json", ".parquet", ".arrow")
_INFO = "dataset_info.json"
_ABOUT = (_INFO, "dataset_dict.json", "dataset_infos.json", "state.json")  # no data, but about it
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*)</answer>", re.DOTALL)
_WRONG = "field of a wrong type"


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a user's files are to be read."""

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {field: its column}, '' for none
    images: str = ""  # folder that image paths are below; '' is that of the file, and the one that was opened
    turns: Mapping[str, str] = dataclasses.field(default_factory=dict)  # LLaMA-Factory's names: {'role_tag': 'from', …}
    traces: bool = False  # whether a row without a reference response, of any set, is a bad row

    def __post_init__(self) -> None:
        for field in self.columns:
            if field not in _NAMES:
                raise ValueError(f"data.columns.{field} is no field; the fields are {', '.join(_NAMES)}")


@dataclasses.dataclass(frozen=True)
class _File:
    """One file on its way."""

    reading: Reading
    roots: Sequence[pathlib.Path]  # folders that its image paths may be below
    prefix: str  # of ids, where they are of one file among several
    unread: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # {what: rows}


def read_files(root: pathlib.Path, split: str, reading: Reading | None = None) -> Rows:
    """One split of a user's data: a file, or those of a folder that are named after the split.

    id: a text or number, unique in the file; absent, it is made of the file's name and the row's number.
    images: a path, a list of paths, or bytes and {bytes, path} in Parquet and Arrow; null and [] are none.
    question: a text, or turns of a conversation, whose first exchange may hold the answer too.
    options: texts or numbers; absent, they are looked for inside the question.
    answer: a text or a number. With options it is the letter, the exact text, or the place (from 0) of the right one.
    boxes: [[x1, y1, x2, y2], ...] in pixels of the first image as published; absent where there are none.
    source: name of the data; the file's by default.
    trace: reference response, for supervised training; by default what the assistant says.
    licence: of the example's data.
    tags: {name: text} to group figures by.
    """
    files, reading = _files(root, split, reading or Reading())
    top = root if root.is_dir() else root.parent
    for path in files:
        roots = (
            [pathlib.Path(reading.images).absolute()] if reading.images else [path.parent.absolute(), top.absolute()]
        )
        several = len(files) > 1 and path.suffix in (".json", ".jsonl")
        file = _File(reading, roots, f"{path.stem}-" if several else "")
        table = path.suffix in (".parquet", ".arrow")
        found = tables.parquet([path], roots[-1]) if table else records.json_file(path)
        yield from parsed(found, functools.partial(_example, file=file))
        if file.unread:
            shown = ", ".join(f"{what} ({count} rows)" for what, count in file.unread.items())
            warnings.warn(f"{path}: not read: {shown}; data.columns.FIELD=COLUMN says what is", stacklevel=2)


def _files(root: pathlib.Path, split: str, reading: Reading) -> tuple[list[pathlib.Path], Reading]:
    """The files of a split, and how to read them where LLaMA-Factory's index says so."""
    if root.is_file():
        return [root], reading
    if not root.is_dir():
        raise ValueError(f"{root} does not exist; give a folder, a file or a hub id OWNER/NAME[@REVISION] in data.path")
    index = json.loads((root / _INFO).read_text(encoding="utf-8")) if (root / _INFO).is_file() else {}
    if isinstance(about := index.get(split), dict) and about.get("file_name"):
        fields = {"prompt": "question", "query": "input", "response": "answer", "messages": "question"}
        fields |= {"images": "images"}
        named = {fields[key]: name for key, name in about.get("columns", {}).items() if key in fields and name}
        told = dataclasses.replace(reading, columns={**named, **reading.columns}, turns=about.get("tags", {}))
        return [root / about["file_name"]], told
    bases = (split, f"{split}-*", f"data/{split}-*", f"data/{split}", f"{split}/*", f"data/{split}/*", f"*[-_.]{split}")
    for base in bases if split else ():
        found = [file for ending in _ENDINGS for file in root.glob(base + ending) if file.name not in _ABOUT]
        if found:
            return sorted(found), reading
    there = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    wanted = f"{split}.jsonl, {split}.json, {split}.parquet, {split}-*.parquet, data/{split}-*, {split}/*"
    raise ValueError(f"{root} holds no {wanted}, and no {_INFO} that names {split!r}; there is: {there}")


# ------------------------------------------------------------------------------------------------------------ a record
@dataclasses.dataclass(frozen=True)
class _Field:
    """What a record has for a field."""

    record: Record
    column: str  # the one it was found in, or the first it was looked for in
    value: Any = None  # None where it is absent or null

    def of(self, kind: type | tuple[type, ...], what: str) -> Any:
        """Its value, of this type, or None."""
        if self.value is not None and not isinstance(self.value, kind):
            shown = json.dumps(self.value, default=repr)[:80]
            raise self.record.bad(f"{self.column!r} must be {what}, got {shown}", kind=_WRONG)
        return self.value

    def lacks(self, what: str, field: str) -> BadRow:
        state = f"{self.column!r} is null" if self.column in self.record.fields else f"no {self.column!r}"
        state = f"{self.column!r} is empty" if self.value is not None else state
        why = f"{state}; add {what} or remove the {self.record.unit}, or name its column in data.columns.{field}"
        return self.record.bad(why, kind="missing field")


def _field(record: Record, file: _File, field: str) -> _Field:
    """The first column of a field's names that has a value."""
    asked = file.reading.columns.get(field)
    names = tuple(filter(None, _NAMES[field] if asked is None else (asked,)))
    if field == "input" and asked is None and "instruction" in record.fields:
        names = ("input",)
    for name in names:
        value: Any = record.fields
        for key in (name,) if name in record.fields else name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None or name in (record.cells or {}):
            return _Field(record, name, value)
    if asked and asked.partition(".")[0] not in record.fields:
        raise record.bad(f"no column {asked!r}, which data.columns.{field} names; correct it", kind="missing field")
    there = next((name for name in names if name in record.fields), None)
    return _Field(record, there or (names or (field,))[0])


def _example(record: Record, *, file: _File) -> Sequence[Published]:
    found = {field: _field(record, file, field) for field in _NAMES}
    _note_unread(record, file, found)
    paths: list[str] = []  # of images that turns name
    question, said = _question(record, file, found, paths)
    answer, said = _answer(found["answer"], said)
    question, options, answer = _settled(record, question, found["options"], answer)
    images = _images(record, file, found["images"], paths)
    (question, *options), images = numbered(record, [question, *options], images)
    values = found["boxes"].of(list, "a list of [x1, y1, x2, y2]")
    boxes = None if values is None else check_boxes(values, record)
    if boxes and isinstance(images, HeldImages) and not images.images:
        raise record.bad("'boxes' without 'images'; they are in pixels of the first image", kind="bad box")
    about = {
        "source": found["source"].of(str, "the name of the data") or record.path.stem,
        "licence": found["licence"].of(str, "the licence of the data") or "",
        "trace": found["trace"].of(str, "a reference response") or said,
        "tags": _tags(record, found["tags"].value or {}),
    }
    name = f"{record.path.stem}-{record.number}"
    if found["id"].value is not None:
        name = f"{file.prefix}{_scalar(found['id'], 'a text or number that is unique in the file')}"
    return [
        made(record, images, id=name, question=question, options=tuple(options), answer=answer, boxes=boxes, **about)
    ]


def _note_unread(record: Record, file: _File, found: Mapping[str, _Field]) -> None:
    """Counts columns that no field reads; one that is nearly called like a field which the row lacks is a mistake."""
    columns = {*record.fields, *(record.cells or {})}
    used = {part for field in found.values() for part in (field.column, field.column.partition(".")[0])}
    lacking = [
        name for name, field in found.items() if field.value is None and field.column not in (record.cells or {})
    ]
    for key in sorted(columns - used):
        value = record.fields.get(key, "an image column")
        if value is None or value in ("", [], {}):
            continue
        near = difflib.get_close_matches(key, [] if file.reading.columns else lacking, n=1, cutoff=0.75)
        if near:
            why = f"unknown key {key!r}; did you mean {near[0]!r}? If not, say data.columns.{near[0]}=''"
            raise record.bad(why, kind="unknown field")
        if key.rstrip("s") in ("video", "audio"):
            raise record.bad(f"{key!r} has {value!r:.40}; of files only images are read", kind="video or audio")
        file.unread[f"column {key!r}"] += 1


def _scalar(field: _Field, what: str, *, value: Any = None) -> str | int:
    """A text, a whole number, or another number as a text."""
    value = field.value if value is None else value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as a column of whole numbers with gaps comes
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise field.record.bad(
            f"{field.column!r} must be {what}, got {json.dumps(value, default=repr)[:80]}", kind=_WRONG
        )
    return repr(value) if isinstance(value, float) else value


def _tags(record: Record, tags: Any) -> dict[str, str]:
    with contextlib.suppress(json.JSONDecodeError):
        tags = json.loads(tags) if isinstance(tags, str) else tags
    tags = dict(tags) if isinstance(tags, list) else tags  # Arrow gives a map as a list of pairs
    if not isinstance(tags, Mapping) or any(not isinstance(value, str | None) for value in tags.values()):
        raise record.bad(f"'tags' must map names to texts, or be JSON that does, got {tags!r:.100}", kind=_WRONG)
    return {str(key): value for key, value in tags.items() if value is not None}


# ------------------------------------------------------------------------------------------------- question and answer
def _question(
    record: Record, file: _File, found: Mapping[str, _Field], paths: list[str]
) -> tuple[str, str | int | None]:
    """(question, what the assistant says) of a text, or of the first exchange of a conversation."""
    field = found["question"]
    value = field.of((str, list), "a text, or the turns of a conversation")
    if value is None:
        raise field.lacks("the question", "question")
    text, said = (value, None) if isinstance(value, str) else _exchange(file, field, paths)
    more = found["input"].of(str, "a text that goes on after the question")
    text = f"{text}\n{more}" if more else text
    if not text.strip():
        raise field.lacks("the question", "question")
    return text, said


def _exchange(file: _File, field: _Field, paths: list[str]) -> tuple[str, str | int | None]:
    told = file.reading.turns
    roles = {"human": "user", "gpt": "assistant", told.get("user_tag"): "user", told.get("assistant_tag"): "assistant"}
    said: dict[str, Any] = {}
    for turn in field.value:
        given = turn if isinstance(turn, Mapping) else {}
        role = next((given[key] for key in (told.get("role_tag"), "role", "from") if key in given), None)
        content = next((given[key] for key in (told.get("content_tag"), "content", "value") if key in given), None)
        if role is None or content is None:
            shown = json.dumps(turn, default=repr)[:80]
            raise field.record.bad(f"{field.column!r} has {shown}; a turn has a role and a content", kind=_WRONG)
        role = roles.get(role, role)
        if role in said or role not in ("user", "assistant") or (role == "assistant" and "user" not in said):
            file.unread["system turn" if role == "system" else "turns after the first exchange"] += 1
        else:
            said[role] = _content(field, content, paths)
    if not isinstance(said.get("user"), str):
        raise field.record.bad(f"{field.column!r} has no text of a user", kind="missing field")
    return said["user"], said.get("assistant")


def _content(field: _Field, content: Any, paths: list[str]) -> str | int:
    """The text of a turn, images in it as marks; `paths` takes those that it names."""
    if not isinstance(content, list):
        return _scalar(field, "turns of texts", value=content)
    out = ""
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "image"):
            raise field.record.bad(f"{field.column!r} has a part {part!r:.60}; texts and images are read", kind=_WRONG)
        named = next((part[key] for key in ("image", "path", "url") if isinstance(part.get(key), str)), None)
        paths.extend([named] if kind == "image" and named else [])
        out += marks.MARK if kind == "image" else str(part.get("text") or "")
    return out


def _answer(field: _Field, said: str | int | None) -> tuple[str | int, str | None]:
    """(answer, reference response) of the answer's column or else what the assistant says: what stands in tags."""
    answer = said if field.value is None else _scalar(field, "the right answer")
    trace = None if said is None else str(said)
    if isinstance(answer, str):
        tagged = _ANSWER.findall(answer)
        trace = answer if trace is None and tagged and "<think>" in answer else trace
        answer = (tagged[-1] if tagged else answer).strip()
    if answer is None or answer == "":
        raise field.lacks("the right answer", "answer")
    return answer, trace


def _settled(record: Record, question: str, field: _Field, answer: str | int) -> tuple[str, Sequence[str], str]:
    """(question, options, answer) with options of their column, or out of the question where the answer is of them."""
    given = field.of((list, Mapping), "a list of texts")
    if given is not None:
        values = list(given.values()) if isinstance(given, Mapping) else given  # {'A': …, 'B': …}
        options = tuple(str(_scalar(field, "a list of texts", value=v)) for v in values if v is not None)
        if len(options) > len(LETTERS):
            raise record.bad(f"{field.column!r} has {len(options)}; at most {len(LETTERS)} are asked", kind=_WRONG)
        asked = question
    else:
        asked, options = texts.split_options(marks.protected(question))
        asked, options = marks.restored(asked), tuple(map(marks.restored, options))
    if not options:
        return question, (), str(answer)
    letter = _letter(record, options, answer)
    if letter is None and given is None and (read := choose(str(answer), options)) is not None:
        letter = LETTERS[read]  # a sentence, as assistants answer
    if letter is None and given is None and texts.letter(str(answer), LETTERS) is None:
        return question, (), str(answer)  # an open question that happens to hold labels
    return asked, options, letter_or_bad(letter, record, answer=str(answer), options=options, problem="is none")


def _letter(record: Record, options: Sequence[str], answer: str | int) -> str | None:
    """'A'.. of an answer: a letter or an option's text, exactly before loosely; a number may be a place from 0."""
    lettered = list(zip(LETTERS, options, strict=False))
    found = {letter for letter, option in lettered if str(answer) in (letter, option.strip())}
    found |= (
        {letter for letter, _ in lettered[answer : answer + 1]} if isinstance(answer, int) and answer >= 0 else set()
    )
    if len(found) > 1:
        return letter_or_bad(None, record, answer=str(answer), options=options, problem="fits several")
    return next(iter(found), None) or texts.letter(str(answer), options) or texts.letter_of_text(str(answer), options)


# --------------------------------------------------------------------------------------------------------------- images
def _images(record: Record, file: _File, field: _Field, paths: list[str]) -> Images:
    if field.column in (record.cells or {}):
        return dataclasses.replace(record.images(field.column), optional=True)  # type: ignore[type-var]
    names = field.of((str, list, Mapping), "a path, or a list of paths")
    names = (paths if names is None else names) if isinstance(names, list | None) else [names]
    return HeldImages.of(_path(record, file, field.column, name) for name in names)


def _path(record: Record, file: _File, column: str, given: Any) -> pathlib.Path:
    """The file of an image path, relative to a root or absolute below it."""
    name = given.get("path") or given.get("image") if isinstance(given, Mapping) else given
    if not isinstance(name, str) or not name:
        raise record.bad(f"{column!r} names {given!r:.60}; a path is expected", kind=_WRONG)
    name = name.removeprefix("file://")
    if "://" in name:
        raise record.bad(f"{column!r} names {name!r}; fetch it and give its path", kind="missing image")
    for root in file.roots:
        inner = name.removeprefix(f"{root}/")
        path = records.inside(root, inner)
        if path is not None and path.is_file():
            return path
    state = "leaves" if records.inside(file.roots[0], name) is None else "is not in"
    kind = "image path outside the root" if state == "leaves" else "missing image"
    why = f"{column!r} names {name!r}, which {state} {file.roots[0]}; correct it, or name its folder in data.images"
    raise record.bad(why, kind=kind)


def numbered(record: Record, told: Sequence[str], images: Images) -> tuple[list[str], Images]:
    """A question and its options with marks that have no numbers, and the images in the order of those they had.

    An image may be named several times; those without a mark come first.
    """
    try:
        numbers = marks.numbers(told)
    except ValueError as error:
        raise record.bad(str(error), kind="marks and images differ") from error
    told = [marks.plain(text) for text in told]
    if numbers == list(range(1, len(numbers) + 1)):
        return told, images
    pool = images.images if isinstance(images, HeldImages) else ()
    if not 0 < min(numbers) <= max(numbers) <= len(pool):
        why = f"marks number images {numbers}, and {len(pool)} are known by number; correct them, or give paths"
        raise record.bad(why, kind="marks and images differ")
    rest = [number for number in range(1, len(pool) + 1) if number not in numbers]
    picked = tuple(pool[number - 1] for number in (*rest, *numbers))
    return [marks.MARK * len(rest) + told[0], *told[1:]], HeldImages(picked)
