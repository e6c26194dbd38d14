"""Asking a checkpoint about images: from flags to samples that are printed or written."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
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
from fgrpo_jax.evaluation.prompts_file import Answers, Question, ask_all, encode, measure, read_questions, samples
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

UNROLLED_BYTES = {"cpu": 2**30, "gpu": 2**33}
"""Weights at most this large are copied out of their stacks before the decode loop (`Model.unrolled`)."""


def ask(args: argparse.Namespace) -> None:
    """Loads, samples, prints or writes."""
    folder = hub.find(args.hf, revision=args.revision).folder
    processor = Processor.load(folder)
    # Prompts are read before the weights are, so that a bad one is reported at once.
    prompt = None
    if args.prompt is not None:
        videos = [Video(read_frames(folder), args.fps) for folder in args.video]
        turn = {"system": args.system, "prefill": args.prefill}
        prompt = encode(processor, args.prompt, images=args.image, videos=videos, **turn)
    questions: list[Question] = []
    if args.prompts:
        skip = functools.partial(measure, processor, prefill=args.prefill) if args.bad == "skip" else None
        questions, skipped = read_questions(args.prompts, system=args.system, skip=skip)
        if skipped.rows:
            print(f"{args.prompts}: {skipped}", file=sys.stderr)
    dtype = jnp.dtype(args.dtype or checkpoint_dtype(folder))
    sampler = _sampler(args, processor, dtype)
    params = sampler.lay_out(importer.load_hf(folder, sampler.model, dtype=dtype))

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
    unrolled = weights_bytes <= UNROLLED_BYTES.get(jax.default_backend(), 0)
    return Sampler(
        dataclasses.replace(model, unrolled=unrolled),
        Sampling(group_size=args.num, **{name: vars(args)[name] for name in SAMPLING}),
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        banned=processor.banned,
        stops=StopTable.build(args.stop, processor.token_bytes) if args.stop else None,
    )


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
            if section.get(key) in command.DTYPES:
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
