"""Frames of coordinates: there and back again, for boxes and points, as numbers and in texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.dialects import DIALECTS, read_boxes, read_points, text_in
from fgrpo_jax.reading.frames import FRAMES_OF_BOXES, convert_box, extent
from fgrpo_jax.reading.parsing import moved, parse
from fgrpo_jax.records import ImageSize

SIDE = st.integers(1, 4000)
SIZES = st.builds(
    lambda w, h, scale, cells: ImageSize(w, h, 28 * cells[0], 28 * cells[1], max(1, w // scale), max(1, h // scale)),
    SIDE,
    SIDE,
    st.integers(1, 4),
    st.tuples(st.integers(1, 140), st.integers(1, 140)),
)
PAIRS = list(itertools.permutations(FRAMES_OF_BOXES, 2))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4), st.sampled_from(PAIRS))
def test_boxes_come_back_to_the_pixel(size, shares, frames):
    src, dst = frames
    width, height = extent(size, src)
    box = (shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
    back = convert_box(convert_box(box, size, src=src, dst=dst), size, src=dst, dst=src)
    assert back == pytest.approx(box, rel=1e-12, abs=1e-9)
    through = convert_box(convert_box(box, size, src=src, dst="unit"), size, src="unit", dst=dst)
    assert through == pytest.approx(convert_box(box, size, src=src, dst=dst), rel=1e-12, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    SIZES, st.lists(st.integers(0, 10_000), min_size=4, max_size=4), st.sampled_from(["original", "resized", "unit"])
)
def test_texts_come_back_to_half_a_pixel_of_the_coarser_frame(size, shares, dst):
    """What is written is rounded: by half a unit of the frame it is written in, four decimals of `unit` included."""
    width, height = extent(size, "processed")
    box = tuple(round(share / 10_000 * side) for share, side in zip(shares, (width, height) * 2, strict=True))
    text = f"The cup is at <bbox>[{','.join(map(str, box))}]</bbox>."
    there = text_in(text, size, dialect=DIALECTS["paper"], dst=dst)
    back = text_in(there, size, dialect=DIALECTS["paper"], src=dst, dst="processed")
    to = extent(size, dst)
    steps = [side / (10_000 if dst == "unit" else other) for side, other in zip((width, height), to, strict=True)]
    for axis, (was, now) in enumerate(zip(box, read_boxes(back)[0][0], strict=True)):
        assert abs(was - now) <= 0.5 * max(1.0, steps[axis % 2]) + 0.5 * (steps[axis % 2] > 1) + 1e-9
    if dst == "unit":  # of sides up to 10,000 pixels nothing is lost
        assert back.replace("-0", "0") == text


def test_the_five_frames_of_one_box():
    size = ImageSize(2000, 1000, 784, 392, 1000, 500)
    found = {frame: convert_box((200, 100, 1000, 500), size, src="original", dst=frame) for frame in FRAMES_OF_BOXES}
    assert found["resized"] == (100, 50, 500, 250) and found["thousand"] == (100, 100, 500, 500)
    assert found["unit"] == (0.1, 0.1, 0.5, 0.5) and found["processed"] == pytest.approx((78.4, 39.2, 392, 196))
    same = ImageSize(400, 100, 392, 112)  # nothing was resized beforehand
    assert convert_box((1, 2, 3, 4), same, src="original", dst="resized") == (1, 2, 3, 4)


SMALL = ImageSize(200, 100, 400, 200)


def test_points_in_a_text_move_and_nothing_else_does():
    text = "the cup (10, 20) of (a, b), in 1,2 and (1, 2, 3)"
    vigorl = DIALECTS["vigorl"]
    assert text_in(text, SMALL, dialect=vigorl, src="original", dst="processed") == text.replace("10, 20", "20, 40")
    assert read_points(text_in(text, SMALL, dialect=vigorl, dst="thousand"), dialect=vigorl) == ((25.0, 100.0),)
    assert text_in(text, SMALL, dialect=DIALECTS["paper"], dst="thousand") == text


# Forms in which models and data sets write boxes. <bbox> without brackets and with brackets: TreeVGR's and the paper's
# prompts. Fenced JSON with bbox_2d: Qwen2.5-VL's cookbook and om-ai-lab/VLM-R1, src/open_r1/grpo_jsonl.py (map_reward).
# '(x, y)' in the reasoning: Gabesarch/grounded-rl (ViGoRL). <sot>…<eot>: VGR.
FORMS = {
    "paper": (
        ("<bbox>10,20,30,40</bbox>", "<bbox>20,40,60,80</bbox>"),
        ("<bbox>[1e1, 2E1, 30, 40]</bbox>", "<bbox>[20, 40, 60, 80]</bbox>"),
        ("<bbox>[+10, 20.0, 30., 40]</bbox>", "<bbox>[20, 40, 60, 80]</bbox>"),
        ("<bbox>[[10,20,30,40]]</bbox>", "<bbox>[[20,40,60,80]]</bbox>"),
        ("""<bbox>["10", '20', "30", "40"]</bbox>""", """<bbox>["20", '40', "60", "80"]</bbox>"""),
        *((same, same) for same in ("[10,20,30,40]", "(10, 20)", "<bbox>[10,20,30]</bbox>", "<box>[1,2,3,4]</box>")),
        *((same, same) for same in ("<bbox>[1,2,3,4,5]</bbox>", "<bbox>[[1,2],[3,4]]</bbox>", "<bbox>[1,2,3,4</bbox>")),
        *((same, same) for same in ("<bbox>['1,2,3,4]</bbox>", "<bbox>[1,2,3,1e999]</bbox>")),
    ),
    "treevgr": (("<box>[10,20,30,40]</box>", "<box>[20,40,60,80]</box>"),),
    "vigorl": (("near (10, 20.5)", "near (20, 41)"), ("f(10, 20, 30)", "f(10, 20, 30)")),
    "vlm_r1": (
        (
            '```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "cup 1, 2, 3, 4"}]\n```',
            '```json\n[{"bbox_2d": [20, 40, 60, 80], "label": "cup 1, 2, 3, 4"}]\n```',
        ),
        ('{"bbox": [[10, 20, 30, 40]]}', '{"bbox": [[20, 40, 60, 80]]}'),
        ('{"bbox_2d": ["10", "20", "30", "40"]}', '{"bbox_2d": ["20", "40", "60", "80"]}'),
        *((same, same) for same in ('{"scores": [10, 20, 30, 40]}', "[10, 20, 30, 40]")),
    ),
}


@pytest.mark.parametrize(("name", "form", "there"), [(n, *pair) for n, pairs in FORMS.items() for pair in pairs])
def test_what_rewards_read_as_boxes_and_points_is_moved_and_nothing_else(name, form, there):
    dialect = DIALECTS[name]
    response, wanted = (f"<think>See {part} and 7.</think><answer>A</answer>" for part in (form, there))
    assert moved(response, SMALL, dialect=dialect, src="original", dst="processed") == wanted
    was, now = (parse(text, dialect=dialect) for text in (response, wanted))
    found = [*(n for box in was.boxes for n in box), *(n for point in was.points for n in point)]
    assert [*(n for box in now.boxes for n in box), *(n for point in now.points for n in point)] == [
        2 * n for n in found
    ]
    assert bool(found) == (form != there)  # what rewards read moved, and what they do not read stood still


def test_of_an_answer_only_marked_boxes_move():
    text = "<think>At (10, 20).</think><answer>(3, 4)</answer>"
    there = moved(text, SMALL, dialect=DIALECTS["vigorl"], src="original", dst="processed")
    assert there == "<think>At (20, 40).</think><answer>(3, 4)</answer>"
    text = '<think>x</think><answer>{"bbox_2d": [10, 20, 30, 40]}</answer>'
    there = moved(text, SMALL, dialect=DIALECTS["vlm_r1"], src="original", dst="processed")
    assert there == '<think>x</think><answer>{"bbox_2d": [20, 40, 60, 80]}</answer>'
    text = "<think>At <sot>[50, 25, 100, 50]<eot>.</think><answer>B</answer>"  # pixels become shares of the sides
    there = moved(text, SMALL, dialect=DIALECTS["vgr"], src="original", dst="unit")
    assert there == text.replace("50, 25, 100, 50", "0.2500, 0.2500, 0.5000, 0.5000")


def test_an_image_without_pixels_has_no_boxes():
    with pytest.raises(ValueError, match="image of 0x0 pixels has no boxes"):
        convert_box((0, 0, 1, 1), ImageSize(0, 0, 0, 0), src="processed", dst="unit")
    with pytest.raises(ValueError, match="unknown frame of boxes 'pixels'"):
        convert_box((0, 0, 1, 1), ImageSize(1, 1, 28, 28), src="pixels", dst="unit")
