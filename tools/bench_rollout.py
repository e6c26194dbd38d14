"""Times the sampler against `generate` of transformers on torch, on CPU, alternating in one run.

    python tools/bench_rollout.py                  8 image prompts of about 300 tokens × 8 rollouts × 128 new tokens
    python tools/bench_rollout.py --tail           half of the rollouts end before 32 tokens: compaction on and off

Both sides run one random Qwen2.5-VL of about 25M parameters, written by this package, on the same prompts, and draw
from the whole distribution at temperature 1; nothing ends before the last token, so both draw the same number of
tokens. Torch runs in inference mode with scaled_dot_product_attention, `num_return_sequences`, and whichever number of
threads is fastest. Prints a table, then one JSON line. The ratio is the median over rounds of the ratio within a round:
on a machine that others use too, times drift and ratios hold. Needs the `test` extra (torch), --tail does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import make_tiny_checkpoint as checkpoints
import numpy as np
from flax import struct

from fgrpo_jax import command
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.model.qwen2_5_vl import Model, unrolls
from fgrpo_jax.records import Example, PromptBatch
from fgrpo_jax.rollout.generate import decode_texts
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.weights import importer

RECIPE = checkpoints.Recipe(
    vocab_size=4096,
    hidden_size=384,
    layers=10,
    heads=6,
    kv_heads=2,
    mlp=1536,
    vision_depth=6,
    vision_hidden=192,
    vision_heads=4,
    vision_mlp=512,
    texts=300,
)
"""About 25M parameters, in the proportions of the released models."""

SIDE = 448  # pixels: 1,024 patches, 256 of the prompt's tokens
QUESTION = "Is the red circle left of the blue square, and is the green triangle above both of them?"


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one call: of wall time, and of CPU time over all threads, which other processes disturb less."""

    wall: float
    cpu: float

    def __sub__(self, other: Times) -> Times:
        return Times(self.wall - other.wall, self.cpu - other.cpu)


def timed(run: Callable[[], Any]) -> Times:
    """Runs once; `run` must wait for what it computes."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


Rounds = list[tuple[Times, Times]]
"""(ours, theirs) of each round."""


def summary(rounds: Rounds) -> tuple[float, float, dict[str, float]]:
    """(median seconds of ours, of theirs, theirs over ours by either clock: the median of the ratio within a round)."""
    ours, theirs = (statistics.median(one.wall for one in side) for side in zip(*rounds, strict=True))
    ratio = lambda clock: statistics.median(getattr(b, clock) / getattr(a, clock) for a, b in rounds)  # noqa: E731
    return ours, theirs, {"ratio": ratio("wall"), "ratio_cpu_time": ratio("cpu")}


def best_threads(threads: int, run: Callable[[], Any]) -> int:
    """Lets torch run on so many threads from now on; 0 takes the better of 1 and all cores, by a run on each."""
    import torch

    speeds = {}
    for number in [threads] if threads else sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(number)
        speeds[number] = timed(run).wall
    best = min(speeds, key=lambda number: speeds[number])
    torch.set_num_threads(best)
    return best


def show(**figures: str) -> None:
    """A line a figure, for people."""
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<34}{value}")


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--prompts", type=int, default=8, help="image prompts (default 8)")
    out.add_argument("--rollouts", type=int, default=8, help="rollouts a prompt (default 8)")
    out.add_argument("--tokens", type=int, default=128, help="new tokens a rollout (default 128)")
    out.add_argument("--rounds", type=int, default=3, help="alternations (default 3)")
    out.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    out.add_argument("--threads", type=int, default=0, help="torch threads; 0 takes the better of 1 and all cores")
    out.add_argument("--tail", action="store_true", help="a long-tailed length distribution, compaction on and off")
    return out


def main(args: argparse.Namespace) -> None:
    """Makes the checkpoint in a temporary folder, measures, prints."""
    with tempfile.TemporaryDirectory(prefix="fgrpo-bench-") as scratch:
        folder = Path(scratch) / "hf"
        count = checkpoints.count_parameters(checkpoints.write(folder, RECIPE))
        setting = Setting.load(folder, args)
        print(f"{count / 1e6:.1f}M parameters, {args.dtype}, {os.cpu_count()} CPU cores", file=sys.stderr)
        found = tail(setting, args) if args.tail else against_torch(setting, args, folder)
    print(json.dumps({"parameters": count, "dtype": args.dtype, "cores": os.cpu_count(), **found}))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What both sides work on."""

    processor: Processor
    model: Model
    params: Any
    examples: list[Example]
    encoded: list[EncodedPrompt]
    prompts: PromptBatch

    @classmethod
    def load(cls, folder: Path, args: argparse.Namespace) -> Setting:
        processor = Processor.load(folder)
        dtype = jnp.dtype(args.dtype)
        model = Model.create(processor.config, compute_dtype=dtype, unrolled=unrolls(None))
        examples = [_example(index) for index in range(args.prompts)]
        encoded = [processor.encode(example, style="paper", system="") for example in examples]
        lengths = [len(prompt.tokens) for prompt in encoded]
        print(f"prompts of {min(lengths)} to {max(lengths)} tokens", file=sys.stderr)
        # Exact lengths: padding is the buckets' affair, and torch gets none beyond the longest prompt either.
        buckets = Buckets(prompt=(max(lengths),), patches=((SIDE // 14) ** 2,), window_slack=(1.0,))
        prompts = collate(encoded, buckets=buckets, pad_id=processor.pad_id)
        params = importer.load_hf(folder, model, dtype=dtype)
        return cls(processor, model, params, examples, encoded, jax.device_put(prompts))

    def sampler(self, args: argparse.Namespace, *, model: Any = None, **settings: Any) -> Sampler:
        """The sampler of the package with the run's sizes; it ends at no token unless told."""
        fields = {"eos_ids": (), "pad_id": self.processor.pad_id, "banned": self.processor.banned, **settings}
        model = self.model if model is None else model
        own = {"compact": fields.pop("compact", False)}
        return Sampler(model, Sampling(group_size=args.rollouts, max_new_tokens=args.tokens, **own), **fields)


def _example(index: int) -> Example:
    pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Example(id=str(index), images=(pixels,), question=QUESTION, options=(), answer="")


# ---------------------------------------------------------------------------------------------------- against torch
def against_torch(setting: Setting, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Tokens a second of both, their ratio, and where our time goes."""
    sampler = setting.sampler(args)
    draw = lambda step: jax.block_until_ready(  # noqa: E731
        sampler.sample(setting.params, setting.prompts, seed=0, purpose="bench", step=step).tokens
    )
    torch_draw, threads = _torch(setting, args, folder)
    draw(0)  # compiles
    tokens = args.prompts * args.rollouts * args.tokens
    rounds = []
    for number in range(args.rounds):
        ours, theirs = timed(lambda n=number: draw(n + 1)), timed(torch_draw)
        rounds.append((ours, theirs))
        print(f"round {number + 1}: {tokens / ours.wall:.0f} and {tokens / theirs.wall:.0f} tokens/s", file=sys.stderr)
    parts = split(setting, args, sampler)
    mine, other, ratios = summary(rounds)
    found = {"tokens": tokens, "jax_tokens_per_second": tokens / mine, "torch_tokens_per_second": tokens / other}
    total = sum(parts.values())
    show(
        transformers_on_torch=f"{tokens / other:8.0f} tokens/s, {threads} threads",
        fgrpo_jax=f"{tokens / mine:8.0f} tokens/s",
        ratio=f"{ratios['ratio']:8.2f}  (CPU time: {ratios['ratio_cpu_time']:.2f})",
        split=", ".join(f"{name} {value:.2f} s ({value / total:.0%})" for name, value in parts.items()),
    )
    return {**found, **ratios, "torch_threads": threads, "split_seconds": parts}


def split(setting: Setting, args: argparse.Namespace, sampler: Sampler) -> dict[str, float]:
    """Seconds of each phase, each timed as a program of its own and the decode loop as what the whole call adds."""
    model, params, prompts = setting.model, setting.params, setting.prompts
    encode = jax.jit(lambda params, vision: model.encode(params, vision))
    prefix = jax.jit(lambda params, prompts, features: model.prefix(params, prompts, features))
    features = encode(params, prompts.vision)
    known = prompts.replace(vision=None, features=features)

    def sample(step: int) -> Any:
        drawn = sampler.sample(params, known, seed=0, purpose="bench", step=step)
        return jax.block_until_ready(drawn)

    rollouts = jax.device_get(sample(0))
    jax.block_until_ready(prefix(params, prompts, features))
    rounds = []
    for number in range(args.rounds):
        vision = timed(lambda: encode(params, prompts.vision).block_until_ready()).wall
        prefill = timed(lambda: jax.block_until_ready(prefix(params, prompts, features))).wall
        rest = timed(lambda n=number: sample(n)).wall
        rounds.append((vision, prefill, rest - prefill))

    def host() -> None:
        encoded = [setting.processor.encode(example, style="paper", system="") for example in setting.examples]
        collate(encoded, buckets=Buckets(), pad_id=setting.processor.pad_id)
        decode_texts(rollouts, setting.processor.decode)

    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return dict(zip(("vision", "prefill", "decode", "host"), (*medians, timed(host).wall), strict=True))


def _torch(setting: Setting, args: argparse.Namespace, folder: Path) -> tuple[Callable[[], Any], int]:
    """(one call of `generate` on all prompts, the number of threads that was fastest)."""
    import torch
    import transformers

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[args.dtype]
    model: Any = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa"
    )
    model.generation_config.eos_token_id = None  # every rollout runs to the last token
    inputs = torch_inputs(setting.encoded, pad_id=setting.processor.pad_id)
    whole = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    known = {"num_return_sequences": args.rollouts, "pad_token_id": setting.processor.pad_id, **whole}

    def draw(tokens: int = args.tokens) -> None:
        with torch.inference_mode():
            out = model.eval().generate(**inputs, max_new_tokens=tokens, **known)
        assert out.shape == (args.prompts * args.rollouts, inputs["input_ids"].shape[1] + tokens)

    draw(2)
    return draw, best_threads(args.threads, lambda: draw(min(16, args.tokens)))


def torch_inputs(encoded: list[EncodedPrompt], *, pad_id: int) -> dict[str, Any]:
    """Our prompts as transformers takes them, padded on the left to the longest."""
    import torch

    from fgrpo_jax.data import images

    room = max(len(prompt.tokens) for prompt in encoded)
    ids = np.full((len(encoded), room), pad_id, np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    pixels = []
    for row, prompt in enumerate(encoded):
        start = room - len(prompt.tokens)
        ids[row, start:], mask[row, start:], types[row, start:] = prompt.tokens, 1, prompt.image_index >= 0
        for patches in prompt.patches:
            pixels.append(np.empty((len(patches), images.PATCH_VALUES), np.float32))
            images.normalise_patches(patches, out=pixels[-1])
    arrays = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": types,
        "pixel_values": np.concatenate(pixels),
    }
    grids = [grid for prompt in encoded for grid in prompt.grids]
    return {name: torch.tensor(value) for name, value in {**arrays, "image_grid_thw": np.array(grids)}.items()}


# --------------------------------------------------------------------------------------------------- the long tail
@struct.dataclass
class _Marked:
    """The model's cache, and at how many tokens each rollout ends."""

    cache: Any
    length: jax.Array  # int32 [1, M, G, 1, 1, 1]


@dataclasses.dataclass(frozen=True)
class LongTail:
    """A model whose rollouts end when their place says: every other one at 8 to 31 tokens, the others never.

    The end is written into the hidden state as one more column, the logit of the EOS id; so the sampler sees a model
    like any other, and does all of its work.
    """

    model: Model
    eos: int

    @property
    def compute_dtype(self) -> Any:
        return self.model.compute_dtype

    def encode(self, params: Any, vision: Any) -> jax.Array:
        return self.model.encode(params, vision)

    def prefix(self, params: Any, prompts: PromptBatch, features: jax.Array) -> tuple[jax.Array, Any]:
        hidden, prefix = self.model.prefix(params, prompts, features)
        return jnp.pad(hidden, ((0, 0), (0, 0), (0, 1)), constant_values=-1e4), prefix

    def decode(
        self, params: Any, tokens: jax.Array, t: jax.Array, next_position: jax.Array, *, cache: _Marked, **known: Any
    ) -> tuple[jax.Array, _Marked]:
        hidden, kv = self.model.decode(params, tokens, t, next_position, cache=cache.cache, **known)
        ends = cache.length[0, :, :, 0, 0, 0] == t + 2  # the token drawn next is number t + 2
        mark = jnp.where(ends, 1e4, -1e4).astype(hidden.dtype)
        return jnp.concatenate([hidden, mark[..., None]], axis=-1), _Marked(kv, cache.length)

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        return self.model.logits(params, hidden[..., :-1]).at[..., self.eos].set(hidden[..., -1].astype(jnp.float32))

    def reads(self, params: Any) -> Any:
        return self.model.reads(params)

    def apart(self, params: Any) -> Any:
        return self.model.apart(params)

    def enter(self, params: Any, prefix: Any, cache: _Marked, *, apart: Any = None) -> tuple[Any, _Marked]:
        prefix, kv = self.model.enter(params, prefix, cache.cache, apart=apart)
        return prefix, cache.replace(cache=kv)

    def leave(self, cache: _Marked, *, rows: tuple[int, int]) -> _Marked:
        return cache.replace(cache=self.model.leave(cache.cache, rows=rows))

    def empty_cache(self, prompts: int, group: int, length: int, dtype: Any) -> _Marked:
        place = jnp.arange(prompts * group)
        ends = jnp.where(place % 2 == 0, 8 + place // 2 * 7 % 24, length + 1)  # 8 to 31, spread over the prompts
        ends = ends.reshape(1, prompts, group, 1, 1, 1)
        return _Marked(self.model.empty_cache(prompts, group, length, dtype), ends)


def tail(setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """Decode time with compaction off and on, alternating; every other rollout ends before 32 tokens."""
    eos = setting.processor.eos_ids[0]
    model: Any = LongTail(setting.model, eos)
    samplers = {on: setting.sampler(args, model=model, eos_ids=(eos,), compact=on) for on in (False, True)}
    params, prompts = setting.params, setting.prompts
    features = jax.jit(model.encode)(params, prompts.vision)
    known = prompts.replace(vision=None, features=features)
    prefix = jax.jit(model.prefix)

    def sample(on: bool, step: int) -> Any:
        drawn = samplers[on].sample(params, known, seed=0, purpose="bench", step=step)
        return jax.block_until_ready(drawn)

    drawn = {on: jax.device_get(sample(on, 0)) for on in samplers}  # compiles, all sizes along
    jax.block_until_ready(prefix(params, prompts, features))
    rounds = []
    for number in range(args.rounds):
        prefill = timed(lambda: jax.block_until_ready(prefix(params, prompts, features)))
        off, on = (timed(lambda on=on, n=number: sample(on, n + 1)) - prefill for on in (False, True))
        rounds.append((on, off))
        print(f"round {number + 1}: decode {off.wall:.2f} s without, {on.wall:.2f} s with compaction", file=sys.stderr)
    lengths = drawn[False].mask.sum(-1)
    compact, plain, ratios = summary(rounds)
    found = {"decode_seconds": plain, "decode_seconds_compact": compact, **ratios}
    found |= {"short_share": float((lengths < 32).mean()), "rollouts": lengths.size}
    show(
        rollouts_below_32_tokens=f"{found['short_share']:8.0%}  (the others: {int(lengths.max())})",
        decode_without_compaction=f"{plain:8.2f} s",
        decode_with_compaction=f"{compact:8.2f} s",
        ratio=f"{ratios['ratio']:8.2f}  (CPU time: {ratios['ratio_cpu_time']:.2f})",
    )
    return found | {"differing": int((drawn[False].tokens != drawn[True].tokens).any(-1).sum())}


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
