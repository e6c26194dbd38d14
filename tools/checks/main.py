"""The main job: the shipped policy, the README's run, NLVR, conversion, resuming, devices, the equations, bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import algebra, choice, devices, heldout, nlvr, readme_run, refusals, resume, roundtrip, runs
from checks.record import Check, below
from fgrpo_jax.rows import read_rows

Group = Callable[[runs.Context], Iterator[Check]]


def sampler_checks(context: runs.Context) -> Iterator[Check]:
    """Sampler and learner run the same model: every step of every run that was made, and of those on file."""
    found = readme_run.logp_differences(context.results)
    for file in sorted(context.scratch.rglob("metrics.jsonl")):
        steps = [row["sampler/logp_diff_mean"] for row in read_rows(file)]
        if steps:
            found[str(file.parent.relative_to(context.scratch))] = max(steps)
    worst = max(found, key=lambda name: found[name], default=None)
    name = f"sampler/logp_diff_mean, worst step of {len(found)} runs"
    yield below(name, None if worst is None else found[worst], 1e-4)


GROUPS: Mapping[str, Group] = {
    "algebra": algebra.checks,
    "readme_run": readme_run.checks,
    "convert_export": roundtrip.checks,
    "refusals": refusals.checks,
    "warmstart": heldout.checks,
    "resume": resume.checks,
    "devices": devices.checks,
    "nlvr": nlvr.checks,
    "sampler": sampler_checks,  # last: it reads what the runs of the others left
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    out = runs.ROOT / "docs/checks/main.json"
    parser.add_argument("--full", action="store_true", help="the README's command for three seeds, and only its checks")
    parser.add_argument("--out", type=Path, default=out, help="its figures (%(default)s)")
    choice.add_policy_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    context = choice.context(args, scratch, results=args.out)
    if args.full:
        yield "readme_run", lambda: _full(context)
        return
    yield from choice.chosen(args, GROUPS, context)
    print("the test suite is a check of its own: make test, make test-slow", file=sys.stderr)


def _full(context: runs.Context) -> Iterator[Check]:
    readme_run.run(context)
    yield from readme_run.checks(context)
