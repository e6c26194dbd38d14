"""The five stages of a step in their order, and what watches over the steps."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest

from fgrpo_jax import train
from fgrpo_jax.config.sections import Config
from fgrpo_jax.training.guards import Guards


class Recorder:
    """Stages that do nothing but remember what they were called with."""

    def __init__(self, *, dead: bool) -> None:
        self.dead, self.calls = dead, []

    def drawn(self, draw: Any) -> str:
        return draw(self)

    def data(self, params: str, earlier: Any) -> str:
        self.calls.append(("data", params, list(earlier)))
        return "prompts"

    def rollout(self, params: str, prompts: str) -> str:
        self.calls.append(("rollout", params, prompts))
        return "rollouts"

    def signals(self, prompts: str, rollouts: str) -> str:
        self.calls.append(("signals", prompts, rollouts))
        return f"scored {len(self.calls)}"

    def without_dead_groups(self, drawn: str, draw: Any) -> str:
        return draw(self, ["ids"]) if self.dead else drawn

    def learner(self, state: Any, reference: str, batch: str, *, drawn: str) -> tuple[str, str]:
        self.calls.append(("learner", reference, batch, drawn))
        return "new state", "learnt"

    def row(self, batch: str, learnt: str, *, drawn: str) -> str:
        self.calls.append(("row", batch, learnt, drawn))
        return "row"


@pytest.mark.parametrize("dead", [False, True])
def test_a_step_is_five_stages(dead: bool) -> None:
    stages: Any = Recorder(dead=dead)
    state: Any = types.SimpleNamespace(params="params")
    assert train.step(stages, state, "reference") == ("new state", "row")  # type: ignore[arg-type]
    draw = [("data", "params", []), ("rollout", "params", "prompts"), ("signals", "prompts", "rollouts")]
    again = [("data", "params", ["ids"]), *draw[1:]]
    batch = "scored 6" if dead else "scored 3"  # learnt from; the means and the multipliers are of the first draw
    learner, row = ("learner", "reference", batch, "scored 3"), ("row", batch, "learnt", "scored 3")
    assert stages.calls == [*draw, *(again if dead else []), learner, row]


@pytest.fixture(scope="module")
def config(tiny_hf: Path) -> Config:
    return policies.config(tiny_hf)


def rollouts(*logps: float) -> Any:
    mask = np.array([[[True] * len(logps) + [False]]])
    return types.SimpleNamespace(logps=np.array([[[*logps, 9.0]]], np.float32), mask=mask)


def test_two_models_stop_a_run_at_once_in_float32_and_else_after_some_steps(config: Config) -> None:
    same, other = rollouts(-0.5, -1.0), rollouts(-0.5, -3.0)
    with pytest.raises(
        ValueError, match=r"differ by 0\.318 \(max of the step\).* raise config\.rollout\.logp_max_stop"
    ):
        Guards(config).logps(same, other.logps)
    half = dataclasses.replace(config, model=dataclasses.replace(config.model, compute_dtype="bfloat16"))
    guard, patience = Guards(half), config.rollout.logp_patience
    for _ in range(patience - 1):
        with pytest.warns(UserWarning, match=r"differ by 0\.159 \(mean of the step\)"):
            assert guard.logps(same, other.logps)["sampler/logp_diff_max"] == 2.0
    guard.logps(same, same.logps)  # one good step, and counting begins anew
    for _ in range(patience - 1):
        with pytest.warns(UserWarning, match="differ by"):
            guard.logps(same, other.logps)
    with pytest.raises(ValueError, match=r"raise config\.rollout\.logp_mean_stop"):
        guard.logps(same, other.logps)


def test_masked_places_are_not_compared(config: Config) -> None:
    drawn = rollouts(-0.5, -1.0)
    logps = drawn.logps.copy()
    logps[..., -1] = -50
    assert Guards(config).logps(drawn, logps) == {"sampler/logp_diff_max": 0.0, "sampler/logp_diff_mean": 0.0}


def test_a_multiplier_at_its_bound_is_warned_of_once(config: Config) -> None:
    watch = Guards(config)
    watch.saturation([0, 0, 0])
    with pytest.warns(
        UserWarning, match=r"constraint 'semantic_grounding' .*config\.constraints\.semantic_grounding\.max"
    ) as said:
        watch.saturation([0, 1, 0])
        watch.saturation([0, 1, 0])
    assert len(said) == 1


def test_skipped_updates_and_a_failing_judge_are_trouble(config: Config) -> None:
    guards = Guards(config)
    assert guards.trouble(config.optim.max_skipped - 1) is None
    guards._judge_trouble = "the judge failed on 3 of 4 requests"
    assert "the judge failed on 3 of 4 requests; the last state is saved" in str(guards.trouble(0))
    assert "updates in a row had a gradient that is not finite" in str(guards.trouble(config.optim.max_skipped))
