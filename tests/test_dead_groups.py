"""Groups without signal: what is one, drawing others in their place, and a run that does so, stopped and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
import runs

from fgrpo_jax import train
from fgrpo_jax.data.prompts import count_occurrences
from fgrpo_jax.rewards.groups import constant, dead
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import collect, setup, stages

STEPS, M, G = 3, 8, 4
FIELDS: dict[str, Any] = {"eval__examples": 0, "log__tensorboard": False, "algorithm__filter_dead": True}


# ------------------------------------------------------------------------------------------------------ what is dead
@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("group", [5, 8, 16])
def test_constant_is_a_range_test(value: float, group: int) -> None:
    flat = np.full((1, group), value, np.float32)
    assert constant(flat, np.ones((1, group), bool)).all()
    flat[0, 0] = np.nextafter(np.float32(value), np.float32(1))
    assert not constant(flat, np.ones((1, group), bool)).any()


def test_constant_reads_applicable_members_only() -> None:
    values = np.array([[1, 1, 9, 9], [1, 2, 9, 9], [1, 9, 9, 9], [9, 9, 9, 9], [np.nan, 1, 9, 9]], np.float32)
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    assert constant(values, mask).tolist() == [True, False, True, True, False]


def test_dead_only_when_the_reward_and_every_constraint_in_force_are_constant() -> None:
    reward = np.array([[1, 1], [1, 1], [0, 1], [1, 1]], np.float32)
    values = np.array([[[1, 1], [0, 1], [1, 1], [1, 1]], [[1, 1], [1, 1], [1, 1], [0, 1]]], np.float32)
    mask = np.ones(values.shape, bool)
    assert dead(reward, values, mask, in_force=(True, True)).tolist() == [True, False, False, False]
    assert dead(reward, values, mask, in_force=(True, False)).tolist() == [True, False, False, True]
    assert dead(reward, values, mask, in_force=(False, False)).tolist() == [True, True, False, True]


def test_which_constraints_are_in_force(tiny_hf: Path) -> None:
    policy = setup.policy(policies.config(tiny_hf))

    def of(**fields: Any) -> tuple[bool, ...]:
        return setup.learner(policies.config(tiny_hf, **fields), policy).in_force

    assert of() == (True, True, True)
    assert of(constraints__consistency__enabled=False) == (False, True, True)
    assert of(algorithm__aggregation="grpo") == (False, False, False)
    assert of(algorithm__aggregation="gdpo", constraints__consistency__weight=0.0) == (False, True, True)


def test_noise_never_comes_twice_in_a_step() -> None:
    """Occurrences of all draws together are those of one long batch."""

    @dataclasses.dataclass
    class Prompts:
        prompt_id: np.ndarray
        occurrence: np.ndarray

        def replace(self, **fields: Any) -> Any:
            return dataclasses.replace(self, **fields)

    draws = [[1, 2, 1], [3, 1, 2], [1, 1, 4]]
    ids = [np.array(draw, np.uint32) for draw in draws]
    found: list[int] = []
    for index, draw in enumerate(ids):
        prompts: Any = Prompts(draw, count_occurrences(draw.tolist()))
        found += collect.redrawn(prompts, ids[:index]).occurrence.tolist()
    assert found == count_occurrences(np.concatenate(ids).tolist()).tolist()


# ------------------------------------------------------------------------------------------------- a run that filters
@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


def run(monkeypatch: pytest.MonkeyPatch, workdir: Path, hf: Path, score: Any, **fields: Any) -> list[dict[str, Any]]:
    with monkeypatch.context() as patch:
        patch.setattr(stages, "score", score)
        code, _, err = runs.run(train, workdir, hf, **FIELDS, **fields)
    assert code == 0, err
    return runs.rows(workdir)


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("dead") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        run(patch, workdir, tiny_hf, runs.half_dead(stages.score), num_steps=STEPS)
    return workdir


def test_dead_groups_are_replaced_by_live_ones_of_the_prompts_that_follow(whole: Path, tiny_hf: Path) -> None:
    data = setup.training_batches(policies.config(tiny_hf), setup.policy(policies.config(tiny_hf)))
    taken = 0
    for row in runs.rows(whole):
        lines = read_rows(whole / "rollouts" / f"{row['step']:06d}.jsonl")
        want, spare = list(next(data).examples), []
        taken += 1
        first_dead = sum(map(runs.is_dead, want))
        while any(map(runs.is_dead, want)) and taken < 99:
            spare = [example for example in next(data).examples if not runs.is_dead(example)]
            taken += 1
            for place, example in enumerate(want):
                if runs.is_dead(example) and spare:
                    want[place] = spare.pop(0)
        assert [line["id"] for line in lines] == [example.id for example in want]
        assert row["rollout/resampled"] == first_dead > 0 and row["rollout/dead_groups"] == 0
        assert row["sampler/logp_diff_max"] < 1e-4, "prompts, tokens and log-probs were replaced together"
    data.close()
    assert row["sampler/tokens"] > M * G * 8, "what was drawn and dropped was drawn all the same"
    config = policies.config(tiny_hf, algorithm__filter_dead=True)
    policy = policies.policy(config)
    _, meta = runs.arrays(whole, setup.learner(config, policy).init(policy.load("float32")))
    assert meta.data["batches_taken"] == taken


def test_the_multipliers_answer_to_the_batch_as_first_drawn(whole: Path) -> None:
    """Its dead groups are in the mean: a filtered batch is no sample of what the policy does."""
    for row in runs.rows(whole):
        first_dead = row["rollout/resampled"]
        assert row["constraint/consistency/applicable"] >= G * first_dead, "in dead groups here every mask is True"
        lines = read_rows(whole / "rollouts" / f"{row['step']:06d}.jsonl")
        learnt = [sample["consistency"] for line in lines for sample in line["rollouts"]]
        assert abs(np.mean([x for x in learnt if x is not None]) - row["constraint/consistency/mean"]) > 0.02


def test_stopped_and_resumed_equals_uninterrupted(
    whole: Path, tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in range(1, STEPS + 1):
        found = run(monkeypatch, tmp_path / "w", tiny_hf, runs.half_dead(stages.score), num_steps=steps)
    assert found == runs.rows(whole)
    config = policies.config(tiny_hf, algorithm__filter_dead=True)
    policy = policies.policy(config)
    target = setup.learner(config, policy).init(policy.load("float32"))
    (ours, our_meta), (theirs, their_meta) = (runs.arrays(w, target) for w in (whole, tmp_path / "w"))
    runs.same(ours, theirs)
    assert our_meta.data == their_meta.data


@pytest.mark.slow
def test_what_stays_dead_after_the_last_round_is_counted_and_the_run_goes_on(
    tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_dead(examples: Any, texts: Any, **settings: Any) -> Any:
        signals, seen = runs.earning(score)(examples, texts, **settings)
        signals.task[:], signals.values[:], signals.mask[:] = 0.7, 0.1, True
        return signals, seen

    score = stages.score
    (row,) = run(monkeypatch, tmp_path / "w", tiny_hf, all_dead, num_steps=1, algorithm__max_resample=2)
    assert row["rollout/dead_groups"] == M and row["rollout/resampled"] == 0
    assert row["loss/policy"] == 0 and row["optim/skipped"] == 0
    assert row["sampler/tokens"] > 2 * M * G * 8 * 0.9, "three draws"
