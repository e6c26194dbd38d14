"""What every example of a source needs of a batch, measured once and kept in a file: the length filter reads it.

Nothing is resized or cut, and no image is decoded where the source gives outlines. The file is named by what the
figures depend on; a kill costs the last half minute.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from fgrpo_jax.data.images import FACTOR
from fgrpo_jax.data.pipeline import Encoder
from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.data.styles import find_style
from fgrpo_jax.rows import beside

LAYOUT = 1  # of the file, and of how examples are measured: raise it when either changes
SAVED_EVERY = 30.0  # seconds
UNMEASURED = -1
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def cache_folder(given: str = "") -> pathlib.Path:
    """`given`, or fgrpo_jax in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(given).expanduser() if given else pathlib.Path(caches) / "fgrpo_jax"


def files_below(path: str | pathlib.Path) -> dict[str, list[int]]:
    """{file: [bytes, time of change]} of a data folder (or file), its images left out: they are many."""
    path = pathlib.Path(path)
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = {str(file.relative_to(path)): file.stat() for file in found if file.suffix.lower() not in PICTURES}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def key_of(encoder: Encoder, data: Mapping[str, Any]) -> str:
    """Names the figures of `data` under an encoder: its tokenizer, chat layout, system turn and pixel limits.

    Args:
      data: whatever tells this data from others, JSON types.
    """
    processor = encoder.processor
    parts = {
        "layout": LAYOUT,
        "data": data,
        "tokenizer": processor.tokenizer.backend_tokenizer.to_str(),
        "chat": processor.tokenizer.chat_template,
        "style": dataclasses.asdict(find_style(encoder.style)),
        "system": encoder.system,
        "pixels": [encoder.min_pixels, encoder.max_pixels, processor.min_pixels, processor.max_pixels],
        "video": processor.video_pixels,
        "factor": FACTOR,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def measured(
    source: Source,
    encoder: Encoder,
    *,
    data: Mapping[str, Any],
    folder: pathlib.Path,
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """int32 [N, 4]: the `Shape` that each example of the source needs, −1 where it was not asked for.

    Args:
      data: see `key_of`.
      folder: of the cache; made when something is measured.
      indices: examples that are asked for; None for all.

    Raises:
      ValueError: an example that cannot be measured, such as one with a reserved token in its text.
    """
    file = folder / "lengths" / f"{key_of(encoder, {**data, 'examples': len(source)})}.npy"
    table = np.load(file, allow_pickle=False) if file.is_file() else None
    if table is None or table.shape != (len(source), 4) or table.dtype != np.int32:
        table = np.full((len(source), 4), UNMEASURED, np.int32)
    wanted = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    missing = wanted[table[wanted, 0] == UNMEASURED]
    saved = time.monotonic()
    with tqdm(missing, desc="measuring prompts", unit="prompt", disable=not len(missing), leave=False) as bar:
        for index in bar:
            table[index] = dataclasses.astuple(encoder.measure(outline(source, int(index))))
            if time.monotonic() - saved > SAVED_EVERY:
                _save(file, table)
                saved = time.monotonic()
    if len(missing):
        _save(file, table)
    return table


def _save(file: pathlib.Path, table: np.ndarray) -> None:
    # Several processes may measure the same data; np.save would add .npy to a name without it.
    with beside(file, ending=f"{os.getpid()}.tmp.npy") as place:
        np.save(place, table, allow_pickle=False)
