"""The labelled set: its labels against an independent reading of its own facts, and what the pre-check makes of it."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from audit import labelled as labels
from audit.labelled import KINDS, labelled, labelled_set
from audit.wordings import OPPOSITES, WORDINGS

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.reading.precheck import precheck
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.rewards import task
from fgrpo_jax.world.oracle import Oracle
from fgrpo_jax.world.relations import OPPOSITE

WORLD = {
    "left": ("{a} is {left} of {b}.",),
    "above": ("{a} is {above} {b}.",),
    "larger": ("{a} is {larger} than {b}.",),
    "nearest": ("{a} is {nearest} {to} {b}.",),
    "between": ("{a} is between {b} and {c}.",),
    "inside": ("{a} is inside {b}.",),
    "count": ("There are {n} {nkinds}.",),
    "exists": ("There is {an}.",),
    "at": ("{a} is at {box}.",),
    "denial": ("DENIED {claim}.",),
    "conclusion": ("So the answer is {o}.", "The answer is {L}."),
    "elimination": ("The answer is not {o}.",),
    "hedge": ("Let me think about {o} and {p}.",),
    "correction": ("Now, {claim}.",),
    "idle": ("Let me look at the image.",),
}
"""The built-in world's own way to say it all, which its oracle reads exactly."""


@pytest.fixture(scope="module")
def traces():
    return labelled_set(270)


def test_every_kind_and_label_is_there_and_sentences_are_as_parsed(traces):
    assert len(traces) == 270 and {one.kind for one in traces} == set(KINDS)
    verdicts = Counter(one.consistency for one in traces)
    assert min(verdicts[v] for v in (Verdict.YES, Verdict.NO, Verdict.UNCERTAIN)) >= 25
    for one in traces:
        parsed = parse(one.response)
        assert parsed.format_ok and parsed.sentences == tuple(sentence.text for sentence in one.sentences)
        assert not re.search(r"[{}]", one.response), one
        right = task.accuracy(parsed, one.example) == 1.0
        if one.kind in ("consistent_grounded", "inconsistent_ungrounded", "mixed", "corrected"):
            assert right, one
        if one.kind in ("consistent_ungrounded", "inconsistent_grounded"):
            assert not right, one


def test_the_labels_are_the_oracle_s_where_the_world_s_own_words_say_the_same(monkeypatch):
    """The facts, their order and the labels stay; only the wordings change, so that the oracle can read all of it."""
    assert WORLD.keys() == WORDINGS.keys()
    monkeypatch.setattr(labels, "WORDINGS", WORLD)
    oracle = Oracle(unread="abstain")
    for one in labelled_set(180):
        parsed = parse(re.sub(r"DENIED the ([^.]*?) is ", r"The \1 is not ", one.response))
        assert oracle.consistency(one.example, parsed) is one.consistency, one
        assert oracle.semantic(one.example, parsed) == [sentence.verdict for sentence in one.sentences], one


def test_a_trace_is_the_same_at_every_call(traces):
    again, other = labelled(3), labelled(3, seed=8)
    assert (again.response, again.sentences) == (traces[3].response, traces[3].sentences)
    assert again.response != other.response
    assert len({one.id for one in traces}) == len(traces)


def test_words_in_braces_have_an_opposite_where_the_relation_has_one():
    known = {"a", "b", "c", "an", "box", "n", "kinds", "nkinds", "o", "p", "L", "claim"}
    for what, wordings in WORDINGS.items():
        opposites = OPPOSITES.get(OPPOSITE.get(what, ""), {})
        for wording in wordings:
            fields = {field for _, field, _, _ in string.Formatter().parse(wording) if field}
            assert fields <= known | opposites.keys(), wording
            assert not opposites or fields & opposites.keys(), wording  # or both relations would read alike
    assert len(set().union(*WORDINGS.values())) == sum(map(len, WORDINGS.values()))


def test_the_pre_check_is_right_where_it_decides(traces):
    """Text alone: most contradictions can't be seen in it, so YES needs support, and the rest is left to a model."""
    said = [(precheck(parse(one.response), one.example.options), one.consistency) for one in traces]
    decided = [(verdict, label) for verdict, label in said if verdict is not None]
    assert {verdict for verdict, _ in decided} == {Verdict.YES, Verdict.NO, Verdict.UNCERTAIN}
    assert len(decided) >= 0.25 * len(traces)
    assert sum(verdict is not label for verdict, label in decided) <= 0.02 * len(decided)


def test_a_strict_oracle_would_call_free_wordings_wrong(traces):
    """Why audits need abstention: in training what cannot be read is INCORRECT, however true."""
    strict = Oracle()
    false = sum(
        said is Verdict.INCORRECT and label.verdict is Verdict.CORRECT
        for one in traces[:60]
        for said, label in zip(strict.semantic(one.example, parse(one.response)), one.sentences, strict=True)
    )
    assert false > 30


def test_the_option_for_what_is_not_read():
    example = labelled(0).example
    parsed = parse("<think>The wobbly purple thing squares the circle's left.</think><answer>A</answer>")
    assert Oracle().semantic(example, parsed) == [Verdict.INCORRECT]
    assert Oracle(unread="abstain").semantic(example, parsed) == [None]
    with pytest.raises(ValueError, match="unread='skip'; known: incorrect, abstain"):
        Oracle(unread="skip")  # pyright: ignore[reportArgumentType]
