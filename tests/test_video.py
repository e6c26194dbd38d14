"""Prompts with videos: frames to patches, positions, batches; the whole model against `transformers`."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fgrpo_jax import command, generate
from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.model.pixels import MEAN, STD
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.model.rope import mrope_positions
from fgrpo_jax.records import Example, Video
from fgrpo_jax.weights import importer

LIMITS = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 40}


def frames(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def encode(processor: Processor, *, pictures: tuple = (), videos: tuple = (), **how: object) -> EncodedPrompt:
    example = Example("v", pictures, "What moves?", ("a", "b"), "A", source="test", videos=videos)
    return processor.encode(example, style="tiny", **{**LIMITS, **how})


@pytest.fixture(scope="module")
def processor(tiny_hf: Path) -> Processor:
    return Processor.load(tiny_hf)


# ------------------------------------------------------------------------------------------------------------ patches
@pytest.mark.parametrize(("count", "height", "width"), [(2, 56, 84), (5, 112, 28), (1, 28, 28), (6, 84, 140)])
def test_patches_of_a_video_equal_a_direct_cut(count: int, height: int, width: int) -> None:
    """The layout by its definition: patch (t, cell row, cell column, row in cell, column in cell), then channel, frame.

    The video processor of transformers needs torchvision and can't be built here; this writes out what it does.
    """
    video = frames(count, height, width)
    pairs, grid, size = images.video_patches(video, **LIMITS)
    assert grid == (-(-count // 2), height // 14, width // 14) and len(pairs) == grid[0]
    assert (size.width, size.height) == (size.processed_width, size.processed_height) == (width, height)
    got = np.concatenate([images.normalise_patches(pair) for pair in pairs])
    shown = np.concatenate([video, video[-1:]]) if count % 2 else video
    mean, std = np.array(MEAN), np.array(STD)
    want = []
    for t in range(grid[0]):
        for row, column in images.patch_positions(*grid[1:]).tolist():
            patch = shown[2 * t : 2 * t + 2, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
            want.append((patch / 255 - mean) / std)  # [frame, y, x, channel]
    want = np.stack(want).transpose(0, 4, 1, 2, 3).reshape(-1, 1176)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6, rtol=0)


def test_frames_are_resized_as_images_are() -> None:
    video = frames(3, 100, 150)
    pairs, grid, size = images.video_patches(video, **LIMITS)
    assert (size.processed_height, size.processed_width) == (grid[1] * 14, grid[2] * 14) == (112, 140)
    for at, frame in enumerate([*video, video[-1]]):
        (alone,), _, _ = images.pixel_patches(frame, **LIMITS)
        np.testing.assert_array_equal(pairs[at // 2][:, :, at % 2], alone)


def test_a_still_video_is_its_image() -> None:
    still = np.repeat(frames(1, 56, 56), 2, axis=0)
    (pair,), _, _ = images.video_patches(still, **LIMITS)
    (alone,), _, _ = images.pixel_patches(still[0], **LIMITS)
    np.testing.assert_array_equal(images.normalise_patches(pair), images.normalise_patches(alone))


NO_VIDEOS = (np.zeros((0, 28, 28, 3), np.uint8), np.zeros((28, 28, 3), np.uint8), np.zeros((1, 28, 28, 3)))


@pytest.mark.parametrize("bad", NO_VIDEOS, ids=["no frames", "one image", "floats"])
def test_what_is_no_video_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a video must be uint8 \[frames, height, width, 3\]"):
        images.video_patches(bad, **LIMITS)


# ------------------------------------------------------------------------------------------------------------ prompts
def test_frames_take_slots_after_the_images(processor: Processor) -> None:
    picture = frames(1, 56, 56)[0]
    films = (Video(frames(5, 56, 84), 4.0), Video(frames(2, 28, 28), 1))
    prompt = encode(processor, pictures=(picture,), videos=films)
    example = Example("v", (picture,), "What moves?", ("a", "b"), "A", source="test", videos=films)
    assert prompt.text.count("<|image_pad|>") == 1 and prompt.text.count("<|video_pad|>") == 2
    assert prompt.text.index("<|image_pad|>") < prompt.text.index("<|video_pad|>") < prompt.text.index("What moves?")
    assert prompt.grids == ((1, 4, 4), (3, 4, 6), (1, 2, 2)) and len(prompt.patches) == len(prompt.slots) == 5
    config = processor.config
    at_image, at_video = (prompt.tokens == holder for holder in (config.image_token_id, config.video_token_id))
    assert prompt.image_index[at_image].tolist() == [0] * 4
    assert prompt.image_index[at_video].tolist() == [1] * 6 + [2] * 6 + [3] * 6 + [4]
    assert prompt.feature_index[at_video].tolist() == [*range(6)] * 3 + [0]
    assert (prompt.image_index[~(at_image | at_video)] == -1).all()
    # Two frames at 4 a second are half a second, one step of a clock with tokens_per_second 2.
    times = prompt.positions[at_video][:18, 0]
    np.testing.assert_array_equal(times - times[0], np.repeat([0, 1, 2], 6))
    # What it needs is known before anything is cut: five slots of at most 24 patches.
    assert prompt.need == processor.measure(example, style="tiny", **LIMITS)
    assert (prompt.need.images, prompt.need.patches) == (5, 24)
    batch = collate([prompt], buckets=Buckets())
    assert batch.vision.valid.sum(-1)[0].tolist() == [16, 24, 24, 24, 4, 0]
    room = batch.vision.patches.shape[2]
    fed = batch.image_slot[0][batch.image_slot[0] >= 0]
    assert fed.tolist() == [i * (room // 4) + f for i, n in enumerate((4, 6, 6, 6, 1)) for f in range(n)]
    np.testing.assert_array_equal(batch.vision.patches[0, 2, :24], images.two_frames(prompt.patches[2]))


def test_a_prompt_may_have_a_video_alone(processor: Processor) -> None:
    prompt = encode(processor, videos=(Video(frames(4, 56, 84), 2.0),))
    assert prompt.first_size.processed_width == 84 and prompt.next_position == prompt.positions.max() + 1


def test_limits_of_frames_are_the_folders(processor: Processor) -> None:
    video, none = Video(frames(2, 112, 112), 2.0), {"min_pixels": None, "max_pixels": None}
    small = dataclasses.replace(processor, video_pixels=(784, 56 * 56))
    assert encode(small, videos=(video,), **none).grids == ((1, 4, 4),)
    assert encode(small, pictures=(video.frames[0],), **none).grids == ((1, 8, 8),)
    assert encode(dataclasses.replace(processor, video_pixels=None), videos=(video,), **none).grids == ((1, 8, 8),)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_video_needs_a_rate(processor: Processor, fps: float) -> None:
    with pytest.raises(ValueError, match="'v': a video of .* frames a second; give the rate"):
        encode(processor, videos=(Video(frames(2, 28, 28), fps),))


def test_a_template_that_loses_videos_is_noticed(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    template = processor.tokenizer.chat_template.replace("<|video_pad|>", "")
    monkeypatch.setattr(processor.tokenizer, "chat_template", template)
    with pytest.raises(ValueError, match="'v': 0 video placeholders for 1 videos"):
        encode(processor, videos=(Video(frames(2, 28, 28), 1.0),))


# --------------------------------------------------------------------------------------------------------------- door
def write_frames(folder: Path, video: np.ndarray, *, names: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    for at, frame in enumerate(video):
        Image.fromarray(frame).save(folder / (names[at] if names else f"frame{at}.png"))
    return folder


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    video = frames(11, 28, 56)
    folder = write_frames(tmp_path / "film", video)
    (folder / "notes.txt").write_text("not a frame")
    np.testing.assert_array_equal(images.read_frames(folder), video)


def test_folders_that_are_no_video_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(ValueError, match=f"{name} is no folder with frames"):
            images.read_frames(tmp_path / name)
    folder = write_frames(tmp_path / "film", frames(2, 28, 56))
    Image.fromarray(frames(1, 28, 28)[0]).save(folder / "frame7.png")
    with pytest.raises(ValueError, match=r"frame7.png has 28x28 pixels, the first 56x28"):
        images.read_frames(folder)


@pytest.mark.slow
def test_generate_takes_videos(tiny_hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_frames(tmp_path / "film", frames(3, 56, 84))
    flags = [f"--hf={tiny_hf}", "--prompt=What moves?", f"--video={film}", "--max_new_tokens=2", "--temperature=0"]
    said = []
    for more in (["--fps=2", "--json"], ["--fps=2"]):
        assert command.run(generate.main, generate.parser(), [*flags, *more]) == 0
        said.append(capsys.readouterr().out)
    assert len(json.loads(said[0])["samples"][0]["tokens"]) <= 2 and "tokens/s" in said[1]
    assert command.run(generate.main, generate.parser(), flags) == 1
    assert "needs --fps=RATE" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- positions
def test_positions_equal_transformers_on_many_grids() -> None:
    pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
    import qwen_reference as ref

    from fgrpo_jax.model.config import ModelConfig

    rng = np.random.default_rng(0)
    for rate in (2, 4, 5, 25):
        changes = {"vision": {"tokens_per_second": rate}}
        theirs = ref.reference_model(**changes).model
        config = ModelConfig.from_hf(ref.reference_config(**changes).to_dict())
        # Two whose frame times, in float64, would be rounded down to other numbers.
        cases = [([(4, 2, 2)], [2 / 1.2]), ([(6, 2, 2)], [2 / 25.0])]
        for _ in range(30):
            grids = [
                (int(rng.integers(1, 9)) if rng.random() < 0.6 else 1, *(2 * rng.integers(1, 12, 2)).tolist())
                for _ in range(rng.integers(1, 5))
            ]
            cases.append((grids, [float(rng.choice([0.08, 0.3, 1.0, 2 / 29.97, 7.0])) for t, _, _ in grids if t > 1]))
        for seed, (grids, seconds) in enumerate(cases):
            prompt = ref.make_prompt(seed, grids, seconds=seconds)
            inputs = {k: v for k, v in ref.reference_inputs([prompt]).items() if not k.startswith("pixel")}
            want, delta = theirs.get_rope_index(**inputs)
            ours, following = mrope_positions(prompt.tokens, prompt.grids, config, video_seconds=seconds)
            np.testing.assert_array_equal(ours, want[:, 0].T.numpy(), err_msg=f"{rate} {grids} {seconds}")
            assert following == len(prompt.tokens) + int(delta[0, 0])


# -------------------------------------------------------------------------------------------------------- whole model
LENGTH = 16


@pytest.fixture(scope="module")
def pair(tiny_hf: Path):
    """(reference, our model, our params)."""
    torch = pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
    import transformers

    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_hf, **how).eval()
    ours = Model.create(Processor.load(tiny_hf).config)
    return theirs, ours, importer.load_hf(tiny_hf, ours, dtype=jnp.float32)


def prompts(processor: Processor) -> list[EncodedPrompt]:
    """A picture and a video, two videos of different lengths and sizes, a video of an odd number of frames."""
    films = [Video(frames(6, 84, 140, seed=1), 3.0), Video(frames(4, 56, 56, seed=2), 24.0)]
    return [
        encode(processor, pictures=(frames(1, 140, 84, seed=4)[0],), videos=(films[0],)),
        encode(processor, videos=tuple(films)),
        encode(processor, videos=(Video(frames(7, 112, 56, seed=3), 1.0),)),
    ]


def reference_inputs(prompt: EncodedPrompt, processor: Processor) -> dict:
    import torch

    ids = torch.from_numpy(prompt.tokens.astype(np.int64))[None]
    config = processor.config
    types = (ids == config.image_token_id) * 1 + (ids == config.video_token_id) * 2
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types.int()}
    pixels = [images.normalise_patches(patches) for patches in prompt.patches]
    still = int(prompt.tokens.tolist().count(config.image_token_id) > 0)
    for names, at, grids in (
        (("pixel_values", "image_grid_thw"), slice(0, still), prompt.grids[:still]),
        (("pixel_values_videos", "video_grid_thw"), slice(still, None), prompt.grids[still:]),
    ):
        if grids:
            inputs |= {names[0]: torch.from_numpy(np.concatenate(pixels[at])), names[1]: torch.tensor(grids)}
    return inputs


SECONDS = ([2 / 3.0], [2 / 3.0, 2 / 24.0], [2.0])


def test_videos_and_images_at_parity(pair, processor: Processor) -> None:
    """Logits of every token of the prompt, then greedy tokens, one batch of ours against one prompt of theirs."""
    import torch

    theirs, ours, params = pair
    encoded = prompts(processor)
    batch = jax.tree.map(jnp.asarray, collate(encoded, buckets=Buckets(), pad_id=processor.pad_id))

    @jax.jit
    def run(params, batch):
        hidden, kv = ours.prefix(params, batch, ours.encode(params, batch.vision))
        logits = ours.logits(params, hidden)
        last = jnp.take_along_axis(logits, jnp.sum(batch.mask, -1)[:, None, None] - 1, axis=1)[:, 0]

        def step(carry, t):
            tokens, cache = carry
            decode = functools.partial(ours.decode, prefix=kv, prefix_mask=batch.mask, cache=cache)
            hidden, cache = decode(params, tokens, t, batch.next_position)
            return (jnp.argmax(ours.logits(params, hidden), -1), cache), tokens

        cache = ours.empty_cache(len(encoded), 1, LENGTH, jnp.float32)
        first = jnp.argmax(last, -1)[:, None]
        return logits, jax.lax.scan(step, (first, cache), jnp.arange(LENGTH))[1][:, :, 0].T

    logits, tokens = run(params, batch)
    for row, (prompt, seconds) in enumerate(zip(encoded, SECONDS, strict=True)):
        inputs = reference_inputs(prompt, processor) | {"second_per_grid_ts": torch.tensor(seconds)}
        with torch.no_grad():
            want = theirs(**inputs).logits[0].numpy()
            drawn = theirs.generate(
                **inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=[], repetition_penalty=1.0
            )
        error = np.max(np.abs(np.asarray(logits[row, : len(want)]) - want)) / np.max(np.abs(want))
        print("relative logit error", error)
        assert error <= 1e-4
        assert tokens[row].tolist() == drawn[0, len(prompt.tokens) :].tolist()
        # The comparison sees the clock: with other seconds the reference says something else.
        with torch.no_grad():
            other = theirs(**inputs | {"second_per_grid_ts": torch.tensor([9.0] * len(seconds))}).logits[0].numpy()
        assert np.max(np.abs(other - want)) / np.max(np.abs(want)) > 1e-3
