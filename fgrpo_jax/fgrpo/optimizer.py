"""The optimiser, and which parameters it may touch.

Frozen parameters are found by path rules ('visual/**') and take no gradient, no moments and no update: the learner
differentiates with respect to the trainable leaves alone, held as one flat dict {path: array}.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from fgrpo_jax.fgrpo.settings import Optimizer
from fgrpo_jax.mesh import replicated

Params = Mapping[str, Any]
Flat = dict[str, jax.Array]
StateT = TypeVar("StateT")


@dataclasses.dataclass(frozen=True)
class Rule:
    """The optimiser's settings, and how many updates there will be: schedules that fall end after so many."""

    settings: Optimizer = dataclasses.field(default_factory=Optimizer)
    total_updates: int = 0


def flatten(params: Params) -> Flat:
    """{'a': {'b': x}} → {'a/b': x}, in sorted order of the paths."""
    return {"/".join(path): x for path, x in sorted(flatten_dict(params).items(), key=lambda item: item[0])}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict(flat, sep="/")


def matches(path: str, rules: Sequence[str]) -> bool:
    """True if the path meets one of the rules; 'visual/**' takes everything below visual, '*' crosses '/'."""
    return any(fnmatch.fnmatchcase(path, rule.replace("**", "*")) for rule in rules)


def require_matches(flat: Flat, rules: Sequence[str], *, what: str) -> None:
    """Raises a ValueError that names the first rule which no path meets."""
    for rule in rules:
        if not any(matches(path, [rule]) for path in flat):
            tops = ", ".join(sorted({path.split("/")[0] for path in flat}))
            raise ValueError(f"{what} '{rule}' matches no parameter; top-level names are {tops}")


def partition(params: Params, freeze: Sequence[str]) -> tuple[Flat, Flat]:
    """Splits parameters into (trainable, frozen) flat dicts.

    Raises:
      ValueError: if a rule matches nothing (a typo would otherwise train what was meant to be frozen), or if nothing
        is left to train.
    """
    flat = flatten(params)
    require_matches(flat, freeze, what="freeze rule")
    trainable = {path: x for path, x in flat.items() if not matches(path, freeze)}
    if not trainable:
        raise ValueError(f"freeze rules {list(freeze)} leave nothing to train; remove one")
    return trainable, {path: x for path, x in flat.items() if path not in trainable}


def merge(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `partition`."""
    return unflatten({**frozen, **trainable})


def schedule(rule: Rule) -> optax.Schedule:
    """Learning rate against the number of updates done.

    Raises:
      ValueError: a falling schedule without more updates in all than those of the warm-up.
    """
    settings, peak, warmup = rule.settings, rule.settings.learning_rate, rule.settings.warmup_updates
    decay = rule.total_updates - warmup
    if settings.schedule != "constant" and decay <= 0:
        raise ValueError(
            f"schedule '{settings.schedule}' needs total_updates ({rule.total_updates}) above warmup_updates ({warmup})"
        )
    tails = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, decay),
        "linear": lambda: optax.linear_schedule(peak, 0.0, decay),
    }
    tail = tails[settings.schedule]()
    if warmup == 0:
        return tail
    # Starts at peak/warmup, not at 0: an update with a zero rate is a wasted batch.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), tail], [warmup])


def make(rule: Rule) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimiser with decay on every trainable parameter, as the paper's framework."""
    settings, rate = rule.settings, schedule(rule)
    mean_dtype = None if settings.mean_dtype == "float32" else settings.mean_dtype
    decay: dict[str, Any] = {"eps": settings.eps, "weight_decay": settings.weight_decay, "mu_dtype": mean_dtype}
    if settings.name == "adamw":
        made = optax.adamw(rate, b1=settings.b1, b2=settings.b2, **decay)
    else:
        made = optax.contrib.muon(
            rate,
            adam_b1=settings.b1,
            adam_b2=settings.b2,
            adam_weight_decay=settings.weight_decay,
            consistent_rms=0.2,  # AdamW's usual step (Liu et al. 2025), so that the same rate serves both
            muon_weight_dimension_numbers=_matrices,
            **decay,
        )
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), made)


def _matrices(flat: Any) -> Any:
    """{path: array} → {path: its matrix axes, None for what is left to AdamW (or masked already)}"""
    return {path: None if isinstance(x, optax.MaskedNode) else _matrix_axes(path, x.ndim) for path, x in flat.items()}


def _matrix_axes(path: str, ndim: int) -> optax.contrib.MuonDimensionNumbers | None:
    """Which axes of a kernel are inputs and which outputs; the others (layers, q|k|v) are matrices side by side."""
    if not path.endswith("/kernel"):
        return None
    first = 1 if "/layers/" in path or "/blocks/" in path else 0
    if path.endswith(("attn/o/kernel", "attn/proj/kernel")):
        return optax.contrib.MuonDimensionNumbers(tuple(range(first, ndim - 1)), (ndim - 1,))
    outputs = range(first + 2 if path.endswith("qkv/kernel") else first + 1, ndim)
    return optax.contrib.MuonDimensionNumbers((first,), tuple(outputs))


# ------------------------------------------------------------------------------------ float32 masters in two halves
@struct.dataclass
class Halves:
    """The state of a rule whose float32 masters are split: bfloat16 parameters above, 16 bits each below.

    A bfloat16 weight near 0.02 has a spacing of 1e-4, and 20 updates of 1e-6 leave it where it was. With the lower
    half beside it nothing is lost at all: the master is the same float32 number, bit for bit, that a float32 run has.
    """

    inner: Any
    low: Flat  # int16, in the shape of the parameters


def split_master(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 → (the nearest bfloat16, int16 remainder in units of the last float32 bit)."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    high = (bits + 0x8000) >> 16  # rounds half away from zero, so that the remainder fits 16 bits
    low = (bits - (high << 16)).astype(jnp.int16)
    return jax.lax.bitcast_convert_type(high.astype(jnp.uint16), jnp.bfloat16), low


def join_master(high: jax.Array, low: jax.Array) -> jax.Array:
    """The inverse of `split_master`."""
    bits = jax.lax.bitcast_convert_type(high, jnp.uint16).astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(bits + low.astype(jnp.int32).astype(jnp.uint32), jnp.float32)


def init(rule: Rule, params: Flat) -> Any:
    """The optimiser's state for these trainable parameters; moments are float32 whatever the parameters are.

    Raises:
      ValueError: `compensated` with parameters that are not bfloat16.
    """
    tx = make(rule)
    if not rule.settings.compensated:
        return tx.init(params)
    if odd := [path for path, x in params.items() if x.dtype != jnp.bfloat16]:
        raise ValueError(f"compensated updates are of bfloat16 parameters, but '{odd[0]}' is {params[odd[0]].dtype}")
    low = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.int16), params)
    return Halves(tx.init(jax.tree.map(lambda x: x.astype(jnp.float32), params)), low)


@dataclasses.dataclass(frozen=True)
class Applied:
    """Result of one guarded update."""

    params: Flat
    opt_state: Any
    grad_norm: jax.Array  # float32 []
    finite: jax.Array  # bool []
    moved_share: jax.Array  # float32 []  share of trainable weights whose master changed


def apply_guarded(tx: optax.GradientTransformation, grads: Flat, opt_state: Any, params: Flat) -> Applied:
    """One optimiser update, or none at all when the gradient norm is not finite.

    Where the state is `Halves`, the update is made on the masters that they and `params` are.
    """
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    # Zeros, not NaN, flow through the discarded branch: `where` below picks, and nothing non-finite is ever computed.
    safe = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros_like(g)), grads)
    split = isinstance(opt_state, Halves)
    masters = {path: join_master(x, opt_state.low[path]) for path, x in params.items()} if split else params
    updates, inner = tx.update(safe, opt_state.inner if split else opt_state, masters)
    moved_to: Any = optax.apply_updates(masters, updates)
    new_params, new_opt = moved_to, inner
    if split:
        halves = {path: split_master(x) for path, x in moved_to.items()}
        new_params = {path: high for path, (high, _) in halves.items()}
        new_opt = Halves(inner, {path: low for path, (_, low) in halves.items()})
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)  # noqa: E731
    total = sum(x.size for x in params.values())
    changed = (jnp.sum(finite & (moved_to[k] != masters[k]), dtype=jnp.float32) for k in params)
    moved = sum(changed, start=jnp.float32(0)) / float(total)  # 3B are beyond an int32
    return Applied(keep(new_params, params), keep(new_opt, opt_state), norm, finite, moved)


# ------------------------------------------------------------------------------------------- states and their shardings
def on_mesh_of(params: Params, state: StateT) -> StateT:
    """Puts every leaf of `state` that is not yet on the mesh of `params` (counters, multipliers) on all its devices."""
    meshes = [x.sharding.mesh for x in jax.tree.leaves(params) if isinstance(x.sharding, jax.sharding.NamedSharding)]
    if not meshes:
        return state
    whole = replicated(meshes[0])
    return jax.tree.map(
        lambda x: x if isinstance(x.sharding, jax.sharding.NamedSharding) else jax.device_put(x, whole), state
    )


class Stepper:
    """A compiled (state, *inputs) → (new state, *outputs) that donates the state and returns it with its shardings.

    Left to itself the compiler may return a state sharded otherwise than it came, and the second step would be compiled
    anew. `compiler_options` are XLA's, of this program alone.
    """

    def __init__(self, function: Callable[..., tuple[Any, ...]], *, compiler_options: dict[str, Any] | None = None):
        self._function = function
        self._compiler_options = compiler_options
        self._jitted: Any = None
        self._traces = 0

    def __call__(self, state: Any, *inputs: Any) -> tuple[Any, ...]:
        new, outputs = self._build(state)(state, *inputs)
        return (new, *outputs)

    def lower(self, state: Any, *inputs: Any) -> Any:
        """The program for these arrays or ShapeDtypeStructs, lowered but not run."""
        return self._build(state).lower(state, *inputs)

    @property
    def compilations(self) -> int:
        """Programs compiled so far."""
        # The traces count what `lower` did ahead of a call, the cache what a change of sharding alone compiled.
        return 0 if self._jitted is None else max(self._traces, self._jitted._cache_size())

    def _build(self, state: Any) -> Any:
        if self._jitted is None:
            shardings = jax.tree.map(lambda x: x.sharding, state)

            def step(state: Any, *inputs: Any) -> tuple[Any, tuple[Any, ...]]:
                self._traces += 1
                new, *outputs = self._function(state, *inputs)
                return new, tuple(outputs)

            self._jitted = jax.jit(
                step, donate_argnums=0, out_shardings=(shardings, None), compiler_options=self._compiler_options
            )
        return self._jitted
