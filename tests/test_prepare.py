"""Prepared folders: the examples of the published files, whole or not there, and a card that says what is in them."""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests import layouts

from fgrpo_jax import command, prepare
from fgrpo_jax.data.sets import prepared, shards
from fgrpo_jax.data.sets.catalogue import SETS, open_set
from fgrpo_jax.data.sets.readers import tables
from fgrpo_jax.data.sources import outline


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder of every set's published files."""
    top = tmp_path_factory.mktemp("published")
    return {name: layouts.write(name, top / name) for name in layouts.LAYOUTS}


def run(name, src, out, *flags):
    """(exit code, stderr) of the door."""
    argv = [name, f"--src={src}", f"--out={out}", "--workers=0", "--shard=2", *flags]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = command.run(prepare.main, prepare.parser(), argv)
    return code, err.getvalue()


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def card(out):
    return json.loads((out / "card.json").read_text())


def same(one, other):
    assert dataclasses.replace(one, images=()) == dataclasses.replace(other, images=())
    assert all(np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True))


@pytest.mark.parametrize("name", list(SETS))
def test_a_prepared_set_gives_the_same_examples(name, published, tmp_path):
    split = layouts.LAYOUTS[name].split
    assert run(name, published[name], tmp_path / "out", f"--split={split}")[0] == 0
    source, again = (open_set(name, folder, split=split) for folder in (published[name], tmp_path / "out"))
    assert len(source) == len(again) and list(source.entries) == list(again.entries)
    for index in range(len(source)):
        same(source[index], again[index])
        same(outline(source, index), outline(again, index))
    about = card(tmp_path / "out")
    assert (about["set"], about["licence"]) == (name, SETS[name].licence)
    assert about["splits"][split]["examples"] == layouts.LAYOUTS[name].count
    assert not (tmp_path / "out" / ".work").exists() and not list((tmp_path / "out").glob("*.tmp"))


def test_tfds_reads_it_without_tensorflow(published, tmp_path):
    """With nothing of this package: arrays of the published images, and their very bytes in the record."""
    out = tmp_path / "out"
    run("cv_bench_2d", published["cv_bench_2d"], out)
    code = f"""
import sys, tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(out)!r}).as_data_source("test")
first = source[0]
print(len(source), first["id"].decode(), first["images"][0].shape, "tensorflow" in sys.modules, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6", "cv_bench-0", "(84,", "96,", "3)", "False", "False"]
    raw = (out / "cv_bench_2d-test.array_record-00000-of-00003").read_bytes()
    assert layouts.picture("cv-2D-0")[:60] in raw  # incompressible, so it stands there as it is


# --------------------------------------------------------------------------------------------------------- interruption
@pytest.fixture(scope="module")
def whole(published, tmp_path_factory):
    """The contents of an uninterrupted preparation."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run("cv_bench_2d", published["cv_bench_2d"], out)[0] == 0
    return contents(out)


@pytest.mark.parametrize("shard", [0, 1, 2])
@pytest.mark.parametrize("when", ["before", "within", "before its note", "after"])
def test_killed_anywhere_it_goes_on_to_the_same_folder(published, whole, tmp_path, monkeypatch, shard, when):
    out, real, calls = tmp_path / "out", shards.write, []

    def killed(job):
        calls.append(job.file)
        if len(calls) - 1 == shard and when == "before":
            raise KeyboardInterrupt
        if len(calls) - 1 == shard and when == "within":  # as a kill leaves it: a part of the file under another name
            job.file.with_name(job.file.name + ".tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        note = real(job)
        if len(calls) - 1 == shard and when == "before its note":
            job.note.unlink()
            raise KeyboardInterrupt
        if len(calls) - 1 == shard:
            raise KeyboardInterrupt
        return note

    monkeypatch.setattr(shards, "write", killed)
    assert run("cv_bench_2d", published["cv_bench_2d"], out)[0] == 130
    assert not prepared.is_prepared(out)
    with pytest.raises(ValueError, match="holds no"):
        open_set("cv_bench_2d", out)
    written = []
    monkeypatch.setattr(shards, "write", lambda job: written.append(job.file.name) or real(job))
    assert run("cv_bench_2d", published["cv_bench_2d"], out)[0] == 0
    assert len(written) == 3 - shard - (when == "after")  # what was whole is not written again
    assert contents(out) == whole


def test_a_shard_that_was_cut_short_or_made_of_other_rows_is_written_again(published, tmp_path, monkeypatch):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(published["mmvp"], source)
    real, written = shards.write, []
    monkeypatch.setattr(prepared, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("mmvp", source, out)[0] == 130
    last = sorted(out.glob("*.array_record-*"))[-1]
    last.write_bytes(last.read_bytes()[:-10])
    layouts.save_picture(source / "MMVP Images" / "1.jpg", size=(50, 50))  # of the first shard
    monkeypatch.undo()
    monkeypatch.setattr(shards, "write", lambda job: written.append(job.file.name[-14:]) or real(job))
    assert run("mmvp", source, out)[0] == 0
    assert written == ["00000-of-00003", "00002-of-00003"]
    assert open_set("mmvp", out)[0].images[0].shape == (50, 50, 3)


def test_processes_write_what_one_writes(published, whole, tmp_path):
    code, err = run("cv_bench_2d", published["cv_bench_2d"], tmp_path / "out", "--workers=2")
    assert code == 0, err
    assert contents(tmp_path / "out") == whole


def test_images_of_large_row_groups_are_read_by_one_process(published, tmp_path, monkeypatch):
    """Workers get them in memory: each would have to read the file from its start."""
    rows = list(SETS["cv_bench_2d"].read(published["cv_bench_2d"], "test"))
    (job,) = shards.plan(rows, folder=tmp_path, work=tmp_path, name="n", split="s", size=9, skip=False)
    assert shards.with_images(job).rows[0].images is rows[0].images
    monkeypatch.setattr(tables, "WHOLE", 0)
    held = shards.with_images(job)
    assert [data for row in held.rows for _, data in row.images.images] == [
        layouts.picture(f"cv-2D-{n}") for n in range(6)
    ]
    assert held.digest == job.digest


def test_what_is_prepared_is_left_alone(published, whole, tmp_path):
    out = tmp_path / "out"
    run("cv_bench_2d", published["cv_bench_2d"], out)
    code, err = run("cv_bench_2d", published["cv_bench_2d"], out)
    assert code == 0 and "is prepared already" in err and contents(out) == whole
    code, err = run("cv_bench_2d", published["cv_bench_2d"], out, "--limit=2")
    assert code == 1 and "prepared from other files or with other settings" in err and contents(out) == whole
    assert run("cv_bench_2d", published["cv_bench_2d"], out, "--limit=2", "--overwrite")[0] == 0
    assert len(open_set("cv_bench_2d", out)) == 2


# ----------------------------------------------------------------------------------------------------------------- card
def test_the_card_counts_and_warns(published, tmp_path):
    out = tmp_path / "out"
    run("realworldqa", published["realworldqa"], out)
    about, split = card(out), card(out)["splits"]["test"]
    assert split["answers"] == {"C": 2, "open": 2} and split["options"] == {"0": 2, "3": 2}
    assert split["images"]["count"] == 4 and split["images"]["width"] == {"least": 96, "median": 96, "most": 96}
    assert split["images"]["bytes"] == sum(
        len(layouts.picture(f"real-{shard}-{k}", form="PNG")) for shard in range(2) for k in range(2)
    )
    assert not about["redistributable"] and "CC-BY-ND-4.0 does not allow it" in about["warnings"][0]
    assert "4 examples, where the published set has 765" in about["warnings"][1]
    page = (out / "README.md").read_text()
    assert "May be passed on: **no**" in page and "CC BY-ND 4.0 lets nobody pass on" in page
    assert str(tmp_path) not in page + json.dumps(about)  # prepared folders travel


def test_the_card_warns_of_a_leaning_answer(tmp_path):
    rows = [
        {"id": str(n), "question": "Which?", "options": ["x", "y"], "answer": "A", "images": ["a.png"]}
        for n in range(60)
    ]
    layouts.save_lines(tmp_path / "in" / "train.jsonl", rows)
    layouts.save_picture(tmp_path / "in" / "a.png")
    run("jsonl", tmp_path / "in", tmp_path / "out", "--split=train", "--shard=100")
    said = "train: 100% of the right answers are A, where chance gives 50%; shuffle the options."
    assert said in card(tmp_path / "out")["warnings"]


def test_another_set_or_split_is_refused(published, tmp_path):
    out = tmp_path / "out"
    run("sat", published["sat"], out)
    assert len(open_set("prepared", out)) == len(open_set("prepared", out, split="train")) == 7
    with pytest.raises(ValueError, match="holds 'sat', not 'vgr'"):
        open_set("vgr", out)
    with pytest.raises(ValueError, match="has the splits train, not 'val'"):
        open_set("sat", out, split="val")
    (out / "index-train.jsonl").write_text("")
    with pytest.raises(ValueError, match="names 0 examples of 7"):
        open_set("sat", out)


def test_several_splits_in_one_folder(published, tmp_path):
    out = tmp_path / "out"
    assert run("viscot", published["viscot"], out, "--split=train", "--split=val")[0] == 0
    train, val = (open_set("viscot", out, split=split) for split in ("train", "val"))
    assert len(train) == len(val) == 2 and train[0].id != val[0].id


# ------------------------------------------------------------------------------------------------------------------ hub
def test_an_id_is_fetched_and_its_commit_written_down(published, tmp_path, monkeypatch):
    import huggingface_hub

    snapshot, asked = tmp_path / "snapshots" / ("c" * 40), {}
    shutil.copytree(published["cv_bench_2d"], snapshot)

    def fetch(name, **settings):
        asked.update(settings, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert run("cv_bench_2d", "nyu-visionx/CV-Bench@v2", tmp_path / "out")[0] == 0
    assert asked == {
        "name": "nyu-visionx/CV-Bench",
        "repo_type": "dataset",
        "revision": "v2",
        "allow_patterns": ["test_2d.parquet"],
        "local_files_only": False,
    }
    assert card(tmp_path / "out")["source"] == {"src": "nyu-visionx/CV-Bench", "revision": "c" * 40}
    code, err = run("cv_bench_2d", "nyu-visionx/CV-Bench@v2", tmp_path / "other", "--revision=v1")
    assert code == 1 and "name two revisions" in err


def test_out_of_reach_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, err = run("sat", "", tmp_path / "out")
    assert code == 1 and "data set 'array/SAT' is no folder here" in err and "--src" in err
    code, err = run("nlvr", "", tmp_path / "out", "--split=dev")
    assert code == 1 and "nlvr is not on the hub; give its folder with --src" in err


def test_archives_are_unpacked(published, tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    with zipfile.ZipFile(folder / "data.zip", "w") as packed:
        for file in sorted(published["mindcube"].rglob("*")):
            packed.write(file, f"data/{file.relative_to(published['mindcube'])}")
    assert run("mindcube", folder, tmp_path / "out")[0] == 0
    for one, other in zip(
        open_set("mindcube", published["mindcube"]), open_set("mindcube", tmp_path / "out"), strict=True
    ):
        same(one, other)


def test_parts_of_an_archive_are_joined_and_other_files_stay(published, tmp_path):
    folder, whole = tmp_path / "snapshot", io.BytesIO()
    shutil.copytree(published["viscot"] / "metadata", folder / "metadata")
    with tarfile.open(fileobj=whole, mode="w") as packed:
        packed.add(published["viscot"] / "cot", "cot")
    (folder / "cot_images_tar_split").mkdir()
    for at, start in enumerate(range(0, len(whole.getvalue()), 4000)):
        part = folder / "cot_images_tar_split" / f"cot_images_{at:02d}"
        part.write_bytes(whole.getvalue()[start : start + 4000])
    assert run("viscot", folder, tmp_path / "out")[0] == 0
    same(open_set("viscot", tmp_path / "out")[1], open_set("viscot", published["viscot"])[1])


def test_an_archive_that_climbs_out_or_is_broken(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    with tarfile.open(folder / "spatial_reasoning.tar", "w") as packed:
        about = tarfile.TarInfo("../../evil.txt")
        packed.addfile(about, io.BytesIO())
    code, err = run("vigorl", folder, tmp_path / "out")
    assert code == 1 and "spatial_reasoning.tar does not unpack" in err and not list(tmp_path.rglob("evil.txt"))
    (folder / "spatial_reasoning.tar").write_bytes(b"no archive at all")
    assert "does not unpack" in run("vigorl", folder, tmp_path / "out")[1]
    assert not Path(tmp_path / "out" / ".work" / "source" / "spatial_reasoning").exists()
