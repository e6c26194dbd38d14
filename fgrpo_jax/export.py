"""Orbax checkpoint → HF folder that `transformers` loads.

    python -m fgrpo_jax.export --checkpoint=CHECKPOINT --out=FOLDER [--dtype=bfloat16 --shard_gb=5]

CHECKPOINT is a run's workdir, its checkpoints folder (the newest is taken) or one checkpoint. Tokenizer, processor and
generation files come out of the checkpoint too: nothing else is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgrpo_jax import command


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__)
    out.add_argument("--checkpoint", required=True, type=Path, help="workdir, checkpoints folder or one checkpoint")
    out.add_argument("--out", required=True, type=Path, help="HF folder to make")
    out.add_argument("--dtype", choices=command.DTYPES, help="of the tensors; the checkpoint's own by default")
    out.add_argument("--shard_gb", type=float, default=5.0, help="GB of a file of weights at most (%(default)s)")
    out.add_argument("--process_index", type=int, default=0, help="which of the processes that write --out together")
    out.add_argument("--process_count", type=int, default=1, help="how many processes write --out together")
    return out


def main(args: argparse.Namespace) -> None:
    """Exports one checkpoint."""
    import jax  # these take seconds, for which no mistyped flag should wait

    from fgrpo_jax.training.conversion import export

    jax.config.update("jax_platforms", "cpu")  # a matter of host memory; an accelerator's need not hold the model
    if args.shard_gb <= 0:
        raise ValueError(f"--shard_gb is {args.shard_gb:g}; give a positive number of GB")
    process = (args.process_index, args.process_count)
    if not 0 <= process[0] < process[1]:
        raise ValueError(f"--process_index is {process[0]}; give 0 … {process[1] - 1} for --process_count={process[1]}")
    size = args.shard_gb * 1e9
    found = export(args.checkpoint, args.out, dtype=args.dtype, shard_bytes=size, process=process, show=True)
    print(f"wrote {args.out} from {found}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
