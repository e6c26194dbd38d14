"""Data and evaluation: readers of published layouts, the pipeline, metrics, and bad data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, data_bad, data_evaluate, data_metrics, data_pipeline, data_sets, runs
from checks.record import Check

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
    choice.add_policy_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    context = choice.context(args, scratch, results=runs.ROOT / "docs/checks/data.json")
    yield from choice.chosen(args, GROUPS, context)
