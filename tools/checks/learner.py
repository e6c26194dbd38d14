"""The learner: one compiled step that gives the same numbers however its work is split, and what it is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import baselines, choice, dual_dynamics, learner_memory, learner_prefix, learner_splits, runs
from checks.record import Check
from fgrpo_jax.training import setup

Group = Callable[[runs.Context], Iterator[Check]]

GROUPS: Mapping[str, Group] = {
    "baselines": baselines.checks,
    "dual_dynamics": dual_dynamics.checks,
    "prefix": learner_prefix.checks,
    "memory": learner_memory.checks,
    "splits": learner_splits.checks,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    choice.add_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    figures = runs.ROOT / "docs/checks/learner.json"
    context = runs.Context(scratch, setup.model_folder(args.policy).absolute(), runs.ROOT, figures)
    yield from choice.chosen(args, GROUPS, context)
