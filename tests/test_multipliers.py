"""Eq. 4 and 5: constraint means, projected ascent, what leaves a multiplier alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.fgrpo import multipliers

PAPER = dict(threshold=0.95, direction=1.0, lr=0.05, lam_max=5.0, min_applicable=8)


@pytest.fixture(autouse=True)
def _strict():
    """No silent dtype or rank promotion anywhere in the code under test."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def _means(values, mask):
    out = jax.jit(lambda *a: multipliers.constraint_means(*a))(jnp.asarray(values), jnp.asarray(mask, bool))
    return tuple(np.asarray(x) for x in out)


def _update(lam, mean, applicable, **changes):
    """One update of as many constraints as `lam` has entries; settings are the paper's but for `changes`."""
    lam = jnp.asarray(lam)
    settings = {name: np.broadcast_to(value, lam.shape) for name, value in (PAPER | changes).items()}
    fixed = {name: jnp.asarray(x, jnp.int32 if name == "min_applicable" else lam.dtype) for name, x in settings.items()}
    arrays = (lam, jnp.asarray(mean, lam.dtype), jnp.asarray(applicable, jnp.int32))
    return np.asarray(multipliers.update(*arrays, **fixed))


def _f32(*numbers):
    return np.asarray(numbers, np.float32)


def check_hand_numbers():
    """Eq. 4 and 5 with plain floats: 2 prompts × 4 rollouts, three constraints."""
    values = _f32(
        [[1, 0, 1, 9], [1, 1, 9, 9]],  # five applicable: 4/5
        [[0.2, 0.4, 0.6, 0.8], [1.0, 0.9, 0.7, 0.4]],  # all eight: 5/8
        [[9, 9, 9, 9], [9, 9, 9, 9]],  # none
    )
    mask = [[[1, 1, 1, 0], [1, 1, 0, 0]], np.ones((2, 4)), np.zeros((2, 4))]
    mean, applicable = _means(values, np.asarray(mask, bool))
    np.testing.assert_allclose(mean, [4 / 5, 5.0 / 8, 0.0], atol=1e-6)
    np.testing.assert_array_equal(applicable, [5, 8, 0])
    lam = _update(_f32(1.0, 1.0, 1.0), mean, applicable, threshold=[0.95, 0.65, 0.95], min_applicable=5)
    want = [1.0 + 0.05 * (0.95 - 4 / 5), 1.0 + 0.05 * (0.65 - 5.0 / 8), 1.0]
    np.testing.assert_allclose(lam, want, atol=1e-6)


def check_masked_never_enters():
    values = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 4, 6)
    mask = np.arange(24).reshape(1, 4, 6) % 3 != 0
    mean, applicable = _means(values, mask)
    np.testing.assert_allclose(mean, [values[mask].mean()], atol=1e-6)
    assert applicable == 16 and applicable.dtype == np.int32
    for poison in (np.nan, np.inf, 1e30):
        poisoned = np.where(mask, values, np.float32(poison))
        np.testing.assert_array_equal(_means(poisoned, mask)[0], mean)
        # Not compiled as well: XLA rewrites a product with a mask into a choice, which would hide one.
        np.testing.assert_allclose(multipliers.constraint_means(jnp.asarray(poisoned), jnp.asarray(mask))[0], mean)


def check_undefined_mean():
    mean, applicable = _means(np.full((2, 3, 4), np.nan, np.float32), np.zeros((2, 3, 4), bool))
    np.testing.assert_array_equal(mean, [0, 0])
    np.testing.assert_array_equal(applicable, [0, 0])
    # Not even where the least number is set to nothing: a mean over nothing says nothing.
    np.testing.assert_array_equal(_update(_f32(1.0, 2.0), mean, applicable, min_applicable=0), _f32(1.0, 2.0))


def check_direction():
    """Up when violated, down when met, for both kinds of bound; `violation` is positive when violated."""
    mean = _f32(0.9, 0.99, 0.9, 0.99)
    direction = _f32(1, 1, -1, -1)
    lam = _update(_f32(1, 1, 1, 1), mean, [100] * 4, direction=direction)
    np.testing.assert_array_equal(np.sign(lam - 1), [1, -1, -1, 1])
    np.testing.assert_allclose(lam, 1 + 0.05 * direction * (np.float32(0.95) - mean), atol=1e-6)
    out = multipliers.violation(jnp.asarray(mean), jnp.full(4, 0.95), direction=jnp.asarray(direction))
    np.testing.assert_allclose(out, [0.05, -0.04, -0.05, 0.04], atol=1e-6)


def check_clamped_on_both_sides():
    lam = _update(_f32(4.99, 0.01, 5.0, 0.0), _f32(0.0, 1.0, 0.0, 1.0), [100] * 4, lr=1.0)
    np.testing.assert_array_equal(lam, _f32(5, 0, 5, 0))


def check_below_minimum_unchanged():
    lam = _f32(0.1234567, 1.1, 1.1, 7.5)
    new = _update(lam, _f32(0.0, 0.0, 0.0, 0.0), [7, 8, 100, 3])
    np.testing.assert_array_equal(new[[0, 3]], lam[[0, 3]])  # not even projected
    assert np.all(new[1:3] > lam[1:3])


def check_non_finite_mean_unchanged():
    lam = _f32(1.0, 1.0, 1.0)
    np.testing.assert_array_equal(_update(lam, _f32(np.nan, np.inf, -np.inf), [100] * 3), lam)


def check_fixed():
    lam = _f32(0.0, 0.7, 5.0)
    np.testing.assert_array_equal(_update(lam, _f32(0.1, 0.2, 0.3), [100] * 3, lr=0.0), lam)


def check_each_its_own():
    """Every setting is one number a constraint."""
    lam = _update(
        _f32(1, 1, 1),
        _f32(0.5, 0.5, 0.5),
        [10, 10, 10],
        threshold=[0.6, 0.7, 0.9],
        lr=[1.0, 10.0, 1.0],
        lam_max=[9.0, 2.0, 9.0],
        min_applicable=[8, 8, 11],
    )
    np.testing.assert_allclose(lam, [1.1, 2.0, 1.0], atol=1e-6)


def check_float64():
    """Strict promotion refuses even an explicit `promote_types(float64, float32)`, hence 'standard' here."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        values = np.linspace(0, 1, 24).reshape(1, 4, 6)
        mean, applicable = _means(values, np.ones((1, 4, 6)))
        assert mean.dtype == np.float64 and applicable.dtype == np.int32
        np.testing.assert_allclose(mean, [0.5], atol=1e-14)
        lam = _update(np.asarray([1.0]), mean, applicable)
        np.testing.assert_allclose(lam, [1 + 0.05 * 0.45], atol=1e-14)


def check_order_of_rollouts():
    rng = np.random.default_rng(0)
    values, mask = rng.random((2, 8, 5)).astype(np.float32), rng.random((2, 8, 5)) < 0.5
    order = rng.permutation(8)
    mean, applicable = _means(values, mask)
    moved, count = _means(values[:, order], mask[:, order])
    np.testing.assert_allclose(moved, mean, atol=1e-6)
    np.testing.assert_array_equal(count, applicable)


def check_devices():
    """Means are over the global batch, wherever its prompts lie: prompts of one device may all be masked."""
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices (tests/conftest.py sets 8 on CPU)")
    rng = np.random.default_rng(0)
    values, mask = rng.random((2, 8, 5)).astype(np.float32), rng.random((2, 8, 5)) < 0.5
    mask[:, 3] = False
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    placed = (jax.device_put(values, sharding), jax.device_put(mask, sharding))
    mean, applicable = jax.jit(lambda *a: multipliers.constraint_means(*a))(*placed)
    want, count = _means(values, mask)
    np.testing.assert_allclose(mean, want, atol=1e-6)
    np.testing.assert_array_equal(applicable, count)


CHECKS = [value for name, value in dict(globals()).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_multipliers(check):
    check()


def test_errors_name_the_thing():
    with pytest.raises(ValueError, match=r"\[C, M, G\], got \(2, 3\) and \(2, 3\)"):
        multipliers.constraint_means(jnp.ones((2, 3)), jnp.ones((2, 3), bool))
    three = jnp.ones(3)
    settings = dict(direction=three, lr=three, lam_max=three, min_applicable=jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match=r"threshold must have one entry a constraint: \(3,\), got \(2,\)"):
        multipliers.update(three, three, jnp.ones(3, jnp.int32), threshold=jnp.ones(2), **settings)
