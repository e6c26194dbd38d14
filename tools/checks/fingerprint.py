"""A fingerprint of all that a run's figures depend on: figures on file can be told from those of other code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(root: Path = ROOT) -> Iterator[Path]:
    """The package's modules, the configs and the shipped assets (but for texts about them), in a fixed order."""
    found = {*root.glob("fgrpo_jax/**/*.py"), *root.glob("configs/*.py"), *root.glob("fgrpo_jax/assets/**/*")}
    wanted = (f for f in found if f.is_file() and f.suffix not in (".md", ".pyc"))
    yield from sorted(wanted, key=lambda f: f.relative_to(root).as_posix())


def fingerprint(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of `files`, hexadecimal."""
    total = hashlib.sha256()
    for file in files(root):
        name = file.relative_to(root).as_posix()
        total.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
