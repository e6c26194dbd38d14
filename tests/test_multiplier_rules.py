"""Every rule a multiplier may follow, with windows and delays, through the function the learner compiles."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.fgrpo import multipliers
from fgrpo_jax.fgrpo.settings import Constraint

G = 4


def batch(*means: float, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(values, mask) [C, count/G, G] of constraints with these means; nothing applies to a constraint of mean NaN."""
    values = np.stack([np.full((count // G, G), mean, np.float32) for mean in means])
    return values, ~np.isnan(values)


def run(constraints: list[Constraint], batches: list[tuple[np.ndarray, np.ndarray]]) -> list[Any]:
    """What `advance` gives, step by step."""
    lam, memory = multipliers.start(constraints)
    step = jax.jit(lambda *a: multipliers.advance(*a[:4], constraints=constraints, step=a[4]))
    out = []
    for index, (values, mask) in enumerate(batches):
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            out.append(step(lam, memory, jnp.asarray(values), jnp.asarray(mask), jnp.int32(index)))
        lam, memory = out[-1].lam, out[-1].memory
    return jax.device_get(out)


def path(constraint: Constraint, *means: float, count: int = 8) -> list[float]:
    """λ(1), λ(2), … of one constraint whose batches have these means."""
    return [float(s.lam[0]) for s in run([constraint], [batch(mean, count=count) for mean in means])]


def test_the_papers_rule_is_update_bit_for_bit_and_remembers_nothing() -> None:
    rng = np.random.default_rng(0)
    constraints = [Constraint("a", 0.95), Constraint("b", 0.4, direction="<=", lr=0.2, init=0.3), Constraint("c", 0.7)]
    values = rng.random((5, 3, 6, G), np.float32)
    mask = rng.random(values.shape) < 0.6
    mask[2, 2] = False
    found = run(constraints, list(zip(values, mask, strict=True)))
    lam = jnp.asarray([1.0, 0.3, 1.0])
    names = {"threshold": "threshold", "direction": "sign", "lr": "lr", "lam_max": "max"}
    settings = {name: multipliers.column(constraints, field) for name, field in names.items()}
    settings["min_applicable"] = multipliers.column(constraints, "min_applicable", jnp.int32)
    for step, (v, m) in zip(found, zip(values, mask, strict=True), strict=True):
        mean, count = multipliers.constraint_means(jnp.asarray(v), jnp.asarray(m))
        lam = jax.jit(multipliers.update)(lam, mean, count, **settings)
        np.testing.assert_array_equal(step.lam, lam)
        np.testing.assert_array_equal(step.applicable, m.sum((1, 2)))
    assert jax.tree.leaves(multipliers.start(constraints)[1]) == []


def test_exponential_by_hand() -> None:
    rule = Constraint("a", 0.9, rule="exponential", lr=0.5, max=2.0, init=1.0)
    np.testing.assert_allclose(path(rule, 0.5, 1.0), [np.exp(0.2), np.exp(0.2 - 0.05)], rtol=1e-6)
    assert path(dataclasses.replace(rule, lr=1e3), 0.5)[0] == 2.0, "clipped above, inf included"
    assert path(dataclasses.replace(rule, lr=1e3, direction="<="), 0.5)[0] == np.float32(multipliers.FLOOR)
    assert path(dataclasses.replace(rule, lr=1e3, direction="<=", min=0.25), 0.5)[0] == 0.25
    back = path(dataclasses.replace(rule, lr=40.0), 1.0, 1.0, 1.0, 1.0, 0.2)
    assert back[3] == np.float32(multipliers.FLOOR) and back[4] > 1, "what is floored comes back"


def test_pid_by_hand() -> None:
    rule = Constraint("a", 0.9, rule="pid", lr=0.1, kp=2.0, kd=3.0, init=0.5, max=5.0)
    errors = [0.4, 0.6, 0.1, -0.1]  # of means 0.5, 0.3, 0.8, 1.0
    integral = 0.5 + 0.1 * np.cumsum(errors)
    rise = [0.0, 0.2, 0.0, 0.0]  # nothing is known before the first, and a fall does not count
    want = [max(0.0, 2 * e + i + 3 * r) for e, i, r in zip(errors, integral, rise, strict=True)]
    np.testing.assert_allclose(path(rule, 0.5, 0.3, 0.8, 1.0), want, rtol=1e-5)
    linear = Constraint("a", 0.9, lr=0.1, init=0.5)
    same = dataclasses.replace(linear, rule="pid")
    assert path(same, 0.5, 0.3, 1.0) == path(linear, 0.5, 0.3, 1.0), "kp = kd = 0 is Eq. 4"


def test_pid_does_not_wind_up() -> None:
    rule = Constraint("a", 0.9, rule="pid", lr=1.0, kp=0.5, max=2.0, init=0.0)
    violated = [0.0] * 20
    lam = path(rule, *violated, 1.0)
    assert lam[19] == 2.0 and lam[20] == pytest.approx(2.0 - 0.1 - 0.05), "the first step that meets it counts"
    met = path(rule, *[1.0] * 20, 0.0)
    assert met[19] == 0.0 and met[20] == pytest.approx(0.9 + 0.45), "nor below"


def test_bounds_of_the_linear_rule() -> None:
    rule = Constraint("a", 0.9, lr=10.0, min=0.25, max=2.0)
    assert path(rule, 0.0, 1.0, 1.0) == [2.0, pytest.approx(1.0), 0.25]


def test_a_window_pools_sums_and_counts() -> None:
    rule = Constraint("a", 0.9, window=3, lr=1.0, max=50.0, min_applicable=1)
    sizes = [(0.5, 8), (1.0, 4), (0.0, 12), (0.25, 4)]
    batches = []
    for mean, count in sizes:  # 3 prompts, of which the first ones apply
        values = np.full((1, 3, G), mean, np.float32)
        batches.append((values, (np.arange(12) < count).reshape(1, 3, G)))
    found = run([rule], batches)
    lam, want = 1.0, []
    for end in range(1, 5):
        seen = sizes[max(0, end - 3) : end]
        lam += 0.9 - sum(m * n for m, n in seen) / sum(n for _, n in seen)
        want.append(lam)
    np.testing.assert_allclose([float(s.lam[0]) for s in found], want, rtol=1e-6)
    assert [int(s.applicable[0]) for s in found] == [8, 4, 12, 4], "metrics are of the step alone"
    np.testing.assert_allclose([float(s.mean[0]) for s in found], [0.5, 1.0, 0.0, 0.25])


def test_windows_of_different_lengths_live_side_by_side() -> None:
    means = [0.2, 0.9, 0.4, 0.7, 0.1]
    rules = [Constraint("a", 0.8), Constraint("b", 0.8, window=2), Constraint("c", 0.8, window=4)]
    together = [s.lam for s in run(rules, [batch(m, m, m) for m in means])]
    for column, rule in enumerate(rules):
        np.testing.assert_allclose([lam[column] for lam in together], path(rule, *means), rtol=1e-6)
    assert len({float(x) for x in together[-1]}) == 3


def test_the_minimum_is_of_the_window_and_a_broken_step_enters_none() -> None:
    rule = Constraint("a", 0.9, window=2, min_applicable=8, lr=1.0)
    assert path(rule, 0.5, 0.5, count=4) == [1.0, pytest.approx(1.4)], "4 are too few, 4 + 4 are not"
    values, mask = batch(np.inf)
    found = run([rule], [batch(0.5), (values, mask), batch(0.5)])
    np.testing.assert_allclose([float(s.lam[0]) for s in found], [1.4, 1.8, 2.2], rtol=1e-6)


def test_a_delay_measures_but_does_not_move() -> None:
    rule = Constraint("a", 0.9, delay=2, window=3, lr=1.0, init=0.7)
    lam = path(rule, 0.0, 0.3, 0.6)
    assert lam[:2] == [np.float32(0.7)] * 2
    assert lam[2] == pytest.approx(0.7 + 0.9 - 0.3), "the window was filling all the while"
    pid = Constraint("a", 0.9, rule="pid", delay=1, lr=0.1, kd=5.0, init=0.7)
    assert path(pid, 0.0, 0.9)[1] == pytest.approx(0.7), "no derivative across the delay"


@pytest.mark.parametrize("rule", ["linear", "exponential", "pid"])
def test_what_was_not_measured_moves_nothing(rule: Any) -> None:
    constraint = Constraint("a", 0.9, rule=rule, kp=1.0 if rule == "pid" else 0.0)
    nothing, broken = batch(np.nan), batch(np.inf)
    first, *others = run([constraint], [batch(0.5), nothing, broken, batch(0.5, count=4)])
    for step in others:
        np.testing.assert_array_equal(step.lam, first.lam)
        jax.tree.map(np.testing.assert_array_equal, step.memory, first.memory)


def test_saturation_is_said_of_what_moved_to_its_bound_in_vain() -> None:
    far = Constraint("far", 1.2, lr=9.0)
    fixed = Constraint("fixed", 1.2, lr=0.0, init=5.0)
    starved = Constraint("starved", 1.2, lr=9.0, min_applicable=99)
    met = Constraint("met", 0.1, lr=9.0)
    (step,) = run([far, fixed, starved, met], [batch(0.5, 0.5, 0.5, 0.5)])
    assert step.saturated.tolist() == [True, False, False, False] and step.lam[0] == 5.0


def test_rules_mix_and_counts_must_agree() -> None:
    rules = [
        Constraint("a", 0.9),
        Constraint("b", 0.9, rule="exponential", lr=0.3),
        Constraint("c", 0.9, rule="pid", kp=1.0),
    ]
    means = [0.2, 0.95, 0.5]
    together = [s.lam for s in run(rules, [batch(m, m, m) for m in means])]
    for column, rule in enumerate(rules):
        np.testing.assert_allclose([lam[column] for lam in together], path(rule, *means), rtol=1e-6)
    with pytest.raises(ValueError, match="3 constraints, 3 multipliers, 2 signals"):
        run(rules, [batch(0.5, 0.5)])


def test_float64_stays_float64() -> None:
    """To 1e-10 against plain floats."""
    rules = [Constraint("a", 0.9, rule=rule, lr=0.3, window=2, kp=kp) for rule, kp in (("linear", 0), ("pid", 0.7))]
    rules.append(Constraint("c", 0.9, rule="exponential", lr=0.3, window=2))
    with jax.enable_x64(True):
        lam, memory = multipliers.start(rules)
        lam, memory = (
            jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, t) for t in (lam, memory)
        )
        for mean in (0.123456789, 0.7):
            values = jnp.full((3, 2, G), mean, jnp.float64)
            step = multipliers.advance(lam, memory, values, values > 0, constraints=rules, step=jnp.int32(0))
            lam, memory = step.lam, step.memory
        first, second = 0.9 - 0.123456789, 0.9 - (0.123456789 + 0.7) / 2
        total = 1 + 0.3 * first + 0.3 * second
        np.testing.assert_allclose(lam, [total, total + 0.7 * second, np.exp(0.3 * (first + second))], rtol=1e-10)
