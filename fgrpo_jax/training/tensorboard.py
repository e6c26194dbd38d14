"""TensorBoard events: the figures of every step, and now and then a prompt with its image, its boxes and an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tensorboardX import SummaryWriter

from fgrpo_jax.data.images import PATCH, patch_positions
from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.reading.dialects import Dialect, boxes_in
from fgrpo_jax.reading.frames import convert_box
from fgrpo_jax.reading.parsing import is_proper, parse
from fgrpo_jax.records import Box, Example
from fgrpo_jax.training.metrics import number

GOLD, PREDICTED = (0, 170, 0), (220, 0, 0)
"""Colours of boxes."""


class Board:
    """Events of a run in a folder.

    Args:
      folder: made where it is missing.
      start: steps done. What an earlier start of the run wrote of later steps is taken back.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        # A killed run loses the events of its last second. The suffix keeps two files of one second apart.
        self._writer = SummaryWriter(
            str(folder), purge_step=start + 1, flush_secs=1, max_queue=1000, filename_suffix=f".{start}"
        )

    def figures(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes the defined figures of a row under their names."""
        for tag, value in row.items():
            if tag != "step" and (defined := number(value)) is not None:
                self._writer.add_scalar(tag, defined, step)

    def example(self, step: int, example: Example, prompt: EncodedPrompt, text: str, *, dialect: Dialect) -> None:
        """Writes a prompt's first image with gold and predicted boxes, and a response to it."""
        if prompt.patches:
            size = prompt.first_size
            gold = [convert_box(box, size, src="original", dst="processed") for box in example.boxes or ()]
            predicted = boxes_in(parse(text, dialect=dialect).boxes, size, dialect=dialect)
            drawn = with_boxes(pixels(prompt), {GOLD: gold, PREDICTED: predicted})
            self._writer.add_image("rollout/image", drawn, step, dataformats="HWC")
        shown = (example.question, *example.options, f"gold: {example.answer}", "", text)
        lines = [line for part in shown for line in part.split("\n")]
        self._writer.add_text("rollout/text", "\n".join(f"    {line}" for line in lines), step)  # indented: as it is

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def pixels(prompt: EncodedPrompt) -> np.ndarray:
    """uint8 [height, width, 3]: the first image, or the first frame, as the policy saw it, from its patches."""
    h, w = prompt.slots[0]
    patches = prompt.patches[0].reshape(h * w, 3, -1, PATCH, PATCH)[:, :, 0]
    grid = np.empty((h, w, PATCH, PATCH, 3), np.uint8)
    rows, columns = patch_positions(h, w).T
    grid[rows, columns] = patches.transpose(0, 2, 3, 1)
    return grid.transpose(0, 2, 1, 3, 4).reshape(h * PATCH, w * PATCH, 3)


def with_boxes(image: np.ndarray, boxes: Mapping[tuple[int, int, int], Iterable[Box]]) -> np.ndarray:
    """An image with boxes drawn into it by their colour; those without an area are left out."""
    out = Image.fromarray(image)
    pen = ImageDraw.Draw(out)
    for colour, some in boxes.items():
        for box in filter(is_proper, some):
            pen.rectangle(list(box), outline=colour, width=2)
    return np.asarray(out)
