"""Images of a request as a chat endpoint takes them: PNG data URLs, at the size the policy saw or as published."""

from __future__ import annotations

import asyncio
import base64
import io

import numpy as np
from PIL import Image

from fgrpo_jax.rewards.judges.protocol import Request


class Pictures:
    """Images as they are sent, each encoded once and the newest kept: all sentences about an example show the same.

    For one event loop: encoding runs in threads beside it.
    """

    KEPT = 64

    def __init__(self, image: str) -> None:
        self._image = image
        self._kept: dict[int, tuple[Request, asyncio.Future[list[str]]]] = {}  # with the request, which keeps its id

    async def of(self, request: Request) -> list[str]:
        """Data URLs of the images of a request.

        Raises:
          ValueError: the images can't be sent.
        """
        key = id(request.example)
        if key not in self._kept:
            work = asyncio.to_thread(data_urls, request, image=self._image)
            self._kept[key] = request, asyncio.ensure_future(work)
            for old in list(self._kept)[: -self.KEPT]:
                del self._kept[old]
        return await asyncio.shield(self._kept[key][1])  # whoever gives up, the others still want it


def data_urls(request: Request, *, image: str) -> list[str]:
    """The images and then the frames of the videos of a request as PNG data URLs, in the order of the prompt.

    Args:
      image: 'processed' (at the size the policy saw) or 'original'.
    """
    example = request.example
    arrays = [*example.images, *(frame for video in example.videos for frame in video.frames)]
    if not arrays:
        raise ValueError(f"example {example.id!r} has no image to judge a sentence by")
    sizes: list[tuple[int, int] | None] = [None] * len(arrays)
    if image == "processed":
        known = [request.size] if request.encoded is None else list(request.encoded.sizes)
        counts = [1] * len(example.images) + [len(video.frames) for video in example.videos]
        shown = [(s.processed_width, s.processed_height) for s in known]
        spread = [size for size, count in zip(shown, counts, strict=False) for _ in range(count)]
        sizes = [*spread, *sizes[len(spread) :]]
    return [_data_url(array, size) for array, size in zip(arrays, sizes, strict=True)]


def _data_url(array: np.ndarray, size: tuple[int, int] | None) -> str:
    picture = Image.fromarray(array)
    if size is not None and size != picture.size and all(size):
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    # A photograph is hardly smaller at level 6, and takes five times as long.
    picture.save(out, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
