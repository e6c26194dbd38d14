"""Times the preparation of images against the plain processor of transformers, and how long runs wait for their data.

    python tools/bench_data.py                     images a second, ours and theirs, alternating in one run
    python tools/bench_data.py --waiting           also trains and evaluates the tiny policy, and says what it waited

Theirs is `Qwen2VLImageProcessorPil`, one image after the other, from a decoded image to float32 patches; ours goes from
the same image to the same patches (equal within 1e-6, checked here too). Whole prompts (decode, resize, tokenise, pad)
are timed through the pipeline, prepared by a thread and by two worker processes. A ratio is the median over rounds of
the ratio within a round: on a machine that others use too, times drift and ratios hold.

A run's waiting is the share of its wall time that it spent in asking for the next batch, from the second batch on: the
first is awaited by nobody who has anything else to do, and the programs are compiled by then.

Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from PIL import Image

from fgrpo_jax import command, evaluate, train
from fgrpo_jax.data import images
from fgrpo_jax.data.pipeline import Batch, Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sources import Source
from fgrpo_jax.records import Example
from fgrpo_jax.training import setup

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((100, 400), (480, 640), (960, 1280))
"""(height, width): NLVR's images, and photographs."""
LIMITS: dict[str, Any] = {"min_pixels": 56 * 56, "max_pixels": 4_194_304}
STEPS, QUESTIONS = 6, 300
WARM = 8
"""Batches that are not timed."""


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A smooth image of noise, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def seconds(run: Callable[[Any], Any], items: Iterable[Any]) -> float:
    """Of `run` on each of the items."""
    began = time.perf_counter()
    for item in items:
        run(item)
    return time.perf_counter() - began


# ------------------------------------------------------------------------------------------------------------- images
def compare_images(*, rounds: int, count: int) -> list[dict[str, Any]]:
    """A row a size: images a second of both sides, their ratio, and the shares of our time."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    limits = {"shortest_edge": LIMITS["min_pixels"], "longest_edge": LIMITS["max_pixels"]}
    plain = Qwen2VLImageProcessorPil(size=limits)

    def theirs(image: np.ndarray) -> np.ndarray:
        return plain(images=[image], return_tensors="np", input_data_format="channels_last")["pixel_values"]

    def ours(image: np.ndarray) -> np.ndarray:
        return images.normalise_patches(*images.pixel_patches(image, **LIMITS)[0])

    rows = []
    for height, width in SIZES:
        pictures = [picture(height, width, seed=seed) for seed in range(count)]
        np.testing.assert_allclose(ours(pictures[0]), theirs(pictures[0]), atol=1e-6, rtol=0)
        pairs = [(seconds(ours, pictures), seconds(theirs, pictures)) for _ in range(rounds)]
        rows.append(
            {
                "size": f"{width}x{height}",
                "ours": count / statistics.median(a for a, _ in pairs),
                "theirs": count / statistics.median(b for _, b in pairs),
                "ratio": statistics.median(b / a for a, b in pairs),
                **shares(pictures),
            }
        )
    return rows


def shares(pictures: list[np.ndarray]) -> dict[str, float]:
    """Shares of our time: PIL's resize, cutting into patches, normalising."""
    height, width = images.smart_resize(*pictures[0].shape[:2], **LIMITS)
    ready = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pictures]
    cut = [images.pixel_patches(image, **LIMITS)[0][0] for image in ready]
    whole = seconds(lambda image: images.normalise_patches(*images.pixel_patches(image, **LIMITS)[0]), pictures)
    cutting = seconds(lambda image: images.pixel_patches(image, **LIMITS), ready)
    levels = seconds(images.normalise_patches, cut)
    return {"resize": max(0.0, 1 - (cutting + levels) / whole), "cut": cutting / whole, "normalise": levels / whole}


# ------------------------------------------------------------------------------------------------------------ prompts
@dataclasses.dataclass(frozen=True)
class Photographs(Source):
    """Encoded images of 640 x 480 pixels, as they would lie in a file."""

    size: int
    data: bytes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Example:
        image = images.decode_image(self.data)
        return Example(str(index), (image,), f"What is number {index}?", ("this", "that"), "A", source="bench")


def compare_pipelines(*, rounds: int, batches: int = 24, size: int = 8) -> dict[str, float]:
    """Prompts a second through the pipeline, by who prepares them."""
    buffer = io.BytesIO()
    Image.fromarray(picture(480, 640)).save(buffer, "JPEG", quality=90)
    processor = Processor.load(setup.model_folder(setup.SHIPPED))
    encoder = Encoder(processor, style="tiny", keep_images=False, **LIMITS)
    ways: dict[str, dict[str, Any]] = {"a thread": {}, "two worker processes": {"workers": 2}}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, settings in ways.items():
            source = Photographs(size * (batches + WARM), buffer.getvalue())
            iterator = PromptIterator(source, encoder, batch_size=size, epochs=1, **settings)
            for _ in range(WARM):  # threads and processes are up, and what they had prepared meanwhile is taken
                next(iterator)
            found[way].append(batches * size / seconds(lambda _, it=iterator: next(it), range(batches)))
            iterator.close()
    return {way: statistics.median(rates) for way, rates in found.items()}


# ------------------------------------------------------------------------------------------------------------ waiting
@dataclasses.dataclass
class Waited:
    """Seconds in `next`, and of wall time, from the second batch of an iterator on."""

    inside: float = 0.0
    wall: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        return self.inside / self.wall


@contextlib.contextmanager
def watched() -> Iterator[Waited]:
    """Counts what every `PromptIterator` of the block is waited for."""
    out, began, original = Waited(), dict[int, float](), PromptIterator.__next__

    def timed(self: PromptIterator) -> Batch:
        start = time.perf_counter()
        try:
            return original(self)
        finally:
            now = time.perf_counter()
            if id(self) in began:
                out.inside += now - start
                out.wall += now - began[id(self)]
                out.batches += 1
                began[id(self)] = now
            else:
                began[id(self)] = float("inf")

    def second(self: PromptIterator) -> Batch:
        if began.get(id(self)) == float("inf"):
            began[id(self)] = time.perf_counter()
        return timed(self)

    PromptIterator.__next__ = second  # type: ignore[method-assign]
    try:
        yield out
    finally:
        PromptIterator.__next__ = original  # type: ignore[method-assign]


def waiting() -> dict[str, float]:
    """Shares of the wall time that a training run and an evaluation of the shipped policy wait for data."""
    out = {}
    small = {"num_steps": STEPS, "eval.examples": 0, "checkpoint.every": 0, "log.tensorboard": False}
    for name, door, values in (("train", train, small), ("evaluate", evaluate, {"eval.examples": QUESTIONS})):
        with tempfile.TemporaryDirectory() as workdir, watched() as seen:
            argv = [f"--config={ROOT / 'configs' / 'tiny.py'}", f"--workdir={workdir}/{name}"]
            argv += [f"--config.{key}={value}" for key, value in values.items()]
            with contextlib.redirect_stdout(io.StringIO()):
                code = command.run(door.main, door.parser(), argv)
            if code:
                raise RuntimeError(f"{name} ended with exit code {code}")
            out[name] = seen.share
    return out


def main(args: argparse.Namespace) -> None:
    rows = compare_images(rounds=args.rounds, count=args.images)
    heads = ("ours", "theirs", "ratio", "resize", "cut", "normalise")
    print(f"{'images a second':<16}" + "".join(f"{head:>11}" for head in heads))
    for row in rows:
        print(f"{row['size']:<16}" + "".join(f"{row[head]:>11.2f}" for head in heads))
    pipelines = compare_pipelines(rounds=args.rounds)
    print("prompts a second, 640x480: " + ", ".join(f"{way} {rate:.0f}" for way, rate in pipelines.items()))
    waited = waiting() if args.waiting else {}
    for name, share in waited.items():
        print(f"{name} waits for data: {share:.1%} of the wall time")
    print(json.dumps({"images": rows, "prompts": pipelines, "waiting": waited}))


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--rounds", type=int, default=5, help="rounds of alternation (%(default)s)")
    out.add_argument("--images", type=int, default=8, help="images a round and size (%(default)s)")
    out.add_argument("--waiting", action="store_true", help="also measure what training and evaluation wait for")
    return out


if __name__ == "__main__":
    main(parser().parse_args())
