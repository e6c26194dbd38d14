"""Eq. 4 to 6 on numbers worked out by hand, λ ≡ 0, and constant groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, at_most, same

Combine = Callable[..., Any]
"""(task [M, G], values [C, M, G], mask [C, M, G], λ [C]) → Â [M, G]."""

EPS = 1e-6
TASK = [[1, 0, 0, 0], [0.7, 0.7, 0.7, 0.7]]
VALUES = [[[1, 0, 0, 0], [1, 1, 1, 0]], [[0.9, 0.9, 0.9, 0.9], [0, 1, 0, 0]]]
MASK = [[[1, 1, 0, 0], [1, 1, 1, 1]], [[1, 1, 1, 1], [1, 1, 1, 1]]]
LAMBDA = [2.0, 0.5]


def by_hand() -> tuple[list[list[float]], list[float], list[float]]:
    """(Â [M, G], constraint means [C], λ(t+1) [C]) of the batch above, with unbiased deviations, one line a group.

    [1,0,0,0]: mean ¼, deviations ¾,-¼,-¼,-¼, squares sum to ¾, over 3 is ¼: standard deviation ½. [1,1,1,0] mirrors it.
    [1,0] (the other two masked): mean ½, deviations ½,-½, squares sum to ½, over 1: standard deviation √½.
    """
    half, root = 0.5 + EPS, math.sqrt(0.5) + EPS
    task = [[0.75 / half, -0.25 / half, -0.25 / half, -0.25 / half], [0, 0, 0, 0]]
    first = [[0.5 / root, -0.5 / root, 0, 0], [0.25 / half, 0.25 / half, 0.25 / half, -0.75 / half]]
    second = [[0, 0, 0, 0], [-0.25 / half, 0.75 / half, -0.25 / half, -0.25 / half]]
    groups = zip(task, first, second, strict=True)
    mixed = [[a + 2 * b + 0.5 * c for a, b, c in zip(*rows, strict=True)] for rows in groups]
    rms = math.sqrt(sum(x * x for row in mixed for x in row) / 8)  # both groups are live
    means = [(1 + 0 + 1 + 1 + 1 + 0) / 6, (4 * 0.9 + 1) / 8]
    # τ = 0.95 and 0.65, η = 0.05; the first rises by 0.05·(0.95 − 4/6), the second by 0.05·(0.65 − 0.575).
    return [[x / rms for x in row] for row in mixed], means, [2 + 0.05 * (0.95 - 4 / 6), 0.5 + 0.05 * 0.075]


def checks(_: runs.Context) -> Iterator[Check]:
    """The pure functions, compiled, against the numbers above."""
    import jax
    import jax.numpy as jnp

    from fgrpo_jax.fgrpo import advantages, multipliers

    combine = jax.jit(lambda *arrays: advantages.combine(*arrays, eps=EPS).total)
    task, values = jnp.asarray(TASK, jnp.float32), jnp.asarray(VALUES, jnp.float32)
    mask, lam = jnp.asarray(MASK, bool), jnp.asarray(LAMBDA, jnp.float32)
    total, means, raised = by_hand()
    mean, applicable = multipliers.constraint_means(values, mask)
    column = lambda *numbers: jnp.asarray(numbers, jnp.float32)  # noqa: E731
    new = multipliers.update(
        lam,
        mean,
        applicable,
        threshold=column(0.95, 0.65),
        direction=column(1, 1),
        lr=column(0.05, 0.05),
        lam_max=column(5, 5),
        min_applicable=jnp.asarray([6, 8]),
    )
    yield at_most("algebra/Eq. 4: constraint means, worst error", _worst(mean, means), 1e-6)
    yield at_most("algebra/Eq. 5: multipliers, worst error", _worst(new, raised), 1e-6)
    yield at_most("algebra/Eq. 6: advantages, worst error", _worst(combine(task, values, mask, lam), total), 1e-6)
    yield same("algebra/lambda 0: bits of the advantages that differ from GRPO-T", _bits_apart(combine), 0)
    yield at_most("algebra/constant groups: largest advantage", _constant(combine), 0)


def _worst(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())


def _bits_apart(combine: Combine) -> int:
    """Advantages of random batches under λ = 0 that are not bit-equal to those without any constraint."""
    import jax.numpy as jnp

    rng, apart = np.random.default_rng(0), 0
    for group in (4, 5, 8):
        task = jnp.asarray(rng.choice([0, 0.5, 1], (16, group)), jnp.float32)
        values = jnp.asarray(rng.random((3, 16, group)), jnp.float32)
        mask = jnp.asarray(rng.random(values.shape) < 0.7)
        zero = combine(task, values, mask, jnp.zeros(3, jnp.float32))
        plain = combine(task, values[:0], mask[:0], jnp.zeros(0, jnp.float32))
        apart += int((np.asarray(zero).view(np.uint32) != np.asarray(plain).view(np.uint32)).sum())
    return apart


def _constant(combine: Combine) -> float:
    """Largest |Â| when reward and constraints are constant in every group."""
    import jax.numpy as jnp

    worst = 0.0
    for value, group in itertools.product((0.1, 0.3, 0.7, 0.9), (5, 8, 16)):
        flat = jnp.full((4, group), value, jnp.float32)
        out = combine(flat, flat[None], jnp.ones((1, 4, group), bool), jnp.ones(1, jnp.float32))
        worst = max(worst, float(np.abs(np.asarray(out)).max()))
    return worst
