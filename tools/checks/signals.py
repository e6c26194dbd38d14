"""The faithfulness signals: parsing, judges, their reliability, and what becomes of a judge that fails."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, runs, signals_local, signals_server, signals_text
from checks.record import Check
from fgrpo_jax import setup

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
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    parser.add_argument(
        "--nlvr", type=Path, default=runs.ROOT.parent / "shared/data/nlvr", help="NLVR as published (%(default)s)"
    )
    choice.add_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    figures = runs.ROOT / "docs/checks/signals.json"
    context = runs.Context(scratch, setup.model_folder(args.policy).absolute(), args.nlvr, figures)
    yield from choice.chosen(args, GROUPS, context)
