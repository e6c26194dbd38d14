"""Sets in the shapes that are really published: prepared, read, trained on for two steps and evaluated."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import runs
from shapes import SHAPES

from fgrpo_jax import command, prepare, train
from fgrpo_jax.config.sections import CONSTRAINT_NAMES
from fgrpo_jax.data import sources
from fgrpo_jax.data.sets import fetch
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.data.sets.doubts import doubts
from fgrpo_jax.data.sets.readers.layout import Published
from fgrpo_jax.data.sets.readers.records import HeldImages
from fgrpo_jax.evaluation import benchmarks
from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.records import Example
from fgrpo_jax.rewards.task import accuracy
from tests import layouts


def prepared(name: str, folder: Path) -> Path:
    """The shape's set, written, and prepared as a user would."""
    shape, out = SHAPES[name], folder / "out"
    shape.write(folder / "published")
    argv = [shape.set, f"--src={folder / 'published'}", f"--out={out}", f"--split={shape.split}", "--workers=0"]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = command.run(prepare.main, prepare.parser(), argv)
    assert code == 0, err.getvalue()
    return out


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_shape_is_prepared_and_read(name: str, tmp_path: Path) -> None:
    shape, out = SHAPES[name], prepared(name, tmp_path)
    source = open_set(shape.set, out, split=shape.split)
    found = [source[index] for index in range(len(source))]
    right = [e.options["ABCD".index(e.answer)] if e.options else e.answer for e in found]
    assert [(len(e.options), text, e.boxes) for e, text in zip(found, right, strict=True)] == list(shape.rows)
    for example, text in zip(found, right, strict=True):
        assert example.images and "<" not in example.question and "A. " not in example.question
        said = f"{example.answer}. {text}" if example.options else text
        assert accuracy(parse(f"<think>So.</think><answer>{said}</answer>"), example) == 1.0
        assert accuracy(parse("<think>So.</think><answer>nothing of it</answer>"), example) == 0.0
    about = json.loads((out / "card.json").read_text())["splits"][shape.split]
    assert about["examples"] == len(shape.rows) and about["skipped"]["count"] == 0
    assert about["boxes"]["count"] == sum(len(boxes or ()) for *_, boxes in shape.rows)


ONE_BY_ONE: dict[str, Any] = {
    "num_steps": 2,
    "data__prompts_per_step": 1,
    "rollout__batch_prompts": 1,
    "algorithm__micro_batch_prompts": 1,
    "algorithm__updates_per_batch": 1,
    "eval__examples": 1,
    "checkpoint__every": 0,
    "eval__batch_prompts": 1,
    "data__max_prompt_tokens": 384,
    "data__buckets__prompt": (384,),
    "data__buckets__patches": (128,),
}
ONE_BY_ONE |= {f"constraints__{name}__enabled": False for name in CONSTRAINT_NAMES}  # no judge, and not all have boxes


@pytest.mark.slow
def test_every_shape_is_trained_on_for_two_steps_and_evaluated(tiny_hf: Path, tmp_path: Path) -> None:
    with runs.quick():
        for name, shape in SHAPES.items():
            out, workdir = prepared(name, tmp_path / name), tmp_path / name / "w"
            parts = {"data__train_split": f"{shape.split}[:-1]", "data__eval_split": f"{shape.split}[-1:]"}
            fields = {**ONE_BY_ONE, **parts, "data__source": "prepared", "data__path": out}
            code, _, err = runs.run(train, workdir, tiny_hf, **fields)
            assert code == 0, f"{name}: {err}"
            assert [row["step"] for row in runs.rows(workdir)] == [1, 2]
            compared = json.loads((workdir / "eval" / "results.json").read_text())
            assert compared, name


def test_mindcube_by_setting_and_translation_out_of_the_official_figure(tmp_path: Path) -> None:
    source = open_set("mindcube", prepared("mindcube", tmp_path))
    tags = [source[index].tags for index in range(3)]
    assert [tag["setting"] for tag in tags] == ["around", "rotation", "translation"]
    scored: list[Any] = [{"tags": tag, "accuracy": float(number == 2)} for number, tag in enumerate(tags)]
    (column,) = benchmarks.find("mindcube").official.columns
    counted = [column([answer]) for answer in scored]
    assert [total for total, _ in counted] == [0.0, 0.0, 0.0] and [count for _, count in counted] == [1, 1, 0]
    assert benchmarks.find("mindcube").groups[0] == "setting"


# --------------------------------------------------------------------------------------------------------------- doubts
def published(number: int, *, answer: str = "A", options: tuple[str, ...] = ("x", "y"), **fields: Any) -> Published:
    frame = fields.pop("frame", "original")
    about = {"question": "Which?", "options": options, "answer": answer, **fields}
    return Published(Example(str(number), images=(), **about), HeldImages(()), f"train.jsonl, line {number}", frame)


def test_ordinary_rows_raise_no_doubt() -> None:
    rows = [published(n, answer="AB"[n % 2], boxes=((0.0, 0.0, 20.0, 30.0),)) for n in range(300)]
    words = ("the cup", "a red hat", "two", "the dog", "on top of the box")
    rows += [published(n, answer=f"{words[n % 5]} {n}", options=()) for n in range(300)]
    assert list(doubts(rows, boxes=True)) == []


@pytest.mark.parametrize(
    ("rows", "boxes", "message"),
    [
        ([published(n) for n in range(3)], True, "none of 3 examples has a box for R_G"),
        ([published(1, boxes=((0.1, 0.1, 0.5, 1.0),))], True, r"1 of 1 .* boxes within 0\.\.1 \(train.jsonl, line 1\)"),
        ([published(n, answer=f"Final answer: w{n}", options=()) for n in range(25)], False, "nearly all open answers"),
        (
            [published(n, answer="AB"[n % 2], options=(f"A) w{n}", "y")) for n in range(40)],
            False,
            "all options A begin",
        ),
        (
            [published(n, answer="A") for n in range(20)],
            False,
            "100% of the right answers are A, where chance gives 50%",
        ),
        ([published(n, answer="AB"[n % 10 > 5]) for n in range(1000)], False, "60% of the right answers are A"),
    ],
)
def test_what_is_doubtful_is_said(rows: list[Published], boxes: bool, message: str) -> None:
    (said,) = doubts(rows, boxes=boxes)
    assert re.search(message, said), said


def test_boxes_in_0_to_1_that_are_no_pixels(tmp_path: Path) -> None:
    """Of VGR they are published so; of a user's own file they are a mistake that pays no reward."""
    layouts.write("jsonl", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows[0]["boxes"] = [[0.1, 0.2, 0.5, 0.6]]
    layouts.save_lines(tmp_path / "train.jsonl", rows)
    with pytest.warns(UserWarning, match=r"jsonl in .*: 1 of 1 examples have boxes within 0\.\.1"):
        open_set("jsonl", tmp_path, split="train")


def test_a_set_that_lost_its_boxes_is_said_on_its_card(tmp_path: Path) -> None:
    SHAPES["vgr"].write(tmp_path / "in")
    for file in (tmp_path / "in" / "data").iterdir():
        text, table = "<REGION>", pq.read_table(file)
        changed = json.loads(json.dumps(table.to_pylist()).replace("<SOT>", text))
        layouts.save_table(file, changed, {field.name: field.type for field in table.schema})
    argv = ["vgr", f"--src={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", "--workers=0"]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        assert command.run(prepare.main, prepare.parser(), argv) == 0
    assert "warning: train: none of 3 examples has a box for R_G" in err.getvalue()
    assert "none of 3 examples has a box" in (tmp_path / "out" / "README.md").read_text()


# ---------------------------------------------------------------------------------------------------- archives, resume
@pytest.mark.parametrize("lost", ["empty", "absent"])
def test_an_archive_without_one_of_its_parts(lost: str, tmp_path: Path) -> None:
    SHAPES["viscot"].write(tmp_path / "in")
    part = tmp_path / "in" / "cot_images_tar_split" / "cot_images_ab"
    part.write_bytes(b"") if lost == "empty" else part.unlink()
    argv = ["viscot", f"--src={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", "--workers=0"]
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert command.run(prepare.main, prepare.parser(), argv) == 1
    said = "cot_images_ab is empty; fetch it again" if lost == "empty" else "cot_images_aa does not unpack"
    assert said in err.getvalue()


@pytest.mark.parametrize("size", [512, 1024, 4096])
def test_a_tar_that_lacks_a_piece_is_never_taken_for_whole(size: int, tmp_path: Path) -> None:
    """Whatever stands where a member should begin, `tarfile` would take for the end."""
    whole, into = io.BytesIO(), tmp_path / "out"
    with tarfile.open(fileobj=whole, mode="w") as packed:
        for number in range(20):
            about = tarfile.TarInfo(f"{number}.jpg")
            about.size = 900
            packed.addfile(about, io.BytesIO(layouts.picture(str(number)).ljust(900, b"x")[:900]))
    data = whole.getvalue()
    parts = [tmp_path / "a", tmp_path / "b"]
    parts[0].write_bytes(data[:2048])
    parts[1].write_bytes(data[2048 + size :])
    into.mkdir()
    with pytest.raises(ValueError, match="does not unpack"):
        fetch._extract(parts, into)


def test_other_data_of_the_same_length_is_another_run(tmp_path: Path) -> None:
    """Of equal rows the digest is equal, wherever and however they are stored."""
    for name in ("one", "two"):
        layouts.write("jsonl", tmp_path / name)
    one, two = (open_set("jsonl", tmp_path / name, split="train") for name in ("one", "two"))
    assert sources.digest(one) == sources.digest(two) != ""
    file = tmp_path / "two" / "train.jsonl"
    argv = ["jsonl", f"--src={tmp_path / 'two'}", f"--out={tmp_path / 'out'}", "--split=train", "--workers=0"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert command.run(prepare.main, prepare.parser(), argv) == 0
    assert sources.digest(open_set("jsonl", tmp_path / "out")) == sources.digest(one)
    assert sources.digest(sources.First(one, 2)) != sources.digest(one)
    for what, other in (("Where", "Who"), ('"left"', '"up"'), ("28.5", "29.5"), ('"hat", "source"', '"pen", "source"')):
        text = file.read_text()
        assert what in text
        file.write_text(text.replace(what, other))
        assert sources.digest(open_set("jsonl", tmp_path / "two", split="train")) != sources.digest(one)
        file.write_text(text)
