"""The shipped warm start: its size, and what it can and cannot do on held-out questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, at_least, at_most, between
from fgrpo_jax.evaluation.figures import means
from fgrpo_jax.evaluation.judged import Answer
from fgrpo_jax.rows import read_rows
from fgrpo_jax.weights.shards import SINGLE

MEGABYTE = 1_000_000
QUESTIONS = 500


def checks(context: runs.Context) -> Iterator[Check]:
    """Size of the folder, number of parameters, figures of 500 held-out questions."""
    size = sum(file.stat().st_size for file in context.policy.rglob("*") if file.is_file())
    yield at_most("warmstart/megabytes", round(size / MEGABYTE, 3), 8)
    yield between("warmstart/parameters", count_parameters(context.policy), 1_400_000, 4_000_000)
    found = figures(answers(context))
    yield at_least("warmstart/questions", found["questions"], QUESTIONS)
    yield at_least("warmstart/format", found["format"], 0.95)
    yield at_least("warmstart/box_iou", found["box_iou"], 0.5)
    yield between("warmstart/accuracy", found["accuracy"], round(found["chance"] + 0.1, 4), 0.8)
    yield between("warmstart/inconsistency", found["inconsistency"], 0.10, 0.35)


def answers(context: runs.Context) -> list[Answer]:
    """One judged answer a held-out question of configs/tiny.py."""
    work = context.scratch / "heldout"
    given = [f"--config={runs.CONFIGS / 'tiny.py'}", f"--config.eval.examples={QUESTIONS}"]
    runs.door("evaluate", *given, f"--hf={context.policy}", f"--workdir={work}").require()
    (file,) = (work / "eval").glob("*.jsonl")
    return read_rows(file)


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the figures over the questions where they are defined, chance, inconsistency, number of questions."""
    found = means([dict(row) for row in rows])
    consistency = found["consistency"]
    return {
        **found,
        "questions": len(rows),
        "chance": float(np.mean([1 / len(row["options"]) for row in rows])),
        "inconsistency": None if consistency is None else 1 - consistency,
    }


def count_parameters(folder: Path) -> int:
    """Elements of all tensors of an HF folder (tied ones are stored once)."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as handle:
            total += sum(int(np.prod(handle.get_slice(name).get_shape())) for name in handle.keys())  # noqa: SIM118
    if not total:
        raise FileNotFoundError(f"no {SINGLE} in {folder}; give an HF folder with --policy=FOLDER")
    return total
