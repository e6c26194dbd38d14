"""What no training example can be measured by is said before a run begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
from test_rewards_score import EXAMPLE

from fgrpo_jax.records import Example
from fgrpo_jax.training.measuring import require_measured

OPEN = Example(
    id="o", images=(np.zeros((28, 28, 3), np.uint8),), question="?", options=(), answer="red", source="jsonl"
)
CHOICE = Example(id="c", images=OPEN.images, question="?", options=("red", "blue"), answer="A", source="jsonl")
BOXED = Example(
    id="b", images=OPEN.images, question="?", options=("x", "y"), answer="A", source="j", boxes=((0, 0, 9, 9),)
)
RULES: dict[str, Any] = {"judge__backend": "rules"}
NONE: dict[str, Any] = {"judge__backend": "none"}
SERVER: dict[str, Any] = {
    "judge__backend": "server",
    "judge__server__url": "http://localhost:8000/v1",
    "judge__server__model": "m",
}


def only(*names: str, **fields: Any) -> dict[str, Any]:
    """The paper's constraints, those named enabled."""
    every = ("consistency", "semantic_grounding", "spatial_grounding")
    return {f"constraints__{name}__enabled": name in names for name in every} | fields


def config(**fields: Any) -> Any:
    elsewhere = {"data__source": "jsonl", "data__path": "x", "data__eval_split": "held"}
    return policies.config(Path("unused"), **(elsewhere | fields))


REFUSED = {
    "R_S by rules": (
        only("semantic_grounding", **RULES),
        [CHOICE, BOXED],
        "config.judge.backend to 'server' or 'local'",
    ),
    "R_S by nobody": (only("semantic_grounding", **NONE), [CHOICE, EXAMPLE], "semantic_grounding.enabled=False"),
    "R_C of open questions": (only("consistency", **RULES), [OPEN], "'consistency' applies to none of the 1 training"),
    "R_G without boxes": (only("spatial_grounding", **SERVER), [CHOICE] * 3, "takes gold boxes"),
    "empty boxes": (
        only("spatial_grounding", **RULES),
        [dataclasses.replace(BOXED, boxes=())],
        "gold boxes",
    ),
    "by another name": (
        only(constraints__mine__signal="box_iou", constraints__mine__threshold=0.5),
        [CHOICE],
        "'box_iou' applies to none .* config.constraints.mine.enabled=False",
    ),
    "in the reward": (
        only(rewards__weights__semantic_grounding=0.5, **RULES),
        [CHOICE],
        "without it: config.rewards.weights.semantic_grounding=0",
    ),
    "a mixed reward": (
        only("consistency", "spatial_grounding", algorithm__aggregation="additive"),
        [CHOICE],
        "'spatial_grounding' .* another config.algorithm.aggregation",
    ),
    "gdpo": (only("semantic_grounding", algorithm__aggregation="gdpo", **RULES), [CHOICE], "'semantic_grounding'"),
    "the world without a judge": (
        {"data__source": "world", "data__path": "", "data__eval_split": "heldout", **NONE},
        [EXAMPLE] * 100,
        "'semantic_grounding'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_measure_is_refused(name: str) -> None:
    fields, source, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        require_measured(config(**fields), source)


TAKEN = {
    "a model reads": (only("consistency", "semantic_grounding", **SERVER), [OPEN]),
    "one with boxes, the last": (only("spatial_grounding", **RULES), [CHOICE] * 50 + [BOXED]),
    "rules read options": (only("consistency", **NONE), [OPEN, CHOICE]),
    "the world knows its scenes": (only("consistency", "semantic_grounding", "spatial_grounding", **RULES), [EXAMPLE]),
    "measured and no more": (only(**NONE), [OPEN]),
    "the task alone": ({"algorithm__aggregation": "grpo", **NONE}, [OPEN]),
    "gdpo without its weight": (
        only("semantic_grounding", algorithm__aggregation="gdpo", constraints__semantic_grounding__weight=0.0, **NONE),
        [OPEN],
    ),
    "applies everywhere": (only(constraints__answered__threshold=0.5, **NONE), [OPEN]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_some_example_has_is_taken(name: str) -> None:
    fields, source = TAKEN[name]
    checked = config(**fields)
    try:
        require_measured(checked, source)
    except ValueError as error:
        pytest.fail(f"refused: {error}")
    without = [one for one in source if one is not source[-1]]  # what the last one alone allows, the others do not
    if without and checked.active_constraints:
        with pytest.raises(ValueError, match="applies to none"):
            require_measured(checked, without)


def test_no_image_is_decoded_and_nothing_is_read_beyond_what_suffices() -> None:
    read: list[int] = []

    class Files:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Example:
            raise AssertionError("decodes")

        def outline(self, index: int) -> Example:
            read.append(index)
            return BOXED if index == 2 else CHOICE

    require_measured(config(**only("consistency", "spatial_grounding", **RULES)), Files())
    assert read == [0, 1, 2]
