"""One training run: what it is made of, its steps one after another, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.fgrpo.optimizer import Flat
from fgrpo_jax.records import TrainState
from fgrpo_jax.rows import append_rows, resume_rows
from fgrpo_jax.training import judges, measuring, metrics, precompile, setup
from fgrpo_jax.training.checkpoint import Checkpoints
from fgrpo_jax.training.collect import suffix
from fgrpo_jax.training.guards import Guards
from fgrpo_jax.training.stages import Parts, Stages
from fgrpo_jax.training.tensorboard import Board

SHOWN = {
    "acc": "reward/accuracy",
    "λC": "constraint/consistency/lambda",
    "C": "constraint/consistency/mean",
    "S": "constraint/semantic_grounding/mean",
    "G": "constraint/spatial_grounding/mean",
    "kl": "loss/kl",
}
"""What the progress bar shows."""

Step = Callable[[Stages, TrainState, Flat], tuple[TrainState, metrics.Row]]
"""One step of a method: the new state, and the row of metrics. `train.step` is it."""

Evaluate = Callable[[Any, str], Mapping[str, Any]]
"""(parameters, label of a progress bar) → held-out figures by name."""


@dataclasses.dataclass
class Run:
    """One training run in its workdir.

    Attributes:
      params: the starting policy; None once the first step has taken it.
      notice: what a person should know of the run at its start; None when there is nothing.
    """

    parts: Parts
    plan: precompile.Plan
    params: Any
    notice: str | None
    checkpoints: Checkpoints | None = None

    @classmethod
    def create(cls, config: configs.Config, workdir: Path) -> Run:
        """Loads the policy, builds sampler and learner, tries the data; touches no file of the workdir."""
        policy = setup.policy(config)
        algorithm, whole = config.algorithm, "config__data__prompts_per_step/updates_per_batch"
        meshes.require_divisible(policy.mesh, config__algorithm__micro_batch_prompts=algorithm.micro_batch_prompts)
        meshes.require_divisible(policy.mesh, **{whole: config.data.prompts_per_step // algorithm.updates_per_batch})
        meshes.require_divisible(policy.mesh, config__rollout__batch_prompts=config.rollout.batch_prompts)
        meshes.require_divisible(policy.mesh, config__eval__batch_prompts=config.eval.batch_prompts)
        data = setup.training_batches(config, policy)
        measuring.require_measured(config, data.source)
        first = data.try_first()
        plan = precompile.plan(config, data, setup.buckets(config), workdir=workdir)
        data.use(plan.buckets)
        if config.eval.examples:
            setup.heldout_batches(config, policy).try_first()
        constraints = [constraint.name for constraint in config.constraints]
        corrects = config.algorithm.importance_cap is not None
        parts = Parts(
            config,
            workdir,
            policy,
            data=data,
            sampler=setup.sampler(config, policy, purpose="train"),
            scorer=judges.scorer(config, policy, workdir, purpose="train"),
            learner=setup.learner(config, policy),
            guards=Guards(config),
            names=metrics.train_names(constraints, importance=corrects, custom=config.rewards.custom),
        )
        notice = judges.masked_by_rules(config.judge, first.examples, at="config.judge")
        return cls(parts, plan, policy.load(config.model.param_dtype), notice)

    def begin(self, *, resumed: bool) -> tuple[TrainState, Flat]:
        """State and reference policy: of the newest checkpoint where there is one to resume, else fresh ones."""
        parts, workdir = self.parts, self.parts.workdir
        if self.notice and jax.process_index() == 0:
            print(self.notice)
        self.plan.write(workdir)
        self.checkpoints = Checkpoints(workdir / "checkpoints", keep=parts.config.checkpoint.keep)
        reference = parts.learner.reference(self.params)
        state = parts.learner.init(self.params)
        if resumed and self.checkpoints.latest is not None:
            state, meta = self.checkpoints.restore(state)
            parts.data.set_state(dict(meta.data))
            if self._refreshed(int(state.step)):
                reference = self.checkpoints.restore_reference(reference)
        return state, reference

    def train(self, step: Step, state: TrainState, reference: Flat, *, evaluate: Evaluate) -> TrainState:
        """The steps that are left, each with its row of metrics; the last state."""
        parts, config, start = self.parts, self.parts.config, int(state.step)
        self.params = None  # the first step donates them
        if config.data.buckets.precompile and start < config.num_steps:
            made: dict[str, Any] = {"mesh": parts.policy.mesh, "sampler": parts.sampler, "step": parts.learner.step}
            precompile.compile_ahead(config, self.plan.shapes, **made, state=state, reference=reference)
        with contextlib.ExitStack() as stack:  # so that files and bar are closed before an error is shown
            log, heldout = (parts.workdir / f"{name}{suffix()}.jsonl" for name in ("metrics", "eval"))
            parts.guards.recall(resume_rows(log, keep=metrics.up_to(start)))
            resume_rows(heldout, keep=metrics.up_to(start))
            if config.log.tensorboard and jax.process_index() == 0:
                parts.board = Board(parts.workdir / "tensorboard", start=start)
                stack.enter_context(contextlib.closing(parts.board))
            known: dict[str, Any] = {"initial": start, "total": config.num_steps}
            steps = tqdm(range(start, config.num_steps), **known, desc="fgrpo", unit="step", smoothing=0.1)
            stack.enter_context(contextlib.closing(parts.data))
            for number in stack.enter_context(steps):
                state, row = step(Stages(parts, number), state, reference)
                if self._refreshed(number + 1) and (number + 1) % config.algorithm.reference_every == 0:
                    reference = parts.learner.reference(state.params)
                append_rows(log, [row])
                if parts.board is not None:
                    parts.board.figures(number + 1, row)
                steps.set_postfix(metrics.postfix(row, SHOWN))
                if config.eval.every and (number + 1) % config.eval.every == 0 and number + 1 < config.num_steps:
                    found = evaluate(state.params, f"held-out at {number + 1}")
                    append_rows(heldout, [{"step": number + 1, **found}])
                self._save_or_stop(number + 1, state, reference)
        return state

    def close(self) -> None:
        """Closes the judge and the checkpoints."""
        self.parts.scorer.close()
        if self.checkpoints is not None:
            self.checkpoints.close()

    def _refreshed(self, steps: int) -> bool:
        """Whether the reference is another than the starting policy after so many steps."""
        return 0 < self.parts.config.algorithm.reference_every <= steps

    def _save_or_stop(self, steps: int, state: TrainState, reference: Flat) -> None:
        """Writes a checkpoint where one is due, or where the run must not go on; then it stops."""
        trouble = self.parts.guards.trouble(state)
        if trouble is not None or self.parts.saves_after(steps):
            self._save(state, reference)
        if trouble is not None:
            raise ValueError(trouble)

    def _save(self, state: TrainState, reference: Flat) -> None:
        assert self.checkpoints is not None, "a run that has begun has them"
        parts, kept = self.parts, reference if self._refreshed(int(state.step)) else None
        config, data = configs.to_dict(parts.config), parts.data.get_state()
        self.checkpoints.save(state, reference=kept, config=config, data=data, hf=parts.policy.folder)
