"""The seven benchmarks in the layouts they are published in.

Every `read_*` takes the folder of the published files and a split, and yields the set's examples in their published
order. Where the layout has a trap, the reader's docstring names it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

from fgrpo_jax.data.sets.readers import layout, records, tables, texts
from fgrpo_jax.data.sets.readers.layout import Published, Rows, asked, chosen, made, parquet_rows, parsed
from fgrpo_jax.data.sets.readers.records import Finder, Record
from fgrpo_jax.data.styles import LETTERS


# ------------------------------------------------------------------------------------------------------------ CV-Bench
def read_cv_bench(root: pathlib.Path, split: str, *, kind: str) -> Rows:
    """CV-Bench 2D or 3D: `test_2d.parquet`, `test_3d.parquet`.

    Answers are written '(C)'. `type`, `task` and `source` become tags: official 2D is the mean over sources.
    """

    def parse(record: Record) -> Sequence[Published]:
        options, answer = record.texts("choices"), record.text("answer")
        number = record.require("idx", int, "the entry's number")
        if record.text("type") != kind:
            raise record.bad(f"type {record.fields['type']!r} among the {kind} questions", kind="row of another set")
        images, question = record.images("image"), texts.plain(record.text("question"))
        options, answer = chosen(record, answer, options)
        tags = {key: record.text(key) for key in ("type", "task", "source")}
        about = {"id": f"cv_bench-{number}", "question": question, "options": options, "tags": tags}
        return [made(record, images, **about, answer=answer)]

    name = f"{split}_{kind.lower()}"
    return parquet_rows(root, f"{name}.parquet", f"**/{name}*.parquet", what="CV-Bench", parse=parse)


# ------------------------------------------------------------------------------------------------------------ MindCube
MINDCUBE_SETTINGS = ("around", "rotation", "translation", "among")
"""An entry's setting is the first of these that its id holds, as in the authors' own evaluation."""
MINDCUBE_FILES = {"tinybench": "MindCube_tinybench.jsonl", "train": "MindCube_train.jsonl", "full": "MindCube.jsonl"}


def read_mindcube(root: pathlib.Path, split: str) -> Rows:
    """MindCube: `raw/MindCube_tinybench.jsonl` beside `other_all_image/`, as unpacked from `data.zip`.

    Several images a question. Options stand inside the question: "… A. Above B. Under C. Front". Tag `setting` says
    how the camera went.
    """
    if split not in MINDCUBE_FILES:
        raise ValueError(f"MindCube has the splits {', '.join(MINDCUBE_FILES)}, not {split!r}")
    name = MINDCUBE_FILES[split]
    (file, *_) = records.find_files(root, f"raw/{name}", f"**/{name}", what="MindCube")
    finder = Finder(file.parent.parent if file.parent.name == "raw" else file.parent)

    def parse(record: Record) -> Sequence[Published]:
        name, answer = record.text("id"), record.text("gt_answer")
        question, options = texts.split_options(record.text("question"))
        images = finder.all(record.require("images", list, "a list of paths"), record.place)
        categories = record.take("category", list, "a list of texts", default=[])
        setting = next((setting for setting in MINDCUBE_SETTINGS if setting in name.lower()), "other")
        tags = {"category": ", ".join(map(str, categories)), "setting": setting}
        about = {"id": f"mindcube-{name}", "question": question, "options": options, "tags": tags}
        return [made(record, images, **about, answer=chosen(record, answer, options)[1])]

    return parsed(records.json_lines(file), parse)


# ---------------------------------------------------------------------------------------------------------------- MMVP
MMVP_CORRECTED = {99: "B", 100: "A", 279: "B", 280: "A"}
"""Index from 1 → right letter, where the published file has the other (lmms-eval issue 1018, MMVP issue 30)."""


def read_mmvp(root: pathlib.Path, split: str) -> Rows:
    """MMVP: `Questions.csv` with `MMVP Images/N.jpg`, or the mirror's Parquet file.

    The header of the published file says 'lndex'. Options are "(a) Open (b) Closed", some without a space, answers
    "(a)". Four labels are corrected, see `MMVP_CORRECTED`; the mirror has them right already. Questions 2k-1 and 2k are
    pair k.
    """
    files = records.find_files(root, "Questions.csv", "**/Questions.csv", "**/*.parquet", what="MMVP")
    finder = Finder(files[0].parent) if files[0].suffix == ".csv" else None

    def parse(record: Record) -> Sequence[Published]:
        column = next((name for name in ("lndex", "Index", "index") if name in record.fields), "lndex")
        try:
            number = int(record.fields[column])
        except (KeyError, ValueError, TypeError) as error:
            why = f"no whole number under 'lndex'; the columns are {list(record.fields)}"
            raise record.bad(why, kind="missing field") from error
        _, options = texts.split_options(record.text("Options"), alone=True)
        options, answer = chosen(record, record.text("Correct Answer"), options)
        tags = {"pair": str((number + 1) // 2)}
        if (right := MMVP_CORRECTED.get(number, answer)) != answer:
            tags["published"] = answer
        images = finder.all([f"MMVP Images/{number}.jpg"], record.place) if finder else record.images("image")
        question = texts.plain(record.text("Question"))
        return [made(record, images, id=f"mmvp-{number}", question=question, options=options, answer=right, tags=tags)]

    return parsed(records.table(files[0], delimiter=",") if finder else tables.parquet(files, root), parse)


# --------------------------------------------------------------------------------------------------------- OmniSpatial
def read_omnispatial(root: pathlib.Path, split: str) -> Rows:
    """OmniSpatial: `OmniSpatial-test/data.json` with `TASK/N.png`, as unpacked from the archive.

    Answers are places from 0. An id "N_k" is unique in its sub task only, and N names the image in the folder of the
    task: several folders hold a '0.png'.
    """
    usual = f"OmniSpatial-{split}/data.json"
    (file, *_) = records.find_files(root, "data.json", usual, f"**/{usual}", what="OmniSpatial")
    finder = Finder(file.parent)

    def parse(record: Record) -> Sequence[Published]:
        name, task, options = record.text("id"), record.text("task_type"), record.texts("options")
        place = record.require("answer", int, "the place of the right option, from 0")
        if not 0 <= place < len(options):
            why = f"answer {place} of {len(options)} options, counted from 0; correct it"
            raise record.bad(why, kind="answer not among the options")
        images = finder.all([f"{task}/{name.partition('_')[0]}.png"], record.place)
        question, sub_task = texts.plain(record.text("question")), record.text("sub_task_type")
        tags = {"task_type": task, "sub_task_type": sub_task}
        about = {"id": f"omnispatial-{task}-{sub_task}-{name}", "question": question, "options": options, "tags": tags}
        return [made(record, images, **about, answer=LETTERS[place])]

    return parsed(records.json_list(file), parse)


# --------------------------------------------------------------------------------------------------------- RealWorldQA
def read_realworldqa(root: pathlib.Path, split: str) -> Rows:
    """RealWorldQA: `data/test-*.parquet`.

    Options and an instruction stand inside the question; where there are none, the answer is a word or a number.
    """
    files = records.find_files(root, f"data/{split}-*.parquet", f"**/{split}*.parquet", what="RealWorldQA")
    number = _numbering(files)

    def parse(record: Record) -> Sequence[Published]:
        question, options, answer = asked(record, record.text("question"), answer=record.text("answer"), sure=False)
        name = f"realworldqa-{number(record)}"
        return [made(record, record.images("image"), id=name, question=question, options=options, answer=answer)]

    return parsed(tables.parquet(files, root), parse)


def _numbering(files: Sequence[pathlib.Path]) -> Callable[[Record], int]:
    """The number of a record, from 1, over all the files of a set."""
    first = {file: sum(tables.count_rows(before) for before in files[:at]) for at, file in enumerate(files)}
    return lambda record: first[record.path] + record.number


# ------------------------------------------------------------------------------------------------------------ SAT-Real
SAT_ROTATIONS = 2


def read_sat_real(root: pathlib.Path, split: str) -> Rows:
    """SAT-Real: `SAT_test.parquet`, or `test-*.parquet` of SAT-v2; each question in two rotations of its options.

    The right answer is published first: options are shuffled by the question's id, then turned. Tags `unit` and
    `rotation` say which belong together; the strict figure needs both right.
    """
    return _sat_rows(root, split, prefix="sat_real", rotations=SAT_ROTATIONS)


def read_sat(root: pathlib.Path, split: str) -> Rows:
    """SAT, the synthetic questions: `SAT_train.parquet`, `SAT_val.parquet`, `SAT_static.parquet`; or SAT-v2's.

    SAT-v2 has `SPLIT-*.parquet`, with {bytes, path} in `images` where SAT has bytes in `image_bytes`.

    The right answer is published first: options are shuffled by the question's id.
    """
    return _sat_rows(root, split, prefix=f"sat-{split}", rotations=1)


def _sat_rows(root: pathlib.Path, split: str, *, prefix: str, rotations: int) -> Rows:
    patterns = (f"SAT_{split}.parquet", f"**/SAT_{split}*.parquet", f"**/{split}-*.parquet")
    files = records.find_files(root, *patterns, what="SAT")
    number = _numbering(files)
    parse = lambda record: _sat(record, unit=f"{prefix}-{number(record)}", rotations=rotations)  # noqa: E731
    return parsed(tables.parquet(files, root), parse)


def _sat(record: Record, *, unit: str, rotations: int) -> Iterator[Published]:
    answers, right = texts.distinct(record.texts("answers")), record.text("correct_answer")
    if right not in answers or len(answers) < 2:
        layout.letter_or_bad(None, record, answer=right, options=answers, problem="is none, or the only one,")
    column = "images" if "images" in (record.cells or ()) else "image_bytes"
    tags = {"question_type": str(record.fields.get("question_type") or "")}
    for rotation in range(rotations):
        options, answer = texts.shuffled(unit, answers, answers.index(right), rotation=rotation)
        images, question = record.images(column), texts.plain(record.text("question"))
        name, more = unit, {}
        if rotations > 1:
            name, more = f"{unit}-r{rotation}", {"unit": unit, "rotation": str(rotation)}
        yield made(record, images, id=name, question=question, options=options, answer=answer, tags={**tags, **more})
