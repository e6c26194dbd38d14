"""A fourth constraint from a config, with every kind of memory a multiplier may have: trained, stopped and resumed.

The same run draws from a truncated distribution and corrects for it, so that one program serves both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
import runs

from fgrpo_jax import train
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import metrics, setup, stages

FILE = policies.ROOT / "configs" / "response_length.py"
NAME = "constraint/response_length"
FIELDS: dict[str, Any] = {
    "eval__examples": 0,
    "log__tensorboard": False,
    "rollout__top_p": 0.8,
    "algorithm__importance_cap": 2.0,
    "constraints__response_length__threshold": 4.0,
    "constraints__response_length__lr": 0.01,
    "constraints__consistency__rule": "pid",
    "constraints__consistency__kp": 0.5,
    "constraints__consistency__kd": 0.5,
    "constraints__semantic_grounding__rule": "exponential",
    "constraints__semantic_grounding__window": 2,
    "constraints__spatial_grounding__delay": 1,
    "constraints__spatial_grounding__max": 1.0,
    "constraints__spatial_grounding__threshold": 0.99,
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick() as patch:
        patch.setattr(policies, "BASE", FILE)
        yield


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of four steps. Nothing earns anything but its length here: a random policy says nothing."""
    workdir = tmp_path_factory.mktemp("length") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "score", partly_earning(stages.score))
        with pytest.warns(UserWarning, match="constraint 'spatial_grounding' is violated .* probably infeasible"):
            code, _, err = runs.run(train, workdir, tiny_hf, num_steps=4, **FIELDS)
    assert code == 0, err
    return workdir


def partly_earning(score: Any) -> Any:
    """Rewards drawn from what was said (runs.earning), but the length as it is."""
    earning = runs.earning(score)

    def rewarded(*args: Any, **settings: Any) -> Any:
        (true, _), (signals, seen) = score(*args, **settings), earning(*args, **settings)
        row = [measure.signal for measure in settings["measures"]].index("response_length")
        signals.values[row], signals.mask[row] = true.values[row], true.mask[row]
        return signals, seen

    return rewarded


@pytest.mark.slow
def test_the_fourth_constraint_is_measured_and_moves(whole: Path) -> None:
    found = read_rows(whole / "metrics.jsonl")
    for row in found:
        assert row[f"{NAME}/mean"] == row["rollout/length"] and row[f"{NAME}/applicable"] == 32
        np.testing.assert_allclose(row[f"{NAME}/violation"], row[f"{NAME}/mean"] - 4.0, rtol=1e-6)
        assert row[f"{NAME}/violation"] > 0 and row["advantage/share/response_length"] is not None
    assert found[0][f"{NAME}/lambda"] == 0.0
    for before, after in itertools.pairwise(found):
        rise = after[f"{NAME}/lambda"] - before[f"{NAME}/lambda"]
        np.testing.assert_allclose(rise, 0.01 * before[f"{NAME}/violation"], rtol=1e-4)
    assert found[-1]["advantage/share/response_length"] >= 0
    saved = read_rows(whole / "rollouts" / "000001.jsonl")
    assert saved[0]["rollouts"][0]["response_length"] == saved[0]["rollouts"][0]["tokens"]


@pytest.mark.slow
def test_truncated_sampling_is_corrected_for_and_seen_in_the_metrics(whole: Path) -> None:
    """Weights are the probability of the kept set, between top_p and 1; the guard on log-probs lets them pass."""
    for row in read_rows(whole / "metrics.jsonl"):
        assert tuple(row)[-len(metrics.IMPORTANCE) :] == metrics.IMPORTANCE
        assert 0.8 < row["importance/mean"] < 0.999 and row["importance/max"] < 1.001
        assert row["importance/capped_share"] == 0 and 0.9 < row["importance/ess"] <= 1.0001
        assert row["sampler/logp_diff_max"] > 0.01


def test_saturation_is_a_metric(whole: Path) -> None:
    """Its bound is its initial value: it saturates as soon as its delay is over."""
    seen = [row["constraint/spatial_grounding/saturated"] for row in read_rows(whole / "metrics.jsonl")]
    assert seen[0] == 0 and seen[1] == 1


def test_what_the_rules_remember_is_resumed_bit_for_bit(whole: Path, tiny_hf: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "score", partly_earning(stages.score))
        for steps in (1, 2, 4):
            code, _, err = runs.run(train, tmp_path / "w", tiny_hf, num_steps=steps, **FIELDS)
            assert code == 0, err
    assert runs.rows(tmp_path / "w") == runs.rows(whole)
    overrides = policies.overrides(tiny_hf, **FIELDS)
    config = configs.load(files.load_config(FILE, overrides))
    policy = policies.policy(config)
    target = setup.learner(config, policy).init(policy.load("float32"))
    (ours, _), (theirs, _) = (runs.arrays(workdir, target) for workdir in (whole, tmp_path / "w"))
    runs.same(ours, theirs)
    assert ours.dual.sums.shape == (4, 1) and ours.dual.counts[0, 0] > 0
    assert np.isfinite(ours.dual.previous[0]) and ours.dual.integral[0] != 1.0
