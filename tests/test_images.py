"""Images: equality with the reference processor, window bookkeeping, boxes between frames, bad files."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from fgrpo_jax.data import images
from fgrpo_jax.model import pixels
from fgrpo_jax.model.pixels import normalise
from fgrpo_jax.reading import frames
from fgrpo_jax.reading.dialects import PAPER, text_in
from fgrpo_jax.records import ImageSize

LIMITS = {"min_pixels": 56 * 56, "max_pixels": 400 * 400}


def _image(rng, height, width):
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def reference():
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    return pil, pil.Qwen2VLImageProcessorPil(
        size={"shortest_edge": LIMITS["min_pixels"], "longest_edge": LIMITS["max_pixels"]}
    )


def test_patches_equal_the_reference_processor(reference):
    rng = np.random.default_rng(0)
    sizes = [
        (28, 28),
        (56, 560),
        (100, 400),
        (112, 112),
        (300, 17),
        (640, 480),
        *rng.integers(20, 700, (10, 2)).tolist(),
    ]
    for height, width in sizes:
        image = _image(rng, height, width)
        want = reference[1](images=[image], return_tensors="np", input_data_format="channels_last")
        (cut,), grid, size = images.pixel_patches(image, **LIMITS)
        patches = images.normalise_patches(cut)
        assert [list(grid)] == want["image_grid_thw"].tolist()
        assert patches.shape == (grid[1] * grid[2], 1176) and patches.dtype == np.float32
        np.testing.assert_allclose(patches, want["pixel_values"], atol=1e-6, rtol=0)
        assert (size.height, size.width) == (height, width)
        assert (size.processed_height, size.processed_width) == (grid[1] * 14, grid[2] * 14)


@pytest.mark.parametrize("compute", [normalise, jax.jit(normalise)])
def test_levels_are_normalised_on_the_device_as_on_the_host_bit_for_bit(compute):
    """Every level in every channel, one frame and two; patches that are not there are 0."""
    image = np.arange(256, dtype=np.uint8).repeat(3 * 49).reshape(3, 64, 14, 14).swapaxes(0, 1)
    pair = np.stack([image, 255 - image], axis=2)
    assert all(len(np.unique(image[:, channel])) > 80 for channel in range(3))
    for patches in (image, pair, np.roll(pair, 1, axis=1), np.roll(pair, 2, axis=1)):
        cut, valid = images.two_frames(patches), np.arange(64) != 7
        assert cut.dtype == np.uint8
        want = images.normalise_patches(patches)
        want[7] = 0
        np.testing.assert_array_equal(compute(cut[None], valid[None])[0], want)
    floats = np.float32([[1.5, -3.0]])
    np.testing.assert_array_equal(compute(floats, np.array([False])), floats)


def test_levels_computed_as_on_a_tpu_are_those_of_the_table_once_rounded():
    """No entry lies so near to where bfloat16 rounds the other way that its last places would matter."""
    level = np.arange(256, dtype=np.uint8)
    found = np.asarray(jax.jit(pixels.computed)(np.tile(level, 3))).reshape(3, 256)
    table = pixels.levels()
    assert (np.abs(found - table) <= 2 * np.spacing(np.abs(table))).all()
    for away in (-4, 4):
        moved = (table + away * np.spacing(np.abs(table))).astype(jax.numpy.bfloat16)
        np.testing.assert_array_equal(moved, table.astype(jax.numpy.bfloat16))


def test_smart_resize_equals_the_reference(reference):
    rng = np.random.default_rng(1)
    for height, width in rng.integers(14, 6000, (500, 2)).tolist():
        limits = {"min_pixels": 3136, "max_pixels": int(rng.integers(3137, 2_000_000))}
        if max(height, width) <= 200 * min(height, width):
            assert images.smart_resize(height, width, **limits) == reference[0].smart_resize(height, width, **limits)


def test_a_pixel_does_not_depend_on_anything_but_its_image():
    image = _image(np.random.default_rng(2), 56, 84)
    (patches,), (_, h, w), _ = images.pixel_patches(image, **LIMITS)
    for patch, (row, col) in zip(patches, images.patch_positions(h, w), strict=True):
        cut = image[row * 14 : row * 14 + 14, col * 14 : col * 14 + 14]
        np.testing.assert_array_equal(patch.transpose(1, 2, 0), cut)


GRIDS = [(2, 2), (2, 34), (34, 2), (8, 8), (16, 24), (10, 6), (18, 30), (8, 28)]


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_windows_hold_every_patch_once_and_only_neighbours(h, w):
    empty = h * w + 7
    windows, slots = images.window_index(h, w, empty=empty)
    assert windows.shape == (images.count_windows(h, w), 64)
    assert sorted(windows[windows != empty].tolist()) == list(range(h * w))
    np.testing.assert_array_equal(windows.reshape(-1)[slots], np.arange(h * w))
    positions = images.patch_positions(h, w)
    for window in windows:
        inside = positions[window[window != empty]] // 8
        assert len(inside) and (inside == inside[0]).all()


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_windows_have_the_reference_order_of_merged_cells(h, w):
    """The reference walks windows row by row and cells row by row inside; ours must only leave holes."""
    windows, _ = images.window_index(h, w, empty=-1)
    order = [p // 4 for p in windows.reshape(-1).tolist() if p >= 0 and p % 4 == 0]
    rows, cols = h // 2, w // 2
    want = [
        r * cols + c
        for wr in range(0, rows, 4)
        for wc in range(0, cols, 4)
        for r in range(wr, min(wr + 4, rows))
        for c in range(wc, min(wc + 4, cols))
    ]
    assert order == want


def test_default_sentinel_is_the_patch_count():
    windows, _ = images.window_index(2, 2)
    assert windows.max() == 4


def test_boxes_go_round_all_frames():
    size = ImageSize(400, 100, 392, 112)
    box = (10.0, 20.0, 390.0, 99.0)
    for src in frames.FRAMES_OF_BOXES:
        for dst in frames.FRAMES_OF_BOXES:
            there = frames.convert_box(box, size, src=src, dst=dst)
            np.testing.assert_allclose(frames.convert_box(there, size, src=dst, dst=src), box, rtol=1e-12)
    assert frames.convert_box((0, 0, 400, 100), size, src="original", dst="processed") == (0, 0, 392, 112)
    with pytest.raises(ValueError, match="frame of boxes 'pixels'"):
        frames.convert_box(box, size, src="pixels", dst="unit")


def test_boxes_in_text():
    size = ImageSize(400, 100, 392, 112)
    text = "the cat <bbox>[0,0,400,100]</bbox> and <bbox>[ 100 , 50.5, 200, 75]</bbox> but [1,2,3,4] stays"
    moved = text_in(text, size, dialect=PAPER, src="original", dst="processed")
    assert moved == "the cat <bbox>[0,0,392,112]</bbox> and <bbox>[ 98 , 57, 196, 84]</bbox> but [1,2,3,4] stays"
    assert "[0.0000,0.0000,1.0000,1.0000]" in text_in(text, size, dialect=PAPER, src="original", dst="unit")
    square = ImageSize(112, 112, 112, 112)
    assert text_in(text, square, dialect=PAPER, src="original", dst="processed") is text


def _png(image, kind="PNG", **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def test_transparency_is_white():
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[:2, :, 3] = 255
    decoded = images.decode_image(_png(Image.fromarray(layer, "RGBA")))
    assert decoded.dtype == np.uint8 and decoded.shape == (4, 4, 3)
    assert (decoded[:2] == 0).all() and (decoded[2:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (6, 5))
    data = _png(image, "TIFF" if mode == "CMYK" else "PNG")
    assert images.decode_image(data).shape == (5, 6, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_in_every_format(kind, orientation):
    """Four corners of four levels, turned by hand; PIL itself turns a TIFF while it decodes."""
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored[::-1].T,
        7: stored[::-1, ::-1].T,
        8: stored[:, ::-1].T,
    }
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = _png(Image.fromarray(np.repeat(stored[:, :, None], 3, axis=2)), kind, exif=exif, **lossless)
    decoded = images.decode_image(data)
    np.testing.assert_allclose(decoded[:, :, 0].astype(int), turned[orientation], atol=6)
    assert images.outline_image(data).shape == decoded.shape


@pytest.mark.parametrize(
    ("level", "dtype", "want"),
    [
        (200, np.int32, 200),  # 8 bits that were stored wide
        (200, np.uint16, 200),
        (0xC000, np.uint16, 0xC0),
        (0xC000, np.int32, 0xC0),
        (0.5, np.float32, 127),
        (100.5, np.float32, 100),
        (np.nan, np.float32, 0),
        (-5, np.int32, 0),
    ],
)
def test_levels_beyond_8_bits_are_scaled_and_not_clipped(level, dtype, want):
    decoded = images.decode_image(_png(Image.fromarray(np.full((3, 4), level, dtype)), "TIFF"))
    assert decoded.shape == (3, 4, 3) and (decoded == want).all()


def test_the_brightest_of_32_bits_is_white():
    levels = np.array([[0, 500_000], [1_000_000, 250_000]], np.int32)
    assert images.decode_image(_png(Image.fromarray(levels), "TIFF"))[:, :, 0].tolist() == [[0, 127], [255, 63]]


def test_bad_files_are_named(tmp_path):
    good = _png(Image.fromarray(_image(np.random.default_rng(0), 64, 64)))
    path = tmp_path / "broken.png"
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"broken\.png does not decode"):
        images.decode_image(path)
    with pytest.raises(ValueError, match=r"missing\.png does not exist"):
        images.decode_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="image seven does not decode"):
        images.decode_image(b"not an image", name="seven")


def test_huge_images_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"50x40 = 2,000 pixels, more than the limit of 1,000"):
        images.decode_image(_png(Image.new("RGB", (50, 40))))


def test_impossible_sizes():
    for args, kwargs, message in [
        ((0, 5), LIMITS, "no area"),
        ((1, 201), LIMITS, "aspect ratio above 200"),
        ((5, 5), {"min_pixels": 10, "max_pixels": 9}, "min_pixels 10 exceeds max_pixels 9"),
        ((5, 5), {"min_pixels": 0, "max_pixels": 1000}, "set min_pixels"),
    ]:
        with pytest.raises(ValueError, match=message):
            images.smart_resize(*args, **kwargs)
    with pytest.raises(ValueError, match="uint8"):
        images.pixel_patches(np.zeros((28, 28, 3), np.float32), **LIMITS)
