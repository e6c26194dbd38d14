"""Supervised fine-tuning of one run in its workdir: its steps, its validation losses and the best checkpoint."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.effects import resume_free
from fgrpo_jax.data.pipeline import Batch, PromptIterator
from fgrpo_jax.fgrpo.supervised import SupervisedBatch, SupervisedState
from fgrpo_jax.rows import append_rows, beside, claim_workdir, resume_rows
from fgrpo_jax.training import checkpoint, metrics, setup


def train(args: argparse.Namespace) -> None:
    """Trains, or goes on training, in `args.workdir`."""
    config = setup.pinned(configs.load(args.config, door="sft"), args.workdir, overwrite=args.overwrite)
    run = SupervisedRun(config, args.workdir)  # before the workdir is claimed: a bad config leaves nothing behind
    resolved = configs.to_dict(config)
    free = resume_free(resolved, steps="traces")
    resumed = claim_workdir(args.workdir, resolved, free=free, overwrite=args.overwrite)
    run.run(resumed=resumed)


SHOWN = {"loss": "loss", "grad": "optim/grad_norm", "data s": "time/data"}
"""What the progress bar shows."""


@dataclasses.dataclass
class SupervisedRun:
    """One supervised run in its workdir; making it loads the policy and tries the data, and touches no file."""

    config: configs.Config
    workdir: Path

    def __post_init__(self) -> None:
        config = self.config
        self.policy = setup.policy(config)
        meshes.require_divisible(self.policy.mesh, config__sft__micro_batch=config.sft.micro_batch)
        self.learner = setup.supervised_learner(config, self.policy)
        self.data = setup.supervised_batches(config, self.policy, split=config.data.train_split, repeat=True)
        for data in (self.data, self.validation_batches()):
            data.try_first()
        self.params = self.policy.load(config.model.param_dtype)

    def run(self, *, resumed: bool) -> None:
        """To the last step or the target loss, with a validation loss every `sft.eval_every` steps."""
        checkpoints = checkpoint.Checkpoints(self.workdir / "checkpoints", keep=self.config.checkpoint.keep)
        state, self.params = self.learner.init(self.params), None  # the first step donates them
        if resumed and checkpoints.latest is not None:
            state, meta = checkpoints.restore(state)
            self.data.set_state(dict(meta.data))
        with contextlib.closing(checkpoints), contextlib.closing(self.data):
            self._train(state, checkpoints)

    def _train(self, state: SupervisedState, checkpoints: checkpoint.Checkpoints) -> None:
        start, sft = int(state.step), self.config.sft
        with contextlib.ExitStack() as stack:  # so that files and bar are closed before an error is shown
            log, validation = (self.workdir / name for name in ("metrics.jsonl", "eval.jsonl"))
            resume_rows(log, keep=metrics.up_to(start))
            before = resume_rows(validation, keep=metrics.up_to(start))
            best = min((row["loss"] for row in before), default=float("inf"))
            steps = range(start, start if best <= sft.target_loss else sft.steps)
            known: dict[str, Any] = {"initial": start, "total": sft.steps}
            bar = stack.enter_context(tqdm(steps, **known, desc="sft", unit="step", smoothing=0.05))
            for step in bar:
                state, row = self.step(state)
                append_rows(log, [row])
                bar.set_postfix(metrics.postfix(row, SHOWN))
                if (step + 1) % sft.eval_every == 0 or step + 1 == sft.steps:
                    loss = self.validate(state)
                    append_rows(validation, [{"step": step + 1, "loss": loss}])
                    tqdm.write(f"step {step + 1}: validation loss {loss:.4f} nats a token")
                    if loss < best:
                        best = loss
                        # Before the checkpoint: a run killed in between does this step, and its best, again.
                        self.save_best(state)
                    self.save(checkpoints, state)
                    if loss <= sft.target_loss:
                        tqdm.write(f"validation loss reached config.sft.target_loss={sft.target_loss}: done")
                        break

    def step(self, state: SupervisedState) -> tuple[SupervisedState, metrics.Row]:
        """One update: the new state and the row of metrics."""
        began = time.perf_counter()
        batch = next(self.data)
        waited = time.perf_counter() - began
        state, figures = self.learner.step(state, self.policy.put(to_batch(batch)))
        row = {name: metrics.number(value) for name, value in figures.items()}
        times = {"time/data": waited, "time/step": time.perf_counter() - began}
        return state, {"step": int(state.step), **row, **times}

    def validate(self, state: SupervisedState) -> float:
        """Mean negative log-likelihood a token, nats, over the validation traces."""
        total, tokens, batches = 0.0, 0, self.validation_batches()
        for batch in batches:
            nll, count = self.learner.evaluate(state.params, self.policy.put(to_batch(batch)))
            total, tokens = total + float(nll), tokens + int(count)
        batches.close()
        return total / tokens

    def validation_batches(self) -> PromptIterator:
        """`sft.eval_examples` validation traces, the same every time; the last batch is filled up."""
        sft = self.config.sft
        traces: dict[str, Any] = {"split": sft.eval_split, "repeat": False, "limit": sft.eval_examples}
        return setup.supervised_batches(self.config, self.policy, **traces)

    def save(self, where: checkpoint.Checkpoints, state: SupervisedState) -> None:
        """Writes the state into `where`."""
        where.save(state, config=configs.to_dict(self.config), data=self.data.get_state(), hf=str(self.policy.folder))

    def save_best(self, state: SupervisedState) -> None:
        """Replaces W/best by this state; the old one goes only once the new one is whole."""
        with beside(self.workdir / "best", ending="new") as place:
            best = checkpoint.Checkpoints(place, keep=1)
            self.save(best, state)
            best.close()


def to_batch(batch: Batch) -> SupervisedBatch:
    """The learner's record of a pipeline batch (numpy leaves); rows of filling do not count."""
    assert batch.tokens is not None and batch.mask is not None
    real = np.arange(len(batch.mask)) < batch.count
    leaves: dict[str, Any] = {"tokens": batch.tokens, "mask": batch.mask & real[:, None, None]}
    return SupervisedBatch(batch.prompts, **leaves)
