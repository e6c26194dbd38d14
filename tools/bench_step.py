"""Times a whole FGRPO step against the same step written with transformers on torch, on CPU, alternating in one run.

    python tools/bench_step.py                  4 image prompts of about 300 tokens × 8 rollouts × 128 new tokens
    taskset -c 0 python tools/bench_step.py     on one core

Ours is the step that `train` runs: rollouts, rewards and signals, then one compiled update with reference, advantages,
AdamW and multipliers. Torch's is written as a trainer on transformers writes it: `generate` with num_return_sequences,
the same rewards from the same function, a prompt's rollouts as rows that repeat their prompt (its image encoded once),
log-probs of the reference without gradient, the clipped loss with k3, a prompt at a time, AdamW. Both run one random
Qwen2.5-VL of about 27M parameters (tools/bench_rollout.py) in float32 on the same prompts of the built-in world, tower
frozen. Torch runs on the faster of 1 and all threads. Prints ratios by part and of the whole step, medians over rounds
of the ratio within a round, then one JSON line. Needs the `test` extra (torch).
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bench_rollout
import make_tiny_checkpoint as checkpoints
import numpy as np

from fgrpo_jax import command, train
from fgrpo_jax.config import load as configs
from fgrpo_jax.configs import default
from fgrpo_jax.fgrpo import advantages
from fgrpo_jax.records import Rollouts, Signals
from fgrpo_jax.rewards.score import score
from fgrpo_jax.training.loop import Run
from fgrpo_jax.training.stages import Stages

PARTS = ("rollout", "reward", "learner")
SIDE = 448  # pixels: the world's pictures are enlarged to it, 256 tokens each


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--prompts", type=int, default=4, help="prompts with an image (default 4)")
    out.add_argument("--rollouts", type=int, default=8, help="rollouts a prompt (default 8)")
    out.add_argument("--tokens", type=int, default=128, help="most new tokens a rollout (default 128)")
    out.add_argument("--rounds", type=int, default=3, help="alternating rounds (default 3)")
    out.add_argument("--threads", type=int, default=0, help="torch's threads; 0 takes the better of 1 and all cores")
    return out


def main(args: argparse.Namespace) -> None:
    """Makes the policy in a temporary folder, measures, prints a table and one JSON line."""
    with tempfile.TemporaryDirectory(prefix="fgrpo-bench-") as scratch:
        folder = Path(scratch) / "hf"
        count = checkpoints.count_parameters(checkpoints.write(folder, bench_rollout.RECIPE))
        ours = Ours(config(folder, args), Path(scratch) / "run")
        theirs = Torch(folder, ours)
        ours(), theirs()  # compiles
        theirs.threads(args.threads)
        rounds = []
        for number in range(args.rounds):
            rounds.append((ours(), theirs()))
            texts = [" ".join(f"{part} {side[part]:.2f}" for part in PARTS) for side in rounds[-1]]
            print(f"round {number + 1}: ours {texts[0]}; torch {texts[1]} seconds", file=sys.stderr)
        ours.close()
    found = ratios(rounds)
    for name, one in found.items():
        print(f"{name:<10}{one['torch_seconds']:8.2f} s torch{one['jax_seconds']:8.2f} s ours{one['ratio']:8.2f} ×")
    print(json.dumps({"parameters": count, "cores": os.cpu_count(), "torch_threads": theirs.used, **found}))


def config(folder: Path, args: argparse.Namespace) -> Any:
    """The defaults with the sizes of this tool."""
    out: Any = default.get_config()
    out.model.hf = str(folder)
    out.num_steps = 2 + args.rounds
    out.data.prompts_per_step = out.rollout.batch_prompts = args.prompts
    out.data.min_pixels = out.data.max_pixels = SIDE * SIDE
    out.rollout.group_size, out.rollout.max_new_tokens = args.rollouts, args.tokens
    out.algorithm.updates_per_batch = out.algorithm.micro_batch_prompts = 1
    out.eval.examples = 0
    out.data.buckets.choose = 1
    out.log.tensorboard = False
    return configs.load(out, door="train")


Seconds = dict[str, float]
"""Of each of PARTS."""


class Clock:
    """Adds up the seconds of parts."""

    def __init__(self) -> None:
        self.seconds: Seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began


def ratios(rounds: list[tuple[Seconds, Seconds]]) -> dict[str, dict[str, float]]:
    """Of each part and of the whole step: median seconds of both sides, and the median of torch's over ours."""
    whole = [tuple({**side, "step": sum(side.values())} for side in pair) for pair in rounds]
    found = {}
    for part in (*PARTS, "step"):
        ours, theirs = zip(*((a[part], b[part]) for a, b in whole), strict=True)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        found[part] = {
            "jax_seconds": statistics.median(ours),
            "torch_seconds": statistics.median(theirs),
            "ratio": ratio,
        }
    return found


class Ours:
    """Steps of a run as `train` makes it."""

    def __init__(self, config: Any, workdir: Path) -> None:
        self.run = Run.create(config, workdir)
        self.state, self.reference = self.run.begin(resumed=False)
        self.run.params, self.number = None, 0

    def __call__(self) -> Seconds:
        stages = Stages(self.run.parts, self.number)
        self.state, row = train.step(stages, self.state, self.reference)
        row.result()  # a run draws on while the learner computes; here each part has its own time
        self.number += 1
        return {part: stages.seconds[part] for part in PARTS}

    def close(self) -> None:
        self.run.parts.data.close()
        self.run.close()


# ----------------------------------------------------------------------------------------------------- torch's side
@dataclasses.dataclass(frozen=True)
class Drawn:
    """Completions of torch: ids and mask [M, G, T], texts [M][G]."""

    tokens: np.ndarray
    mask: np.ndarray
    finished: np.ndarray
    texts: list[list[str]]


class Torch:
    """The same step by transformers; each call is one, on prompts of the run's own data."""

    def __init__(self, folder: Path, ours: Ours) -> None:
        import torch
        import transformers

        parts = ours.run.parts
        self.config, self.scorer, self.processor = parts.config, parts.scorer, parts.policy.processor
        kind: Any = transformers.Qwen2_5_VLForConditionalGeneration
        self.model, self.reference = (
            kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa") for _ in range(2)
        )
        self.model.model.visual.requires_grad_(False)
        self.reference.requires_grad_(False)
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        optim = self.config.optim
        betas = {"betas": (optim.b1, optim.b2), "eps": optim.eps, "weight_decay": optim.weight_decay}
        self.optimizer = torch.optim.AdamW(self.weights, lr=optim.learning_rate, **betas)
        self.batch = next(parts.data)  # of further data: the work is the same
        self.lam: Any = np.ones(len(self.config.constraints), np.float32)
        self.inputs = [bench_rollout.torch_inputs([one], pad_id=self.processor.pad_id) for one in self.batch.encoded]
        self.used = 0

    def threads(self, number: int) -> None:
        """Lets torch run on so many threads; 0 takes the better of 1 and all cores, by a step on each."""
        self.used = bench_rollout.best_threads(number, self)

    def __call__(self) -> Seconds:
        clock = Clock()
        with clock("rollout"):
            drawn = self._generate()
        with clock("reward"):
            signals = self._signals(drawn)
        with clock("learner"):
            self._update(drawn, signals)
        return clock.seconds

    def _generate(self) -> Drawn:
        """G rollouts of every prompt from the whole distribution, ended by the EOS ids that ours end by."""
        import torch

        rollout, processor = self.config.rollout, self.processor
        inputs = bench_rollout.torch_inputs([*self.batch.encoded], pad_id=processor.pad_id)
        known = {"do_sample": True, "temperature": rollout.temperature, "top_k": 0, "top_p": 1.0}
        known |= {"eos_token_id": list(processor.eos_ids), "pad_token_id": processor.pad_id}
        known |= {"bad_words_ids": [[int(i)] for i in np.flatnonzero(processor.banned)], "repetition_penalty": 1.0}
        with torch.inference_mode():
            sizes = {"num_return_sequences": rollout.group_size, "max_new_tokens": rollout.max_new_tokens}
            out = self.model.eval().generate(**inputs, **known, **sizes)
        tokens = out[:, inputs["input_ids"].shape[1] :].numpy()
        ended = np.isin(tokens, processor.eos_ids)
        mask = np.cumsum(ended, axis=1) - ended == 0
        shape = (len(self.batch.encoded), rollout.group_size, -1)
        tokens, mask = tokens.reshape(shape), mask.reshape(shape)
        texts = [
            [processor.decode(ids[m].tolist()) for ids, m in zip(*rows, strict=True)]
            for rows in zip(tokens, mask, strict=True)
        ]
        return Drawn(tokens, mask, np.asarray(ended.reshape(shape).any(-1)), texts)

    def _signals(self, drawn: Drawn) -> Signals:
        arrays: Any = {"tokens": drawn.tokens, "mask": drawn.mask, "logps": drawn.mask, "finished": drawn.finished}
        rollouts = Rollouts(**arrays)
        return self.scorer.submit(score, self.batch.examples, self.batch.encoded, drawn.texts, rollouts).result()[0]

    def _update(self, drawn: Drawn, signals: Signals) -> None:
        import torch

        algorithm = self.config.algorithm
        mixed = advantages.combine(signals.task, signals.values, signals.mask, self.lam).total
        total, self.model = int(drawn.mask.sum()), self.model.train()
        self.optimizer.zero_grad()
        for row, inputs in enumerate(self.inputs):
            tokens, mask = torch.tensor(drawn.tokens[row]), torch.tensor(drawn.mask[row])
            weight = torch.tensor(np.asarray(mixed[row]))[:, None]
            with torch.no_grad():
                reference = logps(self.reference, inputs, tokens)
            new = logps(self.model, inputs, tokens)
            ratio = torch.exp(new - new.detach())
            clipped = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
            apart = (reference - new).clamp(-algorithm.kl_clamp, algorithm.kl_clamp)
            loss = algorithm.kl_coef * (torch.exp(apart) - apart - 1) - torch.minimum(ratio * weight, clipped * weight)
            (loss * mask).sum().div(total).backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.config.optim.clip_norm)
        self.optimizer.step()


def logps(model: Any, inputs: dict[str, Any], tokens: Any) -> Any:
    """Log-probs [G, T] of completions of one prompt, whose image is encoded once and whose features are repeated."""
    import torch

    group, length = tokens.shape
    inner = model.model
    ids = torch.cat([inputs["input_ids"].expand(group, -1), tokens], dim=1)
    with torch.no_grad():
        features = inner.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
    embeds = inner.get_input_embeddings()(ids)
    spots = (ids == inner.config.image_token_id)[..., None].expand_as(embeds)
    embeds = embeds.masked_scatter(spots, features.repeat(group, 1).to(embeds.dtype))
    types = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, length, dtype=torch.long)], dim=1)
    known = {"image_grid_thw": inputs["image_grid_thw"], "attention_mask": torch.ones_like(ids[:1])}
    places, _ = inner.get_rope_index(ids[:1], types, **known)
    places = places.expand(-1, group, -1)
    hidden = inner.language_model(inputs_embeds=embeds, position_ids=places, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, -length - 1 : -1])
    return torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
