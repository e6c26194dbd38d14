"""Dialects: what a response of each family of models says, and that reading any text in any of them is total."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.dialects import (
    DIALECTS,
    PAPER,
    Dialect,
    boxes_in,
    find_dialect,
    in_paper_notation,
    text_in,
)
from fgrpo_jax.reading.parsing import answer_index, answer_text, open_answer, parse
from fgrpo_jax.records import ImageSize

OPTIONS = ("red circle", "blue square", "A cat")
SIZE = ImageSize(200, 100, 392, 196)

# dialect, text, (format_ok, think, answer index, boxes, points)
READ = [
    (
        "paper",
        "<think>See <bbox>[1,2,3,4]</bbox>.</think><answer>B</answer>",
        (True, "See <bbox>[1,2,3,4]</bbox>.", 1, ((1, 2, 3, 4),), ()),
    ),
    ("direct", "B", (False, "", 1, (), ())),
    ("direct", "blue square.", (False, "", 1, (), ())),
    ("direct", "", (False, "", None, (), ())),
    (
        "cot",
        "The blue square is nearer.\nSo it must be that one. The answer is (B).",
        (False, "The blue square is nearer.\nSo it must be that one.", 1, (), ()),
    ),
    ("cot", "It is blue. It has four sides: a blue square.", (False, "It is blue.", 1, (), ())),
    ("cot", "It is the blue square. I am sure.", (False, "It is the blue square.", 1, (), ())),
    ("cot", "Answer: B", (False, "", 1, (), ())),
    ("cot", "<think>It is.</think><answer>A</answer>", (True, "It is.", 0, (), ())),
    ("cot", "Hard to say", (False, "", None, (), ())),
    (
        "vigorl",
        "<think>The cup (12, 34) is left of the pen (50.5,60).</think>\n<answer>blue square</answer>",
        (True, "The cup (12, 34) is left of the pen (50.5,60).", 1, (), ((12, 34), (50.5, 60))),
    ),
    (
        "treevgr",
        "The cup <box>[1,2,3,4]</box> is red.</think><answer>A</answer>",
        (True, "The cup <box>[1,2,3,4]</box> is red.", 0, ((1, 2, 3, 4),), ()),
    ),
    ("treevgr", "<think>x</think><answer>A</answer>", (True, "x", 0, (), ())),
    (
        "vlm_r1",
        '<think>There.</think><answer>```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "cup"}]\n```</answer>',
        (True, "There.", None, ((1, 2, 3, 4),), ()),
    ),
    (
        "vgr",
        "<think>Look <sot>[0.1,0.2,0.30,0.4]<eot>.</think><answer>A</answer>",
        (True, "Look <sot>[0.1,0.2,0.30,0.4]<eot>.", 0, ((0.1, 0.2, 0.3, 0.4),), ()),
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), READ)
def test_responses_as_their_models_write_them(name, text, expected):
    parsed = parse(text, dialect=DIALECTS[name])
    assert (parsed.format_ok, parsed.think, answer_index(parsed, OPTIONS), parsed.boxes, parsed.points) == expected
    assert parsed.dialect is DIALECTS[name]


def test_marks_of_other_dialects_are_none():
    text = "<think>a <box>[1,2,3,4]</box> (5, 6) <sot>[0,0,1,1]<eot> {'bbox_2d': [1,2,3,4]}</think><answer>A</answer>"
    parsed = parse(text)
    assert parsed.boxes == () and parsed.points == () and parsed.malformed == 0
    assert parse(text, dialect=DIALECTS["treevgr"]).boxes == ((1, 2, 3, 4),)
    assert parse(text, dialect=DIALECTS["vlm_r1"]).boxes == ((1, 2, 3, 4),)
    assert parse(text.replace("[1,2,3,4]", "[1,2]"), dialect=DIALECTS["vlm_r1"]).malformed == 1


def test_boxes_reach_the_frame_the_policy_speaks():
    vgr = DIALECTS["vgr"]
    assert boxes_in(((0.5, 0.5, 1.0, 1.0),), SIZE, dialect=vgr) == ((196, 98, 392, 196),)
    boxes = ((1.0, 2.0, 3.0, 4.0),)
    assert boxes_in(boxes, ImageSize(0, 0, 0, 0), dialect=PAPER) is boxes  # nothing to move, even without an image
    original = boxes_in(((392, 0, 392, 196),), SIZE, dialect=DIALECTS["vlm_r1"], dst="original")
    assert original == ((200, 0, 200, 100),)
    assert text_in("at <sot>[0.5,0.5,1,1]<eot>", SIZE, dialect=vgr, dst="processed") == "at <sot>[196,98,392,196]<eot>"


def test_rules_can_read_the_boxes_of_every_dialect():
    written = {
        "treevgr": "The red circle is at <box>[1,2,3,4]</box>.",
        "vgr": "The red circle is at <sot>[1,2,3,4]<eot>.",
        "paper": "The red circle is at <bbox>[1,2,3,4]</bbox>.",
    }
    for name, sentence in written.items():
        assert in_paper_notation(sentence, DIALECTS[name]) == written["paper"]


def test_sentences_do_not_end_inside_coordinates():
    text = "The cup (1. ,\n2.) is red. So there"
    assert parse(f"<think>{text}</think>", dialect=DIALECTS["vigorl"]).sentences == (
        "The cup (1. ,\n2.) is red.",
        "So there",
    )


def test_a_dialect_that_says_nonsense_is_refused():
    with pytest.raises(ValueError, match="dialect 'x': notation='yaml'; known: bbox, box, json, sot"):
        Dialect("x", notation="yaml")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="unknown dialect 'papr'; one of paper, direct"):
        find_dialect("papr")
    assert all(dialect.name == name for name, dialect in DIALECTS.items())


def test_open_answers():
    assert open_answer(parse("<think>x</think><answer> 12 </answer>")) == "12"
    assert open_answer(parse("Two and ten. So the answer is 12.", dialect=DIALECTS["cot"])) == "12"
    assert open_answer(parse("The answer is: **1.5 m**. Sure.", dialect=DIALECTS["direct"])) == "1.5 m"
    assert open_answer(parse(r"thus \boxed{7}", dialect=DIALECTS["cot"])) == "7"
    assert open_answer(parse("")) is None


PIECES = st.sampled_from(
    (
        *("<think>", "</think>", "<answer>", "</answer>", "<bbox>", "</bbox>", "<box>", "</box>", "<sot>", "<eot>"),
        *('{"bbox_2d": [1,2,3,4]}', '"bbox_2d":', "[1,2,3,4]", "(1, 2)", "(1.5,", "[", "]", "1e999", "nan", "-", "."),
        *("the answer is", "B", "(A)", "a", "red circle", "not", "or", "yes", "\\boxed{", "}", "**", "\n", "é", "\x00"),
    )
)


@settings(max_examples=120, deadline=None)
@given(
    st.one_of(st.text(max_size=120), st.lists(PIECES, max_size=30).map(" ".join), st.lists(PIECES).map("".join)),
    st.sampled_from(list(DIALECTS.values())),
)
def test_any_text_in_any_dialect(text, dialect):
    parsed = parse(text, dialect=dialect)
    assert answer_index(parsed, OPTIONS) in (None, 0, 1, 2)
    assert all(len(box) == 4 for box in parsed.boxes) and all(len(point) == 2 for point in parsed.points)
    assert open_answer(parsed) is None or answer_text(parsed) is not None
    # Reading what was read changes nothing.
    again = parse(f"<think>{parsed.think}</think><answer>{parsed.answer or ''}</answer>", dialect=dialect)
    if "<" not in parsed.think + (parsed.answer or ""):
        assert again.think == parsed.think and again.sentences == parsed.sentences and again.points == parsed.points
    moved = text_in(text, SIZE, dialect=dialect, dst="unit")
    assert text_in(moved, SIZE, dialect=dataclasses.replace(dialect, frame="unit"), dst="unit") == moved


def test_a_hundred_thousand_characters_in_every_dialect():
    fillers = ("<box>", "<sot>[", '"bbox_2d": [', "(1, ", "(1,2)", "the answer is ", "a. ", "\\boxed{", "A or ")
    begin = time.process_time()
    for filler in fillers:
        text = filler * (100_000 // len(filler))
        for dialect in DIALECTS.values():
            answer_index(parse(text, dialect=dialect), OPTIONS)
    assert time.process_time() - begin < 0.1 * len(fillers) * len(DIALECTS)
