"""Folders that `python -m fgrpo_jax.prepare` made."""

from __future__ import annotations

import pathlib

NAME = "prepared"
"""What config and commands call a source of whatever set a prepared folder holds."""


def is_prepared(path: pathlib.Path) -> bool:
    """Whether `prepare` finished a set in this folder."""
    return (path / "dataset_info.json").is_file()
