"""Hugging Face safetensors folders in and out, derived from what each weight declares of itself.

Two namings are read: the hub's (`model.layers.N`, `visual.*`) and the in-memory one of newer transformers
(`model.language_model.layers.N`, `model.visual.*`). The hub's is written. Nothing is skipped: a tensor that is unknown,
missing, duplicate or mis-shaped is an error with its name and file. One stacked weight is in host memory at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fgrpo_jax.model.layers import HFTensor, ParamSpec
from fgrpo_jax.model.qwen2_5_vl import Model, Params

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_TIED_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"
_RENAMES = (("model.language_model.", "model."), ("model.visual.", "visual."))
_TRAVELLERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)
_THREADS = 8  # tensors in flight; each is held once more while it is turned
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


@dataclasses.dataclass(frozen=True)
class _Home:
    """Where one tensor of a folder is: its open file, the file's name, and its name in that file."""

    handle: Any
    file: str
    name: str

    def read(self, spec: HFTensor) -> np.ndarray:
        piece = self.handle.get_slice(self.name)
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        if shape != spec.shape:
            raise ValueError(
                f"tensor {self.name!r} in {self.file} has shape {shape}, the model's config gives {spec.shape}: "
                "the weights and config.json are of different models; take both from one checkpoint"
            )
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {self.name!r} in {self.file} has dtype {dtype}; readable are {sorted(_DTYPES)}")
        return self.handle.get_tensor(self.name)


# --------------------------------------------------------------------------------------------------------------- read
def load_hf(folder: str | Path, model: Model, *, dtype: Any, shardings: Any = None) -> Params:
    """Params of `model` from a Hugging Face folder, single-file or sharded.

    Args:
      folder: holds `model.safetensors`, or shards and their index.
      model: says which tensors there must be.
      dtype: of the result; bfloat16 from bfloat16 is bit-exact.
      shardings: pytree of `jax.sharding.Sharding` like the params; None puts them on the default device.

    Raises:
      FileNotFoundError: no weights in the folder.
      ValueError: a tensor is unknown, missing, duplicate, mis-shaped, or its file is truncated; names tensor and file.
    """
    leaves, structure = jax.tree.flatten(model.specs)
    placements = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
    if len(placements) != len(leaves):
        raise ValueError(f"shardings have {len(placements)} leaves, the params {len(leaves)}")
    with contextlib.ExitStack() as stack:
        homes = _homes(Path(folder), stack)
        _check_names(homes, leaves, Path(folder), tied=model.config.text.tie_word_embeddings)
        arrays = [_read_leaf(homes, spec, dtype, place) for spec, place in zip(leaves, placements, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def _homes(folder: Path, stack: contextlib.ExitStack) -> dict[str, _Home]:
    """Hub name -> home, of every tensor in the folder."""
    homes: dict[str, _Home] = {}
    index = _read_index(folder)
    for file in sorted(set(index.values())) if index else [SINGLE]:
        handle = stack.enter_context(_open(folder, file))
        names = set(handle.keys())
        if index:
            _check_shard(names, {name for name, place in index.items() if place == file}, folder / file)
        for name in sorted(names):
            hub = _hub_name(name)
            if hub in homes:
                first = homes[hub]
                raise ValueError(f"duplicate tensor: {name!r} in {file} is {first.name!r} in {first.file} ({folder})")
            homes[hub] = _Home(handle, file, name)
    return homes


def _read_index(folder: Path) -> dict[str, str]:
    """Tensor name -> file of a sharded checkpoint; empty when there is a single file."""
    path = folder / INDEX
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    if not (folder / SINGLE).is_file():
        raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}: expected a Hugging Face model folder")
    return {}


def _open(folder: Path, file: str) -> Any:
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is named in {INDEX} but does not exist: download the missing shard")
    try:
        return safe_open(str(path), framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): download or export it again") from error


def _check_shard(found: set[str], expected: set[str], path: Path) -> None:
    if missing := sorted(expected - found):
        raise ValueError(f"missing tensor {missing[0]!r}: {INDEX} places it in {path}, which lacks it")
    if extra := sorted(found - expected):
        raise ValueError(f"unknown tensor {extra[0]!r} in {path}: {INDEX} does not place it there")


def _hub_name(name: str) -> str:
    for new, hub in _RENAMES:
        if name.startswith(new):
            return hub + name[len(new) :]
    return name


def _names(spec: ParamSpec) -> list[str]:
    """Hub names of the tensors behind a leaf, in layer order."""
    if spec.axes[0] != "layers":
        return [spec.hf.name]
    return [spec.hf.name.format(layer) for layer in range(spec.shape[0])]


def _check_names(homes: dict[str, _Home], leaves: list[ParamSpec], folder: Path, *, tied: bool) -> None:
    expected = {name for spec in leaves for name in _names(spec)}
    if missing := sorted(expected - homes.keys()):
        raise ValueError(
            f"{len(missing)} tensors missing from {folder}, first {missing[:3]}: take config.json and weights from one "
            "checkpoint, or fetch the missing file"
        )
    extra = sorted(homes.keys() - expected)
    if tied and extra == [_TIED_HEAD]:
        _check_tied(homes)
    elif extra:
        places = [f"{homes[name].name!r} in {homes[name].file}" for name in extra[:3]]
        raise ValueError(
            f"{len(extra)} unknown tensors in {folder}, first {', '.join(places)}: remove them, or take "
            "the config.json of the model they belong to"
        )


def _check_tied(homes: dict[str, _Home]) -> None:
    """A tied checkpoint may repeat the table as lm_head, if it is the same table."""
    head, table = homes[_TIED_HEAD], homes[_EMBEDDING]
    if head.handle.get_tensor(head.name).tobytes() != table.handle.get_tensor(table.name).tobytes():
        raise ValueError(
            f"tensor {head.name!r} in {head.file} differs from {table.name!r}, but config.json says they are tied: "
            "set tie_word_embeddings to false"
        )


def _read_leaf(homes: dict[str, _Home], spec: ParamSpec, dtype: Any, placement: Any) -> jax.Array:
    host = np.empty(spec.shape, np.dtype(dtype))
    targets = host if spec.axes[0] == "layers" else host[None]

    def fill(name: str, target: np.ndarray) -> None:
        tensor = homes[name].read(spec.hf).astype(host.dtype, copy=False)
        # `target` is contiguous, so that its reshape is a view.
        if spec.hf.transposed:
            _transpose_into(target.reshape(-1, spec.hf.shape[0]), tensor.reshape(spec.hf.shape[0], -1))
        else:
            target.reshape(spec.hf.shape)[...] = tensor

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, _names(spec), targets))
    return jax.device_put(host, placement)


def _transpose_into(target: np.ndarray, source: np.ndarray) -> None:
    """target [a, b] = source [b, a].T, 64 columns at a time over plain integers: 3x numpy's own copy (measured)."""
    bits = np.dtype(f"u{source.dtype.itemsize}")
    target, source = target.view(bits), source.view(bits)
    for start in range(0, source.shape[0], 64):
        target[:, start : start + 64] = source[start : start + 64].T


# -------------------------------------------------------------------------------------------------------------- write
def save_hf(
    folder: str | Path,
    params: Params,
    model: Model,
    *,
    dtype: Any = None,
    source: str | Path | None = None,
    shard_bytes: float = 5e9,
) -> None:
    """Write a hub-layout folder that `transformers` loads. It appears whole or not at all.

    Args:
      folder: must not exist, or be empty.
      params: as `model.init` or `load_hf` give them.
      model: its config becomes config.json.
      dtype: of the tensors; None keeps that of the params.
      source: Hugging Face folder whose tokenizer, processor and generation files are copied. The repetition penalty of
        the generation config becomes 1.0: the policy was trained without one.
      shard_bytes: a file is closed before it grows beyond this.

    Raises:
      FileExistsError: `folder` holds something.
      ValueError: a leaf has another shape than the model declares.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty: choose a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        dtype = np.dtype(dtype or params["text"]["embed"]["table"].dtype)
        _write_weights(beside, _tensors(params, model, dtype), shard_bytes=shard_bytes)
        _write_json(beside / "config.json", {**model.config.to_hf(), "dtype": dtype.name})
        _write_travellers(beside, model, None if source is None else Path(source))
        beside.chmod(0o755)  # mkdtemp makes it private
        os.replace(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tensors(params: Params, model: Model, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """(hub name, array) of every tensor, layer by layer within a weight."""
    specs = dict(jax.tree_util.tree_leaves_with_path(model.specs))
    arrays = dict(jax.tree_util.tree_leaves_with_path(params))
    if odd := sorted(jax.tree_util.keystr(path) for path in specs.keys() ^ arrays.keys()):
        raise ValueError(f"params do not have the structure of the model: {odd[:3]} missing or unknown")
    for path, spec in specs.items():
        array = arrays[path]
        if array.shape != spec.shape:
            raise ValueError(f"{jax.tree_util.keystr(path)} has shape {array.shape}, the model declares {spec.shape}")
        names = _names(spec)
        pieces = _layers(array, len(names)) if spec.axes[0] == "layers" else iter([np.asarray(array)])
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), _THREADS):
                few = itertools.islice(pieces, _THREADS)
                done = pool.map(lambda piece, home=spec.hf: _to_hf(piece, home, dtype), few)
                yield from zip(names[start : start + _THREADS], done, strict=True)


def _layers(array: jax.Array, count: int) -> Iterator[np.ndarray]:
    """The layers of a stacked weight, one at a time on the host."""
    if isinstance(array, jax.Array) and all(device.platform != "cpu" for device in array.devices()):
        # An accelerator array keeps the host copy that is made of it: copy layers, which are freed, not the whole.
        yield from (np.asarray(array[layer]) for layer in range(count))
    else:
        yield from np.asarray(array)


def _to_hf(array: np.ndarray, home: HFTensor, dtype: np.dtype) -> np.ndarray:
    array = array.astype(dtype, copy=False)
    if not home.transposed:
        return np.ascontiguousarray(array).reshape(home.shape)
    out = np.empty((home.shape[0], array.size // home.shape[0]), dtype)
    _transpose_into(out, np.ascontiguousarray(array).reshape(-1, home.shape[0]))
    return out.reshape(home.shape)


def _write_weights(folder: Path, tensors: Iterator[tuple[str, np.ndarray]], *, shard_bytes: float) -> None:
    """Write shards under provisional names, then give them their 'k of n' names and the index."""
    shards: list[list[str]] = []
    total = 0

    def close(batch: dict[str, np.ndarray]) -> None:
        save_file(batch, str(folder / f"shard-{len(shards)}"), metadata={"format": "pt"})
        shards.append(sorted(batch))

    batch: dict[str, np.ndarray] = {}
    held = 0
    for name, array in tensors:
        if batch and held + array.nbytes > shard_bytes:
            close(batch)
            batch, held = {}, 0
        batch[name] = array
        held += array.nbytes
        total += array.nbytes
    close(batch)
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / SINGLE)
        return
    weight_map = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _write_travellers(folder: Path, model: Model, source: Path | None) -> None:
    """Copy tokenizer and processor files; see to it that there is a generation config."""
    if source is not None:
        if not source.is_dir():
            raise FileNotFoundError(f"source folder {source} does not exist")
        for name in _TRAVELLERS:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    path = folder / "generation_config.json"
    config = model.config
    generation = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    if path.is_file():
        generation = json.loads(path.read_text(encoding="utf-8"))
    if not math.isclose(generation.get("repetition_penalty", 1.0), 1.0):
        generation["repetition_penalty"] = 1.0
    _write_json(path, generation)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
