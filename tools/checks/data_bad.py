"""Bad data: an error that names file and row or a counted skip, by the commands; and `prepare` killed in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from checks import data_sets, runs
from checks.record import Check, holds, same

Row = dict[str, Any]
LINE = "train.jsonl, line 2"


def _cases() -> dict[str, tuple[Callable[[Path, Row], None], str]]:
    """What is done to the second of three rows and its files, and what the message must hold besides the place."""
    Image.MAX_IMAGE_PIXELS = None  # of this process: it writes what the commands must refuse

    def truncate(folder: Path, row: Row) -> None:
        data = (folder / "1.png").read_bytes()
        (folder / "1.png").write_bytes(data[: len(data) // 2])

    return {
        "missing image": (lambda folder, row: (folder / "1.png").unlink(), "not in"),
        "image path that climbs out": (lambda folder, row: row.update(images=["../../1.png"]), "leaves"),
        "repeated id": (lambda folder, row: row.update(id="0"), "already stands in"),
        "answer not among the options": (lambda folder, row: row.update(answer="up"), "none of the options"),
        "box outside the image": (lambda folder, row: row.update(boxes=[[0, 0, 999, 9]]), "outside the image"),
        "inverted box": (lambda folder, row: row.update(boxes=[[9, 0, 3, 9]]), "x1 < x2"),
        "truncated image": (truncate, "does not decode"),
        "100 megapixels": (lambda folder, row: Image.new("1", (10_000, 10_000)).save(folder / "1.png"), "100,000,000"),
    }


def checks(context: runs.Context) -> Iterator[Check]:
    """Each kind of bad row, refused and skipped by `prepare`; one of each by training; a corrupt Parquet file."""
    root = context.scratch / "bad"
    cases = _cases()
    for name, (spoil, _) in cases.items():
        _write(root / name, spoil)
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda name: _refused(root / name, name, cases[name][1]), cases)
        yield from pool.map(lambda name: _skipped(root / name, name), cases)
    yield from _corrupt_parquet(root)
    yield from _in_training(context, root / "truncated image")


def _write(folder: Path, spoil: Callable[[Path, Row], None]) -> None:
    writers = data_sets.layouts()
    rows = [
        {"id": str(k), "question": "Where is it?", "options": ["left", "right"], "answer": "A", "images": [f"{k}.png"]}
        for k in range(3)
    ]
    for k in range(3):
        writers.save_picture(folder / f"{k}.png")
    spoil(folder, rows[1])
    for split in ("train", "validation"):
        writers.save_lines(folder / f"{split}.jsonl", rows if split == "train" else rows[:1])


def _prepare(folder: Path, out: Path, bad: str) -> runs.Done:
    return runs.door("prepare", "jsonl", f"--src={folder}", f"--out={out}", "--split=train", f"--bad={bad}")


def _refused(folder: Path, name: str, words: str) -> Check:
    out = folder / "error"
    done = _prepare(folder, out, "error")
    message = next((line for line in reversed(done.err.splitlines()) if line.startswith("error: ")), done.err[-300:])
    good = bool(done.code) and LINE in message and words in message and not (out / "dataset_info.json").exists()
    return holds(f"bad data/{name}: refused", good, message[:300], f"an error with {LINE!r} and {words!r}")


def _skipped(folder: Path, name: str) -> Check:
    out = folder / "skip"
    done = _prepare(folder, out, "skip")
    if done.code:
        return holds(f"bad data/{name}: skipped", False, done.err[-300:], "1 of 3 rows left out")
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))["splits"]["train"]
    shown = {"examples": card["examples"], "skipped": card["skipped"]["kinds"]}
    good = card["examples"] == 2 and [bad["place"] for bad in card["skipped"]["rows"]] == [LINE]
    return holds(f"bad data/{name}: skipped", good, shown, "1 of 3 rows left out, with its place in the card")


def _corrupt_parquet(root: Path) -> Iterator[Check]:
    folder = data_sets.layouts().write("realworldqa", root / "parquet")
    file = folder / "data" / "test-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    for bad, words in (("error", "not a whole Parquet file"), ("skip", "")):
        out = root / f"parquet-{bad}"
        done = runs.door("prepare", "realworldqa", f"--src={folder}", f"--out={out}", f"--bad={bad}")
        if bad == "error":
            good = bool(done.code) and words in done.err and file.name in done.err and "Traceback" not in done.err
            yield holds("bad data/corrupt Parquet: refused", good, done.err[-200:], f"an error with {file.name!r}")
        else:
            card = json.loads((out / "card.json").read_text(encoding="utf-8"))["splits"]["test"]
            yield same("bad data/corrupt Parquet: examples left", card["examples"], 2)


def _in_training(context: runs.Context, folder: Path) -> Iterator[Check]:
    """What only pixels show: met in a worker process, and left out before the run."""
    fields = {**data_sets.SMALL, "data.source": "jsonl", "data.path": folder, "data.eval_split": "validation"}
    for bad, workers in (("error", 1), ("skip", 0)):
        work = context.scratch / "bad" / f"run-{bad}"
        given = {**fields, "data.bad": bad, "data.workers": workers}
        done = runs.door(
            "train", *runs.tiny(context.policy, work, **{key.replace(".", "__"): v for key, v in given.items()})
        )
        if bad == "error":
            message = next((line for line in reversed(done.err.splitlines()) if line.startswith("error: ")), "")
            good = bool(done.code) and LINE in message
            yield holds("bad data/training, a worker meets it", good, message[:300] or done.err[-300:], f"{LINE!r}")
        else:
            good = not done.code and "1 rows skipped (1 image that does not decode)" in done.err
            yield holds("bad data/training leaves it out", good, done.err[-200:], "two steps, and the count")


# --------------------------------------------------------------------------------------------------------------- killed
def killed(context: runs.Context) -> Iterator[Check]:
    """`prepare` killed at three points and started again comes to the very files of an uninterrupted one."""
    root = context.scratch / "killed"
    writers = data_sets.layouts()
    rows = []
    for k in range(48):
        writers.save_picture(root / "in" / f"{k}.png", size=(600, 500))
        rows.append({"id": str(k), "question": "Where?", "answer": "there", "images": [f"{k}.png"]})
    writers.save_lines(root / "in" / "train.jsonl", rows)

    def flags(out: str) -> list[str]:
        return ["jsonl", f"--src={root / 'in'}", f"--out={root / out}", "--split=train", "--shard=2", "--workers=2"]

    runs.door("prepare", *flags("whole")).require()
    for shards in (1, 8, 16):
        found = lambda least=shards: len(list((root / "out").glob("*.array_record-?????-of-?????"))) >= least  # noqa: E731
        runs.kill_door("prepare", *flags("out"), when=found)
        yield holds(
            f"prepare/killed at shard {shards} of 24: no data set",
            not (root / "out" / "dataset_info.json").exists(),
            len(list((root / "out").glob("*.array_record-?????-of-?????"))),
            "no dataset_info.json",
        )
    runs.door("prepare", *flags("out")).require()
    one, other = (
        {file.name: file.read_bytes() for file in sorted((root / name).iterdir())} for name in ("whole", "out")
    )
    yield same("prepare/files that differ from an uninterrupted run's", [n for n in one if one[n] != other.get(n)], [])
    yield same("prepare/files besides", sorted(set(other) - set(one)), [])
