"""Outlines: everything an example says, with images that have nothing but the size they would decode to."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.test_sources import write_nlvr

from fgrpo_jax.data import images
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.data.sources import First, outline
from fgrpo_jax.world.examples import World, WorldSource


def encoded(kind, *, turned=0, late=False, mode="RGB", size=(30, 10)):
    """Bytes of an image; `late` puts the orientation of a PNG behind its pixels."""
    buffer, exif = io.BytesIO(), Image.Exif()
    if turned:
        exif[274] = turned
    Image.new(mode, size).save(buffer, kind, **({"exif": exif} if turned and not late else {}))
    data = buffer.getvalue()
    if late:
        chunk = io.BytesIO()
        PngImagePlugin.putchunk(chunk, b"eXIf", exif.tobytes()[6:])
        end = data.rindex(b"IEND") - 4
        data = data[:end] + chunk.getvalue() + data[end:]
    return data


CASES = {
    "png": encoded("PNG"),
    "png, grey and clear": encoded("PNG", mode="LA"),
    "png, turned": encoded("PNG", turned=6),
    "png, turned behind the pixels": encoded("PNG", turned=8, late=True),
    "jpeg": encoded("JPEG"),
    "jpeg, turned": encoded("JPEG", turned=6),
    "jpeg, mirrored": encoded("JPEG", turned=2),
    "webp, turned": encoded("WEBP", turned=5),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_size_is_that_of_the_decoded_image(case):
    blank = images.outline_image(CASES[case])
    assert blank.shape == images.decode_image(CASES[case]).shape and blank.dtype == np.uint8
    assert not blank.any() and blank.strides == (0, 0, 0)


def test_the_turned_cases_are_turned():
    """Or the test above would show nothing of orientation."""
    turned = [case for case in CASES if images.decode_image(CASES[case]).shape == (30, 10, 3)]
    assert turned == ["png, turned", "png, turned behind the pixels", "jpeg, turned", "webp, turned"]


def test_what_a_header_shows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image gone.png does not exist"):
        images.outline_image(tmp_path / "gone.png", name="gone.png")
    with pytest.raises(ValueError, match="does not decode"):
        images.outline_image(b"no image")
    with pytest.raises(ValueError, match="more than the limit"):
        images.outline_image(encoded("PNG", mode="1", size=(20_000, 6_000)))


def sources(folder):
    write_nlvr(folder, "dev", directories=True)
    Image.new("RGB", (40, 20)).save(folder / "a.png")
    line = {"id": "one", "images": ["a.png"], "question": "Where?", "answer": "left", "boxes": [[0, 0, 9, 9]]}
    (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
    worlds = [WorldSource(World(name), "train", with_trace=True) for name in ("tiny", "easy", "hard")]
    return [First(open_set("nlvr", folder, split="dev"), 1), open_set("jsonl", folder, split="train"), *worlds]


def test_all_but_the_pixels_is_there(tmp_path):
    for source in sources(tmp_path):
        whole, blank = source[0], outline(source, 0)
        assert [image.shape for image in blank.images] == [image.shape for image in whole.images]
        assert not any(image.any() for image in blank.images)
        assert dataclasses.replace(blank, images=()) == dataclasses.replace(whole, images=())


def test_a_source_without_outlines_gives_its_examples():
    class Plain:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return WorldSource(World(), "train")[index]

    assert outline(Plain(), 0).images[0].any()
