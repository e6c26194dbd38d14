"""Checkpoints (Orbax): all that a run needs to go on bit for bit, and all that an export needs.

    FOLDER/STEP/params/    the parameters, a nested dict
    FOLDER/STEP/state/     everything else of the train state, by path: optimiser, multipliers, counters
    FOLDER/STEP/reference/ the leaves of the reference policy, where it is no longer the one the run began with
    FOLDER/STEP/ahead/     rollouts that the next step is to learn from, where they are drawn a step ahead
    FOLDER/STEP/meta/      JSON: resolved config and data position
    FOLDER/STEP/hf/        config.json, tokenizer, processor and generation files of the HF folder the run began from

Orbax writes a step beside its place and renames it, so a step folder that exists is complete; what a killed run leaves
half-written is never looked at and is removed by the next run. The learner donates its state, so what is saved while it
goes on is a copy on the host (`on_host`).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from fgrpo_jax.weights import streams
from fgrpo_jax.weights.hub_folder import TRAVELLERS

StateT = TypeVar("StateT")

HF_FILES = ("config.json", *TRAVELLERS)
"""Files of an HF folder that travel with the weights; those that the folder lacks are not missed."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """What travels beside the arrays, as JSON: resolved config, state of the data iterator, number of steps done."""

    config: Mapping[str, Any]
    data: Mapping[str, Any]
    step: int


# -------------------------------------------------------------------------------------- side files as a checkpoint item
@dataclasses.dataclass
class _FilesSave(ocp.args.CheckpointArgs):
    folder: str


@dataclasses.dataclass
class _FilesRestore(ocp.args.CheckpointArgs):
    item: Any = None


class _FilesHandler(ocp.CheckpointHandler):
    """Copies the small files of an HF folder into the checkpoint, under the same all-or-nothing rename."""

    def save(self, directory: Any, args: _FilesSave) -> None:
        if jax.process_index() == 0:
            for name in HF_FILES:
                source = Path(args.folder) / name
                if source.is_file():
                    shutil.copyfile(source, Path(directory) / name)

    def restore(self, directory: Any, args: _FilesRestore | None = None) -> Path:
        return Path(directory)


ocp.args.register_with_handler(_FilesHandler, for_save=True)(_FilesSave)
ocp.args.register_with_handler(_FilesHandler, for_restore=True)(_FilesRestore)


# ------------------------------------------------------------------------------------------------------- save, restore
class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: made when it is missing; leftovers of a killed save in it are removed.
      keep: newest checkpoints kept.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        self.folder = Path(folder).resolve()  # tensorstore takes no '..'
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest(self) -> int | None:
        """The newest complete step, None when there is none."""
        return self._manager.latest_step()

    def save(
        self,
        state: Any,
        *,
        config: Mapping[str, Any],
        data: Mapping[str, Any],
        hf: str | os.PathLike[str],
        reference: Mapping[str, Any] | None = None,
        ahead: Any = None,
    ) -> Path:
        """Writes `state` as its own step, whole or not at all; a step that is there already stays. Returns its folder.

        Args:
          state: flax dataclass with `step` and `params`, such as TrainState; params may be `streams.Unread`, which are
            made while they are written.
          data: state of the data iterator, JSON types, as is the resolved config.
          hf: the HF folder the policy came from; its small files go into the checkpoint.
          reference: arrays by path, of a reference policy that cannot be read again where the run began.
          ahead: rollouts of the step after this one, where they are drawn already.
        """
        step = int(state.step)
        if step not in self._manager.all_steps():
            items: dict[str, Any] = {
                "params": _params_save(state.params),
                "state": ocp.args.StandardSave(_stored(_by_path(_rest(state)))),
                "meta": ocp.args.JsonSave(dataclasses.asdict(Meta(config, data, step))),
                "hf": _FilesSave(str(hf)),
            }
            for name, tree in (("reference", reference), ("ahead", ahead)):
                if tree is not None:
                    items[name] = ocp.args.StandardSave(_by_path(tree))
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        return self.folder / str(step)

    def restore(self, target: StateT) -> tuple[StateT, Meta]:
        """The newest state, where there is one; a ValueError where it holds other parameters or shapes than `target`.

        Args:
          target: a state of the same structure, of arrays or ShapeDtypeStructs; arrays come back with its shardings,
            whatever the mesh they were saved from.
        """
        folder, rest = self.folder / str(self.latest), _rest(target)
        params = load_params(folder, target.params)  # type: ignore[attr-defined]
        flat = _by_path(rest)
        loaded = _load(folder / "state", _stored(flat))
        leaves = [loaded.get(name, _empty(leaf)) for name, leaf in flat.items()]
        values = jax.tree.unflatten(jax.tree.structure(rest), leaves)
        return target.replace(params=params, **values), read_meta(folder)  # type: ignore[attr-defined]

    def holds(self, item: str) -> bool:
        """Whether the newest checkpoint was saved with a 'reference', or with rollouts drawn 'ahead'."""
        return (self.folder / str(self.latest) / item).is_dir()

    def restore_beside(self, item: str, target: Any) -> Any:
        """What the newest checkpoint holds beside its state: 'reference', 'ahead'; `target` as in `restore`."""
        flat = _by_path(target)
        loaded = _load(self.folder / str(self.latest) / item, flat)
        return jax.tree.unflatten(jax.tree.structure(target), [loaded[name] for name in flat])

    def close(self) -> None:
        self._manager.close()


def on_host(tree: Any) -> Any:
    """A copy of arrays of this process in numpy, which stays when they are donated; it takes as much memory."""

    def copied(leaf: jax.Array) -> np.ndarray:
        out = np.empty(leaf.shape, leaf.dtype)
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                out[shard.index] = shard.data  # a view of a shard on CPU, which ends with the assignment
        return out

    return jax.tree.map(copied, tree)


def _params_save(params: Mapping[str, Any]) -> ocp.args.CheckpointArgs:
    unread = any(isinstance(leaf, streams.Unread) for leaf in jax.tree.leaves(params))
    return streams.StreamSave(params) if unread else ocp.args.StandardSave(params)


def load_params(checkpoint: str | os.PathLike[str], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a checkpoint (anything `resolve` takes); a ValueError where it holds others.

    Args:
      abstract: nested dict of ShapeDtypeStruct or arrays; dtype and sharding of the result are theirs.
    """
    return _load(resolve(checkpoint) / "params", abstract)


def require_params(checkpoint: str | os.PathLike[str], abstract: Mapping[str, Any]) -> None:
    """Raises a ValueError, which names the array, unless the checkpoint's parameters have these names and shapes."""
    _require_same(resolve(checkpoint) / "params", _by_path(abstract))


def stored_dtype(checkpoint: str | os.PathLike[str]) -> Any:
    """The dtype most parameters of a checkpoint are stored in."""
    metadata = _metadata(resolve(checkpoint) / "params")
    dtypes = [str(leaf.dtype) for leaf in metadata.values()]
    return jnp.dtype(max(sorted(set(dtypes)), key=dtypes.count))


def read_meta(checkpoint: str | os.PathLike[str]) -> Meta:
    """Config, data position and step of a checkpoint (anything `resolve` takes)."""
    return Meta(**ocp.JsonCheckpointHandler().restore(epath.Path(resolve(checkpoint) / "meta")))


def hf_folder(checkpoint: str | os.PathLike[str]) -> Path:
    """Folder of config.json, tokenizer and processor files inside a checkpoint (anything `resolve` takes)."""
    return resolve(checkpoint) / "hf"


def resolve(path: str | os.PathLike[str]) -> Path:
    """One checkpoint, given itself, a run's checkpoints folder or the run's workdir (the newest complete step).

    Raises:
      FileNotFoundError: no such path, or no complete checkpoint in it.
      ValueError: it is an HF folder.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: the path does not exist")
    if _holds_params(path):
        return path
    for folder in (path, path / "checkpoints"):
        steps = [step for step in folder.glob("*") if step.name.isdecimal() and _holds_params(step)]
        if complete := [int(step.name) for step in steps if ocp.step.is_path_finalized(step)]:
            return folder / str(max(complete))
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        raise ValueError(f"{path} is an HF folder, not a checkpoint; pass it as --hf, or convert it first")
    raise FileNotFoundError(
        f"no complete checkpoint in {path}; pass a run's workdir, its checkpoints folder or one step"
    )


def _holds_params(folder: Path) -> bool:
    return (folder / "params").is_dir() and (folder / "meta").is_dir()


# --------------------------------------------------------------------------------------------------- trees and leaves
def _rest(state: Any) -> dict[str, Any]:
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name != "params"}


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by a readable path, so that what is stored does not depend on the classes of the optimiser's state."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".").replace("/", "."): leaf for path, leaf in leaves}


def _stored(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Without arrays of no elements (the multipliers of a run without constraints), which Orbax cannot write."""
    return {name: leaf for name, leaf in flat.items() if leaf.size}


def _empty(leaf: Any) -> jax.Array:
    return jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), _target(leaf).sharding)


def _metadata(folder: Path) -> dict[str, Any]:
    """{path: metadata with .shape and .dtype} of the arrays stored in `folder`."""
    return _by_path(ocp.StandardCheckpointHandler().metadata(epath.Path(folder)).tree)  # type: ignore[union-attr]


def _load(folder: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
    if not abstract:
        return {}
    _require_same(folder, _by_path(abstract))
    args = ocp.args.StandardRestore(jax.tree.map(_target, dict(abstract)))
    return ocp.StandardCheckpointHandler().restore(epath.Path(folder), args=args)


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    # Without a sharding Orbax would fall back to the devices the array was saved from.
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _require_same(folder: Path, wanted: Mapping[str, Any]) -> None:
    stored = _metadata(folder)
    for name, leaf in wanted.items():
        if name not in stored:
            raise ValueError(f"checkpoint {folder} has no array '{name}'; was its model or optimiser another?")
        there, asked = tuple(stored[name].shape), tuple(leaf.shape)
        if there != asked:
            raise ValueError(
                f"array '{name}' of checkpoint {folder} has shape {there}, expected {asked}; use the config the "
                "checkpoint was made with"
            )
    if extra := sorted(set(stored) - set(wanted)):
        what = f"an array '{extra[0]}' that is not wanted"
        raise ValueError(f"checkpoint {folder} has {what}; use the config it was made with")
