"""Eight devices (mesh 2 × 2 × 2) do what one does: the same tokens drawn, the same loss, gradient norm and multipliers.

The eight are slices of this CPU (tests/conftest.py asks for them); the one is the first of them.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import policies
import pytest

from fgrpo_jax import mesh as meshes
from fgrpo_jax.records import Rollouts, Signals
from fgrpo_jax.rollout.generate import own_rows
from fgrpo_jax.training import setup

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")

STEPS, M, G = 5, 8, 4


@dataclasses.dataclass
class Side:
    """One mesh with all that runs on it."""

    policy: setup.Policy
    learner: Any
    sampler: Any
    state: Any
    reference: Any

    @classmethod
    def create(cls, config: Any, mesh: jax.sharding.Mesh) -> Side:
        policy = policies.policy(config, mesh)
        learner = dataclasses.replace(setup.learner(config, policy), compiler_options=policies.QUICK)
        params = policy.load("float32")
        reference = learner.reference(params)
        sampler = setup.sampler(config, policy, purpose="train")
        return cls(policy, learner, sampler, learner.init(params), reference)

    def draw(self, prompts: Any, step: int) -> Rollouts:
        drawn = self.sampler.sample(self.state.params, self.policy.put(prompts), seed=0, purpose="train", step=step)
        return jax.device_get(drawn)

    def step(self, prompts: Any, rollouts: Rollouts, signals: Signals) -> tuple[dict[str, Any], np.ndarray]:
        inputs = self.policy.put(prompts), self.policy.put(rollouts), signals_on(self.policy, signals)
        self.state, metrics, logps = self.learner.step(self.state, self.reference, *inputs)
        return jax.device_get((metrics, logps))


def signals_on(policy: setup.Policy, signals: Signals) -> Signals:
    """As the training door places them: constraint arrays [C, M, G] have the prompt axis second."""
    second = jax.sharding.NamedSharding(policy.mesh, jax.sharding.PartitionSpec(None, meshes.BATCH_AXES))
    flat = policy.put({"task": signals.task, "accuracy": signals.accuracy, "format": signals.format})
    return Signals(**flat, **jax.device_put({"values": signals.values, "mask": signals.mask}, second))


def signals_of(rollouts: Rollouts) -> Signals:
    """Something that depends on what was said, so that learning moves it."""
    ids = rollouts.tokens.astype(np.int64)
    share = lambda k: ((ids * (k + 3) % 7) / 6).mean(-1).astype(np.float32)  # noqa: E731
    values = np.stack([share(k) for k in range(3)])
    mask = np.stack([ids[..., 0] % (k + 2) > 0 for k in range(3)])
    return Signals(task=share(5), accuracy=share(6), format=share(7), values=np.where(mask, values, 0), mask=mask)


@pytest.fixture(scope="module")
def sides(tiny_hf: Path) -> tuple[Side, Side, Any]:
    config = policies.config(tiny_hf, algorithm__micro_batch_prompts=4, optim__learning_rate=1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "Sampler", functools.partial(setup.Sampler, compiler_options=policies.QUICK))
        one = Side.create(config, meshes.make_mesh(1, 1, 1, devices=jax.devices()[:1]))
        eight = Side.create(config, meshes.make_mesh(2, 2, 2, devices=jax.devices()[:8]))
    data = setup.training_batches(config, one.policy)
    batches = [next(data).prompts for _ in range(STEPS)]
    data.close()
    return one, eight, batches


def test_five_steps_on_the_same_rollouts_agree(
    sides: tuple[Side, Side, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    one, eight, batches = sides
    # Drawn before any step, from the same weights: what the noise and the matrix products of eight devices do.
    ours, theirs = one.draw(batches[0], 0), eight.draw(batches[0], 0)
    np.testing.assert_array_equal(theirs.tokens, ours.tokens)
    np.testing.assert_allclose(theirs.logps, ours.logps, atol=1e-5)
    whole = eight.state.params["text"]["embed"]["table"]
    assert whole.addressable_shards[0].data.size == whole.size // 4, "split over fsdp and tensor"
    rows = []
    for step, prompts in enumerate(batches):
        rollouts = one.draw(prompts, step)
        signals = signals_of(rollouts)
        (a, a_logps), (b, b_logps) = (side.step(prompts, rollouts, signals) for side in (one, eight))
        for name in ("loss/total", "loss/policy", "loss/kl", "optim/grad_norm"):
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-5, err_msg=f"{name} of step {step}")
        np.testing.assert_allclose(eight.state.lam, one.state.lam, atol=1e-5)
        np.testing.assert_allclose(b_logps, a_logps, atol=1e-4)
        rows.append(a["optim/grad_norm"])
    assert min(rows) > 1e-2 and not np.allclose(one.state.lam, 1.0), "there was something to compare"
    assert one.learner.step.compilations == eight.learner.step.compilations == 1
    assert "full rematerialization" not in capfd.readouterr().err, "the partitioner put a split array on every device"


def test_a_learned_policy_draws_the_same_tokens_on_both(sides: tuple[Side, Side, Any]) -> None:
    """After the five steps, from the one-device weights laid out on both meshes."""
    one, eight, batches = sides
    params = jax.device_put(jax.device_get(one.state.params), eight.policy.shardings)
    eight.state = eight.state.replace(params=params)
    ours, theirs = one.draw(batches[1], 9), eight.draw(batches[1], 9)
    unequal = int((ours.tokens != theirs.tokens).any(-1).sum())
    assert unequal == 0, f"{unequal} of {M * G} rollouts differ; a tie of perturbed scores below 1e-4 would be one"
    assert eight.sampler.compilations == 1


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)], ids=str)
def test_rows_of_a_process_come_back_in_their_order(shape: tuple[int, int, int]) -> None:
    """Split over the prompts, and copied over the tensor axis: every row once. Here one process holds all devices."""
    mesh = meshes.make_mesh(*shape)
    rows = np.arange(16 * 3).reshape(16, 3)
    placed = jax.make_array_from_process_local_data(meshes.batch_sharding(mesh), rows)
    np.testing.assert_array_equal(own_rows(placed), rows)
