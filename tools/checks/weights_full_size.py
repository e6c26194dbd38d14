"""The 3B shape with four of its layers through convert and export: bytes and memory; see tools/bench_weights.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bench_weights
import make_random_checkpoint as random_checkpoint

from checks.record import Check

LAYERS = 4
"""Of 36: 2.6 GB of bfloat16, of which no step holds more than a part."""


def checks(scratch: Path) -> Iterator[Check]:
    """One conversion there and back: every tensor, and the peak of memory."""
    hf, into, out = scratch / "hf", scratch / "checkpoint", scratch / "out"
    config = random_checkpoint.released_config("3B", layers=LAYERS)
    random_checkpoint.write(hf, config, dtype="bfloat16", shard_bytes=6e8)
    runs = {"convert": bench_weights.converted(hf, into), "export": bench_weights.exported(into, out, 0.6)}
    yield from bench_weights.bytes_and_memory(hf, out, runs)
