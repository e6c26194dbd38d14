"""Clipped surrogate, KL, aggregation: hand numbers, gradient paths, splits, extremes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.fgrpo import losses

LOW, HIGH = 0.2, 0.28
MODES = ("token_mean", "sequence_mean", "constant")
LENGTH = 6  # token slots of the batch below, the normaliser of 'constant'


@pytest.fixture(autouse=True)
def _strict():
    """No silent dtype or rank promotion anywhere in the code under test."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def _f32(x):
    return jnp.asarray(x, jnp.float32)


def _single(log_ratio, advantage, **options):
    """Loss, gradient and sums of one token."""
    logp, old = _f32([[log_ratio - 1.0]]), _f32([[-1.0]])

    def loss(logp):
        return losses.policy_loss(
            logp, old, advantages=_f32([advantage]), mask=jnp.ones((1, 1), bool), normaliser=_f32(1), **options
        )

    (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(logp)
    return float(value), float(gradient[0, 0]), jax.tree.map(float, sums)


def _batch(seed: int = 0):
    """4 prompts × 3 completions of up to 6 tokens; one completion has no token that counts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, (4, 3))
    lengths[1, 1] = 0
    mask = np.arange(LENGTH) < lengths[..., None]
    old = rng.normal(-2, 1, mask.shape)
    logp = old + rng.normal(0, 0.4, mask.shape)
    reference = old + rng.normal(0, 0.4, mask.shape)
    return {
        "logp": _f32(logp),
        "old": _f32(old),
        "ref": _f32(reference),
        "advantages": _f32(rng.normal(0, 1, (4, 3))),
        "mask": jnp.asarray(mask),
    }


def _count(mask, mode):
    return losses.count(mask, aggregation=mode, length=LENGTH if mode == "constant" else None)


def _compiled(mode):
    """(logp, batch, normaliser) → loss and gradient, compiled."""
    return jax.jit(jax.value_and_grad(lambda logp, batch, normaliser: _total(logp, batch, mode, normaliser)))


def _total(logp, batch, mode, normaliser):
    """The learner's loss on a (micro-)batch: surrogate and KL."""
    mask, rule = batch["mask"], {"aggregation": mode, "normaliser": normaliser}
    policy, _ = losses.policy_loss(logp, batch["old"], advantages=batch["advantages"], mask=mask, **rule)
    kl = losses.aggregate(losses.kl(logp, batch["ref"], mask=mask), mask, **rule)
    return policy + 0.1 * kl


# -------------------------------------------------------------------------------------------------------- the surrogate
def check_clip_paths():
    """Value and gradient of −min(rA, clip(r)A) on every side of every bound. d(rA)/dlogp = rA."""
    for advantage in (2.0, -2.0):
        for ratio in (0.5, 0.79, 0.81, 1.0, 1.27, 1.29, 4.0):
            value, gradient, _ = _single(math.log(ratio), advantage)
            clipped = (advantage > 0 and ratio > 1 + HIGH) or (advantage < 0 and ratio < 1 - LOW)
            bounded = min(max(ratio, 1 - LOW), 1 + HIGH)
            want = -min(ratio * advantage, bounded * advantage)
            assert abs(value - want) < 1e-5, (advantage, ratio, value, want)
            assert abs(gradient - (0.0 if clipped else -ratio * advantage)) < 1e-5, (advantage, ratio, gradient)


def check_first_update():
    """Against stop_gradient of its own the ratio is exactly 1 and the gradient −A ∇log π, not half of it."""
    logp, advantages = _f32([[-0.3, -2.7, -11.0]]), _f32([1.7])

    def loss(logp):
        old = jax.lax.stop_gradient(logp)
        return losses.policy_loss(logp, old, advantages=advantages, mask=jnp.ones((1, 3), bool), normaliser=_f32(3))

    (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(logp)
    assert float(sums.tokens) == 3.0
    np.testing.assert_allclose(value, -1.7, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-1.7 / 3] * 3], rtol=1e-6)


def check_dual_clip():
    """With A < 0 and r > c the loss stops growing at −cA; nothing else changes."""
    for ratio in (0.5, 1.0, 2.9, 3.1, 50.0):
        plain, with_dual = _single(math.log(ratio), -1.0), _single(math.log(ratio), -1.0, dual_clip=3.0)
        if ratio > 3:
            assert abs(with_dual[0] - 3.0) < 1e-6 and with_dual[1] == 0 and with_dual[2].dual_clipped == 1
            assert abs(plain[0] - ratio) < 1e-3 and plain[1] > 3
        else:
            assert with_dual == plain
        assert _single(math.log(ratio), 1.0, dual_clip=3.0) == _single(math.log(ratio), 1.0)


def check_hand_batch():
    """Two completions of two and one tokens, plain floats."""
    ratios, advantages = [[1.1, 1.5], [0.7, 1.0]], [1.0, -2.0]
    mask = jnp.asarray([[True, True], [True, False]])
    old = _f32([[-1.0, -2.0], [-0.5, -1.5]])
    logp = old + _f32(np.log(ratios))
    tokens = [1.1 * 1.0, 1.28 * 1.0, 0.8 * -2.0]  # the second is clipped above, the third below
    want = {
        "token_mean": -sum(tokens) / 3,
        "sequence_mean": -((tokens[0] + tokens[1]) / 2 + tokens[2]) / 2,
        "constant": -sum(tokens) / (2 * 10),
    }
    for mode, value in want.items():
        normaliser = losses.count(mask, aggregation=mode, length=10 if mode == "constant" else None)
        loss, sums = losses.policy_loss(
            logp, old, advantages=_f32(advantages), mask=mask, normaliser=normaliser, aggregation=mode
        )
        np.testing.assert_allclose(loss, value, atol=1e-6)
        counts = (sums.tokens, sums.clipped_low, sums.clipped_high, sums.dual_clipped)
        assert tuple(map(float, counts)) == (3, 1, 1, 0)


def check_counts():
    mask = jnp.asarray([[True, True, False], [False, False, False], [True, True, True]])
    assert float(losses.count(mask, aggregation="token_mean")) == 5
    assert float(losses.count(mask, aggregation="sequence_mean")) == 2
    assert float(losses.count(mask, aggregation="constant", length=7)) == 14
    for mode in MODES:  # an empty batch divides by something
        assert float(_count(jnp.zeros((2, 3), bool), mode)) >= 1


# --------------------------------------------------------------------------------------------------- splits and padding
def check_micro_batches():
    """Global normaliser: the parts add up, in loss and gradient, for every aggregation and any split."""
    batch = _batch()
    for mode in MODES:
        normaliser = _count(batch["mask"], mode)
        run = _compiled(mode)
        whole, gradient = run(batch["logp"], batch, normaliser)
        for cuts in ((0, 1, 2, 3, 4), (0, 1, 4)):
            pieces = [
                run(part["logp"], part, normaliser)
                for a, b in itertools.pairwise(cuts)
                for part in [{name: x[a:b] for name, x in batch.items()}]
            ]
            np.testing.assert_allclose(sum(float(v) for v, _ in pieces), whole, atol=1e-6)
            np.testing.assert_allclose(np.concatenate([g for _, g in pieces]), gradient, atol=1e-7)


def check_padding():
    """More token slots, whatever stands in them, change nothing; nor do prompts without a counting token."""
    batch = _batch()

    def widen(x, value):
        more = jnp.full((4, 3, 5), value, x.dtype)
        rows = jnp.full((2, *x.shape[1:-1], x.shape[-1] + 5), value, x.dtype)
        return jnp.concatenate([jnp.concatenate([x, more], -1), rows])

    runs = {mode: _compiled(mode) for mode in MODES}
    for value in (-1e9, np.nan, -np.inf):
        wide = {name: widen(batch[name], value) for name in ("logp", "old", "ref")}
        wide["mask"] = widen(batch["mask"], False)
        wide["advantages"] = jnp.concatenate([batch["advantages"], jnp.ones((2, 3))])
        for mode, run in runs.items():
            want, gradient = run(batch["logp"], batch, _count(batch["mask"], mode))
            got, wide_gradient = run(wide["logp"], wide, _count(wide["mask"], mode))
            np.testing.assert_allclose(got, want, atol=1e-6)
            np.testing.assert_allclose(wide_gradient[:4, :, :LENGTH], gradient, atol=1e-7)
            assert np.all(np.asarray(wide_gradient[4:]) == 0)
            assert np.all(np.asarray(wide_gradient[:4, :, LENGTH:]) == 0)


def check_all_masked():
    batch = _batch() | {"mask": jnp.zeros((4, 3, LENGTH), bool)}
    for mode in MODES:
        value, gradient = _compiled(mode)(batch["logp"], batch, _count(batch["mask"], mode))
        assert float(value) == 0 and np.all(np.asarray(gradient) == 0)


# ------------------------------------------------------------------------------------------------------------------- KL
def _kl(difference, estimator, **options):
    """Value and gradient in log π of one token with log π − log π_ref = `difference`."""
    mask = jnp.ones((1,), bool)
    ref = _f32([-3.0])

    def value(logp):
        return losses.kl(logp[None], ref, mask=mask, estimator=estimator, **options)[0]

    return tuple(map(float, jax.value_and_grad(value)(_f32(-3.0 + difference))))


def check_kl_estimators():
    for x in (-1.5, -1e-3, 0.0, 0.25, 2.0):
        for estimator, value, gradient in (
            ("k1", x, 1.0),
            ("k2", x * x / 2, x),
            ("k3", math.expm1(-x) + x, 1 - math.exp(-x)),
        ):
            got = _kl(x, estimator)
            np.testing.assert_allclose(got, (value, gradient), rtol=1e-3, atol=1e-6)


def check_kl_extremes():
    """Ratios of e^±50 and beyond give finite values and gradients; so does the surrogate."""
    for difference in (-1000.0, -50.0, 50.0, 1000.0):
        for estimator in ("k1", "k2", "k3"):
            assert all(map(math.isfinite, _kl(difference, estimator)))
        for advantage in (1.0, -1.0):
            for options in ({}, {"dual_clip": 3.0}):
                value, gradient, _ = _single(difference, advantage, **options)
                assert math.isfinite(value) and math.isfinite(gradient)
    assert _kl(-50.0, "k3") == (np.float32(math.expm1(10.0) - 10.0), 0.0)
    np.testing.assert_allclose(_kl(-15.0, "k3", clamp=20.0), (math.exp(15) - 16, 1 - math.exp(15)), rtol=1e-4)


def check_kl_as_in_verl():
    """`low_var_kl` of hiyouga/EasyR1, verl/trainer/core_algos.py: log-ratio within ±20, then the estimate within 10."""
    np.testing.assert_allclose(_kl(-5.0, "k3"), (math.exp(5) - 6, 1 - math.exp(5)), rtol=1e-5)  # ours: −147
    assert _kl(-5.0, "k3", clamp=20.0, most=10.0) == (10.0, 0.0)
    for x in (-2.5, -1.0, 0.5, 9.0, 15.0):
        kl = min(max(-x, -20.0), 20.0)
        want = min(math.exp(kl) - kl - 1, 10.0)
        gradient = 1 - math.exp(kl) if math.exp(kl) - kl - 1 < 10 else 0.0
        np.testing.assert_allclose(_kl(x, "k3", clamp=20.0, most=10.0), (want, gradient), rtol=1e-4, atol=1e-6)
    assert _kl(12.0, "k1", clamp=20.0, most=10.0) == (10.0, 0.0) and _kl(-12.0, "k1", clamp=20.0, most=10.0)[0] == -10.0


def check_kl_directions():
    """Exact expectations over a categorical: k1 and k3 are unbiased; whose gradient is whose."""
    theta, ref = _f32([0.3, -0.5, 1.0, 0.1]), jax.nn.log_softmax(_f32([0.0, 0.4, 0.2, -0.3]))
    probs, mask = jax.nn.softmax(theta), jnp.ones(4, bool)

    def surrogate(theta, estimator):  # sampling is not differentiated through
        return jnp.sum(probs * losses.kl(jax.nn.log_softmax(theta), ref, mask=mask, estimator=estimator))

    def reverse(theta):
        return jnp.sum(jax.nn.softmax(theta) * (jax.nn.log_softmax(theta) - ref))

    def forward(theta):
        return jnp.sum(jnp.exp(ref) * (ref - jax.nn.log_softmax(theta)))

    for estimator in ("k1", "k3"):
        np.testing.assert_allclose(surrogate(theta, estimator), reverse(theta), atol=1e-6)
    gradient = jax.jit(jax.grad(surrogate), static_argnums=1)
    np.testing.assert_allclose(gradient(theta, "k1"), jnp.zeros(4), atol=1e-6)
    np.testing.assert_allclose(gradient(theta, "k2"), jax.grad(reverse)(theta), atol=1e-6)
    np.testing.assert_allclose(gradient(theta, "k3"), jax.grad(forward)(theta), atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- the others
def check_importance_correction():
    sampler = _f32([-1.0, -1.0, -1.0, -1.0, -1.0])
    logp = _f32([-1.0, -1.5, -0.5, 60.0, np.nan])
    mask = jnp.asarray([True, True, True, True, False])

    def weight(logp):
        return losses.importance_correction(logp, sampler, mask=mask)[0]

    np.testing.assert_allclose(weight(logp), [1.0, math.exp(-0.5), math.exp(0.5), 2.0, 1.0], rtol=1e-6)
    assert np.all(np.asarray(jax.grad(lambda x: weight(x).sum())(logp)) == 0)
    loss, _ = losses.policy_loss(
        logp[None, :4], logp[None, :4], advantages=_f32([1.0]), mask=mask[None, :4], normaliser=_f32(4),
        weight=weight(logp)[None, :4],
    )  # fmt: skip
    np.testing.assert_allclose(loss, -(1.0 + math.exp(-0.5) + math.exp(0.5) + 2.0) / 4, rtol=1e-6)


def check_no_other_gradient():
    """Only log π is differentiated: not the old policy, the reference or the advantages."""
    batch = _batch()

    def loss(old, ref, advantages):
        given = batch | {"old": old, "ref": ref, "advantages": advantages}
        return _total(batch["logp"], given, "token_mean", _f32(10))

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(batch["old"], batch["ref"], batch["advantages"]):
        assert np.all(np.asarray(gradient) == 0)


def check_float64():
    """Strict promotion refuses even an explicit `promote_types(float64, float32)`, hence 'standard' here."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        old = np.asarray([[-1.0, -2.0]])
        logp = jnp.asarray(old + np.log([[1.1, 0.9]]))
        loss, _ = losses.policy_loss(
            logp, jnp.asarray(old), advantages=jnp.asarray([0.3]), mask=jnp.ones((1, 2), bool), normaliser=2.0
        )
        assert loss.dtype == jnp.float64
        np.testing.assert_allclose(loss, -0.3, atol=1e-14)
        value = losses.kl(logp, jnp.asarray(old), mask=jnp.ones((1, 2), bool))
        np.testing.assert_allclose(value, 1 / np.asarray([[1.1, 0.9]]) - 1 + np.log([[1.1, 0.9]]), atol=1e-14)


CHECKS = [value for name, value in dict(globals()).items() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_losses(check):
    check()


def test_errors_name_the_thing():
    batch = _batch()
    logp, old, mask = batch["logp"], batch["old"], batch["mask"]
    given = dict(advantages=batch["advantages"], mask=mask, normaliser=_f32(1))
    with pytest.raises(ValueError, match=r"\(4, 3\), got \(4,\)"):
        losses.policy_loss(logp, old, **(given | {"advantages": jnp.ones(4)}))
    with pytest.raises(ValueError, match="one shape"):
        losses.policy_loss(logp, old[:2], **given)
    with pytest.raises(ValueError, match="low=1.5"):
        losses.policy_loss(logp, old, clip_low=1.5, **given)
    with pytest.raises(ValueError, match="above 1"):
        losses.policy_loss(logp, old, dual_clip=0.5, **given)
    with pytest.raises(ValueError, match="'token_mean', 'sequence_mean' or 'constant', got 'mean'"):
        losses.policy_loss(logp, old, aggregation="mean", **given)
    with pytest.raises(ValueError, match="'k1', 'k2' or 'k3', got 'k4'"):
        losses.kl(logp, old, mask=mask, estimator="k4")
    with pytest.raises(ValueError, match="above 0 nats, got 0"):
        losses.kl(logp, old, mask=mask, clamp=0)
    with pytest.raises(ValueError, match="length"):
        losses.count(mask, aggregation="constant")
    with pytest.raises(ValueError, match="length"):
        losses.count(mask, aggregation="token_mean", length=3)
    with pytest.raises(ValueError, match="cap must be at least 1"):
        losses.importance_correction(logp, old, mask=mask, cap=0.5)
