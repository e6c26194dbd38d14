"""The parts both towers are built of, and the one place where a weight is declared.

A declaration (`weight`) carries everything known of the weight as metadata: its logical axes and its Hugging Face name
and layout. Initialisation, sharding, import and export are derived from it. A weight is cast to the dtype of the
activation it meets, so the dtype of the computation is decided once, where the activations enter.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from fgrpo_jax import mesh as meshes

_SMALL = 1 << 22  # numbers

Remat = Literal["none", "full", "dots"]
"""What a scan over layers keeps for its backward pass.

'none' keeps what a layer marks (`keep`): no product and no softmax is made twice, only norms, activations and rotations
are, which takes less time than writing them down and reading them again. 'full' keeps the inputs of each layer, and
everything else is made twice. 'dots' keeps also the results of products with weights: attention is made twice.
"""

KEPT = "kept"
"""The name of what `keep` marks."""


def keep(x: jax.Array) -> jax.Array:
    """x, marked as one of the results that a layer is kept by under `Remat` 'none'."""
    return checkpoint_name(x, KEPT)


_POLICIES = {
    "none": jax.checkpoint_policies.save_only_these_names(KEPT),
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """Where a weight lives in a Hugging Face checkpoint."""

    name: str  # hub name; '{}' stands for the layer number of a stacked weight
    shape: tuple[int, ...]  # of one tensor of that name
    transposed: bool  # ours is `tensor.reshape(shape[0], -1).T` (torch keeps [out, in]), else only reshaped


@dataclasses.dataclass(frozen=True)
class Init:
    """Initial distribution of a weight: mean + std · N(0, 1)."""

    mean: float = 0.0
    std: float = 0.0


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """Shape, logical axes (one name a dimension), checkpoint home and initial values of one leaf of the params dict."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    hf: HFTensor
    init: Init


@dataclasses.dataclass(frozen=True)
class Axes:
    """Sizes and logical names of one side of a projection."""

    sizes: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def total(self) -> int:
        return math.prod(self.sizes)


def weight(shape: tuple[int, ...], *, axes: tuple[str, ...], hf: HFTensor, init: Init) -> nnx.Param:
    """Declare one weight, with its logical `axes`, checkpoint home `hf` and initial distribution `init`.

    The value here is `init.mean` only: modules are built abstractly, and `draw` makes the numbers of all of them.
    """
    if len(axes) != len(shape):
        raise ValueError(f"{hf.name}: {len(axes)} axes {axes} for a weight of {len(shape)} dimensions {shape}")
    return nnx.Param(jnp.full(shape, init.mean, jnp.float32), axes=axes, hf=hf, init=init)


class RMSNorm(nnx.Module):
    """x / rms(x) · scale, the mean square in at least float32 (bfloat16 keeps 8 bits of it)."""

    def __init__(self, size: int, *, eps: float, hf: str):
        self.eps = eps
        home = HFTensor(hf + ".weight", (size,), transposed=False)
        self.scale = weight((size,), axes=("norm",), hf=home, init=Init(mean=1.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return wide.astype(x.dtype) * self.scale[...].astype(x.dtype)


class Linear(nnx.Module):
    """x [..., in...] -> [..., out...]; the kernel is kept [in..., out...], torch keeps [out, in].

    Initial standard deviation is fan_in^-1/2 times `gain` (residual writers pass 1/sqrt(2·layers)).
    """

    def __init__(
        self,
        inputs: Axes,
        outputs: Axes,
        *,
        hf: str,
        bias: bool,
        gain: float = 1.0,
        hf_shape: tuple[int, ...] | None = None,
    ):
        self.inputs, self.outputs = inputs, outputs
        home = HFTensor(hf + ".weight", hf_shape or (outputs.total, inputs.total), transposed=True)
        sizes, axes, init = (
            inputs.sizes + outputs.sizes,
            inputs.names + outputs.names,
            Init(std=gain * inputs.total**-0.5),
        )
        self.kernel = weight(sizes, axes=axes, hf=home, init=init)
        home = HFTensor(hf + ".bias", (outputs.total,), transposed=False)
        self.bias = nnx.data(weight(outputs.sizes, axes=outputs.names, hf=home, init=Init()) if bias else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        # XLA on CPU runs one [tokens, in] x [in, out] product twice as fast as one with several leading axes.
        lead = x.shape[: x.ndim - len(self.inputs.sizes)]
        kernel = self.kernel[...].astype(x.dtype).reshape(self.inputs.total, self.outputs.total)
        y = x.reshape(-1, self.inputs.total) @ kernel
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype).reshape(-1)
        return y.reshape(lead + self.outputs.sizes)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, model: Axes, hidden: Axes, *, hf: str, bias: bool, gain: float):
        self.gate = Linear(model, hidden, hf=hf + ".gate_proj", bias=bias)
        self.up = Linear(model, hidden, hf=hf + ".up_proj", bias=bias)
        self.down = Linear(hidden, model, hf=hf + ".down_proj", bias=bias, gain=gain)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, up = keep(self.gate(x)), keep(self.up(x))
        return self.down(jax.nn.silu(gate) * up)


def draw(key: jax.Array, specs: list[ParamSpec]) -> list[jax.Array]:
    """Initial float32 values of `specs`.

    Small weights are cut from one shared draw: every separate use of the generator costs XLA on CPU about a second of
    compilation, and a tiny model has some twenty weights.
    """
    small_key, large_key = jax.random.split(key)
    random = [spec for spec in specs if spec.init.std]
    small = [math.prod(spec.shape) for spec in random if math.prod(spec.shape) <= _SMALL]
    pool = jax.random.normal(small_key, (sum(small),), jnp.float32)
    values, used = [], 0
    for index, spec in enumerate(specs):
        size = math.prod(spec.shape)
        if not spec.init.std:
            noise = jnp.zeros(spec.shape, jnp.float32)
        elif size <= _SMALL:
            noise = jax.lax.slice(pool, (used,), (used + size,)).reshape(spec.shape)
            used += size
        else:
            noise = jax.random.normal(jax.random.fold_in(large_key, index), spec.shape, jnp.float32)
        values.append(spec.init.mean + spec.init.std * noise)
    return values


def stack(make: Callable[[], nnx.Module], count: int) -> nnx.Module:
    """`count` layers as one module whose every weight has a leading `layers` axis."""
    layers = nnx.vmap(make, in_axes=(), out_axes=0, axis_size=count)()
    for _, param in nnx.iter_graph(layers):
        if isinstance(param, nnx.Param):
            param.set_metadata(axes=("layers", *param.get_metadata("axes")))
    return layers


def scan_layers(
    layers: nnx.Module,
    body: Callable[..., tuple[Any, Any]],
    init: Any,
    *,
    xs: Any = None,
    remat: Remat = "none",
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `body(layer, carry, x) -> (carry, y)` over stacked `layers` and `xs`.

    What `remat` does not keep of a layer is made again when its gradient is needed. With `mesh` the carries, which then
    are activations [M, ..., D], are split over its batch axes.
    """
    graph, state = nnx.split(layers)
    place = functools.partial(meshes.on_batch, mesh=mesh)

    def step(carry, scanned):
        weights, x = scanned
        carry, y = body(nnx.merge(graph, weights), carry, x)
        return jax.tree.map(place, carry), y

    step = jax.checkpoint(step, prevent_cse=False, policy=_POLICIES[remat])
    return jax.lax.scan(step, jax.tree.map(place, init), (state, xs))


def fill(state: nnx.State, weights: dict[str, Any]) -> nnx.State:
    """The declared state of modules with these weights, a nested dict, in it.

    Raises:
      ValueError: weights of another structure.
    """
    flat = nnx.traversals.flatten_mapping(weights)
    declared = dict(nnx.to_flat_state(state))
    if flat.keys() != declared.keys():
        odd = sorted("/".join(map(str, path)) for path in flat.keys() ^ declared.keys())
        raise ValueError(f"params do not have the structure of the model: {odd[:5]} missing or unknown")
    return nnx.from_flat_state([(path, declared[path].replace(value)) for path, value in flat.items()])
