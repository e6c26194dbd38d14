"""Dual dynamics on a problem whose saddle point is known: six answers, exact expectations, no sampling.

    max_π E[r] − β·KL(π‖π₀)   s.t.   E[c_k] ≥ τ_k or ≤ τ_k

β > 0 makes the saddle unique: π ∝ π₀ exp((r + Σ ± λ_k c_k)/β) with the λ ≥ 0 that minimise the dual function. A policy
of six logits climbs while `multipliers.advance`, the function the learner compiles, moves λ. Two climbs: along the
gradient of the Lagrangian (Eq. 3), which must reach the saddle; and along Eq. 6 as published, each signal divided by
its own deviation and the mix whitened, which is another field and does not come to rest here (docs/method.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from checks.record import Check, at_least, at_most, holds, same
from fgrpo_jax.fgrpo import multipliers
from fgrpo_jax.fgrpo.settings import Constraint

BETA = 0.3
REWARD = np.asarray([1.0, 0.9, 0.7, 0.5, 0.3, 0.0])
PRIOR = np.asarray([0.3, 0.25, 0.15, 0.1, 0.1, 0.1])
SIGNALS = np.asarray(
    [
        [0.0, 0.3, 0.9, 1.0, 1.0, 0.6],  # ≥ 0.75: binds
        [0.9, 0.6, 0.8, 0.1, 0.2, 0.1],  # ≤ 0.4: binds (say, the length of the answer)
        [0.9, 0.8, 0.9, 0.8, 0.9, 0.9],  # ≥ 0.5: slack
    ]
)
THRESHOLD, DIRECTION = (0.75, 0.4, 0.5), (1, -1, 1)
INFEASIBLE = (1.2, 0.9, 0.5)  # no policy reaches the first
MAX = 5.0
RULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "exponential": {"rule": "exponential"},
    "pid": {"rule": "pid", "kp": 1.0, "kd": 1.0},
}
STEPS = 6000


@dataclasses.dataclass(frozen=True)
class Settled:
    """Where a run ended, and how it got there; numpy."""

    lam: np.ndarray  # [3]
    policy: np.ndarray  # [6]
    saturated: np.ndarray  # bool [3]
    path: np.ndarray  # [steps, 3]   λ(t)
    means: np.ndarray  # [steps, 3]   E[c] under the policy of each step


def constraints(threshold: tuple[float, ...] = THRESHOLD, **fields: Any) -> tuple[Constraint, ...]:
    """The problem's three, with the paper's settings but for `fields`."""
    named = zip("abc", threshold, DIRECTION, strict=True)
    return tuple(
        Constraint(n, t, direction=">=" if d > 0 else "<=", max=MAX, min_applicable=1, **fields) for n, t, d in named
    )


def best_policy(lam: np.ndarray) -> np.ndarray:
    """π(λ) [6], which maximises the Lagrangian."""
    logits = np.log(PRIOR) + (REWARD + (lam * np.asarray(DIRECTION)) @ SIGNALS) / BETA
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def saddle(threshold: tuple[float, ...] = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """(λ* [3], π* [6]) by minimising the dual function over the box 0 ≤ λ ≤ MAX."""
    direction, bound = np.asarray(DIRECTION), np.asarray(threshold)

    def dual(lam: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.log(PRIOR) + (REWARD + (lam * direction) @ SIGNALS) / BETA
        value = BETA * np.logaddexp.reduce(logits) - np.sum(lam * direction * bound)
        return value, direction * (SIGNALS @ best_policy(lam) - bound)

    options: Any = {"ftol": 1e-15, "gtol": 1e-10}
    out = optimize.minimize(dual, np.ones(3), jac=True, bounds=[(0, MAX)] * 3, method="L-BFGS-B", options=options)
    return out.x, best_policy(out.x)


def train(rules: tuple[Constraint, ...], *, steps: int = STEPS, published: bool = False, rate: float = 1.0) -> Settled:
    """Alternates a gradient step of six logits with a step of the multipliers.

    Args:
      published: climb along Eq. 6 (exact mean and deviation under π in the place of a group's, whitened) instead of
        along the gradient of the Lagrangian; both with the gradient of −β·KL.
      rate: of the policy's step.
    """
    reward, signals, log_prior = (jnp.asarray(x, jnp.float32) for x in (REWARD, SIGNALS, np.log(PRIOR)))
    direction = multipliers.column(rules, "sign")
    field = _published if published else _lagrangian

    def step(state: Any, index: jax.Array) -> tuple[Any, Any]:
        theta, lam, memory, _ = state
        log_probs = jax.nn.log_softmax(theta)
        mean = signals @ jnp.exp(log_probs)
        weights = field(jnp.exp(log_probs), reward, (direction[:, None] * signals), lam=lam)
        weights = weights - BETA * (log_probs - log_prior)
        # Σ π w ∇log π: the gradient of E[w] with w held still, which for the Lagrangian is its own.
        theta = theta + rate * jnp.exp(log_probs) * (weights - jnp.exp(log_probs) @ weights)
        values = mean[:, None, None]
        new = multipliers.advance(lam, memory, values, values == values, constraints=rules, step=index)
        return (theta, new.lam, new.memory, new.saturated), (lam, mean)

    lam, memory = multipliers.start(rules)
    begin = (log_prior, lam, memory, jnp.zeros(len(rules), bool))
    run = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(steps)))
    (theta, lam, _, saturated), (path, means) = jax.device_get(run(begin))
    return Settled(lam, np.asarray(jax.nn.softmax(theta), np.float64), saturated, path, means)


def _lagrangian(probs: jax.Array, reward: jax.Array, signals: jax.Array, *, lam: jax.Array) -> jax.Array:
    return reward + lam @ signals


def _published(probs: jax.Array, reward: jax.Array, signals: jax.Array, *, lam: jax.Array) -> jax.Array:
    def normalised(values: jax.Array) -> jax.Array:
        centred = values - probs @ values
        return centred / (jnp.sqrt(probs @ centred**2) + 1e-6)

    mixed = normalised(reward) + lam @ jax.vmap(normalised)(signals)
    return mixed / jnp.sqrt(probs @ mixed**2)


def distance(found: Settled) -> tuple[float, float]:
    """(worst relative error of the binding multipliers, worst error of π over its largest entry) against the saddle."""
    lam, policy = saddle()
    binding = lam > 1e-6
    worst = np.abs(found.lam[binding] / lam[binding] - 1).max()
    return float(worst), float(np.abs(found.policy - policy).max() / policy.max())


def checks(_: Any = None) -> Iterator[Check]:
    """Each rule against the computed saddle, an infeasible constraint, and where Eq. 6 settles."""
    for name, fields in RULES.items():
        found = train(constraints(**fields))
        lam, policy = distance(found)
        yield at_most(f"dual_dynamics/{name}: multipliers against the saddle, relative", lam, 0.02)
        yield at_most(f"dual_dynamics/{name}: policy against the saddle, of its largest entry", policy, 0.02)
        yield at_most(f"dual_dynamics/{name}: multiplier of the slack constraint", float(found.lam[2]), 1e-3)
        hopeless = train(constraints(INFEASIBLE, **fields), steps=3000)
        yield same(
            f"dual_dynamics/{name}: constraints said to be infeasible",
            hopeless.saturated.tolist(),
            [True, False, False],
        )
    orbit = circling(train(constraints(), published=True, steps=20_000))
    yield at_least("dual_dynamics/Eq. 6 as published: swing of the first multiplier, second half", orbit["swing"], 0.5)
    yield holds("dual_dynamics/Eq. 6 as published: where it is, second half", True, orbit, "reported")


def circling(found: Settled) -> dict[str, Any]:
    """Means and ranges over the second half of a run that does not come to rest."""
    lam, means = (x[len(x) // 2 :] for x in (found.path, found.means))
    violation = np.asarray(DIRECTION) * (np.asarray(THRESHOLD) - means)
    show = lambda x: np.round(x, 3).tolist()  # noqa: E731
    return {
        "lambda, mean": show(lam.mean(0)),
        "lambda, range": [show(lam.min(0)), show(lam.max(0))],
        "violation, mean": show(violation.mean(0)),
        "violation, range": [show(violation.min(0)), show(violation.max(0))],
        "lambda at the saddle": show(saddle()[0]),
        "swing": float(lam[:, 0].max() - lam[:, 0].min()),
    }
