"""The policy that a command line names: the config's own, a folder or hub id (--hf), or a checkpoint (--checkpoint)."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import time
from pathlib import Path
from typing import Any

import ml_collections
from tqdm import tqdm

from fgrpo_jax.config import load as configs
from fgrpo_jax.training import checkpoint, setup

PLACES, PLACE = 64, 1 << 20
"""How many places of a large file tell it from others of its size, and how many bytes are read at each."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A policy with the config it is used under; its weights are read when `params` is asked for.

    They come from the checkpoint `saved`, or else from the policy's folder.
    """

    config: configs.Config
    policy: setup.Policy
    saved: Path | None = None

    @classmethod
    def of(cls, args: argparse.Namespace, *, door: str) -> Named:
        """The policy of a command that takes --config, --workdir, --hf, --revision and --checkpoint."""
        if args.hf and args.checkpoint:
            raise ValueError("--hf and --checkpoint both name a policy; give one")
        raw: Any = ml_collections.ConfigDict(args.config)
        if args.hf or args.checkpoint:
            raw.model.hf, raw.model.revision = args.hf or str(checkpoint.hf_folder(args.checkpoint)), args.revision
        # No run in the workdir is gone on with, so none decides which commit of a hub id is meant.
        config = setup.pinned(configs.load(raw, door=door), args.workdir, overwrite=True)
        return cls(config, setup.policy(config), args.checkpoint)

    @functools.cached_property
    def params(self) -> Any:
        """The parameters in `model.param_dtype`, on the mesh."""
        dtype, saved, began = self.config.model.param_dtype, self.saved, time.perf_counter()
        found = self.policy.load(dtype) if saved is None else checkpoint.load_params(saved, self.policy.abstract(dtype))
        tqdm.write(f"weights read in {time.perf_counter() - began:.1f} s")
        return found

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Name, revision and fingerprint, by which answers belong to this policy."""
        folders = [self.policy.folder]
        if self.saved is not None:
            folders.append(checkpoint.resolve(self.saved) / "params")
        name = str(self.saved or self.config.model.hf)
        return {"name": name, "revision": self.config.model.revision, "fingerprint": fingerprint(*folders)}


def fingerprint(*folders: Path) -> str:
    """Digest of the files below some folders: names and contents; of those beyond 64 MiB, sizes and 64 places of 1 MiB.

    Weights that were trained on differ everywhere, so that the places suffice; all of 7B would take minutes to read.
    """
    out = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            size = file.stat().st_size
            out.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
            with file.open("rb") as handle:
                for i in range(PLACES):
                    handle.seek(max(0, size - PLACE) * i // (PLACES - 1) if size > PLACE * PLACES else i * PLACE)
                    out.update(handle.read(PLACE))
    return out.hexdigest()
