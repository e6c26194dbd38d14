"""Commands killed half-way and started again: they come to the very files of an unbroken run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from checks import nlvr, runs
from checks.record import Check, at_least, at_most, below, between, same, skipped

QUESTIONS, BATCH = 200, 20
EXAMPLES, FILTER_BATCH = 64, 8
WAITING = 0.2


def apart(whole: Path, broken: Path) -> list[str]:
    """Names of the files of two folders that differ or that one of them lacks."""
    one, other = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in (whole, broken))
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def lines(file: Path) -> int:
    """Whole lines of a file, which may not be there yet."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


# ------------------------------------------------------------------------------------------------------------- prepare
def prepare(context: runs.Context) -> Iterator[Check]:
    """`prepare` killed at three points."""
    root = context.scratch / "killed"
    _write_images(root / "in", count=48)

    def flags(out: str) -> list[str]:
        return ["jsonl", f"--src={root / 'in'}", f"--out={root / out}", "--split=train", "--shard=2", "--workers=2"]

    def shards() -> int:
        return len(list((root / "out").glob("*.array_record-?????-of-?????")))

    runs.door("prepare", *flags("whole")).require()
    for least in (1, 8, 16):
        runs.kill_door("prepare", *flags("out"), when=lambda least=least: shards() >= least)
        begun = (root / "out" / "dataset_info.json").exists()
        yield same(f"prepare/killed at shard {least} of 24: a data set is there", begun, False)
    runs.door("prepare", *flags("out")).require()
    yield same("prepare/files that differ from an uninterrupted run's", apart(root / "whole", root / "out"), [])


def _write_images(folder: Path, *, count: int) -> None:
    """A set in our own format, of images that take a while."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 256, (500, 600, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
        rows.append({"id": str(index), "question": "Where?", "answer": "there", "images": [f"{index}.png"]})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ------------------------------------------------------------------------------------------------------------ evaluate
def evaluate(context: runs.Context) -> Iterator[Check]:
    """On the built-in world, greedy and sampled, and on NLVR's photographs."""
    world = {"eval.examples": QUESTIONS, "model.hf": context.policy}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        given = world | {"eval.temperature": temperature}
        yield from _twice(context, f"evaluate/world, {name}", "tiny.py", given, "world-heldout")
    if why := nlvr.untried(context):
        yield skipped("evaluate/nlvr", why, "resumed == unbroken")
        return
    given = world | {"data.path": context.nlvr, "eval.temperature": 0.0}
    yield from _twice(context, "evaluate/nlvr", "nlvr.py", given, "nlvr-hidden")


def _twice(context: runs.Context, name: str, config: str, given: Mapping[str, Any], questions: str) -> Iterator[Check]:
    """One evaluation unbroken, one killed half-way and taken up again: the same files; what they hold is counted."""
    label, cache = re.sub(r"\W+", "-", name), context.scratch / "compiled"
    whole, broken = context.scratch / f"{label}-whole", context.scratch / f"{label}-killed"
    flags = [f"--config={runs.CONFIGS / config}", *runs.overrides({**given, "eval.batch_prompts": BATCH})]
    done = runs.door("evaluate", *flags, f"--workdir={whole}", cache=cache).require()
    answers, begun = (work / "eval" / f"{questions}.jsonl" for work in (whole, broken))
    yield same(f"{name}: answers", lines(answers), QUESTIONS)
    half = lambda: lines(begun) >= QUESTIONS // 2  # noqa: E731
    runs.kill_door("evaluate", *flags, f"--workdir={broken}", when=half, cache=cache)
    yield between(f"{name}: answers when it was killed", lines(begun), QUESTIONS // 2, QUESTIONS - 1)
    runs.door("evaluate", *flags, f"--workdir={broken}", cache=cache).require()
    differing = apart(whole / "eval", broken / "eval")
    yield same(f"{name}: files that differ between the unbroken run and the resumed one", differing, [])
    stated = json.loads((whole / "eval" / "results.json").read_text())["sets"][questions]["figures"]["accuracy"]
    yield same(f"{name}: accuracy, counted by a script of its own", count(answers), stated["value"])
    waited = re.search(r"waiting for data ([\d.]+)%", done.out)
    yield below(f"{name}: share of the time waiting for data", float(waited[1]) / 100 if waited else None, WAITING)


def count(file: Path) -> float:
    """Accuracy from the answers alone: nothing of the package."""
    answers = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    return sum(answer["read"] == answer["gold"] for answer in answers) / len(answers)


# -------------------------------------------------------------------------------------------------------------- filter
def filter_prompts(context: runs.Context) -> Iterator[Check]:
    """The filter killed in the middle; then a training run on its list."""
    cache, whole, killed = context.scratch / "compiled", context.scratch / "whole", context.scratch / "killed"
    sizes = {"data.difficulty.examples": EXAMPLES, "data.difficulty.batch_prompts": FILTER_BATCH}
    given = [f"--config={runs.CONFIGS / 'tiny.py'}", *runs.overrides({"model.hf": context.policy, **sizes})]
    runs.door("filter", *given, f"--workdir={whole}", cache=cache).require()
    begun = killed / "filter" / "accuracies.jsonl"
    runs.kill_door("filter", *given, f"--workdir={killed}", when=lambda: lines(begun) >= 2 * FILTER_BATCH, cache=cache)
    left = lines(begun)
    runs.door("filter", *given, f"--workdir={killed}", cache=cache).require()
    name = "pipeline/filter: prompts answered when it was killed"
    yield between(name, left, 2 * FILTER_BATCH, EXAMPLES - FILTER_BATCH)
    yield same(
        "pipeline/filter: files that differ from a run in one go", apart(whole / "filter", killed / "filter"), []
    )
    found = json.loads((whole / "filter" / "summary.json").read_text(encoding="utf8"))["all"]
    yield at_least("pipeline/filter: prompts kept", found["kept"], found["mixed"])
    yield same("pipeline/filter: prompts tried", found["tried"], EXAMPLES)
    work = context.scratch / "trained"
    runs.door("train", *runs.tiny(context.policy, work, num_steps=2, data__filter=whole), cache=cache).require()
    kept = {json.loads(line)["id"] for line in (whole / "filter" / "kept.jsonl").read_text().splitlines()}
    rows = [line for file in sorted((work / "rollouts").glob("*.jsonl")) for line in file.read_text().splitlines()]
    seen = [json.loads(line)["id"] for line in rows]
    yield same("pipeline/filter: prompts of a run on its list that are not on it", len(set(seen) - kept), 0)
    yield at_most("pipeline/filter: prompts of that run that came twice", len(seen) - len(set(seen)), 0)
