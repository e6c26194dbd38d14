"""Supervised fine-tuning on reference responses: the warm start (stage one of the paper).

    python -m fgrpo_jax.sft --config=configs/warmstart.py --workdir=runs/warmstart

Leaves W/config.json, W/metrics.jsonl (training loss), W/eval.jsonl (validation loss), W/checkpoints/ to resume from and
W/best/, the checkpoint with the lowest validation loss: `python -m fgrpo_jax.export --checkpoint=W/best` makes an HF
folder of it. A run that was stopped goes on where its newest checkpoint stands.
"""

from __future__ import annotations

import argparse

from fgrpo_jax import command


def main(args: argparse.Namespace) -> None:
    """Trains, or goes on training, in `args.workdir`."""
    from fgrpo_jax.training.supervised import train  # it takes seconds, for which no mistyped flag should wait

    train(args)


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    return command.parser(__doc__, config=True, workdir=True)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
