"""The supervised door: what it leaves, its validation loss, the best checkpoint, resuming bit for bit, bad data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import policies
import pytest
import runs
from safetensors.numpy import load_file

from fgrpo_jax import command, export, sft
from fgrpo_jax import mesh as meshes
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import checkpoint, datasets, setup, supervised

STEPS = 4
MAKE_MESH = meshes.make_mesh  # as it is: the others here see one device


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("sft") / "whole"
    code, _, err = runs.run(sft, workdir, tiny_hf)
    assert code == 0, err
    return workdir


def state_of(hf: Path, workdir: Path) -> Any:
    config = policies.config(hf)
    policy = setup.policy(config)
    return runs.arrays(workdir, setup.supervised_learner(config, policy).init(policy.load("float32")))


def without_times(workdir: Path) -> list[dict[str, Any]]:
    return runs.rows(workdir) + runs.rows(workdir, file="eval.jsonl")


def test_a_run_learns_and_leaves_what_it_says(whole: Path) -> None:
    found, validation = read_rows(whole / "metrics.jsonl"), read_rows(whole / "eval.jsonl")
    assert [row["step"] for row in found] == [row["step"] for row in validation] == list(range(1, STEPS + 1))
    assert all(np.isfinite(list(row.values())).all() for row in found)
    assert validation[-1]["loss"] < validation[0]["loss"] and found[0]["optim/grad_norm"] > 1e-3
    assert sorted(p.name for p in whole.iterdir()) == [
        "best",
        "checkpoints",
        "config.json",
        "eval.jsonl",
        "metrics.jsonl",
    ]
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["1", "2", "3", "4"]
    lowest = min(validation, key=lambda row: row["loss"])
    assert checkpoint.read_meta(whole / "best").step == lowest["step"]


def test_the_best_checkpoint_exports(whole: Path, tmp_path: Path, tiny_hf: Path) -> None:
    argv = [f"--checkpoint={whole / 'best'}", f"--out={tmp_path / 'hf'}"]
    assert command.run(export.main, export.parser(), argv) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_hf, tmp_path / "hf"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "model.embed_tokens.weight" in moved and "visual.merger.mlp.0.weight" in moved


def test_the_first_loss_is_the_cross_entropy_of_the_reference_responses(whole: Path, tiny_hf: Path) -> None:
    """By transformers' definition: mean over response tokens of −log softmax at the token, prompt tokens left out."""
    config = policies.config(tiny_hf)
    policy = setup.policy(config)
    data = setup.supervised_batches(config, policy, split="train", repeat=True)
    batch = next(data)
    data.close()
    assert batch.tokens is not None and batch.mask is not None
    params, prompts, total = policy.load("float32"), batch.prompts, 0.0
    features = policy.model.encode(params, prompts.vision)
    hidden, prefix = policy.model.prefix(params, prompts, features)
    after = policy.model.suffix(
        params, batch.tokens, batch.mask, prompts.next_position, prefix=prefix, prefix_mask=prompts.mask
    )
    for row in range(len(batch.mask)):
        length = int(batch.mask[row, 0].sum())
        last = int(prompts.mask[row].sum()) - 1
        states = np.concatenate([hidden[row, last][None], after[row, 0, : length - 1]])
        logits = np.array(policy.model.logits(params, states), np.float64)
        logits[:, policy.processor.banned] = -np.inf
        target = batch.tokens[row, 0, :length]
        total += (np.log(np.exp(logits).sum(-1)) - logits[np.arange(length), target]).sum()
    first = read_rows(whole / "metrics.jsonl")[0]
    assert first["tokens"] == batch.mask.sum()
    np.testing.assert_allclose(first["loss"], total / batch.mask.sum(), rtol=1e-5)


def test_every_validation_trace_counts_once(tiny_hf: Path, tmp_path: Path) -> None:
    """Six traces in batches of four: the filling of the second batch is no part of the mean."""
    run = supervised.SupervisedRun(policies.config(tiny_hf, sft__eval_examples=6), tmp_path)
    batches = run.validation_batches()
    counted = [supervised.to_batch(batch).mask.sum((1, 2)) for batch in batches]
    batches.close()
    source = datasets.source(run.config, "validation", traces=True, size=6)
    lengths = [len(run.policy.processor.encode_response(source[i].trace or "", None)) for i in range(6)]
    assert [len(rows) for rows in counted] == [4, 4]
    assert np.concatenate(counted).tolist()[:6] == lengths and counted[1][2:].sum() == 0


# ------------------------------------------------------------------------------------------------------------- resuming
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_and_resumed_equals_uninterrupted(
    whole: Path, tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Ctrl-C after step `stop` + 1 and before its checkpoint: that step is done again."""
    validate, calls = supervised.SupervisedRun.validate, [0]

    def stops(self: Any, state: Any) -> float:
        calls[0] += 1
        if calls[0] == stop + 1:
            raise KeyboardInterrupt
        return validate(self, state)

    monkeypatch.setattr(supervised.SupervisedRun, "validate", stops)
    assert runs.run(sft, tmp_path / "w", tiny_hf)[0] == 130
    assert checkpoint.resolve(tmp_path / "w").name == str(stop)
    monkeypatch.setattr(supervised.SupervisedRun, "validate", validate)
    assert runs.run(sft, tmp_path / "w", tiny_hf)[0] == 0
    assert without_times(tmp_path / "w") == without_times(whole)
    (ours, our_meta), (theirs, their_meta) = state_of(tiny_hf, whole), state_of(tiny_hf, tmp_path / "w")
    runs.same(ours, theirs)
    assert our_meta.data == their_meta.data
    best = [checkpoint.load_params(w / "best", jax.eval_shape(lambda: ours.params)) for w in (whole, tmp_path / "w")]
    runs.same(*jax.device_get(best))


def test_killed_between_best_and_checkpoint_finds_the_best_again(whole: Path, tiny_hf: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "w" / "best")  # the worst moment of its replacement: the old gone, the new not in place
    (tmp_path / "w" / "best.new").mkdir()
    assert runs.run(sft, tmp_path / "w", tiny_hf)[0] == 0
    assert without_times(tmp_path / "w") == without_times(whole)
    assert checkpoint.read_meta(tmp_path / "w" / "best").step == checkpoint.read_meta(whole / "best").step
    assert not (tmp_path / "w" / "best.new").exists()


def test_only_what_the_run_reads_must_be_the_same_to_resume_it(whole: Path, tiny_hf: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "w")
    others = {"constraints__consistency__threshold": 0.5, "optim__learning_rate": 1.0, "model__freeze": ("text/**",)}
    code, _, err = runs.run(sft, tmp_path / "w", tiny_hf, **others)
    assert code == 0, err
    for name, value in {"sft__learning_rate": 1.0, "optim__b1": 0.5, "data__world__flawed": 0.9}.items():
        code, _, err = runs.run(sft, tmp_path / "w", tiny_hf, **{name: value})
        assert code == 1 and "holds another run" in err and name.replace("__", ".") in err


def test_a_target_loss_ends_the_run_for_good(tiny_hf: Path, tmp_path: Path) -> None:
    for _ in range(2):
        code, _, err = runs.run(sft, tmp_path / "w", tiny_hf, sft__target_loss=100.0)
        assert code == 0, err
        assert [row["step"] for row in runs.rows(tmp_path / "w")] == [1]
    assert checkpoint.resolve(tmp_path / "w").name == "1"


# ------------------------------------------------------------------------------------------------------------ bad input
def refused(workdir: Path, hf: Path, *words: str, **fields: Any) -> None:
    code, _, err = runs.run(sft, workdir, hf, **fields)
    assert code == 1 and err.startswith("error: ") and "Traceback" not in err, err
    for word in words:
        assert word in err, f"{word!r} is not in {err!r}"
    assert not workdir.exists()


def test_bad_settings_and_data_leave_nothing(tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = tmp_path / "w"
    refused(workdir, tiny_hf, "did you mean 'eval_every'", sft__eval_evry=1)
    refused(workdir, tiny_hf, "do not fit the largest bucket, 16", data__buckets__completion=(16,))
    refused(workdir, tiny_hf, "exceeds max_prompt_tokens 20", data__max_prompt_tokens=20)
    refused(workdir, tiny_hf, "freeze rule 'vision/**' matches no parameter", sft__freeze=("vision/**",))
    shutil.copytree(tiny_hf, tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    refused(workdir, tmp_path / "hf", "holds neither model.safetensors nor")
    folder = tmp_path / "data"
    lines = runs.write_questions(folder, count=8)
    runs.write_questions(folder, count=8, split="validation")
    jsonl: dict[str, Any] = {"data__source": "jsonl", "data__path": folder, "judge__backend": "none"}
    refused(workdir, tiny_hf, "train.jsonl, line 1: has no trace", **jsonl)
    for line in lines:
        line["trace"] = "<think>It is at <bbox>[0,0,28,28]</bbox>.</think><answer>A</answer>"
    runs.write_lines(folder, lines)
    runs.write_lines(folder, [json.loads(json.dumps(line)) for line in lines[:3]], split="validation")
    refused(workdir, tiny_hf, "8 examples were asked of a source that holds 3", **jsonl)
    monkeypatch.setattr(meshes, "make_mesh", MAKE_MESH)
    refused(workdir, tiny_hf, "config.sft.micro_batch=2 prompts cannot be split", "use a multiple of 8")
