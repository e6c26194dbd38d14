"""Frames of coordinates: there and back again, for boxes and points, as numbers and in texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.dialects import DIALECTS, read_boxes, read_points, text_in
from fgrpo_jax.reading.frames import FRAMES_OF_BOXES, convert_box, convert_in_text, extent
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
    there = convert_in_text(text, size, src="processed", dst=dst)
    back = convert_in_text(there, size, src=dst, dst="processed")
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


def test_points_in_a_text_move_and_nothing_else_does():
    size = ImageSize(200, 100, 400, 200)
    text = "the cup (10, 20) of (a, b), in 1,2 and (1, 2, 3)"
    moved = convert_in_text(text, size, src="original", dst="processed", points=True)
    assert moved == "the cup (20,40) of (a, b), in 1,2 and (1, 2, 3)"
    both = convert_in_text(f"[10,20,30,40] {text}", size, src="original", dst="processed", points=True)
    assert both == f"[20,40,60,80] {moved}" and convert_in_text(text, size, src="original", dst="unit") == text
    vigorl = DIALECTS["vigorl"]
    assert read_points(text_in(text, size, dialect=vigorl, dst="thousand"), dialect=vigorl) == ((25.0, 100.0),)
    assert text_in(text, size, dialect=DIALECTS["paper"], dst="thousand") == text


def test_an_image_without_pixels_has_no_boxes():
    with pytest.raises(ValueError, match="image of 0x0 pixels has no boxes"):
        convert_box((0, 0, 1, 1), ImageSize(0, 0, 0, 0), src="processed", dst="unit")
    with pytest.raises(ValueError, match="unknown frame of boxes 'pixels'"):
        convert_box((0, 0, 1, 1), ImageSize(1, 1, 28, 28), src="pixels", dst="unit")
