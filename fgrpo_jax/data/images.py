"""Images: from a file to the patches of Qwen2.5-VL, and where those patches are.

The numbers equal `transformers`' `Qwen2VLImageProcessorPil` (bicubic by PIL, 1/255, CLIP mean and deviation, patches in
merge-block order). Everything is numpy on the host and runs in Grain workers: a 1280x960 image costs some 0.1 s.

Moving boxes between the frames of an image is `reading.frames`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fgrpo_jax.model.pixels import levels
from fgrpo_jax.records import ImageSize

PATCH = 14  # pixels a side
MERGE = 2  # patches a side of a merged cell
FRAMES = 2  # temporal patch: a still image is shown twice
FACTOR = PATCH * MERGE  # processed sides are multiples of this
PATCH_VALUES = 3 * FRAMES * PATCH * PATCH  # 1176
WINDOW_CELLS = 4  # merged cells a side of an attention window (112 px)
WINDOW_PATCHES = (WINDOW_CELLS * MERGE) ** 2  # 64
MAX_DECODED_PIXELS = 89_478_485  # where PIL begins to warn of decompression bombs: 256 MiB of RGB
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_ORIENTATION, _SIDEWAYS = 274, (5, 6, 7, 8)  # EXIF: its tag, and the values that swap width and height


# ------------------------------------------------------------------------------------------------------------ decode
def decode_image(source: bytes | str | pathlib.Path, *, name: str = "") -> np.ndarray:
    """Reads one image as uint8 RGB [height, width, 3].

    It is upright, in every format: the orientation that the file names is applied once, and boxes are in pixels of what
    comes out. Transparency is laid on white, and levels beyond 8 bits are scaled, see `_eight_bits`.

    Args:
      source: encoded bytes, or the path of a file.
      name: what to call it in errors; the path when empty.

    Raises:
      ValueError: it does not decode, or holds more than 89 megapixels.
    """
    with _opened(source, name) as image:
        return _to_rgb(ImageOps.exif_transpose(image))


def outline_image(source: bytes | str | pathlib.Path, *, name: str = "") -> np.ndarray:
    """What `decode_image` gives, in its size alone: black throughout, at the price of reading a header.

    It takes no memory and cannot be written to. What is broken behind the header shows only when it is decoded.

    Raises:
      ValueError: as `decode_image`, as far as a header can tell.
    """
    with _opened(source, name) as image:
        width, height = image.size
        # The orientation of a PNG may stand behind the pixels, where PIL finds it only by decoding them.
        if image.format == "PNG":
            data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
            if any(mark in data for mark in (b"eXIf", b"xmp", b"exif")):
                width, height = ImageOps.exif_transpose(image).size
        elif image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS:
            width, height = height, width  # PIL gives the size of a TIFF upright
    return np.broadcast_to(np.uint8(0), (height, width, 3))


@contextlib.contextmanager
def _opened(source: bytes | str | pathlib.Path, name: str) -> Iterator[Image.Image]:
    """An image whose header was read and whose area is allowed; errors while it is open name it."""
    name = name or (f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source))
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_DECODED_PIXELS:
                raise ValueError(
                    f"image {name} has {image.width}x{image.height} = {image.width * image.height:,} pixels, more than "
                    f"the limit of {MAX_DECODED_PIXELS:,}; downscale it first"
                )
            yield image
    except FileNotFoundError as error:
        raise ValueError(f"image {name} does not exist; check the path or remove its example") from error
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {name} does not decode ({error}); replace the file or remove its example") from error


def read_frames(folder: str | pathlib.Path) -> np.ndarray:
    """uint8 [n, height, width, 3]: the images of a folder as the frames of a video, '2.png' before '10.png'.

    Raises:
      ValueError: no folder, no images in it, or frames of different sizes.
    """
    folder = pathlib.Path(folder)
    files = [file for file in folder.glob("*") if file.suffix.lower() in FRAME_SUFFIXES]
    if not files:
        raise ValueError(f"video {folder} is no folder with frames ({', '.join(FRAME_SUFFIXES)}); extract them first")
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
    frames = [decode_image(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (frame.shape, frames[0].shape)]
            raise ValueError(f"frame {file} has {sizes[0]} pixels, the first {sizes[1]}; frames must be of one size")
    return np.stack(frames)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode[0] in "IF":
        return np.repeat(_eight_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return np.array(image.convert("RGB"))


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """uint8: grey levels of 16 bits, of 32, or floats, where PIL's own conversion clips instead of scaling.

    How many a file means by white it does not say: the least of 1 (floats alone), 255 and 65535 that none exceeds, else
    the brightest. So 8-bit levels that were stored wide stay as they are.
    """
    levels = np.nan_to_num(levels.astype(np.float64))
    top = levels.max(initial=0.0)
    whites = (1.0, 255.0, 65535.0) if (levels % 1).any() else (255.0, 65535.0)
    white = next((white for white in whites if top <= white), top)
    scale = 1 / 256 if white == 65535.0 else 255 / white  # 16 bits by their upper half, as PIL converts them elsewhere
    return (levels * scale).clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ resize
def smart_resize(height: int, width: int, *, min_pixels: int, max_pixels: int, factor: int = FACTOR) -> tuple[int, int]:
    """Processed (height, width) of an image: multiples of `factor`, area within the limits, aspect nearly kept.

    Sides are rounded half to even, as Python does; too large an area is scaled down with floors, too small a one up
    with ceilings.

    Raises:
      ValueError: a side is below 1, the limits are crossed, or the aspect ratio exceeds 200.
    """
    if min(height, width) < 1:
        raise ValueError(f"image of {width}x{height} pixels has no area")
    if min_pixels > max_pixels:
        raise ValueError(f"min_pixels {min_pixels} exceeds max_pixels {max_pixels}")
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"image of {width}x{height} pixels has an aspect ratio above 200; crop it")
    rows, cols = round(height / factor), round(width / factor)
    if rows * cols * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, cols = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * cols * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, cols = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    if rows < 1 or cols < 1:
        raise ValueError(
            f"image of {width}x{height} pixels rounds to {cols * factor}x{rows * factor} with min_pixels {min_pixels}; "
            f"set min_pixels to at least {factor**2} or enlarge the image"
        )
    return rows * factor, cols * factor


Cut = tuple[tuple[np.ndarray, ...], tuple[int, int, int], ImageSize]
"""(8-bit patches of each slot in merge-block order, grid (t, h, w) in patches, sizes) of an image or a video."""


def pixel_patches(image: np.ndarray, *, min_pixels: int, max_pixels: int) -> Cut:
    """Resizes an image and cuts it into patches uint8 [n, 3, 14, 14] of its one slot.

    Eight times smaller than the model's float32 patches of two frames; this is what travels between processes.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    new_height, new_width = smart_resize(height, width, min_pixels=min_pixels, max_pixels=max_pixels)
    patches = _cut(image, new_height, new_width)
    return (patches,), (1, new_height // PATCH, new_width // PATCH), ImageSize(width, height, new_width, new_height)


def video_patches(frames: np.ndarray, *, min_pixels: int, max_pixels: int) -> Cut:
    """Resizes and cuts the frames of a video: a slot and its patches uint8 [h*w, 3, 2, 14, 14] a pair of frames.

    The last of an odd number of frames is shown twice. Every frame is resized as an image is, by PIL. `transformers`
    does it with torchvision, and so may differ by a level in pixels of resized frames; frames that already have a
    processed size are cut the same.

    Args:
      frames: uint8 [n, height, width, 3].
      min_pixels, max_pixels: limits of the processed area of one frame.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        found = f"{frames.dtype} {list(frames.shape)}"
        raise ValueError(f"a video must be uint8 [frames, height, width, 3] with a frame at least, got {found}")
    height, width = frames.shape[1:3]
    new_height, new_width = smart_resize(height, width, min_pixels=min_pixels, max_pixels=max_pixels)
    cut = [_cut(frame, new_height, new_width) for frame in frames]
    cut += [cut[-1]] * (-len(cut) % FRAMES)
    pairs = tuple(np.stack(cut[at : at + FRAMES], axis=2) for at in range(0, len(cut), FRAMES))
    grid = (len(pairs), new_height // PATCH, new_width // PATCH)
    return pairs, grid, ImageSize(width, height, new_width, new_height)


def _cut(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [n, 3, 14, 14] in merge-block order of an image resized to height x width, multiples of FACTOR."""
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    h, w = height // PATCH, width // PATCH
    blocks = image.reshape(h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH, 3)
    return blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(h * w, 3, PATCH, PATCH)


def two_frames(patches: np.ndarray) -> np.ndarray:
    """uint8 [n, 3, 14, 14] as the model's uint8 [n, 1176] (channel, frame, row, column), the one frame twice.

    Patches of two frames, uint8 [n, 3, 2, 14, 14], show each of them.
    """
    pixels = patches.reshape(len(patches), 3, -1, PATCH * PATCH)  # one frame, or FRAMES of them
    return np.broadcast_to(pixels, (len(patches), 3, FRAMES, PATCH * PATCH)).reshape(len(patches), PATCH_VALUES)


def normalise_patches(patches: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """float32 [n, 1176] of `two_frames`, normalised as the reference's processor does it; for what compares with it.

    Written into `out` (C-contiguous) when given. The model normalises by itself, on the device.
    """
    out = np.empty((len(patches), PATCH_VALUES), np.float32) if out is None else out
    values = out.reshape(len(patches), 3, FRAMES, PATCH * PATCH)
    pixels = patches.reshape(len(patches), 3, -1, PATCH * PATCH)
    for channel, of in enumerate(levels()):
        values[:, channel] = np.take(of, pixels[:, channel], mode="wrap")  # wrap: no bounds check, 4x faster
    return out


# ---------------------------------------------------------------------------------------------------- where patches are
@functools.lru_cache(maxsize=256)
def patch_positions(h: int, w: int) -> np.ndarray:
    """int32 [h*w, 2]: (row, column) of each patch of an h x w grid, in merge-block order."""
    if h < MERGE or w < MERGE or h % MERGE or w % MERGE:
        raise ValueError(f"a patch grid must have even sides of at least {MERGE}, got {h}x{w}")
    grid = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), axis=-1)
    blocks = grid.reshape(h // MERGE, MERGE, w // MERGE, MERGE, 2).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(h * w, 2), np.int32)


def count_windows(h: int, w: int) -> int:
    """Attention windows of a grid of h x w patches."""
    side = WINDOW_CELLS * MERGE
    return -(-h // side) * -(-w // side)


@functools.lru_cache(maxsize=256)
def window_index(h: int, w: int, *, empty: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The attention windows of a grid of h x w patches in merge-block order.

    A window is 4 x 4 merged cells (8 x 8 patches); those at the right and lower edge may be partly empty.

    Args:
      empty: what empty slots hold: the patch bucket P, an index just past the padded patches; h*w when None.

    Returns:
      windows int32 [W, 64], patch index of each slot, and slots int32 [h*w], the flat slot w*64 + j of each patch.
    """
    positions = patch_positions(h, w)
    cell, side = positions // MERGE, WINDOW_CELLS
    across = -(-w // (side * MERGE))
    window = cell[:, 0] // side * across + cell[:, 1] // side
    inside = (cell[:, 0] % side * side + cell[:, 1] % side) * MERGE**2 + np.arange(h * w) % MERGE**2
    slots = (window * WINDOW_PATCHES + inside).astype(np.int32)
    windows = np.full(count_windows(h, w) * WINDOW_PATCHES, h * w if empty is None else empty, np.int32)
    windows[slots] = np.arange(h * w, dtype=np.int32)
    return windows.reshape(-1, WINDOW_PATCHES), slots
