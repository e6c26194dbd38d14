"""Small sets in shapes that others' loaders, samples and reports show, where they differ from what one would expect.

`SHAPES[name]` names its source: the repository and file, or the issue, that the shape is taken from. `write` lays the
files out as they are fetched, archives unpacked by whoever reads them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import layouts
import pyarrow as pa
from layouts import IMAGE, SIZE, embedded, picture, save_lines, save_picture, save_table

TEXT = pa.string()
Box = tuple[float, float, float, float]
Right = tuple[int, str, tuple[Box, ...] | None]
"""(how many options, text of the right answer, boxes) that must come out of a row."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A set in one of its shapes, and what must come out of it."""

    set: str
    split: str
    source: str
    write: Callable[[Path], None]
    rows: Sequence[Right]


def _pack(folder: Path, archive: Path, *, parts: int = 1) -> None:
    """Moves a folder into a tar.gz, cut into so many parts without endings where there are several."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as packed:
        packed.add(folder, folder.name)
    shutil.rmtree(folder)
    archive.parent.mkdir(parents=True, exist_ok=True)
    data = whole.getvalue()
    step = -(-len(data) // parts)
    for at in range(parts):
        file = archive if parts == 1 else archive.with_name(f"{archive.name}{'abcdefgh'[at]}")
        file.write_bytes(data[at * step : (at + 1) * step])


def _tsv(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)


# ------------------------------------------------------------------------------------------------------------- training
def _vgr(folder: Path) -> None:
    asking = "<image>\nWhat is on the table?\nAnswer the question using a single word or phrase."
    region = "<SOT>[0.1, 0.25, 0.5, 0.75]<EOT><image>"
    said = (
        f"<think>The cup {region} stands beside a plate.</think>\n\nFinal answer: cup",
        f"<think>The cup {region} stands there, and that is all.\n\nFinal answer: blue cup",
        f"<think>It is {region} again.</think>\n\n**Final answer:** A",
    )
    questions = (asking, asking, "<image>\nWhich is a plant?\nA. oak\nB. wolf\nAnswer with the option's letter.")
    images = ("ai2d/abc_images/311.png", "coco/train2017/1.jpg", "ocr_vqa/images/1.jpg")
    for name in images:
        save_picture(folder / "llava_next_raw_format" / name, size=(100, 80))
    for file, who, what, rows in (("long", "from", "value", (0, 1)), ("short", "role", "content", (2,))):
        names = ("human", "gpt") if who == "from" else ("user", "assistant")
        lines = [
            {
                "image": images[row],
                "conversations": [{who: names[0], what: questions[row]}, {who: names[1], what: said[row]}],
            }
            for row in rows
        ]
        turn = pa.list_(pa.struct([(who, TEXT), (what, TEXT)]))
        save_table(folder / "data" / f"vgr_{file}cot.parquet", lines, {"image": TEXT, "conversations": turn})


def _viscot(folder: Path) -> None:
    images = (("flickr30k", "flickr30k"), ("textcap", "textvqa"), ("textvqa", "openimages"), ("gqa", "gqa"))
    for number, (dataset, place) in enumerate(images):
        save_picture(folder / "cot_image_data" / place / f"{number}.jpg")
        line = {"question": "What colour is it?", "answer": ("red", "blue", "green", "white")[number]}
        line |= {"image": f"{number}.jpg", "width": SIZE[0], "height": SIZE[1], "bboxs": [[10, 12, 40, 44]]}
        line |= {"dataset": dataset, "split": "train"}
        save_lines(folder / "metadata" / f"{dataset}_cot_train.jsonl", [line])
    _pack(folder / "cot_image_data", folder / "cot_images_tar_split" / "cot_images_a", parts=4)


def _treevgr(folder: Path) -> None:
    found = ([{"bbox": [10.0, 20.0, 30.0, 40.0], "name": "glove"}, None], [{"bbox": None, "name": "hat"}])
    rows = []
    for index, instances in enumerate(found):
        save_picture(folder / "images" / f"{index}.jpg")
        problem = "<image>What is the glove made of?\n(A) rubber\n(B) cotton"
        row = {"images": [f"images/{index}.jpg"], "problem": problem, "answer": "AB"[index]}
        rows.append({**row, "target_instances": instances})
    _pack(folder / "images", folder / "images.tar.gz")
    instance = pa.struct([("bbox", pa.list_(pa.float64())), ("name", TEXT)])
    schema = {"images": pa.list_(TEXT), "problem": TEXT, "answer": TEXT, "target_instances": pa.list_(instance)}
    save_table(folder / "vstar30k_visdrone6k_x1y1x2y2.parquet", rows, schema)


def _sat_v2(folder: Path, split: str) -> None:
    rows = [
        {
            "images": [embedded(f"v2-{split}-{index}-{k}") for k in range(1 + index)],
            "question": "Is the chair closer if I move forward?",
            "answers": answers,
            "correct_answer": answers[0],
            "question_type": "obj_movement",
        }
        for index, answers in enumerate((["closer", "further"], ["left", "right", "left"]))
    ]
    schema = {"images": pa.list_(IMAGE), "question": TEXT, "answers": pa.list_(TEXT), "correct_answer": TEXT}
    save_table(folder / "data" / f"{split}-00000-of-00001.parquet", rows, schema | {"question_type": TEXT})


# ----------------------------------------------------------------------------------------------------------- benchmarks
def _mindcube(folder: Path) -> None:
    rows = []
    for number, name in enumerate(("aroundnew_x1_q1", "rotation_group002_qfirst_5", "translation_group000_q1")):
        save_picture(folder / "data" / "other_all_image" / f"{number}" / "front.jpg")
        question = "Where did I go? A. Directly left B. Directly right"
        row = {"id": name, "category": ["linear"], "type": "x", "meta_info": [], "question": question}
        rows.append({**row, "images": [f"other_all_image/{number}/front.jpg"], "gt_answer": "AB"[number % 2]})
    save_lines(folder / "data" / "raw" / "MindCube.jsonl", rows)


def _mmvp(folder: Path) -> None:
    options = ("(a) Standing (b) Sitting", "(a)Open (b)Closed", "(a) 4(b) 5")
    rows = [[n + 1, "Which?", text, "(b)"] for n, text in enumerate(options)]
    for number in range(1, 4):
        save_picture(folder / "MMVP Images" / f"{number}.jpg")
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["lndex", "Question", "Options", "Correct Answer"], *rows])


def _omnispatial(folder: Path) -> None:
    rows = []
    save_picture(folder / "OmniSpatial-test" / "Dynamic_Reasoning" / "0.png")
    for answer, sub_task in enumerate(("Motion_Analysis", "Manipulation")):
        row = {"id": "0_0", "question": "Where is it?", "options": ["left", "right"], "answer": answer}
        rows.append({**row, "gt": "AB"[answer], "task_type": "Dynamic_Reasoning", "sub_task_type": sub_task})
    (folder / "OmniSpatial-test" / "data.json").write_text(json.dumps(rows), encoding="utf-8")


# --------------------------------------------------------------------------------------------------------- VLMEvalKit's
def _treebench(folder: Path) -> None:
    text = layouts.base64.b64encode(picture("tree")).decode()
    row = {"question": "What is it made of?", "A": "wood", "B": "None", "answer": "B", "image": text}
    asked = {"question": "What is written?\nA. STOP\nB. SHOP", "answer": "A", "image": text}
    boxes = {"target_instances": "[[10, 20, 30, 40], [1, 2, 3, 4]]", "category": "Perception/Material"}
    other = {"target_instances": '[{"bbox": [5, 6, 7, 8]}, null]', "category": "Perception/OCR"}
    columns = ["index", "question", "A", "B", "C", "D", "answer", "category", "target_instances", "image"]
    _tsv(folder / "TreeBench.tsv", columns, [{"index": 0, **row, **boxes}, {"index": 1, **asked, **other}])


def _easi(folder: Path) -> None:
    save_picture(folder / "SPBench" / "data" / "scene0" / "1.jpg")
    save_picture(folder / "SPBench" / "data" / "scene0" / "2.jpg")
    one, two = "/data/scene0/1.jpg", "['/data/scene0/1.jpg', '/data/scene0/2.jpg']"
    rows = [
        {"question": "Which way?", "candidates": "['A. left', 'B. right']", "answer": "B", "image_path": one},
        {"question": "Which way?", "candidates": "['up', 'down', 'up']", "answer": "up", "image_path": two},
        {"question": "Which way?", "candidates": "A. near\nB. far", "answer": "A. near", "image_path": one},
        {"question": "How many?", "candidates": "nan", "answer": "4", "image_path": one},
    ]
    columns = ["index", "question", "candidates", "answer", "question_type", "image_path"]
    _tsv(folder / "SPBench-MV.tsv", columns, [{"index": number, **row} for number, row in enumerate(rows)])


SHAPES: Mapping[str, Shape] = {
    "vgr": Shape(
        "vgr",
        "train",
        "THX-21/FoveaToken README.md and scripts/preprocess_vgr.py: files, folder of images, <SOT>…<EOT><image>, both "
        "names of speakers; a published converter of vgr_longcot.parquet: 'Final answer:', stray think tags",
        _vgr,
        [(0, answer, ((10.0, 20.0, 50.0, 60.0),)) for answer in ("cup", "blue cup")]
        + [(2, "oak", ((10.0, 20.0, 50.0, 60.0),))],
    ),
    "viscot": Shape(
        "viscot",
        "train",
        "deepcs233/Visual-CoT tools/convert_data_to_llava_format.py (textcap below textvqa) and README.md",
        _viscot,
        # Metadata files are read in order of their names.
        [(0, answer, None) for answer in ("red", "white", "blue", "green")],
    ),
    "treevgr_rl": Shape(
        "treevgr_rl",
        "train",
        "Haochen-Wang409/TreeVGR README.md and the files of HaochenWang/TreeVGR-RL-37K",
        _treevgr,
        [(2, "rubber", ((10.0, 20.0, 30.0, 40.0),)), (2, "cotton", ())],
    ),
    "sat_v2": Shape(
        "sat",
        "train",
        "arijitray1993/mull scripts/convert_sat_dataset.py: array/SAT-v2",
        lambda folder: _sat_v2(folder, "train"),
        [(2, "closer", None), (2, "left", None)],
    ),
    "sat_static": Shape(
        "sat",
        "static",
        "arijitray1993/SAT and its split SAT_static.parquet",
        lambda folder: layouts._sat(folder, "static", count=2),
        [(2, "closer", None), (2, "left", None)],
    ),
    "sat_v2_test": Shape(
        "sat_real",
        "test",
        "arijitray1993/mull scripts/convert_sat_dataset.py: array/SAT-v2",
        lambda folder: _sat_v2(folder, "test"),
        [(2, "closer", None)] * 2 + [(2, "left", None)] * 2,
    ),
    "mindcube": Shape(
        "mindcube",
        "full",
        "mll-lab-nu/MindCube src/evaluation/core/extractors.py and base_metrics.py",
        _mindcube,
        [(2, "Directly left", None), (2, "Directly right", None), (2, "Directly left", None)],
    ),
    "mmvp": Shape(
        "mmvp",
        "test",
        "tsb0601/MMVP issue 14 (a row of Questions.csv); the space is missing as people report it",
        _mmvp,
        [(2, "Sitting", None), (2, "Closed", None), (2, "5", None)],
    ),
    "omnispatial": Shape(
        "omnispatial",
        "test",
        "qizekun/OmniSpatial README.md and api_eval.py, which tells rows apart by sub_task_type and id",
        _omnispatial,
        [(2, "left", None), (2, "right", None)],
    ),
    "treebench": Shape(
        "vlmevalkit",
        "TreeBench",
        "Haochen-Wang409/TreeVGR inference_treebench.py; open-compass/VLMEvalKit vlmeval/dataset/image_mcq.py",
        _treebench,
        [(2, "None", ((10.0, 20.0, 30.0, 40.0), (1.0, 2.0, 3.0, 4.0))), (2, "STOP", ((5.0, 6.0, 7.0, 8.0),))],
    ),
    "easi": Shape(
        "vlmevalkit",
        "SPBench-MV",
        "VLMEvalKit vlmeval/dataset/spbench.py, viewspatialbench.py and utils/spatial_bench/tools/utils.py",
        _easi,
        [(2, "right", None), (2, "up", None), (2, "near", None), (0, "4", None)],
    ),
}
