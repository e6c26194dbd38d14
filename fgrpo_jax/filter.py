"""The difficulty filter: which training prompts a policy sometimes gets right and sometimes not.

    python -m fgrpo_jax.filter --config=configs/tiny.py --config.data.difficulty.examples=1000 --workdir=runs/filter
    python -m fgrpo_jax.train --config=configs/tiny.py --config.data.filter=runs/filter --workdir=runs/tiny

Every prompt of the training source is answered `data.difficulty.rollouts` times, as training would. Kept are those
with 0 < mean accuracy < 1, and a share `data.difficulty.keep` of the others, chosen by id. Leaves
W/filter/accuracies.jsonl (a line a prompt), kept.jsonl, which training reads, and summary.json. The same command goes
on where a killed one stopped, and comes to the same lists.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgrpo_jax import command


def main(args: argparse.Namespace) -> None:
    """Answers what is not answered yet, then writes the lists."""
    from fgrpo_jax.training.filtering import run  # it takes seconds, for which no mistyped flag should wait

    run(args)


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__, config=True, workdir=True)
    command.add_policy(out)
    out.add_argument("--checkpoint", type=Path, help="a policy as a checkpoint: one, or a run's folder for its newest")
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
