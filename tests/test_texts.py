"""Options inside questions, answers in five notations, and shuffles that depend on the id alone."""

import collections

import pytest

from fgrpo_jax.data.sets.readers import texts

CASES = {  # text → question, options
    "Where did I move? A. Directly left B. Diagonally forward and right C. Right": (
        "Where did I move?",
        ("Directly left", "Diagonally forward and right", "Right"),
    ),
    "Which way?\n\nA. Left\nB. Right\n\nPlease answer directly with only the letter of the correct option and nothing "
    "else.": ("Which way?", ("Left", "Right")),
    "How many?\nPlease answer directly with a single word or number.": ("How many?", ()),
    "(a) Open (b) Closed": ("", ("Open", "Closed")),
    "<image>\n<image>Question: How? Answer Choices:\n(A) left\n(B) did not move\nAnswer with the text of the option.": (
        "How?",
        ("left", "did not move"),
    ),
    "Which is a plant?\nA. oak\nB. wolf\nAnswer with the option's letter from the given choices directly.": (
        "Which is a plant?",
        ("oak", "wolf"),
    ),
    "What is behind point A. And what is at B? Options: A: cup B: pen": (
        "What is behind point A. And what is at B?",
        ("cup", "pen"),
    ),
    "Which holds vitamin C. Choose. A. lemon C. B. stone": ("Which holds vitamin C. Choose.", ("lemon C.", "stone")),
    "Is the bus (A) red?": ("Is the bus (A) red?", ()),
}


@pytest.mark.parametrize("text", CASES)
def test_options_inside_the_question(text):
    assert texts.split_options(text) == CASES[text]


def test_ten_options_and_the_longest_chain():
    body = " ".join(f"{letter}. o{letter}" for letter in "ABCDEFGHIJ")
    assert texts.split_options(f"Between A. and B. which? {body}")[1] == tuple(f"o{letter}" for letter in "ABCDEFGHIJ")


@pytest.mark.parametrize(
    ("answer", "found"),
    [("(C)", "C"), ("c", "C"), ("C.", "C"), ("C. hat", "C"), ("C. cup", None), ("D", None), ("hat", None), ("", None)],
)
def test_letters(answer, found):
    assert texts.letter(answer, ["cup", "pen", "hat"]) == found


def test_a_text_is_no_letter():
    assert texts.letter("A cup", ["A cup", "pen"]) is None
    assert texts.letter_of_text("a  CUP.", ["A cup", "pen"]) == "A"
    assert texts.letter_of_text("pen", ["pen", "Pen."]) is None


def test_a_shuffle_is_a_function_of_the_id_and_spreads_the_right_answer():
    options = ("right one", "x", "y", "z")
    places = collections.Counter()
    for number in range(2000):
        shown, letter = texts.shuffled(f"q{number}", options, 0)
        assert sorted(shown) == sorted(options) and shown["ABCD".index(letter)] == "right one"
        places[letter] += 1
    assert all(430 < count < 570 for count in places.values()), places  # 500 ± 3.6 standard deviations
    # Written down, so that an id keeps its order from release to release.
    assert [texts.shuffled(f"q{n}", options, 0)[1] for n in range(12)] == list("BACCACDCDDAD")


def test_rotations_put_the_right_answer_everywhere_once():
    letters = [texts.shuffled("unit", ("r", "x", "y"), 0, rotation=turn)[1] for turn in range(3)]
    assert sorted(letters) == ["A", "B", "C"]
