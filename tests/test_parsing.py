"""Reading responses: the parsing battery, and that nothing a policy can write makes the reader raise or hang."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgrpo_jax.reading.answers import choose
from fgrpo_jax.reading.dialects import DIALECTS, read_boxes
from fgrpo_jax.reading.parsing import answer_index, parse
from fgrpo_jax.reading.sentences import split_sentences
from fgrpo_jax.records import Example
from fgrpo_jax.rewards import task
from fgrpo_jax.world.grammar import read

GOOD = "<think>The red circle is at <bbox>[0,1,28,29]</bbox>. It is red.</think><answer>A</answer>"


def question(options=("left", "right"), answer="A") -> Example:
    return Example(id="q", images=(), question="?", options=options, answer=answer)


def test_a_good_response():
    parsed = parse(GOOD)
    assert parsed.format_ok and parsed.answer == "A" and parsed.boxes == ((0.0, 1.0, 28.0, 29.0),)
    assert parsed.sentences == ("The red circle is at <bbox>[0,1,28,29]</bbox>.", "It is red.")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n {GOOD} \n",
        "<think>a\nb.\n\nc</think>\n\n<answer>\nA\n</answer>",
        "<think></think><answer></answer>",
        "<think>1 < 2</think><answer>A</answer>",
    ],
)
def test_form_is_right(text):
    assert parse(text).format_ok


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "<answer>A</answer>",
        "<think>a</think>",
        "<think>a<answer>A</answer>",
        "<think>a</think><answer>A",
        "<think>a</think>A</answer>",
        "a</think><answer>A</answer>",
        "<answer>A</answer><think>a</think>",
        "<think>a</think> so <answer>A</answer>",
        f"{GOOD} done",
        f"well {GOOD}",
        f"{GOOD}{GOOD}",
        "<think>a</think><think>b</think><answer>A</answer>",
        "<think><think>a</think></think><answer>A</answer>",
        "<think>a <answer>A</answer></think>",
        "<think>a</think><answer>A</answer><answer>B</answer>",
        "<think>a</think><answer><answer>A</answer></answer>",
        "<THINK>a</THINK><ANSWER>A</ANSWER>",
        "</think><think><answer></answer>",
    ],
)
def test_form_is_wrong(text):
    assert not parse(text).format_ok


def test_a_prefilled_think_tag_counts():
    rest = GOOD.removeprefix("<think>")
    assert not parse(rest).format_ok
    assert parse(rest, dialect=DIALECTS["treevgr"]).format_ok and parse(GOOD, dialect=DIALECTS["treevgr"]).format_ok
    assert parse(rest, dialect=DIALECTS["treevgr"]).think == parse(GOOD).think


def test_reasoning_and_answer_of_broken_forms():
    assert parse("<think>a. b").sentences == ("a.", "b")
    assert parse("<think>a<answer>B</answer>").think == "a"
    assert parse("<think>a<answer>B</answer>").answer == "B"
    assert parse("<think>a</think><answer>A</answer><answer>B</answer>").answer == "B"
    assert parse("<think>a</think><answer>B").answer is None
    assert parse("<think><answer>A</answer></think><answer>B</answer>").answer == "B"
    assert parse("no tags at all").sentences == ()
    assert parse("loose</think><answer>B</answer>").answer == "B"


@pytest.mark.parametrize(
    ("text", "options", "index"),
    [
        ("B", ("left", "right"), 1),
        ("b", ("left", "right"), 1),
        ("B.", ("left", "right"), 1),
        ("(B)", ("left", "right"), 1),
        ("(b) right", ("left", "right"), 1),
        ("B. right", ("left", "right"), 1),
        ("B: right", ("left", "right"), 1),
        ("B right", ("left", "right"), 1),
        ("right", ("left", "right"), 1),
        ("RIGHT!", ("Left", "Right"), 1),
        ("  to the right of it ", ("left", "right"), 1),
        ("The answer is B", ("left", "right"), 1),
        ("The answer is (B).", ("left", "right"), 1),
        ("option A, no, option B", ("left", "right"), 1),
        ("not left but right", ("left", "right"), 1),
        ("I choose B", ("left", "right"), 1),
        ("A cat is near", ("dog", "cat"), 1),
        ("A cat is near", ("dog", "horse"), None),
        ("A", ("dog", "horse"), 0),
        ("yes", ("no", "yes"), 1),
        ("Yes, it is.", ("no", "yes"), 1),
        ("left and above", ("left and below", "left and above"), 1),
        ("red circle", ("circle", "red circle"), 1),
        ("C", ("left", "right"), None),
        ("Z", ("left", "right"), None),
        ("2", ("1", "2"), 1),
        ("12", ("1", "2"), None),
        ("bright", ("left", "right"), None),
        ("", ("left", "right"), None),
        (None, ("left", "right"), None),
        ("left", (), None),
        ("...", ("left", "right"), None),
        # The last commitment wins, whatever came before.
        ("A. No, wait, the answer is B", ("left", "right"), 1),
        ("The answer is right: the circle is left of the square", ("left", "right"), 1),
        ("The answer is not A", ("left", "right"), 1),
        ("The answer is not A", ("left", "right", "above"), None),
        ("the answer is option (b)", ("left", "right"), 1),
        ("**B**", ("left", "right"), 1),
        ("**Answer:** (B) right", ("left", "right"), 1),
        (r"so \boxed{B}", ("left", "right"), 1),
        (r"\boxed{\text{right}}", ("left", "right"), 1),
        ("<answer>B</answer>", ("left", "right"), 1),
        # Articles are no letters.
        ("The answer is a cat", ("dog", "cat"), 1),
        ("The answer is a horse", ("dog", "cat"), None),
        ("Answer: a", ("dog", "cat"), 0),
        ("the answer is a.", ("dog", "cat"), 0),
        # What is denied or left open is no commitment.
        ("It is not B", ("left", "right"), None),
        ("right, not left", ("left", "right"), 1),
        ("It cannot be left", ("left", "right"), None),
        ("right rather than left", ("left", "right"), 1),
        ("right; left is wrong", ("left", "right"), 1),
        ("left or right", ("left", "right"), None),
        ("either left or right", ("left", "right"), None),
        ("left, right", ("left", "right"), None),
        ("A or B", ("left", "right"), None),
        ("(A), (B)", ("left", "right"), None),
        ("A/B", ("left", "right"), None),
        ("A or B? The answer is B", ("left", "right"), 1),
        # Numbers and yes/no by what they mean.
        ("two", ("1", "2"), 1),
        ("2.0", ("1", "2"), 1),
        ("There are two.", ("1", "2", "3"), 1),
        ("1,000", ("100", "1000"), 1),
        ("3", ("1", "2"), None),
        ("true", ("no", "yes"), 1),
        ("Yes, there is no cat", ("no", "yes"), 1),
        ("No.", ("no", "yes"), 0),
    ],
)
def test_choice_of_an_option(text, options, index):
    assert choose(text, options) == index


def test_the_last_commitment_wins():
    assert choose("left, or rather right", ("left", "right")) == 1
    assert answer_index(parse("<think>x</think> The answer is B"), ("left", "right")) == 1
    assert answer_index(parse("<think>The answer is B.</think>"), ("left", "right")) is None


def test_accuracy():
    assert task.accuracy(parse(GOOD), question()) == 1.0
    assert task.accuracy(parse(GOOD), question(answer="right")) == 0.0
    assert task.accuracy(parse(GOOD), question(answer="LEFT.")) == 1.0
    assert task.accuracy(parse("<answer>a</answer>"), question(answer="(A)")) == 1.0
    assert task.accuracy(parse("<answer></answer>"), question()) == 0.0
    assert task.accuracy(parse("<answer>Done.</answer>"), question(options=(), answer="done")) == 1.0
    assert task.accuracy(parse(""), question(options=(), answer="done")) == 0.0
    assert parse(GOOD).format_ok and not parse("").format_ok


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("3", "3.0", True),
        ("three", "3", True),
        ("1,234", "1234", True),
        ("50%", "50", True),
        ("$5", "5.00", True),
        (".5", "0.5", True),
        ("3", "4", False),
        ("3 cups", "3", True),  # a unit counts where both have one
        ("3 cups", "3 plates", False),
        ("1,2", "12", False),
        ("nan", "0", False),
        ("1e999", "1e999", True),
        ("Yes, it is.", "yes", True),
        ("No", "yes", False),
        ("true", "Yes", True),
        ("yesterday", "yes", False),
        ("Nothing", "no", False),
        ("A Cat.", "a cat", True),
        ("", "a cat", False),
    ],
)
def test_open_answers_are_compared_by_what_they_mean(given, gold, right):
    example = question(options=(), answer=gold)
    assert task.accuracy(parse(f"<think>x</think><answer>{given}</answer>"), example) == float(right)
    assert task.accuracy(parse(f"<think>x</think>So the answer is {given}"), example) == float(right and given != "")


@pytest.mark.parametrize("answer", ["", "  ", "C", "maybe"])
def test_a_gold_answer_that_is_none_is_refused(answer):
    with pytest.raises(ValueError, match="'q'"):
        task.accuracy(parse(GOOD), question(answer=answer))


def test_boxes():
    text = (
        "<bbox>[1,2,3,4]</bbox><bbox> [ 1.5 , -2 , 3e1 , 4. ] </bbox><bbox>5,6,7,8</bbox><bbox>[9,9,1,1]</bbox>"
        "<bbox>[1,2,3]</bbox><bbox>[1,2,3,4,5]</bbox><bbox>[nan,0,1,1]</bbox><bbox>[inf,0,1,1]</bbox>"
        "<bbox>[1e999,0,1,1]</bbox><bbox></bbox><bbox>[a,b,c,d]</bbox><bbox>[1 2 3 4]</bbox><bbox>[1,2,3,4]"
    )
    boxes, malformed = read_boxes(text)
    assert boxes == ((1, 2, 3, 4), (1.5, -2, 30, 4), (5, 6, 7, 8), (9, 9, 1, 1))
    assert malformed == 8
    # Boxes of the answer are no part of the reasoning.
    assert parse("<think>a</think><answer><bbox>[1,2,3,4]</bbox></answer>").boxes == ()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A. B", ("A.", "B")),
        ("It is 2.5 px. Yes!", ("It is 2.5 px.", "Yes!")),
        ("At <bbox>[1.5,2.,3.1,4.]</bbox>. Next", ("At <bbox>[1.5,2.,3.1,4.]</bbox>.", "Next")),
        ("one\ntwo", ("one", "two")),
        ("Some, e.g. this. Done?", ("Some, e.g. this.", "Done?")),
        ("glued.Next", ("glued.", "Next")),
        ("... !? . ", ()),
        ("", ()),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


def test_a_hundred_thousand_characters_are_read_at_once():
    fillers = (
        *("a", " ", "<", "<bbox>", "<think>", "</answer><answer>", "[1,", "1.", "so ", "<bbox>[1,2,3,4]</bbox>", "A "),
        *("the answer is ", "red circle ", "\n", "left of and ", "R0 ", "(", "é"),
    )
    options = ("a", "left", "red circle")
    begin = time.process_time()
    for filler in fillers:
        for text in (filler * (100_000 // len(filler)), f"<think>{filler * (100_000 // len(filler))}</think><answer>A"):
            parsed = parse(text)
            answer_index(parsed, options)
            choose(text, options)
            for sentence in parsed.sentences[:50]:
                read(sentence)
    assert time.process_time() - begin < 0.25 * 2 * len(fillers)


PIECES = st.sampled_from(
    (
        *("<think>", "</think>", "<answer>", "</answer>", "<bbox>", "</bbox>", "<bbox>[1,2,3,4]</bbox>", "[", "]", ","),
        *("1", "2", "-2.5", "1e400", "nan", ".", "A", "B", "(", ")", ":", "\n", " ", "İ", "\x00", "٣"),
        *("the", "red", "circle", "is", "at", "left", "of", "and", "not", "blue", "square", "there", "are", "it"),
        *("between", "nearest", "to", "answer", "so", "yes"),
    )
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map(" ".join), st.lists(PIECES).map("".join)))
def test_nothing_raises(text):
    for dialect in ("paper", "treevgr"):
        parsed = parse(text, dialect=DIALECTS[dialect])
        assert isinstance(parsed.format_ok, bool)
        assert all(len(box) == 4 for box in parsed.boxes)
        assert answer_index(parsed, ("left", "right")) in (None, 0, 1)
        for sentence in (*parsed.sentences, text):
            assert isinstance(read(sentence).understood, bool)
