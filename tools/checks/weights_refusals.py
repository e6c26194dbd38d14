"""Checkpoints that are off: each ends in a message with file and tensor and leaves nothing; so does a full disk."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import released
from safetensors.numpy import load_file, save_file

from checks import runs
from checks.record import Check, holds, skipped
from fgrpo_jax import export
from fgrpo_jax.weights.shards import INDEX

NORM = "model.norm.weight"
FOREIGN = {
    "a text-only Qwen2.5 checkpoint": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "a Qwen2-VL checkpoint": {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]},
    "a Qwen3-VL checkpoint": {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]},
}


def checks(scratch: Path, policy: Path) -> Iterator[Check]:
    """Every kind of damage, two at a time; the policy is first written in several shards."""
    into, whole = scratch / "checkpoint", scratch / "whole"
    runs.door("convert", f"--hf={policy}", f"--out={into}").require()
    export.export(into, whole, shard_bytes=2e6)
    home = whole / json.loads((whole / INDEX).read_text())["weight_map"][NORM]
    other = next(file for file in sorted(whole.glob("*.safetensors")) if file != home)
    cases: list[tuple[str, Callable[[Path], object], tuple[str, ...]]] = [
        ("truncated shard", lambda f: _cut(f / home.name), (home.name, "tensor '", "download")),
        ("index naming a missing shard", lambda f: (f / home.name).unlink(), (home.name, "does not exist", "first '")),
        ("tensor in two shards", lambda f: _repeat(f, home.name, other.name), (NORM, home.name, other.name)),
        ("wrong dtype string", lambda f: _dtype(f / home.name), (NORM, home.name, "F23", "readable are")),
        *((name, _config(change), (f"{name} ", "only Qwen2.5-VL")) for name, change in FOREIGN.items()),
    ]
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda case: _refused(scratch, whole, *case), cases)
    yield _not_finite(scratch, whole, home)
    yield _existing(scratch, whole)
    yield from _full_disk(scratch, whole, into)


def _refused(scratch: Path, whole: Path, name: str, spoil: Callable[[Path], object], words: tuple[str, ...]) -> Check:
    place = scratch / name.replace(" ", "-")
    shutil.copytree(whole, place / "hf")
    spoil(place / "hf")
    done = runs.door("convert", f"--hf={place / 'hf'}", f"--out={place / 'out'}")
    return _verdict(name, done, words, [path.name for path in place.iterdir()] == ["hf"])


def _verdict(name: str, done: runs.Done, words: tuple[str, ...], nothing_left: bool) -> Check:
    message = next((line for line in done.err.splitlines() if line.startswith("error: ")), "")
    missing = [word for word in words if word not in message]
    value = {"exit code": done.code, "message": message[:400] or done.err[-300:], "nothing is left": nothing_left}
    ok = done.code == 1 and bool(message) and not missing and nothing_left
    return holds(f"refusals/{name}", ok, value, f"exit code 1, a message with {', '.join(words)}, nothing left behind")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _repeat(folder: Path, home: str, other: str) -> None:
    save_file(load_file(folder / other) | {NORM: load_file(folder / home)[NORM]}, folder / other)


def _dtype(file: Path) -> None:
    entry = f'"{NORM}":{{"dtype":"F32"'.encode()
    content = file.read_bytes()
    if entry not in content:
        raise ValueError(f"{file} has no float32 {NORM}; give a float32 policy")
    file.write_bytes(content.replace(entry, entry.replace(b"F32", b"F23")))


def _config(change: dict[str, Any]) -> Callable[[Path], object]:
    plain = {key: value for key, value in released.flat("3B").items() if key != "vision_config"}
    return lambda folder: (folder / "config.json").write_text(json.dumps(plain | change))


def _not_finite(scratch: Path, whole: Path, home: Path) -> Check:
    place = scratch / "not-finite"
    shutil.copytree(whole, place / "hf")
    tensors = load_file(home)
    tensors[NORM][:3] = np.nan
    save_file(tensors, place / "hf" / home.name)
    done = runs.door("convert", f"--hf={place / 'hf'}", f"--out={place / 'out'}")
    line = next((line for line in done.err.splitlines() if "NaN" in line), "")
    ok = done.code == 0 and all(word in line for word in ("1 tensors", "3 values", NORM, home.name))
    return holds("refusals/NaN in a tensor", ok, line[-300:], "converted, with a warning that counts and names")


def _existing(scratch: Path, whole: Path) -> Check:
    target = scratch / "existing"
    target.mkdir()
    (target / "thesis.tex").write_text("mine")
    done = runs.door("convert", f"--hf={whole}", f"--out={target}")
    kept = [path.name for path in target.iterdir()] == ["thesis.tex"]
    return _verdict("target folder that exists", done, (str(target), "not empty", "choose"), kept)


def _full_disk(scratch: Path, whole: Path, checkpoint: Path) -> Iterator[Check]:
    """A file system of 5 MB, a few too few: noticed at once and, with the look at the room off, on the way."""
    disk = scratch / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        yield skipped("refusals/full disk", "a tmpfs cannot be mounted here (needs root)", "nothing left behind")
        return
    try:
        for door, flag, source in (("convert", "--hf", whole), ("export", "--checkpoint", checkpoint)):
            done = runs.door(door, f"{flag}={source}", f"--out={disk / 'out'}")
            yield _verdict(f"{door} onto a full disk", done, ("out", "left", "free"), not any(disk.iterdir()))
            blind = (
                "from fgrpo_jax.model import hub_folder; hub_folder.require_room = lambda *_: None\n"
                f"from fgrpo_jax import doors, {door} as door; import sys\n"
                "raise SystemExit(doors.run(door.main, door.parser(), sys.argv[1:]))"
            )
            done = runs.python("-c", blind, f"{flag}={source}", f"--out={disk / 'out'}")
            words = (
                ("out could not be written", "tensor '")
                if door == "convert"
                else ("tensor '", ".safetensors", "No space")
            )
            yield _verdict(f"{door} onto a disk that fills up", done, (*words, "ree"), not any(disk.iterdir()))
    finally:
        subprocess.run(["umount", disk], check=False)
