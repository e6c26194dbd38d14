"""Weights: checkpoints in and out, byte by byte; what is off is named; what transformers says of an export."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checks import choice, weights_elsewhere, weights_full_size, weights_parity, weights_refusals, weights_roundtrip
from checks.record import Check
from fgrpo_jax.training import setup


@dataclasses.dataclass(frozen=True)
class Context:
    """What the checks of this area work on.

    Attributes:
      scratch: an empty folder, theirs alone.
      policy: HF folder of a small policy, whole: weights, tokenizer and processor files.
    """

    scratch: Path
    policy: Path


Group = Callable[[Context], Iterator[Check]]

GROUPS: Mapping[str, Group] = {
    "roundtrip": lambda context: weights_roundtrip.checks(context.scratch / "roundtrip", context.policy),
    "dialects": lambda context: weights_parity.dialects(context.scratch / "dialects", context.policy),
    "hub": lambda context: weights_parity.hub(context.scratch / "hub", context.policy),
    "verify": lambda context: weights_parity.verify(context.scratch / "verify", context.policy),
    "video": lambda context: weights_parity.video(context.scratch / "video", context.policy),
    "sizes": lambda context: weights_parity.sizes(context.scratch / "sizes", context.policy),
    "refusals": lambda context: weights_refusals.checks(context.scratch / "refusals", context.policy),
    "elsewhere": lambda context: weights_elsewhere.checks(context.scratch / "elsewhere", context.policy),
    "full_size": lambda context: weights_full_size.checks(context.scratch / "full_size"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this area."""
    parser.add_argument("--policy", default=setup.SHIPPED, help="HF folder of a small policy (%(default)s)")
    choice.add_flags(parser, GROUPS)


def groups(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
    """(name, what runs it) of each group that is asked for."""
    context = Context(scratch, setup.model_folder(args.policy).absolute())
    yield from choice.chosen(args, GROUPS, context)
