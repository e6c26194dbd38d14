"""The device mesh, and the rules that turn logical axes of parameters into shardings.

Mesh axes: `data` (copies of the model), `fsdp` (shards of parameters and optimiser state), `tensor` (shards of heads
and MLP width). Prompts are split over data × fsdp. A parameter declares logical axes ('embed', 'heads', …) where it is
made; the tables below say which mesh axis each of them lives on. Nothing else in the package names a mesh axis but
through `BATCH_AXES` and `HEAD_AXIS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""What the leading prompt axis of every record is split over."""

HEAD_AXIS = "tensor"
"""What attention heads are split over, where it divides them."""

WEIGHT_AXIS = "fsdp"
"""What the width ('embed') of every weight is split over; whoever computes with a weight gathers it."""

Rules = Mapping[str, str | None]

TRAIN_RULES: Rules = {
    "layers": None,  # scanned over: every device holds its share of each layer
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "norm": None,
    "patch": None,
    "vision_embed": "fsdp",
    "vision_heads": "tensor",
    "vision_head_dim": None,
    "qkv": None,
    "vision_mlp": "tensor",
    "merged": "fsdp",
    "merged_mlp": "tensor",
}
"""Logical axis → mesh axis of masters, gradients and optimiser state."""

SAMPLE_RULES: Rules = {axis: (None if to == "fsdp" else to) for axis, to in TRAIN_RULES.items()}
"""For the sampler: whole over fsdp, since a decode step of one token would gather every weight once a token."""

REPLICABLE = frozenset({"kv_heads", "vision_heads", "vision_mlp"})
"""Axes that stay whole where the mesh does not divide them: 3B has 2 kv heads, and the tower, whose MLP is 3420 = 4·855
wide, is a fifth of the 3B model at most."""


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A data × fsdp × tensor mesh over all devices; -1 on one axis takes what the others leave.

    Raises:
      ValueError: sizes that do not multiply to the number of devices, or more than one -1.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise ValueError(f"only one mesh axis may be -1, got {asked}")
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive or -1, got {asked}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    rest, left_over = divmod(len(devices), fixed)
    if left_over or (not open_axes and rest != 1):
        raise ValueError(
            f"{asked} needs {'a multiple of ' if open_axes else ''}{fixed} devices but there are {len(devices)} "
            f"({devices[0].platform}); choose sizes whose product is {len(devices)}, or -1 on one axis for the rest"
        )
    for name in open_axes:
        sizes[name] = rest
    # Every axis is Auto, so that the compiler places what the rules leave open; jax.make_mesh's default changed twice.
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, (AxisType.Auto,) * 3, devices=devices)


def platform(mesh: Mesh | None) -> str:
    """'cpu', 'gpu' or 'tpu': what the devices of a mesh are, or without one those that programs run on."""
    found = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return "gpu" if found in ("cuda", "rocm") else found


def batch_size(mesh: Mesh) -> int:
    """How many parts the prompt axis is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def parts(mesh: Mesh | None, prompts: int) -> int:
    """How many parts so many prompts are split into over devices; 1 where they cannot be."""
    size = 1 if mesh is None else batch_size(mesh)
    return 1 if prompts % size else size


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading prompt axis over data × fsdp, everything else whole: right for every record that leads with M."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def splits(mesh: Mesh, *, batch: int, width: int) -> bool:
    """Whether the mesh splits a batch at all, and this one evenly, and evenly weights of this width."""
    parts = batch_size(mesh)
    return parts > 1 and batch % parts == 0 and width % mesh.shape[WEIGHT_AXIS] == 0


def on_batch(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Says to the compiler that activations [M, ..., D] are split by prompts and whole in all else.

    Left to itself it follows the weights, which are split in D over the same axis: every device then works on the whole
    batch, and sums of whole activations go over the wire instead of weights (seen at the 3B shape on 16 chips).
    """
    if mesh is None or batch_size(mesh) == 1 or x.shape[0] % batch_size(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def looked_up(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Rows [M, ..., D] of an embedding table, split by prompts.

    They come split in D as the table is. One exchange brings them over, by way of prompts over the axis that D is not
    split over; told only where to end, the partitioner puts the whole array on every device, and warns of it.
    """
    if mesh is None or not splits(mesh, batch=x.shape[0], width=x.shape[-1]):
        return x
    others = tuple(axis for axis in BATCH_AXES if axis != WEIGHT_AXIS)
    by_width = PartitionSpec(others, *[None] * (x.ndim - 2), WEIGHT_AXIS)
    return on_batch(jax.lax.with_sharding_constraint(x, NamedSharding(mesh, by_width)), mesh)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole array on every device: multipliers, step counters."""
    return NamedSharding(mesh, PartitionSpec())


def require_divisible(mesh: Mesh, **prompts: int) -> None:
    """Checks prompt counts (named by their config field, '.' written '__') against the batch axes of the mesh.

    Raises:
      ValueError: a count that data × fsdp does not divide.
    """
    parts = batch_size(mesh)
    for name, count in prompts.items():
        if count % parts:
            raise ValueError(
                f"{name.replace('__', '.')}={count} prompts cannot be split over data={mesh.shape['data']} × "
                f"fsdp={mesh.shape['fsdp']} = {parts} devices; use a multiple of {parts}"
            )


def require_own_prompts(mesh: Mesh) -> None:
    """Checks that no prompt lies on devices of several processes: each process puts the prompts it has on its own.

    Raises:
      ValueError: the tensor axis reaches beyond a process, whose devices would then compute one prompt from two.
    """
    sharing = mesh.devices.reshape(batch_size(mesh), -1)  # the devices of a row hold the same prompts
    owners = np.array([[device.process_index for device in row] for row in sharing])
    mixed = owners[(owners != owners[:, :1]).any(axis=1)]
    if mixed.size:
        own = int((owners == mixed[0, 0]).sum())
        raise ValueError(
            f"mesh.tensor={mesh.shape['tensor']} splits the model over processes "
            f"{', '.join(map(str, sorted(set(mixed[0].tolist()))))}, and each has prompts of its own; choose a "
            f"mesh.tensor that divides the {own} devices of a process, and let mesh.fsdp split it over more"
        )


def shardings(specs: Mapping[str, Any], mesh: Mesh, *, rules: Rules = TRAIN_RULES) -> dict[str, Any]:
    """Nested dict of parameter specs (`layers.ParamSpec`) → the same structure of NamedSharding.

    Raises:
      ValueError: an axis no rule knows, or a size the mesh axis does not divide (with the sizes that would do).
    """

    def placed(path: Any, spec: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(spec, mesh, rules=rules, path=name))

    return jax.tree_util.tree_map_with_path(placed, specs)


def partition_spec(spec: Any, mesh: Mesh | AbstractMesh, *, rules: Rules, path: str) -> PartitionSpec:
    """The PartitionSpec of a parameter with the shape and axes of `spec`; a mesh axis serves its first axis only."""
    if len(spec.axes) != len(spec.shape):
        raise ValueError(f"parameter '{path}' has shape {spec.shape} but axes {spec.axes}; name one axis a dimension")
    used: set[str] = set()
    parts: list[str | None] = []
    for axis, size in zip(spec.axes, spec.shape, strict=True):
        target = _target(axis, size, mesh, rules, path)
        parts.append(None if target in used else target)
        used |= {target} if target else set()
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)


def _target(axis: str, size: int, mesh: Mesh | AbstractMesh, rules: Rules, path: str) -> str | None:
    if axis not in rules:
        raise ValueError(
            f"parameter '{path}' has logical axis '{axis}' without a sharding rule; known: {sorted(rules)}"
        )
    target = rules[axis]
    if target is None or mesh.shape[target] == 1:
        return None
    if size % mesh.shape[target]:
        if axis in REPLICABLE:
            return None
        valid = [n for n in range(1, min(size, mesh.size) + 1) if size % n == 0]
        raise ValueError(
            f"mesh.{target}={mesh.shape[target]} does not divide axis '{axis}' of parameter '{path}' ({size}); "
            f"sizes that do: {', '.join(map(str, valid))}"
        )
    return target
