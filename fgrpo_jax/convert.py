"""HF folder → Orbax checkpoint.

    python -m fgrpo_jax.convert --hf=FOLDER --out=CHECKPOINTS [--dtype=float32]
    python -m fgrpo_jax.convert --hf=FOLDER --verify

CHECKPOINTS then holds step 0: weights, config, tokenizer and processor files. `python -m fgrpo_jax.export` turns it
back; without --dtype every tensor is the same, byte by byte. With --verify the model is first compared with that of
transformers, part by part (needs torch); nothing is converted when they differ.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct as flax_struct

from fgrpo_jax import checkpoint, doors
from fgrpo_jax.data import hub
from fgrpo_jax.model import weights
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of dtypes: ours, and those in the header of a safetensors file."""


@flax_struct.dataclass
class Policy:
    """A checkpoint's state when there is nothing but a policy."""

    step: jax.Array  # int32 []
    params: Any


def folder_dtype(folder: Path) -> str:
    """The dtype of the weights in an HF folder, read from the headers of its safetensors files.

    Raises:
      FileNotFoundError: no safetensors files.
      ValueError: a broken header, or several dtypes (converting would change some of them unseen).
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no safetensors files in {folder}; give a folder in HF format")
    found = sorted(
        {entry["dtype"] for file in files for name, entry in _header(file).items() if name != "__metadata__"}
    )
    names = [ours for ours, theirs in DTYPES.items() if theirs in found]
    if len(found) != 1 or not names:
        raise ValueError(f"the weights in {folder} are of dtypes {', '.join(found)}; choose one with --dtype")
    return names[0]


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        size = stream.read(8)
        (length,) = struct.unpack("<Q", size) if len(size) == 8 else (-1,)
        # A truncated or foreign file would otherwise ask for an absurd read.
        text = stream.read(length) if 0 < length <= file.stat().st_size - 8 else b""
    if not text:
        raise ValueError(f"{file} is not a whole safetensors file (its header is cut off); fetch it again")
    return json.loads(text)


def convert(hf: Path, out: Path, *, dtype: str | None = None) -> Path:
    """Writes the policy of an HF folder as step 0 of a new checkpoints folder; returns the step's folder.

    Args:
      dtype: of the stored parameters; None keeps that of the folder.

    Raises:
      FileNotFoundError: no HF folder there.
      FileExistsError: `out` holds something.
      ValueError: tensors that are not the model's, see `weights.load_hf`. Nothing is written then.
    """
    if not (hf / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {hf}; give a folder in HF format")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; choose a new folder")
    model = Model.create(ModelConfig.load(hf))
    params = weights.load_hf(hf, model, dtype=jnp.dtype(dtype or folder_dtype(hf)))
    checkpoints = checkpoint.Checkpoints(out, keep=1)
    try:
        return checkpoints.save(Policy(jnp.int32(0), params), config={}, data={}, hf=hf)
    finally:
        checkpoints.close()


def parser() -> argparse.ArgumentParser:
    out = doors.parser(__doc__)
    doors.add_policy(out, required=True)
    out.add_argument("--out", type=Path, help="checkpoints folder to make")
    out.add_argument("--verify", action="store_true", help="compare with transformers in float32, part by part")
    out.add_argument("--dtype", choices=sorted(DTYPES), help="dtype to store; the folder's own by default")
    return out


def main(args: argparse.Namespace) -> int:
    if args.out is None and not args.verify:
        raise ValueError("nothing to do: give --out=CHECKPOINTS, --verify or both")
    jax.config.update("jax_platforms", "cpu")  # a matter of host memory; an accelerator's need not hold the model
    folder = hub.find(args.hf, revision=args.revision).folder
    if args.verify and not verified(folder):
        return 1
    if args.out is None:
        return 0
    print(f"wrote {convert(folder, args.out, dtype=args.dtype)}")
    return 0


def verified(folder: Path) -> bool:
    """Prints how far each part of the model is from the reference; whether all are within their tolerance."""
    from fgrpo_jax.reporting import verify  # needs torch, which nothing else does

    size = verify.needed_bytes(ModelConfig.load(folder)) / 2**30
    print(f"comparing {folder} with transformers, float32, one model at a time ({size:.2f} GiB of weights)")
    rows = verify.compare(folder)
    print(verify.table(rows))
    off = [row.part for row in rows if not row.ok]
    print(f"beyond tolerance: {', '.join(off)}" if off else "all parts agree")
    return not off


if __name__ == "__main__":
    raise SystemExit(doors.run(main, parser()))
