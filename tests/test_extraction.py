"""Answers read by a language model: what it is asked, what counts as a reply, and the whole way to the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import runs
import scripted_judge

from fgrpo_jax import evaluate
from fgrpo_jax.evaluation.judged import _extracted
from fgrpo_jax.records import Example
from fgrpo_jax.rewards.judges.extraction import LONGEST, Extracted, Extractor, read, wording
from fgrpo_jax.rows import read_rows

CHOICE = Example("c", (), "Which is left?", ("cup", "kettle"), "B")
OPEN = Example("o", (), "How many?", (), "3")


class Fake:
    """A chat model that says what a function makes of the user turn."""

    identity: Mapping[str, str] = {"backend": "server", "model": "fake"}

    def __init__(self, *replies: str | tuple[str, str]) -> None:
        self.replies, self.asked = list(replies), []

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        self.asked += turns
        return [reply if isinstance(reply, tuple) else (reply, "") for reply in self.replies[: len(turns)]]

    def close(self) -> None:
        """Holds nothing open."""


@pytest.mark.parametrize(
    ("reply", "options", "want"),
    [
        ("B", 2, Extracted("B")),
        (" (b). ", 2, Extracted("B")),
        ("**A**", 2, Extracted("A")),
        ("Option A", 2, Extracted("A")),
        ("Answer: B", 2, Extracted("B")),
        ("<think>\nIt says B, then A.\n</think>\n\nA", 2, Extracted("A")),
        ("NONE", 2, Extracted(None)),
        ("none.", 0, Extracted(None)),
        ("three", 0, Extracted("three")),
        ("C", 2, Extracted(None, "no letter of 2 options: 'C'")),
        ("A or B", 2, Extracted(None, "no letter of 2 options: 'A or B'")),
        ("The cup is left of it", 2, Extracted(None, "no letter of 2 options: 'The cup is left of it'")),
        ("", 0, Extracted(None, "an empty reply")),
    ],
)
def test_replies_are_taken_strictly(reply: str, options: int, want: Extracted) -> None:
    assert read(reply, options=options) == want


def test_what_is_asked() -> None:
    asked = wording(CHOICE, "x" * LONGEST + "<think>Hm.</think><answer>B</answer>")
    assert "Which is left?" in asked and "A. cup\nB. kettle" in asked and "<answer>B</answer>\n>>>" in asked
    assert CHOICE.answer not in asked.partition("Options:")[0] and "… xxx" in asked and len(asked) < LONGEST + 500
    assert "Options" not in wording(OPEN, "3") and "as few words" in wording(OPEN, "3")


def test_equal_responses_are_asked_once_and_failures_are_told_apart() -> None:
    fake = Fake("B", ("", "status 400"))
    found = Extractor(fake)([CHOICE, CHOICE, OPEN], ["b it is", "b it is", "3"])
    assert found == [Extracted("B"), Extracted("B"), Extracted(None, "status 400")] and len(fake.asked) == 2
    with pytest.raises(ValueError, match="read none of 2 answers, the first because: gone; see to its server"):
        Extractor(Fake(("", "gone"), ("", "gone")))([CHOICE, OPEN], ["a", "b"])
    assert Extractor(fake).about == {"backend": "server", "model": "fake", "prompt_version": "1"}


def test_what_was_extracted_is_the_answer_and_a_failure_leaves_it_to_the_rules() -> None:
    right = _extracted(CHOICE, Extracted("B"), "A")
    assert (right["read"], right["accuracy"], right["answered"], right["read_by_rules"]) == ("B", 1.0, True, "A")
    assert _extracted(CHOICE, Extracted("A"), "B")["accuracy"] == 0.0
    nothing = _extracted(CHOICE, Extracted(None), "B")
    assert (nothing["read"], nothing["accuracy"], nothing["answered"]) == (None, 0.0, False)
    assert _extracted(CHOICE, Extracted(None, "gone"), "B") == {"read_by_rules": "B", "extractor_failed": 1}
    assert _extracted(OPEN, Extracted("three"), None)["accuracy"] == 1.0


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


def test_the_door_with_an_extractor_behind_an_endpoint(tiny_hf: Path, tmp_path: Path) -> None:
    """It says A to every question: accuracy is the share of A among the gold answers, and the results name it."""
    said = lambda body: "A" if "Options" in scripted_judge.words(body) else "NONE"  # noqa: E731
    with scripted_judge.serve(scripted_judge.Judge(answer=said)) as server:
        flags = {"eval__extractor__backend": "server", "eval__extractor__server__url": server.url}
        flags |= {"eval__extractor__server__model": scripted_judge.MODEL}
        code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **flags)
        assert code == 0, err
        system, user = server.bodies[0]["messages"]
        assert "Do not solve the question" in system["content"] and "between the marks" in user["content"]
    answers = read_rows(tmp_path / "w/eval/world-heldout.jsonl")
    choices = [answer for answer in answers if answer["options"]]
    assert choices and all(answer["read"] == "A" and answer["extractor_failed"] == 0 for answer in choices)
    found: Any = json.loads((tmp_path / "w/eval/results.json").read_text())
    assert found["protocol"]["extractor"] == {"backend": "server", "model": "scripted", "prompt_version": "1"}
    right = sum(answer["gold"] == "A" for answer in choices) / len(answers)
    assert found["sets"]["world-heldout"]["figures"]["accuracy"]["value"] == pytest.approx(right)
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf)
    assert code == 1 and "config.eval.extractor.backend: server → rules" in err, "another extractor is not mixed in"
    code, _, err = runs.run(evaluate, tmp_path / "v", tiny_hf, eval__extractor__backend="server")
    assert code == 1 and "config.eval.extractor.server.url='' is no http or https address" in err
