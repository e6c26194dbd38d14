"""Scores of a batch: weights, masks, frames, diagnostics."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards import score as module
from fgrpo_jax.rewards.judges.dispatch import Case, Dispatcher
from fgrpo_jax.rewards.score import MEASURES, RewardConfig, score
from fgrpo_jax.rewards.signals import Judged, Measure
from fgrpo_jax.world.examples import World
from fgrpo_jax.world.oracle import Oracle

EXAMPLE = World("tiny", families={"left_right": 1.0}, flawed=0.0).example(0)
SIZE = ImageSize(EXAMPLE.scene.width, EXAMPLE.scene.height, EXAMPLE.scene.width, EXAMPLE.scene.height)
RIGHT = re.sub("<answer>.*</answer>", f"<answer>{EXAMPLE.answer}</answer>", EXAMPLE.trace)  # by its letter
WRONG = RIGHT.replace(f"<answer>{EXAMPLE.answer}", f"<answer>{'B' if EXAMPLE.answer == 'A' else 'A'}")
EMPTY = f"<think></think><answer>{EXAMPLE.answer}</answer>"
IDLE = f"<think>So the answer is {EXAMPLE.answer}.</think><answer>{EXAMPLE.answer}</answer>"
BROKEN = "no idea"
NAMES = [measure.signal for measure in MEASURES]


def rules() -> Dispatcher:
    """The judge of the built-in world."""
    return Dispatcher(oracle=Oracle())


def judge_one(example, text, size, *, config=None, judges=None) -> Judged:
    """All there is to know about one response, but for functions of the user's own."""
    config = RewardConfig() if config is None else config
    parsed = parse(text, dialect=config.dialect)
    (opinion,) = (Dispatcher() if judges is None else judges).judge([Case(example, parsed, size)])
    return module._judged(example, parsed, size, opinion, config=config)


def run(texts, example=EXAMPLE, size=SIZE, config=None, judges=None, **more):
    judges = rules() if judges is None else judges
    return score([example], [list(texts)], sizes=[size], config=config or RewardConfig(), judges=judges, **more)


def test_values_and_masks_of_one_group():
    signals, figures = run([RIGHT, WRONG, EMPTY, IDLE, BROKEN])
    np.testing.assert_array_equal(signals.accuracy, [[1, 0, 1, 1, 0]])
    np.testing.assert_array_equal(signals.format, [[1, 1, 1, 1, 0]])
    np.testing.assert_array_equal(signals.task, [[1, 0.5, 1, 1, 0]])
    np.testing.assert_array_equal(signals.mask[0], [[True, False, True, True, False]])  # consistency: right answers
    np.testing.assert_array_equal(signals.values[0], [[1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(
        signals.mask[1], [[True, False, False, False, False]]
    )  # semantic: and scored sentences
    np.testing.assert_array_equal(signals.values[1], [[1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(signals.mask[2], [[True] * 5])  # spatial: always, with gold boxes
    np.testing.assert_array_equal(signals.values[2], [[1, 1, 0, 0, 0]])
    # What the held-out table reads does not depend on the answer being right.
    np.testing.assert_array_equal(figures["consistent"], [[1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(figures["semantic"], [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(figures["iou"], [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(figures["no_claim"], [[False, False, True, True, True]])
    np.testing.assert_array_equal(figures["answered"], [[True, True, True, True, False]])
    assert figures["judge_failed"].sum() == 0 == figures["judge_abstained"].sum()


def test_dtypes_and_shapes():
    signals, figures = score([EXAMPLE] * 3, [[RIGHT, WRONG]] * 3, sizes=[SIZE] * 3, config=RewardConfig())
    for name in ("task", "accuracy", "format"):
        assert getattr(signals, name).dtype == np.float32 and getattr(signals, name).shape == (3, 2)
    assert signals.values.dtype == np.float32 and signals.mask.dtype == bool
    assert signals.values.shape == signals.mask.shape == (3, 3, 2)
    assert all(figure.shape == (3, 2) for figure in figures.values())


def test_constraints_come_in_the_order_asked_for():
    full, _ = run([RIGHT, WRONG])
    for names in (("spatial_grounding",), NAMES[::-1], ()):
        signals, _ = run([RIGHT, WRONG], measures=[Measure(name) for name in names])
        order = [NAMES.index(name) for name in names]
        np.testing.assert_array_equal(signals.values, full.values[order])
        np.testing.assert_array_equal(signals.mask, full.mask[order])
    with pytest.raises(ValueError, match="unknown constraints"):
        run([RIGHT], measures=[Measure("grace")])


def test_settings():
    weights = RewardConfig(accuracy_weight=0.25, format_weight=1.0)
    assert run([WRONG, RIGHT], config=weights)[0].task.tolist() == [[1.0, 1.25]]
    zero, _ = run([RIGHT, IDLE, WRONG], config=RewardConfig(no_claim="zero"))
    np.testing.assert_array_equal(zero.mask[1], [[True, True, False]])
    np.testing.assert_array_equal(zero.values[1], [[1, 0, 0]])
    silent, figures = run([RIGHT, IDLE], judges=Dispatcher(oracle=Oracle(), sentences=False))
    assert not silent.mask[1].any() and silent.mask[0].all() and not figures["no_claim"].any()
    for bad in ({"ciou_mapping": "abs"}, {"no_claim": "skip"}):
        with pytest.raises(ValueError, match="known:"):
            RewardConfig(**bad)


def test_box_settings_reach_the_score():
    box = "<bbox>" + RIGHT.split("<bbox>")[1].split("</bbox>")[0] + "</bbox>"
    doubled = RIGHT.replace("<think>", f"<think>Here is {box}. ")
    assert run([doubled])[0].values[2].item() == pytest.approx(2 / 3)
    assert run([doubled], config=RewardConfig(dedupe_boxes=True))[0].values[2].item() == 1.0
    away = RIGHT.replace(box, "<bbox>[1000,1000,1028,1028]</bbox>")
    clamped, shifted = run([away]), run([away], config=RewardConfig(ciou_mapping="shift"))
    assert clamped[0].values[2].item() == 0.5 < shifted[0].values[2].item()


def test_boxes_are_compared_in_the_processed_frame():
    double = ImageSize(SIZE.width, SIZE.height, 2 * SIZE.width, SIZE.height)
    here, _ = run([RIGHT], size=double)
    assert here.values[2].item() < 0.9 and here.values[1].item() < 1
    moved = RIGHT
    for x1, y1, x2, y2 in EXAMPLE.boxes:
        moved = moved.replace(f"[{x1},{y1},{x2},{y2}]", f"[{2 * x1},{y1},{2 * x2},{y2}]")
    there, _ = run([moved], size=double)
    assert there.values[2].item() == 1.0 == there.values[1].item()


def test_a_source_without_scene_boxes_or_structure():
    example = Example(id="n", images=(), question="?", options=("true", "false"), answer="A", source="nlvr")
    texts = [
        "<think>So the answer is A.</think><answer>A</answer>",
        "<think>There is a tower.</think><answer>A</answer>",
        "<think>So the answer is B.</think><answer>A</answer>",
        "<think></think><answer>A</answer>",
    ]
    signals, figures = run(texts, example=example)
    assert not signals.mask[1].any() and not signals.mask[2].any()
    np.testing.assert_array_equal(signals.mask[0], [[True, False, True, True]])  # the rules leave the second open
    np.testing.assert_array_equal(signals.values[0], [[1, 0, 0, 0]])
    np.testing.assert_array_equal(figures["judge_abstained"], [[0, 1, 0, 0]])
    assert not figures["judge_failed"].any(), "no model was asked"
    np.testing.assert_array_equal(figures["consistent_mask"], [[True, False, True, True]])
    boxed = dataclasses.replace(example, boxes=((0, 0, 10, 10),))
    assert run(texts, example=boxed, size=ImageSize(400, 100, 392, 112))[0].mask[2].all()


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 examples, 1 groups"):
        score([EXAMPLE] * 2, [[RIGHT]], sizes=[SIZE] * 2, config=RewardConfig())
    with pytest.raises(ValueError, match="groups of one size"):
        score([EXAMPLE] * 2, [[RIGHT], [RIGHT, RIGHT]], sizes=[SIZE] * 2, config=RewardConfig())
    with pytest.raises(ValueError, match="none of its 2 options"):
        run([RIGHT], example=dataclasses.replace(EXAMPLE, answer="E"))


def test_what_is_known_of_one_response():
    judged = judge_one(EXAMPLE, RIGHT.replace("The ", "Shiny ", 1), SIZE, judges=rules())
    assert judged.unread == 1 and judged.verdicts[0].name == "INCORRECT" and judged.semantic < 1
    assert judge_one(EXAMPLE, BROKEN, SIZE).malformed == 0


def test_nobody_knows_a_scene_unless_an_oracle_is_given():
    signals, figures = score([EXAMPLE], [[RIGHT]], sizes=[SIZE], config=RewardConfig())
    assert not signals.mask[1].any() and not figures["judged"].any()
