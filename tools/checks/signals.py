"""The faithfulness signals: parsing, judges, their reliability, and what becomes of a judge that fails."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, runs, signals_local, signals_server, signals_text
from checks.record import Check

Group = Callable[[runs.Context], Iterator[Check]]

GROUPS: Mapping[str, Group] = {
    **signals_text.GROUPS,
    "local": signals_local.parity,
    "local_speed": signals_local.throughput,
    "local_run": signals_local.training,
    "server": signals_server.misbehaving,
    "gone": signals_server.gone,
    "overlap": signals_server.overlap,
    "restart": signals_server.restart,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    choice.add_policy_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    context = choice.context(args, scratch, results=runs.ROOT / "docs/checks/signals.json")
    yield from choice.chosen(args, GROUPS, context)
