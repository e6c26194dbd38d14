"""What a run trains of its policy: the leaves that the freeze rules leave (`Leaves`), or adapters (`Adapters`).

Both hand the learner a flat dict of weights to differentiate by, and put the policy together again. What is needed of
the policy to stay near is the `reference`, an input of the step that is never donated.

With adapters (LoRA, Hu et al. 2021) a targeted kernel W [in, out] becomes W + alpha/rank · A B. The state holds the
sum, so sampler, evaluation, checkpoints and export know nothing of adapters; A and B stand with the optimiser's state,
the reference holds the W. The price: W and the sum are held side by side, and the backward pass makes the gradient of
every targeted W on its way to those of A and B. What is saved are moments, masters and their sums over micro-batches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from fgrpo_jax.fgrpo import optimizer
from fgrpo_jax.fgrpo.optimizer import Flat, Params
from fgrpo_jax.fgrpo.settings import Lora


@dataclasses.dataclass(frozen=True)
class Split:
    """A state taken apart: what is differentiated by, what is not, and the optimiser's own state."""

    weights: Flat
    frozen: Flat
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Leaves:
    """Every leaf that no rule of `freeze` names."""

    freeze: tuple[str, ...]

    def paths(self, params: Params) -> set[str]:
        """Parameters whose value a step may change."""
        return set(optimizer.partition(params, self.freeze)[0])

    def reference(self, params: Params, *, needed: bool) -> Flat:
        """What later steps need of `params`, the policy to stay near (`needed`: whether there is one at all)."""
        trainable, _ = optimizer.partition(params, self.freeze)
        return jax.tree.map(jnp.copy, trainable) if needed else {}

    def begin(self, params: Params, rule: optimizer.Rule) -> tuple[Params, Any]:
        """(params, optimiser state) of a fresh run."""
        trainable, _ = optimizer.partition(params, self.freeze)
        return params, optimizer.init(rule, trainable)

    def split(self, params: Params, opt_state: Any, reference: Flat) -> Split:
        return Split(*optimizer.partition(params, self.freeze), opt_state)

    def join(self, weights: Flat, frozen: Flat) -> dict[str, Any]:
        """The policy's params."""
        return optimizer.merge(weights, frozen)

    def pack(self, weights: Flat, frozen: Flat, opt_state: Any) -> tuple[Params, Any]:
        """The inverse of `split`: (params, optimiser state)."""
        return optimizer.merge(weights, frozen), opt_state


@struct.dataclass
class Adapted:
    """The optimiser's state, and the adapters: 'KERNEL/a' [layers, in..., rank], 'KERNEL/b' [layers, rank, out...]."""

    inner: Any
    adapters: Flat


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Adapters on the kernels of `specs` (those of the model) that the config names; all else is frozen.

    Raises:
      ValueError: a target that matches nothing, a frozen parameter, or one that is no kernel; a rank that a kernel
        does not have.
    """

    settings: Lora
    kernels: Mapping[str, tuple[int, int]]
    """Path → (number of leading layer dimensions, of input dimensions)."""
    seed: int = 0
    """Of the initial A. B begins as 0."""

    @classmethod
    def of(cls, settings: Lora, specs: Params, *, freeze: tuple[str, ...], seed: int = 0) -> Adapters:
        flat = optimizer.flatten(specs)
        optimizer.require_matches(flat, settings.targets, what="LoRA target")
        kernels = {
            path: _sides(path, spec, settings.rank, freeze)
            for path, spec in flat.items()
            if optimizer.matches(path, settings.targets)
        }
        if not kernels:
            raise ValueError("LoRA has a rank but no targets; name kernels, such as 'text/layers/attn/**/kernel'")
        return cls(settings, kernels, seed)

    def paths(self, params: Params) -> set[str]:
        return set(self.kernels)

    def reference(self, params: Params, *, needed: bool) -> Flat:
        flat = optimizer.flatten(params)
        return {path: flat[path] for path in self.kernels}

    def begin(self, params: Params, rule: optimizer.Rule) -> tuple[Params, Any]:
        flat = optimizer.flatten(params)
        adapters = self.draw(flat)
        # The sums of state and reference begin equal, but the state's are donated.
        flat |= {path: jnp.copy(flat[path]) for path in self.kernels}
        return optimizer.unflatten(flat), Adapted(optimizer.init(rule, adapters), adapters)

    def draw(self, flat: Flat) -> Flat:
        """A ~ N(0, 1/in), B = 0, float32, sharded as their kernels are."""
        out: Flat = {}
        for number, (path, (lead, inputs)) in enumerate(self.kernels.items()):
            shape, rank = flat[path].shape, self.settings.rank
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            cut = lead + inputs
            a = jax.random.normal(key, (*shape[:cut], rank), jnp.float32) * math.prod(shape[lead:cut]) ** -0.5
            b = jnp.zeros((*shape[:lead], rank, *shape[cut:]), jnp.float32)
            out[f"{path}/a"] = _placed(a, flat[path], lambda axes, cut=cut: (*axes[:cut], None))
            out[f"{path}/b"] = _placed(b, flat[path], lambda axes, n=lead, cut=cut: (*axes[:n], None, *axes[cut:]))
        return out

    def split(self, params: Params, opt_state: Adapted, reference: Flat) -> Split:
        return Split(opt_state.adapters, {**optimizer.flatten(params), **reference}, opt_state.inner)

    def join(self, weights: Flat, frozen: Flat) -> dict[str, Any]:
        sums = {path: self._sum(frozen[path], path, weights) for path in self.kernels}
        return optimizer.merge(sums, frozen)

    def pack(self, weights: Flat, frozen: Flat, opt_state: Any) -> tuple[Params, Any]:
        return self.join(weights, frozen), Adapted(opt_state, weights)

    def _sum(self, kernel: jax.Array, path: str, weights: Flat) -> jax.Array:
        """W + alpha/rank · A B, added in float32, in the dtype of W."""
        lead, _ = self.kernels[path]
        a, b = weights[f"{path}/a"], weights[f"{path}/b"]
        layers = kernel.shape[:lead] or (1,)
        a = a.reshape(*layers, -1, a.shape[-1])
        b = b.reshape(*layers, b.shape[lead], -1)
        change = jnp.einsum("lir,lro->lio", a, b).reshape(kernel.shape)
        return (kernel + (self.settings.alpha / self.settings.rank) * change).astype(kernel.dtype)


def _sides(path: str, spec: Any, rank: int, freeze: tuple[str, ...]) -> tuple[int, int]:
    """(leading layer dimensions, input dimensions) of a target, told by the size of torch's first dimension."""
    if not path.endswith("/kernel"):
        raise ValueError(f"LoRA target '{path}' is no kernel; narrow the rule, such as 'text/layers/**/kernel'")
    for rule in freeze:
        if optimizer.matches(path, [rule]):
            raise ValueError(f"LoRA target '{path}' is frozen by '{rule}'; drop the target or the rule of model.freeze")
    lead = int(spec.axes[0] == "layers")
    sizes = spec.shape[lead:]
    outputs = next(k for k in range(1, len(sizes)) if math.prod(sizes[-k:]) == spec.hf.shape[0])
    width = math.prod(sizes[:-outputs]), spec.hf.shape[0]
    if rank > min(width):
        raise ValueError(f"LoRA rank {rank} exceeds that of '{path}', a {width[0]} × {width[1]} kernel; lower it")
    return lead, len(sizes) - outputs


def _placed(x: jax.Array, kernel: jax.Array, axes: Any) -> jax.Array:
    """`x` on the mesh of its kernel, its dimensions split as `axes` says of the kernel's."""
    if isinstance(kernel, jax.core.Tracer) or not isinstance(kernel.sharding, NamedSharding):
        return x
    whole = (*kernel.sharding.spec, *(None,) * (kernel.ndim - len(kernel.sharding.spec)))
    return jax.device_put(x, NamedSharding(kernel.sharding.mesh, PartitionSpec(*axes(whole))))


Trained = Leaves | Adapters
