"""Two layouts as others publish them: the TSV of VLMEvalKit, and NLVR as the Cornell group has it."""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import functools
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from fgrpo_jax.data import marks
from fgrpo_jax.data.sets.readers import layout, records, texts
from fgrpo_jax.data.sets.readers.files import numbered
from fgrpo_jax.data.sets.readers.layout import Published, Rows, made, parsed
from fgrpo_jax.data.sets.readers.records import Finder, HeldImages, Images, Record
from fgrpo_jax.data.styles import LETTERS
from fgrpo_jax.records import Box


# ---------------------------------------------------------------------------------------------------------- VLMEvalKit
def read_vlmevalkit(root: pathlib.Path, split: str) -> Rows:
    """The TSV of VLMEvalKit: `SPLIT.tsv` in a folder, or the file itself.

    Columns index, question, A, B, …, answer, and `image` (base64; a list of it; or the index of an earlier row, whose
    image is meant) or `image_path` (one or a list, below `images/SPLIT/`, `images/` or the folder, whether or not they
    begin with '/'). Options may stand in `candidates` or `options`, a list, or in the question instead. `hint` precedes
    the question. `target_instances` are boxes in pixels, as TreeBench has them. Rows without options have open answers.
    """
    (file, *_) = records.find_files(root, f"{split}.tsv", what="a VLMEvalKit TSV")
    finder, seen = Finder(file.parent), {}
    return parsed(records.table(file, delimiter="\t"), functools.partial(_vlmevalkit, finder=finder, seen=seen))


def _vlmevalkit(record: Record, *, finder: Finder, seen: dict[str, Images]) -> Sequence[Published]:
    fields = record.fields
    name, answer = record.text("index"), record.text("answer")
    question = marks.protected(record.text("question"))
    if options := _tsv_options(record):
        options, answer = layout.chosen(record, answer, options)
    else:
        question, options, answer = layout.asked(record, question, answer=answer, sure=False)
    seen[name] = images = _tsv_images(record, finder=finder, seen=seen)
    hint = fields.get("hint", "").strip()
    tags = {key: fields[key] for key in ("category", "l2-category", "split") if fields.get(key)}
    asked = [marks.restored(texts.plain(marks.protected(text))) for text in (question, *options)]
    (question, *shown), images = numbered(record, asked, images)
    question, name = f"{hint}\n{question}" if hint not in _NOTHING else question, f"{record.path.stem}-{name}"
    cell = fields.get("target_instances", "").strip()
    boxes = None if cell in (*_NOTHING, "None") else layout.instance_boxes(_listed(cell, record), record)
    about = {"question": question, "options": tuple(shown), "answer": answer, "boxes": boxes, "tags": tags}
    return [made(record, images, id=name, **about)]


_NOTHING = ("", "nan")  # an empty cell


def _tsv_options(record: Record) -> Sequence[str]:
    """The options of a row in columns of their own, or in one as a list or lines, labelled or not; () for none."""
    cells = {key: record.fields.get(key, "").strip() for key in (*LETTERS, "options", "candidates")}
    for block in (cells["options"], cells["candidates"]):
        listed = [str(value) for value in _listed(block, record)] if block.startswith("[") else []
        if found := texts.split_options("\n".join(listed) or block, alone=True)[1] or listed:
            return found
    options = [cells[letter] for letter in LETTERS if cells[letter] not in _NOTHING]
    if any(cells[letter] in _NOTHING for letter in LETTERS[: len(options)]):
        raise record.bad(f"options {options} leave a letter out; fill the columns from A on", kind="missing field")
    return options


def _tsv_images(record: Record, *, finder: Finder, seen: Mapping[str, Images]) -> Images:
    cell, path = record.fields.get("image", "").strip(), record.fields.get("image_path", "").strip()
    if cell:
        if cell in seen:
            return seen[cell]
        encoded = [_base64(str(text), record) for text in _listed(cell, record)]
        return HeldImages(tuple((f"image[{at}]", data) for at, data in enumerate(encoded)))
    if not path:
        raise record.bad("neither 'image' nor 'image_path'; add one or remove the row", kind="missing image")
    names = []
    for name in (str(name).lstrip("/\\") for name in _listed(path, record)):  # '/data/1.png' lies below the folder too
        where = (f"images/{record.path.stem}/{name}", f"images/{name}", name)
        there = (w for w in where if (f := records.inside(record.path.parent, w)) is not None and f.is_file())
        names.append(next(there, name))
    return finder.all(names, record.place)


def _listed(cell: str, record: Record) -> Sequence[Any]:
    """A cell's one text, or what stands in a list as Python or JSON writes it."""
    if not cell.startswith("["):
        return [cell]
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(cell)
    raise record.bad(f"{cell[:40]!r}… is no list; write it as Python or JSON does", kind="field of a wrong type")


def _base64(text: str, record: Record) -> bytes:
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        what = f"{text[:20]!r}… is neither base64 nor the index of an earlier row"
        raise record.bad(f"image {what} ({error})", kind="image that does not decode") from error


# ---------------------------------------------------------------------------------------------------------------- NLVR
NLVR_BOX_PITCH = 150  # pixels between the left edges of the three grey boxes of an image, each 100 wide


def read_nlvr(root: pathlib.Path, split: str) -> Rows:
    """One split of Cornell NLVR v1.0 in its published layout (Suhr, Lewis, Yeh, Artzi, ACL 2017).

    `PATH/SPLIT/SPLIT.json` holds a JSON object a line, `PATH/SPLIT/images/DIRECTORY/SPLIT-IDENTIFIER-0.png` the image
    whose boxes stand in the order of the line's `structured_rep`. The images of lines without `directory` are found by
    their name. Gold boxes are those of all drawn items; none are given where nothing is drawn. Which of the options
    `true` and `false` comes first depends on the identifier.
    """
    folder = root / split
    finder = Finder(folder / "images")

    def parse(record: Record) -> Sequence[Published]:
        name = record.require("identifier", str, "the sentence's identifier")
        sentence = record.require("sentence", str, "the sentence")
        label = record.require("label", str, "'true' or 'false'").lower()
        if label not in ("true", "false"):
            why = f"label {record.fields['label']!r} is neither 'true' nor 'false'; correct it"
            raise record.bad(why, kind="answer not among the options")
        options = ("true", "false") if zlib.crc32(name.encode()) % 2 else ("false", "true")
        about = {"id": f"{split}-{name}", "boxes": _nlvr_boxes(record), "source": "nlvr"}
        inside = "" if record.fields.get("directory") is None else f"{record.fields['directory']}/"
        images = finder.all([f"{inside}{split}-{name}-0.png"], record.place)
        question = f'Is this statement about the image true or false? "{sentence}"'
        answer = LETTERS[options.index(label)]
        return [made(record, images, question=question, options=options, answer=answer, **about)]

    return parsed(records.json_lines(folder / f"{split}.json"), parse)


def _nlvr_boxes(record: Record) -> tuple[Box, ...]:
    boxes: list[Any] = []
    for place, items in enumerate(record.require("structured_rep", list, "the drawn items of the three boxes")):
        for item in items:
            try:
                left, top, side = NLVR_BOX_PITCH * place + item["x_loc"], item["y_loc"], item["size"]
            except (KeyError, TypeError) as error:
                why = f"structured_rep holds {item}, without x_loc, y_loc or size"
                raise record.bad(why, kind="bad box") from error
            boxes.append((float(left), float(top), float(left + side), float(top + side)))
    return tuple(boxes)
