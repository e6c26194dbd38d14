"""Data sets in the formats of other projects, in small: what users bring.

Each writer names whose loader or sample its shape is taken from. Two splits, `train` and `test`, of `COUNT` questions.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COUNT = 8
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the feature Image of `datasets`


def png(index: int) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 256, (84, 112, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def save(file: Path, index: int = 0) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(index))
    return file.name


def lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def held(index: int) -> dict[str, Any]:
    return {"bytes": png(index), "path": f"{index}.png"}


def easyr1(folder: Path, split: str) -> None:
    """hiyouga/EasyR1, verl/utils/dataset.py (RLHFDataset): problem, answer, images, `<image>` marks in the text; the
    columns are those of hiyouga/geometry3k."""
    rows = [
        {"images": [held(i)], "problem": f"<image>Find x for side {i}.", "answer": str(i), "__index_level_0__": i}
        for i in range(COUNT)
    ]
    schema = {"images": pa.list_(IMAGE), "problem": pa.string(), "answer": pa.string(), "__index_level_0__": pa.int64()}
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(schema.items()))), file)


def easyr1_paths(folder: Path, split: str) -> None:
    """hiyouga/EasyR1, verl/utils/dataset.py: JSON lines, paths joined with `image_dir`; rows without images too."""
    for i in range(COUNT):
        save(folder / "pictures" / "a" / f"{i}.png", i)
    rows = [{"images": [f"a/{i}.png"], "problem": f"<image>How many in {i}?", "answer": i} for i in range(COUNT - 1)]
    lines(folder / "lists" / f"{split}.jsonl", [*rows, {"images": [], "problem": "What is 2 + 2?", "answer": 4}])


def verl(folder: Path, split: str) -> None:
    """volcengine/verl, examples/data_preprocess/geo3k.py and verl/utils/dataset/rl_dataset.py."""
    rows = []
    for i in range(COUNT):
        text = f"<image>Is it left? A. yes B. no. Case {i}"
        about = {"split": split, "index": i, "answer": "B", "question": text}
        row: dict[str, Any] = {"data_source": "me/shapes", "prompt": [{"role": "user", "content": text}]}
        row |= {"images": [held(i)], "ability": "math", "reward_model": {"style": "rule", "ground_truth": "B"}}
        rows.append(row | {"extra_info": about})
    rows[-1]["images"] = None  # text alone, as a column has it
    rows[-1]["prompt"][0]["content"] = "Is two even? A. yes B. no"
    table = pa.Table.from_pylist(rows)
    at = table.column_names.index("images")
    images = pa.array([row["images"] for row in rows], pa.list_(IMAGE))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.set_column(at, "images", images), folder / f"{split}.parquet")


def trl(folder: Path, split: str) -> None:
    """huggingface/trl, examples/scripts/grpo_vlm.py (prompt, image, problem, solution) and
    docs/source/dataset_formats.md ("Vision datasets": contents are lists of parts)."""
    rows = []
    for i in range(COUNT):
        parts = [{"type": "image", "text": None}, {"type": "text", "text": f"Which side, {i}?"}]
        system = [{"type": "text", "text": "Think first."}]
        turns = [{"role": "system", "content": system}, {"role": "user", "content": parts}]
        rows.append({"image": held(i), "prompt": turns, "solution": "<think>It is.</think>\n<answer> left </answer>"})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


def index(folder: Path, split: str, file: str, tags: dict[str, str], columns: dict[str, str]) -> None:
    """An entry of hiyouga/LLaMA-Factory's data/dataset_info.json."""
    info = folder / "dataset_info.json"
    known = json.loads(info.read_text()) if info.is_file() else {}
    about = {"file_name": file, "formatting": "sharegpt", "tags": tags, "columns": columns}
    info.write_text(json.dumps(known | {split: about}))


def llama_factory(folder: Path, split: str) -> None:
    """hiyouga/LLaMA-Factory, data/mllm_demo.json with its entry in data/dataset_info.json: two exchanges a row."""
    rows = []
    for i in range(COUNT):
        save(folder / "mllm_demo_data" / f"{i}.jpg", i)
        said = ["<image>Who are they?", f"Players {i}.", "What are they doing?", "Celebrating."]
        turns = [{"content": text, "role": role} for text, role in zip(said, ["user", "assistant"] * 2, strict=True)]
        rows.append({"messages": turns, "images": [f"mllm_demo_data/{i}.jpg"]})
    (folder / f"mllm_{split}.json").write_text(json.dumps(rows, indent=2))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    index(folder, split, f"mllm_{split}.json", tags, {"messages": "messages", "images": "images"})


def sharegpt(folder: Path, split: str) -> None:
    """hiyouga/LLaMA-Factory, data/README.md: tags and columns of any name."""
    rows = []
    for i in range(COUNT):
        save(folder / f"{i}.png", i)
        turns = [{"who": "asker", "says": f"<image>Count {i}."}, {"who": "bot", "says": "<answer>3</answer>"}]
        rows.append({"talk": turns, "pics": [str((folder / f"{i}.png").absolute())]})
    (folder / f"{split}_file.json").write_text(json.dumps(rows))
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "asker", "assistant_tag": "bot"}
    index(folder, split, f"{split}_file.json", tags, {"messages": "talk", "images": "pics"})


def alpaca(folder: Path, split: str) -> None:
    """hiyouga/LLaMA-Factory, data/README.md, "Alpaca Format" with an `images` column."""
    for i in range(COUNT):
        save(folder / f"{i}.png", i)
    ask = {"instruction": "Name the colour.", "input": "<image>One word.", "output": "red"}
    lines(folder / f"{split}.json", [ask | {"images": [f"{i}.png"]} for i in range(COUNT)])


def vlm_r1(folder: Path, split: str) -> None:
    """om-ai-lab/VLM-R1, README.md ("For your own data") and src/open_r1/grpo_jsonl.py: several files, each with ids of
    its own, images below `--image_folders`, answers that may be numbers, several images in a row."""
    for i in range(COUNT):
        save(folder / "images" / "clevr" / f"{i}.png", i)
    for part in ("count", "size"):
        rows = []
        for i in range(COUNT // 2):
            turns = [
                {"from": "human", "value": f"<image>What number of balls, {i}?"},
                {"from": "gpt", "value": i + 0.5},
            ]
            rows.append({"id": i + 1, "image": f"clevr/{i}.png", "conversations": turns})
        rows[-1] |= {"image": ["clevr/0.png", "clevr/1.png"]}
        rows[-1]["conversations"][0]["value"] = "<image><image>How many in total within the two images?"
        lines(folder / "lists" / f"{part}_{split}.jsonl", rows)


def saved_to_disk(folder: Path, split: str) -> None:
    """huggingface/datasets, `Dataset.save_to_disk` (src/datasets/arrow_dataset.py): Arrow streams, state.json and
    dataset_info.json in a folder a split."""
    rows = [
        {"image": held(i), "question": f"Which, {i}?", "choices": ["cup", "pot"], "answer": i % 2} for i in range(COUNT)
    ]
    table = pa.Table.from_pylist(rows)
    place = folder / split
    place.mkdir(parents=True, exist_ok=True)
    file = place / "data-00000-of-00001.arrow"
    with file.open("wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": file.name}]}))
    (place / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def imagefolder(folder: Path, split: str) -> None:
    """huggingface/datasets, docs/source/image_dataset.mdx: metadata.jsonl with `file_name` in a folder a split."""
    rows = [
        {"file_name": save(folder / split / f"{i:04}.png", i), "question": "Up or down?", "answer": "up"}
        for i in range(COUNT)
    ]
    lines(folder / split / "metadata.jsonl", rows)


@dataclasses.dataclass(frozen=True)
class Format:
    """How a set is written, and what a user says to have it read."""

    write: Callable[[Path, str], None]
    answers: tuple[str, ...]  # of the first and the last row
    path: str = ""  # below the folder
    split: str = "{}"
    images: str = ""  # below the folder
    warns: str = ""  # what is said not to be read


FORMATS = {
    "easyr1": Format(easyr1, ("0", "7"), warns="__index_level_0__"),
    "easyr1_paths": Format(easyr1_paths, ("0", "4"), path="lists", images="pictures"),
    "verl": Format(verl, ("B", "B"), warns="'ability'"),
    "trl": Format(trl, ("left", "left"), warns="system turn"),
    "llama_factory": Format(llama_factory, ("Players 0.", "Players 7."), warns="turns after the first exchange"),
    "sharegpt": Format(sharegpt, ("3", "3")),
    "alpaca": Format(alpaca, ("red", "red")),
    "vlm_r1": Format(vlm_r1, ("0.5", "3.5"), path="lists", split="*_{}", images="images"),
    "saved_to_disk": Format(saved_to_disk, ("A", "B")),
    "imagefolder": Format(imagefolder, ("up", "up")),
}


def write(name: str, folder: Path) -> dict[str, Any]:
    """Writes both splits; the fields of the config with which they are read."""
    form = FORMATS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        form.write(folder, split)
    fields = {"data__source": "files", "data__path": folder / form.path}
    fields |= {"data__images": str(folder / form.images)} if form.images else {}
    return fields | {"data__train_split": form.split.format("train"), "data__eval_split": form.split.format("test")}
