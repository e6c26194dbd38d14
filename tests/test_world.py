"""The built-in world: determinism, disjoint splits, balance, unambiguous questions, pictures that show their scene."""

from __future__ import annotations

import collections
import dataclasses
import re
import time

import numpy as np
import pytest

from fgrpo_jax.reading.words import SHAPES
from fgrpo_jax.records import Example, SceneObject
from fgrpo_jax.world.drawing import PALETTE, shape_mask
from fgrpo_jax.world.examples import World, split_of
from fgrpo_jax.world.relations import distance, holds, is_between, is_inside, offset
from fgrpo_jax.world.scenes import DIFFICULTIES, name_of
from fgrpo_jax.world.settings import FlawMix

SMALL = {"tiny": 150, "easy": 30, "hard": 8}


def same(a: Example, b: Example) -> bool:
    images = all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    return images and dataclasses.replace(a, images=()) == dataclasses.replace(b, images=())


@pytest.mark.parametrize("difficulty", SMALL)
def test_an_example_depends_on_its_index_only(difficulty):
    world, again = World(difficulty), World(difficulty)
    order = [7, 0, 3]
    first = {i: world.example(i) for i in order}
    for i in sorted(order):
        assert same(first[i], again.example(i))
    assert not same(world.example(1), world.example(2))
    assert not same(world.example(1), World(difficulty, split_seed=1).example(1))


def test_flaws_and_traces_leave_image_and_question_alone():
    plain, flawed = World("tiny", flawed=0.0), World("tiny", flawed=1.0)
    for index in range(50):
        sound, broken = plain.example(index), flawed.example(index)
        bare = plain.example(index, with_trace=False)
        assert bare.trace is None and sound.flaw == "none" and broken.flaw != "none"
        for other in (broken, bare):
            stripped = dataclasses.replace(other, trace=sound.trace, flaw=sound.flaw)
            assert same(stripped, sound)


def test_no_scene_is_in_two_splits():
    world = World("tiny")
    for split in ("train", "heldout", "validation"):
        for index in range(100):
            assert split_of(world.example(index, split=split).scene) == split


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown difficulty 'huge'"):
        World("huge")
    with pytest.raises(ValueError, match="unknown question families"):
        World("tiny", families={"colour": 1.0})
    with pytest.raises(ValueError, match="inside"):
        World("tiny", families={"inside": 1.0})
    with pytest.raises(ValueError, match="need none negative"):
        World("tiny", families={"nearest": 0.0})
    with pytest.raises(ValueError, match="flawed=1.5"):
        World("tiny", flawed=1.5)
    with pytest.raises(ValueError, match="split='test'"):
        World("tiny").example(0, split="test")


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_family_asks_of_every_difficulty(difficulty):
    for family in World(difficulty).families:
        example = World(difficulty, families={family: 1.0}).example(0)
        assert example.query is not None and example.query.family == family
        assert example.boxes and example.question.endswith("?")


def test_captions_point_at_everything_in_raster_order():
    example = World("tiny", families={"describe": 1.0}, flawed=1.0).example(0)
    assert example.options == () and example.answer == "done" and example.flaw == "none"
    assert example.trace.count("<bbox>") == len(example.scene.objects) == len(example.boxes)
    assert list(example.boxes) == sorted(example.boxes, key=lambda box: (box[1], box[0]))


def test_supervised_mix_has_the_share_of_captions_asked_for():
    families = World("tiny", captions=0.25).families
    assert families["describe"] / sum(families.values()) == pytest.approx(0.25)


def test_answers_are_balanced_in_every_family_and_form():
    for family in World("tiny").families:
        world = World("tiny", families={family: 1.0})
        letters: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
        texts: dict[bool, collections.Counter] = collections.defaultdict(collections.Counter)
        for index in range(SMALL["tiny"]):
            example = world.example(index, with_trace=False)
            right = "ABCD".index(example.answer)
            letters[len(example.options)][right] += 1
            yes_no = set(example.options) == {"yes", "no"}
            texts[yes_no][example.options[right]] += 1
        for count, counter in letters.items():
            total = sum(counter.values())
            # Four standard deviations of a fair draw.
            assert max(counter.values()) / total < 1 / count + 4 * (1 / count * (1 - 1 / count) / total) ** 0.5
        assert 0.25 < texts[True]["yes"] / sum(texts[True].values()) < 0.75
        if family in ("left_right", "above_below", "counting"):
            assert max(texts[False].values()) < 3 * min(texts[False].values())


def test_share_and_kinds_of_flaws():
    kinds = collections.Counter(World("tiny").example(index).flaw for index in range(800))
    assert 0.22 < 1 - kinds["none"] / 800 < 0.34
    assert kinds["lucky"] > kinds["contradicts_right"] > kinds["wrong_box"] > 0 < kinds["false_claim"]
    only = World("tiny", flawed=1.0, flaws=FlawMix(contradicts_right=0, lucky=0, wrong_box=1, false_claim=0))
    assert {only.example(index).flaw for index in range(20)} == {"wrong_box"}


@pytest.mark.parametrize("difficulty", SMALL)
def test_names_are_unique_and_boxes_lie_in_the_image(difficulty):
    for index in range(SMALL[difficulty]):
        scene = World(difficulty).example(index, with_trace=False).scene
        names = [name_of(thing) for thing in scene.objects]
        assert len(set(names)) == len(names) >= 3
        for thing in scene.objects:
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= scene.width and 0 <= y1 < y2 <= scene.height
            assert x2 - x1 == y2 - y1


def test_tiny_scenes_sit_on_cells_of_a_merged_token():
    low, high = DIFFICULTIES["tiny"].sides
    shapes = set()
    for index in range(SMALL["tiny"]):
        example = World("tiny").example(index, with_trace=False)
        height, width, _ = example.images[0].shape
        assert (width, height) == (example.scene.width, example.scene.height)
        assert width % 28 == 0 == height % 28 and low <= min(width, height) <= max(width, height) <= high
        shapes.add((width, height))
        for thing in example.scene.objects:
            inset = 7 if thing.size == "small" else 0
            assert thing.box[0] % 28 == inset == thing.box[1] % 28 and thing.box[2] - thing.box[0] == 28 - 2 * inset
    assert len(shapes) == ((high - low) // 28 + 1) ** 2


def _margin_of(example: Example, margin: float) -> bool:
    """Whether the question is clear: its fact holds by the margin of the difficulty."""
    boxes = {name_of(thing): thing.box for thing in example.scene.objects}
    query = example.query
    args = [boxes[name] for name in query.args if name in boxes]
    if query.family in ("left_right", "above_below", "compound"):
        others = args[1:] * 2
        return all(abs(offset(side, args[0], other)) >= margin
                   for side, other in zip(query.relation.split("+"), others, strict=False))  # fmt: skip
    if query.family in ("nearest", "farthest"):
        away = sorted(distance(args[0], box) for box in boxes.values() if box != args[0])
        return away[1] - away[0] >= margin if query.family == "nearest" else away[-1] - away[-2] >= margin
    if query.family == "between":
        return distance(args[0], args[1]) >= 2 * margin
    if query.family == "larger":
        return holds("larger", args[0], args[1]) != holds("smaller", args[0], args[1])
    return True


@pytest.mark.parametrize("difficulty", SMALL)
def test_questions_are_clear(difficulty):
    for family in World(difficulty).families:
        world = World(difficulty, families={family: 1.0})
        for index in range(max(5, SMALL[difficulty] // 10)):
            example = world.example(index, with_trace=False)
            assert _margin_of(example, DIFFICULTIES[difficulty].margin), example.question
            assert len(set(example.options)) == len(example.options) >= 2


@pytest.mark.parametrize("family", ["between", "inside"])
def test_of_several_options_one_fits(family):
    world = World("easy", families={family: 1.0}, yes_no=0.0)
    for index in range(25):
        example = world.example(index, with_trace=False)
        boxes = {name_of(thing): thing.box for thing in example.scene.objects}
        fixed = [boxes[name] for name in example.query.args]
        fits = [is_between(boxes[x], *fixed) if family == "between" else is_inside(boxes[x], *fixed)
                for x in example.options]  # fmt: skip
        assert fits == [letter == example.answer for letter in "ABCD"[: len(fits)]]


def test_pictures_show_the_objects():
    for index in range(40):
        example = World("tiny").example(index, with_trace=False)
        image = example.images[0].astype(int)
        for thing in example.scene.objects:
            x1, y1, x2, y2 = thing.box
            ink = shape_mask(thing.shape, x2 - x1)
            pixels = image[y1:y2, x1:x2]
            off = np.abs(pixels - np.array(PALETTE[thing.color])).max(axis=-1)
            assert off[ink].max() <= 16
            assert not ink.all() or thing.shape == "square"
            assert ink.all() or off[~ink].min() > 30


def test_the_backdrop_tells_the_place_and_no_object_colour():
    image = World("tiny").example(0, with_trace=False).images[0].astype(int)
    image = np.where((image[:, :, 1:2] == 110), image, -1)
    rows = [np.unique(image[:, x, 0][image[:, x, 0] >= 0]) for x in range(image.shape[1])]
    assert all(len(row) <= 1 for row in rows)  # red depends on x alone
    assert np.all(np.diff([row[0] for row in rows if len(row)]) >= 0)
    for name, color in PALETTE.items():
        away = [max(0, 70 - color[0], color[0] - 150), abs(color[1] - 110), max(0, 70 - color[2], color[2] - 150)]
        assert max(away) >= 40, name


def test_shapes_differ_strongly_even_when_small():
    masks = {shape: shape_mask(shape, 14) for shape in SHAPES[: DIFFICULTIES["tiny"].shapes]}
    for shape, mask in masks.items():
        assert mask.any(axis=0).all() and mask.any(axis=1).all(), f"{shape} does not fill its box"
        for other, against in masks.items():
            assert shape == other or (mask != against).mean() > 0.15
    for side in (14, 21, 28, 46, 101):
        for shape in SHAPES:
            mask = shape_mask(shape, side)
            assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
    with pytest.raises(AssertionError, match="unknown shape"):
        shape_mask("blob", 14)


def test_traces_have_the_papers_format():
    pattern = r"<think>(The \w+ \w+ is at <bbox>\[\d+,\d+,\d+,\d+\]</bbox>\. )+[^<]+\.</think><answer>[^<]+</answer>"
    for index in range(100):
        example = World("tiny", flawed=0.0).example(index)
        assert re.fullmatch(pattern, example.trace), example.trace
        named = re.findall(r"\[(\d+),(\d+),(\d+),(\d+)\]", example.trace)
        assert [tuple(map(int, box)) for box in named] == list(example.boxes)


def test_scene_objects_name_what_they_are():
    assert name_of(SceneObject("red", "circle", "small", (0, 0, 14, 14))) == "red circle"


def test_an_example_takes_milliseconds():
    world = World("tiny")
    world.example(0)
    best = min(_seconds(world, start) for start in (0, 100, 200))
    assert best < 0.02, f"{best * 1e3:.1f} ms an example"


def _seconds(world: World, start: int) -> float:
    begin = time.process_time()
    for index in range(start, start + 50):
        world.example(index)
    return (time.process_time() - begin) / 50
