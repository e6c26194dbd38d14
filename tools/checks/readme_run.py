"""The README's run, three seeds: made by `tools/check.py main --full`, read back by `tools/check.py main`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from checks import runs
from checks.fingerprint import fingerprint
from checks.record import Check, above, at_least, at_most, holds, same
from fgrpo_jax.rows import read_rows

SEEDS = (0, 1, 2)
SECONDS = 600
QUESTIONS = 500
FAITHFUL = ("consistency", "semantic_grounding", "spatial_grounding")
COMMAND = "python tools/check.py main --full"
RESULTS = runs.ROOT / "docs/checks/main.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--full, which makes the runs, and where their figures are."""
    parser.add_argument("--full", action="store_true", help="the README's command for three seeds, and only its checks")
    parser.add_argument("--out", type=Path, default=RESULTS, help="its figures (%(default)s)")


def full(context: runs.Context) -> Iterator[Check]:
    """The runs, then their checks."""
    run(context)
    yield from checks(context)


def run(context: runs.Context) -> None:
    """Runs the README's command once a seed, one after the other, and writes what they gave to `context.results`."""
    before = fingerprint()
    seeds = [_seed(context, seed) for seed in SEEDS]
    if fingerprint() != before:
        raise RuntimeError("the code changed while the runs were going on; leave it alone and start again")
    content = {
        "command": COMMAND,
        "fingerprint": before,
        "machine": f"{len(os.sched_getaffinity(0))} CPU cores",
        "python": platform.python_version(),
        "jax": version("jax"),
        "seeds": seeds,
    }
    context.results.parent.mkdir(parents=True, exist_ok=True)
    beside = context.results.with_name(context.results.name + ".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(context.results)
    print("\n".join([f"wrote {context.results}; for the docs:", *table(content)]), file=sys.stderr)


def table(content: Mapping[str, Any]) -> list[str]:
    """The figures on file as lines of Markdown, which README.md and docs/results.md hold word for word."""
    lines = ["| seed | held-out figure | before | after | change | 95% interval |", "|---|---|---|---|---|---|"]
    for entry in content["seeds"]:
        for name in ("accuracy", *FAITHFUL):
            f = {key: 100 * value for key, value in entry["figures"][name].items() if key != "name"}
            lines.append(
                f"| {entry['seed']} | {name.replace('_', ' ')} | {f['before']:.1f}% | {f['after']:.1f}% "
                f"| {f['change']:+.1f} | [{f['low']:+.1f}, {f['high']:+.1f}] |"
            )
    return lines


def _seed(context: runs.Context, seed: int) -> dict[str, Any]:
    """One run as the README has it, compilation and both evaluations included in its seconds."""
    work = context.scratch / f"seed-{seed}"
    given = {"seed": seed, "model.hf": context.policy}
    config = runs.CONFIGS / "tiny.py"
    done = runs.door("train", f"--config={config}", f"--workdir={work}", *runs.overrides(given)).require()
    print(done.out, file=sys.stderr, flush=True)
    results = json.loads((work / "eval" / "results.json").read_text())
    rows = read_rows(work / "metrics.jsonl")
    return {
        "seed": seed,
        "seconds": round(done.seconds, 1),
        "steps": len(rows),
        "questions": len(read_rows(work / "eval" / "before.jsonl")),
        "logp_diff_mean": max(row["sampler/logp_diff_mean"] for row in rows),
        "figures": results["figures"],
    }


def checks(context: runs.Context) -> Iterator[Check]:
    """Whether the figures on file are of the present code and meet the bounds."""
    if not context.results.is_file():
        yield holds("readme_run/figures on file", False, None, f"{context.results} exists; make it with: {COMMAND}")
        return
    content, present = json.loads(context.results.read_text()), fingerprint()
    yield holds(
        "readme_run/figures are of the present code",
        content["fingerprint"] == present,
        content["fingerprint"][:12],
        f"fingerprint {present[:12]}; make them anew with: {COMMAND}",
    )
    yield same("readme_run/seeds", [entry["seed"] for entry in content["seeds"]], list(SEEDS))
    for entry in content["seeds"]:
        yield from _bounds(entry)


def _bounds(entry: Mapping[str, Any]) -> Iterator[Check]:
    name, figures = f"readme_run/seed {entry['seed']}", entry["figures"]
    yield at_most(f"{name}/seconds", entry["seconds"], SECONDS)
    yield at_least(f"{name}/questions", entry["questions"], QUESTIONS)
    yield at_least(f"{name}/accuracy: change", figures["accuracy"]["change"], 0.10)
    for figure in FAITHFUL:
        found = figures.get(figure, {})
        yield above(f"{name}/{figure}: 95% low of the change", found.get("low"), 0.0)
        yield at_least(f"{name}/{figure}: questions in pairs", found.get("count"), QUESTIONS)


def logp_differences(results: Path) -> dict[str, float]:
    """{run: largest mean |Δlog-prob| of a step} of the runs on file."""
    if not results.is_file():
        return {}
    return {f"seed {entry['seed']}": entry["logp_diff_mean"] for entry in json.loads(results.read_text())["seeds"]}
