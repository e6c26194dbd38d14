"""Checkpoints of every dialect, size and origin: what is read, by which name, and how near it is to transformers."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import released
import sharding_table

from checks import runs
from checks.record import Check, at_most, holds, same, skipped
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

HAS_TORCH = importlib.util.find_spec("torch") is not None


def dialects(scratch: Path, policy: Path) -> Iterator[Check]:
    """Flat, nested and mixed configs, both weight namings, both dialects of the processor files."""
    yield from suite("dialects", "test_dialects.py")
    yield from suite("dialects", "test_hub_layout.py")


def hub(scratch: Path, policy: Path) -> Iterator[Check]:
    """Ids and revisions through a cache folder made on the spot, without a network."""
    yield from suite("hub", "test_hub.py")


def video(scratch: Path, policy: Path) -> Iterator[Check]:
    """Prompts with videos: patches, positions, logits and greedy tokens."""
    yield from suite("video", "test_video.py")


def sizes(scratch: Path, policy: Path) -> Iterator[Check]:
    """Parameters of the released sizes, and the sharding of their arrays."""
    for size, config in released.HUB.items():
        leaves = jax.tree.leaves(Model.create(ModelConfig.from_hf(config)).abstract())
        count = sum(math.prod(leaf.shape) for leaf in leaves)
        yield same(f"sizes/{size} parameters", count, released.PARAMETERS[size])
        table = sharding_table.table(size)
        golden = sharding_table.golden_file(size).read_text(encoding="utf-8")
        name = f"sizes/{size} sharding, fsdp {sharding_table.FSDP} x tensor {sharding_table.TENSOR}"
        yield holds(name, table == golden, table.strip().splitlines()[-1], "as in tests/golden")
    yield from suite("sizes", "test_released_sizes.py")


def verify(scratch: Path, policy: Path) -> Iterator[Check]:
    """`convert --verify` on the policy and on a checkpoint made now: every part against transformers."""
    made = scratch / "tiny"
    scratch.mkdir(parents=True, exist_ok=True)
    runs.python(runs.ROOT / "tools" / "make_tiny_checkpoint.py", f"--out={made}").require()
    for name, folder in (("policy", policy), ("made now", made)):
        if not HAS_TORCH:
            yield skipped(f"verify/{name}", "torch is not installed", "every part within its tolerance")
            continue
        done = runs.door("convert", f"--hf={folder}", "--verify")
        rows = re.findall(r"^(.+?)\s+(\S+e\S+)\s+(\S+e\S+)\s+(\S+e\S+)\s+(yes|NO)$", done.out, re.MULTILINE)
        off = [part for part, *_, ok in rows if ok != "yes"]
        parts = f"{len(rows)} parts, beyond tolerance: {', '.join(off) or 'none'}"
        yield holds(
            f"verify/{name}", done.code == 0 and bool(rows) and not off, parts, "every part within its tolerance"
        )
        logits = next((float(relative) for part, _, relative, *_ in rows if part == "logits"), None)
        yield at_most(f"verify/{name}, logits, of the largest", logits, 1e-4)


def suite(group: str, file: str) -> Iterator[Check]:
    """The tests of one file, of which none may fail or be skipped."""
    name = f"{group}/tests/{file}"
    if not HAS_TORCH:
        yield skipped(name, "torch is not installed", "all pass")
        return
    done = runs.python("-m", "pytest", "-q", "--durations=0", runs.ROOT / "tests" / file)
    last = done.out.strip().splitlines()[-1] if done.out.strip() else f"exit code {done.code}"
    yield holds(name, done.code == 0 and "skipped" not in last, last, "all pass")
