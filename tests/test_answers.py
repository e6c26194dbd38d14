"""Answers as people read them: the rules one by one, three batteries written without a look at the code, and LaTeX.

The wordings are those that others' readers look for: `<Answer>` (mll-lab-nu/MindCube,
src/evaluation/core/extractors.py), tags, full-width letters and '答案' (EASI: EvolvingLMMs-Lab/VLMEvalKit,
dataset/utils/spatial_bench/matching_func.py), 'answer is **B**' (open-compass/VLMEvalKit, utils/matching_util.py),
'I choose' (EvolvingLMMs-Lab/lmms-eval, tasks/_task_utils/mcq_extract.py), spaced LaTeX (hiyouga/geometry3k).
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import string

import pytest

from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.reading import formulas
from fgrpo_jax.reading.answers import choose, named, same_answer
from fgrpo_jax.reading.dialects import DIALECTS
from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.reading.values import plain
from fgrpo_jax.records import Example
from fgrpo_jax.rewards import task
from fgrpo_jax.rewards.score import RewardConfig
from fgrpo_jax.training import datasets

BATTERIES = pathlib.Path(__file__).parent / "data" / "answers"
SIDES, COLOURS, SIGNED = ("left", "right"), ("red", "green", "blue", "yellow"), ("\u22121", "1", "0")


def read_as_labelled(case: dict) -> bool:
    if case["kind"] == "choice":
        return choose(case["text"], case["options"]) == case["reads"]
    return same_answer(case["text"], case["gold"]) == case["right"]


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_battery_written_without_a_look_at_the_code(name, record_property):
    lines = (BATTERIES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    wrong = [case for case in map(json.loads, lines) if not read_as_labelled(case)]
    record_property(name, f"{len(lines) - len(wrong)} of {len(lines)}")
    assert len(lines) == 100 and len(wrong) <= {"a": 2, "b": 0, "c": 1, "d": 1}[name], wrong


@pytest.mark.parametrize(
    ("text", "options", "index"),
    [
        # A label or an option on a line of its own outranks what an explanation mentions.
        ("B\n\nThe chair is on the right, while the lamp is on the left.", SIDES, 1),
        ("right\n\nIn the image it appears left.", SIDES, 1),
        ("It looks left at first, but from the dog's view it is not.\n\nB", SIDES, 1),
        ("B.\n\nA is wrong because it is darker. C is wrong too.", COLOURS, 1),
        ("D\n\nMoving left (A) would hit the tree, and C is blocked.", COLOURS, 3),
        ("**Answer: B**\n\nOption A shows red, option C shows blue.", COLOURS, 1),
        ("B because red is too dark.", COLOURS, 1),
        ("The answer is B, since the red one is too dark.", COLOURS, 1),
        ("B\n\nDo you want to know why red is wrong, or why it is yellow?", COLOURS, 1),
        ("Is it red? I can't tell.", COLOURS, None),
        ("-5 cm", ("5 cm", "none"), None),
        # A label before its own option's words.
        ("C. Both A and B", ("x", "y", "Both A and B"), 2),
        ("A. Option B is larger", ("Option B is larger", "Option A is larger"), 0),
        ("Therefore, the correct answer is:\n\nB) green", COLOURS, 1),
        # Denials, of single labels and of joined ones; what they leave.
        ("Option A is incorrect. Option B is correct. Option C is incorrect.", COLOURS, 1),
        ("A and B are wrong, so the answer must be C.", COLOURS, 2),
        ("The answer isn't A, it's B.", COLOURS, 1),
        ("A, not B", COLOURS, 0),
        ("C is incorrect, D is incorrect, A is incorrect", COLOURS, 1),
        ("ANSWER: None of the above", ("left", "right", "above"), None),
        ("不是左边，是右边。", ("左边", "右边"), 1),
        # What declares.
        ("B is the correct answer", SIDES, 1),
        ("The correct answer is **B**. Here's why: A is dim.", COLOURS, 1),
        ("I choose B", SIDES, 1),
        (r"\boxed{\text{B}}", SIDES, 1),
        (r"\[\boxed{\mathbf{B}}\]", SIDES, 1),
        ('{"answer": "B"}', SIDES, 1),
        ('```json\n{"reasoning": "box A hides it", "answer": "B"}\n```', SIDES, 1),
        ("<Answer>B</Answer>", SIDES, 1),
        ("<think>left, so A?</think>\n\nB", SIDES, 1),
        ("the answer is <|begin_of_box|>B<|end_of_box|>", SIDES, 1),
        ("选B", SIDES, 1),
        ("（B）", SIDES, 1),
        ("答案是Ｂ。", SIDES, 1),
        ("La respuesta es B.", SIDES, 1),
        # Several are none, and so is a label or a number that no option has.
        ("ANSWER: A, B.", COLOURS, None),
        ("A\nB\nC\nD", COLOURS, None),
        ("A B C D", COLOURS, None),
        ("A、C", COLOURS, None),
        ("(A) red\n(B) green\n(C) blue", COLOURS, None),
        ("(A) red\n(B) green\n(C) blue\n\nAnswer: C", COLOURS, 2),
        ("The answer is E.", COLOURS, None),
        ("2.5", ("5", "10"), None),
        ("3", ("-3", "-2", "-1", "0"), None),
        # Options that are letters, signs or signed numbers.
        ("A", ("B", "A", "D", "C"), 0),
        ("The closest point is C.", ("B", "C", "D", "A"), 1),
        ("1", SIGNED, 1),
        ("-1", SIGNED, 0),
        ("-2", ("2", "\u22122"), 1),
        ("<", ("<", ">"), 0),
        ("B. >", ("<", ">"), 1),
        ("C++", ("C", "C++", "Java"), 1),
        ("Java", ("C", "C++", "Java"), 2),
        ("derrie\u0300re", ("devant", "derri\u00e8re"), 1),
        # What takes back, what asks, and what only places something.
        ("B. Hmm, wait, it must be blue.", COLOURS, 2),
        ("option A, no, option B", SIDES, 1),
        ("A or B? The answer is B", SIDES, 1),
        ("It's the blue car parked behind the white van.", ("blue car", "white van"), 0),
    ],
)
def test_an_answer_is_read_as_a_careful_reader_would(text, options, index):
    assert choose(text, options) == index


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("5", "-5", False),
        ("-5", "5", False),
        ("\u22125", "-5", True),
        (".5", "5", False),
        ("5", ".5", False),
        ("C", "C++", False),
        ("c++", "C++", True),
        ("<", ">", False),
        ("cafe\u0301", "caf\u00e9", True),
        ("90 degrees", "90", True),
        ("2 cm", "2 m", False),
        ("The result is \u22125.", "-5", True),
        ("72, in total, so there are that many.", "72", True),
        ("7. No wait, 8", "7", False),
        ("3 or 4", "3", False),
        ("It is not 7", "7", False),
        (r"\boxed{-3}", "-3", True),
        ("<answer>STOP</answer>", "stop", True),
        ("No, it is yes", "yes", False),
    ],
)
def test_an_open_answer_is_compared_by_value_and_sign(given, gold, right):
    assert same_answer(given, gold) is right


def question(answer: str, options: tuple[str, ...] = ()) -> Example:
    return Example(id="q", images=(), question="?", options=options, answer=answer)


@pytest.mark.parametrize(
    "options",
    [
        ("B", "A", "D", "C"),
        ("C", "C++", "C#", "D"),
        ("-5", "5", ".5", "0"),
        ("<", ">", "=", "!="),
        ("Yes", "No"),
        ("a cat", "A dog", "the cat", "2"),
        ("左边", "右边", "1", "2"),
        ("30 cm", "60 cm", "\u221230 cm", "none"),
    ],
)
def test_the_reader_and_the_gold_answer_agree_on_every_kind_of_label(options):
    for index, option in enumerate(options):
        letter = string.ascii_uppercase[index]
        forms = [
            letter,
            letter.lower(),
            f"({letter})",
            f"{letter}.",
            f"{letter}. {option}",
            f"({letter}) {option}",
            option,
        ]
        for gold in forms:
            found = task.gold_index(question(gold, options))
            assert found == choose(gold, options) == named(gold, options), gold
            assert found == index or (gold == option and plain(option) in "abcd"), gold  # a text that is a label is one


@pytest.mark.parametrize(
    ("response", "reader", "strict"),
    [
        ("<think>x</think><answer>B</answer>", 1, 1),
        ("<think>x</think><answer>(b).</answer>", 1, 1),
        ("<think>x</think><answer>Right!</answer>", 1, 1),
        ("<think>x</think><answer>B. right</answer>", 1, 0),
        ("<think>x</think><answer>The answer is B</answer>", 1, 0),
        ("<think>x</think>B", 1, 0),
        ("<think>x</think><answer>A</answer>", 0, 0),
    ],
)
def test_r_acc_by_the_reader_and_as_the_paper_states_it(response, reader, strict):
    for gold in ("B", "right"):
        parsed, example = parse(response), question(gold, SIDES)
        assert task.accuracy(parsed, example) == reader
        assert task.accuracy(parsed, example, reading="strict") == strict
    assert task.accuracy(parse("<answer>-5.</answer>"), question("-5"), reading="strict") == 1.0
    assert task.accuracy(parse("<answer>-5 m</answer>"), question("-5"), reading="strict") == 0.0


def test_strict_answers_need_tags_and_so_does_the_format():
    with pytest.raises(ValueError, match="rewards.answer='reader'"):
        RewardConfig(answer="strict", dialect=DIALECTS["direct"])
    with pytest.raises(ValueError, match="known:"):
        RewardConfig(answer="exact")  # pyright: ignore[reportArgumentType]
    assert not any(parse("Answer: B", dialect=dialect).format_ok for dialect in DIALECTS.values())


# --------------------------------------------------------------------------------------------------------------- LaTeX
MATH = importlib.util.find_spec("math_verify") is not None


def test_latex_without_its_grader_is_an_error_at_the_start(monkeypatch):
    monkeypatch.setattr(formulas.importlib.util, "find_spec", lambda name: None)
    formula, number, choice = Entry("f", r"2 \sqrt { 221 }", 0), Entry("n", "-5", 0), Entry("c", r"\frac", 4)
    datasets._require_gradable([number, choice])
    with pytest.raises(ValueError, match=r"fgrpo-jax\[math\]"):
        datasets._require_gradable([number, formula])
    with pytest.raises(ValueError, match=r"fgrpo-jax\[math\]"):
        same_answer("3", formula.answer)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (r"2 \sqrt { 221 }", 1),
        ("x^2", 1),
        ("$2x$", 1),
        ("5", 0),
        ("$5 to $10", 0),
        ("$5", 0),
        ("(^_^) ok", 0),
        ("C:\\", 0),
    ],
)
def test_what_is_latex(text, is_one):
    assert formulas.is_latex(text) == is_one


@pytest.mark.skipif(not MATH, reason="needs the extra 'math'")
def test_latex_is_compared_as_mathematics():
    root, half = r"2 \sqrt { 221 }", r"\frac { 1 } { 2 }"
    right = [(r"2\sqrt{221}", root), (r"\sqrt{884}", root), (r"so \boxed{2\sqrt{221}}", root), ("0.5", half)]
    right += [("The answer is $2\\sqrt{221}$.", root), ("30", r"30 ^ { \circ }")]
    assert [pair for pair in right if not same_answer(*pair)] == []
    assert [pair for pair in [("3", root), (r"-\frac{1}{2}", half), ("", half)] if same_answer(*pair)] == []


@pytest.mark.slow
@pytest.mark.skipif(not MATH, reason="needs the extra 'math'")
def test_a_formula_that_takes_for_ever_is_wrong_and_the_next_one_is_read(monkeypatch):
    assert same_answer(r"\sqrt{884}", r"2 \sqrt { 221 }")
    monkeypatch.setattr(formulas, "SECONDS", 0.5)
    assert not same_answer("9^{9^{9^9}}", r"2 \sqrt { 221 }")
    monkeypatch.setattr(formulas, "SECONDS", 20.0)
    assert same_answer(r"\sqrt{4 \cdot 221}", r"2 \sqrt { 221 }")  # by a process of its own again


def test_the_shapes_of_the_batteries():
    for file in sorted(BATTERIES.glob("*.jsonl")):
        for case in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            assert case["kind"] in ("choice", "open")
            assert case["kind"] == "open" or case["reads"] is None or 0 <= case["reads"] < len(case["options"])
