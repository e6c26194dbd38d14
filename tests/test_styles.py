"""Presets: other people's checkpoints are asked, and their responses read, as they were trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import policies
import pytest
from test_rewards_score import judge_one

from fgrpo_jax.data.styles import STYLES, find_style
from fgrpo_jax.evaluation import answering, heldout
from fgrpo_jax.reading.dialects import DIALECTS
from fgrpo_jax.records import Example, ImageSize, Rollouts
from fgrpo_jax.rewards.score import RewardConfig
from fgrpo_jax.training import datasets, judges, setup

PRESETS = ("paper", "direct", "cot", "vigorl", "treevgr", "vlm_r1")
SIZE = ImageSize(200, 100, 196, 112)
QUESTION = Example(
    "q", (), "What is left of the lamp?", ("cup", "red box"), "B", boxes=((100.0, 0.0, 200.0, 50.0),), source="s"
)
BOX = "[98,0,196,56]"  # the gold box as the policy sees the image

SAID = {  # a right response of each family, the prefill left out
    "paper": f"<think>The box <bbox>{BOX}</bbox> is left.</think><answer>B. red box</answer>",
    "direct": "B",
    "cot": "The lamp is on the right, the box beside it.\nAnswer: B",
    "vigorl": "<think>The lamp is at (150, 20). Left of it, at (110, 25), is a box.</think> <answer> red box </answer>",
    "treevgr": f"The lamp hangs right of the box <box>{BOX}</box>.</think>\n<answer>B</answer>",
    "vlm_r1": f'<think>Left is the box.</think><answer>{{"bbox_2d": {BOX}}} B</answer>',
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_right_response_of_each_family_is_read_as_right(name: str) -> None:
    style = STYLES[name]
    judged = judge_one(QUESTION, style.prefill + SAID[name], SIZE, config=RewardConfig(dialect=DIALECTS[style.dialect]))
    tagged = DIALECTS[style.dialect].form == "tags"  # format is never earned without tags
    assert (judged.accuracy, judged.format, judged.answered) == (1.0, float(tagged), True)
    if name in ("paper", "treevgr", "vlm_r1"):
        assert judged.spatial == pytest.approx(1.0)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_ask_for_what_their_dialect_reads(name: str) -> None:
    style = STYLES[name]
    dialect = DIALECTS[style.dialect]
    assert dialect.name == name and dialect.prefilled == (style.prefill == "<think>")
    asked = f"{style.system}\n{style.user_text('Where?', ('left', 'right'))}"
    assert "A. left\nB. right" in asked
    for tag in ("<think>", "<answer>"):
        assert (tag in asked) == (dialect.form == "tags")
    assert ("<bbox>" in asked) == (name == "paper") and ("<box>" in asked) == (name == "treevgr")
    assert ("(x, y)" in asked) == dialect.points
    assert "A." not in style.user_text("Where?", ())


def test_a_file_holds_other_words(tmp_path: Path) -> None:
    words = {"system": "s", "question": "{question}?", "options": "", "request": "r", "open_request": "o"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(words | {"prefill": "<think>", "dialect": "vigorl"}))
    style = find_style(str(file))
    assert (style.user_text("Who", ("a",)), style.prefill, style.dialect) == ("Who?\nA. a\nr", "<think>", "vigorl")
    for content, message in (
        ("{", "is not JSON"),
        (json.dumps({"system": "s"}), "must hold the texts system, question, options, request, open_request"),
        (json.dumps(words | {"prefil": ""}), "may hold prefill and dialect"),
        (json.dumps(words | {"request": 3}), "'request' must be a text, got 3"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            find_style(str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        find_style(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"one of paper, tiny, direct, .* or a FILE\.json"):
        find_style("papr")


ROOMY = {"data__max_prompt_tokens": 320, "data__buckets__prompt": (320,)}
"""The tiny tokenizer was not trained on these words."""


class Says:
    """A sampler that says one text, whatever it is asked; it keeps the prompts."""

    def __init__(self, policy: setup.Policy, text: str) -> None:
        tokenizer = policy.processor.tokenizer
        self.ids = [*tokenizer.encode(text, add_special_tokens=False), policy.processor.eos_ids[0]]
        self.tails: set[str] = set()
        self._decode = policy.processor.decode

    def lay_out(self, params: object) -> object:
        return params

    def sample(self, params: object, prompts: object, **_: object) -> Rollouts:
        masks, tokens = np.asarray(prompts.mask), np.asarray(prompts.tokens)  # type: ignore[attr-defined]
        self.tails |= {self._decode(row[mask][-12:]) for row, mask in zip(tokens, masks, strict=True)}
        drawn = np.tile(np.array(self.ids, np.int32), (len(masks), 1, 1))
        ones = np.ones(drawn.shape, bool)
        return Rollouts(tokens=drawn, mask=ones, logps=np.zeros(drawn.shape, np.float32), finished=ones[..., 0])


def test_what_is_prefilled_is_asked_and_belongs_to_the_answer(tiny_hf: Path) -> None:
    """From the preset to the answers on file: the prompt ends in <think>, and the response is read from there."""
    config = policies.config(tiny_hf, data__prompt="treevgr", eval__examples=4, **ROOMY)
    policy = policies.policy(config)
    sampler = Says(policy, "It is so.</think><answer>A</answer>")
    scorer = judges.scorer(config, policy, Path(), purpose="eval")
    answers = heldout.evaluate(config, policy, None, sampler, scorer=scorer)  # type: ignore[arg-type]
    assert all(tail.endswith("assistant\n<think>") for tail in sampler.tails), sampler.tails
    for answer in answers:
        assert answer["text"] == "<think>It is so.</think><answer>A</answer>"
        assert (answer["format"], answer["read"], answer["words"]) == (1.0, "A", 3)
        assert answer["tokens"] == len(sampler.ids)
    assert {answer["accuracy"] for answer in answers} <= {0.0, 1.0}
    shown = answering.settings(config, "s", policy={})
    assert shown["wording"] != answering.settings(policies.config(tiny_hf), "s", policy={})["wording"]


def test_a_reference_response_brings_its_own_beginning(tiny_hf: Path) -> None:
    """Supervised prompts are not prefilled: the trace has its <think>."""
    config = policies.config(tiny_hf, data__prompt="treevgr", **ROOMY)
    policy = policies.policy(config)
    example = datasets.source(config, "train", traces=True, size=1)[0]
    asked = setup.encoder(config, policy)
    supervised = setup.encoder(config, policy, responses=True)
    assert asked(example)[1].text == supervised(example)[1].text + "<think>"
    assert asked.measure(example).prompt == len(asked(example)[1].tokens)
