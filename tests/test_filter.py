"""The difficulty filter: what it keeps, that a killed one comes to the same lists, and that training reads them."""

import json
import zlib

import policies
import pytest
import runs

from fgrpo_jax import command, convert
from fgrpo_jax import filter as door
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.training import setup

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
        patch.setattr(door, "parse", lambda text: text)
        patch.setattr(door, "accuracy", right)
        yield patch


def right(text, example):
    return float(int(example.id.rpartition("-")[2]) % 5 == 0 or zlib.crc32(text.encode()) % 3 == 0)


@pytest.fixture(scope="module")
def finished(quick, folder, tmp_path_factory):
    """A filter that ran without a break, and what it printed."""
    workdir = tmp_path_factory.mktemp("filter") / "run"
    code, out, err = runs.run(door, workdir, folder, **FIELDS)
    assert code == 0, err
    return workdir / "filter", out


FILES = (door.ACCURACIES, subsets.KEPT, subsets.SUMMARY)


def content(path):
    return {name: (path / name).read_text() for name in FILES}


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_kept(finished):
    path, out = finished
    rows = {row["id"]: row["right"] for row in lines(path / door.ACCURACIES)}
    kept = {row["id"]: row["accuracy"] for row in lines(path / subsets.KEPT)}
    assert len(rows) == COUNT and all(len(values) == 3 for values in rows.values())
    for name, values in rows.items():
        assert (name in kept) == (0 < sum(values) < 3 or door.chosen(f"world/{name}", 0.1))
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
    (other / door.SETTINGS).write_text((path / door.SETTINGS).read_text())
    text = "".join((path / door.ACCURACIES).read_text().splitlines(keepends=True)[: batches * SIZE + more])
    (other / door.ACCURACIES).write_text(text[: len(text) - cut])
    code, _, err = runs.run(door, tmp_path, folder, **FIELDS)
    assert code == 0, err
    assert content(other) == content(path)


def test_a_finished_one_only_lists_anew(quick, finished, folder, tmp_path, monkeypatch):
    path, _ = finished
    (tmp_path / "filter").mkdir()
    for name in (door.SETTINGS, door.ACCURACIES):
        (tmp_path / "filter" / name).write_text((path / name).read_text())
    monkeypatch.setattr(door, "generate", None)
    code, _, err = runs.run(door, tmp_path, folder, **FIELDS, data__difficulty__keep=1.0)
    assert code == 0, err
    assert len(lines(tmp_path / "filter" / subsets.KEPT)) == COUNT


def test_other_settings_are_refused(quick, finished, folder):
    path, _ = finished
    code, _, err = runs.run(door, path.parent, folder, **FIELDS | {"data__difficulty__rollouts": 2})
    assert code == 1 and "difficulty.rollouts: 3 → 2" in err
    code, _, err = runs.run(door, path.parent, folder, **FIELDS, rollout__temperature=0.5)
    assert code == 1 and "rollout.temperature: 1.0 → 0.5" in err


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
    right = [[row["right"] for row in lines(where / door.ACCURACIES)] for where in (path, tmp_path / "run" / "filter")]
    assert right[0] == right[1]
    summary = json.loads((tmp_path / "run" / "filter" / subsets.SUMMARY).read_text())
    assert summary["policy"]["hf"] == str(tmp_path / "c")
    code, _, err = runs.run(door, tmp_path / "x", folder, f"--checkpoint={tmp_path / 'c'}", f"--hf={folder}", **FIELDS)
    assert code == 1 and "both name a policy" in err


def test_the_endless_world_needs_a_number(quick, folder, tmp_path):
    code, _, err = runs.run(door, tmp_path, folder)
    assert code == 1 and "say how many of its examples are tried" in err


def test_a_share_of_the_rest_is_chosen_by_name_alone():
    names = [f"sat/{index}" for index in range(4000)]
    taken = [name for name in names if door.chosen(name, 0.1)]
    assert 340 < len(taken) < 460 and set(taken) < {name for name in names if door.chosen(name, 0.2)}
    assert not any(door.chosen(name, 0.0) for name in names) and all(door.chosen(name, 1.0) for name in names)


def test_training_reads_it(finished, folder):
    path, _ = finished
    config = policies.config(folder, data__filter=path.parent)
    batches = setup.training_batches(config, policies.policy(config))
    seen = {example.id for _ in range(3) for example in next(batches).examples}
    batches.close()
    assert seen and seen <= {row["id"] for row in lines(path / subsets.KEPT)}
    config = policies.config(folder, data__filter=path.parent, data__world__yes_no=0.1)
    with pytest.raises(ValueError, match=r"was made for other data \(world: "):
        setup.training_batches(config, policies.policy(config))
