"""Rollouts a step ahead (`rollout.ahead`): what is stale is corrected and counted, and a restart changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import policies
import pytest
import runs

from fgrpo_jax import train
from fgrpo_jax.training import metrics, setup, stages

STEPS = 4
AHEAD: dict[str, Any] = {"rollout__ahead": 1, "algorithm__importance_cap": 2.0, "rollout__batch_prompts": 4}
AHEAD |= {"eval__examples": 0, "log__tensorboard": False, "num_steps": STEPS}


UNCORRECTED = {"rollout__ahead": 1}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick() as patch:
        patch.setattr(stages, "score", runs.earning(stages.score))
        yield


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("ahead") / "whole"
    code, _, err = runs.run(train, workdir, tiny_hf, **AHEAD)
    assert code == 0, err
    return workdir


def test_all_but_the_first_rollouts_are_of_the_step_before_and_weighed_for_it(whole: Path) -> None:
    rows = runs.rows(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["rollout/staleness"] for row in rows] == [0, 1, 1, 1]
    assert set(metrics.AHEAD) <= set(rows[0])
    assert rows[0]["sampler/logp_diff_max"] < 1e-4 and abs(rows[0]["importance/mean"] - 1) < 1e-4
    for row in rows[1:]:
        assert row["sampler/logp_diff_max"] > 1e-3, "the learner's policy is another than the sampler's"
        assert row["importance/ess"] < 1 - 1e-7


def test_rollouts_under_way_are_saved_and_a_killed_run_goes_on_bit_for_bit(
    whole: Path, tiny_hf: Path, tmp_path: Path
) -> None:
    kept = {step: (whole / "checkpoints" / str(step) / "ahead").is_dir() for step in range(1, STEPS + 1)}
    assert kept == {1: True, 2: True, 3: True, 4: False}
    workdir = tmp_path / "w"
    shutil.copytree(whole, workdir)
    for step in ("3", "4"):
        shutil.rmtree(workdir / "checkpoints" / step)
    code, _, err = runs.run(train, workdir, tiny_hf, **AHEAD)
    assert code == 0, err
    assert runs.rows(workdir) == runs.rows(whole)
    policy = setup.policy(config := policies.config(tiny_hf))
    target = setup.learner(config, policy).init(policy.load("float32"))
    (ours, our_meta), (theirs, their_meta) = runs.arrays(workdir, target), runs.arrays(whole, target)
    runs.same(ours, theirs)
    assert int(ours.step) == STEPS and our_meta.data == their_meta.data
    texts = [{p.name: p.read_text() for p in w.glob("rollouts/*.jsonl")} for w in (workdir, whole)]
    assert texts[0] == texts[1] and len(texts[0]) == STEPS


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (UNCORRECTED, r"rollout\.ahead=1 .* set config\.algorithm\.importance_cap"),
        ({"algorithm__filter_dead": True}, r"rollout\.ahead=1 .* config\.algorithm\.filter_dead=True"),
        ({"rollout__ahead": 2}, r"rollout\.ahead"),
    ],
)
def test_what_it_does_not_go_with_is_refused(tiny_hf: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        policies.config(tiny_hf, **(fields if fields is UNCORRECTED else {**AHEAD, **fields}))
