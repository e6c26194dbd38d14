"""Ask a checkpoint about images.

    python -m fgrpo_jax.generate --hf=FOLDER --image=a.png --prompt="What is left of the cube?"

The folder's own chat template, one user turn with the images before the prompt, nothing else added (--system=TEXT adds
a system turn). --video=DIR --fps=2 shows a folder of frames, after the images. Prints each sample's text, the boxes in
it, its log-prob and the speed; with --json one line
{"prompt": ..., "samples": [{"text": ..., "tokens": [ids], "logprob": ..., "boxes": [[x1, y1, x2, y2]]}]}.

    python -m fgrpo_jax.generate --hf=FOLDER --prompts=IN.jsonl --out=OUT.jsonl

answers a file of prompts, {"prompt": ..., "images": [...], "id": ..., "system": ...} a line, with a line
{"id": ..., "prompt": ..., "samples": [...]} each (`evaluation.prompts_file`). The same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fgrpo_jax import command
from fgrpo_jax.data import hub
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.images import read_frames
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.evaluation.prompts_file import Answers, ask_all, encode, read_questions, samples
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.reading.frames import convert_box
from fgrpo_jax.records import Box, ImageSize, PromptBatch, Video
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.rollout.stopping import StopTable
from fgrpo_jax.weights import importer

SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "min_new_tokens")
"""Flags with the names of fields of `Sampling`."""

DTYPES = ("float32", "bfloat16", "float16")
UNROLLED_BYTES = 2**30
"""Weights at most this large are copied out of their stacks before the decode loop, on CPU (`Model.unrolled`)."""


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__)
    command.add_policy(out, required=True)
    add = out.add_argument
    add("--image", action="append", default=[], metavar="FILE", help="an image; repeat for several")
    add("--video", action="append", default=[], metavar="DIR", help="a folder of frames; needs --fps")
    add("--fps", type=float, help="frames a second of every --video")
    asked = out.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", help="text of the user turn, after images and videos")
    asked.add_argument("--prompts", type=Path, metavar="FILE", help="JSONL file of prompts; needs --out")
    add("--out", type=Path, metavar="FILE", help="JSONL file to write, with --prompts")
    add("--batch", type=_positive, default=8, help="prompts of --prompts drawn at once (default 8)")
    add("--system", default="", help="text of a system turn; without it, what the template does by itself")
    add("--num", type=_positive, default=1, help="samples to draw (default 1)")
    add("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    add("--top_k", type=int, default=0, help="only the k likeliest tokens; 0 is all (default)")
    add("--top_p", type=float, default=1.0, help="only the likeliest tokens of this mass (default 1: all)")
    add("--min_p", type=float, default=0.0, help="only tokens this share as likely as the likeliest")
    add("--min_new_tokens", type=int, default=0, help="no end before so many tokens (default 0)")
    add("--stop", action="append", default=[], metavar="TEXT", help="ends a completion; repeat for several")
    add("--prefill", default="", metavar="TEXT", help="how the answer begins; samples go on from there")
    add("--max_new_tokens", type=_positive, default=256, help="completion tokens at most (default 256)")
    add("--seed", type=_seed, default=0, help="same seed, same samples (default 0)")
    add("--dtype", choices=DTYPES, help="of weights and computation (default: the checkpoint's)")
    add("--json", action="store_true", help="print one JSON line and nothing else")
    return out


def main(args: argparse.Namespace) -> None:
    """Loads, samples, prints or writes."""
    _check_flags(args)
    folder = hub.find(args.hf, revision=args.revision).folder
    processor = Processor.load(folder)
    # Prompts are read before the weights are, so that a bad one is reported at once.
    prompt = None
    if args.prompt is not None:
        videos = [Video(read_frames(folder), args.fps) for folder in args.video]
        turn = {"system": args.system, "prefill": args.prefill}
        prompt = encode(processor, args.prompt, images=args.image, videos=videos, **turn)
    questions = read_questions(args.prompts, system=args.system) if args.prompts else []
    dtype = jnp.dtype(args.dtype or checkpoint_dtype(folder))
    sampler = _sampler(args, processor, dtype)
    params = importer.load_hf(folder, sampler.model, dtype=dtype)

    def draw(batch: PromptBatch) -> Generation:
        sampler.compile(params, batch)  # beforehand, so that tokens/s is of sampling alone
        return generate(sampler, params, batch, decode=processor.decode, seed=args.seed, purpose="generate", step=0)

    if prompt is None:
        answers = Answers(args.out, _settings(args, folder, dtype))
        tokens, seconds = ask_all(questions, answers, processor, prefill=args.prefill, batch=args.batch, draw=draw)
        speed = f", {tokens / seconds:.1f} tokens/s" if seconds else ""
        print(f"{len(questions)} prompts answered in {args.out}, {tokens} tokens in {seconds:.2f} s{speed}")
        return
    drawn = draw(collate([prompt], buckets=Buckets(), pad_id=processor.pad_id))
    if args.json:
        print(json.dumps({"prompt": args.prompt, "samples": samples(drawn)}, ensure_ascii=False))
    else:
        report(drawn, images=args.image, sizes=prompt.sizes)


def _sampler(args: argparse.Namespace, processor: Processor, dtype: Any) -> Sampler:
    """The sampler that the flags describe, on a model without weights."""
    model = Model.create(processor.config, compute_dtype=dtype)
    weights_bytes = dtype.itemsize * sum(leaf.size for leaf in jax.tree.leaves(model.abstract()))
    # Unrolled layers are a second copy of the weights: not of a large model.
    unrolled = jax.default_backend() == "cpu" and weights_bytes <= UNROLLED_BYTES
    return Sampler(
        dataclasses.replace(model, unrolled=unrolled),
        Sampling(group_size=args.num, **{name: vars(args)[name] for name in SAMPLING}),
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        banned=processor.banned,
        stops=StopTable.build(args.stop, processor.token_bytes) if args.stop else None,
    )


def _check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that would not be read."""
    if args.video and args.fps is None:
        raise ValueError("--video=DIR needs --fps=RATE, the frames a second of the folder: the model counts in seconds")
    if args.prompts is None:
        if args.out is not None:
            raise ValueError("--out is for --prompts=FILE; a single --prompt is printed, with --json as one line")
        return
    if args.out is None:
        raise ValueError(f"--prompts={args.prompts} needs --out=FILE, where the answers go")
    if args.image or args.json:
        raise ValueError("--image and --json are for a single --prompt; a row of --prompts names its own 'images'")
    if args.video:
        raise ValueError("--video is for a single --prompt; a row of --prompts has images at most")
    if not args.prompts.is_file():
        raise FileNotFoundError(f"--prompts={args.prompts} does not exist")


def _settings(args: argparse.Namespace, folder: Path, dtype: Any) -> dict[str, Any]:
    """What the answers to a file depend on: its content, the checkpoint and flags."""
    content = hashlib.sha256(args.prompts.read_bytes()).hexdigest()
    flags = {name: vars(args)[name] for name in (*SAMPLING, "num", "stop", "prefill", "seed", "system")}
    return {"prompts": content, "hf": str(folder), "dtype": str(dtype), **flags}


def checkpoint_dtype(folder: Path) -> str:
    """The dtype a checkpoint's config.json names, in any dialect; float32 where it names none, as in transformers."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for section in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if section.get(key) in DTYPES:
                return section[key]
    return "float32"


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
    if not images or (sizes[0].width, sizes[0].height) == (sizes[0].processed_width, sizes[0].processed_height):
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
    raise SystemExit(command.run(main, parser()))
