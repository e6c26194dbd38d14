"""A killed evaluation goes on: identical results whatever was on file, and nothing of another policy mixed in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import policies
import pytest
import runs

from fgrpo_jax import evaluate
from fgrpo_jax.evaluation import answering
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import datasets, policy, setup
from fgrpo_jax.training.policy import fingerprint

QUESTIONS = 10  # three batches of four, the last half filled


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with runs.quick():
        yield


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["greedy", "sampled"])
def unbroken(request: pytest.FixtureRequest, tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(workdir, overrides) of an evaluation nothing happened to."""
    workdir = tmp_path_factory.mktemp("answering") / "w"
    fields = {"eval__examples": QUESTIONS, "eval__temperature": request.param}
    code, _, err = runs.run(evaluate, workdir, tiny_hf, **fields)
    assert code == 0, err
    return workdir, fields


def files(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((workdir / "eval").rglob("*")) if path.is_file()}


def half(of: Path, to: Path, *, keep: bytes) -> None:
    """A workdir as a kill leaves it: settings, and some of the answers."""
    (to / "eval").mkdir(parents=True)
    shutil.copy(of / "eval/world-heldout.settings.json", to / "eval")
    (to / "eval/world-heldout.jsonl").write_bytes(keep)


CUTS = {
    "before the first answer": lambda lines: b"",
    "between batches": lambda lines: b"".join(lines[:4]),
    "inside a batch": lambda lines: b"".join(lines[:6]),
    "inside a line": lambda lines: b"".join(lines[:6]) + lines[6][:30],
    "at the end of a line": lambda lines: b"".join(lines[:6]) + lines[6][:-1],
    "with a hole": lambda lines: b"".join(lines[:2] + lines[3:5]),
    "nothing left": lambda lines: b"".join(lines),
}


@pytest.mark.parametrize("cut", CUTS)
def test_goes_on_from_wherever_it_was_killed(unbroken: Any, tiny_hf: Path, tmp_path: Path, cut: str) -> None:
    workdir, fields = unbroken
    lines = (workdir / "eval/world-heldout.jsonl").read_bytes().splitlines(keepends=True)
    half(workdir, tmp_path / "w", keep=CUTS[cut](lines))
    code, out, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 0, err
    assert files(tmp_path / "w") == files(workdir)
    assert ("nothing was left to draw" in out) == (cut == "nothing left")


def test_answers_are_kept_as_they_come(
    unbroken: Any, tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third batch: what was judged is on the disk, and is not drawn again."""
    workdir, fields = unbroken
    drawn: list[int] = []
    generate = answering.generate

    def third(*args: Any, **settings: Any) -> Any:
        drawn.append(1)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return generate(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(answering, "generate", third)
        assert runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)[0] == 130
    kept = len(read_rows(tmp_path / "w/eval/world-heldout.jsonl"))
    assert kept in (4, 8), "the second batch may have been with the judge"
    assert not (tmp_path / "w/eval/results.json").exists()
    drawn.clear()
    drawn += [0] * 10
    with monkeypatch.context() as patch:
        patch.setattr(answering, "generate", third)
        assert runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)[0] == 0
    assert len(drawn) == 10 + 3 - kept // 4
    assert files(tmp_path / "w") == files(workdir)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"eval__seed": 1}, "config.eval.seed: 0 → 1"),
        ({"data__max_pixels": 84 * 112}, "config.data.max_pixels: 12544 → 9408"),
        ({"eval__max_new_tokens": 7}, "config.eval.max_new_tokens: 0 → 7"),
        ({"rewards__ciou_mapping": "shift"}, "config.rewards.ciou_mapping: clamp → shift"),
        ({"data__world__seed": 3}, "config.data.world.seed: 0 → 3"),
    ],
)
def test_another_protocol_is_not_mixed_in(
    unbroken: Any, tiny_hf: Path, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    workdir, fields = unbroken
    shutil.copytree(workdir, tmp_path / "w")
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **(fields | changed))
    assert code == 1 and named in err and "use another --workdir" in err, err
    assert files(tmp_path / "w") == files(workdir)


def test_another_policy_is_not_mixed_in_and_the_same_one_elsewhere_is(
    unbroken: Any, tiny_hf: Path, tmp_path: Path
) -> None:
    workdir, fields = unbroken
    other = policies.write(tmp_path / "other", seed=1)
    shutil.copytree(workdir, tmp_path / "w")
    code, _, err = runs.run(evaluate, tmp_path / "w", other, **fields)
    assert code == 1 and "policy.fingerprint" in err, err
    moved = shutil.copytree(tiny_hf, tmp_path / "moved")
    code, out, err = runs.run(evaluate, tmp_path / "w", Path(moved), **fields)
    assert code == 0 and "nothing was left to draw" in out, err


def test_what_does_not_change_an_answer_may_change(unbroken: Any, tiny_hf: Path, tmp_path: Path) -> None:
    workdir, fields = unbroken
    shutil.copytree(workdir, tmp_path / "w")
    free = {"eval__resamples": 50, "eval__every": 3, "rollout__temperature": 2.0, "data__workers": 1, "seed": 4}
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **(fields | free))
    assert code == 0, err


def test_more_questions_go_on_and_fewer_are_refused(unbroken: Any, tiny_hf: Path, tmp_path: Path) -> None:
    workdir, fields = unbroken
    shutil.copytree(workdir, tmp_path / "w")
    more = fields | {"eval__examples": QUESTIONS + 1}
    assert runs.run(evaluate, tmp_path / "w", tiny_hf, **more)[0] == 0
    answers = read_rows(tmp_path / "w/eval/world-heldout.jsonl")
    assert answers[:QUESTIONS] == read_rows(workdir / "eval/world-heldout.jsonl") and len(answers) == 11
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 1 and "holds 11 rows of 'world-heldout', and 10 are asked for here" in err


def test_answers_of_unknown_origin_and_training_runs_are_left_alone(
    unbroken: Any, tiny_hf: Path, tmp_path: Path
) -> None:
    workdir, fields = unbroken
    shutil.copytree(workdir, tmp_path / "w")
    (tmp_path / "w/eval/world-heldout.settings.json").unlink()
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 1 and "holds rows without world-heldout.settings.json" in err
    (tmp_path / "t/eval").mkdir(parents=True)
    (tmp_path / "t/eval/before.jsonl").write_text("")
    code, _, err = runs.run(evaluate, tmp_path / "t", tiny_hf, **fields)
    assert code == 1 and "is the workdir of a training run" in err


def test_data_that_changed_under_the_answers_is_noticed(unbroken: Any, tiny_hf: Path, tmp_path: Path) -> None:
    workdir, fields = unbroken
    lines = (workdir / "eval/world-heldout.jsonl").read_text().splitlines()
    renamed = json.dumps(json.loads(lines[2]) | {"id": "another"}) + "\n"
    half(workdir, tmp_path / "w", keep="".join([*(line + "\n" for line in lines[:2]), renamed]).encode())
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 1 and "the answer on file is of 'another': the data changed" in err


def test_accuracy_is_that_of_an_independent_script(unbroken: Any) -> None:
    """The ten lines that docs/evaluation.md shows: nothing of the package."""
    workdir, _ = unbroken
    right = total = 0
    for line in (workdir / "eval/world-heldout.jsonl").read_text().split("\n")[:-1]:
        row = json.loads(line)
        total += 1
        right += row["read"] == row["gold"]
    results = json.loads((workdir / "eval/results.json").read_text())
    assert results["sets"]["world-heldout"]["figures"]["accuracy"]["value"] == right / total


# ------------------------------------------------------------------------------------------------------- several sets
def test_several_sets_with_a_limit(tiny_hf: Path, tmp_path: Path) -> None:
    fields = {"eval__sets": "('world:heldout','world:validation')", "eval__limit": 3}
    code, out, err = runs.run(evaluate, tmp_path / "w", tiny_hf, **fields)
    assert code == 0, err
    found = json.loads((tmp_path / "w/eval/results.json").read_text())
    assert {name: of_set["questions"] for name, of_set in found["sets"].items()} == {
        "world-heldout": 3,
        "world-validation": 3,
    }
    assert "average" not in found and "world-validation" in out
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, eval__sets="('nlvr:hidden',)")
    assert code == 1 and "set config.eval.root or eval.paths.nlvr" in err
    code, _, err = runs.run(evaluate, tmp_path / "w", tiny_hf, eval__sets="('world:a','world:a')")
    assert code == 1 and "names 'world:a' twice" in err


def test_shapes_are_chosen_for_the_questions(tiny_hf: Path) -> None:
    """As training chooses them for its batches; prompts of the tiny world have far fewer tokens than the bucket."""
    fields = {"data__buckets__choose": 2, "data__buckets__prompt": (), "data__buckets__patches": ()}
    config = policies.config(tiny_hf, eval__examples=QUESTIONS, **fields)
    batches = setup.heldout_batches(config, policies.policy(config), source=datasets.heldout(config))
    found = answering.chosen(config, batches).shapes
    assert 1 <= len(found) <= 2 and max(shape.prompt for shape in found) <= 96
    batches.use(answering.chosen(config, batches))
    drawn = [(batch.prompts.tokens.shape[1], batch.prompts.vision.patches.shape[2]) for batch in batches]
    assert set(drawn) <= {(shape.prompt, shape.patches) for shape in found}


def test_the_fingerprint_sees_names_sizes_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_bytes(bytes(1_000_000))
    seen = {fingerprint(folder)}
    (folder / "x").write_bytes(bytes(999_000) + b"1" * 1_000)
    seen.add(fingerprint(folder))
    (folder / "y").write_bytes(b"")
    seen.add(fingerprint(folder))
    assert len(seen) == 3 and fingerprint(folder) in seen
    monkeypatch.setattr(policy, "PLACE", 1 << 10)
    before = fingerprint(folder)
    (folder / "x").write_bytes(bytes(999_999) + b"1")
    assert fingerprint(folder) != before, "the end of a large file is among its places"
