"""R_G: CIoU on hand-computed boxes, and the assignment."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rewards_score import judge_one

from fgrpo_jax.reading.frames import iou
from fgrpo_jax.records import ImageSize
from fgrpo_jax.rewards.grounding import ciou, mean_iou, pair_score, spatial
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.world.examples import World
from fgrpo_jax.world.oracle import Oracle

A = (0.0, 0.0, 10.0, 10.0)


def test_identical_boxes_score_exactly_one():
    for box in (A, (3.5, 1.0, 4.0, 90.0), (0.0, 0.0, 1e-3, 1e3)):
        assert ciou(box, box) == 1.0
        assert spatial([box], [box]) == 1.0


def test_hand_values():
    # Shifted by half: IoU 50/150, centres 5 apart, enclosing box 15 x 10, same aspect.
    assert ciou(A, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3 - 25 / 325, abs=1e-12)
    # Touching corners: no overlap, centres 10√2 apart, enclosing box 20 x 20.
    assert ciou(A, (10.0, 10.0, 20.0, 20.0)) == pytest.approx(-200 / 800, abs=1e-12)
    # Same centre, 10x10 in 20x10: IoU 1/2, v from the aspects 1 and 2.
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    assert ciou((0.0, 0.0, 20.0, 10.0), (5.0, 0.0, 15.0, 10.0)) == pytest.approx(0.5 - v * v / (0.5 + v), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(0.1, 100)] * 2), min_size=2, max_size=2))
def test_range_and_symmetry(pair):
    a, b = ((x, y, x + w, y + h) for x, y, w, h in pair)
    assert -1.5 < ciou(a, b) <= 1.0
    assert ciou(a, b) == pytest.approx(ciou(b, a), abs=1e-9)
    assert ciou(a, b) <= iou(a, b) + 1e-9


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.0, 5.0), (5.0, 5.0, 1.0, 9.0)])
def test_boxes_without_area_match_nothing(box):
    with pytest.raises(ValueError, match="has no area"):
        ciou(A, box)
    assert spatial([box], [A]) == 0.0
    assert spatial([A, box], [A]) == 0.5  # but count as predictions


def test_scores_are_mapped_to_the_unit_interval():
    assert pair_score(-0.4, mapping="clamp") == 0.0 and pair_score(0.4, mapping="clamp") == 0.4
    assert pair_score(-1.2, mapping="shift") == 0.0 and pair_score(0.4, mapping="shift") == 0.7
    with pytest.raises(ValueError, match="unknown box score mapping 'abs'"):
        pair_score(0.1, mapping="abs")


def test_counts_of_boxes_that_differ():
    b = (50.0, 50.0, 60.0, 60.0)
    assert spatial([], [A]) == 0.0
    assert spatial([A], [A, b]) == 0.5
    assert spatial([A, A, A], [A]) == pytest.approx(1 / 3)
    assert spatial([A, A, A], [A], dedupe=True) == 1.0
    assert spatial([b, A], [A, b]) == 1.0
    with pytest.raises(ValueError, match="not applicable"):
        spatial([A], [])


NO_BOXES = (
    (math.nan, 0.0, 5.0, 5.0),
    (0.0, 0.0, math.inf, 5.0),
    (-math.inf, 0.0, 5.0, 5.0),
    (0.0, 0.0, 1e200, 1e200),  # finite, but its square is not
    (0.0, 0.0, 1e308, 1e308),
    (5.0, 0.0, 5.0, 5.0),
    (5.0, 5.0, 0.0, 0.0),
)


@pytest.mark.parametrize("mapping", ["clamp", "shift"])
@pytest.mark.parametrize("box", NO_BOXES)
def test_what_is_no_box_counts_as_a_prediction_and_matches_nothing(box, mapping):
    assert spatial([box], [A], mapping=mapping) == 0.0
    assert spatial([box, A], [A], mapping=mapping) == 0.5
    assert spatial([A, box, box], [A], mapping=mapping, dedupe=True) == 0.5
    assert mean_iou([box, A], [A]) == 0.5


def test_boxes_out_of_the_image_are_taken_as_they_are():
    """No clipping: it would make a box that covers everything as good as one that covers the image."""
    inside, beyond = spatial([(0.0, 0.0, 20.0, 20.0)], [A]), spatial([(-10.0, -10.0, 20.0, 20.0)], [A])
    assert 0.0 < beyond < inside < 1.0
    assert spatial([(-50.0, -50.0, -40.0, -40.0)], [A]) == 0.0
    assert 0.0 < spatial([(-50.0, -50.0, -40.0, -40.0)], [A], mapping="shift") < 0.5  # CIoU below 0 still tells


def test_repeats_and_dedupe_in_both_mappings():
    for mapping in ("clamp", "shift"):
        assert spatial([A, A], [A, A], mapping=mapping) == 1.0  # the gold set may hold one box twice
        assert spatial([A, A], [A], mapping=mapping, dedupe=True) == 1.0
        assert spatial([A, A], [A], mapping=mapping) == 0.5
    assert spatial([], [A], dedupe=True) == 0.0 and mean_iou([], [A]) == 0.0


def test_the_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(30):
        n, m = rng.integers(1, 5, size=2)
        corners = rng.uniform(0, 20, size=(n + m, 2))
        boxes = [
            (x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, rng.uniform(2, 20, size=(n + m, 2)), strict=True)
        ]
        predicted, gold = boxes[:n], boxes[n:]
        scores = np.array([[pair_score(ciou(p, g), mapping="clamp") for g in gold] for p in predicted])
        if n > m:
            scores = scores.T
        best = max(
            sum(scores[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(scores.shape[1]), scores.shape[0])
        )
        assert spatial(predicted, gold) == pytest.approx(best / max(n, m), abs=1e-12)


def test_a_greedy_assignment_would_lose():
    gold = [(0.0, 0.0, 10.0, 10.0), (6.0, 0.0, 16.0, 10.0)]
    predicted = [(4.0, 0.0, 14.0, 10.0), (7.0, 0.0, 17.0, 10.0)]
    straight = (ciou(predicted[0], gold[0]) + ciou(predicted[1], gold[1])) / 2
    assert spatial(predicted, gold) == pytest.approx(straight, abs=1e-12)
    assert mean_iou(predicted, gold) == pytest.approx((6 / 14 + 9 / 11) / 2, abs=1e-12)


@pytest.mark.parametrize(
    "numbers", ["0,0,1e200,1e200", "-1e308,0,1e308,9", "1e300,1e300,1e301,1e301", "1e-300,0,2e-300,1"]
)
def test_a_rollout_with_monstrous_boxes_is_scored(numbers):
    """Through the whole of scoring: parsing, the oracle, consistency from boxes, CIoU."""
    rules = Dispatcher(oracle=Oracle())
    for index, family in enumerate(("left_right", "larger", "nearest", "between", "inside")):
        example = World("easy", families={family: 1.0}).example(index, with_trace=False)
        names = [f"{thing.color} {thing.shape}" for thing in example.scene.objects]
        claims = " ".join(f"The {name} is at <bbox>[{numbers}]</bbox>." for name in names)
        size = ImageSize(example.scene.width, example.scene.height, 280, 280)
        judged = judge_one(example, f"<think>{claims}</think><answer>A</answer>", size, judges=rules)
        assert judged.spatial == 0.0 and judged.semantic == 0.0
