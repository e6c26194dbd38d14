"""Losses over completion tokens: clipped surrogate, KL to a reference, and the sums their metrics are made of.

Pure functions of arrays. Token arrays are [..., T] (in the learner [M, G, T]), one entry a completion token; `mask` is
True on the tokens that count. Every mean takes its normaliser as an argument: the learner counts once over the *global*
update batch, so that neither micro-batches nor devices nor padding change the loss or its gradient.

Masking is by `where`, before and after anything that may overflow, never by multiplication: 0 · NaN is NaN.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.fgrpo.advantages import check_same_shape

Aggregation = Literal["token_mean", "sequence_mean", "constant"]
Estimator = Literal["k1", "k2", "k3"]
Ratio = Literal["token", "sequence"]

LOG_RATIO_BOUND = 20.0
"""Policy log-ratios are clamped to ± this before exp: e^20 ≈ 4.9e8 is far outside every clip range, and float32 exp
overflows at 88.7, after which a zero cotangent times inf would be NaN."""


@struct.dataclass
class PolicySums:
    """Sums over unmasked tokens, float32 []; added up over micro-batches and divided by `tokens`, global means."""

    tokens: jax.Array  # number of unmasked tokens
    clipped_low: jax.Array  # tokens with A < 0 and ratio < 1 − low: no gradient
    clipped_high: jax.Array  # tokens with A > 0 and ratio > 1 + high: no gradient
    dual_clipped: jax.Array  # tokens with A < 0 and ratio > dual_clip: no gradient


def count(mask: jax.Array, *, aggregation: Aggregation, length: float | None = None) -> jax.Array:
    """The normaliser of `aggregate` over a whole (global) batch, float32 [], at least 1 so that nothing divides by 0.

    token_mean: unmasked tokens. sequence_mean: sequences with any unmasked token. constant: those sequences × `length`
    tokens (Dr. GRPO; usually the longest completion allowed).

    Raises:
      ValueError: unknown aggregation, or `length` missing (given) where it is (is not) used.
    """
    if (aggregation == "constant") != (length is not None):
        raise ValueError(
            f"length is for aggregation='constant' and only there, got {aggregation!r} with length={length}"
        )
    if aggregation == "token_mean":
        return jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)
    sequences = jnp.maximum(jnp.sum(jnp.any(mask, axis=-1), dtype=jnp.float32), 1)
    if aggregation == "sequence_mean":
        return sequences
    if length is not None:
        return sequences * length
    raise ValueError(f"aggregation must be 'token_mean', 'sequence_mean' or 'constant', got {aggregation!r}")


def aggregate(values: jax.Array, mask: jax.Array, *, aggregation: Aggregation, normaliser: jax.Array) -> jax.Array:
    """Reduce token values [..., T] to a scalar, a share of the global mean when `normaliser` is the global `count`.

    token_mean and constant: Σ_tokens / normaliser. sequence_mean: Σ_sequences (mean over its tokens) / normaliser.
    The results of the micro-batches of one batch *add up* to the result of the batch.
    """
    check_same_shape(values=values, mask=mask)
    kept = jnp.where(mask, values, 0)
    if aggregation == "sequence_mean":
        lengths = jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.int32), 1).astype(kept.dtype)
        total = jnp.sum(jnp.sum(kept, axis=-1) / lengths)
    elif aggregation in ("token_mean", "constant"):
        total = jnp.sum(kept)
    else:
        raise ValueError(f"aggregation must be 'token_mean', 'sequence_mean' or 'constant', got {aggregation!r}")
    return total / jnp.asarray(normaliser, total.dtype)


def policy_loss(
    logp: jax.Array,
    old_logp: jax.Array,
    *,
    advantages: jax.Array,
    mask: jax.Array,
    normaliser: jax.Array,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
    aggregation: Aggregation = "token_mean",
    ratio_of: Ratio = "token",
    weight: jax.Array | None = None,
) -> tuple[jax.Array, PolicySums]:
    """Clipped surrogate, to be minimised: −aggregate(min(r·Â, clip(r, 1 − low, 1 + high)·Â)), r = π/π_old.

    The clip is written as a choice, so that both paths are plain: where A > 0 and r > 1 + high, or A < 0 and
    r < 1 − low, the token adds a constant and has no gradient; everywhere else it adds r·Â. With `dual_clip` = c > 1
    tokens with A < 0 and r > c add c·Â, without gradient, too (Ye et al. 2020). Gradients flow through `logp` only.

    Args:
      logp: [..., T] log π of the sampled tokens, nats.
      old_logp: [..., T] log π_old; for the first update on a rollout batch `stop_gradient(logp)`: the ratio is then
        exactly 1 and the gradient is −Â ∇log π.
      advantages: [...], one a completion.
      mask: bool [..., T].
      normaliser: scalar, `count` of the global update batch.
      ratio_of: 'token', or 'sequence' for the geometric mean of a completion's ratios at each of its tokens, clipped as
        one (GSPO, Zheng et al. 2025; with aggregation='sequence_mean' its objective exactly). Such ratios move far less
        than a token's, so that their clip bounds are smaller: 3e-4 and 4e-4 in that paper.
      weight: [..., T] factor on each token's surrogate (see `importance_correction`), or None.

    Returns:
      (loss float32 [], sums for metrics).

    Raises:
      ValueError: shapes that do not fit, or clip bounds without sense.
    """
    check_same_shape(logp=logp, old_logp=old_logp, mask=mask)
    _check_policy(logp, advantages, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    dtype = jnp.promote_types(logp.dtype, jnp.float32)
    old = jax.lax.stop_gradient(old_logp).astype(dtype)
    log_ratio = jnp.where(mask, logp.astype(dtype) - old, 0)
    if ratio_of == "sequence":
        log_ratio = jnp.where(mask, _sequence_mean(log_ratio, mask), 0)
    elif ratio_of != "token":
        raise ValueError(f"ratio_of must be 'token' or 'sequence', got {ratio_of!r}")
    ratio = jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND))
    signed = jnp.broadcast_to(jax.lax.stop_gradient(advantages).astype(dtype)[..., None], ratio.shape)

    low = (signed < 0) & (ratio < 1 - clip_low)
    high = (signed > 0) & (ratio > 1 + clip_high)
    dual = jnp.zeros_like(mask) if dual_clip is None else (signed < 0) & (ratio > dual_clip)
    bounded = jnp.where(low, 1 - clip_low, jnp.where(high, 1 + clip_high, ratio))
    if dual_clip is not None:
        bounded = jnp.where(dual, dual_clip, bounded)
    surrogate = bounded * signed
    if weight is not None:
        check_same_shape(logp=logp, weight=weight)
        surrogate = surrogate * jax.lax.stop_gradient(weight).astype(dtype)
    loss = -aggregate(surrogate, mask, aggregation=aggregation, normaliser=normaliser)
    counted = _sums(mask, {"clipped_low": low, "clipped_high": high, "dual_clipped": dual})
    return loss, jax.lax.stop_gradient(PolicySums(tokens=jnp.sum(mask, dtype=jnp.float32), **counted))


def kl(
    logp: jax.Array,
    ref_logp: jax.Array,
    *,
    mask: jax.Array,
    estimator: Estimator = "k3",
    clamp: float = 10.0,
    most: float | None = None,
) -> jax.Array:
    """Estimate of KL(π‖π_ref) at each sampled token, [..., T], nats; 0 where masked. Tokens are samples of π.

    With d = clip(log π_ref − log π, ±clamp) (Schulman, "Approximating KL divergence"):

      k1 = −d             unbiased, either sign. Its own gradient ∇log π has mean 0, so as a loss term it does nothing:
                          it is of use as a part of the reward.
      k2 = d²/2           biased, ≥ 0. Its gradient (log π − log π_ref) ∇log π is in expectation that of KL(π‖π_ref).
      k3 = e^d − d − 1    unbiased, ≥ 0. Its gradient (1 − π_ref/π) ∇log π is in expectation that of KL(π_ref‖π), the
                          other direction, because the sampling is not differentiated through.

    Gradients flow through `logp` only, and are 0 outside the clamp: without it e^50 would be one token's gradient and
    e^89 is inf in float32. `most` bounds the estimate itself, and where it does the gradient is 0 too: for k3 verl and
    EasyR1 have clamp=20 and most=10.

    Raises:
      ValueError: shapes differ, unknown estimator, or clamp not above 0.
    """
    check_same_shape(logp=logp, ref_logp=ref_logp, mask=mask)
    if not clamp > 0:
        raise ValueError(f"clamp bounds |log-ratio| and must be above 0 nats, got {clamp}")
    dtype = jnp.promote_types(logp.dtype, jnp.float32)
    reference = jax.lax.stop_gradient(ref_logp).astype(dtype)
    difference = jnp.clip(jnp.where(mask, reference - logp.astype(dtype), 0), -clamp, clamp)
    if estimator not in ("k1", "k2", "k3"):
        raise ValueError(f"estimator must be 'k1', 'k2' or 'k3', got {estimator!r}")
    out = -difference if estimator == "k1" else 0.5 * difference**2
    if estimator == "k3":
        out = jnp.expm1(difference) - difference  # expm1: e^d − 1 loses every digit of a small d
    return out if most is None else jnp.clip(out, -most, most)


def importance_correction(
    logp: jax.Array, sampler_logp: jax.Array, *, mask: jax.Array, cap: float = 2.0
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Truncated importance weight min(π_old/π_sampler, cap) of each token, [..., T]; 1 where masked, no gradient.

    `logp` is the learner's log π_old, `sampler_logp` what the sampler reported for the same token; their difference is
    clamped to ± LOG_RATIO_BOUND.

    What it corrects: given a prefix, the mean of weight · f over the sampler's tokens is that of f under π_old over
    every token the sampler can draw. What it leaves: what the cap cuts off; the distribution of the *prefixes*, which
    stays the sampler's (each token is weighed alone: a product over a completion has no bounded variance); and, where
    the sampler drew from a truncated distribution (top-p, top-k, min-p), all tokens outside of it: there the weight is
    the probability of the kept set, at most 1, and the gradient is that of the kept tokens alone.

    Returns:
      (weight, float32 [] of the unmasked tokens: sums of the 'weight', of its square and of tokens 'capped', and the
      'largest' ratio before the cap). With n tokens the effective sample size is (Σw)²/(n Σw²), 1 for equal weights.

    Raises:
      ValueError: shapes differ or cap below 1 (which would shrink weights that need no correction).
    """
    check_same_shape(logp=logp, sampler_logp=sampler_logp, mask=mask)
    if cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    dtype = jnp.promote_types(logp.dtype, jnp.float32)
    log_ratio = jnp.where(mask, logp.astype(dtype) - sampler_logp.astype(dtype), 0)
    ratio = jax.lax.stop_gradient(jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)))
    weight = jnp.minimum(ratio, cap)
    parts = {"weight": weight, "weight_squared": weight * weight, "capped": ratio > cap}
    return weight, {**_sums(mask, parts), "largest": jnp.max(ratio)}


# -------------------------------------------------------------------------------------------------------------- private
def _sequence_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of each completion over its tokens, [..., T] → [..., 1]; `values` are 0 where masked."""
    lengths = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.int32), 1)
    return jnp.sum(values, axis=-1, keepdims=True) / lengths.astype(values.dtype)


def _sums(mask: jax.Array, parts: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """float32 [], the sum of each part [..., T] over unmasked tokens."""
    return {name: jnp.sum(jnp.where(mask, part.astype(jnp.float32), 0)) for name, part in parts.items()}


def _check_policy(
    logp: jax.Array, advantages: jax.Array, *, clip_low: float, clip_high: float, dual_clip: float | None
) -> None:
    if logp.shape[:-1] != advantages.shape:
        raise ValueError(
            f"advantages must have the shape of logp without its token axis: {logp.shape[:-1]}, got {advantages.shape}"
        )
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(f"clip bounds must be 0 ≤ low ≤ 1 and high ≥ 0, got low={clip_low}, high={clip_high}")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1 (3.0 is usual) or None for off, got {dual_clip}")
