"""Ask a checkpoint about images.

    python -m fgrpo_jax.generate --hf=FOLDER --image=a.png --prompt="What is left of the cube?"

The folder's own chat template, one user turn with the images before the prompt, nothing else added (--system=TEXT adds
a system turn). Prints each sample's text, the boxes in it, its log-prob and the speed; with --json one line
{"prompt": ..., "samples": [{"text": ..., "tokens": [ids], "logprob": ..., "boxes": [[x1, y1, x2, y2]]}]}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from fgrpo_jax import doors
from fgrpo_jax.data import hub
from fgrpo_jax.data.images import convert_box, decode_image
from fgrpo_jax.data.prompts import Buckets, EncodedPrompt, Processor, collate
from fgrpo_jax.data.styles import PromptStyle
from fgrpo_jax.model import weights
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import Box, Example, ImageSize
from fgrpo_jax.rewards.parsing import read_boxes
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.rollout.sampler import Sampler

BARE = PromptStyle(system="", question="{question}", options="", request="", open_request="")
"""The prompt alone."""

DTYPES = ("float32", "bfloat16", "float16")


def parser() -> argparse.ArgumentParser:
    """Flags of this door."""
    out = doors.parser(__doc__)
    doors.add_policy(out, required=True)
    out.add_argument("--image", action="append", default=[], metavar="FILE", help="an image; repeat for several")
    out.add_argument("--prompt", required=True, help="text of the user turn, after the images")
    out.add_argument("--system", default="", help="text of a system turn; without it, what the template does by itself")
    out.add_argument("--num", type=_positive, default=1, help="samples to draw (default 1)")
    out.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    out.add_argument("--max_new_tokens", type=_positive, default=256, help="completion tokens at most (default 256)")
    out.add_argument("--seed", type=_seed, default=0, help="same seed, same samples (default 0)")
    out.add_argument("--dtype", choices=DTYPES, help="of weights and computation (default: the checkpoint's)")
    out.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    return out


def main(args: argparse.Namespace) -> None:
    """Loads, samples, prints."""
    folder = hub.find(args.hf, revision=args.revision).folder
    processor = Processor.load(folder)
    prompt = encode(processor, args.prompt, images=args.image, system=args.system)
    dtype = jnp.dtype(args.dtype or checkpoint_dtype(folder))
    model = Model.create(processor.config, compute_dtype=dtype)
    sampler = Sampler(
        model,
        group_size=args.num,
        max_new_tokens=args.max_new_tokens,
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        banned=processor.banned,
        temperature=args.temperature,
    )
    params = weights.load_hf(folder, model, dtype=dtype)
    batch = collate([prompt], buckets=Buckets(), pad_id=processor.pad_id)
    sampler.compile(params, batch)  # beforehand, so that tokens/s is of sampling alone
    drawn = generate(sampler, params, batch, decode=processor.decode, seed=args.seed, purpose="generate", step=0)
    if args.json:
        print(json.dumps({"prompt": args.prompt, "samples": samples(drawn)}, ensure_ascii=False))
    else:
        report(drawn, images=args.image, sizes=prompt.sizes)


def encode(processor: Processor, text: str, *, images: Sequence[str], system: str) -> EncodedPrompt:
    """One user turn: images, then the text. Its id is a constant: of this door, the seed alone decides the noise."""
    pictures = tuple(decode_image(name) for name in images)
    example = Example(id="--prompt", images=pictures, question=text, options=(), answer="", source="generate")
    return processor.encode(example, style=BARE, system=system)


def checkpoint_dtype(folder: Path) -> str:
    """The dtype a checkpoint's config.json names, in any dialect; float32 where it names none, as in transformers."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for section in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if section.get(key) in DTYPES:
                return section[key]
    return "float32"


def samples(drawn: Generation) -> list[dict[str, Any]]:
    """The samples of the one prompt, ready for JSON. Boxes are as the text says them: pixels of the processed image."""
    return [
        {
            "text": text,
            "tokens": drawn.ids(0, g),
            "logprob": drawn.logprob(0, g),
            "boxes": read_boxes(text)[0],
        }
        for g, text in enumerate(drawn.texts[0])
    ]


def report(drawn: Generation, *, images: Sequence[str], sizes: Sequence[ImageSize]) -> None:
    """Prints the samples for a person."""
    for g, sample in enumerate(samples(drawn)):
        count = len(sample["tokens"])
        end = "" if drawn.rollouts.finished[0, g] else ", cut off at --max_new_tokens"
        print(f"--- sample {g + 1}: {count} tokens{end}, log-prob {sample['logprob']:.3f}")
        print(sample["text"])
        for box in sample["boxes"]:
            print(f"box {_numbers(box)}{_in_file(box, images=images, sizes=sizes)}")
    print(f"--- {drawn.tokens} tokens in {drawn.seconds:.2f} s, {drawn.tokens_per_second:.1f} tokens/s")


def _in_file(box: Box, *, images: Sequence[str], sizes: Sequence[ImageSize]) -> str:
    """Where a box lies in the file as given, when the model saw it resized."""
    if not sizes or (sizes[0].width, sizes[0].height) == (sizes[0].processed_width, sizes[0].processed_height):
        return ""
    return f" = {_numbers(convert_box(box, sizes[0], src='processed', dst='original'))} in {images[0]}"


def _numbers(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{x:.4g}" for x in box) + "]"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{value} is outside 0 .. {2**32 - 1}")
    return value


if __name__ == "__main__":
    raise SystemExit(doors.run(main, parser()))
