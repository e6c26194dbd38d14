"""Data and evaluation: readers of published layouts, the pipeline, metrics, and bad data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, data_bad, data_evaluate, data_metrics, data_pipeline, data_sets, runs
from checks.record import Check
from fgrpo_jax import setup

Group = Callable[[runs.Context], Iterator[Check]]

GROUPS: Mapping[str, Group] = {
    "sets": data_sets.checks,
    "bad_data": data_bad.checks,
    "prepare_killed": data_bad.killed,
    "pipeline": data_pipeline.checks,
    "evaluate": data_evaluate.checks,
    "metrics": data_metrics.checks,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    parser.add_argument(
        "--nlvr", type=Path, default=runs.ROOT.parent / "shared/data/nlvr", help="NLVR as published (%(default)s)"
    )
    choice.add_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    figures = runs.ROOT / "docs/checks/data.json"
    context = runs.Context(scratch, setup.model_folder(args.policy).absolute(), args.nlvr, figures)
    yield from choice.chosen(args, GROUPS, context)
