"""Writers of small files in exactly the layouts in which sets are published: columns, types, image encoding, traps.

`write(name, folder)` writes one set; `SPLITS[name]` says which split it holds and how many examples come out of it. All
is a function of the set's name, so that any test may write the same files again.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (96, 84)  # width, height of most images
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` writes an Image feature


def picture(name: str, *, size: tuple[int, int] = SIZE, form: str = "JPEG") -> bytes:
    """An encoded image whose pixels depend on `name`."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(out, form)
    return out.getvalue()


def save_picture(file: Path, **options: Any) -> None:
    """The picture of a file's name in that file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    form = "JPEG" if file.suffix == ".jpg" else "PNG"
    file.write_bytes(picture("/".join(file.parts[-2:]), form=form, **options))


def save_table(file: Path, rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any], *, group: int = 3) -> None:
    """A Parquet file with several row groups."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(list(schema.items())))
    pq.write_table(table, file, row_group_size=group)


def save_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def embedded(name: str, **options: Any) -> dict[str, Any]:
    return {"bytes": picture(name, **options), "path": f"{name}.jpg"}


# ----------------------------------------------------------------------------------------------------------- benchmarks
def _cv_bench(folder: Path, kind: str) -> None:
    sources = ("ADE20K", "COCO") if kind == "2D" else ("Omni3D",)
    tasks = ("Count", "Relation") if kind == "2D" else ("Depth", "Distance")
    rows = []
    for index in range(6):
        choices = ["2", "3", "1", "0"] if index % 2 == 0 else ["left", "right"]
        rows.append(
            {
                "idx": index + (0 if kind == "2D" else 1438),
                "type": kind,
                "task": tasks[index % 2],
                "image": embedded(f"cv-{kind}-{index}"),
                "question": "How many pens are in the image?" if index % 2 == 0 else "Where is the cat?",
                "choices": choices,
                "answer": f"({'ABCD'[index % len(choices)]})",
                "prompt": "How many pens are in the image? Select from the following choices.\n(A) 2\n(B) 3",
                "filename": f"img/{kind}/{index}.png",
                "source": sources[index % len(sources)],
                "source_dataset": "val",
                "source_filename": f"{index}.jpg",
                "target_class": None,
                "target_size": None,
                "bbox": [[1.0, 2.0, 3.0, 4.0]] if kind == "3D" else None,
            }
        )
    text, box = pa.string(), pa.list_(pa.list_(pa.float64()))
    schema = {"idx": pa.int64(), "type": text, "task": text, "image": IMAGE, "question": text}
    schema |= {"choices": pa.list_(text), "answer": text, "prompt": text, "filename": text, "source": text}
    schema |= {
        "source_dataset": text,
        "source_filename": text,
        "target_class": text,
        "target_size": pa.list_(pa.int64()),
    }
    save_table(folder / f"test_{kind.lower()}.parquet", rows, schema | {"bbox": box})


def _mindcube(folder: Path) -> None:
    rows = []
    for index, setting in enumerate(("among", "around", "rotation", "among")):
        images = [f"other_all_image/{setting}/group{index}/{view}.jpg" for view in ("front", "left")]
        for name in images:
            save_picture(folder / name)
        rows.append(
            {
                "id": f"{setting}_group{index}_q{index}_1",
                "category": ["perpendicular", "self"],
                "type": "linear",
                "meta_info": [["cup"], ["front", "left"]],
                "question": "Based on these two views showing the same scene: in which direction did I move from the "
                "first view to the second view? A. Directly left B. Diagonally forward and right C. Directly right",
                "images": images,
                "gt_answer": "ABC"[index % 3],
            }
        )
    save_lines(folder / "raw" / "MindCube_tinybench.jsonl", rows)


def _mmvp(folder: Path) -> None:
    rows = []
    for index in (1, 2, 99, 100, 279, 280):
        save_picture(folder / "MMVP Images" / f"{index}.jpg")
        published = "(a)" if index % 2 else "(b)"  # as in the published file, wrong for the last four
        rows.append([index, "Are the butterfly's wings open?", "(a) Open (b) Closed", published])
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["lndex", "Question", "Options", "Correct Answer"], *rows])


def _omnispatial(folder: Path) -> None:
    rows = []
    for task in ("Dynamic_Reasoning", "Perspective_Taking"):
        for index in range(2):
            save_picture(folder / "OmniSpatial-test" / task / f"{index}.png")
            for part in range(2):
                options = ["left", "right", "front", "back"][: 2 + index + part]
                rows.append(
                    {
                        "id": f"{index}_{part}",
                        "question": "Where is the door?",
                        "options": options,
                        "answer": (index + part) % len(options),
                        "gt": "ABCD"[(index + part) % len(options)],
                        "task_type": task,
                        "sub_task_type": "Manipulation",
                    }
                )
    (folder / "OmniSpatial-test" / "data.json").write_text(json.dumps(rows), encoding="utf-8")


def _realworldqa(folder: Path) -> None:
    chosen = (
        "In which direction is the front wheel of the car on the right side facing?\n\nA. Left\nB. Straight\nC. Right\n"
        "Please answer directly with only the letter of the correct option and nothing else."
    )
    opened = "How many pedestrians are there?\nPlease answer directly with a single word or number."
    for shard in range(2):
        rows = [
            {"image": embedded(f"real-{shard}-0", form="PNG"), "question": chosen, "answer": "C"},
            {"image": embedded(f"real-{shard}-1", form="PNG"), "question": opened, "answer": "2"},
        ]
        schema = {"image": IMAGE, "question": pa.string(), "answer": pa.string()}
        save_table(folder / "data" / f"test-0000{shard}-of-00002.parquet", rows, schema)


def _sat(folder: Path, split: str, *, count: int) -> None:
    rows = []
    for index in range(count):
        answers = [("closer", "further"), ("left", "right"), ("yes", "no")][index % 3]
        rows.append(
            {
                "image_bytes": [picture(f"sat-{split}-{index}-{k}") for k in range(1 + index % 2)],
                "question": "If I move forward, is the red chair closer?",
                "answers": list(answers),  # the right one first
                "question_type": ("obj_movement", "ego_movement")[index % 2],
                "correct_answer": answers[0],
            }
        )
    schema = {"image_bytes": pa.list_(pa.binary()), "question": pa.string(), "answers": pa.list_(pa.string())}
    schema |= {"question_type": pa.string(), "correct_answer": pa.string()}
    save_table(folder / f"SAT_{split}.parquet", rows, schema)


# -------------------------------------------------------------------------------------------------------- training sets
def _vgr(folder: Path) -> None:
    rows = []
    for name, options in (("coco/train2017/1.jpg", False), ("ai2d/images/1.jpg", True)):
        save_picture(folder / name, size=(100, 80))
        asking = "What is on the table?\nAnswer the question using a single word or phrase."
        if options:
            asking = (
                "Which is a plant?\nA. oak\nB. wolf\nAnswer with the option's letter from the given choices directly."
            )
        thought = "<think>The cup <sot>[0.1, 0.25, 0.5, 0.75]<eot> stands beside a plate.</think>"
        turns = [("human", f"<image>\n{asking}"), ("gpt", f"{thought}\n{'A' if options else 'cup'}")]
        conversations = [{"from": who, "value": said} for who, said in turns]
        rows.append({"id": "1", "image": name, "conversations": conversations})  # an image's id, not a row's
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    save_table(folder / "vgr.parquet", rows, {"id": pa.string(), "image": pa.string(), "conversations": pa.list_(turn)})


def _viscot(folder: Path) -> None:
    for dataset, question in (("flickr30k", "What colour is the hat?"), ("gqa", "What is the man holding?")):
        save_picture(folder / "cot" / dataset / "17.jpg")  # one base name in two folders
        rows = [
            {
                "question": question,
                "answer": "red" if dataset == "flickr30k" else "umbrella",
                "image": "17.jpg",
                "width": SIZE[0],
                "height": SIZE[1],
                "bboxs": [[10, 12, 40, 44]],
                "dataset": dataset,
                "split": split,
            }
            for split in ("train", "val")
        ]
        save_lines(folder / "metadata" / f"{dataset}_cot_train.jsonl", rows)


def _treevgr_rl(folder: Path) -> None:
    rows = []
    for index in range(3):
        name = f"images/{index}.jpg"
        save_picture(folder / name)
        problem = "<image>What is the material of the glove?\n(A) rubber\n(B) cotton\n(C) kevlar"
        instances = [{"bbox": [10.0, 20.0, 30.0 + index, 40.0], "name": "glove"}]
        rows.append({"images": [name], "problem": problem, "answer": "ABC"[index], "target_instances": instances})
    instance = pa.struct([("bbox", pa.list_(pa.float64())), ("name", pa.string())])
    schema = {"images": pa.list_(pa.string()), "problem": pa.string(), "answer": pa.string()}
    save_table(folder / "vstar30k_visdrone6k_x1y1x2y2.parquet", rows, schema | {"target_instances": pa.list_(instance)})


def _vigorl(folder: Path) -> None:
    rows = []
    for index in range(3):
        images = [f"spatial_reasoning/images/image_{index}_{k}.png" for k in range(1 + index % 2)]
        for name in images:
            save_picture(folder / name)
        prompt = "<image>\n" * len(images) + "Question: How did the camera rotate? Answer Choices:\n(A) rotated left\n"
        prompt += "(B) did not move\n(C) rotated right\nAnswer with the text of the option."
        answer = ("rotated right", "rotated left", "did not move")[index]
        rows.append({"images": images, "prompt": prompt, "answer": answer})
    save_lines(folder / "spatial_reasoning" / "vigorl_sat2_train_RL.jsonl", rows)


def _geometry3k(folder: Path) -> None:
    rows = [
        {"images": [embedded(f"geometry-{index}", form="PNG")], "problem": "<image>Find $x$.", "answer": answer}
        for index, answer in enumerate(("3", "12", "2 \\sqrt { 221 }"))
    ]
    schema = {"images": pa.list_(IMAGE), "problem": pa.string(), "answer": pa.string()}
    save_table(folder / "data" / "train-00000-of-00001.parquet", rows, schema)


# -------------------------------------------------------------------------------------------------------------- formats
def _nlvr(folder: Path) -> None:
    lines = []
    for number, label in enumerate(("true", "false")):
        place = folder / "dev" / "images" / "3"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.full((100, 400, 4), 255, np.uint8)
        pixels[80:100, 190:210] = (255, 255, 0, 255)
        Image.fromarray(pixels).save(place / f"dev-{number}-0-0.png")
        item = {"x_loc": 40, "y_loc": 80, "size": 20, "type": "square", "color": "Yellow"}
        line = {"sentence": "There is a block.", "identifier": f"{number}-0", "label": label, "directory": "3"}
        lines.append(line | {"structured_rep": [[], [item], []]})
    save_lines(folder / "dev" / "dev.json", lines)


def _vlmevalkit(folder: Path) -> None:
    text = base64.b64encode(picture("tsv")).decode()
    save_picture(folder / "images" / "Spatial" / "3.jpg")
    rows = [
        {"index": 0, "question": "Where is it?", "A": "left", "B": "right", "answer": "B", "image": text},
        {"index": 1, "question": "Which is it?", "A": "cup", "B": "pen", "C": "hat", "answer": "A", "image": "0"},
        {"index": 2, "question": "Two views.", "A": "up", "B": "down", "answer": "B", "image": str([text, text])},
        {"index": 3, "question": "Say\nhow many.", "answer": "4", "image_path": "3.jpg", "hint": "Count with care."},
    ]
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "image_path"]
    with (folder / "Spatial.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows({"category": "relation", **row} for row in rows)


OWN = (
    {"id": "a", "question": "Where is it?", "options": ["left", "right"], "answer": "B", "boxes": [[0, 0, 28.5, 30]]},
    {"id": "b", "question": "How many are there?", "answer": "2", "tags": {"task": "count"}, "licence": "CC0-1.0"},
    {"id": "c", "question": "Which?", "options": ["cup", "pen", "hat"], "answer": "hat", "source": "mine"},
)


def _jsonl(folder: Path) -> None:
    rows = []
    for number, row in enumerate(OWN):
        save_picture(folder / "images" / f"{number}.png")
        rows.append({**row, "images": [f"images/{number}.png"]})
    save_lines(folder / "train.jsonl", rows)


def _parquet(folder: Path) -> None:
    rows = [
        {**row, "tags": list(row.get("tags", {}).items()), "images": [embedded(f"own-{number}")]}
        for number, row in enumerate(OWN)
    ]
    text = pa.string()
    schema = {"id": text, "images": pa.list_(IMAGE), "question": text, "options": pa.list_(text), "answer": text}
    schema |= {"boxes": pa.list_(pa.list_(pa.float64())), "source": text, "licence": text, "tags": pa.map_(text, text)}
    save_table(folder / "train.parquet", rows, schema)


@dataclasses.dataclass(frozen=True)
class Written:
    """What a writer writes: the split, examples that come out of it, and who writes."""

    split: str
    count: int
    write: Callable[[Path], None]


LAYOUTS: Mapping[str, Written] = {
    "cv_bench_2d": Written("test", 6, lambda folder: _cv_bench(folder, "2D")),
    "cv_bench_3d": Written("test", 6, lambda folder: _cv_bench(folder, "3D")),
    "mindcube": Written("tinybench", 4, _mindcube),
    "mmvp": Written("test", 6, _mmvp),
    "omnispatial": Written("test", 8, _omnispatial),
    "realworldqa": Written("test", 4, _realworldqa),
    "sat_real": Written("test", 8, lambda folder: _sat(folder, "test", count=4)),
    "sat": Written("train", 7, lambda folder: _sat(folder, "train", count=7)),
    "vgr": Written("train", 2, _vgr),
    "viscot": Written("train", 2, _viscot),
    "treevgr_rl": Written("train", 3, _treevgr_rl),
    "vigorl": Written("train", 3, _vigorl),
    "geometry3k": Written("train", 3, _geometry3k),
    "nlvr": Written("dev", 2, _nlvr),
    "vlmevalkit": Written("Spatial", 4, _vlmevalkit),
    "jsonl": Written("train", 3, _jsonl),
    "files": Written("train", 3, _jsonl),
    "parquet": Written("train", 3, _parquet),
}


def write(name: str, folder: Path) -> Path:
    """Writes the set's files below `folder` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    LAYOUTS[name].write(folder)
    return folder
