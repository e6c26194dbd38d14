"""Held-out figures of a policy over one set or many, with every answer kept and a killed evaluation taken up again.

    python -m fgrpo_jax.evaluate --config=configs/tiny.py --workdir=runs/eval [--hf=DIR_OR_ID | --checkpoint=C]
    python -m fgrpo_jax.evaluate --config=configs/eval.py --config.eval.root=BENCHMARKS --hf=DIR_OR_ID --workdir=W

    python -m fgrpo_jax.evaluate compare W1 W2 [W3 ...]

Without --hf and --checkpoint it evaluates the config's own starting policy; without config.eval.sets the questions are
those of config.data. Leaves W/eval/SET.jsonl, a line a question with the whole answer, and W/eval/results.json, .md
and .tex; prints the tables. docs/evaluation.md defines every figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fgrpo_jax import command


def main(args: argparse.Namespace) -> None:
    """Evaluates one policy and writes what it answered."""
    from fgrpo_jax.evaluation.over_sets import evaluate  # it takes seconds, for which no mistyped flag should wait

    evaluate(args)


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__, config=True)
    out.add_argument("--workdir", required=True, type=Path, help="folder for answers and results")
    command.add_policy(out)
    command.add_processes(out)
    out.add_argument("--checkpoint", type=Path, help="a policy as a checkpoint: one, or a run's folder for its newest")
    return out


def run(argv: Sequence[str] | None = None) -> int:
    """The command, or with 'compare' as its first word the comparison of evaluated runs."""
    given = sys.argv[1:] if argv is None else argv
    if list(given[:1]) == ["compare"]:
        from fgrpo_jax.evaluation import comparing

        return command.run(comparing.main, comparing.parser(), given[1:])
    return command.run(main, parser(), given)


if __name__ == "__main__":
    raise SystemExit(run())
