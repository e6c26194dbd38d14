"""HF folder → Orbax checkpoint.

    python -m fgrpo_jax.convert --hf=FOLDER --out=CHECKPOINTS [--dtype=float32]
    python -m fgrpo_jax.convert --hf=FOLDER --verify
    python -m fgrpo_jax.convert --hf=FOLDER --dry_run [--fsdp=8 --tensor=2]

CHECKPOINTS then holds step 0: weights, config, tokenizer and processor files. `python -m fgrpo_jax.export` turns it
back; without --dtype every tensor is the same, byte by byte. With --verify the model is first compared with that of
transformers, part by part (needs torch); nothing is converted when they differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgrpo_jax import command

AXES = ("data", "fsdp", "tensor")


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__)
    command.add_policy(out, required=True)
    out.add_argument("--out", type=Path, help="checkpoints folder to make")
    out.add_argument("--verify", action="store_true", help="compare with transformers in float32, part by part")
    out.add_argument("--dtype", choices=command.DTYPES, help="dtype to store; the folder's own by default")
    out.add_argument("--dry_run", action="store_true", help="print what becomes of each tensor, and write nothing")
    for axis in AXES:
        out.add_argument(f"--{axis}", type=int, default=1, help=f"--dry_run: size of the mesh axis '{axis}'")
    return out


def main(args: argparse.Namespace) -> int:
    """Verifies, shows or converts."""
    if args.out is None and not args.verify and not args.dry_run:
        raise ValueError("nothing to do: give --out=CHECKPOINTS, --verify or both; --dry_run shows the mapping")
    import jax  # these take seconds, for which no mistyped flag should wait

    from fgrpo_jax.data import hub
    from fgrpo_jax.training.conversion import convert, dry_run, verified

    jax.config.update("jax_platforms", "cpu")  # a matter of host memory; an accelerator's need not hold the model
    folder = hub.find(args.hf, revision=args.revision).folder
    if args.dry_run:
        sizes = {axis: getattr(args, axis) for axis in AXES}
        print("\n".join(dry_run(folder, dtype=args.dtype, mesh=sizes)))
        return 0
    if args.verify and not verified(folder):
        return 1
    if args.out is not None:
        print(f"wrote {convert(folder, args.out, dtype=args.dtype, show=True)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
