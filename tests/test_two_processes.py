"""Two processes work together on CPU, as two hosts would: training with dead groups, evaluation; both go on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from two_processes import QUESTIONS, STEPS

from fgrpo_jax.rows import read_rows, write_rows

M, G = 8, 4
QUICK = "--xla_backend_optimization_level=0"  # programs are compiled for longer than they run


def start(*args: object, count: int = 2) -> list[subprocess.Popen[str]]:
    """The processes of tests/two_processes.py."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here.parent}/tools:{here}", "XLA_FLAGS": QUICK}
    return [
        subprocess.Popen(
            [sys.executable, str(here / "two_processes.py"), *map(str, (index, count, port, *args))],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for index in range(count)
    ]  # fmt: skip


def end(processes: list[subprocess.Popen[str]], *, code: int = 0) -> list[str]:
    """What each said, once all have ended."""
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert {process.returncode for process in processes} == {code}, "\n".join(text[-2000:] for text in said)
    return said


def lines(workdir: Path, step: int, process: int) -> list[dict[str, Any]]:
    text = (workdir / "rollouts" / f"{step:06d}{'.1' if process else ''}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_replace_their_dead_groups_and_report_as_one(tiny_hf: Path, tmp_path: Path) -> None:
    """Each draws until neither has a dead group; multipliers and figures are of all prompts; resumed, the same."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    end(start("train", tiny_hf, whole, STEPS))
    for steps in range(1, STEPS + 1):
        end(start("train", tiny_hf, parts, steps))
    rows = runs.rows(whole)
    assert runs.rows(parts) == rows and [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert runs.rows(whole, file="metrics.1.jsonl") == rows
    for row in rows:
        learnt = [lines(whole, row["step"], process) for process in range(2)]
        ids = [line["id"] for part in learnt for line in part]
        assert [len(part) for part in learnt] == [M // 2, M // 2] and len(set(ids)) == M
        assert not any(runs.is_dead(types.SimpleNamespace(id=name)) for name in ids)
        assert row["rollout/dead_groups"] == 0 and row["rollout/resampled"] > 0
        assert row["sampler/logp_diff_max"] < 1e-4 and row["sampler/tokens"] > M * G
        assert learnt[0][0]["lambda"] == learnt[1][0]["lambda"]
    lam = [row["constraint/consistency/lambda"] for row in rows]
    assert np.isfinite(lam).all() and lam[0] == 1.0 and lam[1] != 1.0


# ----------------------------------------------------------------------------------------------------------- evaluation
SET = "world-heldout"
PARTS = [f"parts/{SET}.{index}-of-2.jsonl" for index in range(2)]
ONCE = [f"{SET}.jsonl", f"{SET}.settings.json", "results.json", "results.md", "results.tex"]


def killed(folder: Path) -> set[int]:
    """Which questions two processes have on file that were killed once one had written; these answers are marked."""
    processes, parts = start("evaluate", folder, "killed"), folder / "killed/eval/parts"
    try:
        while not any(file.stat().st_size for file in parts.glob("*.jsonl")):
            assert [process.poll() for process in processes] == [None, None], "ended before it was killed"
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    found = set()
    for file in parts.glob("*.jsonl"):
        rows = read_rows(file)
        write_rows(file, [row | {"kept": True} for row in rows])
        with file.open("a") as cut_short:
            cut_short.write('{"index": 10, "te')
        found |= {row["index"] for row in rows}
    return found


def written(folder: Path, process: int, name: str) -> set[str]:
    """What a process did to the files of an evaluation."""
    did = [line.split() for line in (folder / f"{process}.wrote").read_text().splitlines()]
    return {f"{what} {file.removeprefix(f'{name}/eval/')}" for what, file in did if file.startswith(f"{name}/")}


@pytest.mark.slow
def test_two_processes_answer_as_one_does(tmp_path: Path) -> None:
    """Greedy, sampled and after a kill, the same bytes; all but the second's own part is written by the first alone."""
    one, two = tmp_path / "one", tmp_path / "two"
    kept = killed(tmp_path)
    assert 0 < len(kept) < QUESTIONS and not (tmp_path / "killed/eval/results.json").exists()
    for folder in (one, two):
        shutil.copytree(tmp_path / "killed", folder / "resumed")
    end(start("evaluate", two, "greedy", "sampled", "resumed"))
    end(start("evaluate", one, "greedy", "sampled", "resumed", count=1))

    for name in ("greedy", "sampled", "resumed"):
        assert sorted(path.name for path in (two / name / "eval").rglob("*") if path.is_file()) == sorted(ONCE)
        for file in ONCE:
            assert (two / name / "eval" / file).read_bytes() == (one / name / "eval" / file).read_bytes(), (name, file)
    greedy, sampled, resumed = (
        read_rows(two / name / "eval" / f"{SET}.jsonl") for name in ("greedy", "sampled", "resumed")
    )
    assert len({row["id"] for row in greedy}) == QUESTIONS and greedy != sampled
    assert np.mean([row["accuracy"] for row in greedy]) > 0.5, "the policy no longer sees its questions"
    assert {row["index"] for row in resumed if row.pop("kept", False)} == kept and resumed == sampled

    once = {f"open {file}" for file in ONCE} | {f"os.remove {part}" for part in PARTS}
    for name in ("greedy", "sampled"):
        assert written(two, 0, name) == once | {f"open {PARTS[0]}"}
        assert written(two, 1, name) == {f"open {PARTS[1]}"}
    assert written(two, 1, "resumed") <= {f"open {PARTS[1]}"}


@pytest.mark.slow
def test_a_model_split_over_two_processes_is_refused(tmp_path: Path) -> None:
    """Each would put other prompts where both compute one: answers to questions that nobody asked, without a word."""
    for said in end(start("evaluate", tmp_path, "shared"), code=1):
        assert "error: mesh.tensor=2 splits the model over processes 0, 1, and each has prompts of its own" in said
    assert not (tmp_path / "shared").exists()
