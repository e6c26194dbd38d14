"""The training door: what a run leaves, resuming it bit for bit, and every kind of bad input."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
import runs
from safetensors.numpy import load_file, save_file

from fgrpo_jax import mesh as meshes
from fgrpo_jax import train
from fgrpo_jax.config.sections import CONSTRAINT_NAMES
from fgrpo_jax.rewards.judges.tally import METRICS
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import metrics, setup, stages
from fgrpo_jax.training.guards import Guards

STEPS = 4
MAKE_MESH = meshes.make_mesh  # as it is: the others here see one device


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick() as patch:
        patch.setattr(stages, "score", runs.earning(stages.score))
        yield


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(workdir, what was printed) of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("train") / "whole"
    code, out, err = runs.run(train, workdir, tiny_hf, num_steps=STEPS)
    assert code == 0, err
    return workdir, out


def state_of(hf: Path, workdir: Path) -> Any:
    config = policies.config(hf)
    policy = setup.policy(config)
    return runs.arrays(workdir, setup.learner(config, policy).init(policy.load("float32")))


# ------------------------------------------------------------------------------------------------------ what it leaves
def test_every_row_has_every_name(whole: tuple[Path, str]) -> None:
    found = read_rows(whole[0] / "metrics.jsonl")
    names = metrics.train_names(CONSTRAINT_NAMES)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    for row in found:
        assert tuple(row) == names
        undefined = {name for name, value in row.items() if value is None}
        assert undefined <= set(METRICS), "all constraints had applicable rollouts, but no model was asked"
        assert row["sampler/logp_diff_mean"] <= row["sampler/logp_diff_max"] < 1e-4
        assert row["optim/grad_norm"] > 1e-3 and row["optim/moved_share"] > 0.5 and row["optim/skipped"] == 0
        assert 0 < row["sampler/tokens"] <= 8 * 4 * 8 and row["sampler/tokens_per_second"] > 0
    lam = [row["constraint/consistency/lambda"] for row in found]
    assert lam[0] == 1.0 and len(set(lam)) == STEPS
    for before, after in itertools.pairwise(found):
        violation = before["constraint/consistency/violation"]
        rise = after["constraint/consistency/lambda"] - before["constraint/consistency/lambda"]
        np.testing.assert_allclose(rise, 0.05 * violation, atol=1e-6)


def test_programs_are_compiled_in_the_first_step_only(whole: tuple[Path, str]) -> None:
    assert {row["compile/count"] for row in read_rows(whole[0] / "metrics.jsonl")} == {2}


def test_rollouts_are_on_disk(whole: tuple[Path, str]) -> None:
    files = sorted((whole[0] / "rollouts").iterdir())
    assert [file.name for file in files] == [f"{step:06d}.jsonl" for step in range(1, STEPS + 1)]
    for file, row in zip(files, read_rows(whole[0] / "metrics.jsonl"), strict=True):
        lines = read_rows(file)
        assert len(lines) == 8 and all(len(line["rollouts"]) == 4 for line in lines)
        samples = [sample for line in lines for sample in line["rollouts"]]
        assert sum(sample["tokens"] for sample in samples) == row["sampler/tokens"]
        np.testing.assert_allclose(np.mean([s["accuracy"] for s in samples]), row["reward/accuracy"], atol=1e-6)
        for name in CONSTRAINT_NAMES:
            earned = [s[name] for s in samples if s[name] is not None]
            assert len(earned) == row[f"constraint/{name}/applicable"]
            np.testing.assert_allclose(np.mean(earned), row[f"constraint/{name}/mean"], atol=1e-6)
            assert lines[0]["lambda"][name] == pytest.approx(row[f"constraint/{name}/lambda"])
        assert all(line["gold"] in "ABCD"[: len(line["options"])] and line["question"] for line in lines)
    texts = {sample["text"] for sample in samples}
    assert len(texts) > 16, "other prompts, other members, other texts"


def test_held_out_figures_before_and_after(whole: tuple[Path, str]) -> None:
    workdir, out = whole
    before, after = (read_rows(workdir / "eval" / f"{when}.jsonl") for when in ("before", "after"))
    assert [a["id"] for a in before] == [a["id"] for a in after] and len(before) == 6
    assert all("-heldout-" in a["id"] for a in before)
    results = json.loads((workdir / "eval" / "results.json").read_text())["figures"]
    assert results["accuracy"]["count"] == 6 and results["accuracy"]["low"] <= results["accuracy"]["change"]
    assert "held-out figure" in out and "fgrpo_jax.export" in out and "the rules know nothing" not in out
    assert sorted(p.name for p in workdir.iterdir()) == [
        *("checkpoints", "config.json", "eval", "eval.jsonl", "metrics.jsonl", "rollouts", "tensorboard"),
    ]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2", "3", "4"]


# ------------------------------------------------------------------------------------------------------------- resuming
def equal_runs(hf: Path, a: Path, b: Path) -> None:
    assert runs.rows(a) == runs.rows(b)
    (ours, our_meta), (theirs, their_meta) = state_of(hf, a), state_of(hf, b)
    runs.same(ours, theirs)
    assert int(ours.step) == STEPS and our_meta.data == their_meta.data
    for pattern in ("rollouts/*.jsonl", "eval/*.jsonl"):
        ours, theirs = ({p.name: p.read_text() for p in w.glob(pattern)} for w in (a, b))
        assert ours == theirs and ours


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_and_resumed_equals_uninterrupted(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path, stop: int
) -> None:
    """And whether it waits for the disk makes no difference."""
    fields = {"checkpoint__wait": stop == 2}
    assert runs.run(train, tmp_path / "w", tiny_hf, num_steps=stop, **fields)[0] == 0
    assert len(runs.rows(tmp_path / "w")) == stop
    assert runs.run(train, tmp_path / "w", tiny_hf, num_steps=STEPS, **fields)[0] == 0
    equal_runs(tiny_hf, whole[0], tmp_path / "w")


def test_killed_between_checkpoints_and_resumed_equals_uninterrupted(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path
) -> None:
    """Rows and rollouts of steps that no checkpoint holds are written again; a line cut short is dropped."""
    workdir = tmp_path / "w"
    shutil.copytree(whole[0], workdir)
    for step in ("3", "4"):
        shutil.rmtree(workdir / "checkpoints" / step)
    (workdir / "rollouts" / "000004.jsonl").unlink()
    text = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(text[: text.rindex('"time/data"')])
    assert len(runs.rows(workdir)) == STEPS - 1
    assert runs.run(train, workdir, tiny_hf, num_steps=STEPS)[0] == 0
    equal_runs(tiny_hf, whole[0], workdir)


def test_interrupted_in_a_step_and_resumed_equals_uninterrupted(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the midst of step 3: exit code 130, and the run goes on from the checkpoint of step 2."""
    calls, score = [0], stages.score

    def stops(*args: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return score(*args, **settings)

    monkeypatch.setattr(stages, "score", stops)
    code, _, err = runs.run(train, tmp_path / "w", tiny_hf, num_steps=STEPS)
    assert code == 130 and "interrupted" in err and len(runs.rows(tmp_path / "w")) == 2
    monkeypatch.setattr(stages, "score", score)
    assert runs.run(train, tmp_path / "w", tiny_hf, num_steps=STEPS)[0] == 0
    equal_runs(tiny_hf, whole[0], tmp_path / "w")


@pytest.mark.parametrize("how", ["trouble", "error"])
def test_stopped_by_a_guard_before_the_next_update_and_resumed_equals_uninterrupted(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What step 2 finds out while step 3 draws: trouble has its state saved, an error leaves step 2 undone."""
    workdir, calls = tmp_path / "w", [0]
    fields = {"num_steps": STEPS, "checkpoint__every": 1 if how == "error" else 0}
    name = "logps" if how == "error" else "trouble"
    was = vars(Guards)[name]

    def second(*args: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] < 2:
            return was(*args, **settings)
        if how == "error":
            raise ValueError("two models")
        return "the judge fails"

    with monkeypatch.context() as patch:
        patch.setattr(Guards, name, second)
        code, _, err = runs.run(train, workdir, tiny_hf, **fields)
    assert code == 1 and ("two models" if how == "error" else "the judge fails") in err and calls == [2]
    done = 1 if how == "error" else 2
    assert [row["step"] for row in runs.rows(workdir)] == list(range(1, done + 1))
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == [str(done)]
    assert runs.run(train, workdir, tiny_hf, **fields)[0] == 0
    equal_runs(tiny_hf, whole[0], workdir)


def test_a_finished_run_started_again_changes_nothing(whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    shutil.copytree(whole[0], workdir)
    assert runs.run(train, workdir, tiny_hf, num_steps=STEPS)[0] == 0
    equal_runs(tiny_hf, whole[0], workdir)


@pytest.mark.slow
def test_a_refreshed_reference_is_the_policy_of_its_step_and_survives_a_restart(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path
) -> None:
    """Every second step: two steps as without, then the distance is counted anew, stopped after step 3 or not."""
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    every = {"algorithm__reference_every": 2}
    assert runs.run(train, through, tiny_hf, num_steps=STEPS, **every)[0] == 0
    for steps in (3, STEPS):
        assert runs.run(train, stopped, tiny_hf, num_steps=steps, **every)[0] == 0
    equal_runs(tiny_hf, through, stopped)
    kept, renewed = ([row["loss/kl"] for row in runs.rows(workdir)] for workdir in (whole[0], through))
    assert renewed[:2] == kept[:2] and renewed[2] < kept[2]
    saved = {step: through / "checkpoints" / str(step) for step in range(1, STEPS + 1)}
    assert [step for step in saved if (saved[step] / "reference").is_dir()] == [2, 3, 4]


# ------------------------------------------------------------------------------------------------------------ bad input
def refused(workdir: Path, hf: Path, *words: str, **fields: Any) -> str:
    """Runs the door, which must refuse in one message that holds all `words` and leave nothing at all."""
    code, out, err = runs.run(train, workdir, hf, **fields)
    assert code == 1 and err.startswith("error: ") and "Traceback" not in err, err
    for word in words:
        assert word in err, f"{word!r} is not in {err!r}"
    assert not workdir.exists() and not out
    return err


def test_unknown_config_key(tiny_hf: Path, tmp_path: Path) -> None:
    refused(tmp_path / "w", tiny_hf, "config.num_step'", "did you mean 'num_steps'?", num_step=3)
    refused(tmp_path / "w", tiny_hf, "optim.learning_rat'", "did you mean 'learning_rate'?", optim__learning_rat=1)


@pytest.fixture
def broken_hf(tiny_hf: Path, tmp_path: Path) -> Path:
    """A copy of the policy's folder, to be broken."""
    shutil.copytree(tiny_hf, tmp_path / "hf")
    return tmp_path / "hf"


def test_missing_and_truncated_safetensors(broken_hf: Path, tmp_path: Path) -> None:
    file = broken_hf / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "w", broken_hf, "model.safetensors is not a whole safetensors file", "again")
    file.unlink()
    refused(tmp_path / "w", broken_hf, str(broken_hf), "holds neither model.safetensors nor")
    refused(tmp_path / "w", tmp_path / "nowhere", "nowhere' holds no config.json", "give a folder in HF format")


@pytest.mark.parametrize("kind", ["shape", "extra", "missing"])
def test_wrong_tensors(broken_hf: Path, tmp_path: Path, kind: str) -> None:
    file = broken_hf / "model.safetensors"
    tensors, name = load_file(file), "model.layers.1.mlp.up_proj.weight"
    words = {"missing": ["1 tensors missing", name], "extra": ["unknown tensor", "model.layers.9.odd"]}
    words["shape"] = [name, "model.safetensors", "has shape (48, 31)", "(48, 32)"]
    if kind == "shape":
        tensors[name] = np.ascontiguousarray(tensors[name][:, :-1])
    elif kind == "extra":
        tensors["model.layers.9.odd"] = tensors[name]
    else:
        del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    refused(tmp_path / "w", broken_hf, *words[kind])


JSONL: dict[str, Any] = {"data__source": "jsonl", "eval__examples": 0, "judge__backend": "none", "num_steps": 2}
JSONL |= {f"constraints__{name}__enabled": False for name in ("semantic_grounding", "spatial_grounding")}


@pytest.fixture
def questions(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    return tmp_path / "data", runs.write_questions(tmp_path / "data", count=16)


@pytest.mark.slow
def test_our_own_format_trains(questions: tuple[Path, Any], tiny_hf: Path, tmp_path: Path) -> None:
    """What the next tests break works when it is whole; and under the rules it is said what these leave open."""
    fields = {**JSONL, "judge__backend": "rules", "data__path": questions[0]}
    code, out, err = runs.run(train, tmp_path / "w", tiny_hf, **fields)
    assert code == 0, err
    assert "the rules know nothing of these questions" in out and "Set config.judge.backend to 'local'" in out
    found = runs.rows(tmp_path / "w")
    assert [row["step"] for row in found] == [1, 2]
    assert all(row["judge/abstained"] >= 0 == row["judge/failed"] for row in found)


def test_a_constraint_that_nobody_can_measure_stops_the_run_before_it_begins(
    questions: tuple[Path, Any], tiny_hf: Path, tmp_path: Path
) -> None:
    """λ_S stood at 1.0 for a whole run, masked for ever, and nothing said so."""
    fields = {**JSONL, "judge__backend": "rules", "data__path": questions[0]}
    fields["constraints__semantic_grounding__enabled"] = True
    words = ("'semantic_grounding' applies to none of the 16 training examples", "set config.judge.backend to 'server'")
    refused(tmp_path / "w", tiny_hf, *words, "config.constraints.semantic_grounding.enabled=False", **fields)


def test_an_example_without_an_answer(questions: tuple[Path, Any], tiny_hf: Path, tmp_path: Path) -> None:
    folder, lines = questions
    del lines[11]["answer"]
    runs.write_lines(folder, lines)
    words = ("train.jsonl, line 12: no 'answer'", "add the right answer or remove the line")
    refused(tmp_path / "w", tiny_hf, *words, data__path=folder, **JSONL)
    lines[11]["answer"] = " "
    runs.write_lines(folder, lines)
    refused(tmp_path / "w", tiny_hf, "line 12: 'answer' is empty", data__path=folder, **JSONL)


def order_of(hf: Path, folder: Path) -> list[int]:
    """The questions of the second step."""
    config = policies.config(hf, data__path=folder, **JSONL)
    data = setup.training_batches(config, setup.policy(config))
    second = [next(data) for _ in range(2)][1]
    data.close()
    return [int(example.id.removeprefix("q")) for example in second.examples]


def test_an_image_that_does_not_decode_is_known_before_the_run_when_it_comes_first(
    questions: tuple[Path, Any], tiny_hf: Path, tmp_path: Path
) -> None:
    first = next(i for i in range(16) if i not in order_of(tiny_hf, questions[0]))
    file = questions[0] / f"train-{first}.png"
    file.write_bytes(file.read_bytes()[:300])
    words = (f"line {first + 1}:", f"train-{first}.png does not decode", "replace the file or remove its example")
    refused(tmp_path / "w", tiny_hf, *words, data__path=questions[0], **JSONL)


def test_an_image_that_does_not_decode_stops_a_run_between_steps(
    questions: tuple[Path, Any], tiny_hf: Path, tmp_path: Path
) -> None:
    """The first step is whole, in metrics, rollouts and checkpoint; of the second there is nothing."""
    later, workdir = order_of(tiny_hf, questions[0])[3], tmp_path / "w"
    file = questions[0] / f"train-{later}.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:300])
    code, _, err = runs.run(train, workdir, tiny_hf, data__path=questions[0], **JSONL)
    assert code == 1 and err.startswith("error: ") and f"train-{later}.png does not decode" in err, err
    assert len(runs.rows(workdir)) == 1
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["1"]
    assert [p.name for p in (workdir / "rollouts").iterdir()] == ["000001.jsonl"]
    assert not list(workdir.rglob("*.tmp"))
    file.write_bytes(whole)
    assert runs.run(train, workdir, tiny_hf, data__path=questions[0], **JSONL)[0] == 0
    assert [row["step"] for row in runs.rows(workdir)] == [1, 2]


def test_a_prompt_longer_than_the_limit(tiny_hf: Path, tmp_path: Path) -> None:
    words = ("a prompt of ", "exceeds max_prompt_tokens 20", "raise it")
    refused(tmp_path / "w", tiny_hf, *words, data__max_prompt_tokens=20)
    words = ("prompt tokens do not fit the largest bucket, 32", "add a larger bucket")
    refused(tmp_path / "w", tiny_hf, *words, data__buckets__prompt=(32,))


def test_a_freeze_rule_that_matches_nothing(tiny_hf: Path, tmp_path: Path) -> None:
    words = ("freeze rule 'vision/**' matches no parameter", "top-level names are text, visual")
    refused(tmp_path / "w", tiny_hf, *words, model__freeze=("vision/**",))


def test_a_workdir_that_holds_another_run(whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    shutil.copytree(whole[0], workdir)
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    code, _, err = runs.run(train, workdir, tiny_hf, seed=7)
    assert code == 1 and "holds another run" in err and "seed: 0 → 7" in err and "--overwrite" in err
    assert {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()} == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    code, _, err = runs.run(train, tmp_path / "thesis", tiny_hf)
    assert code == 1 and "is not empty (thesis.tex) and holds no run" in err


def test_a_mesh_that_does_not_divide_the_devices(
    tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "make_mesh", MAKE_MESH)
    words = ("mesh.fsdp=3", "needs a multiple of 3 devices but there are 8", "choose sizes whose product is 8")
    refused(tmp_path / "w", tiny_hf, *words, mesh__fsdp=3)
    words = ("config.algorithm.micro_batch_prompts=4 prompts cannot be split", "use a multiple of 8")
    refused(tmp_path / "w", tiny_hf, *words)
