"""Two processes train together on CPU, as two hosts would: a run that replaces dead groups, and one that goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from two_processes import STEPS, is_dead

M, G = 8, 4


def train(hf: Path, workdir: Path, steps: int) -> None:
    """Both processes to their end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here}", "XLA_FLAGS": ""}
    command = [sys.executable, str(here / "two_processes.py")]
    both = [
        subprocess.Popen(
            [*command, str(index), str(port), str(hf), str(workdir), str(steps)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(text[-2000:] for text in said)


def lines(workdir: Path, step: int, process: int) -> list[dict[str, Any]]:
    text = (workdir / "rollouts" / f"{step:06d}{'.1' if process else ''}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_replace_their_dead_groups_and_report_as_one(tiny_hf: Path, tmp_path: Path) -> None:
    """Each draws until neither has a dead group; multipliers and figures are of all prompts; resumed, the same."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_hf, whole, STEPS)
    for steps in range(1, STEPS + 1):
        train(tiny_hf, parts, steps)
    rows = runs.rows(whole)
    assert runs.rows(parts) == rows and [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert runs.rows(whole, file="metrics.1.jsonl") == rows
    for row in rows:
        learnt = [lines(whole, row["step"], process) for process in range(2)]
        ids = [line["id"] for part in learnt for line in part]
        assert [len(part) for part in learnt] == [M // 2, M // 2] and len(set(ids)) == M
        assert not any(is_dead(types.SimpleNamespace(id=name)) for name in ids)
        assert row["rollout/dead_groups"] == 0 and row["rollout/resampled"] > 0
        assert row["sampler/logp_diff_max"] < 1e-4 and row["sampler/tokens"] > M * G
        assert learnt[0][0]["lambda"] == learnt[1][0]["lambda"]
    lam = [row["constraint/consistency/lambda"] for row in rows]
    assert np.isfinite(lam).all() and lam[0] == 1.0 and lam[1] != 1.0
