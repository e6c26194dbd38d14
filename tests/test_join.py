"""--distributed: how the processes of a run find each other. Real processes: tests/test_two_processes.py."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import pytest

from fgrpo_jax import command, evaluate, train


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `jax.distributed.initialize` was called with."""
    calls: list[Any] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **more: calls.append((*args, more)))
    return calls


def run(*argv: str) -> int:
    parser = command.parser("A door.")
    command.add_processes(parser)
    return command.run(lambda args: None, parser, argv)


def test_without_the_flag_nobody_is_joined(joined: list[Any]) -> None:
    assert run() == 0 and joined == []


def test_processes_are_joined_by_address_number_and_place(joined: list[Any]) -> None:
    assert run("--distributed=[::1]:8476,4,3") == 0
    assert joined == [("[::1]:8476", {"num_processes": 4, "process_id": 3})]


def test_a_cluster_says_who_they_are(joined: list[Any]) -> None:
    assert run("--distributed") == 0
    assert joined == [(None, {"num_processes": None, "process_id": None})]


@pytest.mark.parametrize("where", ["host:1", "host:1,2", "host:1,2,2", "host:1,2,-1", "host:1,two,1", "host:1,2,0,0"])
def test_what_names_no_process_is_refused(where: str, joined: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"--distributed={where}") == 1 and joined == []
    said = capsys.readouterr().err
    assert where in said and "HOST:PORT,COUNT,INDEX" in said and "Traceback" not in said


def test_without_a_cluster_the_error_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*args: Any, **more: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refused)
    assert run("--distributed") == 1
    said = capsys.readouterr().err
    assert "no cluster says who the processes are" in said and "--distributed=HOST:PORT,COUNT,INDEX" in said


@pytest.mark.parametrize("door", [train, evaluate])
def test_training_and_evaluation_take_it(door: Any) -> None:
    parser: argparse.ArgumentParser = door.parser()
    args = parser.parse_args(["--config=c.py", "--workdir=w", "--distributed"])
    assert args.distributed == "" and parser.parse_args(["--config=c.py", "--workdir=w"]).distributed is None
