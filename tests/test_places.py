"""Paths that lead up and through links work in every door; addresses of buckets are refused by name in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import policies
import pytest

from fgrpo_jax import command, convert, evaluate, export, generate, prepare, sft, train
from fgrpo_jax import filter as sift
from fgrpo_jax.evaluation import comparing
from fgrpo_jax.training import checkpoint

CONFIG = f"--config={policies.BASE}"
RUN = (CONFIG, "--workdir=w")


def run(door: Any, *argv: str) -> int:
    return command.run(door.main, door.parser(), argv)


# ------------------------------------------------------------------------------------------------------------ addresses
@pytest.mark.parametrize(
    ("door", "argv", "named"),
    [
        (train, [CONFIG, "--workdir=gs://bucket/w"], "--workdir=gs:/bucket/w: gs://"),
        (sft, [CONFIG, "--workdir=s3://bucket/w"], "--workdir=s3:/bucket/w: s3://"),
        (sift, [CONFIG, "--workdir", "gs://bucket/w"], "--workdir=gs:"),
        (evaluate, [CONFIG, "--workdir=gs://bucket/w"], "--workdir=gs:"),
        (evaluate, [*RUN, "--checkpoint=gs://bucket/w"], "--checkpoint=gs:"),
        (evaluate, [*RUN, "--hf=gs://bucket/hf"], "--hf=gs://bucket/hf: gs://"),
        (comparing, ["a", "gs://bucket/b"], "--runs=gs:"),
        (generate, ["--hf=hf://owner/name", "--prompt=x"], "--hf=hf:"),
        (generate, ["--hf=shipped", "--prompt=x", "--image=https://host/a.png"], "--image=https:"),
        (generate, ["--hf=shipped", "--prompts=p.jsonl", "--out=az://c/o.jsonl"], "--out=az:"),
        (convert, ["--hf=shipped", "--out=gs://bucket/c"], "--out=gs:"),
        (export, ["--checkpoint=file:///c", "--out=o"], "--checkpoint=file:"),
        (export, ["--checkpoint=c", "--out=gs://bucket/o"], "--out=gs:"),
        (prepare, ["jsonl", "--src=gs://bucket/d", "--out=o"], "--src=gs:"),
        (prepare, ["jsonl", "--src=d", "--out=gs://bucket/o"], "--out=gs:"),
        (train, [*RUN, "--config.data.path=gs://bucket/d"], "--config.data.path=gs:"),
        (train, [*RUN, "--config.model.hf=s3://bucket/hf"], "--config.model.hf=s3:"),
        (train, [*RUN, "--config.judge.cache=gs://bucket/j"], "--config.judge.cache=gs:"),
        (train, [*RUN, "--config.data.length_cache=gs://bucket/l"], "--config.data.length_cache=gs:"),
        (evaluate, [*RUN, "--config.eval.paths.mmvp=gs://bucket/m"], "--config.eval.paths.mmvp=gs:"),
    ],
)  # fmt: skip
def test_an_address_is_refused_by_name_and_makes_no_folder(
    door: Any, argv: list[str], named: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(door, *argv) == 1
    said = capsys.readouterr().err
    assert named in said and "is no path of this machine; mount it" in said
    assert not list(tmp_path.iterdir())


def test_what_is_no_path_may_look_like_an_address() -> None:
    """Texts for a model, and the endpoint of a server."""
    texts = {"prompt": "https://host says?", "system": "a://b", "stop": ["c://"], "prefill": "d://"}
    server = {"judge": {"server": {"url": "http://localhost:8000/v1"}}}
    command._require_local({**texts, "config": server, "workdir": Path("C:/runs"), "hf": "owner/name@main"}, "--")
    with pytest.raises(ValueError, match="prompts=.*is no path of this machine"):
        command._require_local({**texts, "prompts": Path("gs://b/c")}, "--")


# ---------------------------------------------------------------------------------------------------------------- '..'
def test_a_checkpoint_by_a_path_that_leads_up_or_through_a_link(
    tiny_hf: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """As `train` prints it for --workdir=../w; '..' behind a link is that of the folder it points to."""
    (tmp_path / "here").mkdir()
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "hf").symlink_to(tiny_hf)
    assert run(convert, "--hf=../hf", "--out=../w/checkpoints") == 0
    assert f"wrote {tmp_path / 'w/checkpoints/0'}" in capsys.readouterr().out
    for number, place in enumerate(("../w/checkpoints", "../w", "../here/../w/checkpoints/0", "link/../../w")):
        assert run(export, f"--checkpoint={place}", f"--out=../out{number}") == 0, capsys.readouterr().err
    outs = [(tmp_path / f"out{n}" / "model.safetensors").read_bytes() for n in range(4)]
    assert set(outs) == {(tiny_hf / "model.safetensors").read_bytes()}
    saved = checkpoint.Checkpoints("../w/checkpoints")
    assert saved.latest == 0 and saved.folder == tmp_path / "w" / "checkpoints"
    saved.close()
