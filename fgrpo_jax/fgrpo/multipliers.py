"""Lagrange multipliers by projected dual ascent on the measured constraint means (Eq. 4 and 5).

    c̄_k = Σ m_k R_k / Σ m_k                               over all M·G rollouts of the global batch
    λ_k ← clip(λ_k + η_k · violation_k, 0, λ_max,k)       unchanged when too few rollouts are applicable
    violation_k = τ_k − c̄_k for ≥,  c̄_k − τ_k for ≤      positive = violated

So λ rises while its constraint is violated and falls while it is met. Sums are plain sums: under `jit` with sharded
inputs they run over the global batch, so every host holds the same λ.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def constraint_means(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean of each constraint signal over its applicable rollouts (Eq. 4).

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
    """One projected ascent step, λ(t) → λ(t+1) (Eq. 5).

    A multiplier stays as it is, bit for bit, when fewer than `min_applicable` rollouts (and in any case when none) were
    applicable, or when the mean is not finite: λ lives in the checkpoint, and one NaN would be there for good.

    Args:
      lam: [C], λ(t).
      mean, applicable: [C], as given by `constraint_means`.
      threshold, direction: [C], as in `violation`.
      lr: [C], η_k ≥ 0; 0 keeps the multiplier fixed.
      lam_max: [C], upper bound of the projection.
      min_applicable: int [C].

    Returns:
      λ(t+1), [C], in the dtype of `lam`.

    Raises:
      ValueError: the arrays do not all have the shape of `lam`.
    """
    arrays = {"mean": mean, "applicable": applicable, "threshold": threshold, "direction": direction}
    arrays |= {"lr": lr, "lam_max": lam_max, "min_applicable": min_applicable}
    for name, array in arrays.items():
        if jnp.shape(array) != jnp.shape(lam):
            raise ValueError(f"{name} must have one entry a constraint: {jnp.shape(lam)}, got {jnp.shape(array)}")
    dtype = lam.dtype
    step = jnp.asarray(lr, dtype) * violation(mean.astype(dtype), threshold, direction=direction)
    moved = jnp.clip(lam + step, 0, jnp.asarray(lam_max, dtype))
    enough = applicable >= jnp.maximum(jnp.asarray(min_applicable, applicable.dtype), 1)
    return jnp.where(enough & jnp.isfinite(step), moved, lam)
