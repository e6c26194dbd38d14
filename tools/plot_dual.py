"""Dual dynamics on a problem whose saddle point is known: six answers, exact expectations, no sampling.

    python tools/plot_dual.py [--out=docs/dual_dynamics.png]      draws the multipliers; needs the extra `report`

    max_π E[r] − β·KL(π‖π₀)   s.t.   E[c_k] ≥ τ_k or ≤ τ_k

β > 0 makes the saddle unique: π ∝ π₀ exp((r + Σ ± λ_k c_k)/β) with the λ ≥ 0 that minimise the dual function. A policy
of six logits climbs while `multipliers.advance`, the function the learner compiles, moves λ. Two climbs: along the
gradient of the Lagrangian (Eq. 3), which must reach the saddle; and along Eq. 6 as published, each signal divided by
its own deviation and the mix whitened, which is another field and does not come to rest here (docs/method.md).
tests/test_dual_toy.py holds each rule against the saddle.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from fgrpo_jax import command
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


# ------------------------------------------------------------------------------------------------------------ drawn
DRAWN = Path(__file__).resolve().parents[1] / "docs" / "dual_dynamics.png"
SHOWN = 600
COLORS = ("tab:blue", "tab:orange", "tab:green")
LABELS = ("λ of mean ≥ 0.75", "λ of mean ≤ 0.4", "λ of mean ≥ 0.5")


def draw(out: Path) -> None:
    """Four panels side by side: each rule on the Lagrangian, then Eq. 6 as published."""
    import matplotlib  # pyright: ignore[reportMissingImports]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    best, _ = saddle()
    panels = {f"{rule}, Lagrangian": train(constraints(**fields)) for rule, fields in RULES.items()}
    panels["linear, Eq. 6 as published"] = train(constraints(), published=True)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(14, 3.2), sharey=True)
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for k, (color, label) in enumerate(zip(COLORS, LABELS, strict=True)):
            axis.plot(found.path[:SHOWN, k], color=color, label=label)
            axis.axhline(best[k], color=color, linestyle=":", linewidth=1)
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("multiplier (dotted: saddle)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--out", type=Path, default=DRAWN, help="default: %(default)s")
    return out


def main(args: argparse.Namespace) -> None:
    """Draws and says where."""
    draw(args.out)
    print(args.out)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
