"""What users bring: each format of another project is read, trained on for two steps and evaluated; and what is bad."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import formats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs

from fgrpo_jax import filter as filtering
from fgrpo_jax import sft, train
from fgrpo_jax.config.sections import CONSTRAINT_NAMES
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.data.sets.readers.files import Reading
from fgrpo_jax.data.sets.readers.records import BadRow
from fgrpo_jax.data.styles import BARE
from fgrpo_jax.evaluation import prompts_file
from fgrpo_jax.records import Example

TWO: dict[str, Any] = {"num_steps": 2, "eval__examples": 2, "eval__batch_prompts": 2, "judge__backend": "none"}
TWO |= {f"constraints__{name}__enabled": False for name in CONSTRAINT_NAMES}  # no judge, and not all have boxes


def opened(folder: Path, name: str, split: str = "train") -> list[Example]:
    fields = formats.write(name, folder)
    reading = Reading(images=fields.get("data__images", ""))
    source = open_set("files", fields["data__path"], split=fields[f"data__{split}_split"], reading=reading)
    return [source[index] for index in range(len(source))]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_is_read(name: str, tmp_path: Path) -> None:
    form = formats.FORMATS[name]
    said = pytest.warns(UserWarning, match=f"not read: .*{form.warns}") if form.warns else contextlib.nullcontext()
    with warnings.catch_warnings(), said:
        warnings.simplefilter("always" if form.warns else "error")
        found = opened(tmp_path, name)
    assert len(found) == formats.COUNT == len({example.id for example in found})
    assert (found[0].answer, found[-1].answer) == form.answers
    for example in found:
        assert ("<image>" in example.question) == (name == "alpaca"), "there it stands between two texts"
        assert all(image.shape == (84, 112, 3) for image in example.images)
    assert len(found[0].images) == 1 and sum(len(example.images) for example in found) >= formats.COUNT - 1


def test_what_formats_say_besides(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = {name: opened(tmp_path / name, name) for name in formats.FORMATS}
    assert one["verl"][0].source == "me/shapes" and one["verl"][0].options == ("yes", "no. Case 0")
    assert one["verl"][-1].images == () and one["easyr1_paths"][-1].images == ()
    assert one["trl"][0].trace == "<think>It is.</think>\n<answer> left </answer>"
    assert one["llama_factory"][0].trace == "Players 0." and one["llama_factory"][0].question == "Who are they?"
    assert one["sharegpt"][0].trace == "<answer>3</answer>"
    assert one["alpaca"][0].question == "Name the colour.\n<image>One word."
    assert [example.id for example in one["vlm_r1"][:2]] == ["count_train-1", "count_train-2"]
    assert len(one["vlm_r1"][3].images) == 2 and one["easyr1"][0].id == "train-00000-of-00001-1"
    assert one["saved_to_disk"][1].options == ("cup", "pot")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    with runs.quick() as patch:
        yield patch


@pytest.mark.slow
@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_trains_two_steps_and_is_evaluated(name: str, tiny_hf: Path, tmp_path: Path) -> None:
    fields = formats.write(name, tmp_path / "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, _, err = runs.run(train, tmp_path / "w", tiny_hf, **TWO, **fields)
    assert code == 0, err
    assert [row["step"] for row in runs.rows(tmp_path / "w")] == [1, 2]
    assert json.loads((tmp_path / "w" / "eval" / "results.json").read_text())


# ------------------------------------------------------------------------------------------------------------- columns
ROW: dict[str, Any] = {"id": 1, "images": "0.png", "question": "Where?", "answer": "left"}


def one(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> list[Example]:
    for index in range(3):
        formats.save(folder / f"{index}.png", index)
    formats.lines(folder / "train.jsonl", rows)
    bad = settings.pop("bad", "error")
    source = open_set("files", folder, split="train", bad=bad, reading=Reading(**settings))
    return [source[index] for index in range(len(source))]


def test_columns_say_what_is_what(tmp_path: Path) -> None:
    rows = [{"uid": 7, "q": "Where?", "meta": {"gold": 1}, "opts": {"A": "left", "B": "right"}, "answer": "no"}]
    columns = {"id": "uid", "question": "q", "answer": "meta.gold", "options": "opts"}
    with pytest.warns(UserWarning, match=r"not read: column 'answer' \(1 rows\)"):
        (example,) = one(tmp_path, rows, columns=columns)
    assert (example.id, example.options, example.answer) == ("7", ("left", "right"), "B")
    with pytest.raises(BadRow, match=r"line 1: no column 'question2', which data\.columns\.question names"):
        one(tmp_path, rows, columns={"question": "question2"})
    (example,) = one(tmp_path, [ROW], columns={"id": "", "images": ""})
    assert (example.id, example.images) == ("train-1", ())
    with pytest.raises(ValueError, match=r"data\.columns\.quest is no field; the fields are id, images, question"):
        Reading(columns={"quest": "q"})


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        (0, ["left", "right"], "A"),  # a place from 0, as qizekun/OmniSpatial's data.json has it
        (1.0, ["left", "right"], "B"),  # the same in a column with gaps
        ("(b)", ["left", "right"], "B"),
        ("Right.", ["left", "right"], "B"),
        (30, [10, 20, 30], "C"),
        (12, None, "12"),
        (0.25, None, "0.25"),
        ("<think>so</think><answer> B </answer>", ["left", "right"], "B"),
    ],
)
def test_answers_may_be_numbers_places_and_tagged(answer: Any, options: Any, right: str, tmp_path: Path) -> None:
    (example,) = one(tmp_path, [ROW | {"answer": answer, "options": options}])
    assert example.answer == right


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("The shape is red, so the answer is A.", "A"),
        ("**B**", "B"),
        ("It has three corners.", "It has three corners."),  # none of the options: an open question that holds labels
    ],
)
def test_what_an_assistant_says_is_read_where_the_options_stand_in_the_question(
    said: str, right: str, tmp_path: Path
) -> None:
    """Turns as hiyouga/LLaMA-Factory has them (data/mllm_demo.json)."""
    turns = [{"role": "user", "content": "Is it red?\nA. yes\nB. no"}, {"role": "assistant", "content": said}]
    (example,) = one(tmp_path, [{"messages": turns, "images": []}])
    assert example.answer == right and bool(example.options) == (right in "AB")


# --------------------------------------------------------------------------------------------------------------- marks
@pytest.mark.parametrize(
    ("question", "order", "said"),
    [
        ("<image>\n<image>\nWhich is larger?", [0, 1], "Which is larger?"),
        ("First <image> then <image>: what changed?", [0, 1], "First <image> then <image>: what changed?"),
        # MMMU's rows in VLMEvalKit, vlmeval/dataset/image_mcq.py (split_MMMU): numbered, in any order, some twice.
        ("See <image 2> beside <image 1> and <image 2>.", [1, 0, 1], "See <image> beside <image> and <image>."),
        ("Only <image 2> matters.", [0, 1], "<image>Only <image> matters."),
        ("What changed?", [0, 1], "What changed?"),
    ],
)
def test_marks_are_places(question: str, order: list[int], said: str, tmp_path: Path, tiny_hf: Path) -> None:
    (example,) = one(tmp_path, [ROW | {"images": ["0.png", "1.png"], "question": question}])
    plain = one(tmp_path, [ROW | {"id": i, "images": f"{i}.png"} for i in range(2)])
    assert example.question == said
    for image, index in zip(example.images, order, strict=True):
        np.testing.assert_array_equal(image, plain[index].images[0])
    prompt = Processor.load(tiny_hf).encode(example, style=BARE)
    shown = prompt.text.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")
    assert (said if "<image>" in said else "<image><image>" + said) in shown
    assert (
        prompt.image_index.max() + 1 == len(order) and (np.diff(prompt.image_index[prompt.image_index >= 0]) >= 0).all()
    )


@pytest.mark.parametrize(
    "question", ["<image>What?", "<image> <image> <image>", "<image 3> and <image 1>", "<image> <image 1>"]
)
def test_marks_that_do_not_fit_the_images_are_a_bad_row(question: str, tmp_path: Path) -> None:
    with pytest.raises(BadRow, match=r"train\.jsonl, line 1: .*mark") as caught:
        one(tmp_path, [ROW | {"images": ["0.png", "1.png"], "question": question}])
    assert caught.value.kind == "marks and images differ"


# --------------------------------------------------------------------------------------------------------- broken text
BROKEN = {
    "lone surrogate": (b'{"id": "x", "question": "a \\ud83d b", "answer": "c"}', "no Unicode"),
    "latin-1": ('{"id": "x", "question": "caf\xe9", "answer": "c"}'.encode("latin-1"), "no Unicode"),
    "null answer": (b'{"id": "x", "question": "a", "answer": null}', "'answer' is null"),
    "missing key": (b'{"id": "x", "answer": "c"}', "no 'question'"),
    "wrong type": (b'{"id": "x", "question": {"a": 1}, "answer": "c"}', "'question' must be"),
    "a turn without a role": (b'{"id": "x", "messages": [{"content": "a"}], "answer": "c"}', "a role and a content"),
}
GOOD = '{"id": "%d", "question": "caf\xe9?", "answer": "yes"}'


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_text_is_a_bad_row(name: str, ending: str, tmp_path: Path) -> None:
    line, message = BROKEN[name]
    parts = [b"\xef\xbb\xbf" + (GOOD % 0).encode(), line, (GOOD % 2).encode()]  # the mark of the order of bytes, too
    (tmp_path / "train.jsonl").write_bytes(ending.encode().join(parts))
    with pytest.raises(BadRow, match=rf"train\.jsonl, line 2: .*{message}"):
        open_set("files", tmp_path, split="train")
    with pytest.warns(UserWarning, match=r"1 rows skipped"):
        source = open_set("files", tmp_path, split="train", bad="skip")
    assert [source[index].question for index in range(len(source))] == ["caf\xe9?"] * 2
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.json").write_bytes(b"[" + b",".join(part.removeprefix(b"\xef\xbb\xbf") for part in parts) + b"]")
    with pytest.raises(BadRow, match=rf"train\.json, row 2: .*{message}"):
        open_set("files", tmp_path, split="train")


def test_broken_text_in_a_tsv_is_a_bad_row(tmp_path: Path) -> None:
    text = "index\tquestion\tanswer\timage_path\r\n1\tWhere?\tleft\t0.png\r\n2\tcaf\xe9\tleft\t0.png\r\n"
    (tmp_path / "x.tsv").write_bytes(text.encode("latin-1"))
    formats.save(tmp_path / "0.png")
    with pytest.raises(BadRow, match=r"x\.tsv, row 2: text that is no Unicode"):
        open_set("vlmevalkit", tmp_path / "x.tsv")


def test_null_columns_of_parquet(tmp_path: Path) -> None:
    rows = [
        {"image": formats.held(0), "problem": "Where?", "answer": "left", "hint": None},
        {"image": None, "problem": "What is 2 + 2?", "answer": "4", "hint": None},
        {"image": None, "problem": "<image>Where?", "answer": "left", "hint": None},
        {"image": formats.held(1), "problem": None, "answer": "left", "hint": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.warns(UserWarning, match=r"2 rows skipped \(1 missing field, 1 marks and images differ\)"):
        source = open_set("files", tmp_path, split="train", bad="skip")
    assert [len(source[index].images) for index in range(len(source))] == [1, 0]


@pytest.mark.parametrize("name", BROKEN)
def test_prompts_name_and_skip_bad_rows(name: str, tmp_path: Path) -> None:
    line, message = (part if isinstance(part, str) else part.replace(b"question", b"prompt") for part in BROKEN[name])
    line = line.replace(b', "answer": "c"', b"").replace(b', "answer": null', b', "prompt": null')
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "a"}\r\n' + line + b'\r\n{"prompt": "b"}')
    with pytest.raises(BadRow, match=r"in\.jsonl, line 2: "):
        prompts_file.read_questions(file)
    questions, skipped = prompts_file.read_questions(file, skip=lambda question: question.example())
    assert [question.prompt for question in questions] == ["a", "b"] and skipped.count == 1, message


def test_every_door_obeys(tiny_hf: Path, tmp_path: Path) -> None:
    """Training, supervised training and the filter stop at the row, or leave it out."""
    fields = formats.write("easyr1_paths", tmp_path / "data")
    file = tmp_path / "data" / "lists" / "train.jsonl"
    file.write_bytes(file.read_bytes() + BROKEN["lone surrogate"][0])
    for door in (train, filtering, sft):
        code, _, err = runs.run(door, tmp_path / "w", tiny_hf, **TWO, **fields)
        said = "line 1: has no trace" if door is sft else "line 9: text that is no Unicode"
        assert code == 1 and said in err and "Traceback" not in err, err
    assert not (tmp_path / "w" / "metrics.jsonl").exists()
