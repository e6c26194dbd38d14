"""Training under a judge behind HTTP: failures are masks, too many stop the run, nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import scripted_judge

from fgrpo_jax import train
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import checkpoint, setup

FIELDS: dict[str, Any] = {
    "rollout__max_new_tokens": 48,
    "rollout__batch_prompts": 4,
    "data__buckets__prompt": (64,),
    "data__world__yes_no": 0.03,
    "optim__learning_rate": 1e-4,
    "eval__examples": 0,
    "log__tensorboard": False,
    "judge__backend": "server",
    "judge__precheck": False,
    "judge__min_failures": 5,
    "judge__server__model": scripted_judge.MODEL,
    "judge__server__retries": 0,
}
SHIPPED = setup.model_folder(setup.SHIPPED)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


def run(workdir: Path, judge: scripted_judge.Judge, **fields: Any) -> tuple[int, str]:
    with scripted_judge.serve(judge):
        code, _, err = runs.run(train, workdir, SHIPPED, **{**FIELDS, "judge__server__url": judge.url, **fields})
    return code, err


def samples(workdir: Path) -> list[dict[str, Any]]:
    files = sorted((workdir / "rollouts").iterdir())
    return [sample for file in files for line in read_rows(file) for sample in line["rollouts"]]


def asked(judge: scripted_judge.Judge) -> list[str]:
    return [json.dumps(body["messages"]) for body in judge.bodies]


def agree(body: dict[str, Any]) -> str:
    return "CORRECT" if "CORRECT" in scripted_judge.words(body).splitlines()[-1] else "YES"


@pytest.mark.slow
def test_failures_are_masks_and_too_many_stop_the_run(tmp_path: Path) -> None:
    """Then the same command goes on where it stopped, and asks for nothing that was answered before."""
    workdir = tmp_path / "w"
    plan = [*["good", "good", "good", "empty"] * 30, *["status_500"] * 1000]
    failing = scripted_judge.Judge(plan=plan, answer=agree)
    with pytest.warns(UserWarning, match="judgements failed and are masked, most of them"):
        code, err = run(workdir, failing, num_steps=8, judge__max_failure_rate=0.5)
    rows = read_rows(workdir / "metrics.jsonl")
    assert code == 1 and "error: the judge failed on" in err and "the last state is saved" in err and len(rows) < 8
    saved = checkpoint.Checkpoints(workdir / "checkpoints")
    assert saved.latest == len(rows)
    saved.close()
    right = [sample for sample in samples(workdir) if sample["accuracy"] == 1]
    values = [sample[name] for sample in right for name in ("consistency", "semantic_grounding")]
    assert 1.0 in values and None in values and 0.0 not in values, "all was well, or unknown"
    for row in rows:
        assert row["judge/failed"] > 0 and row["judge/requests"] > 0 and row["judge/failure_rate"] > 0

    good = scripted_judge.Judge(answer=agree)
    code, err = run(workdir, good, num_steps=8, judge__max_failure_rate=0.4)
    assert code == 0, err
    answered = {text for text, step in zip(asked(failing), plan, strict=False) if step == "good"}
    assert not answered & set(asked(good)) and len(set(asked(good))) == len(asked(good))
    rows = read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {row["judge/failed"] for row in rows[saved.latest or 0 :]} == {0}

    again = scripted_judge.Judge(answer=agree)
    code, err = run(tmp_path / "again", again, num_steps=8, judge__cache=workdir / "judge.sqlite")
    assert code == 0, err
    repeated = set(asked(again)) - {text for text, step in zip(asked(failing), plan, strict=False) if step != "good"}
    assert len(repeated) < len(asked(good)), "steps that trained on the same verdicts ask nothing"


@pytest.mark.slow
def test_overlapped_judging_trains_the_same(tmp_path: Path) -> None:
    """Two parts a step judged beside the rollout, under a slow judge and an instant one; and without any cache."""
    told = []
    for name, latency, fields in (("a", 0.0, {}), ("b", 0.15, {"judge__cache": ""})):
        code, err = run(tmp_path / name, scripted_judge.Judge(latency=latency), num_steps=2, **fields)
        assert code == 0, err
        told.append(runs.rows(tmp_path / name))
    assert told[0] == told[1]
    assert (tmp_path / "a" / "judge.sqlite").exists() and not (tmp_path / "b" / "judge.sqlite").exists()


def test_what_is_stored_of_a_run_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-do-not-write-me-down"
    monkeypatch.setenv("FGRPO_TEST_KEY", key)
    judge = scripted_judge.Judge(plan=("good", "status_401"))
    with pytest.warns(UserWarning, match=r"bad Bearer \*\*\*"):
        code, err = run(
            tmp_path / "w", judge, num_steps=1, judge__server__key_env="FGRPO_TEST_KEY", judge__max_failure_rate=1.0
        )
    assert code == 0 and key not in err, err
    assert {headers["Authorization"] for headers in judge.headers} == {f"Bearer {key}"}
    for file in (tmp_path / "w").rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file


def test_a_judge_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    code, _, err = runs.run(train, tmp_path / "w", SHIPPED, **FIELDS, judge__server__url="http://127.0.0.1:9/v1")
    assert code == 1 and "error: the judge at http://127.0.0.1:9/v1 does not answer" in err
    assert not (tmp_path / "w").exists()
