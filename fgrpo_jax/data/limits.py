"""Pixel limits of a checkpoint folder, from any of the files and dialects in which Qwen2.5-VL processors were saved.

    preprocessor_config.json          min_pixels / max_pixels (hub), or size.shortest_edge / size.longest_edge, or both
    processor_config.json             the same under "image_processor" and "video_processor" (transformers 5); it wins
    video_preprocessor_config.json    the video limits alone

All are numbers of pixels, whatever the word "edge" suggests. As in transformers the flat names win, and a name that is
null counts as absent.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from fgrpo_jax.data import images
from fgrpo_jax.model import pixels

IMAGE_FILE, BOTH_FILE = "preprocessor_config.json", "processor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"


@dataclasses.dataclass(frozen=True)
class PixelLimits:
    """(min, max) pixels of a processed image, and of a processed video frame."""

    image: tuple[int, int]
    video: tuple[int, int]

    @classmethod
    def load(cls, folder: pathlib.Path) -> PixelLimits:
        """Reads a checkpoint folder. Without limits of its own, a video frame has those of an image.

        Raises:
          ValueError: no file has limits, or the settings are not those of Qwen2.5-VL; names the file.
        """
        path = folder / BOTH_FILE
        nested = read_json(path) if path.is_file() else {}
        settings = nested.get("image_processor")
        if settings is None:
            path = folder / IMAGE_FILE
            if not path.is_file():
                raise ValueError(
                    f"{path} does not exist, nor does {BOTH_FILE} hold an image_processor; copy either from the "
                    "checkpoint the model was made of"
                )
            settings = read_json(path)
        image = _limits(settings)
        if image is None:
            raise ValueError(f"{path} has neither min_pixels/max_pixels nor size.shortest_edge/longest_edge; add them")
        _require_qwen(settings, path)
        moving = nested.get("video_processor")
        if moving is None and (folder / VIDEO_FILE).is_file():
            path = folder / VIDEO_FILE
            moving = read_json(path)
        _require_qwen(moving or {}, path)
        return cls(image=image, video=_limits(moving or {}) or image)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The mapping in a JSON file; ValueError names a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again from its checkpoint") from error


def _limits(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    size = settings.get("size") or {}
    found = []
    for flat, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        given = (settings.get(flat), size.get(edge), size.get(flat))
        found.append(next((int(value) for value in given if value is not None), None))
    low, high = found
    return None if low is None or high is None else (low, high)


def _require_qwen(settings: Mapping[str, Any], path: pathlib.Path) -> None:
    expected: dict[str, Any] = {"patch_size": images.PATCH, "temporal_patch_size": images.FRAMES}
    expected |= {"merge_size": images.MERGE, "image_mean": list(pixels.MEAN), "image_std": list(pixels.STD)}
    expected |= {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    for key, value in (expected | {"do_resize": True, "resample": 3}).items():
        if settings.get(key) not in (None, value):
            why = f"but images are prepared with {value}; it is not Qwen2.5-VL's"
            raise ValueError(f"{path}: {key} is {settings[key]}, {why}")
