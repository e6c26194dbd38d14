"""Small checkpoints through convert and export: one file and many, either naming, every dtype."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from checks import runs
from checks.record import Check, same
from checks.roundtrip import tensors


def checks(scratch: Path, policy: Path) -> Iterator[Check]:
    """The policy converted and exported: tensors that differ."""
    into, out = scratch / "checkpoint", scratch / "hf"
    runs.door("convert", f"--hf={policy}", f"--out={into}").require()
    runs.door("export", f"--checkpoint={into}", f"--out={out}").require()
    before, after = tensors(policy), tensors(out)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    yield same(f"roundtrip/tensors of {len(before)} that differ", differing, [])
