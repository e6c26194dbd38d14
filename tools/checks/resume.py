"""Stopping and resuming: the same run, bit for bit."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, same
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import checkpoint, metrics

STEPS = 5
STOPS = (1, 2, 4)


def checks(context: runs.Context) -> Iterator[Check]:
    """An uninterrupted run against runs killed after step k and started again by the same command."""
    whole = uninterrupted(context)
    stopped = [_stopped(context, STOPS[0])]  # alone: the others find its compiled programs
    with ThreadPoolExecutor(2) as pool:
        stopped += pool.map(lambda k: _stopped(context, k), STOPS[1:])
    for stop, work in zip(STOPS, stopped, strict=True):
        yield same(f"resume/after step {stop}: metrics that differ", _metrics_apart(whole, work), [])
        yield same(f"resume/after step {stop}: arrays that differ", _arrays_apart(whole, work), [])


def uninterrupted(context: runs.Context) -> Path:
    """Workdir of a run of STEPS steps with checkpoints of the last two; made once."""
    work = context.scratch / "whole"
    if not work.exists():
        runs.door("train", *_command(context, work)).require()
    return work


def _stopped(context: runs.Context, stop: int) -> Path:
    """Workdir of a run that was killed once checkpoint `stop` was there, and started again by the same command.

    These runs share their compiled programs, but not with the uninterrupted one: that compiling twice gives the same
    program is part of what is checked.
    """
    work, cache = context.scratch / f"stopped-{stop}", context.scratch / "compiled"
    argv = _command(context, work)
    runs.kill_door("train", *argv, when=(work / "checkpoints" / str(stop)).is_dir, cache=cache)
    if (found := checkpoint.resolve(work).name) != str(stop):
        raise RuntimeError(f"{work} was to be stopped after step {stop}, and its newest checkpoint is {found}")
    runs.door("train", *argv, cache=cache).require()
    return work


def _command(context: runs.Context, work: Path) -> Sequence[str]:
    return runs.tiny(context.policy, work, num_steps=STEPS, checkpoint__every=1, checkpoint__keep=2)


def _metrics_apart(whole: Path, work: Path) -> list[str]:
    """'step name' of every figure that differs, but for those that tell time."""
    rows = [read_rows(folder / "metrics.jsonl") for folder in (whole, work)]
    if len(rows[0]) != len(rows[1]):
        return [f"{len(rows[0])} rows against {len(rows[1])}"]
    return [
        f"{a['step']} {name}"
        for a, b in zip(*rows, strict=True)
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name) and not any(fnmatch.fnmatchcase(name, p) for p in metrics.VOLATILE)
    ]


def _arrays_apart(whole: Path, work: Path) -> list[str]:
    """Names of the parameters, moments, multipliers and counters of the last checkpoints that are not equal in bits."""
    a, b = (arrays(folder / "checkpoints" / str(STEPS)) for folder in (whole, work))
    return sorted(name for name in a.keys() | b.keys() if _bits(a.get(name)) != _bits(b.get(name)))


def _bits(value: np.ndarray | None) -> tuple[Any, ...]:
    return () if value is None else (str(value.dtype), value.shape, value.tobytes())


def arrays(step: Path) -> dict[str, np.ndarray]:
    """Every array of one checkpoint by its path, and the data position as text."""
    import jax
    import orbax.checkpoint as ocp
    from etils import epath

    found: dict[str, Any] = {"data": np.frombuffer(repr(checkpoint.read_meta(step).data).encode(), np.uint8)}
    for part in ("params", "state"):
        tree = ocp.StandardCheckpointHandler().restore(epath.Path(step / part))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[f"{part}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(leaf)
    return found
