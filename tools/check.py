"""Checks what the project claims and prints one JSON line a check.

    python tools/check.py main           in a quarter of an hour on two cores
    python tools/check.py main --full    first the long runs, whose figures `main` reads from docs/checks/main.json
    python tools/check.py house          the tree itself: sizes, circles, an installation, how fast the commands answer
    python tools/check.py AREA           rollouts, learner, signals, data, files, weights: each some quarter of an hour
    python tools/check.py accelerators   programs of GPUs and TPUs that are not there, two layers of them
    python tools/check.py programs       the same programs whole: an hour or more

Each line is {"check": …, "value": …, "bound": …, "ok": …}. The exit code is 0 when all of them hold, 1 when any does
not or could not be tried (`"ok": null`, with the reason as its value; --skip=GROUP leaves a group out on purpose).
Progress goes to stderr. docs/checks.md says more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what is claimed is claimed of CPU; before jax is imported below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from checks import (
    accelerators,
    areas,
    data,
    files,
    house,
    learner,
    programs,
    readme_run,
    rollouts,
    runs,
    signals,
    weights,
)
from checks import main as main_area
from checks.record import Check, exit_code, holds

from fgrpo_jax import command
from fgrpo_jax.training import setup

AREAS = {
    "main": main_area,
    "house": house,
    "learner": learner,
    "rollouts": rollouts,
    "signals": signals,
    "data": data,
    "files": files,
    "weights": weights,
    "accelerators": accelerators,
    "programs": programs,
}
"""Name → module with `GROUPS` (checks/areas.py)."""


def parser() -> argparse.ArgumentParser:
    """A subcommand an area."""
    out = command.parser(__doc__)
    commands = out.add_subparsers(dest="area", required=True, metavar="AREA")
    for name, area in AREAS.items():
        flags = commands.add_parser(name, help=area.__doc__, description=area.__doc__)
        areas.add_flags(flags, area.GROUPS)
        if name == "main":
            readme_run.add_flags(flags)
    return out


def main(args: argparse.Namespace) -> int:
    """Runs the area's groups; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="fgrpo-check-") as temporary:
        scratch = Path(temporary) if args.keep is None else args.keep.absolute()
        scratch.mkdir(parents=True, exist_ok=args.keep is None)
        results = getattr(args, "out", readme_run.RESULTS)
        context = runs.Context(scratch, setup.model_folder(args.policy).absolute(), args.nlvr, results)
        if getattr(args, "full", False):
            return report([("readme_run", lambda: readme_run.full(context))])
        return report(areas.chosen(args, AREAS[args.area].GROUPS, context))


def report(groups: Iterable[tuple[str, Callable[[], Iterator[Check]]]]) -> int:
    """Prints every check as it comes, and to stderr how long each group took and what does not hold."""
    found: list[Check] = []
    for name, run in groups:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.perf_counter()
        for check in caught(name, run):
            print(check.line, flush=True)
            found.append(check)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    for check in found:
        if check.ok is not True:
            print(f"{'skipped' if check.ok is None else 'NOT OK'}: {check.line}", file=sys.stderr)
    print(f"{sum(check.ok is True for check in found)} of {len(found)} checks hold", file=sys.stderr)
    return exit_code(found)


def caught(name: str, run: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The group's checks; an error in it is a check that does not hold, and the other groups go on."""
    try:
        yield from run()
    except Exception as error:  # whatever it is, it must not hide what the other groups find
        traceback.print_exc()
        yield holds(f"{name}/ran to its end", False, f"{type(error).__name__}: {error}"[:500], "no error")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
