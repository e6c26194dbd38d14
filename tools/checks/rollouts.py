"""The rollout engine: exactness, reproducibility, memory, layout on devices, and what it does against a peer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, rollout_doors, rollout_exactness, rollout_memory, runs
from checks.record import Check
from fgrpo_jax.training import setup

Group = Callable[[runs.Context], Iterator[Check]]

GROUPS: Mapping[str, Group] = {
    "noise": rollout_exactness.noise,
    "layouts": rollout_exactness.layouts,
    "shared_prefix": rollout_exactness.shared_prefix,
    "memory": rollout_memory.checks,
    "peer_greedy": rollout_doors.peer_greedy,
    "frequencies": rollout_doors.frequencies,
    "shapes": rollout_doors.shapes,
    "throughput": rollout_doors.throughput,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    root = runs.ROOT
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    parser.add_argument(
        "--nlvr", type=Path, default=root.parent / "shared/data/nlvr", help="NLVR as published (%(default)s)"
    )
    choice.add_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    figures = runs.ROOT / "docs/checks/rollouts.json"
    context = runs.Context(scratch, setup.model_folder(args.policy).absolute(), args.nlvr, figures)
    yield from choice.chosen(args, GROUPS, context)
