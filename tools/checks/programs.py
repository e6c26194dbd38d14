"""Whole programs of the released sizes for H200s and TPU slices, compiled and counted: an hour or more on two cores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aot

from checks import runs
from checks.areas import Groups
from checks.record import Check, at_least, at_most, holds

GPU = ("--config=qwen3b", "--gpu=h200", "--model=3b", "--config.rollout.max_new_tokens=512")


def row(part: str, *flags: str) -> dict[str, Any]:
    """What tools/aot.py finds of one part.

    Raises:
      RuntimeError: it does not compile.
    """
    found = aot.in_child(flags, part=part)
    if found is None:
        raise RuntimeError(f"tools/aot.py {' '.join(flags)} does not compile the {part}")
    return found


def sampler(context: runs.Context) -> Iterator[Check]:
    """The decode loop of the 3B on one H200: 32 prompts × 5 of 1,024 + 512 tokens, and 128."""
    found = row("sampler", *GPU)
    yield at_most("sampler/GB a token, 32 prompts x 5", found["token"]["gb"], 13)
    for name in ("copies", "conversions"):
        yield at_most(f"sampler/{name} of weights inside a token", found["token"][name], 0)
    yield at_most("sampler/loops the host checks inside a token", found["launched"]["checked"], 0)
    yield at_most("sampler/CUDA graphs a token", found["launched"]["graphs"], 1)
    wide = row("sampler", *GPU, "--config.rollout.batch_prompts=128")
    yield at_most("sampler/GB a token, 128 prompts x 5", wide["token"]["gb"], 26)


def learner(context: runs.Context) -> Iterator[Check]:
    """A step of 128 prompts × 5 of 1,024 + 512 tokens: one H200, and eight of them at 3B and 7B."""
    found = row("learner", *GPU)
    yield at_most("learner/GB of attention a layer and micro-batch", found["attention_gb"]["suffix_both"], 3)
    for size, share in (("3b", 0.5), ("7b", 0.55)):
        flags = (f"--config=qwen{size}", "--gpu=h200x8", f"--model={size}", "--config.rollout.max_new_tokens=512")
        found = row("learner", *flags)
        yield at_least(f"learner/share of the roofline, {size} on eight", found["roofline_share"], share)


def slices(context: runs.Context) -> Iterator[Check]:
    """Both programs as `train` runs them on TPU slices, a window of 1,024."""
    for size, topology in (("3b", "v5e:4x4"), ("7b", "v5p:2x2x2")):
        flags = (f"--config=qwen{size}", f"--topology={topology}", f"--model={size}")
        for part in ("sampler", "learner"):
            found = row(part, *flags)
            name = f"slices/{size}, {topology}, {part}"
            yield holds(f"{name} fits", found["fits"], found["memory_gb"], "memory of a chip")
            if part == "learner":
                prompts = found["prompts"][1] / (found["mesh"]["data"] * found["mesh"]["fsdp"])
                moved = sum(found["attention_gb"][f"{of}_both"] for of in ("prefix", "suffix")) / prompts
                yield at_most(f"{name}: GB of attention a prompt and layer", moved, 0.2)


GROUPS: Groups = {"sampler": (sampler,), "learner": (learner,), "slices": (slices,)}
