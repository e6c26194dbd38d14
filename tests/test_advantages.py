"""Eq. 6: hand numbers, constant groups, masks, permutations, bits. tools/mutations.py sees that the checks can fail."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest

from fgrpo_jax.fgrpo import advantages

REWARDS = (0.1, 0.3, 0.7, 0.9)  # none is a float32, so the mean of equal ones may be off by an ulp
GROUPS = (5, 8, 16)


@pytest.fixture(autouse=True)
def _strict():
    """No silent dtype or rank promotion anywhere in the code under test."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def _normalise(values, mask=None, **options):
    values = jnp.asarray(values)
    mask = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask, bool)
    return np.asarray(jax.jit(lambda v, m: advantages.group_normalise(v, m, **options))(values, mask))


def _compiled(**options):
    """`combine`, compiled, numpy in and out."""
    compiled = jax.jit(lambda *arrays: advantages.combine(*arrays, **options), compiler_options=policies.USERS)

    def run(task, values, mask, lam):
        arrays = (jnp.asarray(task), jnp.asarray(values), jnp.asarray(mask, bool), jnp.asarray(lam))
        return jax.tree.map(np.asarray, compiled(*arrays))

    return run


def _combine(task, values, mask, lam, **options):
    return _compiled(**options)(task, values, mask, lam)


@functools.lru_cache
def _batch(prompts: int = 8, group: int = 5, seed: int = 0):
    """Random task reward, three signals and masks; prompt 1 is constant in everything, prompt 2 in the task only."""
    rng = np.random.default_rng(seed)
    task = rng.choice([0.0, 0.5, 1.0], (prompts, group)).astype(np.float32)
    values = rng.random((3, prompts, group)).astype(np.float32)
    mask = rng.random((3, prompts, group)) < 0.8
    task[1:3], values[:, 1] = 0.7, 0.3
    return task, values, mask


# -------------------------------------------------------------------------------------------------------- hand numbers
HAND_TASK = [[1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
HAND_C = [[1.0, 0.0, 1.0, 9.0], [9.0, 1.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0]]
HAND_C_MASK = [[1, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]]  # 9.0 stands where the signal is not applicable
HAND_G = [[0.7, 0.7, 0.7, 0.7], [0.2, 0.4, 0.6, 0.8], [0.3, 0.3, 0.3, 0.3]]
HAND_LAM = [1.5, 0.5]


def _hand():
    """Eq. 6 for the batch above with plain floats: group 2 is dead, the others live."""
    eps = 1e-6
    # Group 0. Task: mean 0.5, deviations ±0.5 and twice 0, ddof 1. R_C: over its three applicable members.
    task_std = math.sqrt((0.25 + 0.0 + 0.0 + 0.25) / 3)
    task = [0.5 / (task_std + eps), 0.0, 0.0, -0.5 / (task_std + eps)]
    third = 1.0 / 3.0
    c_std = math.sqrt((third**2 + (2 * third) ** 2 + third**2) / 2)
    c = [third / (c_std + eps), -2 * third / (c_std + eps), third / (c_std + eps), 0.0]
    group0 = [task[i] + 1.5 * c[i] for i in range(4)]  # R_G is constant: nothing
    # Group 1. The task is constant, R_C has one applicable member; R_G has mean 0.5.
    g_std = math.sqrt((0.09 + 0.01 + 0.01 + 0.09) / 3)
    g = [-0.3 / (g_std + eps), -0.1 / (g_std + eps), 0.1 / (g_std + eps), 0.3 / (g_std + eps)]
    group1 = [0.5 * x for x in g]
    squares = sum(x * x for x in group0 + group1)
    sizes = [
        sum(abs(x) for x in task) / 12,
        sum(abs(1.5 * x) for x in c) / 12,
        sum(abs(0.5 * x) for x in g) / 12,
    ]
    return {
        "task": [task, [0.0] * 4, [0.0] * 4],
        "consistency": [c, [0.0] * 4, [0.0] * 4],
        "spatial": [[0.0] * 4, g, [0.0] * 4],
        "mixed": [group0, group1, [0.0] * 4],
        "live": math.sqrt(squares / 8),  # 2 live groups × 4
        "all": math.sqrt(squares / 12),
        "share": [size / sum(sizes) for size in sizes],
    }


def _hand_arrays(dtype=np.float32):
    values = np.asarray([HAND_C, HAND_G], dtype)
    mask = np.asarray([HAND_C_MASK, np.ones((3, 4))], bool)
    return np.asarray(HAND_TASK, dtype), values, mask, np.asarray(HAND_LAM, dtype)


def check_hand_numbers():
    hand = _hand()
    out = _combine(*_hand_arrays())
    np.testing.assert_allclose(out.task, hand["task"], atol=1e-6)
    np.testing.assert_allclose(out.constraints, [hand["consistency"], hand["spatial"]], atol=1e-6)
    np.testing.assert_allclose(out.total, np.asarray(hand["mixed"]) / hand["live"], atol=1e-6)
    np.testing.assert_allclose(out.share, hand["share"], atol=1e-6)


def check_whitening():
    hand = _hand()
    mixed = np.asarray(hand["mixed"])
    for whiten, rms in (("live", hand["live"]), ("all", hand["all"]), ("none", 1.0)):
        total = _combine(*_hand_arrays(), whiten=whiten).total
        np.testing.assert_allclose(total, mixed / rms, atol=1e-6)
        assert np.all(total[2] == 0)
    np.testing.assert_allclose(np.mean(_combine(*_hand_arrays()).total[:2] ** 2), 1.0, rtol=1e-6)


def check_safe_rlhf():
    total = _combine(*_hand_arrays(), whiten="none", normalise_lambda=True).total
    np.testing.assert_allclose(total, np.asarray(_hand()["mixed"]) / (1 + 1.5 + 0.5), atol=1e-6)


# ----------------------------------------------------------------------------------------------------- constant groups
def check_constant_groups():
    combine = _compiled()
    for group in GROUPS:
        task = np.repeat(np.asarray(REWARDS, np.float32)[:, None], group, axis=1)
        values = np.stack([np.roll(task, shift, axis=0) for shift in range(3)])
        mask = np.ones(values.shape, bool)
        mask[0, :, 1::3] = False  # constant over fewer members, too
        out = combine(task, values, mask, np.asarray([1.0, 5.0, 0.3], np.float32))
        for array in (out.task, out.constraints, out.total, out.share):
            assert np.all(array == 0), f"group of {group}: {np.abs(array).max()}"
        # One live group beside them must not wake the dead ones.
        task[0, 0] = 0.0
        out = combine(task, values, mask, np.asarray([1.0, 5.0, 0.3], np.float32))
        assert np.all(out.total[1:] == 0) and np.all(out.total[0] != 0)


def check_all_dead():
    task, values, mask = np.ones((4, 5), np.float32), np.ones((3, 4, 5), np.float32), np.zeros((3, 4, 5), bool)
    for whiten in ("live", "all", "none"):
        out = _combine(task, values, mask, np.ones(3, np.float32), whiten=whiten)
        assert np.all(out.total == 0) and np.all(out.share == 0)


def check_per_group():
    """Groups know nothing of each other: a shift or a scale of one reward scale per prompt changes nothing."""
    task, _, _ = _batch()
    moved = task * np.linspace(1, 8, 8, dtype=np.float32)[:, None] + np.arange(8, dtype=np.float32)[:, None]
    np.testing.assert_allclose(_normalise(task), _normalise(moved), atol=2e-5)
    np.testing.assert_allclose(_normalise(task)[3:].sum(-1), 0, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- masks
def check_masked():
    """Masked members get 0 and lend nothing: neither a number nor NaN in their place is ever read."""
    values = np.asarray([[1.0, 0.0, 1.0, 0.0], [0.2, 0.9, 0.4, 0.9], [0.5, 0.1, 0.1, 0.1]], np.float32)
    mask = np.asarray([[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    out = _normalise(values, mask)
    root = math.sqrt(1 / 3)
    want = [
        [1 / 3 / root, -2 / 3 / root, 1 / 3 / root, 0],
        [-math.sqrt(0.5), 0, math.sqrt(0.5), 0],
        [0, 0, 0, 0],  # one applicable member: no group to compare with
    ]
    np.testing.assert_allclose(out, want, atol=1e-5)
    np.testing.assert_array_equal(out, _normalise(np.where(mask, values, np.nan), mask))
    np.testing.assert_array_equal(out, _normalise(np.where(mask, values, np.inf), mask))


def check_zero_fill():
    values = np.asarray([[1.0, 1.0, 1.0, 7.0]], np.float32)
    mask = np.asarray([[1, 1, 1, 0]], bool)
    filled = _normalise(values, mask, masked="zero_fill")
    np.testing.assert_allclose(filled, [[0.5, 0.5, 0.5, -1.5]], atol=1e-5)  # of (1, 1, 1, 0): mean 3/4, std 1/2
    assert np.all(_normalise(values, mask) == 0)  # the same group is constant over its applicable members


def check_unmasked_nan_shows():
    values = np.asarray([[1.0, np.nan, 0.0], [1.0, 0.5, 0.0]], np.float32)
    out = _normalise(values)
    assert np.all(np.isnan(out[0])) and np.all(np.isfinite(out[1]))


def check_options():
    values = np.asarray([[0.0, 1.0]], np.float32)
    np.testing.assert_allclose(_normalise(values), [[-math.sqrt(0.5), math.sqrt(0.5)]], atol=1e-5)
    np.testing.assert_allclose(_normalise(values, ddof=0), [[-1.0, 1.0]], atol=1e-5)
    np.testing.assert_allclose(_normalise(values, ddof=0, eps=0.5), [[-0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(_normalise(values, std=False), [[-0.5, 0.5]], atol=1e-6)


# ------------------------------------------------------------------------------------------------ symmetries and dtypes
def check_permutation():
    task, values, mask = _batch()
    lam = np.asarray([1.0, 0.5, 2.0], np.float32)
    combine = _compiled()
    whole = combine(task, values, mask, lam).total
    rng = np.random.default_rng(1)
    prompts, members = rng.permutation(8), rng.permutation(5)
    np.testing.assert_array_equal(
        _combine(task[prompts], values[:, prompts], mask[:, prompts], lam).total, whole[prompts]
    )
    moved = combine(task[:, members], values[:, :, members], mask[:, :, members], lam).total
    np.testing.assert_allclose(moved, whole[:, members], atol=1e-6)


def check_float64():
    """Strict promotion refuses even an explicit `promote_types(float64, float32)`, hence 'standard' here."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        out = _combine(*_hand_arrays(np.float64))
        hand = _hand()
        assert out.total.dtype == np.float64
        np.testing.assert_allclose(out.total, np.asarray(hand["mixed"]) / hand["live"], atol=1e-11)
        np.testing.assert_allclose(out.share, hand["share"], atol=1e-12)


def check_low_precision_input():
    """bfloat16 signals get float32 statistics."""
    values = jnp.asarray(np.asarray(REWARDS * 2, np.float32).reshape(2, 4), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        out = _normalise(values)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, _normalise(values.astype(jnp.float32)))


def check_lambda_zero_is_grpo():
    """Another program (no constraints at all), the same bits; also with constraint signals that are not finite."""
    for prompts, group in ((8, 5), (33, 8)):
        task, values, mask = _batch(prompts, group)
        grpo = _combine(task, values[:0], mask[:0], np.zeros(0, np.float32))
        combine = _compiled()
        for signals in (values, np.full_like(values, np.nan)):
            zero = combine(task, signals, mask, np.zeros(3, np.float32))
            assert zero.total.tobytes() == grpo.total.tobytes()
            np.testing.assert_array_equal(zero.share[1:], 0)
    assert not np.array_equal(combine(task, values, mask, np.full(3, 0.01, np.float32)).total, grpo.total)


def check_devices():
    """Eight devices give the bits of one (the sum over prompts has one order)."""
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices (tests/conftest.py sets 8 on CPU)")
    task, values, mask = _batch()
    lam = np.asarray([1.0, 0.5, 2.0], np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = [
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("data",), (None, "data"), (None, "data"), ())
    ]
    placed = [jax.device_put(a, s) for a, s in zip((task, values, mask, lam), sharding, strict=True)]
    eight = jax.jit(lambda *a: advantages.combine(*a), compiler_options=policies.USERS)(*placed)
    one = _combine(task, values, mask, lam)
    assert np.asarray(eight.total).tobytes() == one.total.tobytes()


# ----------------------------------------------------------------------------------------------------------- baselines
def check_baselines():
    accuracy, form = jnp.asarray([[1.0, 1.0, 0.0]]), jnp.asarray([[1.0, 0.0, 1.0]])
    consistency, spatial = jnp.asarray([[1.0, 0.0, 0.0]]), jnp.asarray([[0.6, 0.3, 0.3]])
    signals = {"consistency": consistency, "spatial": spatial}
    added = advantages.additive(accuracy, form, **signals)
    np.testing.assert_allclose(added, [[(1 + 1 + 0.6) / 3, 1 / 3, 0.3 / 3]], rtol=1e-6)
    multiplied = advantages.multiplicative(accuracy, form, **signals)
    np.testing.assert_allclose(multiplied, [[0.5 + 0.3, 0.0, 0.15]], rtol=1e-6)


def check_gdpo():
    task, values, mask, _ = _hand_arrays()
    weights = jnp.asarray([0.5, 0.25, 0.25], jnp.float32)
    gdpo = jax.jit(lambda *arrays: advantages.gdpo(*arrays))
    out = gdpo(jnp.asarray(task), jnp.asarray(values), jnp.asarray(mask), weights)
    hand = _hand()
    parts = [np.asarray(hand[name]) for name in ("task", "consistency", "spatial")]
    mixed = 0.5 * parts[0] + 0.25 * parts[1] + 0.25 * parts[2]
    np.testing.assert_allclose(out.total, mixed / np.sqrt(np.mean(mixed[:2] ** 2)), atol=1e-6)


def check_order_free_sum():
    rng = np.random.default_rng(0)
    for size, spread in ((1, 1.0), (7, 1.0), (128, 1e-6), (1024, 1e6)):
        values = (rng.random(size) * spread ** rng.random(size)).astype(np.float32)
        total = float(advantages._sum_in_order(jnp.asarray(values)))
        assert abs(total - math.fsum(values.tolist())) <= 1e-4 * math.fsum(values.tolist())
    assert float(advantages._sum_in_order(jnp.zeros(3))) == 0
    assert np.isnan(float(advantages._sum_in_order(jnp.asarray([1.0, np.nan]))))
    assert np.isinf(float(advantages._sum_in_order(jnp.asarray([1.0, np.inf]))))


CHECKS = [value for name, value in dict(globals()).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_advantages(check):
    check()


def test_errors_name_the_thing():
    task, values, mask, lam = (jnp.asarray(a) for a in _hand_arrays())
    with pytest.raises(ValueError, match=r"whiten='none'"):
        advantages.combine(task, values, mask, lam, normalise_lambda=True)
    with pytest.raises(ValueError, match=r"'live', 'all' or 'none', got 'tokens'"):
        advantages.combine(task, values, mask, lam, whiten="tokens")
    with pytest.raises(ValueError, match=r"\(2,\) for 2 constraints, got \(3,\)"):
        advantages.combine(task, values, mask, jnp.ones(3))
    with pytest.raises(ValueError, match=r"\[0, M, G\]"):
        advantages.combine(task, values[0], mask[0], lam)
    with pytest.raises(ValueError, match="one shape"):
        advantages.combine(task, values, mask[:1], lam)
    with pytest.raises(ValueError, match="'masked' or 'zero_fill', got 'zero'"):
        advantages.group_normalise(task, task > 0, masked="zero")
    with pytest.raises(ValueError, match="ddof must be 0"):
        advantages.group_normalise(task, task > 0, ddof=2)
