"""Training sets in the layouts they are published in. SAT stands beside SAT-Real in `benchmarks`.

Which boxes serve R_G is settled here, set by set: VGR's and TreeVGR's do; Visual-CoT's mark where an answer is to be
read, not the objects a reasoning names, and are left out (`Example.boxes` is None).
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from fgrpo_jax.data.sets.readers import records, texts
from fgrpo_jax.data.sets.readers.layout import (
    Published,
    Rows,
    asked,
    check_boxes,
    instance_boxes,
    made,
    parquet_rows,
    parsed,
)
from fgrpo_jax.data.sets.readers.records import Finder, HeldImages, Images, Record

PARQUET = ("*.parquet", "data/*.parquet", "**/*.parquet")
"""Where sets without a fixed layout keep their files."""


# ----------------------------------------------------------------------------------------------------------------- VGR
_REGION = re.compile(r"<sot>\s*\[([^\[\]]*)\]\s*<eot>(?:\s*<image>)?", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ANSWER_LINE = re.compile(r".*\bfinal answer\W*:\**(.*)", re.DOTALL | re.IGNORECASE)


def read_vgr(root: pathlib.Path, split: str) -> Rows:
    """VGR-SFT: Parquet files with `image`, a path below the images of LLaVA-NeXT, and reasoning with marked regions.

    Question and reasoning are the two turns of `conversations`, or columns `question` and `response` with `answer`.
    Regions `<SOT>[x1, y1, x2, y2]<EOT><image>` are pseudo boxes in 0..1. A response ends in "Final answer: x", which
    `</think>` may precede. The images lie below the same folder.
    """
    finder = Finder(root)

    def parse(record: Record) -> Sequence[Published]:
        asking, reasoning = _turns(record)
        answer = _vgr_answer(record, reasoning)
        regions = [[float(v) for v in _NUMBER.findall(found[1])] for found in _REGION.finditer(reasoning)]
        question, options, answer = asked(record, asking, answer=answer, sure=False)
        boxes = tuple(dict.fromkeys(check_boxes(regions, record, unit=True))) or None
        images = finder.all([record.text("image")], record.place)
        # Published ids are those of images, which several rows share.
        about = {"id": f"vgr-{record.path.stem}-{record.number}", "boxes": boxes, "tags": {"split": split}}
        return [made(record, images, frame="unit", question=question, options=options, answer=answer, **about)]

    return parquet_rows(root, *PARQUET, what="VGR", parse=parse)


def _vgr_answer(record: Record, reasoning: str) -> str:
    """What stands in answer tags, in a column of its own, on the answer line, or after the reasoning."""
    tagged, line = _ANSWER.search(reasoning), _ANSWER_LINE.fullmatch(reasoning)
    after = line[1] if line else reasoning.partition("</think>")[2]
    found = tagged[1] if tagged else record.fields.get("answer") or after.replace("</think>", "")
    answer = _REGION.sub("", str(found)).strip()
    if not answer:
        why = "no answer: neither tags, nor a column, nor 'Final answer:', nor text after </think>"
        raise record.bad(why, kind="missing field")
    return answer


_SPEAKERS = {"human": "user", "gpt": "assistant"}


def _turns(record: Record) -> tuple[str, str]:
    """(question, response) of a row."""
    turns = record.fields.get("conversations")
    if turns is None:
        return record.text("question"), record.text("response", "reasoning", "answer")
    first: dict[str, str] = {}  # what each speaker says in the first exchange
    for turn in turns:
        who = str(turn.get("from") or turn.get("role"))
        first.setdefault(_SPEAKERS.get(who, who), turn.get("value") or turn.get("content") or "")
    if not first.get("user") or not first.get("assistant"):
        why = f"'conversations' must hold a turn of human or user, and one of gpt or assistant; it has {list(first)}"
        raise record.bad(why, kind="missing field")
    return first["user"], first["assistant"]


# ---------------------------------------------------------------------------------------------------------- Visual-CoT
_VISCOT_FOLDERS = {"textcap": ("textvqa", "openimages"), "textvqa": ("openimages",)}
"""Where else the images of a data set lie."""


def read_viscot(root: pathlib.Path, split: str) -> Rows:
    """Visual-CoT: `metadata/*.jsonl`, with images in a folder DATASET, wherever the archive was unpacked.

    A line names its image by base name and its data set in `dataset`; several sets have an image of the same name, so
    the folder decides. TextCaps asks about images of TextVQA, and some of those lie with Open Images. Answers are open.
    The line's own `split` says what it is for.
    """
    finder = Finder(root)

    def parse(record: Record) -> Sequence[Published]:
        if record.take("split", str, "train or val", default=split) != split:
            return []
        dataset, name = record.text("dataset"), record.text("image")
        image = finder.find(name, record.place, within=(dataset, *_VISCOT_FOLDERS.get(dataset, ())))
        name, question = f"viscot-{record.path.stem}-{record.number}", texts.plain(record.text("question"))
        answer, tags = record.text("answer"), {"dataset": dataset}
        return [made(record, HeldImages.of([image]), id=name, question=question, options=(), answer=answer, tags=tags)]

    for file in records.find_files(root, "metadata/*.jsonl", "**/*_cot_*.jsonl", "*.jsonl", what="Visual-CoT"):
        yield from parsed(records.json_lines(file), parse)


# ------------------------------------------------------------------------------------------------------------- TreeVGR
def read_treevgr(root: pathlib.Path, split: str) -> Rows:
    """TreeVGR-RL-37K: Parquet with images, problem, answer and `target_instances` [{bbox, name or label}].

    Boxes are pixels of the original image, x1 y1 x2 y2. Images are paths below the same folder, or {bytes, path}.
    """
    finder = Finder(root)

    def parse(record: Record) -> Sequence[Published]:
        instances = record.require("target_instances", list, "a list of {bbox, name}")
        boxes = instance_boxes(instances, record)
        question, options, answer = asked(record, record.text("problem"), answer=record.text("answer"), sure=False)
        about = {"id": f"treevgr_rl-{record.path.stem}-{record.number}", "boxes": boxes, "tags": {"split": split}}
        images = _images_of(record, finder)
        return [made(record, images, question=question, options=options, answer=answer, **about)]

    return parquet_rows(root, *PARQUET, what="TreeVGR-RL", parse=parse)


def _images_of(record: Record, finder: Finder) -> Images:
    """Images of a row that has them as a column of images or as a list of paths."""
    if "images" not in record.fields:
        return record.images("images")
    paths = record.require("images", list, "a list of paths")
    if any(not isinstance(path, str) for path in paths):
        raise record.bad(f"'images' must be a list of paths, got {paths!r:.100}", kind="field of a wrong type")
    return finder.all(paths, record.place)


# -------------------------------------------------------------------------------------------------------------- ViGoRL
def read_vigorl(root: pathlib.Path, split: str) -> Rows:
    """ViGoRL's spatial questions: `spatial_reasoning/vigorl_sat2_SPLIT_RL.jsonl`, images below the same folder.

    The text is "Question: … Answer Choices: (A) x …", the answer the text of an option.
    """
    patterns = (f"spatial_reasoning/*_{split}_RL.jsonl", f"**/*_{split}_RL.jsonl", f"**/*{split}*.jsonl")
    (file, *_) = records.find_files(root, *patterns, what="ViGoRL")
    finder = Finder(root)

    def parse(record: Record) -> Sequence[Published]:
        key = next((key for key in ("images", "image_paths", "image") if key in record.fields), "images")
        paths = record.require(key, (list, str), "a list of paths")
        paths = [paths] if isinstance(paths, str) else paths
        question, options, answer = asked(record, record.text("prompt", "problem"), answer=record.text("answer"))
        images, name = finder.all(paths, record.place), f"vigorl-{split}-{record.number}"
        return [made(record, images, id=name, question=question, options=options, answer=answer)]

    return parsed(records.json_lines(file), parse)


# ---------------------------------------------------------------------------------------------------------- geometry3k
def read_geometry3k(root: pathlib.Path, split: str) -> Rows:
    """Geometry3K as `hiyouga/geometry3k` has it: `data/SPLIT-*.parquet` with images, problem, answer. Open answers."""

    def parse(record: Record) -> Sequence[Published]:
        question, answer = texts.plain(record.text("problem")), record.text("answer")
        name = f"geometry3k-{record.path.stem}-{record.number}"
        return [made(record, record.images("images"), id=name, question=question, options=(), answer=answer)]

    return parquet_rows(root, f"data/{split}-*.parquet", f"**/{split}*.parquet", what="Geometry3K", parse=parse)
