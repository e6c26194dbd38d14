"""Which groups of an area run: --only and --skip, the same for all areas."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from checks.record import Check

ContextT = TypeVar("ContextT")


def add_flags(parser: argparse.ArgumentParser, groups: Mapping[str, object]) -> None:
    """--only=GROUP and --skip=GROUP, each of which may be repeated."""
    parser.add_argument("--only", choices=groups, action="append", help="this group alone; repeat for several")
    parser.add_argument("--skip", choices=groups, action="append", default=[], help="all groups but this; repeat")


def chosen(
    args: argparse.Namespace, groups: Mapping[str, Callable[[ContextT], Iterator[Check]]], context: ContextT
) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it on `context`) of each group that is asked for, in the area's order."""
    for name, group in groups.items():
        if name in (args.only or groups) and name not in args.skip:
            yield name, lambda group=group: group(context)
