"""One training run: what it is made of, its steps one after another, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.fgrpo.optimizer import Flat
from fgrpo_jax.records import Rollouts, TrainState
from fgrpo_jax.rollout.generate import fetched
from fgrpo_jax.rows import append_rows, resume_rows
from fgrpo_jax.training import judges, measuring, metrics, precompile, setup
from fgrpo_jax.training.beside import Beside, Trouble
from fgrpo_jax.training.checkpoint import Checkpoints, on_host
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

Step = Callable[[Stages, TrainState, Flat], tuple[TrainState, Future[metrics.Row]]]
"""One step of a method: the new state, and the row of metrics once it is there. `train.step` is it."""

Evaluate = Callable[[Any, str], Mapping[str, Any]]
"""(parameters, label of a progress bar) → held-out figures by name."""


@dataclasses.dataclass
class Run:
    """One training run in its workdir.

    Attributes:
      params: the starting policy; None once the first step has taken it.
      stored: rollouts that were under way when the checkpoint was saved from which the run goes on.
      notice: what a person should know of the run at its start; None when there is nothing.
    """

    parts: Parts
    plan: precompile.Plan
    params: Any
    notice: str | None
    checkpoints: Checkpoints | None = None
    stored: Rollouts | None = None

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
            names=metrics.train_names(
                constraints, importance=corrects, ahead=config.rollout.ahead > 0, custom=config.rewards.custom
            ),
            beside=Beside(threaded=jax.process_count() == 1),
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
                reference = self.checkpoints.restore_beside("reference", reference)
            if self.checkpoints.holds("ahead"):
                config, split = parts.config, meshes.batch_sharding(parts.policy.mesh)
                sizes = config.data.prompts_per_step, config.rollout.group_size, config.rollout.max_new_tokens
                self.stored = fetched(
                    self.checkpoints.restore_beside("ahead", precompile.abstract_rollouts(*sizes, split))
                )
        return state, reference

    def train(self, step: Step, state: TrainState, reference: Flat, *, evaluate: Evaluate) -> TrainState:
        """The steps that are left, each with its row of metrics; the last state."""
        parts, config, start = self.parts, self.parts.config, int(state.step)
        self.params = None  # the first step donates them
        if config.data.buckets.precompile and start < config.num_steps:
            made: dict[str, Any] = {"mesh": parts.policy.mesh, "sampler": parts.sampler, "learner": parts.learner}
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
            stack.enter_context(steps)
            stack.enter_context(contextlib.closing(parts.data))
            stack.enter_context(contextlib.closing(parts.beside))  # what was begun is written, whatever happens
            stages = Stages(parts, start, stored=self.stored)
            try:
                for number in steps:
                    state, row = step(stages, state, reference)
                    if self._refreshed(number + 1) and (number + 1) % config.algorithm.reference_every == 0:
                        reference = parts.learner.reference(state.params)
                    # A copy, since the next step takes the state.
                    parts.beside.write(self._write, log, row, jnp.copy(state.skipped), steps)
                    stages = stages.after()
                    if config.eval.every and (number + 1) % config.eval.every == 0 and number + 1 < config.num_steps:
                        parts.beside.written()
                        found = evaluate(state.params, f"held-out at {number + 1}")
                        append_rows(heldout, [{"step": number + 1, **found}])
                    if parts.saves_after(number + 1):
                        self._save(state, reference, stages)
                parts.beside.finish()
            except Trouble as trouble:  # of the step that led to the state
                self._save(state, reference, stages)
                parts.beside.saved()
                raise ValueError(str(trouble)) from None
        return state

    def close(self) -> None:
        """Closes the judge and the checkpoints."""
        self.parts.scorer.close()
        if self.checkpoints is not None:
            self.checkpoints.close()

    def _refreshed(self, steps: int) -> bool:
        """Whether the reference is another than the starting policy after so many steps."""
        return 0 < self.parts.config.algorithm.reference_every <= steps

    def _write(self, log: Path, row: Future[metrics.Row], skipped: jax.Array, bar: tqdm) -> str | None:
        """Brings a row to the disk; why the run should stop after it, or None."""
        figures, board = row.result(), self.parts.board
        append_rows(log, [figures])
        if board is not None:
            board.figures(int(figures["step"] or 0), figures)
        bar.set_postfix(metrics.postfix(figures, SHOWN))
        return self.parts.guards.trouble(int(skipped))

    def _save(self, state: TrainState, reference: Flat, stages: Stages) -> None:
        """Begins to write a checkpoint of a state from which `stages` are the next."""
        assert self.checkpoints is not None, "a run that has begun has them"
        parts, checkpoints = self.parts, self.checkpoints
        kept = reference if self._refreshed(stages.number) else None
        of: dict[str, Any] = {"config": configs.to_dict(parts.config), "data": stages.position}

        def write(state: TrainState) -> None:
            drawn = stages.under_way()
            ahead = drawn if drawn is None or jax.process_count() == 1 else parts.policy.put(drawn)
            checkpoints.save(state, reference=kept, ahead=ahead, hf=parts.policy.folder, **of)

        if parts.config.checkpoint.wait or jax.process_count() > 1:
            parts.beside.written()
            write(state)
        else:
            parts.beside.save(lambda: on_host(state), write)
