"""Times the learner's update against torch eager, on CPU, alternating in one run; and what one more rollout costs.

    python tools/bench_learner.py                  image prompts of about 300 tokens × 8 rollouts × 128 new tokens
    python tools/bench_learner.py --groups         ours alone with 4, 8 and 16 rollouts a prompt

Both sides make one AdamW update of the same random Qwen2.5-VL of about 25M parameters (tools/bench_rollout.py), tower
frozen, on the policy gradient of the same rollouts. Torch runs the model of transformers as a trainer does that repeats
the prompt: every rollout in a row of its own with its prompt, a prompt's rows at a time, the prompt's image encoded
once; loss at completion positions only. Prints the ratio (median over rounds) as the product of two: of tokens (what
repeating costs) and of seconds a token. With --groups: what a rollout more costs a token of its own, over what a token
costs in a pass over completions with a prompt of one token. Needs the `test` extra (torch), --groups does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bench_rollout as rollouts_bench
import jax
import jax.numpy as jnp
import make_tiny_checkpoint as checkpoints
import numpy as np

from fgrpo_jax import command
from fgrpo_jax.fgrpo import forward, optimizer, pieces
from fgrpo_jax.fgrpo.settings import Optimizer
from fgrpo_jax.records import PromptBatch

RATE, DECAY, CLIP = 1e-6, 0.01, 1.0


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--prompts", type=int, default=2, help="image prompts (default 2)")
    out.add_argument("--rollouts", type=int, default=8, help="rollouts a prompt (default 8)")
    out.add_argument("--tokens", type=int, default=128, help="new tokens a rollout (default 128)")
    out.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    out.add_argument("--threads", type=int, default=0, help="torch's threads; 0 takes the better of 1 and all cores")
    out.add_argument("--groups", action="store_true", help="cost against the number of rollouts, without torch")
    return out


def main(args: argparse.Namespace) -> None:
    """Prints a table, then one JSON line."""
    args.dtype = "float32"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "hf"
        count = checkpoints.count_parameters(checkpoints.write(folder, rollouts_bench.RECIPE))
        setting = rollouts_bench.Setting.load(folder, args)
        found = groups(setting, args) if args.groups else against_torch(setting, args, folder)
    print(json.dumps({"parameters": count, "cores": os.cpu_count(), **found}))


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rollouts [M, G, T] drawn at random, which all count, and their advantages [M, G]."""

    tokens: np.ndarray
    advantages: np.ndarray

    @classmethod
    def draw(cls, prompts: int, group: int, length: int) -> Batch:
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, 256, (prompts, group, length), dtype=np.int32)
        return cls(tokens, rng.normal(size=(prompts, group)).astype(np.float32))


# ------------------------------------------------------------------------------------------------------------- our side
@dataclasses.dataclass
class Ours:
    """An update of the trainable weights, compiled; a prompt a micro-batch, as torch has it."""

    setting: rollouts_bench.Setting
    prompts: PromptBatch
    batch: Batch

    def __post_init__(self) -> None:
        weights, self.frozen = optimizer.partition(self.setting.params, ("visual/**",))
        self.weights = jax.tree.map(jnp.copy, weights)
        self.config = optimizer.Rule(Optimizer(learning_rate=RATE, weight_decay=DECAY, clip_norm=CLIP))
        self.opt_state = optimizer.init(self.config, self.weights)
        self.step = jax.jit(self._step, donate_argnums=(0, 1))
        self.loss = 0.0

    def __call__(self) -> None:
        data = (self.prompts, jnp.asarray(self.batch.tokens), jnp.asarray(self.batch.advantages))
        self.weights, self.opt_state, loss = self.step(self.weights, self.opt_state, self.frozen, *data)
        self.loss = float(loss)

    def _step(self, weights: Any, opt_state: Any, frozen: Any, prompts: PromptBatch, tokens: Any, adv: Any) -> Any:
        model, banned = self.setting.model, jnp.zeros(self.setting.model.config.text.vocab_size, bool)

        data = jax.tree.map(lambda x: x[None], (prompts, tokens, adv))  # one part
        mask = jnp.ones(data[1].shape, bool)
        full = prompts.tokens.shape[1] + tokens[0].size
        cut = pieces.cut(pieces.tokens(data[0].mask, mask)[None], micro=1, full=full)
        cut = jax.tree.map(lambda x: x[0], cut)

        def loss(weights: Any, number: jax.Array) -> tuple[jax.Array, None]:
            (prompts, tokens, adv), there = cut.take(number, data)
            params = optimizer.merge(weights, frozen)
            prompts = prompts.replace(mask=prompts.mask & there[:, None])
            features = pieces.encode(model, params, prompts, parts=1)
            mask = jnp.broadcast_to(there[:, None, None], tokens.shape)
            known: dict[str, Any] = {"temperature": 1.0, "banned": banned, "room": cut.room}
            logps, _ = forward.completion_logps(model, params, prompts, features, tokens, mask, **known)
            return -(adv[..., None] * logps).sum() / self.batch.tokens.size, None

        grads, value, _ = pieces.accumulate(loss, weights, cut)
        done = optimizer.apply_guarded(optimizer.make(self.config), grads, opt_state, weights)
        return done.params, done.opt_state, value


# -------------------------------------------------------------------------------------------------------- against torch
def against_torch(setting: rollouts_bench.Setting, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds an update of both, the ratio, and the two ratios it is the product of."""
    batch = Batch.draw(args.prompts, args.rollouts, args.tokens)
    ours, theirs = Ours(setting, setting.prompts, batch), Torch(setting, batch, folder)
    ours()  # compiles
    theirs()
    apart = abs(ours.loss - theirs.loss)
    if apart > 1e-4:
        raise RuntimeError(f"the two sides do not compute the same loss: {ours.loss} and {theirs.loss}")
    threads = rollouts_bench.best_threads(args.threads, theirs)
    rounds = []
    for number in range(args.rounds):
        pair = rollouts_bench.timed(ours), rollouts_bench.timed(theirs)
        rounds.append(pair)
        print(f"round {number + 1}: {pair[0].wall:.2f} s and {pair[1].wall:.2f} s", file=sys.stderr)
    length = int(np.asarray(setting.prompts.mask).sum(-1).mean())
    completion = args.rollouts * args.tokens
    tokens = (args.rollouts * length + completion) / (length + completion)
    mine, other, ratios = rollouts_bench.summary(rounds)
    found = {"prompt_tokens": length, "jax_seconds": mine, "torch_seconds": other, "torch_threads": threads}
    found |= {**ratios, "ratio_of_tokens": tokens, "loss_apart": apart}
    found["ratio_a_token"] = found["ratio"] / tokens
    rollouts_bench.show(
        transformers_on_torch=f"{other:8.2f} s an update, {threads} threads",
        fgrpo_jax=f"{mine:8.2f} s an update",
        ratio=f"{found['ratio']:8.2f} = {tokens:.2f} in tokens × {found['ratio_a_token']:.2f} a token",
        ratio_in_CPU_time=f"{found['ratio_cpu_time']:8.2f}",
    )
    return found


class Torch:
    """The same update by transformers, every rollout in a row of its own."""

    def __init__(self, setting: rollouts_bench.Setting, batch: Batch, folder: Path):
        import torch
        import transformers

        kind: Any = transformers.Qwen2_5_VLForConditionalGeneration
        self.model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").train()
        self.model.model.visual.requires_grad_(False)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY, betas=(0.9, 0.999), eps=1e-8)
        self.weights, self.batch, self.loss = weights, batch, 0.0
        self.inputs = [rollouts_bench.torch_inputs([one], pad_id=setting.processor.pad_id) for one in setting.encoded]

    def __call__(self) -> None:
        import torch

        self.optimizer.zero_grad()
        total = 0.0
        for tokens, advantages, inputs in zip(self.batch.tokens, self.batch.advantages, self.inputs, strict=True):
            loss = self._loss(torch.tensor(tokens, dtype=torch.long), torch.tensor(advantages), inputs)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.loss = total

    def _loss(self, tokens: Any, advantages: Any, inputs: dict[str, Any]) -> Any:
        """Of one prompt's rollouts [G, T]; its image is encoded once and its features are repeated."""
        import torch

        group, length = tokens.shape
        model = self.model.model
        prompt = inputs["input_ids"].expand(group, -1)
        ids = torch.cat([prompt, tokens], dim=1)
        with torch.no_grad():
            features = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
        embeds = model.get_input_embeddings()(ids)
        spots = (ids == self.model.config.image_token_id)[..., None].expand_as(embeds)
        embeds = embeds.masked_scatter(spots, features.repeat(group, 1).to(embeds.dtype))
        types = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, length, dtype=torch.long)], dim=1)
        places, _ = model.get_rope_index(
            ids[:1], types, image_grid_thw=inputs["image_grid_thw"], attention_mask=torch.ones_like(ids[:1])
        )
        hidden = model.language_model(
            inputs_embeds=embeds, position_ids=places.expand(-1, group, -1), use_cache=False
        ).last_hidden_state
        logits = self.model.lm_head(hidden[:, -length - 1 : -1])
        logps = torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
        return -(advantages[:, None] * logps).sum() / self.batch.tokens.size


# --------------------------------------------------------------------------------------------- cost against rollouts
def groups(setting: rollouts_bench.Setting, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds an update at several G; the marginal cost of a token against that of a pass over completions alone."""
    sizes = (4, 8, 16)
    short = _without_prompt(setting.prompts)
    runs: dict[str, Callable[[], None]] = {
        str(size): Ours(setting, setting.prompts, Batch.draw(args.prompts, size, args.tokens)) for size in sizes
    }
    # Twice, so that what an update costs besides its tokens (the optimiser) falls out of the difference.
    runs |= {f"alone {size}": Ours(setting, short, Batch.draw(args.prompts, size, args.tokens)) for size in (4, 16)}
    for run in runs.values():
        run()  # compiles
    times: dict[str, list[rollouts_bench.Times]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            times[name].append(rollouts_bench.timed(run))
    found = {}
    for clock in ("wall", "cpu"):
        medians = {name: statistics.median(getattr(one, clock) for one in values) for name, values in times.items()}
        found[clock] = marginal(medians, apart=args.prompts * args.tokens * (16 - 4))
        for name, value in medians.items():
            print(f"G = {name:9} {value:8.2f} s an update, {clock}")
        more, alone = (1e6 * found[clock][name] for name in ("marginal_seconds", "alone_seconds"))
        print(f"a token more of a rollout: {more:.0f} µs; in a pass over completions alone {alone:.0f} µs ({clock})")
    return found


def marginal(seconds: dict[str, float], *, apart: int) -> dict[str, Any]:
    """What a token costs in the steps from 4 to 16 rollouts, which are `apart` tokens."""
    shared, alone = ((seconds[high] - seconds[low]) / apart for high, low in (("16", "4"), ("alone 16", "alone 4")))
    return {"seconds": seconds, "marginal_seconds": shared, "alone_seconds": alone, "ratio": shared / alone}


def _without_prompt(prompts: PromptBatch) -> PromptBatch:
    """The last token of each prompt as all of it, and no image."""
    last = np.asarray(prompts.mask).sum(-1) - 1
    rows = np.arange(len(last))
    cut = {name: np.asarray(getattr(prompts, name))[rows, last][:, None] for name in ("tokens", "mask", "positions")}
    vision = jax.tree.map(lambda x: x[:, :0], prompts.vision)
    return prompts.replace(**cut, image_slot=np.full((len(last), 1), -1, np.int32), vision=vision)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
