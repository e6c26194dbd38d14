"""Lagrange multipliers by projected dual ascent on the measured constraint means (Eq. 4 and 5), and two other rules.

    c̄_k = Σ m_k R_k / Σ m_k                               over all M·G rollouts of the global batch (Eq. 5)
    λ_k ← clip(λ_k + η_k · violation_k, 0, λ_max,k)       unchanged when too few rollouts are applicable (Eq. 4)
    violation_k = τ_k − c̄_k for ≥,  c̄_k − τ_k for ≤      positive = violated

So λ rises while its constraint is violated and falls while it is met. Sums are plain sums: under `jit` with sharded
inputs they run over the global batch, so every host holds the same λ.

Eq. 4 is `linear`. `exponential` climbs in log λ, `pid` adds a proportional and a derivative term. `start` and `advance`
run any mixture of them, with windows and delays, on a tuple of `Constraint`: this is what the learner compiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from fgrpo_jax.fgrpo.settings import Constraint
from fgrpo_jax.records import DualMemory

FLOOR = 1e-6
"""Least λ of the exponential rule when its lower bound is below: from 0 no factor leads back."""


@struct.dataclass
class Advanced:
    """One step of all multipliers. `mean` and `applicable` are this step's own, whatever the windows."""

    lam: jax.Array  # float32 [C]   λ(t+1)
    memory: DualMemory
    mean: jax.Array  # float32 [C]
    applicable: jax.Array  # int32 [C]
    saturated: jax.Array  # bool [C]   moved to λ_max, and violated all the same


def column(constraints: Sequence[Constraint], field: str, dtype: Any = jnp.float32) -> jax.Array:
    """[C], one setting of every constraint."""
    return jnp.asarray([getattr(c, field) for c in constraints], dtype)


# -------------------------------------------------------------------------------------------------------------- Eq. 5
def constraint_means(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean of each constraint signal over its applicable rollouts (Eq. 5).

    Args:
      values: [C, M, G] signals R_k; what stands at masked places is never read (it may be NaN).
      mask: bool [C, M, G], True where R_k is applicable.

    Returns:
      (mean [C], applicable int32 [C]). A mean over nothing is undefined: it is given as 0 together with applicable 0,
      and whoever reads it must look at the count (`update` does; metrics write null).

    Raises:
      ValueError: shapes differ or are not [C, M, G].
    """
    if values.ndim != 3 or values.shape != mask.shape:
        raise ValueError(f"values and mask must both be [C, M, G], got {values.shape} and {mask.shape}")
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    applicable = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    total = jnp.sum(jnp.where(mask, values.astype(dtype), 0), axis=(1, 2))
    return total / jnp.maximum(applicable, 1).astype(dtype), applicable


def violation(mean: jax.Array, threshold: jax.Array, *, direction: jax.Array) -> jax.Array:
    """How far each constraint is from being met, [C]: τ − mean for ≥, mean − τ for ≤. Positive = violated.

    Args:
      mean: [C], in the unit of the signal.
      threshold: [C], τ_k.
      direction: [C], +1 for a lower bound (mean ≥ τ), −1 for an upper bound (mean ≤ τ).
    """
    return jnp.asarray(direction, mean.dtype) * (jnp.asarray(threshold, mean.dtype) - mean)


# -------------------------------------------------------------------------------------------------------------- rules
def linear(lam: jax.Array, violation: jax.Array, *, lr: jax.Array, lam_min: jax.Array, lam_max: jax.Array) -> jax.Array:
    """Projected ascent (Eq. 4): clip(λ + η·violation, λ_min, λ_max). All arrays [C]."""
    return jnp.clip(lam + lr * violation, lam_min, lam_max)


def exponential(
    lam: jax.Array, violation: jax.Array, *, lr: jax.Array, lam_min: jax.Array, lam_max: jax.Array
) -> jax.Array:
    """Ascent in log λ: clip(λ·exp(η·violation), max(λ_min, FLOOR), λ_max). All arrays [C].

    A step is a share of λ: large multipliers answer fast, and one near 0 needs long to come back.
    """
    return jnp.clip(lam * jnp.exp(lr * violation), jnp.maximum(lam_min, FLOOR), lam_max)


def pid(
    integral: jax.Array,
    previous: jax.Array,
    violation: jax.Array,
    *,
    lr: jax.Array,
    kp: jax.Array,
    kd: jax.Array,
    lam_min: jax.Array,
    lam_max: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """PID control of the violation e (Stooke, Achiam, Abbeel 2020): λ = clip(kp·e + I + kd·max(0, Δe), λ_min, λ_max).

    I ← clip(I + η·e, λ_min, λ_max) is kept in units of λ, so that kp = kd = 0 is `linear` and the rate means the same.
    Its own bounds are the anti-windup: however long a constraint was violated, I falls with the first step that meets
    it. Only a rise of e counts in the derivative: it brakes, and never spurs.

    Args:
      integral: [C], I of the step before; λ⁰ at first.
      previous: [C], e of the step before; +inf at first, which makes the first derivative 0.
      violation: [C], e.

    Returns:
      (λ(t+1), I(t+1)).
    """
    total = linear(integral, violation, lr=lr, lam_min=lam_min, lam_max=lam_max)
    rise = jnp.maximum(violation - previous, 0)
    return jnp.clip(kp * violation + total + kd * rise, lam_min, lam_max), total


def update(
    lam: jax.Array,
    mean: jax.Array,
    applicable: jax.Array,
    *,
    threshold: jax.Array,
    direction: jax.Array,
    lr: jax.Array,
    lam_max: jax.Array,
    min_applicable: jax.Array,
) -> jax.Array:
    """One projected ascent step, λ(t) → λ(t+1) (Eq. 4): what `advance` does for the paper's rule, on plain arrays.

    A multiplier stays as it is, bit for bit, when fewer than `min_applicable` rollouts (and in any case when none) were
    applicable, or when the mean is not finite: λ lives in the checkpoint, and one NaN would be there for good.

    All arrays are [C]: λ(t), mean and count as `constraint_means` gives them, threshold and direction as in
    `violation`, the rate η_k ≥ 0, the upper bound, and the int `min_applicable`. λ(t+1) has the dtype of `lam`.

    Raises:
      ValueError: the arrays do not all have the shape of `lam`.
    """
    arrays = {"mean": mean, "applicable": applicable, "threshold": threshold, "direction": direction}
    arrays |= {"lr": lr, "lam_max": lam_max, "min_applicable": min_applicable}
    for name, array in arrays.items():
        if jnp.shape(array) != jnp.shape(lam):
            raise ValueError(f"{name} must have one entry a constraint: {jnp.shape(lam)}, got {jnp.shape(array)}")
    dtype = lam.dtype
    error = violation(mean.astype(dtype), threshold, direction=direction)
    bounds = {"lam_min": jnp.zeros_like(lam), "lam_max": jnp.asarray(lam_max, dtype)}
    moved = linear(lam, error, lr=jnp.asarray(lr, dtype), **bounds)
    return jnp.where(_measured(error, applicable, min_applicable), moved, lam)


# --------------------------------------------------------------------------------------------- every constraint at once
def start(constraints: Sequence[Constraint]) -> tuple[jax.Array, DualMemory]:
    """(λ(0) float32 [C], what the rules remember before the first step)."""
    count, window = len(constraints), max((c.window for c in constraints), default=1)
    memory = DualMemory()
    if any(c.rule == "pid" for c in constraints):
        memory = DualMemory(integral=column(constraints, "init"), previous=jnp.full(count, jnp.inf, jnp.float32))
    if window > 1:
        shape = (count, window - 1)
        memory = memory.replace(sums=jnp.zeros(shape, jnp.float32), counts=jnp.zeros(shape, jnp.int32))
    return column(constraints, "init"), memory


def advance(
    lam: jax.Array,
    memory: DualMemory,
    values: jax.Array,
    mask: jax.Array,
    *,
    constraints: Sequence[Constraint],
    step: jax.Array,
) -> Advanced:
    """Measures every constraint on a rollout batch and moves its multiplier by its rule, λ(t) → λ(t+1).

    A multiplier and what its rule remembers stay as they are, bit for bit, in its first `delay` steps, when fewer than
    `min_applicable` rollouts of its window (and in any case when none) were applicable, or when the mean is not finite.
    A step whose sum is not finite enters no window.

    Args:
      lam, memory: of `start`, or of the step before.
      values, mask: [C, M, G], as in `constraint_means`.
      step: int [], steps done before this one.

    Raises:
      ValueError: as many values as constraints are needed, and shapes that `constraint_means` asks for.
    """
    if not len(constraints) == len(lam) == len(values):
        raise ValueError(f"{len(constraints)} constraints, {len(lam)} multipliers, {len(values)} signals: as many each")
    get = lambda field, dtype=lam.dtype: column(constraints, field, dtype)  # noqa: E731
    mean, applicable = constraint_means(values, mask)
    threshold, direction = get("threshold"), get("sign")
    pooled, counted = mean, applicable
    if memory.sums is not None and memory.counts is not None:
        window = get("window", jnp.int32)
        pooled, counted, sums, counts = _pool(memory.sums, memory.counts, values, mask=mask, window=window)
        memory = memory.replace(sums=sums, counts=counts)
    error = violation(pooled.astype(lam.dtype), threshold, direction=direction)
    moves = _measured(error, counted, get("min_applicable", jnp.int32))
    if any(c.delay for c in constraints):
        moves = moves & (step >= get("delay", jnp.int32))
    new, memory = _ruled(lam, memory, error, constraints=constraints, moves=moves)
    # A multiplier that is fixed at its bound does not saturate.
    learns = np.asarray([c.lr > 0 or c.kp > 0 or c.kd > 0 for c in constraints], bool)
    saturated = moves & (new >= get("max")) & (error > 0) & learns
    return Advanced(lam=new, memory=memory, mean=mean, applicable=applicable, saturated=saturated)


# -------------------------------------------------------------------------------------------------------------- private
def _measured(error: jax.Array, applicable: jax.Array, min_applicable: jax.Array) -> jax.Array:
    """bool [C]: enough was measured for λ to move."""
    enough = applicable >= jnp.maximum(jnp.asarray(min_applicable, applicable.dtype), 1)
    return enough & jnp.isfinite(error)


def _ruled(
    lam: jax.Array, memory: DualMemory, error: jax.Array, *, constraints: Sequence[Constraint], moves: jax.Array
) -> tuple[jax.Array, DualMemory]:
    """Each multiplier by its own rule, where it `moves`."""
    get = lambda field: column(constraints, field, lam.dtype)  # noqa: E731
    rate: dict[str, jax.Array] = {"lr": get("lr"), "lam_min": get("min"), "lam_max": get("max")}
    new = linear(lam, error, **rate)
    if any(c.rule == "exponential" for c in constraints):
        new = jnp.where(_follows(constraints, "exponential"), exponential(lam, error, **rate), new)
    if memory.integral is not None and memory.previous is not None:
        mine = _follows(constraints, "pid")
        controlled, total = pid(memory.integral, memory.previous, error, kp=get("kp"), kd=get("kd"), **rate)
        new = jnp.where(mine, controlled, new)
        kept = ((total, memory.integral), (error, memory.previous))
        integral, previous = (jnp.where(moves & mine, now, before) for now, before in kept)
        memory = memory.replace(integral=integral, previous=previous)
    return jnp.where(moves, new, lam), memory


def _follows(constraints: Sequence[Constraint], rule: str) -> np.ndarray:
    return np.asarray([c.rule == rule for c in constraints], bool)


def _pool(
    sums: jax.Array, counts: jax.Array, values: jax.Array, *, mask: jax.Array, window: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(mean [C] and count [C] over each constraint's last `window` steps, then sums and counts with this step's)."""
    total = jnp.sum(jnp.where(mask, values.astype(sums.dtype), 0), axis=(1, 2))
    count = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    whole = jnp.isfinite(total)
    sums = jnp.concatenate([sums, jnp.where(whole, total, 0)[:, None]], axis=1)
    counts = jnp.concatenate([counts, jnp.where(whole, count, 0)[:, None]], axis=1)
    places = sums.shape[1]
    inside = jnp.arange(places, dtype=jnp.int32)[None] >= places - window[:, None]
    pooled = jnp.sum(jnp.where(inside, counts, 0), axis=1, dtype=jnp.int32)
    mean = jnp.sum(jnp.where(inside, sums, 0), axis=1) / jnp.maximum(pooled, 1).astype(sums.dtype)
    return mean, pooled, sums[:, 1:], counts[:, 1:]
