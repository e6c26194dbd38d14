"""Between HF folders and Orbax checkpoints, a layer at a time."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from tqdm import tqdm

from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import checkpoint
from fgrpo_jax.weights import hub_folder, importer, mapping, page_cache, streams
from fgrpo_jax.weights.exporter import write_hf
from fgrpo_jax.weights.leaves import Leaf, leaves
from fgrpo_jax.weights.shards import Shards

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of dtypes: ours, and those in the header of a safetensors file."""

_FULL = ("No space left", "RESOURCE_EXHAUSTED", "File too large", "Disk quota")


@struct.dataclass
class Policy:
    """A checkpoint's state when there is nothing but a policy."""

    step: jax.Array  # int32 []
    params: Any


def folder_dtype(folder: Path) -> str:
    """The dtype of the weights in an HF folder, from the headers of its safetensors files.

    Several dtypes are a ValueError: converting would change some of them unseen.
    """
    tensors = Shards(folder).tensors.values()
    found = sorted({tensor.dtype for tensor in tensors})
    names = [ours for ours, theirs in DTYPES.items() if theirs in found]
    if len(found) != 1 or not names:
        for tensor in tensors:
            tensor.require_float()
        raise ValueError(f"the weights in {folder} are of dtypes {', '.join(found)}; choose one with --dtype")
    return names[0]


def convert(hf: Path, out: Path, *, dtype: str | None = None, show: bool = False) -> Path:
    """Writes the policy of an HF folder as step 0 of a new checkpoints folder; returns the step's folder.

    Tensors go from the mapped files into the checkpoint a layer at a time: the model is never in memory. Nothing is
    written where a tensor is not the model's, and nothing is kept where the disk gets full.

    Args:
      dtype: of the stored parameters; None keeps that of the folder.
      show: a progress bar on stderr.
    """
    hub_folder.require_new(out)
    model = Model.create(ModelConfig.load(hf))
    kind = np.dtype(jnp.dtype(dtype or folder_dtype(hf)))
    source = importer.Source(hf, model)
    total = sum(math.prod(leaf.spec.shape) for leaf in source.leaves) * kind.itemsize
    hub_folder.require_room(out, total)

    def read(leaf: Leaf, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, *leaf.spec.shape[1:]), kind)
        source.read_rows(leaf, start, block)
        progress.update(block.nbytes)
        return block

    page_cache.keep_freed()
    unread = [streams.Unread(leaf, kind, read) for leaf in source.leaves]
    params = jax.tree.unflatten(jax.tree.structure(model.specs), unread)
    with bar(total, "convert") if show else tqdm(disable=True) as progress, hub_folder.appearing(out) as beside:
        step = _save(beside, Policy(jnp.int32(0), params), hf, out).name
    source.warn()
    return out.resolve() / step


def _save(folder: Path, policy: Policy, hf: Path, out: Path) -> Path:
    checkpoints = checkpoint.Checkpoints(folder, keep=1)
    try:
        return checkpoints.save(policy, config={}, data={}, hf=hf)
    except ValueError as error:
        # Tensorstore raises a ValueError whatever went wrong; only a full disk is a person's to mend.
        if not any(words in str(error) for words in _FULL):
            raise
        message = f"{out} could not be written, nothing of it is kept: {str(error)[:300]}; free some room"
        raise OSError(errno.ENOSPC, message) from error
    finally:
        checkpoints.close()


def dry_run(hf: Path, *, dtype: str | None, mesh: dict[str, int]) -> Iterator[str]:
    """The mapping as lines of a table; the weights' headers are checked when they are there, config.json is enough."""
    model = Model.create(ModelConfig.load(hf))
    if any(hf.glob("*.safetensors")):
        importer.Source(hf, model)
        dtype = dtype or folder_dtype(hf)
    yield from mapping.table(mapping.rows(model, dtype=dtype or "bfloat16", **mesh))
    sizes = " × ".join(f"{name}={size}" for name, size in mesh.items())
    yield f"{hf} as {dtype or 'bfloat16'} on {math.prod(mesh.values())} devices ({sizes}); nothing was written"


def bar(total: int, label: str) -> tqdm:
    """A progress bar of bytes and their rate; none where nobody watches."""
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1000, disable=None, smoothing=0.1)


def verified(folder: Path) -> bool:
    """Prints how far each part of the model is from the reference; whether all are within their tolerance."""
    from fgrpo_jax.weights import verify

    size = verify.needed_bytes(ModelConfig.load(folder)) / 2**30
    print(f"comparing {folder} with transformers, float32, one model at a time ({size:.2f} GiB of weights)")
    rows = verify.compare(folder)
    print(verify.table(rows))
    off = [row.part for row in rows if not row.ok]
    print(f"beyond tolerance: {', '.join(off)}" if off else "all parts agree")
    return not off


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
