"""The evaluation door: what it writes, which policy it takes, and that speaking the reference traces scores full."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
import runs

from fgrpo_jax import command, convert, evaluate
from fgrpo_jax import mesh as meshes
from fgrpo_jax.evaluation import figures, heldout
from fgrpo_jax.records import Rollouts
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import datasets, judges, setup

MAKE_MESH = meshes.make_mesh  # as it is: the others here see one device


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


@pytest.fixture(scope="module")
def whole(tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(workdir, what was printed) of one evaluation."""
    workdir = tmp_path_factory.mktemp("evaluate") / "w"
    code, out, err = runs.run(evaluate, workdir, tiny_hf)
    assert code == 0, err
    return workdir, out


def test_answers_and_results_are_written(whole: tuple[Path, str], tiny_hf: Path) -> None:
    workdir, out = whole
    answers = read_rows(workdir / "eval" / "world-heldout.jsonl")
    assert [answer["index"] for answer in answers] == list(range(6)) and len({answer["id"] for answer in answers}) == 6
    found = json.loads((workdir / "eval" / "results.json").read_text())
    protocol, of_set = found["protocol"], found["sets"]["world-heldout"]
    assert (of_set["questions"], protocol["temperature"]) == (6, 1.0)
    assert protocol["policy"]["name"] == str(tiny_hf) and protocol["pixels"] == {"min": 84 * 84, "max": 112 * 112}
    assert protocol["extractor"] == {"backend": "rules"} and protocol["judge"]["backend"] == "rules"
    for name in ("accuracy", "format", "semantic_grounding", "spatial_grounding", "box_iou"):
        defined = [answer[name] for answer in answers if answer[name] is not None]
        assert of_set["figures"][name]["value"] == (pytest.approx(np.mean(defined)) if defined else None)
        assert of_set["figures"][name]["count"] == len(defined)
        assert name in out
    assert "waiting for data" in out and "paper:" not in out, "the paper says nothing of the built-in world"
    assert "the rules know nothing" not in out, "they know all of it"
    for name in ("results.md", "results.tex"):
        assert "accuracy (paper)" in (workdir / "eval" / name).read_text()
    assert not list(workdir.rglob("*.tmp"))


def test_what_the_rules_leave_open_is_said_and_counted(tiny_hf: Path, tmp_path: Path) -> None:
    runs.write_questions(tmp_path / "data", count=4, split="heldout")
    fields = {"data__source": "jsonl", "data__path": tmp_path / "data", "eval__examples": 4}
    code, out, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 0, err
    assert "jsonl-heldout: the rules know nothing of these questions" in out and "config.eval.judge.backend to" in out
    answers = read_rows(tmp_path / "w" / "eval" / "jsonl-heldout.jsonl")
    assert all(answer["semantic_grounding"] is None and answer["judge_failed"] == 0 for answer in answers)
    open_ = sum(answer["consistency"] is None for answer in answers)
    assert sum(answer["judge_abstained"] for answer in answers) == open_


def test_noise_is_that_of_the_question(whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path) -> None:
    """The same answers again, with another run seed and in other batches; other answers with another eval seed."""
    texts = lambda workdir: [a["text"] for a in read_rows(workdir / "eval/world-heldout.jsonl")]  # noqa: E731
    assert runs.run(evaluate, tmp_path / "a", tiny_hf, seed=5)[0] == 0
    assert texts(tmp_path / "a") == texts(whole[0])
    assert runs.run(evaluate, tmp_path / "b", tiny_hf, eval__examples=3)[0] == 0
    assert texts(tmp_path / "b") == texts(whole[0])[:3]
    assert runs.run(evaluate, tmp_path / "c", tiny_hf, eval__seed=5)[0] == 0
    assert texts(tmp_path / "c") != texts(whole[0])


def test_a_checkpoint_answers_as_the_folder_it_was_made_of(
    whole: tuple[Path, str], tiny_hf: Path, tmp_path: Path
) -> None:
    argv = [f"--hf={tiny_hf}", f"--out={tmp_path / 'c'}"]
    assert command.run(convert.main, convert.parser(), argv) == 0
    other = policies.write(tmp_path / "other", seed=1)
    flag = f"--checkpoint={tmp_path / 'c'}"
    assert runs.run(evaluate, tmp_path / "w", other, flag)[0] == 0
    read = lambda workdir: (workdir / "eval/world-heldout.jsonl").read_text()  # noqa: E731
    assert read(tmp_path / "w") == read(whole[0])
    assert runs.run(evaluate, tmp_path / "v", other, f"--hf={tiny_hf}")[0] == 0
    assert read(tmp_path / "v") == read(whole[0])
    assert runs.run(evaluate, tmp_path / "u", other)[0] == 0
    assert read(tmp_path / "u") != read(whole[0]), "another policy, other answers"
    code, _, err = runs.run(evaluate, tmp_path / "x", other, flag, f"--hf={tiny_hf}")
    assert code == 1 and "--hf and --checkpoint both name a policy" in err and not (tmp_path / "x").exists()


def test_a_mesh_that_does_not_divide_the_batch_is_named(
    tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "make_mesh", MAKE_MESH)
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf)
    assert code == 1 and err.startswith("error: config.eval.batch_prompts=4 prompts cannot be split"), err
    assert not (tmp_path / "w").exists()


def test_means_leave_out_what_is_undefined() -> None:
    rows: list[dict[str, Any]] = [{**dict.fromkeys(figures.MEANS), "accuracy": value} for value in (0.0, 1.0)]
    rows[0]["consistency"], rows[1]["consistency"] = None, 1.0
    means = figures.means(rows)
    assert means["accuracy"] == 0.5 and means["consistency"] == 1.0 and means["box_iou"] is None


# ------------------------------------------------------------------------------------------ policies with known figures
class Recite:
    """A sampler that says the reference trace of each question."""

    def __init__(self, config: Any, policy: setup.Policy) -> None:
        heldout = config.data.eval_split
        source = datasets.source(config, heldout, traces=True, size=config.eval.examples)
        encode = setup.encoder(config, policy, responses=True)
        self._said = {}
        for index in range(len(source)):
            _, prompt, response = encode(source[index])
            self._said[prompt.prompt_id] = response

    def lay_out(self, params: Any) -> Any:
        return params

    def sample(self, params: Any, prompts: Any, **_: Any) -> Rollouts:
        said = [self._said[int(i)] for i in np.asarray(prompts.prompt_id)]
        length = max(map(len, said))
        tokens = np.stack([np.pad(row, (0, length - len(row))) for row in said])[:, None]
        mask = np.stack([np.arange(length) < len(row) for row in said])[:, None]
        zero = np.zeros(tokens.shape, np.float32)
        return Rollouts(tokens=tokens, mask=mask, logps=zero, finished=np.ones(tokens.shape[:2], bool))


def recited(tiny_hf: Path, *, flawed: float) -> list[figures.Answer]:
    config = policies.config(tiny_hf, eval__examples=24, data__world__flawed=flawed)
    policy = setup.policy(config)
    scorer = judges.scorer(config, policy, Path(), purpose="eval")
    return heldout.evaluate(config, policy, None, Recite(config, policy), scorer=scorer)  # type: ignore[arg-type]


def test_sound_reference_traces_score_full(tiny_hf: Path) -> None:
    answers = recited(tiny_hf, flawed=0.0)
    assert len(answers) == 24
    means = figures.means(answers)
    for name in ("accuracy", "format", "consistency", "semantic_grounding"):
        assert means[name] == 1.0, name
    assert means["spatial_grounding"] > 0.9 and means["box_iou"] > 0.9


def test_flawed_reference_traces_lose_what_their_flaw_says(tiny_hf: Path) -> None:
    config = policies.config(tiny_hf, eval__examples=24, data__world__flawed=1.0)
    source = datasets.source(config, "heldout", traces=True, size=24)
    flaws = [source[index].flaw for index in range(24)]
    answers = recited(tiny_hf, flawed=1.0)
    assert len(set(flaws)) > 2 and "none" not in flaws
    for flaw, answer in zip(flaws, answers, strict=True):
        assert answer["format"] == 1
        assert (answer["accuracy"] == 0) == (flaw == "contradicts_right"), flaw
        assert (answer["consistency"] == 0) == (flaw in ("contradicts_right", "lucky")), flaw
        assert (answer["semantic_grounding"] < 1) == (flaw != "contradicts_right"), flaw
