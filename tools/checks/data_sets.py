"""Every set in its published layout: read, prepared, trained on for two steps and evaluated, by the commands.

The files are those of tests/layouts.py: small, in exactly the published columns, types and encodings.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from checks import runs
from checks.record import Check, holds, same
from fgrpo_jax.data.sets.catalogue import SETS, open_set

STEPS = 2
SMALL = {
    "num_steps": STEPS,
    "data.prompts_per_step": 2,
    "rollout.batch_prompts": 2,
    "rollout.group_size": 2,
    "rollout.max_new_tokens": 8,
    "algorithm.micro_batch_prompts": 1,
    "data.max_prompt_tokens": 512,  # the warm start reads other words than the world's byte by byte
    "data.buckets.prompt": (512,),
    "eval.batch_prompts": 2,
}


def layouts() -> ModuleType:
    """tests/layouts.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("layouts", runs.ROOT / "tests" / "layouts.py")
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{runs.ROOT / 'tests'} holds no layouts.py; run this in a checkout of the project")
    module = importlib.util.module_from_spec(spec)
    sys.modules["layouts"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def checks(context: runs.Context) -> Iterator[Check]:
    """One line a set and stage."""
    writers = layouts()
    published, prepared = (context.scratch / "sets" / name for name in ("published", "prepared"))
    names = list(SETS)
    for name in names:
        writers.write(name, published / name)
    yield same("sets/with a layout in tests", sorted(writers.LAYOUTS), sorted(names))
    splits = {name: writers.LAYOUTS[name].split for name in names}
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda name: _prepare(name, splits[name], published / name, prepared / name), names)
        for name, command in zip(names, done, strict=True):
            yield _prepared(name, splits[name], published / name, prepared / name, command)
        first, *rest = names
        cache = context.scratch / "sets" / "cache"
        yield _trained(context, first, splits[first], prepared / first, cache)  # alone: it compiles for all
        yield from pool.map(lambda name: _trained(context, name, splits[name], prepared / name, cache), rest)
    yield from _evaluated(context, writers, splits, prepared, cache)


def _prepare(name: str, split: str, src: Path, out: Path) -> runs.Done:
    return runs.door("prepare", name, f"--src={src}", f"--out={out}", f"--split={split}", "--workers=0")


def _prepared(name: str, split: str, src: Path, out: Path, done: runs.Done) -> Check:
    """The prepared folder gives the examples of the published files."""
    bound = "the examples of the published files"
    if done.code:
        return holds(f"sets/{name}: prepared", False, done.err[-300:], bound)
    one, other = (open_set(name, folder, split=split) for folder in (src, out))
    equal = list(one.entries) == list(other.entries) and all(
        (a == b).all() for k in range(len(one)) for a, b in zip(one[k].images, other[k].images, strict=True)
    )
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))["splits"][split]
    shown = {"examples": len(other), "answers": card["answers"], "licence": SETS[name].licence}
    return holds(f"sets/{name}: prepared", equal and len(one) == card["examples"], shown, bound)


def _trained(context: runs.Context, name: str, split: str, folder: Path, cache: Path) -> Check:
    work = context.scratch / "sets" / "runs" / name
    given: dict[str, Any] = {**SMALL, "data.source": name, "data.path": folder}
    given |= {"data.train_split": f"{split}[1:]", "data.eval_split": f"{split}[:1]"}
    flags = runs.tiny(context.policy, work, **{key.replace(".", "__"): value for key, value in given.items()})
    done = runs.door("train", *flags, cache=cache)
    if done.code:
        return holds(f"sets/{name}: trained", False, done.err[-300:], f"{STEPS} steps")
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return same(f"sets/{name}: steps trained", len(rows), STEPS)


def _evaluated(
    context: runs.Context, writers: ModuleType, splits: dict[str, str], root: Path, cache: Path
) -> Iterator[Check]:
    """All sets in one run of `evaluate`: an answer a question, of the very questions."""
    work = context.scratch / "sets" / "evaluated"
    asked = tuple(f"{name}:{split}" for name, split in splits.items())
    given = {**SMALL, "eval.sets": asked, "eval.root": root, "eval.max_new_tokens": 8}
    flags = runs.tiny(context.policy, work, **{key.replace(".", "__"): value for key, value in given.items()})
    runs.door("evaluate", *flags, cache=cache).require()
    for name, split in splits.items():
        file = work / "eval" / f"{name}-{split}.jsonl"
        answers = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
        source = open_set(name, root / name, split=split)
        found = [answer["id"] for answer in answers]
        yield holds(
            f"sets/{name}: evaluated",
            sorted(found) == sorted(entry.id for entry in source.entries),
            {"answers": len(found)},
            f"an answer to each of its {writers.LAYOUTS[name].count} questions",
        )
