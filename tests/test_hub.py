"""Checkpoints by hub id, from a cache folder made here in huggingface_hub's layout; the network is never asked."""

from __future__ import annotations

import hashlib
import json
import shutil
import types
from pathlib import Path
from unittest import mock

import folders
import jax
import numpy as np
import policies
import pytest
import runs
from huggingface_hub import constants, utils

from fgrpo_jax import command, convert, evaluate, generate, sft, train
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.data import hub
from fgrpo_jax.evaluation import asking, heldout
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import checkpoint, loop, setup, supervised
from fgrpo_jax.weights import exporter, importer

ID = "Someone/Qwen2.5-VL-Tiny"
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole HF folder, in several shards."""
    base = tmp_path_factory.mktemp("plain")
    shapes = folders.write_folder(base / "shapes")
    model, rng = Model.create(ModelConfig.load(shapes)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), model.abstract())
    exporter.save_hf(base / "hf", params, model, source=shapes, shard_bytes=60_000)
    return base / "hf"


@pytest.fixture
def cache(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in the cache at two commits; main is at the first, tag v2 at the second."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place = tmp_path / "hub" / "models--Someone--Qwen2.5-VL-Tiny"
    add_snapshot(place, plain, commit=FIRST, refs=("main",))
    add_snapshot(place, plain, commit=SECOND, refs=("v2",))
    return place


def add_snapshot(place: Path, folder: Path, *, commit: str, refs: tuple[str, ...]) -> None:
    """blobs/HASH, snapshots/COMMIT/FILE → ../../blobs/HASH, refs/NAME: what a download leaves."""
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (place / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / blob.name)
    for ref in refs:
        (place / "refs" / ref).write_text(commit)


# -------------------------------------------------------------------------------------------------------- what is found
@pytest.mark.parametrize(
    ("asked", "revision", "commit"),
    [
        (ID, "", FIRST),
        (ID, "main", FIRST),
        (ID, "v2", SECOND),
        (ID, SECOND, SECOND),
        (f"{ID}@v2", "", SECOND),
        (f"{ID}@{SECOND}", SECOND, SECOND),
    ],
)
def test_an_id_is_found_at_its_revision(cache: Path, asked: str, revision: str, commit: str) -> None:
    found = hub.find(asked, revision=revision)
    assert found == hub.Files(cache / "snapshots" / commit, ID, commit)
    assert hub.is_id(asked) and hub.find(found.name, revision=found.revision) == found


def test_a_folder_comes_before_an_id(cache: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(plain, tmp_path / ID)
    assert not hub.is_id(ID) and hub.find(ID) == hub.Files(Path(ID), ID, "")
    assert hub.find(plain).folder == plain
    assert (hub.find("shipped").folder / "model.safetensors").is_file()


def test_weights_and_processor_load_through_the_links_of_the_cache(cache: Path, plain: Path) -> None:
    model = Model.create(ModelConfig.load(plain))
    ours, theirs = (importer.load_hf(f, model, dtype=np.float32) for f in (hub.find(ID).folder, plain))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


REPOSITORY = (
    *(".gitattributes", "README.md", "config.json", "generation_config.json", "model.safetensors.index.json"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "chat_template.json", "merges.txt"),
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
)
LEFT = ("pytorch_model.bin", "optimizer.pt", "adapter_model.safetensors", "onnx/model.safetensors", "onnx/config.json",
        "original/model-00001-of-00002.safetensors",
        "trainer_state.json", "model-fp16/a.safetensors", "images/cat.png")  # fmt: skip


def test_only_what_is_read_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict = {}

    def fetch(name: str, **how: object) -> str:
        asked.update(how, name=name)
        return str(cache / "snapshots" / FIRST)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    hub.find(ID)
    fetched = set(utils.filter_repo_objects([*REPOSITORY, *LEFT], allow_patterns=asked["allow_patterns"]))
    assert fetched == set(REPOSITORY) - {".gitattributes", "README.md"}
    assert (asked["name"], asked["revision"]) == (ID, None)
    assert set(checkpoint.HF_FILES) <= set(hub.FILES)  # whatever a checkpoint carries along is fetched


# --------------------------------------------------------------------------------------------------------------- errors
def test_what_the_cache_lacks_is_named_with_the_remedy(cache: Path) -> None:
    for asked, revision in (("Someone/Else", ""), (ID, "v3"), (ID, "c" * 40)):
        with pytest.raises(FileNotFoundError) as error:
            hub.find(asked, revision=revision)
        said = str(error.value)
        assert f"'{asked}'" in said and revision in said and str(cache.parent) in said
        assert "HF_HUB_OFFLINE is set" in said and f"hf download {asked}" in said and "\n" not in said


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors"])
def test_an_interrupted_fetch_is_noticed(cache: Path, name: str) -> None:
    snapshot = cache / "snapshots" / FIRST
    gone = name if (snapshot / name).exists() else sorted(snapshot.glob("*.safetensors"))[1].name
    (snapshot / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {gone}; fetch the rest"):
        hub.find(ID)


def test_an_unreachable_hub_is_no_traceback(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=r"out of reach \(ConnectionError: no route to host\); fetch it"):
        hub.find(ID)


@pytest.mark.parametrize(
    "asked", ["nowhere", "/no/where", "./no", "a/b/c", "Qwen2.5-VL-3B-Instruct", "a/b@", "-a/b", ""]
)
def test_neither_folder_nor_id(asked: str) -> None:
    with pytest.raises(FileNotFoundError, match="holds no config.json; give a folder in HF format, a hub id"):
        hub.find(asked or "nowhere/")
    assert not hub.is_id(asked)


def test_revisions_that_make_no_sense(plain: Path) -> None:
    with pytest.raises(ValueError, match="revision 'v2' belongs to a hub id"):
        hub.find(plain, revision="v2")
    with pytest.raises(ValueError, match="belongs to a hub id"):
        hub.find("shipped", revision="v2")
    with pytest.raises(ValueError, match="name two revisions"):
        hub.find(f"{ID}@v1", revision="v2")


# ---------------------------------------------------------------------------------------------------------------- doors
def test_convert_takes_an_id(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = command.run(convert.main, convert.parser(), [f"--hf={ID}", "--revision=v2", f"--out={tmp_path / 'c'}"])
    assert code == 0, capsys.readouterr().err
    assert (checkpoint.hf_folder(tmp_path / "c") / "tokenizer.json").is_file()
    code = command.run(convert.main, convert.parser(), ["--hf=Someone/Else", f"--out={tmp_path / 'd'}"])
    said = capsys.readouterr().err
    assert code == 1 and said.startswith("error: 'Someone/Else' is no folder here") and not (tmp_path / "d").exists()


class Reached(ValueError):
    """Raised in place of a door's work, with the folder it would have worked on."""


def reach(folder: Path, **_: object) -> None:
    raise Reached(str(folder))


def test_generate_takes_an_id(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.Processor, "load", reach)
    with pytest.raises(Reached, match=f"snapshots/{SECOND}"):
        generate.main(generate.parser().parse_args([f"--hf={ID}@v2", "--prompt=x"]))


@pytest.mark.parametrize("flags", [[f"--hf={ID}", "--revision=v2"], [f"--hf={ID}@v2"]])
def test_evaluate_takes_an_id(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str]) -> None:
    monkeypatch.setattr(setup.Processor, "load", reach)
    args = evaluate.parser().parse_args([f"--config={policies.BASE}", f"--workdir={tmp_path}", *flags])
    args.config = files.load_config(args.config)
    with pytest.raises(Reached, match=f"snapshots/{SECOND}"):
        evaluate.main(args)


@pytest.mark.parametrize("door", ["convert", "dry run", "verify", "generate", "evaluate", "train", "sft"])
@pytest.mark.parametrize("kind", ["folder", "id"])
def test_every_door_says_what_another_model_is(
    cache: Path, tmp_path: Path, kind: str, door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it misses a file: a Qwen2-VL folder without a tokenizer, weights or processor files."""
    other, work = tmp_path / "other", tmp_path / "work"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", "hidden_size": 1536}))
    add_snapshot(cache.parent / "models--Someone--Other", other, commit=FIRST, refs=("main",))
    asked = "Someone/Other" if kind == "id" else str(other)
    commands = {
        "convert": (convert, [f"--hf={asked}", f"--out={work}"]),
        "dry run": (convert, [f"--hf={asked}", "--dry_run"]),
        "verify": (convert, [f"--hf={asked}", "--verify"]),
        "generate": (generate, [f"--hf={asked}", "--prompt=x"]),
        "evaluate": (evaluate, [f"--config={policies.BASE}", f"--workdir={work}", f"--hf={asked}"]),
    }
    if door in commands:
        module, argv = commands[door]
        code, said = command.run(module.main, module.parser(), argv), capsys.readouterr().err
    else:
        code, _, said = runs.run(train if door == "train" else sft, work, asked)
    assert code == 1
    assert said.strip() == (
        f"error: {asked} is a Qwen2-VL checkpoint (model_type 'qwen2_vl'); only Qwen2.5-VL checkpoints (model_type "
        "'qwen2_5_vl': 3B, 7B, 32B, 72B and fine-tunes of them) are supported"
    )


class Stub:
    """A run that claims its workdir and does nothing."""

    parts, params = types.SimpleNamespace(policy=None, scorer=types.SimpleNamespace(judges=None)), None

    def __init__(self, config: object, workdir: Path) -> None:
        Stub.seen = (config.model.hf, config.model.revision, setup.model_folder(config.model.hf, config.model.revision))

    create = classmethod(lambda cls, config, workdir: cls(config, workdir))

    def begin(self, *, resumed: bool) -> tuple[None, None]:
        Stub.resumed = resumed
        return None, None

    def train(self, *_: object, evaluate: object) -> object:
        return types.SimpleNamespace(params=None)

    def run(self, *, resumed: bool) -> None:
        Stub.resumed = resumed

    def close(self) -> None:
        pass


@pytest.mark.parametrize("door", [train, sft], ids=["train", "sft"])
def test_a_run_keeps_the_commit_it_began_with(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, door: object
) -> None:
    """The hub's main moves on; the same command goes on with the same weights."""
    monkeypatch.setattr(loop, "Run", Stub)
    monkeypatch.setattr(heldout, "HeldOut", mock.Mock())
    monkeypatch.setattr(supervised, "SupervisedRun", Stub)
    work, at_first = tmp_path / "w", (ID, FIRST, cache / "snapshots" / FIRST)
    assert runs.run(door, work, ID)[0] == 0 and not Stub.resumed and Stub.seen == at_first
    assert json.loads((work / "config.json").read_text())["model"]["revision"] == FIRST
    (cache / "refs" / "main").write_text(SECOND)
    assert runs.run(door, work, ID)[0] == 0 and Stub.resumed and Stub.seen == at_first
    # Another run, or this one asked for another revision, is another matter.
    assert runs.run(door, tmp_path / "v", ID)[0] == 0 and Stub.seen[1] == SECOND
    code, _, said = runs.run(door, work, ID, model__revision="v2")
    assert code == 1 and f"model.revision: {FIRST} → {SECOND}" in said
    assert runs.run(door, work, ID, "--overwrite")[0] == 0 and not Stub.resumed and Stub.seen[1] == SECOND


def test_a_pinned_id_is_stored_without_its_suffix(cache: Path, tmp_path: Path) -> None:
    config = policies.config(f"{ID}@v2")
    pinned = setup.pinned(config, tmp_path)
    assert (pinned.model.hf, pinned.model.revision) == (ID, SECOND)
    assert setup.pinned(pinned, tmp_path) == pinned
    folder = policies.config("shipped")
    assert setup.pinned(folder, tmp_path) == folder


def test_the_hub_ids_of_judges_are_pinned_too(cache: Path, tmp_path: Path) -> None:
    """Those that are used, and to the commit a run began with."""
    fields = {"judge__backend": "local", "judge__local__hf": ID, "eval__judge__local__hf": ID}
    config = policies.config("shipped", **fields)
    first = setup.pinned(config, tmp_path)
    assert (first.judge.local.hf, first.judge.local.revision) == (ID, FIRST)
    assert first.eval == config.eval and first.model == config.model
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(first)))
    (cache / "refs" / "main").write_text(SECOND)
    assert setup.pinned(config, tmp_path) == first
    assert setup.pinned(config, tmp_path, overwrite=True).judge.local.revision == SECOND
