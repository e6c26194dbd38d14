"""Which part of every array a device holds, for the released sizes on a mesh of fsdp x tensor devices.

    python tools/sharding_table.py --size=7B      prints one size
    python tools/sharding_table.py --write        writes tests/golden/shardings-SIZE.txt, which a test compares

Nothing is allocated and no device is asked for. Look for large arrays that are split less than the mesh could.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import released
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

FSDP, TENSOR = 8, 4
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
GIB = 2**30


def golden_file(size: str) -> Path:
    """Where the table of a size is kept."""
    return GOLDEN / f"shardings-{size}.txt"


def table(size: str, *, fsdp: int = FSDP, tensor: int = TENSOR) -> str:
    """A line an array, for masters in training and for the sampler's copy, and what that makes a device, float32."""
    mesh: Any = AbstractMesh((1, fsdp, tensor), meshes.MESH_AXES, (AxisType.Auto,) * 3)
    specs = Model.create(ModelConfig.from_hf(released.HUB[size])).specs
    train, sample = (meshes.shardings(specs, mesh, rules=rules) for rules in (meshes.TRAIN_RULES, meshes.SAMPLE_RULES))
    rows, totals = [], [0, 0, 0]
    for name, shape, of_train, of_sample in _arrays(specs, train, sample):
        whole = math.prod(shape)
        parts = [_parts(of_train, mesh), _parts(of_sample, mesh)]
        totals = [total + whole // part for total, part in zip(totals, (1, *parts), strict=True)]
        split = f"{whole:>14,} /{parts[0]:>3} /{parts[1]:>3}"
        rows.append(f"{name:<44}{'x'.join(map(str, shape)):<26}{_axes(of_train):<26}{split}")
    head = f"{'array':<44}{'shape':<26}{'training':<26}{'numbers':>14} and parts: training, sampling"
    gib = [f"{4 * total / GIB:.2f} GiB" for total in totals]
    foot = f"{totals[0]:,} numbers, float32: {gib[0]}; a device {gib[1]} in training, {gib[2]} in sampling"
    return "\n".join([f"{size} on fsdp={fsdp} x tensor={tensor}", "", head, *rows, "", foot, ""])


def _arrays(specs: Any, *shardings: Any) -> Iterator[tuple[str, tuple[int, ...], PartitionSpec, PartitionSpec]]:
    leaves = jax.tree_util.tree_leaves_with_path(specs)
    placed = zip(*(jax.tree.leaves(tree) for tree in shardings), strict=True)
    for (path, spec), (train, sample) in zip(leaves, placed, strict=True):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), spec.shape, train.spec, sample.spec


def _parts(spec: PartitionSpec, mesh: Any) -> int:
    return math.prod(mesh.shape[axis] for axis in spec if axis is not None)


def _axes(spec: PartitionSpec) -> str:
    return "(" + ", ".join("-" if axis is None else str(axis) for axis in spec) + ")" if len(spec) else "whole"


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--size", choices=released.HUB, help="one size; all by default")
    out.add_argument("--fsdp", type=int, default=FSDP, help="shards of every layer (default %(default)s)")
    out.add_argument("--tensor", type=int, default=TENSOR, help="shards of heads and MLPs (default %(default)s)")
    out.add_argument("--write", action="store_true", help=f"write {GOLDEN.name}/ instead, with the default mesh")
    return out


def main(args: argparse.Namespace) -> None:
    """Prints or writes the tables."""
    for size in [args.size] if args.size else released.HUB:
        if args.write:
            golden_file(size).parent.mkdir(exist_ok=True)
            golden_file(size).write_text(table(size), encoding="utf-8")
            print(f"wrote {golden_file(size)}")
        else:
            print(table(size, fsdp=args.fsdp, tensor=args.tensor))


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
