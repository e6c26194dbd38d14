"""What all areas have in common: an area is a mapping of groups, a group some parts, a part yields checks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import runs
from checks.record import Check
from fgrpo_jax.training import setup

Part = Callable[[runs.Context], Iterator[Check]]
"""A table of tests (`nodes.Nodes`), or code for what no test can show."""

Groups = Mapping[str, tuple[Part, ...]]


def add_flags(parser: argparse.ArgumentParser, groups: Groups) -> None:
    """--only=GROUP and --skip=GROUP, each of which may be repeated, and what the groups work on."""
    nlvr = runs.ROOT.parent / "shared/data/nlvr"
    parser.add_argument("--only", choices=groups, action="append", help="this group alone; repeat for several")
    parser.add_argument("--skip", choices=groups, action="append", default=[], help="all groups but this; repeat")
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    parser.add_argument("--nlvr", type=Path, default=nlvr, help="NLVR as published (%(default)s)")
    parser.add_argument("--keep", type=Path, help="new folder to work in, which is kept; a temporary one by default")


def chosen(
    args: argparse.Namespace, groups: Groups, context: runs.Context
) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it on `context`) of each group that is asked for, in the area's order."""
    for name, parts in groups.items():
        if name in (args.only or groups) and name not in args.skip:
            yield name, lambda parts=parts: (check for part in parts for check in part(context))
