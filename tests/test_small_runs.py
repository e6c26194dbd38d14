"""Whole runs for claims that no smaller test shows: chosen shapes, every published set, a policy as its own judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
import runs

from fgrpo_jax import train
from fgrpo_jax.data.sets.catalogue import SETS
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import setup

pytestmark = pytest.mark.slow
SHIPPED = setup.model_folder(setup.SHIPPED)
PLAIN: dict[str, Any] = {"eval__examples": 0, "log__tensorboard": False}
SHORT = {**PLAIN, "rollout__max_new_tokens": 8, "rollout__group_size": 2}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


def trained(workdir: Path, **fields: Any) -> list[dict[str, Any]]:
    """The rows of a run of the shipped policy."""
    code, _, err = runs.run(train, workdir, SHIPPED, **fields)
    assert code == 0, err
    return read_rows(workdir / "metrics.jsonl")


def test_chosen_shapes_are_all_compiled_before_the_first_step(tmp_path: Path) -> None:
    """Prompts of the `easy` world, whose images are 168 to 448 pixels a side, in three shapes."""
    fields = {"data__world__difficulty": "easy", "data__min_pixels": 28 * 28, "data__max_pixels": 448 * 448}
    fields |= {"data__max_prompt_tokens": 512, "data__buckets__prompt": (), "data__buckets__patches": ()}
    found = trained(tmp_path / "w", **SHORT, **fields, num_steps=25, data__buckets__choose=3, checkpoint__every=0)
    assert len(found) == 25 and max(row["compile/count"] for row in found) <= 6
    assert {row["compile/count"] for row in found} == {found[0]["compile/count"]}
    assert sum(row["data/padding_waste"] for row in found) / len(found) <= 0.5


@pytest.mark.parametrize("name", SETS)
def test_two_steps_on_every_set(name: str, tmp_path: Path) -> None:
    layouts.write(name, tmp_path / "data")
    split = layouts.LAYOUTS[name].split
    # The warm start reads other words than the world's byte by byte, so prompts are long.
    fields = {"data__max_prompt_tokens": 512, "data__buckets__prompt": (512,), "data__prompts_per_step": 2}
    fields |= {"rollout__batch_prompts": 2, "algorithm__micro_batch_prompts": 1, "checkpoint__every": 0}
    fields |= {"data__source": name, "data__path": tmp_path / "data", "judge__backend": "none"}
    fields |= {"data__train_split": f"{split}[1:]", "data__eval_split": f"{split}[:1]"}
    fields |= {
        f"constraints__{name}__enabled": False for name in ("consistency", "semantic_grounding", "spatial_grounding")
    }
    fields |= {"constraints__answered__threshold": 0.5}  # what can be measured on any of them
    assert len(trained(tmp_path / "w", **SHORT, **fields, num_steps=2)) == 2


def test_a_policy_that_judges_itself(tmp_path: Path) -> None:
    """In one go; stopped half-way; and with the verdicts on file, where the model is asked nothing."""
    fields = {**PLAIN, "judge__backend": "local", "judge__local__hf": SHIPPED, "judge__local__dtype": "float32"}
    fields |= {"optim__schedule": "constant", "rollout__max_new_tokens": 48}
    whole = trained(tmp_path / "whole", **fields, num_steps=2)
    assert sum(row["judge/requests"] for row in whole) > 0 and not any(row["judge/failed"] for row in whole)
    assert min(row["constraint/semantic_grounding/applicable"] for row in whole) > 0
    trained(tmp_path / "parts", **fields, num_steps=1)
    trained(tmp_path / "parts", **fields, num_steps=2)
    again = trained(tmp_path / "again", **fields, num_steps=2, judge__cache=tmp_path / "whole" / "judge.sqlite")
    assert not any(row["judge/requests"] for row in again)
    kept = [name for name in whole[0] if name.startswith(("constraint/", "reward/", "loss/"))]
    for other in (read_rows(tmp_path / "parts" / "metrics.jsonl"), again):
        assert [[row[name] for name in kept] for row in other] == [[row[name] for name in kept] for row in whole]
