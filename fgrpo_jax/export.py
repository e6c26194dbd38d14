"""Orbax checkpoint → HF folder that `transformers` loads.

    python -m fgrpo_jax.export --checkpoint=CHECKPOINT --out=FOLDER [--dtype=bfloat16]

CHECKPOINT is a run's workdir, its checkpoints folder (the newest is taken) or one checkpoint. Tokenizer, processor and
generation files come out of the checkpoint too: nothing else is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

from fgrpo_jax import checkpoint, doors
from fgrpo_jax.convert import DTYPES
from fgrpo_jax.model import weights
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model


def export(source: Path, out: Path, *, dtype: str | None = None) -> Path:
    """Writes the policy of a checkpoint as an HF folder, whole or not at all; returns the checkpoint that was taken.

    Args:
      source: anything `checkpoint.resolve` takes.
      out: must not exist, or be empty.
      dtype: of the tensors; None keeps that of the checkpoint.

    Raises:
      FileNotFoundError: no checkpoint there.
      FileExistsError: `out` holds something.
      ValueError: the checkpoint's arrays are not those of its own config.json.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; choose a new folder")
    found = checkpoint.resolve(source)
    files = checkpoint.hf_folder(found)
    model = Model.create(ModelConfig.load(files))
    params = checkpoint.load_params(found, model.abstract(checkpoint.stored_dtype(found)))
    weights.save_hf(out, params, model, dtype=None if dtype is None else jnp.dtype(dtype), source=files)
    return found


def parser() -> argparse.ArgumentParser:
    out = doors.parser(__doc__)
    out.add_argument("--checkpoint", required=True, type=Path, help="workdir, checkpoints folder or one checkpoint")
    out.add_argument("--out", required=True, type=Path, help="HF folder to make")
    out.add_argument("--dtype", choices=sorted(DTYPES), help="dtype of the tensors; the checkpoint's own by default")
    return out


def main(args: argparse.Namespace) -> None:
    jax.config.update("jax_platforms", "cpu")  # a matter of host memory; an accelerator's need not hold the model
    print(f"wrote {args.out} from {export(args.checkpoint, args.out, dtype=args.dtype)}")


if __name__ == "__main__":
    raise SystemExit(doors.run(main, parser()))
