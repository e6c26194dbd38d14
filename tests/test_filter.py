"""The difficulty filter: what it keeps, that a killed one comes to the same lists, and that training reads them."""

import json
import types
import zlib

import numpy as np
import policies
import pytest
import runs

from fgrpo_jax import command, convert
from fgrpo_jax import filter as door
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.rewards import score as rewards
from fgrpo_jax.rewards.task import gold_index
from fgrpo_jax.training import difficulty, setup
from fgrpo_jax.world.examples import World

COUNT, SIZE = 22, 4
FIELDS = {"data__difficulty__examples": COUNT, "data__difficulty__batch_prompts": SIZE, "data__difficulty__rollouts": 3}
FIELDS |= {"rollout__max_new_tokens": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return policies.write(tmp_path_factory.mktemp("filter") / "policy")


@pytest.fixture(scope="module")
def quick():
    """A random policy is never right, so right is what a checksum of its words says: a third of them, or of the
    questions whose number is a multiple of five, all."""
    with runs.quick() as patch:
        patch.setattr(difficulty, "score", score)
        yield patch


def score(examples, texts, **settings):
    always = [int(example.id.rpartition("-")[2]) % 5 == 0 for example in examples]
    found = [
        [one or zlib.crc32(text.encode()) % 3 == 0 for text in group] for one, group in zip(always, texts, strict=True)
    ]
    return types.SimpleNamespace(accuracy=np.array(found, np.float32)), {}


@pytest.fixture(scope="module")
def finished(quick, folder, tmp_path_factory):
    """A filter that ran without a break, and what it printed."""
    workdir = tmp_path_factory.mktemp("filter") / "run"
    code, out, err = runs.run(door, workdir, folder, **FIELDS)
    assert code == 0, err
    return workdir / "filter", out


FILES = (difficulty.ACCURACIES, subsets.KEPT, subsets.SUMMARY)


def content(path):
    return {name: (path / name).read_text() for name in FILES}


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_kept(finished):
    path, out = finished
    rows = {row["id"]: row["right"] for row in lines(path / difficulty.ACCURACIES)}
    kept = {row["id"]: row["accuracy"] for row in lines(path / subsets.KEPT)}
    assert len(rows) == COUNT and all(len(values) == 3 for values in rows.values())
    for name, values in rows.items():
        assert (name in kept) == (0 < sum(values) < 3 or difficulty.chosen(f"world/{name}", 0.1))
        assert name not in kept or kept[name] == round(sum(values) / 3, 4)
    summary = json.loads((path / subsets.SUMMARY).read_text())
    every = summary["all"]
    assert every == summary["sources"]["world"] and every["kept"] == len(kept)
    assert every["tried"] == COUNT == every["wrong"] + every["mixed"] + every["right"]
    assert every["mixed"] and every["right"] >= 5 and sum(summary["accuracies"].values()) == COUNT
    assert summary["policy"]["weights"] and summary["data"]["examples"] == 1_000_000
    assert f"{COUNT:>10}" in out and "--config.data.filter=" in out


@pytest.mark.parametrize("batches", [0, 2, 5, 6])
@pytest.mark.parametrize(("more", "cut"), [(0, 0), (1, 0), (3, 30)])
def test_killed_anywhere_it_comes_to_the_same_lists(quick, finished, folder, tmp_path, batches, more, cut):
    """After so many whole batches, or after lines of the next or within one."""
    path, _ = finished
    other = tmp_path / "filter"
    other.mkdir()
    (other / difficulty.SETTINGS).write_text((path / difficulty.SETTINGS).read_text())
    text = "".join((path / difficulty.ACCURACIES).read_text().splitlines(keepends=True)[: batches * SIZE + more])
    (other / difficulty.ACCURACIES).write_text(text[: len(text) - cut])
    code, _, err = runs.run(door, tmp_path, folder, **FIELDS)
    assert code == 0, err
    assert content(other) == content(path)


def test_a_finished_one_only_lists_anew(quick, finished, folder, tmp_path, monkeypatch):
    path, _ = finished
    (tmp_path / "filter").mkdir()
    for name in (difficulty.SETTINGS, difficulty.ACCURACIES):
        (tmp_path / "filter" / name).write_text((path / name).read_text())
    monkeypatch.setattr(difficulty, "generate", None)
    code, _, err = runs.run(door, tmp_path, folder, **FIELDS, data__difficulty__keep=1.0)
    assert code == 0, err
    assert len(lines(tmp_path / "filter" / subsets.KEPT)) == COUNT


def test_other_settings_are_refused(quick, finished, folder):
    path, _ = finished
    code, _, err = runs.run(door, path.parent, folder, **FIELDS | {"data__difficulty__rollouts": 2})
    assert code == 1 and "difficulty.rollouts: 3 → 2" in err
    code, _, err = runs.run(door, path.parent, folder, **FIELDS, rollout__temperature=0.5)
    assert code == 1 and "rollout.temperature: 1.0 → 0.5" in err


def test_overwrite_removes_the_accuracies_of_other_settings_and_nothing_else(tmp_path):
    nobody = difficulty.Difficulty(tmp_path, None, None, None)  # whoever answers, claiming asks nobody
    nobody.claim({"a": 1}, overwrite=False)
    for name in (difficulty.ACCURACIES, subsets.KEPT, "notes"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="a: 1 → 2\nuse another --workdir"):
        nobody.claim({"a": 2}, overwrite=False)
    nobody.claim({"a": 2}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", difficulty.SETTINGS]
    assert json.loads((tmp_path / difficulty.SETTINGS).read_text()) == {"a": 2}


def test_other_weights_are_refused(quick, finished, folder, tmp_path):
    path, _ = finished
    code, _, err = runs.run(door, path.parent, policies.write(tmp_path / "other", seed=1), **FIELDS)
    assert code == 1 and "weights: " in err


def test_a_checkpoint_is_a_policy_of_its_own(quick, finished, folder, tmp_path):
    """The same weights from a checkpoint draw the same, and the summary names it."""
    argv = [f"--hf={folder}", f"--out={tmp_path / 'c'}"]
    assert command.run(convert.main, convert.parser(), argv) == 0
    code, _, err = runs.run(door, tmp_path / "run", folder, f"--checkpoint={tmp_path / 'c'}", **FIELDS)
    assert code == 0, err
    path, _ = finished
    right = [
        [row["right"] for row in lines(where / difficulty.ACCURACIES)] for where in (path, tmp_path / "run" / "filter")
    ]
    assert right[0] == right[1]
    summary = json.loads((tmp_path / "run" / "filter" / subsets.SUMMARY).read_text())
    assert summary["policy"]["hf"] == str(tmp_path / "c")
    code, _, err = runs.run(door, tmp_path / "x", folder, f"--checkpoint={tmp_path / 'c'}", f"--hf={folder}", **FIELDS)
    assert code == 1 and "both name a policy" in err


def test_answers_are_read_in_the_dialect_of_the_prompt(folder, tmp_path, monkeypatch):
    """Free text answers with what its last sentence names; read in the paper's dialect it would answer with B."""
    monkeypatch.setattr(setup, "decoder", lambda config, policy: lambda ids: "B. The answer I give: A")
    monkeypatch.setattr(difficulty, "score", rewards.score)  # the module's policies earn what checksums say
    wide = {"data__max_prompt_tokens": 256, "data__buckets__prompt": (256,), "data__prompt": "cot"}
    with runs.quick():
        code, _, err = runs.run(door, tmp_path, folder, **FIELDS | wide)
    assert code == 0, err
    world = World("tiny")
    gold = {example.id: example for example in map(world.example, range(COUNT))}
    rows = lines(tmp_path / "filter" / "accuracies.jsonl")
    assert {row["id"] for row in rows} == set(gold)
    for row in rows:
        assert row["right"] == [float(gold_index(gold[row["id"]]) == 0)] * 3
    assert 0 < sum(row["right"][0] for row in rows) < COUNT


def test_the_endless_world_needs_a_number(quick, folder, tmp_path):
    code, _, err = runs.run(door, tmp_path, folder)
    assert code == 1 and "say how many of its examples are tried" in err


def test_a_share_of_the_rest_is_chosen_by_name_alone():
    names = [f"sat/{index}" for index in range(4000)]
    taken = [name for name in names if difficulty.chosen(name, 0.1)]
    assert 340 < len(taken) < 460 and set(taken) < {name for name in names if difficulty.chosen(name, 0.2)}
    assert not any(difficulty.chosen(name, 0.0) for name in names) and all(
        difficulty.chosen(name, 1.0) for name in names
    )


def test_training_reads_it(finished, folder):
    path, _ = finished
    config = policies.config(folder, data__filter=path.parent)
    batches = setup.training_batches(config, policies.policy(config))
    seen = {example.id for _ in range(3) for example in next(batches).examples}
    batches.close()
    assert seen and seen <= {row["id"] for row in lines(path / subsets.KEPT)}
    config = policies.config(folder, data__filter=path.parent, data__world__yes_no=0.1)
    with pytest.raises(ValueError, match=r"was made for other data \(data.world.yes_no: "):
        setup.training_batches(config, policies.policy(config))
