"""What a Hugging Face folder holds besides weights, and how a folder appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.rows import ALONE, Process

TRAVELLERS = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "generation_config.json"),
)
"""Files that travel with the weights; those that a folder lacks are not missed."""


def require_new(target: Path) -> None:
    """Raises a FileExistsError unless `target` is absent or an empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty: choose a new folder")


def require_room(target: Path, nbytes: int) -> None:
    """Raises an OSError when the disk of `target` has less than `nbytes` left, before anything is written."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise OSError(
            errno.ENOSPC,
            f"{target} needs {nbytes / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB left: free "
            f"{(nbytes - free) / 1e9:.2f} GB or choose a folder on another disk",
        )


@contextlib.contextmanager
def appearing(target: Path, process: Process = ALONE) -> Iterator[Path]:
    """A folder beside `target` to write into, which takes its name once every process has left the block.

    When one process fails, the folder is removed, and the others fail when they leave.

    Raises:
      FileExistsError: `target` holds something.
    """
    number, count = process
    require_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Processes that write together must agree on the name; a process alone may have others beside it.
    beside = target.parent / f".{target.name}.{'partial' if count > 1 else uuid.uuid4().hex}"
    beside.mkdir(exist_ok=count > 1)
    marks = [beside / f".done-{k}-of-{count}" for k in range(count)]
    try:
        yield beside
        if not beside.is_dir():
            raise OSError(f"another process of the {count} that write {target} has failed: nothing is kept")
        marks[number].touch()
        if all(mark.exists() for mark in marks):
            for mark in marks:
                mark.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # two processes saw the last mark; the other has renamed it
                os.replace(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def write_travellers(folder: Path, config: ModelConfig, source: Path | None) -> None:
    """Copies tokenizer and processor files; sees to it that there is a generation config without a penalty.

    Raises:
      FileNotFoundError: there is no `source`.
    """
    if source is not None:
        if not source.is_dir():
            raise FileNotFoundError(f"source folder {source} does not exist")
        for name in TRAVELLERS:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    path = folder / "generation_config.json"
    if path.is_file():
        generation = json.loads(path.read_text(encoding="utf-8"))
    else:
        generation = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if not math.isclose(generation.get("repetition_penalty", 1.0), 1.0):
        generation["repetition_penalty"] = 1.0
    write_json(path, generation)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
