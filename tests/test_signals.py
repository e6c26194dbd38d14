"""The registry of signals: what each reads, where it counts, and what a reward makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from test_rewards_score import EMPTY, EXAMPLE, IDLE, RIGHT, SIZE, WRONG, judge_one, rules

from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.rewards.signals import SIGNALS, Measure, overlong_penalty

TEXTS = [RIGHT, WRONG, EMPTY, IDLE]
LENGTHS, FINISHED = np.array([[40, 60, 96, 100]]), np.array([[True, True, True, False]])


def scored(*measures: Measure, **settings):
    known = {"lengths": LENGTHS, "finished": FINISHED, "sizes": [SIZE], "judges": rules()}
    return score([EXAMPLE], [TEXTS], measures=measures, config=RewardConfig(window=100, **settings), **known)[0]


def test_every_signal_is_a_number_in_its_range_or_not_applicable() -> None:
    signals = scored(*map(Measure, SIGNALS), overlong_cache=10)
    assert signals.values.shape == (len(SIGNALS), 1, 4)
    for row, (name, signal) in enumerate(SIGNALS.items()):
        values = signals.values[row][signals.mask[row]]
        assert values.size, f"{name} applies to none of four responses"
        assert ((signal.low <= values) & (values <= signal.high)).all(), name


def test_lengths_are_the_samplers() -> None:
    signals = scored(Measure("response_length"), Measure("truncated"), Measure("overlong"), overlong_cache=10)
    np.testing.assert_array_equal(signals.values[0], LENGTHS)
    np.testing.assert_array_equal(signals.values[1], [[0, 0, 0, 1]])
    np.testing.assert_allclose(signals.values[2], [[0, 0, -0.6, -1]], rtol=1e-6)
    unknown, _ = score([EXAMPLE], [TEXTS], sizes=[SIZE], config=RewardConfig(), measures=[Measure("response_length")])
    assert not unknown.mask.any()


def test_mask_rules() -> None:
    """RIGHT, EMPTY and IDLE answer right; consistency by its own rule holds right answers only."""
    names = ("consistency", "spatial_grounding", "response_length")
    measures = [Measure(name, rule) for name in names for rule in ("own", "correct", "all")]
    mask = scored(*measures).mask[:, 0].astype(int).reshape(3, 3, 4).tolist()
    right, every = [1, 0, 1, 1], [1, 1, 1, 1]
    assert mask[0][:2] == [right, right] and mask[0][2] == every
    assert mask[1:] == [[every, right, every]] * 2


def test_weights_add_to_the_task_reward() -> None:
    plain, weighed = scored(), scored(weights={"response_length": -0.01, "semantic_grounding": 0.5})
    grounded = np.array([[1, 0, 0, 0]])  # every claim of the wrong answer is true, but it applies to right ones only
    np.testing.assert_allclose(weighed.task, plain.task - 0.01 * LENGTHS + 0.5 * grounded, rtol=1e-6)
    with pytest.raises(ValueError, match=r"unknown rewards \['length'\]"):
        RewardConfig(weights={"length": 1.0})


def test_soft_overlong_penalty() -> None:
    found = [overlong_penalty(n, window=100, cache=20) for n in (0, 80, 81, 90, 100)]
    np.testing.assert_allclose(found, [0, 0, -0.05, -0.5, -1])
    assert overlong_penalty(100, window=100, cache=0) == 0
    assert np.isnan(judge_one(EXAMPLE, RIGHT, SIZE).overlong)
