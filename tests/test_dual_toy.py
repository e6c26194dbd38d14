"""The dual update on a problem whose saddle point is known: six answers, exact expectations.

    max_π E[r] − β·KL(π‖π₀)   s.t.   E[c_k] ≥ τ_k or ≤ τ_k

β > 0 makes the saddle unique: π ∝ π₀ exp((r + Σ ± λ_k c_k)/β) with the λ ≥ 0 that minimise the dual function. The
policy climbs the Lagrangian while `multipliers.update` moves λ, as in training, but without sampling, group
normalisation or whitening (with those, Eq. 6 is another dynamic: docs/method.md, deviation 8).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from fgrpo_jax.fgrpo import multipliers

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
THRESHOLD, DIRECTION = np.asarray([0.75, 0.4, 0.5]), np.asarray([1.0, -1.0, 1.0])
MAX = 5.0


def _policy(lam):
    logits = np.log(PRIOR) + (REWARD + (lam * DIRECTION) @ SIGNALS) / BETA
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _saddle(threshold):
    """λ*, π* by minimising the dual function over the box 0 ≤ λ ≤ MAX."""

    def dual(lam):
        logits = np.log(PRIOR) + (REWARD + (lam * DIRECTION) @ SIGNALS) / BETA
        value = BETA * np.logaddexp.reduce(logits) - np.sum(lam * DIRECTION * threshold)
        return value, DIRECTION * (SIGNALS @ _policy(lam) - threshold)

    options = {"ftol": 1e-15, "gtol": 1e-10}
    out = optimize.minimize(dual, np.ones(3), jac=True, bounds=[(0, MAX)] * 3, method="L-BFGS-B", options=options)
    return out.x, _policy(out.x)


def _train(threshold, steps=6000):
    """λ and π after alternating a gradient step of the policy with a dual step."""
    reward, signals, log_prior = (jnp.asarray(x, jnp.float32) for x in (REWARD, SIGNALS, np.log(PRIOR)))
    settings = {
        "threshold": jnp.asarray(threshold, jnp.float32),
        "direction": jnp.asarray(DIRECTION, jnp.float32),
        "lr": jnp.full(3, 0.05),
        "lam_max": jnp.full(3, MAX),
        "min_applicable": jnp.full(3, 8, jnp.int32),
    }

    def lagrangian(theta, lam):
        log_probs = jax.nn.log_softmax(theta)
        value = reward + (lam * settings["direction"]) @ signals - BETA * (log_probs - log_prior)
        return jnp.exp(log_probs) @ value

    def step(state, _):
        theta, lam = state
        new_theta = theta + jax.grad(lagrangian)(theta, lam)
        mean = signals @ jax.nn.softmax(theta)
        return (new_theta, multipliers.update(lam, mean, jnp.full(3, 100, jnp.int32), **settings)), None

    run = jax.jit(lambda start: jax.lax.scan(step, start, None, length=steps)[0])
    theta, lam = run((log_prior, jnp.ones(3)))
    return np.asarray(lam), np.asarray(jax.nn.softmax(theta))


def check_reaches_the_saddle():
    lam, policy = _train(THRESHOLD)
    best_lam, best_policy = _saddle(THRESHOLD)
    np.testing.assert_allclose(lam[:2], best_lam[:2], rtol=0.02)
    assert lam[2] < 1e-3
    np.testing.assert_allclose(policy, best_policy, atol=0.02 * best_policy.max())
    np.testing.assert_allclose((SIGNALS @ policy)[:2], THRESHOLD[:2], atol=5e-3)


def check_infeasible_saturates():
    """No policy reaches 1.2: λ goes to its bound and stays there, the others stay finite."""
    lam, policy = _train(np.asarray([1.2, 0.9, 0.5]), steps=2000)
    assert lam[0] == MAX and np.all(np.isfinite(policy)) and np.all(lam <= MAX)


def test_the_problem_is_what_it_says():
    lam, policy = _saddle(THRESHOLD)
    assert lam[0] > 0.5 and lam[1] > 0.5 and lam[2] < 1e-6
    np.testing.assert_allclose((SIGNALS @ policy)[:2], THRESHOLD[:2], atol=1e-5)
    assert np.any(DIRECTION * (SIGNALS @ _policy(np.zeros(3)) - THRESHOLD) < 0)  # the reward alone violates it


@pytest.mark.parametrize("check", [check_reaches_the_saddle, check_infeasible_saturates])
def test_dual(check):
    check()


def _flipped(mean, threshold, *, direction):
    return direction * (mean - threshold)


def _lower_bounds_only(mean, threshold, *, direction):
    return threshold - mean


@pytest.mark.parametrize("broken", [_flipped, _lower_bounds_only])
def test_mutation_turns_red(broken, monkeypatch):
    monkeypatch.setattr(multipliers, "violation", broken)
    with pytest.raises(AssertionError):
        check_reaches_the_saddle()
