"""Each baseline of docs/method.md: exactly the fields it changes, and its advantages against plain numpy.

The numpy and the fixed batch are those of baseline_numbers.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import policies
import pytest
from baseline_numbers import (
    BASES,
    DIFFERENCES,
    FOLDER,
    REFERENCE,
    TOKENS,
    C,
    G,
    M,
    constraint,
    differences,
    eq6,
    expected,
    learner,
    masked_whiten,
    mixed,
    normalise,
    whiten,
)
from baseline_numbers import SIGNALS as S

from fgrpo_jax.fgrpo import advantages, multipliers
from fgrpo_jax.training import setup


def test_every_baseline_has_its_file() -> None:
    assert {f.stem for f in FOLDER.glob("*.py")} - {"__init__"} == set(DIFFERENCES) == set(REFERENCE)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", DIFFERENCES)
def test_it_differs_from_what_it_builds_on_only_where_it_must(name: str, base: str) -> None:
    assert differences(name, base) == expected(name, base)
    assert f"--config=configs/baselines/{name}.py:tiny" in (FOLDER / f"{name}.py").read_text()


@pytest.fixture(scope="module")
def policy(tiny_hf: Path) -> setup.Policy:
    return setup.policy(policies.config(tiny_hf))


@pytest.mark.parametrize("name", REFERENCE)
def test_its_advantages_are_those_worked_out_by_hand(name: str, policy: setup.Policy) -> None:
    found = mixed(learner(name, policy))
    np.testing.assert_allclose(found, REFERENCE[name](), atol=1e-6)
    assert (found[2] == 0).all(), "a dead group is exactly 0, whitened or not"
    assert (found[4] == 0).all() == (name not in LIVE_BY_CONSTRAINT)


LIVE_BY_CONSTRAINT = {"gdpo", "fixed_lambda", "exponential", "pid", "safe_rlhf", "additive", "multiplicative"}
LIVE_BY_CONSTRAINT |= {"consistency_only", "semantic_only", "spatial_only"}


def test_no_two_of_them_are_one_but_those_that_are_to_be() -> None:
    """At λ = 1 the rules of the multipliers make no difference yet. GDPO's weights are 1, but all groups whiten it."""
    found = {name: reference() for name, reference in REFERENCE.items()}
    same = {("grpo_t", "dapo")} | {(a, b) for a in EQ6 for b in EQ6}
    for a, b in ((a, b) for a in found for b in found if a < b):
        alike = np.abs(found[a] - found[b]).max() < 1e-3
        assert alike == ((a, b) in same or (b, a) in same), (a, b)


EQ6 = ("fixed_lambda", "exponential", "pid")


def test_gdpo_takes_its_weights_and_no_multiplier(policy: setup.Policy) -> None:
    weights = {"algorithm__task_weight": 0.5, "constraints__consistency__weight": 2.0}
    weighted = learner("gdpo", policy, **weights, constraints__semantic_grounding__enabled=False)
    want = whiten(0.5 * normalise(S.task) + 2 * constraint(0) + constraint(2), every=True)
    for lam in (None, (5.0, 5.0, 5.0)):
        np.testing.assert_allclose(mixed(weighted, lam), want, atol=1e-6)


def test_a_bound_from_above_turns_the_sign_in_gdpo_too(policy: setup.Policy) -> None:
    turned = learner("gdpo", policy, constraints__consistency__direction="<=")
    want = whiten(normalise(S.task) - constraint(0) + constraint(1) + constraint(2), every=True)
    np.testing.assert_allclose(mixed(turned), want, atol=1e-6)


def moved(name: str, policy: setup.Policy) -> np.ndarray:
    """λ(1) on the fixed batch."""
    rules = learner(name, policy).config.constraints
    lam, memory = multipliers.start(rules)
    out = multipliers.advance(lam, memory, S.values, S.mask, constraints=rules, step=jnp.int32(0))
    return np.asarray(out.lam)


def test_their_multipliers_move_by_their_rules(policy: setup.Policy) -> None:
    means = np.array([S.values[k][S.mask[k]].mean() for k in range(C)])
    error = 0.95 - means  # tiny's boxes can be exact, so its third threshold is that too
    linear = 1 + 0.05 * error
    np.testing.assert_allclose(moved("safe_rlhf", policy), linear, atol=1e-6)
    np.testing.assert_allclose(moved("exponential", policy), np.exp(0.05 * error), atol=1e-6)
    np.testing.assert_allclose(moved("pid", policy), np.maximum(linear + error, 0), atol=1e-6)
    np.testing.assert_array_equal(moved("fixed_lambda", policy), [1, 1, 1])
    np.testing.assert_array_equal(moved("grpo_t", policy), [0, 0, 0])
    np.testing.assert_allclose(moved("semantic_only", policy), [0, linear[1], 0], atol=1e-6)


def test_fgrpo_at_lambda_zero_is_grpo_t_bit_for_bit(policy: setup.Policy) -> None:
    fgrpo = learner("", policy)
    np.testing.assert_array_equal(mixed(fgrpo, (0, 0, 0)), mixed(learner("grpo_t", policy)))
    np.testing.assert_array_equal(mixed(learner("safe_rlhf", policy), (0, 0, 0)), normalised_alone(policy))


def normalised_alone(policy: setup.Policy) -> np.ndarray:
    return mixed(learner("grpo_t", policy, algorithm__whiten="none"))


OPTIONS = {
    "zero_fill": ({"algorithm__masked": "zero_fill"}, lambda: whiten(zero_filled())),
    "all groups": ({"algorithm__whiten": "all"}, lambda: eq6((1, 1, 1)) / np.sqrt((eq6((1, 1, 1)) ** 2).mean())),
    "none": ({"algorithm__whiten": "none"}, lambda: eq6((1, 1, 1))),
    "tokens": ({"algorithm__whiten": "tokens"}, lambda: masked_whiten(eq6((1, 1, 1)))),
}


def zero_filled() -> np.ndarray:
    return normalise(S.task) + sum(normalise(np.where(S.mask[k], S.values[k], 0)) for k in range(C))


@pytest.mark.parametrize("option", OPTIONS)
def test_open_choices_reach_the_advantage_and_differ_from_the_default(option: str, policy: setup.Policy) -> None:
    fields, reference = OPTIONS[option]
    found = mixed(learner("", policy, **fields))
    np.testing.assert_allclose(found, reference(), atol=1e-6)
    assert np.abs(found - whiten(eq6((1, 1, 1)))).max() > 1e-2
    assert (found[2] == 0).all() == (option != "tokens"), "centred over tokens, dead groups leave 0"


def test_a_batch_without_any_signal_stays_zero_under_every_whitening() -> None:
    dead = np.asarray(advantages.whiten_tokens(jnp.zeros((M, G)), jnp.asarray(TOKENS)))
    assert (dead == 0).all() and np.isfinite(
        np.asarray(advantages.whiten_tokens(jnp.ones((1, 1)), jnp.ones((1, 1), int)))
    ).all()


PLAIN: dict[str, Callable[[], np.ndarray]] = {
    "grpo_t": lambda: normalise(S.task),
    "additive": lambda: normalise((S.accuracy + S.accuracy * S.values[0] + S.format * S.values[2]).astype(float) / 3),
    "fixed_lambda": lambda: whiten(eq6((1, 1, 1))),
    "gdpo": lambda: whiten(eq6((1, 1, 1)), every=True),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("whitening", ["live", "tokens"])
def test_the_paper_whitens_no_baseline_but_gdpo(name: str, whitening: str, policy: setup.Policy) -> None:
    """§3.1 has GRPO-T as (r − μ)/(σ + ε); Eq. 6 and GDPO are whitened as `algorithm.whiten` says."""
    fields = {"algorithm__whiten_baselines": False} | ({} if name == "gdpo" else {"algorithm__whiten": whitening})
    want = PLAIN[name]()
    if whitening == "tokens" and name == "fixed_lambda":
        want = masked_whiten(eq6((1, 1, 1)))
    np.testing.assert_allclose(mixed(learner(name, policy, **fields)), want, atol=1e-5)


def test_a_reward_that_holds_signals_needs_them(policy: setup.Policy) -> None:
    additive = learner("additive", policy)
    short = dataclasses.replace(additive.config, constraints=additive.config.constraints[:2])
    with pytest.raises(ValueError, match="needs the signal 'spatial_grounding', which no constraint measures"):
        mixed(dataclasses.replace(additive, config=short))
