"""Writes random weights of a released Qwen2.5-VL shape as an HF folder, in shards, for trying conversion at full size.

    python tools/make_random_checkpoint.py --out=FOLDER --size=3B [--layers=36] [--shard_gb=4] [--dtype=bfloat16]

Neither torch nor the model's memory is needed: one block of random numbers is written again and again, each tensor
beginning at another place of it, so that no two are equal. There is no tokenizer.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import released

from fgrpo_jax import command
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training.conversion import DTYPES, bar
from fgrpo_jax.weights.exporter import write_hf
from fgrpo_jax.weights.leaves import Leaf, leaves

_POOL = (1 << 22) + 4099  # numbers; no multiple of a tensor's rows


def released_config(size: str, *, layers: int | None = None) -> ModelConfig:
    """The config of a release, with fewer decoder layers where that is asked for."""
    config = released.flat(size)
    return ModelConfig.from_hf(config if layers is None else config | {"num_hidden_layers": layers})


class RandomArrays:
    """Arrays of N(0, 0.02²) that are cut out of one block (`exporter.Stored`)."""

    def __init__(self, dtype: np.dtype, seed: int):
        numbers = np.random.default_rng(seed).standard_normal(_POOL, np.float32) * np.float32(0.02)
        self._pool = numbers.astype(dtype)

    def rows(self, leaf: Leaf) -> int:
        return 1 if leaf.stacked or leaf.spec.hf.transposed else max(1, _POOL // math.prod(leaf.piece[1:]))

    def read(self, leaf: Leaf, start: int, stop: int) -> np.ndarray:
        """Another stretch of the block for every weight and every row of it."""
        out = np.empty((stop - start, *leaf.spec.shape[1:]), self._pool.dtype)
        flat, at = out.reshape(-1), (sum(map(ord, leaf.path)) * 7919 + start * 104_729) % _POOL
        done = 0
        while done < flat.size:
            part = self._pool[at : at + flat.size - done]
            flat[done : done + part.size] = part
            done, at = done + part.size, 0
        return out


def write(out: Path, config: ModelConfig, *, dtype: str, shard_bytes: float, seed: int = 0, show: bool = False) -> int:
    """Writes the folder, whole or not at all; returns the bytes of its tensors."""
    model, kind = Model.create(config), np.dtype(dtype)
    total = sum(math.prod(leaf.spec.shape) for leaf in leaves(model)) * kind.itemsize
    with bar(total, "write") if show else bar(0, "") as progress:
        write_hf(
            out,
            RandomArrays(kind, seed),
            model,
            dtype=kind,
            shard_bytes=shard_bytes,
            progress=progress.update if show else lambda _: None,
        )
    return total


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--out", required=True, type=Path, help="folder to write; must not exist")
    out.add_argument("--size", choices=released.HUB, default="3B", help="whose shape (%(default)s)")
    out.add_argument("--layers", type=int, help="decoder layers; the release's own by default")
    out.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16", help="(%(default)s)")
    out.add_argument("--shard_gb", type=float, default=4.0, help="GB of a file at most (%(default)s)")
    out.add_argument("--seed", type=int, default=0, help="of the numbers (%(default)s)")
    return out


def main(args: argparse.Namespace) -> None:
    """Writes the folder and says what it holds."""
    config = released_config(args.size, layers=args.layers)
    total = write(args.out, config, dtype=args.dtype, shard_bytes=args.shard_gb * 1e9, seed=args.seed, show=True)
    print(f"{args.out}: {args.size} shape, {config.text.num_layers} layers, {total / 1e9:.2f} GB of {args.dtype}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
