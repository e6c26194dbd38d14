"""Orbax checkpoint → HF folder that `transformers` loads.

    python -m fgrpo_jax.export --checkpoint=CHECKPOINT --out=FOLDER [--dtype=bfloat16 --shard_gb=5]

CHECKPOINT is a run's workdir, its checkpoints folder (the newest is taken) or one checkpoint. Tokenizer, processor and
generation files come out of the checkpoint too: nothing else is needed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from fgrpo_jax import command
from fgrpo_jax.convert import DTYPES, bar
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import checkpoint
from fgrpo_jax.weights import hub_folder, page_cache, streams
from fgrpo_jax.weights.exporter import write_hf
from fgrpo_jax.weights.leaves import leaves


def export(
    source: Path,
    out: Path,
    *,
    dtype: str | None = None,
    shard_bytes: float = 5e9,
    process: hub_folder.Process = (0, 1),
    show: bool = False,
) -> Path:
    """Writes the policy of a checkpoint as an HF folder, whole or not at all; returns the checkpoint that was taken.

    Args:
      source, out: anything `checkpoint.resolve` takes, and a folder that is empty or not there.
      dtype: of the tensors; None keeps that of the checkpoint.
      shard_bytes: a file of weights is closed before it grows beyond this.
      process: (k, n): n processes that share a file system write the folder together, this is the k-th.
      show: a progress bar on stderr.
    """
    hub_folder.require_new(out)
    page_cache.keep_freed()
    found = checkpoint.resolve(source)
    files = checkpoint.hf_folder(found)
    model = Model.create(ModelConfig.load(files))
    kind = jnp.dtype(dtype) if dtype else checkpoint.stored_dtype(found)
    checkpoint.require_params(found, model.abstract(kind))
    stored = streams.Stored(found / "params", [leaf.path for leaf in leaves(model)])
    total = sum(math.prod(leaf.spec.shape) for leaf in leaves(model)) * kind.itemsize
    with bar(total // process[1], "export") if show else tqdm(disable=True) as progress:
        how: dict[str, Any] = {"shard_bytes": shard_bytes, "process": process, "progress": progress.update}
        write_hf(out, stored, model, dtype=kind, source=files, **how)
    return found


def parser() -> argparse.ArgumentParser:
    out = command.parser(__doc__)
    out.add_argument("--checkpoint", required=True, type=Path, help="workdir, checkpoints folder or one checkpoint")
    out.add_argument("--out", required=True, type=Path, help="HF folder to make")
    out.add_argument("--dtype", choices=sorted(DTYPES), help="dtype of the tensors; the checkpoint's own by default")
    out.add_argument("--shard_gb", type=float, default=5.0, help="GB of a file of weights at most (%(default)s)")
    out.add_argument("--process_index", type=int, default=0, help="which of the processes that write --out together")
    out.add_argument("--process_count", type=int, default=1, help="how many processes write --out together")
    return out


def main(args: argparse.Namespace) -> None:
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
