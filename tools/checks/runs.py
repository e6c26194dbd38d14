"""The package's commands, run as a person runs them: each in a process of its own, on CPU."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

SMALL: Mapping[str, Any] = {
    "data.prompts_per_step": 8,
    "rollout.batch_prompts": 8,
    "rollout.group_size": 4,
    "algorithm.micro_batch_prompts": 4,
    "eval.examples": 0,
    "checkpoint.every": 0,
    "log.tensorboard": False,
}
"""Overrides of configs/tiny.py: the same program, a step in a second."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What the checks of an area work on.

    Attributes:
      scratch: an empty folder, theirs alone.
      policy: HF folder of the policy under test.
      nlvr: folder of NLVR in its published layout, which may not be there.
      results: JSON file of the long runs.
    """

    scratch: Path
    policy: Path
    nlvr: Path
    results: Path


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended."""

    command: str
    code: int
    out: str
    err: str
    seconds: float

    def require(self) -> Done:
        """Itself, if the command succeeded.

        Raises:
          RuntimeError: it did not; with the end of what it said.
        """
        if self.code:
            raise RuntimeError(f"exit code {self.code} of: {self.command}\n{self.err[-3000:]}")
        return self


def overrides(values: Mapping[str, Any]) -> list[str]:
    """{'a.b': 1} → ['--config.a.b=1']"""
    return [f"--config.{name}={value}" for name, value in values.items()]


def door(name: str, *argv: str | Path, cache: Path | None = None) -> Done:
    """`python -m fgrpo_jax.NAME ARGV…`.

    Args:
      cache: folder of compiled programs; runs that share it compile once. None compiles afresh.
    """
    return python("-m", f"fgrpo_jax.{name}", *argv, cache=cache)


def python(*argv: str | Path, cache: Path | None = None) -> Done:
    """A Python of the same environment; its progress bars go into `err`."""
    return run(sys.executable, *argv, environment=_environment(cache))


def run(*argv: str | Path, environment: Mapping[str, str], cwd: Path | None = None) -> Done:
    """A command that is waited for, in whatever environment."""
    command = [*map(str, argv)]
    print(f"  {' '.join(command)}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=dict(environment), cwd=cwd, check=False)
    return Done(" ".join(command), done.returncode, done.stdout, done.stderr, time.perf_counter() - began)


def kill_door(name: str, *argv: str | Path, when: Callable[[], bool], cache: Path | None = None) -> None:
    """Starts a door as `door` does, and kills it (SIGKILL: it can put nothing in order) as soon as `when` holds.

    Raises:
      RuntimeError: it ended by itself before.
    """
    command = [sys.executable, "-m", f"fgrpo_jax.{name}", *map(str, argv)]
    print(f"  {' '.join(command)}  … to be killed", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=_environment(cache))
        while process.poll() is None and not when():
            time.sleep(0.01)
        if process.poll() is not None:
            said.seek(0)
            raise RuntimeError(f"exit code {process.returncode} before it was killed: {command}\n{said.read()[-3000:]}")
        process.kill()
        process.wait()


def _environment(cache: Path | None) -> dict[str, str]:
    """One CPU device, no network, and programs compiled for this command alone unless there is a cache."""
    environment = dict(os.environ)
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", environment.get("XLA_FLAGS", ""))
    environment |= {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["FGRPO_PROGRAMS"] = "off"
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return environment


def tiny(policy: Path, workdir: Path, **more: Any) -> Sequence[str]:
    """Arguments of a small training run on the built-in world; '__' in a name stands for '.'."""
    named = {name.replace("__", "."): value for name, value in more.items()}
    values = {**SMALL, "model.hf": policy, **named}
    return [f"--config={CONFIGS / 'tiny.py'}", f"--workdir={workdir}", *overrides(values)]
