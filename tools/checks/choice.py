"""Which groups of an area run, and on what: --only and --skip, the same for all areas; --policy and --nlvr for some."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from checks import runs
from checks.record import Check
from fgrpo_jax.training import setup

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


def add_policy_flags(parser: argparse.ArgumentParser, groups: Mapping[str, object]) -> None:
    """--policy and --nlvr beside those of `add_flags`, for areas whose groups take a `runs.Context`."""
    nlvr = runs.ROOT.parent / "shared/data/nlvr"
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of the policy under test (%(default)s)")
    parser.add_argument("--nlvr", type=Path, default=nlvr, help="NLVR as published (%(default)s)")
    add_flags(parser, groups)


def context(args: argparse.Namespace, scratch: Path, *, results: Path) -> runs.Context:
    """What groups are run on, by the flags of `add_policy_flags`."""
    return runs.Context(scratch, setup.model_folder(args.policy).absolute(), args.nlvr, results)
