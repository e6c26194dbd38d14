"""The labelled set: its labels against an independent reading of its own facts, and how the rules judge fares on it."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from audit import wordings as words
from audit.agreement import ABSTAINED, Pair, Rating, compare
from audit.labelled import KINDS, as_row, labelled, labelled_set, write_jsonl

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.reading.precheck import precheck
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.rewards import task
from fgrpo_jax.world.oracle import Oracle

LISTS = {
    name: value
    for name, value in vars(words).items()
    if name.isupper() and isinstance(value, tuple) and name != "PARTS"
}
RULES = Oracle(unread="abstain")


@pytest.fixture(scope="module")
def traces():
    return labelled_set(100)


def rating(verdict: Verdict | None) -> Rating:
    return Rating(None, ABSTAINED) if verdict is None else Rating(verdict.value)


def test_the_parts_share_no_wording_and_leave_none_out():
    for name, wordings in LISTS.items():
        dev, held, *later = (words.part_of(wordings, part) for part in words.PARTS)
        assert sorted((*dev, *held)) == sorted(wordings) and abs(len(dev) - len(held)) <= 1, name
        *later, stranger = later  # all that the author of 'unseen' wrote
        assert set(later[-1]) <= set(stranger)
        everything = [*dev, *held, *itertools.chain(*later)]
        assert all(later) and len(set(everything)) == len(everything), name
    with pytest.raises(ValueError, match="unknown part 'test'"):
        words.part_of(words.AT, "test")


def test_every_kind_and_label_is_there_and_sentences_are_as_parsed(traces):
    assert len(traces) == 800 and {one.kind for one in traces} == set(KINDS)
    verdicts = Counter(one.consistency for one in traces)
    assert min(verdicts[v] for v in (Verdict.YES, Verdict.NO, Verdict.UNCERTAIN)) >= 40
    for one in traces:
        parsed = parse(one.response)
        assert parsed.format_ok and parsed.sentences == tuple(sentence.text for sentence in one.sentences)
        mine = {wording for wordings in LISTS.values() for wording in words.part_of(wordings, one.part)}
        assert {sentence.wording for sentence in one.sentences} <= mine
        right = task.accuracy(parsed, one.example) == 1.0
        if one.kind in ("consistent_grounded", "inconsistent_ungrounded", "mixed", "corrected"):
            assert right, one
        if one.kind in ("consistent_ungrounded", "inconsistent_grounded"):
            assert not right, one


def test_a_trace_is_the_same_at_every_call():
    assert labelled(3, part="held").response == labelled(3, part="held").response
    assert labelled(3, part="held").response != labelled(3, part="dev").response


def test_the_rules_agree_with_the_labels_where_they_decide(traces):
    """Kappa of at least 0.95, abstaining on at most a quarter; looser on few traces of wordings never seen."""
    for part in words.PARTS:
        mine = [one for one in traces if one.part == part]
        consistency, semantic = [], []
        for one in mine:
            parsed = parse(one.response)
            said = RULES.consistency(one.example, parsed)
            consistency.append(Pair(one.id, rating(said), rating(one.consistency)))
            judged = zip(RULES.semantic(one.example, parsed), one.sentences, strict=True)
            semantic += [Pair(one.id, rating(verdict), rating(label.verdict)) for verdict, label in judged]
        for pairs in (consistency, semantic):
            found = compare(pairs, draws=10)
            least, most = (0.9, 0.4) if part in ("unseen", "stranger") else (0.95, 0.25)  # of 100 traces some 70
            assert found.kappa is not None and found.kappa >= least, (part, found)
            assert found.abstained[0] <= most, (part, found)


def test_without_the_structured_question_the_rules_are_right_where_they_decide(traces):
    """Text alone: most contradictions can't be seen in it, so YES needs support, and the rest is left to a model."""
    wrong = decided = 0
    for one in traces:
        said = precheck(parse(one.response), one.example.options)
        decided += said is not None
        wrong += said is not None and said is not one.consistency
    assert decided >= 0.25 * len(traces) and wrong <= 0.02 * decided


def test_a_strict_judge_would_call_free_wordings_wrong(traces):
    """Why audits need abstention: in training what cannot be read is INCORRECT, however true."""
    strict = Oracle()
    false = sum(
        said is Verdict.INCORRECT and label.verdict is Verdict.CORRECT
        for one in traces[:60]
        for said, label in zip(strict.semantic(one.example, parse(one.response)), one.sentences, strict=True)
    )
    assert false > 30


def test_rows_go_to_a_file(tmp_path):
    one = labelled(0, part="dev")
    write_jsonl(tmp_path / "traces.jsonl", [as_row(one)])
    row = json.loads((tmp_path / "traces.jsonl").read_text())
    assert row["response"] == one.response and row["consistency"] == one.consistency.value
    assert [sentence["verdict"] for sentence in row["sentences"]] == [s.verdict.value for s in one.sentences]
    assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl"]


def test_the_option_for_what_is_not_read():
    example = labelled(0, part="dev").example
    parsed = parse("<think>The wobbly purple thing squares the circle's left.</think><answer>A</answer>")
    assert Oracle().semantic(example, parsed) == [Verdict.INCORRECT]
    assert RULES.semantic(example, parsed) == [None]
    with pytest.raises(ValueError, match="unread='skip'; known: incorrect, abstain"):
        Oracle(unread="skip")  # pyright: ignore[reportArgumentType]
