"""Compiled programs on the disk: whose folder it is, and that nothing but time changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from fgrpo_jax import command

ROOT = Path(__file__).parent.parent


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A home of its own, and JAX's settings as they were."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name in ("FGRPO_PROGRAMS", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_a_folder_of_the_user_alone(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = command.keep_programs()
    assert folder is not None and folder.parent == tmp_path / ".cache" / "fgrpo_jax" / "programs"
    assert jax.config.jax_compilation_cache_dir == str(folder) and folder.stat().st_mode & 0o777 == 0o700
    env.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert str(command.keep_programs()).startswith(str(tmp_path / "xdg" / "fgrpo_jax" / "programs"))
    env.setenv("FGRPO_PROGRAMS", str(tmp_path / "mine"))
    assert str(command.keep_programs()).startswith(str(tmp_path / "mine"))


def test_it_can_be_turned_off_and_a_folder_that_jax_was_told_is_left_alone(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "file").write_text("")
    for name, value in (
        ("FGRPO_PROGRAMS", "off"),
        ("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own")),
        ("XDG_CACHE_HOME", str(tmp_path / "file")),  # no folder can be made there: then it goes without
    ):
        with env.context() as patch:
            patch.setenv(name, value)
            assert command.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir == before and os.listdir(tmp_path) == ["file"]


STEPS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from fgrpo_jax import command
command.keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event.rpartition("/")[2]))
step = jax.jit(lambda s, x: (s + jnp.sin(x @ s), jax.nn.softmax(s).sum(0)), donate_argnums=0)
state, x = jnp.arange(64.0).reshape(8, 8) / 7, jnp.ones((8, 8)) / 3
for _ in range(3):
    state, figures = step(state, x)
bits = np.concatenate([np.asarray(state).ravel(), np.asarray(figures).ravel()]).tobytes().hex()
print(json.dumps([bits, seen.count("cache_hits"), seen.count("cache_misses")]))
"""


def started(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "FGRPO_PROGRAMS": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STEPS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def test_two_processes_at_once_a_later_one_and_a_broken_file_all_compute_the_same_bits(tmp_path: Path) -> None:
    """The state is donated, by programs that were compiled and by those that were read."""
    folder = tmp_path / "programs"
    both = [started(folder), started(folder)]
    (bits, _, made), (other, _, also) = map(ended, both)
    assert made + also > 0 and other == bits
    again, hits, misses = ended(started(folder))
    assert (again, misses) == (bits, 0) and hits > 0
    for file in folder.rglob("*-cache"):
        file.write_bytes(file.read_bytes()[:200])  # as a kill in the midst of writing leaves it
    assert ended(started(folder))[0] == bits
