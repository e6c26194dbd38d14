"""The multiplier rules on a problem whose saddle point is known (tools/plot_dual.py says which).

Exact expectations, no group normalisation, no whitening, no masks; the functions are those the learner compiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plot_dual as toy
import pytest


def check_reaches_the_saddle(**fields: Any) -> None:
    """Parameters and multipliers within 2%, a slack multiplier below 1e-3."""
    found = toy.train(toy.constraints(**fields))
    lam, policy = toy.distance(found)
    assert lam < 0.02 and policy < 0.02
    assert found.lam[2] < 1e-3
    np.testing.assert_allclose((toy.SIGNALS @ found.policy)[:2], toy.THRESHOLD[:2], atol=5e-3)


def check_infeasible_saturates(**fields: Any) -> None:
    """No policy reaches 1.2: λ goes to its bound, stays there and is said to; the others stay finite."""
    found = toy.train(toy.constraints(toy.INFEASIBLE, **fields), steps=3000)
    assert found.lam[0] == toy.MAX and np.all(np.isfinite(found.policy)) and np.all(found.lam <= toy.MAX)
    assert found.saturated.tolist() == [True, False, False]


def test_the_problem_is_what_it_says() -> None:
    lam, policy = toy.saddle()
    assert lam[0] > 0.5 and lam[1] > 0.5 and lam[2] < 1e-6
    np.testing.assert_allclose((toy.SIGNALS @ policy)[:2], toy.THRESHOLD[:2], atol=1e-5)
    alone = np.asarray(toy.DIRECTION) * (toy.SIGNALS @ toy.best_policy(np.zeros(3)) - toy.THRESHOLD)
    assert np.any(alone < 0), "the reward alone violates it"


@pytest.mark.parametrize("rule", toy.RULES)
def test_every_rule_reaches_the_saddle(rule: str) -> None:
    check_reaches_the_saddle(**toy.RULES[rule])


@pytest.mark.parametrize("rule", toy.RULES)
def test_an_infeasible_constraint_saturates_and_is_reported(rule: str) -> None:
    check_infeasible_saturates(**toy.RULES[rule])


def test_a_window_and_a_delay_lead_there_too() -> None:
    check_reaches_the_saddle(window=5, delay=20)


def test_eq_6_as_published_is_another_dynamic() -> None:
    """Each signal over its own deviation, and the mix whitened: in this problem it circles, far from the saddle."""
    orbit = toy.circling(toy.train(toy.constraints(), published=True, steps=6000))
    assert orbit["swing"] > 0.5 and np.isfinite(orbit["lambda, mean"]).all()
    assert max(orbit["violation, range"][1]) > 0.2
