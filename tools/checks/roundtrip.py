"""Conversion: into a checkpoint and out again, every tensor byte by byte; and what --checkpoint takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from checks import runs
from checks.record import Check, holds, same
from checks.resume import STEPS, uninterrupted


def checks(context: runs.Context) -> Iterator[Check]:
    """The policy's folder converted and exported; a run's folder, its checkpoints and one checkpoint exported alike."""
    into, out = context.scratch / "converted", context.scratch / "exported"
    runs.door("convert", f"--hf={context.policy}", f"--out={into}").require()
    runs.door("export", f"--checkpoint={into}", f"--out={out}").require()
    before, after = tensors(context.policy), tensors(out)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    yield same(f"convert_export/tensors of {len(before)} that differ", differing, [])
    yield from _takes(context)


def _takes(context: runs.Context) -> Iterator[Check]:
    work, found = uninterrupted(context), {}
    sources = {
        "workdir": work,
        "checkpoints": work / "checkpoints",
        "newest": work / "checkpoints" / str(STEPS),
        "older": work / "checkpoints" / str(STEPS - 1),
    }
    for name, source in sources.items():
        out = context.scratch / f"export-of-{name}"
        runs.door("export", f"--checkpoint={source}", f"--out={out}").require()
        found[name] = tensors(out)
    newest, older = found["workdir"] == found["checkpoints"] == found["newest"], found["older"] != found["newest"]
    yield holds(
        "convert_export/checkpoint argument",
        newest and older,
        {"folders give the newest": newest, "an older one differs": older},
        "a run's folder and its checkpoints folder give the newest checkpoint, one checkpoint gives itself",
    )


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """{name: (dtype, shape, SHA-256 of the bytes)} of an HF folder."""
    from safetensors import safe_open

    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as handle:
            for name in handle.keys():  # noqa: SIM118 (a handle is no dict)
                value = handle.get_tensor(name)
                found[name] = (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    return found
