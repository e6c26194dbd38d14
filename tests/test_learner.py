"""The compiled step against plain numpy, against itself under other splits of the work, and with broken inputs."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest

from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.fgrpo import advantages, forward, optimizer
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.records import PromptBatch, Rollouts, Signals, TrainState
from fgrpo_jax.training import setup

M, G, T, C = 8, 4, 8, 3
LR, DECAY = 1e-3, 0.01
SIGNS = (1, -1, 1)
PLAIN = {"kl_coef": 0.0, "updates": 1, "micro_batches": 1, "clip_low": 0.0, "clip_high": 0.0}
"""The smallest program: one update, no reference, no old log-probs; and any ratio but exactly 1 is clipped."""


@dataclasses.dataclass(eq=False)  # hashed by identity, for the cache
class Kit:
    """One policy, one batch of image prompts with the rollouts its sampler drew, and learners compiled on demand."""

    policy: setup.Policy
    learner: Learner  # of the config: two updates, KL
    prompts: PromptBatch
    encoded: Any
    rollouts: Rollouts  # numpy leaves

    def params(self) -> Any:
        return self.policy.load("float32")

    @functools.cache  # noqa: B019 (lives as long as the tests)
    def variant(self, **fields: Any) -> Learner:
        """The learner with other settings; the same object for the same settings, so that it compiles once."""
        return dataclasses.replace(self.learner, config=policies.altered(self.learner.config, prompts=M, **fields))

    @property
    def plain(self) -> Learner:
        """The smallest program, with one constraint bounded from above."""
        return self.variant(**base_fields(self))

    def run(
        self,
        learner: Learner,
        signals: Signals,
        *,
        params: Any = None,
        prompts: PromptBatch | None = None,
        rollouts: Rollouts | None = None,
        reference: Any = None,
        lam: Any = None,
    ) -> tuple[TrainState, dict[str, Any], np.ndarray]:
        """One step from a fresh state, everything on the host."""
        state = learner.init(self.params() if params is None else params)
        if lam is not None:
            state = state.replace(lam=jax.device_put(jnp.asarray(lam, jnp.float32), state.lam.sharding))
        reference = learner.reference(state.params) if reference is None else reference
        put = self.policy.put
        prompts, rollouts = put(prompts or self.prompts), put(rollouts or self.rollouts)
        return jax.device_get(learner.step(state, reference, prompts, rollouts, signals))


@pytest.fixture(scope="module")
def kit(tiny_hf: Path) -> Kit:
    return make_kit(tiny_hf)


def make_kit(tiny_hf: Path) -> Kit:
    config = policies.config(tiny_hf, optim__learning_rate=LR, algorithm__micro_batch_prompts=4)
    policy = policies.policy(config)
    data = setup.training_batches(config, policy)
    batch = next(data)
    data.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "Sampler", functools.partial(setup.Sampler, compiler_options=policies.QUICK))
        sampler = setup.sampler(config, policy, purpose="train")
    drawn = sampler.sample(policy.load("float32"), policy.put(batch.prompts), seed=1, purpose="train", step=0)
    rollouts = jax.device_get(drawn)
    # A tiny random policy hardly ever ends a rollout: lengths are cut by hand, log-probs of what is left stay true.
    length = np.random.default_rng(1).integers(2, T + 1, size=(M, G))
    mask = rollouts.mask & (np.arange(T) < length[..., None])
    finished = mask.sum(-1) < T
    rollouts = rollouts.replace(mask=mask, logps=np.where(mask, rollouts.logps, 0), finished=finished)
    learner = dataclasses.replace(setup.learner(config, policy), compiler_options=policies.QUICK)
    return Kit(policy, learner, batch.prompts, batch.encoded, rollouts)


def make_signals(seed: int = 0) -> Signals:
    """Signals of a few levels, as rewards are; one dead group, one group with a single applicable rollout."""
    rng = np.random.default_rng(seed)
    levels = lambda *shape: (rng.integers(0, 5, size=shape) / 4).astype(np.float32)  # noqa: E731
    task, values, mask = levels(M, G), levels(C, M, G), rng.random((C, M, G)) < 0.7
    task[3], values[:, 3] = 0.7, np.float32(0.1)
    mask[1, 5] = [False, True, False, False]
    return Signals(task=task, accuracy=levels(M, G), format=levels(M, G), values=np.where(mask, values, 0), mask=mask)


SIGNALS = make_signals()
LAM = np.array([0.8, 1.7, 0.3])


# ------------------------------------------------------------------------------------------------ Eq. 4 to 6 by hand
def normalise(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Â of one signal [M, G], group by group, in float64."""
    out = np.zeros(values.shape)
    for row, keep in enumerate(mask):
        kept = values[row][keep].astype(np.float64)
        if len(kept) >= 2 and kept.max() != kept.min():
            out[row, keep] = (kept - kept.mean()) / (kept.std(ddof=1) + 1e-6)
    return out


def by_hand(signals: Signals, lam: np.ndarray, direction: tuple[int, ...] = (1, 1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """(whitened advantages [M, G], share of each signal [1 + C])."""
    terms = [normalise(signals.task, np.ones((M, G), bool))]
    for k in range(C):
        terms.append(lam[k] * normalise(direction[k] * signals.values[k], signals.mask[k]))
    mixed = sum(terms)
    live = (mixed != 0).any(axis=1)
    size = np.array([np.abs(term).mean() for term in terms])
    return mixed / np.sqrt((mixed[live] ** 2).mean()), size / size.sum()


def next_lam(signals: Signals, lam: np.ndarray, thresholds: tuple[float, ...], signs: tuple[int, ...]) -> np.ndarray:
    """Eq. 4 with the paper's rate and bounds."""
    out = []
    for k, (tau, sign) in enumerate(zip(thresholds, signs, strict=True)):
        mean = signals.values[k][signals.mask[k]].astype(np.float64).mean()
        out.append(np.clip(lam[k] + 0.05 * sign * (tau - mean), 0, 5))
    return np.array(out)


def test_multipliers_means_and_shares_are_those_of_the_equations(kit: Kit) -> None:
    state, metrics, _ = kit.run(kit.learner, SIGNALS, lam=LAM)
    means = [SIGNALS.values[k][SIGNALS.mask[k]].mean() for k in range(C)]
    np.testing.assert_allclose(metrics["constraint/mean"], means, atol=1e-6)
    np.testing.assert_array_equal(metrics["constraint/applicable"], SIGNALS.mask.sum((1, 2)))
    np.testing.assert_allclose(metrics["constraint/lambda"], LAM, atol=1e-6)  # λ(t), the one the advantages used
    np.testing.assert_allclose(state.lam, next_lam(SIGNALS, LAM, (0.95, 0.95, 0.65), (1, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(metrics["advantage/share"], by_hand(SIGNALS, LAM)[1], atol=1e-6)
    assert int(state.step) == 1 and int(metrics["optim/skipped"]) == 0


def test_whitened_over_tokens_the_tokens_that_count_sum_to_zero(kit: Kit) -> None:
    """The loss of one on-policy update is −mean Â over its tokens; the default's centre is that of rollouts."""
    algorithm = dataclasses.replace(kit.learner.config.algorithm, whiten="tokens", updates_per_batch=1, kl_coef=0.0)
    learner = dataclasses.replace(kit.learner, config=dataclasses.replace(kit.learner.config, algorithm=algorithm))
    _, metrics, _ = kit.run(learner, SIGNALS, lam=LAM)
    assert abs(metrics["loss/policy"]) < 1e-6
    tokens = kit.rollouts.mask.sum(-1)
    assert abs((by_hand(SIGNALS, LAM)[0] * tokens).sum() / tokens.sum()) > 1e-3


def test_a_multiplier_stands_still_below_the_minimum_of_applicable_rollouts(kit: Kit) -> None:
    mask = SIGNALS.mask.copy()
    mask[2] = False
    mask[2, :3, 0] = True
    state, metrics, _ = kit.run(kit.learner, SIGNALS.replace(mask=mask), lam=LAM)
    assert metrics["constraint/applicable"][2] == 3
    assert state.lam[2] == np.float32(LAM[2]) and state.lam[0] != np.float32(LAM[0])


@functools.cache
def loss_of(model: Any, freeze: tuple[str, ...]) -> Any:
    """jitted gradient of −Σ Â log π / tokens, written out without the learner's machinery."""

    def loss(weights: Any, frozen: Any, prompts: Any, rollouts: Any, adv: Any, banned: Any) -> Any:
        params = optimizer.merge(weights, frozen)
        features = model.encode(params, prompts.vision)
        logps, _ = forward.completion_logps(
            model, params, prompts, features, rollouts.tokens, rollouts.mask, temperature=1.0, banned=banned
        )
        return -(adv[..., None] * logps).sum() / rollouts.mask.sum(), logps

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=policies.QUICK)


def test_one_update_is_adamw_on_the_policy_gradient_of_the_advantages(kit: Kit) -> None:
    state, metrics, logps = kit.run(kit.plain, SIGNALS, lam=LAM)
    adv, share = by_hand(SIGNALS, LAM, SIGNS)
    np.testing.assert_allclose(metrics["advantage/share"], share, atol=1e-6)
    np.testing.assert_allclose(state.lam, next_lam(SIGNALS, LAM, (0.95, 0.95, 0.65), SIGNS), atol=1e-6)
    params = kit.params()
    weights, frozen = optimizer.partition(params, ["visual/**"])
    (_, want_logps), grads = loss_of(kit.policy.model, ("visual/**",))(
        weights, frozen, kit.prompts, kit.rollouts, jnp.asarray(adv, jnp.float32), kit.learner.banned
    )
    np.testing.assert_allclose(logps, want_logps, atol=1e-5)
    lengths = kit.rollouts.mask.sum(-1)
    np.testing.assert_allclose(metrics["loss/policy"], -(adv * lengths).sum() / lengths.sum(), rtol=1e-5, atol=1e-6)
    norm = np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in grads.values()))
    np.testing.assert_allclose(metrics["optim/grad_norm"], norm, rtol=1e-5)
    new = optimizer.flatten(state.params)
    for path, grad in grads.items():
        clipped = np.asarray(grad, np.float64) * min(1.0, 1.0 / norm)
        old = np.asarray(weights[path], np.float64)
        # The first step of Adam: both corrected moments are the gradient's own. Where the gradient is rounding noise
        # its sign is too, and that is all this step keeps of it; those weights are left out.
        want = old - LR * (clipped / (np.abs(clipped) + 1e-8) + DECAY * old)
        clear = np.abs(clipped) > 1e-6
        np.testing.assert_allclose(new[path][clear], want[clear], rtol=1e-4, atol=2e-6, err_msg=path)


def with_signs(learner: Learner, signs: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(
        dataclasses.replace(c, direction=">=" if sign > 0 else "<=")
        for c, sign in zip(learner.config.constraints, signs, strict=True)
    )


def test_direction_flips_both_the_multiplier_and_the_advantage(kit: Kit) -> None:
    """'<=' on R is '>=' on −R: nothing but the sign of the advantage and of the violation."""
    state, metrics, _ = kit.run(kit.plain, SIGNALS, lam=LAM)
    mean = metrics["constraint/mean"][1]
    assert mean < 0.95 and state.lam[1] < LAM[1], "below an upper bound: met, so λ falls"
    assert metrics["constraint/mean"][0] < 0.95 and state.lam[0] > LAM[0], "below a lower bound: violated"
    only = np.array([0, 5.0, 0])
    task = np.zeros((M, G), np.float32)
    _, metrics, _ = kit.run(kit.plain, SIGNALS.replace(task=task), lam=only)
    adv, _ = by_hand(SIGNALS.replace(task=task), only, SIGNS)
    lengths = kit.rollouts.mask.sum(-1)
    np.testing.assert_allclose(metrics["loss/policy"], -(adv * lengths).sum() / lengths.sum(), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ λ = 0 is GRPO
def test_without_constraints_in_force_the_step_is_grpos(kit: Kit, tiny_hf: Path) -> None:
    """λ ≡ 0 gives GRPO-T: the advantages bit for bit, the parameters but for how two programs may fuse.

    Compiled as users' programs are: Adam makes much of small differences where a gradient is near zero.
    """
    config = policies.config(tiny_hf, algorithm__aggregation="grpo")
    assert [(c.lr, c.init) for c in setup.learner(config, kit.policy).config.constraints] == [(0, 0)] * C
    none = SIGNALS.replace(values=SIGNALS.values[:0], mask=SIGNALS.mask[:0])
    plain, grpo = (
        dataclasses.replace(learner, compiler_options=policies.QUICK | policies.USERS)
        for learner in (kit.plain, kit.variant(**PLAIN, constraints=()))
    )
    a, a_metrics, _ = kit.run(plain, SIGNALS, lam=np.zeros(C))
    b, b_metrics, _ = kit.run(grpo, none)
    assert b.lam.shape == (0,)
    np.testing.assert_array_equal(a_metrics["advantage/share"], [1, 0, 0, 0])
    np.testing.assert_allclose(a_metrics["optim/grad_norm"], b_metrics["optim/grad_norm"], rtol=1e-6)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6, rtol=0, err_msg=jax.tree_util.keystr(path))
    zero = jnp.zeros(C)
    bits = [advantages.combine(s.task, s.values, s.mask, lam).total for s, lam in ((SIGNALS, zero), (none, zero[:0]))]
    np.testing.assert_array_equal(*map(np.asarray, bits))
    compiled = jax.jit(lambda s, lam: advantages.combine(s.task, s.values, s.mask, lam).total)
    np.testing.assert_array_equal(np.asarray(compiled(SIGNALS, zero)), np.asarray(compiled(none, zero[:0])))


def same(a: Any, b: Any) -> None:
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


# ----------------------------------------------------------------------------------------- the split of work is no part
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_number_of_micro_batches_changes_nothing(kit: Kit, count: int) -> None:
    """Two for the whole step, four for the small program."""
    base = kit.learner if count == 2 else kit.plain
    split = kit.variant(micro_batches=2) if count == 2 else kit.variant(**{**base_fields(kit), "micro_batches": 4})
    assert_same_step(kit, base, split)


def test_packing_changes_nothing(kit: Kit) -> None:
    """Streams of real tokens, as every device but a CPU learns from them."""
    model = dataclasses.replace(kit.learner.model, packs=True)
    assert_same_step(kit, kit.learner, dataclasses.replace(kit.learner, model=model))


def test_images_encoded_ahead_change_nothing(kit: Kit) -> None:
    """As a run encodes them, once for sampler and learner; not where a step changes the tower."""
    encoded = kit.learner.encode(kit.params(), kit.policy.put(kit.prompts))
    assert encoded.vision is None and encoded.features.shape[0] == M
    assert_same_step(kit, kit.learner, dataclasses.replace(kit.learner), prompts=encoded)  # a program of its own
    assert kit.variant(freeze=()).encode is None


def assert_same_step(kit: Kit, base: Learner, other: Learner, **given: Any) -> None:
    """Loss, gradient, log-probs, λ and weights of a step, but for rounding; `given` to the other."""
    state, metrics, logps = kit.run(base, SIGNALS, lam=LAM)
    other_state, found, other_logps = kit.run(other, SIGNALS, lam=LAM, **given)
    for name in ("loss/total", "loss/policy", "loss/kl", "optim/grad_norm", "policy/entropy"):
        np.testing.assert_allclose(found[name], metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(other_state.lam, state.lam)
    np.testing.assert_allclose(other_logps, logps, atol=1e-5)
    # Adam divides by the gradient's own size, so that the noise of an all but vanished one moves a weight by LR.
    moved = [np.abs(x - y) for x, y in zip(*map(jax.tree.leaves, (other_state.params, state.params)), strict=True)]
    assert max(m.max() for m in moved) <= 4 * LR
    assert sum((m > 1e-5).sum() for m in moved) < 1e-3 * sum(m.size for m in moved)


def base_fields(kit: Kit) -> dict[str, Any]:
    return {**PLAIN, "constraints": with_signs(kit.learner, SIGNS)}


def test_order_of_prompts_changes_nothing(kit: Kit) -> None:
    learner, order = kit.plain, np.random.default_rng(0).permutation(M)
    state, metrics, logps = kit.run(learner, SIGNALS, lam=LAM)
    take = lambda tree: jax.tree.map(lambda x: np.asarray(x)[order], tree)  # noqa: E731
    flat = take({"task": SIGNALS.task, "accuracy": SIGNALS.accuracy, "format": SIGNALS.format})
    moved = Signals(**flat, values=SIGNALS.values[:, order], mask=SIGNALS.mask[:, order])
    other_state, other, other_logps = kit.run(
        learner, moved, lam=LAM, prompts=take(kit.prompts), rollouts=take(kit.rollouts)
    )
    for name in ("loss/total", "optim/grad_norm", "advantage/share", "constraint/mean"):
        np.testing.assert_allclose(other[name], metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(other_state.lam, state.lam, atol=1e-7)
    np.testing.assert_allclose(other_logps, logps[order], atol=1e-5)


def test_amount_and_content_of_padding_change_nothing(kit: Kit) -> None:
    """Longer prompts and images buckets, longer completions, and other ids where nothing counts."""
    learner = kit.plain
    _, metrics, logps = kit.run(learner, SIGNALS, lam=LAM)
    wide = Buckets(prompt=(128,), patches=(128,), images=(2,))
    prompts = collate(kit.encoded, buckets=wide, pad_id=7)
    extra = ((0, 0), (0, 0), (0, 3))
    tokens = np.where(kit.rollouts.mask, kit.rollouts.tokens, 9)
    rollouts = kit.rollouts.replace(
        tokens=np.pad(tokens, extra, constant_values=11),
        mask=np.pad(kit.rollouts.mask, extra),
        logps=np.pad(kit.rollouts.logps, extra),
    )
    _, other, other_logps = kit.run(learner, SIGNALS, lam=LAM, prompts=prompts, rollouts=rollouts)
    np.testing.assert_allclose(other["loss/total"], metrics["loss/total"], atol=1e-6)
    np.testing.assert_allclose(other["optim/grad_norm"], metrics["optim/grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(other_logps[..., :T], logps, atol=1e-5)


def test_the_side_of_the_padding_changes_nothing(kit: Kit) -> None:
    """Prompts padded on the left, by the program of those padded on the right."""
    learner, prompts = kit.plain, kit.prompts
    _, metrics, logps = kit.run(learner, SIGNALS, lam=LAM)
    shift = prompts.mask.shape[1] - np.asarray(prompts.mask).sum(1)
    assert shift.min() > 0 and len(set(shift)) > 1
    roll = lambda x: np.stack([np.roll(row, by, axis=0) for row, by in zip(np.asarray(x), shift, strict=True)])  # noqa: E731
    moved = {name: roll(getattr(prompts, name)) for name in ("tokens", "mask", "positions", "image_slot")}
    _, other, other_logps = kit.run(learner, SIGNALS, lam=LAM, prompts=prompts.replace(**moved))
    np.testing.assert_allclose(other["loss/total"], metrics["loss/total"], atol=1e-6)
    np.testing.assert_allclose(other["optim/grad_norm"], metrics["optim/grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(other_logps, logps, atol=1e-5)


def test_the_program_is_compiled_once(kit: Kit) -> None:
    learner = kit.learner
    state = learner.init(kit.params())
    reference = learner.reference(state.params)
    inputs = (reference, kit.policy.put(kit.prompts), kit.policy.put(kit.rollouts))
    for seed in range(3):
        state, _, _ = learner.step(state, *inputs, make_signals(seed))
    assert learner.step.compilations == 1 and int(state.step) == 3


# --------------------------------------------------------------------------------- what the two updates see and return
def test_log_probs_returned_are_those_of_the_entering_policy_in_every_row(kit: Kit) -> None:
    """Rows of the second update too, though the weights have moved by then; and the sampler's agree with them."""
    _, _, logps = kit.run(kit.learner, SIGNALS, lam=LAM)
    mask = kit.rollouts.mask
    difference = np.abs(logps - kit.rollouts.logps)[mask]
    assert difference.max() < 1e-4, "sampler and learner run the same model on image prompts"
    assert (logps[~mask] == 0).all() and (logps[mask] < 0).all()
    weights, frozen = optimizer.partition(kit.params(), ["visual/**"])
    (_, want), _ = loss_of(kit.policy.model, ("visual/**",))(
        weights, frozen, kit.prompts, kit.rollouts, jnp.zeros((M, G)), kit.learner.banned
    )
    np.testing.assert_allclose(logps, want, atol=1e-5)


def test_the_first_update_is_on_policy_and_the_second_is_not(kit: Kit) -> None:
    adv, _ = by_hand(SIGNALS, LAM)
    lengths = kit.rollouts.mask.sum(-1)
    rows = [slice(update, None, 2) for update in range(2)]  # prompts are dealt out in turn
    first, second = (-(adv * lengths)[r].sum() / lengths[r].sum() for r in rows)  # losses at ratio 1
    _, metrics, _ = kit.run(kit.learner, SIGNALS, lam=LAM)
    assert abs(2 * metrics["loss/policy"] - first - second) > 1e-3, "the weights had moved by the second update"
    only = SIGNALS.replace(task=SIGNALS.task.copy(), mask=SIGNALS.mask.copy())
    only.task[rows[1]], only.mask[:, rows[1]] = 0, False
    _, metrics, _ = kit.run(kit.learner, only, lam=LAM)
    adv, _ = by_hand(only, LAM)
    first = -(adv * lengths)[rows[0]].sum() / lengths[rows[0]].sum()
    np.testing.assert_allclose(2 * metrics["loss/policy"], first, rtol=1e-5, atol=1e-6)
    # One update, clipped at any ratio but 1: nothing is clipped, and nothing is missing from the loss.
    _, metrics, _ = kit.run(kit.plain, SIGNALS, lam=LAM)
    assert metrics["policy/clip_share"] == 0


def test_the_frozen_tower_keeps_its_bits_and_the_rest_moves(kit: Kit) -> None:
    before = kit.params()
    state, metrics, _ = kit.run(kit.learner, SIGNALS, lam=LAM)
    same(state.params["visual"], before["visual"])
    assert metrics["optim/moved_share"] > 0.5
    assert not np.array_equal(state.params["text"]["embed"]["table"], before["text"]["embed"]["table"])


def test_without_kl_there_is_no_reference(kit: Kit) -> None:
    assert kit.plain.reference(kit.params()) == {}
    assert set(kit.learner.reference(kit.params())) == set(optimizer.partition(kit.params(), ["visual/**"])[0])
    _, metrics, _ = kit.run(kit.plain, SIGNALS)
    assert metrics["loss/kl"] == 0 and metrics["loss/total"] == metrics["loss/policy"]


def test_kl_is_that_to_the_reference_and_enters_the_loss(kit: Kit) -> None:
    params = kit.params()
    away = jax.tree.map(lambda x: x * 1.02, kit.learner.reference(params))
    _, near, _ = kit.run(kit.learner, SIGNALS, lam=LAM)
    _, far, _ = kit.run(kit.learner, SIGNALS, lam=LAM, reference=away)
    assert far["loss/kl"] > near["loss/kl"] > 0  # near: the second update has left the reference
    for metrics in (near, far):
        total = metrics["loss/policy"] + 0.01 * metrics["loss/kl"]
        np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------------------ broken inputs
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(kit: Kit) -> None:
    task = SIGNALS.task.copy()
    task[0, 0] = np.nan
    before = kit.params()
    fresh = jax.device_get(kit.learner.init(kit.params()))
    state, metrics, _ = kit.run(kit.learner, SIGNALS.replace(task=task), lam=LAM)
    assert int(metrics["optim/skipped"]) == 2 and int(state.skipped) == 2, "whitening is over the batch: both updates"
    assert metrics["optim/moved_share"] == 0
    same(state.params, before)
    same(state.opt_state, fresh.opt_state)
    assert int(state.step) == 1 and np.isfinite(state.lam).all()
    np.testing.assert_allclose(state.lam, next_lam(SIGNALS, LAM, (0.95, 0.95, 0.65), (1, 1, 1)), atol=1e-6)


def test_skipped_updates_in_a_row_are_counted_until_one_succeeds(kit: Kit) -> None:
    learner, bad = kit.learner, SIGNALS.replace(task=np.full((M, G), np.nan, np.float32))
    bad.task[:, 0] = 0
    state = learner.init(kit.params())
    reference = learner.reference(state.params)
    inputs = (reference, kit.policy.put(kit.prompts), kit.policy.put(kit.rollouts))
    counts = []
    for signals in (bad, bad, SIGNALS):
        state, _, _ = learner.step(state, *inputs, signals)
        counts.append(int(state.skipped))
    assert counts == [2, 4, 0]


def test_a_dead_batch_has_no_gradient_at_all(kit: Kit) -> None:
    learner = kit.plain
    dead = SIGNALS.replace(task=np.full((M, G), 0.7, np.float32), values=np.full((C, M, G), 0.1, np.float32))
    _, metrics, _ = kit.run(learner, dead, lam=LAM)
    assert metrics["optim/grad_norm"] == 0 and metrics["loss/total"] == 0
    assert (metrics["advantage/share"] == 0).all() and int(metrics["optim/skipped"]) == 0


def test_a_dead_group_gives_no_gradient(kit: Kit) -> None:
    """Group 3 of SIGNALS is constant in every signal: what it says makes no difference."""
    learner, tokens = kit.plain, kit.rollouts.tokens.copy()
    tokens[3] = (tokens[3] + 5) % 200
    _, metrics, _ = kit.run(learner, SIGNALS, lam=LAM)
    _, other, _ = kit.run(learner, SIGNALS, lam=LAM, rollouts=kit.rollouts.replace(tokens=tokens))
    np.testing.assert_allclose(other["optim/grad_norm"], metrics["optim/grad_norm"], rtol=1e-6)
    tokens[4] = (tokens[4] + 5) % 200
    _, other, _ = kit.run(learner, SIGNALS, lam=LAM, rollouts=kit.rollouts.replace(tokens=tokens))
    assert abs(other["optim/grad_norm"] / metrics["optim/grad_norm"] - 1) > 1e-4, "a live group does"


@pytest.mark.parametrize("kept", [True, False], ids=["truncated", "masked-out"])
def test_a_batch_of_truncated_rollouts_holds_no_nan(kit: Kit, kept: bool) -> None:
    """None has an end; or none of their tokens counts at all, as under an overlong mask."""
    rollouts = kit.rollouts.replace(mask=np.full((M, G, T), kept), finished=np.zeros((M, G), bool))
    state, metrics, _ = kit.run(kit.learner, SIGNALS, lam=LAM, rollouts=rollouts)
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    if not kept:
        assert metrics["optim/grad_norm"] == 0 and metrics["loss/total"] == 0
