"""What the config adds to the loss, in the compiled step: overlong mask, entropy, importance weights, KL as reward."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest
from test_learner import LAM, PLAIN, SIGNALS, Kit, M, by_hand, make_kit

from fgrpo_jax.fgrpo import forward, losses, optimizer

COEF, CAP, BETA = 0.05, 1.5, 0.3


@pytest.fixture(scope="module")
def kit(tiny_hf: Path) -> Kit:
    return make_kit(tiny_hf)


def off_by(kit: Kit, shift: np.ndarray) -> Any:
    """Rollouts whose sampler reported log-probs that are off by `shift` nats."""
    logps = np.where(kit.rollouts.mask, kit.rollouts.logps - shift, 0).astype(np.float32)
    return kit.rollouts.replace(logps=logps)


@pytest.mark.slow
def test_overlong_mask_entropy_bonus_and_importance_weights(kit: Kit) -> None:
    """All at once, each in the hand-made sum; truncated rollouts count in the groups and not in the loss."""
    learner = kit.variant(**PLAIN, overlong="mask", entropy_coef=COEF, importance_cap=CAP)
    shift = np.random.default_rng(5).normal(0, 0.4, kit.rollouts.mask.shape)
    rollouts = off_by(kit, shift)
    state, metrics, logps = kit.run(learner, SIGNALS, lam=LAM, rollouts=rollouts)
    mask = rollouts.mask & rollouts.finished[..., None]
    assert not rollouts.finished.all() and rollouts.finished.any()
    count, adv = mask.sum(), by_hand(SIGNALS, LAM)[0]
    ratio = np.exp(np.asarray(logps, np.float64) - rollouts.logps)
    weight = np.minimum(ratio, CAP)
    policy = -(adv[..., None] * weight * mask).sum() / count
    np.testing.assert_allclose(metrics["loss/policy"], policy, rtol=1e-4, atol=1e-5)
    total = policy - COEF * float(metrics["policy/entropy"])
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-4, atol=1e-5)
    seen = weight[mask]
    want = {"mean": seen.mean(), "max": ratio[mask].max(), "capped_share": (ratio > CAP)[mask].mean()}
    want["ess"] = seen.sum() ** 2 / (count * (seen**2).sum())
    for name, value in want.items():
        np.testing.assert_allclose(metrics[f"importance/{name}"], value, rtol=1e-4, err_msg=name)
    assert 0.05 < want["capped_share"] < 0.5 and want["ess"] < 0.99
    norm, entropy = gradient(kit, weight * adv[..., None], mask)
    np.testing.assert_allclose(metrics["policy/entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["optim/grad_norm"], norm, rtol=1e-4)
    assert int(state.step) == 1 and (np.asarray(logps)[kit.rollouts.mask] < 0).all(), (
        "log-probs of all tokens come back"
    )


def gradient(kit: Kit, push: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """(norm of the gradient of −Σ push·log π/n − COEF·mean entropy, that mean), without the learner's machinery."""
    params = kit.params()
    weights, frozen = optimizer.partition(params, ["visual/**"])
    model, prompts, rollouts, banned = kit.policy.model, kit.prompts, kit.rollouts, kit.learner.banned

    def loss(weights: Any) -> Any:
        params = optimizer.merge(weights, frozen)
        logps, entropy = forward.completion_logps(
            model,
            params,
            prompts,
            model.encode(params, prompts.vision),
            rollouts.tokens,
            rollouts.mask,
            temperature=1.0,
            banned=banned,
        )
        mean = (entropy * mask).sum() / mask.sum()
        return -(jnp.asarray(push, jnp.float32) * logps * mask).sum() / mask.sum() - COEF * mean, mean

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=policies.QUICK)
    (_, mean), grads = compiled(weights)
    return np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in grads.values())), float(mean)


def test_a_batch_of_truncated_rollouts_under_the_overlong_mask_gives_a_zero_update(kit: Kit) -> None:
    learner = kit.variant(**PLAIN, overlong="mask", entropy_coef=COEF, importance_cap=CAP)
    rollouts = kit.rollouts.replace(finished=np.zeros_like(kit.rollouts.finished))
    state, metrics, _ = kit.run(learner, SIGNALS, lam=LAM, rollouts=rollouts)
    assert metrics["optim/grad_norm"] == 0 and metrics["loss/total"] == 0 and metrics["optim/skipped"] == 0
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@functools.cache
def away(kit: Kit) -> Any:
    return jax.tree.map(lambda x: x * 1.02, kit.learner.reference(kit.params()))


@pytest.mark.slow
def test_kl_in_the_reward_is_taken_off_before_the_group_is_normalised(kit: Kit) -> None:
    learner = kit.variant(**PLAIN | {"kl_coef": BETA}, kl_in="reward", kl_estimator="k1")
    _, metrics, logps = kit.run(learner, SIGNALS, lam=LAM, reference=away(kit))
    _, frozen = optimizer.partition(kit.params(), ["visual/**"])
    moved = optimizer.merge(jax.tree.map(jnp.copy, away(kit)), frozen)
    _, _, reference = kit.run(kit.variant(**PLAIN), SIGNALS, lam=LAM, params=moved)
    mask = kit.rollouts.mask
    k1 = np.where(mask, np.asarray(logps, np.float64) - reference, 0)
    assert np.abs(k1).max() < 10, "nothing is clamped"
    adv, share = by_hand(SIGNALS.replace(task=SIGNALS.task - BETA * k1.sum(-1)), LAM)
    np.testing.assert_allclose(metrics["advantage/share"], share, atol=1e-4)
    policy = -(adv[..., None] * mask).sum() / mask.sum()
    np.testing.assert_allclose(metrics["loss/policy"], policy, rtol=1e-3, atol=1e-4)
    assert metrics["loss/total"] == metrics["loss/policy"], "it is in the reward and not in the loss"
    np.testing.assert_allclose(metrics["loss/kl"], k1.sum() / mask.sum(), rtol=1e-3, atol=1e-5)
    plain = by_hand(SIGNALS, LAM)[0]
    assert np.abs(plain - adv).max() > 0.05, "it made a difference"
    assert (adv[3] != 0).any() and len(adv) == M, "and brings a dead group to life"


# ------------------------------------------------------------------------------------------------- pure pieces, by hand
LOGP = np.log(np.array([[0.5, 0.2, 0.9, 0.3], [0.4, 0.4, 0.1, 0.7]]))
OLD = np.log(np.array([[0.4, 0.3, 0.6, 0.9], [0.5, 0.1, 0.1, 0.2]]))
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)


def sequence_loss(logp: Any, advantages: tuple[float, float], **clips: float) -> Any:
    arrays = (jnp.asarray(logp, jnp.float32), jnp.asarray(OLD, jnp.float32))
    return losses.policy_loss(
        *arrays,
        advantages=jnp.asarray(advantages, jnp.float32),
        mask=jnp.asarray(MASK),
        normaliser=jnp.float32(2),
        aggregation="sequence_mean",
        ratio_of="sequence",
        **{"clip_low": 1.0, "clip_high": 9.0, **clips},
    )


def test_sequence_ratio_is_the_geometric_mean_and_clipped_as_one() -> None:
    ratios = [np.exp((LOGP - OLD)[row][MASK[row]].mean()) for row in range(2)]
    np.testing.assert_allclose(sequence_loss(LOGP, (2.0, -1.0))[0], -(2 * ratios[0] - ratios[1]) / 2, rtol=1e-6)
    grad = jax.grad(lambda x: sequence_loss(x, (2.0, -1.0))[0])(jnp.asarray(LOGP, jnp.float32))
    want = np.array([-2 * ratios[0] / 3, ratios[1] / 2])[:, None] / 2 * MASK  # each token an equal share of its ratio
    np.testing.assert_allclose(grad, want, rtol=1e-5)
    # The first ratio is 1.0, the second 1.789: clipped at 1.5 where the advantage is positive, all its tokens at once.
    loss, sums = sequence_loss(LOGP, (2.0, 1.0), clip_high=0.5)
    np.testing.assert_allclose(loss, -(2 * ratios[0] + 1.5) / 2, rtol=1e-6)
    assert ratios[0] < 1.5 < ratios[1] and sums.clipped_high == 2
    grad = jax.grad(lambda x: sequence_loss(x, (2.0, 1.0), clip_high=0.5)[0])(jnp.asarray(LOGP, jnp.float32))
    assert (grad[1] == 0).all() and (grad[0, :3] < 0).all()


def test_sequence_ratio_of_long_log_ratios_stays_finite() -> None:
    far = LOGP + 200.0
    value, grad = jax.value_and_grad(lambda x: sequence_loss(x, (-1.0, -1.0))[0])(jnp.asarray(far, jnp.float32))
    assert np.isfinite(value) and np.isfinite(grad).all()
    with pytest.raises(ValueError, match="ratio_of must be 'token' or 'sequence'"):
        losses.policy_loss(
            jnp.zeros((1, 2)),
            jnp.zeros((1, 2)),
            advantages=jnp.zeros(1),
            mask=jnp.ones((1, 2), bool),
            normaliser=jnp.float32(1),
            ratio_of="word",  # type: ignore[arg-type]
        )


def test_importance_sums_by_hand() -> None:
    logp, old, mask = (jnp.asarray(x) for x in (LOGP, OLD, MASK))
    weight, sums = losses.importance_correction(logp, old, mask=mask, cap=1.3)
    ratio = np.where(MASK, np.exp(LOGP - OLD), 1)
    np.testing.assert_allclose(weight, np.minimum(ratio, 1.3), rtol=1e-6)
    kept = np.minimum(ratio, 1.3)[MASK]
    found = [float(sums[name]) for name in ("weight", "weight_squared", "capped", "largest")]
    want = [kept.sum(), (kept**2).sum(), (ratio[MASK] > 1.3).sum(), ratio.max()]
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_a_truncated_sampler_is_corrected_on_what_it_can_draw() -> None:
    """Exact expectations: weights by π/q make the sampler's gradient that of π restricted to the kept tokens."""
    logits = jnp.asarray([1.2, 0.3, -0.5, -1.0, 0.8])
    reward = jnp.asarray([1.0, -0.5, 0.3, 2.0, -1.0])
    kept = np.array([True, True, False, False, True])  # top-k of 3
    pi = np.asarray(jax.nn.softmax(logits), np.float64)
    q = np.where(kept, pi, 0) / pi[kept].sum()
    logp = jnp.log(jnp.asarray(pi, jnp.float32))
    sampler = jnp.log(jnp.asarray(np.where(kept, q, 1), jnp.float32))
    weight = np.asarray(losses.importance_correction(logp, sampler, mask=jnp.asarray(kept), cap=1.0)[0])
    np.testing.assert_allclose(weight[kept], pi[kept].sum(), rtol=1e-6)
    score = np.eye(5) - pi  # ∇ log π of each token
    corrected = sum(q[t] * weight[t] * reward[t] * score[t] for t in range(5) if kept[t])
    np.testing.assert_allclose(corrected, sum(pi[t] * reward[t] * score[t] for t in range(5) if kept[t]), rtol=1e-5)
