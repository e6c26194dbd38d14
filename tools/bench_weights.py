"""Times conversion and export against plain copies of the same bytes, measures memory and compares every byte.

    python tools/bench_weights.py --size=3B [--layers=36] [--rounds=3] [--scratch=FOLDER]

A random checkpoint of the released shape is written, in shards. Then in every round, one after the other, each in a
process of its own (its start not counted): reading the shards, a plain Orbax save of the same arrays, convert, export,
`cp` of the export. Convert must take at most 1.5 × (read + save), export at most 2 × cp (all to the disk, by fsync),
medians of the rounds. Both sides of a ratio start alike: what they read was read just before, so that it is in the page
cache (which makes `read` and `cp` fast: no disk is read), and who goes first changes from round to round.
Peak memory is VmHWM of the process, pages of mapped files included; RssAnon beside it leaves them out. The scratch
folder needs four times the model's size, and is removed; --only=convert leaves the comparisons out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import make_random_checkpoint as random_checkpoint
from checks.record import Check, at_most, printed, same

from fgrpo_jax import command
from fgrpo_jax.weights.shards import Shards

_SAVE = """
import sys, time, jax, jax.numpy as jnp, orbax.checkpoint as ocp
jax.config.update("jax_platforms", "cpu")
from fgrpo_jax.weights import importer
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
params = importer.load_hf(sys.argv[1], Model.create(ModelConfig.load(sys.argv[1])), dtype=jnp.dtype(sys.argv[3]))
began = time.perf_counter()
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(sys.argv[2], params)
print("SECONDS", time.perf_counter() - began)
"""
"""A plain Orbax save; loading the arrays before it does not count."""

_CALL = """
jax.config.update("jax_platforms", "cpu")
began = time.perf_counter()
call()
print("SECONDS", time.perf_counter() - began)
"""


@dataclasses.dataclass(frozen=True)
class Ran:
    """A process that has ended: seconds, and its peaks in bytes (VmHWM, and RssAnon as sampled)."""

    seconds: float
    peak: int
    anonymous: int
    out: str


def run(*command: str | Path) -> Ran:
    """Runs a command and watches its memory.

    Raises:
      RuntimeError: it failed.
    """
    peaks = {"VmHWM": 0, "RssAnon": 0}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for name, size in _memory(process.pid):
                if name in peaks:
                    peaks[name] = max(peaks[name], size)
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        out.seek(0)
        said = out.read()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {command[:4]}: {said[-2000:]}")
    return Ran(seconds, peaks["VmHWM"], peaks["RssAnon"], said)


def _memory(pid: int) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                yield name, int(rest.split()[0]) * 1024


def converted(hf: Path, out: Path) -> Ran:
    """`convert`, its seconds without the start of Python."""
    return _timed(
        "from fgrpo_jax.training import conversion as door\ncall = lambda: door.convert(Path(argv[1]), Path(argv[2]))",
        hf,
        out,
    )


def exported(checkpoint: Path, out: Path, shard_gb: float) -> Ran:
    """`export`, its seconds without the start of Python."""
    call = "door.export(Path(argv[1]), Path(argv[2]), shard_bytes=float(argv[3]) * 1e9)"
    return _timed(
        f"from fgrpo_jax.training import conversion as door\ncall = lambda: {call}", checkpoint, out, str(shard_gb)
    )


def _timed(setup: str, *argv: str | Path) -> Ran:
    """A process that runs `setup`, which defines `call`, and times the call."""
    script = f"from pathlib import Path\nfrom sys import argv\nimport jax, time\n{setup}\n{_CALL}"
    ran = run(sys.executable, "-c", script, *argv)
    return dataclasses.replace(ran, seconds=float(ran.out.rpartition("SECONDS")[2].split()[0]))


# ----------------------------------------------------------------------------------------------------------- measured
def read(folder: Path) -> float:
    """Seconds to read every byte of a folder's files, into one buffer of 64 MB."""
    buffer, began = bytearray(1 << 26), time.perf_counter()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return time.perf_counter() - began


def plain_save(hf: Path, out: Path, dtype: str) -> float:
    """Seconds of an Orbax save of the arrays, once they are in memory; what is written is removed."""
    said = run(sys.executable, "-c", _SAVE, hf, out, dtype).out
    seconds = float(said.rpartition("SECONDS")[2].split()[0]) + _flush(out)
    shutil.rmtree(out)
    return seconds


def copy(source: Path, out: Path) -> float:
    """Seconds of `cp`; the copy is removed."""
    seconds = run("cp", "-r", source, out).seconds + _flush(out)
    shutil.rmtree(out)
    return seconds


def _flush(folder: Path) -> float:
    """Seconds until all files of a folder are on the disk."""
    began = time.perf_counter()
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
    return time.perf_counter() - began


def digests(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """{name: (dtype, shape, SHA-256 of the bytes)} of every tensor."""
    shards, found = Shards(folder), {}
    for name, tensor in shards.tensors.items():
        digest = hashlib.sha256(shards.view(tensor).reshape(-1).view("u1").data)
        shards.release(tensor)
        found[name] = (tensor.dtype, tensor.shape, digest.hexdigest())
    return found


def measure(hf: Path, scratch: Path, *, dtype: str, rounds: int, shard_gb: float) -> Iterator[Check]:
    """All checks; every round's seconds go to stderr as they come."""
    rows: list[dict[str, float]] = []
    for number in range(rounds):
        row: dict[str, float] = {}
        first, second = one_round(row, hf, scratch, dtype=dtype, number=number, shard_gb=shard_gb)
        print(json.dumps({name: round(value, 2) for name, value in row.items()}), file=sys.stderr, flush=True)
        rows.append(row)
        if number == 0:
            yield from bytes_and_memory(hf, scratch / "exported", {"convert": first, "export": second})
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    yield at_most("bench/convert, times read + plain save", median["convert"] / (median["read"] + median["save"]), 1.5)
    yield at_most("bench/export, times cp", median["export"] / median["cp"], 2.0)


def one_round(
    row: dict[str, float], hf: Path, scratch: Path, *, dtype: str, number: int, shard_gb: float
) -> tuple[Ran, Ran]:
    """Both sides of both ratios into `row`, in an order that changes with the round; (convert, export) as they ran.

    The first round leaves its export for the next one's `cp` to begin with.
    """
    into, out = scratch / "checkpoint", scratch / "exported"
    shutil.rmtree(into, ignore_errors=True)

    def plain() -> None:
        read(hf)
        row["read"] = read(hf)
        row["save"] = plain_save(hf, scratch / "plain", dtype)

    def copied() -> None:
        read(out)
        row["cp"] = copy(out, scratch / "copy")

    if number % 2:
        plain()
    read(hf)
    first = converted(hf, into)
    row["convert"] = first.seconds + _flush(into)
    if number % 2:
        copied()
    else:
        plain()
    shutil.rmtree(out, ignore_errors=True)
    read(into)
    second = exported(into, out, shard_gb)
    row["export"] = second.seconds + _flush(out)
    if not number % 2:
        copied()
    return first, second


def bytes_and_memory(hf: Path, out: Path, runs: dict[str, Ran]) -> Iterator[Check]:
    """Peak memory against the arrays once, two shards and 2 GB; every tensor of `out` against that of `hf`."""
    shard = max(file.stat().st_size for file in hf.glob("*.safetensors"))
    bound = (Shards(hf).nbytes + 2 * shard) / 1e9 + 2
    for name, ran in runs.items():
        yield at_most(f"bench/{name}, peak GB (VmHWM; anonymous {ran.anonymous / 1e9:.2f})", ran.peak / 1e9, bound)
    before, after = digests(hf), digests(out)
    differing = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    yield same(f"bench/tensors of {len(before)} that differ", sorted(differing)[:5], [])


def convert_only(hf: Path, scratch: Path) -> Iterator[Check]:
    """Conversion alone, within 24 GiB."""
    ran = converted(hf, scratch / "checkpoint")
    size = Shards(hf).nbytes / 1e9
    name = f"bench/convert of {size:.2f} GB in {ran.seconds:.0f} s, peak GiB (anonymous {ran.anonymous / 2**30:.2f})"
    yield at_most(name, ran.peak / 2**30, 24.0)


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--size", choices=random_checkpoint.released.HUB, default="3B", help="(%(default)s)")
    out.add_argument("--layers", type=int, help="decoder layers; the release's own by default")
    out.add_argument("--dtype", default="bfloat16", help="of the checkpoint (%(default)s)")
    out.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    out.add_argument("--shard_gb", type=float, default=4.0, help="(%(default)s)")
    out.add_argument("--scratch", type=Path, help="where the temporary folder is made")
    out.add_argument("--only", choices=("convert",), help="convert once and report its memory")
    return out


def main(args: argparse.Namespace) -> int:
    """Makes the checkpoint, measures, prints one JSON line a check."""
    with tempfile.TemporaryDirectory(prefix="fgrpo-bench-", dir=args.scratch) as folder:
        scratch, hf = Path(folder), Path(folder) / "hf"
        config = random_checkpoint.released_config(args.size, layers=args.layers)
        random_checkpoint.write(hf, config, dtype=args.dtype, shard_bytes=args.shard_gb * 1e9)
        if args.only:
            checks = convert_only(hf, scratch)
        else:
            checks = measure(hf, scratch, dtype=args.dtype, rounds=args.rounds, shard_gb=args.shard_gb)
        return printed(checks)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
