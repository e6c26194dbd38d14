"""Advantages: each signal normalised on its own within its group, then mixed and whitened (Eq. 6).

    Â_s(i) = (s_i − mean_group) / (std_group + ε)        s ∈ {task, C, S, G}
    Â      = Â_task + Σ_k λ_k Â_k, then divided by its RMS over the live groups of the batch

M prompts, G rollouts a prompt, C constraints. The group axis is always the last one and is never split over devices;
every other reduction here is a plain sum, which under `jit` with sharded inputs is a sum over the global batch.

Everything runs in at least float32 (`promote_types`): bfloat16 has 8 bits, so rewards 0.9 and 0.902 would already be a
constant group.

The bits of an advantage do not depend on what else is in the compiled program, nor on the number of devices; so λ = 0
can equal GRPO-T bit for bit although the two are different programs. XLA may add a `reduce` in any order and fuse
a·b + c into one rounding, differently in each program. Therefore sums over G are written out, the sum over M is done in
integers, and a `where` stands between every product and the sum it enters.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

Masked = Literal["masked", "zero_fill"]
Whiten = Literal["live", "all", "none"]


@struct.dataclass
class Advantages:
    """The mixed advantage, with the parts it was made of (all stop at the rollouts: no gradient flows through them).

    `share[0]` is the task's part of the mix, `share[1 + k]` that of constraint k: mean |λ_k Â_k| over the sum of all
    such means; they add up to 1, or are all 0 when every group is dead. One shared whitening leaves only the relative
    size of the λ, and the share is where that can be seen.
    """

    total: jax.Array  # float32 [M, G]          Â, whitened
    task: jax.Array  # float32 [M, G]          Â_task, before mixing
    constraints: jax.Array  # float32 [C, M, G]       Â_k, before mixing and without λ_k
    share: jax.Array  # float32 [1 + C]


def group_normalise(
    values: jax.Array, mask: jax.Array, *, ddof: int = 1, eps: float = 1e-6, masked: Masked = "masked", std: bool = True
) -> jax.Array:
    """Normalise a signal within its group: (s − mean) / (std + ε), over the last axis.

    A group that is constant (max == min over its applicable members) gives exactly 0. This is a range test on purpose:
    in float32 the mean of 8 × 0.7 is off by an ulp, which a small ε turns into advantages near 1. Groups with fewer
    than 2 applicable members give 0 as well.

    Args:
      values: [..., G]; what stands at masked places is never read (it may be NaN). A NaN at an applicable place makes
        its group NaN, so that the learner's guard for non-finite gradients sees it.
      mask: bool [..., G], True where the signal is applicable.
      ddof: 1 for the unbiased standard deviation, 0 for the biased one.
      eps: added to the standard deviation.
      masked: 'masked' takes mean and std over the applicable members and gives the others 0; 'zero_fill' reads masked
        members as the value 0 and normalises over all G.
      std: False leaves out the division (Dr. GRPO).

    Returns:
      [..., G], in float32 or, for float64 values, float64.

    Raises:
      ValueError: shapes differ, or an unknown `masked` or `ddof`.
    """
    check_same_shape(values=values, mask=mask)
    if masked not in ("masked", "zero_fill"):
        raise ValueError(f"masked must be 'masked' or 'zero_fill', got {masked!r}")
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 (biased) or 1 (unbiased), got {ddof!r}")
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    filled = jnp.where(mask, values.astype(dtype), 0)
    members = mask if masked == "masked" else jnp.ones_like(mask)

    count = jnp.sum(members, axis=-1, keepdims=True)
    highest = jnp.max(jnp.where(members, filled, -jnp.inf), axis=-1, keepdims=True)
    lowest = jnp.min(jnp.where(members, filled, jnp.inf), axis=-1, keepdims=True)
    live = (count >= 2) & (highest != lowest)  # != and not >: NaN must not pass for a constant group

    # Counts are raised to 1 before dividing: the unused branch of a `where` must be finite too.
    mean = _sum_group(filled) / jnp.maximum(count, 1).astype(dtype)
    centred = jnp.where(members & live, filled - jnp.where(live, mean, 0), 0)
    if not std:
        return centred
    squares = jnp.where(members & live, centred * centred, 0)
    variance = _sum_group(squares) / jnp.maximum(count - ddof, 1).astype(dtype)
    deviation = jnp.sqrt(jnp.where(live, variance, 1))
    return jnp.where(members & live, centred * (1 / (deviation + eps)), 0)


def combine(
    task: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    lam: jax.Array,
    *,
    whiten: Whiten = "live",
    normalise_lambda: bool = False,
    **rules: Any,
) -> Advantages:
    """Mix the task's advantage with the constraints' (Eq. 6) and whiten the mix over the batch.

    With every λ_k = 0, or with no constraints at all (C = 0), this is GRPO-T: the same total, bit for bit.

    Args:
      task: [M, G] task reward R_task, applicable to every rollout.
      values: [C, M, G] constraint signals R_k.
      mask: bool [C, M, G], True where R_k is applicable.
      lam: [C] multipliers λ(t) ≥ 0, those of before this step's dual update.
      whiten: 'live' divides by the RMS over the live groups (those with any mixed advantage ≠ 0), 'all' by the RMS
        over every group, 'none' not at all. There is no centring: groups sum to 0 already, and dead groups must stay 0.
      normalise_lambda: divide the mix by 1 + Σλ as in Safe-RLHF. Needs whiten='none', since whitening undoes it.
      rules: ddof, eps, masked and std of `group_normalise`, the same for every signal.

    Raises:
      ValueError: shapes that do not fit, or `normalise_lambda` together with whitening.
    """
    _check_constraints(task=task, values=values, mask=mask, weights=lam, expected=values.shape[0])
    if normalise_lambda and whiten != "none":
        raise ValueError(
            f"normalise_lambda divides the mix by 1 + Σλ, which whiten={whiten!r} would undo: set whiten='none'"
        )
    parts = _normalise_parts(task, values, mask, **rules)
    weights = jnp.concatenate([jnp.ones((1,), parts.dtype), lam.astype(parts.dtype)])
    scale = 1 / jnp.sum(weights) if normalise_lambda else None
    return _mix(parts, weights, scale=scale, whiten=whiten)


def gdpo(
    task: jax.Array, values: jax.Array, mask: jax.Array, weights: jax.Array, *, whiten: Whiten = "live", **rules: Any
) -> Advantages:
    """GDPO: Σ_s w_s Â_s with fixed weights [1 + C] (the task's first), then whitening over the batch.

    Shapes, options and errors as in `combine`.
    """
    _check_constraints(task=task, values=values, mask=mask, weights=weights, expected=1 + values.shape[0])
    parts = _normalise_parts(task, values, mask, **rules)
    return _mix(parts, weights.astype(parts.dtype), scale=None, whiten=whiten)


def additive(accuracy: jax.Array, format: jax.Array, *, consistency: jax.Array, spatial: jax.Array) -> jax.Array:
    """Baseline reward ⅓·R_acc + ⅓·R_acc·R_C + ⅓·R_fmt·R_G, all [M, G]; constraint signals are 0 where masked.

    To be group-normalised as a task reward with no constraints (C = 0).
    """
    check_same_shape(accuracy=accuracy, format=format, consistency=consistency, spatial=spatial)
    return (accuracy + accuracy * consistency + format * spatial) / 3


def multiplicative(accuracy: jax.Array, format: jax.Array, *, consistency: jax.Array, spatial: jax.Array) -> jax.Array:
    """Baseline reward 0.5·R_acc·R_C + 0.5·R_fmt·R_G; shapes and use as in `additive`."""
    check_same_shape(accuracy=accuracy, format=format, consistency=consistency, spatial=spatial)
    return 0.5 * (accuracy * consistency) + 0.5 * (format * spatial)


def whiten_tokens(mixed: jax.Array, tokens: jax.Array) -> jax.Array:
    """verl's masked_whiten of a mix [M, G]: (Â − mean) / √(variance + 1e-8) over tokens, each with its rollout's Â.

    Long rollouts count more, and dead groups are moved off 0; a batch that is dead throughout stays 0. `tokens` int
    [M, G] says how many tokens of each rollout count; one without any gets 0. The variance is unbiased.
    """
    check_same_shape(mixed=mixed, tokens=tokens)
    share = lambda values: jnp.where(tokens == 0, 0, tokens.astype(mixed.dtype) * values)  # noqa: E731
    total = lambda values: _sum_in_order(_sum_group(share(values))[:, 0])  # noqa: E731
    count = jnp.sum(tokens)
    centred = mixed - total(mixed) / jnp.maximum(count, 1).astype(mixed.dtype)
    variance = total(centred * centred) / jnp.maximum(count - 1, 1).astype(mixed.dtype)
    return jnp.where(tokens == 0, 0, centred * jax.lax.rsqrt(variance + 1e-8))


def live_groups(mixed: jax.Array) -> jax.Array:
    """bool [M]: the groups of `mixed` [M, G] with any advantage ≠ 0 (NaN counts as live, so that it is not hidden)."""
    return jnp.any(mixed != 0, axis=-1)


# -------------------------------------------------------------------------------------------------------------- private
def _normalise_parts(task: jax.Array, values: jax.Array, mask: jax.Array, **rules: Any) -> jax.Array:
    """Â of every signal, [1 + C, M, G], the task first."""
    dtype = jnp.promote_types(jnp.promote_types(task.dtype, values.dtype), jnp.float32)
    base = group_normalise(task.astype(dtype), jnp.ones(task.shape, bool), **rules)
    constraints = group_normalise(values.astype(dtype), mask, **rules)
    return jnp.concatenate([base[None], constraints])


def _mix(parts: jax.Array, weights: jax.Array, *, scale: jax.Array | None, whiten: Whiten) -> Advantages:
    """Weighted sum over the leading axis of `parts` [1 + C, M, G], then whitening."""
    terms = [_weighted(part, weight) for part, weight in zip(parts, weights, strict=True)]
    # Left to right from the task's term, so that λ = 0 only ever adds +0.0 to it: same bits as without constraints.
    mixed = terms[0]
    for term in terms[1:]:
        mixed = mixed + term
    if scale is not None:
        mixed = mixed * scale
    size = jnp.stack([jnp.mean(jnp.abs(term)) for term in terms])
    whole = jnp.sum(size)
    share = jnp.where(whole == 0, 0, size / jnp.where(whole == 0, 1, whole))
    return Advantages(total=_whitened(mixed, whiten=whiten), task=parts[0], constraints=parts[1:], share=share)


def _weighted(part: jax.Array, weight: jax.Array) -> jax.Array:
    """weight · part; exactly +0.0 for weight 0, whatever the part holds (0 · NaN is NaN, 0 · −1 is −0.0)."""
    return jnp.where(weight == 0, 0, weight * part)


def _whitened(mixed: jax.Array, *, whiten: Whiten) -> jax.Array:
    """`mixed` [M, G] divided by its RMS over the groups that `whiten` names; 0 when the whole batch is dead."""
    if whiten == "none":
        return mixed
    if whiten not in ("live", "all"):
        raise ValueError(f"whiten must be 'live', 'all' or 'none', got {whiten!r}")
    prompts, group = mixed.shape
    groups = jnp.sum(live_groups(mixed)) if whiten == "live" else jnp.asarray(prompts)
    squares = jnp.where(mixed == 0, 0, mixed * mixed)
    rms = jnp.sqrt(_sum_in_order(_sum_group(squares)[:, 0]) / jnp.maximum(groups * group, 1).astype(mixed.dtype))
    return jnp.where(rms == 0, 0, mixed * (1 / jnp.where(rms == 0, 1, rms)))


def _sum_group(values: jax.Array) -> jax.Array:
    """Sum over the last axis, [..., G] → [..., 1], from left to right (G is small, and never sharded)."""
    return functools.reduce(jnp.add, [values[..., i : i + 1] for i in range(values.shape[-1])])


def _sum_in_order(values: jax.Array) -> jax.Array:
    """Sum of [M] numbers, one after the other: the same bits in every program and on any number of devices."""
    return jax.lax.scan(lambda total, value: (total + value, None), jnp.zeros((), values.dtype), values)[0]


def check_same_shape(**arrays: jax.Array) -> None:
    """Raises a ValueError that names all shapes unless they are one."""
    shapes = {name: tuple(jnp.shape(array)) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"these must have one shape, got {shapes}")


def _check_constraints(
    *, task: jax.Array, values: jax.Array, mask: jax.Array, weights: jax.Array, expected: int
) -> None:
    if task.ndim != 2 or values.ndim != 3 or values.shape[1:] != task.shape:
        raise ValueError(
            f"task must be [M, G] and values [C, M, G], got {task.shape} and {values.shape}"
            " (no constraints: values of shape [0, M, G])"
        )
    check_same_shape(values=values, mask=mask)
    if weights.shape != (expected,):
        raise ValueError(
            f"multipliers or weights must have shape ({expected},) for {values.shape[0]} constraints,"
            f" got {weights.shape}"
        )
