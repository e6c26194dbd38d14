"""evaluate: half-finished and taken up again, against an independent count, and what it waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checks import runs
from checks.record import Check, below, same, skipped

QUESTIONS = 200
BATCH = 20
WAITING = 0.2


def checks(context: runs.Context) -> Iterator[Check]:
    """On the built-in world, greedy and sampled, and on NLVR's photographs."""
    world = {"eval.examples": QUESTIONS, "model.hf": context.policy}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        given = world | {"eval.temperature": temperature}
        yield from _twice(context, f"evaluate/world, {name}", "tiny.py", given, "world-heldout")
    if not (context.nlvr / "hidden" / "hidden.json").is_file():
        reason = f"no NLVR at {context.nlvr}; give its folder with --nlvr=FOLDER (docs/data.md)"
        yield skipped("evaluate/nlvr", reason, "resumed == unbroken")
        return
    nlvr = {"data.path": context.nlvr, "eval.examples": QUESTIONS, "eval.temperature": 0.0, "model.hf": context.policy}
    yield from _twice(context, "evaluate/nlvr", "nlvr.py", nlvr, "nlvr-hidden")


def _twice(context: runs.Context, name: str, config: str, given: Mapping[str, Any], questions: str) -> Iterator[Check]:
    """One evaluation unbroken, one killed half-way and taken up again: the same files; what they hold is counted."""
    label = re.sub(r"\W+", "-", name)
    whole, broken = context.scratch / f"{label}-whole", context.scratch / f"{label}-killed"
    cache = context.scratch / "compiled"
    flags = [f"--config={runs.CONFIGS / config}", *runs.overrides({**given, "eval.batch_prompts": BATCH})]
    done = runs.door("evaluate", *flags, f"--workdir={whole}", cache=cache).require()
    yield same(f"{name}: answers", len(_lines(whole, questions)), QUESTIONS)
    answers = broken / "eval" / f"{questions}.jsonl"
    half = lambda: answers.is_file() and answers.read_bytes().count(b"\n") >= QUESTIONS // 2  # noqa: E731
    runs.kill_door("evaluate", *flags, f"--workdir={broken}", when=half, cache=cache)
    left = len(answers.read_bytes().split(b"\n")) - 1
    yield Check(
        f"{name}: answers when it was killed", left, f"between 100 and {QUESTIONS - 1}", 100 <= left < QUESTIONS
    )
    runs.door("evaluate", *flags, f"--workdir={broken}", cache=cache).require()
    differing = [
        file.name for file in sorted((whole / "eval").iterdir()) if _bytes(file) != _bytes(broken / "eval" / file.name)
    ]
    yield same(f"{name}: files that differ between the unbroken run and the resumed one", differing, [])
    stated = json.loads((whole / "eval" / "results.json").read_text())["sets"][questions]["figures"]["accuracy"][
        "value"
    ]
    yield same(
        f"{name}: accuracy, counted by a script of its own", count(whole / "eval" / f"{questions}.jsonl"), stated
    )
    waited = re.search(r"waiting for data ([\d.]+)%", done.out)
    yield below(f"{name}: share of the time waiting for data", float(waited[1]) / 100 if waited else None, WAITING)


def count(file: Path) -> float:
    """Accuracy from the answers alone: nothing of the package."""
    right = total = 0
    for line in file.read_text().split("\n")[:-1]:
        answer = json.loads(line)
        total += 1
        right += answer["read"] == answer["gold"]
    return right / total


def _lines(workdir: Path, questions: str) -> list[bytes]:
    return (workdir / "eval" / f"{questions}.jsonl").read_bytes().splitlines()


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""
