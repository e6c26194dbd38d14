"""Faithful GRPO: from an HF folder, over images, to checkpoints.

    python -m fgrpo_jax.train --config=configs/tiny.py --workdir=runs/tiny

One step: prompts → grouped rollouts → signals → one compiled learner step (policy and multipliers together). Leaves
W/config.json, W/metrics.jsonl (a row a step), W/rollouts/STEP.jsonl, W/checkpoints/, W/eval/ and TensorBoard events;
prints held-out figures before and after. The same command goes on where a stopped run's newest checkpoint stands.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.effects import resume_free
from fgrpo_jax.data.buckets import padding
from fgrpo_jax.data.pipeline import Batch, PromptIterator
from fgrpo_jax.evaluation.figures import MEANS, means
from fgrpo_jax.evaluation.heldout import evaluate
from fgrpo_jax.evaluation.judged import Answer
from fgrpo_jax.evaluation.significance import paired, table
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.fgrpo.optimizer import Flat
from fgrpo_jax.records import Rollouts, Signals, TrainState
from fgrpo_jax.rewards.groups import dead
from fgrpo_jax.rewards.judges.scorer import SharedTower
from fgrpo_jax.rewards.judges.tally import METRICS
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.generate import fetched, generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rows import append_rows, claim_workdir, read_rows, resume_rows, this_process, write_json, write_rows
from fgrpo_jax.training import checkpoint, judges, metrics, precompile, scoring, setup
from fgrpo_jax.training.collect import Collected, anywhere, everywhere, redrawn, suffix, together

SHOWN = {
    "acc": "reward/accuracy",
    "λC": "constraint/consistency/lambda",
    "C": "constraint/consistency/mean",
    "S": "constraint/semantic_grounding/mean",
    "G": "constraint/spatial_grounding/mean",
    "kl": "loss/kl",
}
EXTRA = (
    *("loss/total", "policy/entropy", "policy/clip_share", "rollout/length", "rollout/truncated", "judge/no_claim"),
    *METRICS,
    *("data/padding_waste", "data/padding_waste_patches"),
    *("rollout/dead_groups", "rollout/resampled"),
)
IMPORTANCE = ("importance/mean", "importance/max", "importance/capped_share", "importance/ess")
"""In every row of a run that corrects for its sampler; in none of the others."""


def main(args: argparse.Namespace) -> None:
    """Trains, or goes on training, in `args.workdir`."""
    config = setup.pinned(configs.load(args.config, door="train"), args.workdir, overwrite=args.overwrite)
    run = Run.create(config, args.workdir)  # before the workdir is claimed: a bad config leaves nothing behind
    resolved = configs.to_dict(config)
    free, process = resume_free(resolved), this_process()
    resumed = claim_workdir(args.workdir, resolved, free=free, overwrite=args.overwrite, process=process)
    with contextlib.closing(run.scorer), contextlib.closing(run.eval_scorer):
        run.run(resumed=resumed)


Spent = Counter[str]
"""Seconds of each phase of a step ('data', 'rollout', 'reward', 'learner'; 'sampling' alone), and 'tokens' drawn."""


@contextlib.contextmanager
def _timed(spent: Spent, phase: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    spent[phase] += time.perf_counter() - began  # type: ignore[assignment]  # a Counter of seconds as well


@dataclasses.dataclass
class Run:
    """One training run in its workdir.

    `over` counts steps in a row whose mean Δp exceeded its stop limit; `saturated` names the constraints so reported.
    """

    config: configs.Config
    workdir: Path
    policy: setup.Policy
    params: Any
    sampler: Sampler
    eval_sampler: Sampler
    scorer: scoring.Scorer
    eval_scorer: scoring.Scorer
    learner: Learner
    data: PromptIterator
    plan: precompile.Plan
    watch: scoring.Watch
    tower: SharedTower | None
    over: int = 0
    saturated: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def create(cls, config: configs.Config, workdir: Path) -> Run:
        """Loads the policy, builds sampler and learner, tries the data; touches no file of the workdir."""
        policy = setup.policy(config)
        meshes.require_divisible(
            policy.mesh,
            config__algorithm__micro_batch_prompts=config.algorithm.micro_batch_prompts,
            config__rollout__batch_prompts=config.rollout.batch_prompts,
            config__eval__batch_prompts=config.eval.batch_prompts,
        )
        data = setup.training_batches(config, policy)
        data.try_first()
        plan = precompile.plan(config, data, setup.buckets(config), workdir=workdir)
        data.use(plan.buckets)
        if config.eval.examples:
            setup.heldout_batches(config, policy).try_first()
        scorer = judges.scorer(config, policy, workdir, purpose="train")
        learner, params = setup.learner(config, policy), policy.load(config.model.param_dtype)
        trained = learner.trained.paths(policy.model.specs)
        return cls(
            config,
            workdir,
            policy,
            params=params,
            sampler=setup.sampler(config, policy, purpose="train"),
            eval_sampler=setup.sampler(config, policy, purpose="eval"),
            scorer=scorer,
            eval_scorer=judges.scorer(config, policy, workdir, purpose="eval", shared=scorer.judges),
            learner=learner,
            data=data,
            plan=plan,
            watch=scoring.Watch(config.judge),
            tower=judges.shared_tower(policy, params, scorer.judges, trained=trained),
        )

    # ------------------------------------------------------------------------------------------------------- the run
    def run(self, *, resumed: bool) -> None:
        """To `num_steps`, then the held-out table."""
        config = self.config
        self.plan.write(self.workdir)
        checkpoints = checkpoint.Checkpoints(self.workdir / "checkpoints", keep=config.checkpoint.keep)
        reference = self.learner.reference(self.params)
        state = self.learner.init(self.params)
        if resumed and checkpoints.latest is not None:
            state, meta = checkpoints.restore(state)
            self.data.set_state(dict(meta.data))
            if self._refreshed(int(state.step)):
                reference = checkpoints.restore_reference(reference)
        self._evaluate_once("before", self.params if int(state.step) == 0 else None)
        self.params = None  # the first step donates them
        with contextlib.closing(checkpoints), contextlib.closing(self.data):
            state = self._train(state, reference, checkpoints)
        self._evaluate_once("after", state.params)
        self._report()

    def _train(self, state: TrainState, reference: Flat, checkpoints: checkpoint.Checkpoints) -> TrainState:
        """The steps that are left, each with its row of metrics."""
        config, start = self.config, int(state.step)
        if config.data.buckets.precompile and start < config.num_steps:
            precompile.compile_ahead(
                config,
                self.plan.shapes,
                mesh=self.policy.mesh,
                sampler=self.sampler,
                step=self.learner.step,
                state=state,
                reference=reference,
                tower=self.tower,
            )
        extra = EXTRA if config.algorithm.importance_cap is None else (*EXTRA, *IMPORTANCE)
        extra = (*extra, *(f"reward/custom/{name}" for name in config.rewards.custom))
        names = metrics.train_names([c.name for c in config.constraints], extra=extra)
        with contextlib.ExitStack() as stack:  # so that files and bar are closed before an error is shown
            log, heldout = (self.workdir / f"{name}{suffix()}.jsonl" for name in ("metrics", "eval"))
            self.watch.recall(resume_rows(log, keep=metrics.up_to(start)))
            resume_rows(heldout, keep=metrics.up_to(start))
            first = config.log.tensorboard and jax.process_index() == 0
            board = metrics.TensorBoardWriter(self.workdir / "tensorboard") if first else None
            if board is not None:
                stack.enter_context(contextlib.closing(board))
            steps = range(start, config.num_steps)
            known: dict[str, Any] = {"initial": start, "total": config.num_steps}
            bar = stack.enter_context(tqdm(steps, **known, desc="fgrpo", unit="step", smoothing=0.1))
            for step in bar:
                state, row = self.step(state, reference, step, names)
                if self._refreshed(step + 1) and (step + 1) % config.algorithm.reference_every == 0:
                    reference = self.learner.reference(state.params)
                append_rows(log, [row])
                if board is not None:
                    board.write(step + 1, row)
                bar.set_postfix(metrics.postfix(row, SHOWN))
                last = step + 1 == config.num_steps
                if config.eval.every and (step + 1) % config.eval.every == 0 and not last:
                    answers = self._evaluate(state.params, f"held-out at {step + 1}")
                    append_rows(heldout, [{"step": step + 1, **means(answers)}])
                if last or (config.checkpoint.every and (step + 1) % config.checkpoint.every == 0):
                    self._save(checkpoints, state, reference)
                self._guard_updates(state, reference, checkpoints)
                self._guard_judge(state, reference, checkpoints)
        return state

    def step(
        self, state: TrainState, reference: Flat, step: int, names: Sequence[str]
    ) -> tuple[TrainState, metrics.Row]:
        """One rollout step: the new state and the row of metrics."""
        spent: Spent = Counter()
        drawn, placed = self._collect(state.params, step, spent)
        batch, replaced = drawn, 0
        if self.config.algorithm.filter_dead:
            batch, replaced = self._replace_dead(state.params, step, drawn, spent)
        with _timed(spent, "learner"):
            prompts = placed if batch is drawn else self.policy.put(batch.prompts)
            signals = self._put_signals(batch.signals, drawn.signals)
            state, figures, logps = self.learner.step(
                state, reference, prompts, self.policy.put(batch.rollouts), signals
            )
            figures, logps = jax.device_get(figures), fetched(logps)
        values = self._values(step, figures, drawn, spent)
        values |= {"rollout/dead_groups": int(self._dead(batch.signals).sum()), "rollout/resampled": replaced}
        values |= scoring.custom_means(drawn.seen)
        values |= self.watch.step(self.scorer.judges.tally.take(), drawn.seen)
        values |= self._compare_logps(batch.rollouts, logps)
        self._report_saturated(figures["constraint/saturated"])
        waste = padding(batch.prompts)
        values |= {"data/padding_waste": waste["tokens"], "data/padding_waste_patches": waste["patches"]}
        values |= {f"time/{phase}": spent[phase] for phase in ("data", "rollout", "reward", "learner")}
        if self.config.log.rollouts:
            self._write_rollouts(step, batch, figures["constraint/lambda"])
        return state, metrics.row(names, together(values))

    # ------------------------------------------------------------------------------------------------------ one step
    def _collect(
        self, params: Any, step: int, spent: Spent, *, earlier: Sequence[np.ndarray] = ()
    ) -> tuple[Collected, Any]:
        """The next prompts with their rollouts and signals; and the prompts on the devices.

        Args:
          spent: to which times and tokens are added.
          earlier: prompt ids of the draws of this step that came before.
        """
        with _timed(spent, "data"):
            batch = next(self.data)
        prompts = redrawn(batch.prompts, earlier) if earlier else batch.prompts
        with _timed(spent, "rollout"):
            placed = self.policy.put(prompts)
            rollouts, texts, scores = self._draw(params, batch, placed, step, spent)
        with _timed(spent, "reward"):  # what judging takes beyond the sampling that it went on beside
            signals, seen = scoring.joined([part.result() for part in scores])
        return Collected(batch.examples, batch.encoded, prompts, rollouts, texts, signals, seen), placed

    def _draw(
        self, params: Any, batch: Batch, prompts: Any, step: int, spent: Spent
    ) -> tuple[Rollouts, Sequence[Sequence[str]], list[Future[scoring.Scored]]]:
        """Rollouts of prompts on the devices, `rollout.batch_prompts` at a time, with their texts and their scores.

        The scores of one part are made while the next is drawn, all from the same parameters.
        """
        size, total = self.config.rollout.batch_prompts, len(prompts.tokens)
        parts, scores, row = [], [], 0
        for start in range(0, total, size):
            part = prompts if size == total else jax.tree.map(lambda x, s=start: x[s : s + size], prompts)
            features = None if self.tower is None else self.tower.encode(params, part, batch.encoded[row : row + size])
            drawn = generate(
                self.sampler,
                params,
                part,
                decode=setup.decoder(self.config, self.policy),
                seed=self.config.seed,
                purpose="train",
                step=step,
                features=features,
            )
            rows = slice(row, row + len(drawn.texts))
            row = rows.stop
            examples, encoded = batch.examples[rows], batch.encoded[rows]
            scores.append(self.scorer.submit(score, examples, encoded, drawn.texts, drawn.rollouts))
            parts.append(drawn)
        spent["tokens"] += sum(part.tokens for part in parts)
        spent["sampling"] += sum(part.seconds for part in parts)
        rollouts = jax.tree.map(lambda *xs: np.concatenate(xs), *[part.rollouts for part in parts])
        return rollouts, [text for part in parts for text in part.texts], scores

    @property
    def _compilations(self) -> int:
        """Programs of sampler, learner and a judge in this process."""
        own = self.sampler.compilations + self.learner.step.compilations + judges.compilations(self.scorer.judges)
        return own + (0 if self.tower is None else self.tower.compilations)

    def _dead(self, signals: Signals) -> np.ndarray:
        """bool [M], groups of this process that no advantage can be in."""
        filled = self.config.algorithm.masked == "zero_fill"
        mask = np.ones_like(signals.mask) if filled else np.asarray(signals.mask)
        reward, values = np.asarray(self.learner.reward(signals)), np.asarray(signals.values)
        return dead(reward, values, mask, in_force=self.learner.in_force)

    def _replace_dead(self, params: Any, step: int, first: Collected, spent: Spent) -> tuple[Collected, int]:
        """(the batch with live groups of further draws in the place of dead ones, how many were replaced).

        At most `max_resample` draws, each of the next prompts of the data; what is still dead then stays, with
        advantage 0. All processes draw as long as any of them has dead groups left.
        """
        batch, replaced, earlier = first, 0, [everywhere(first.prompts.prompt_id)]
        for _ in range(self.config.algorithm.max_resample):
            rows = np.flatnonzero(self._dead(batch.signals))
            if not anywhere(np.array(len(rows) > 0)):
                break
            more, _ = self._collect(params, step, spent, earlier=earlier)
            earlier.append(everywhere(more.prompts.prompt_id))
            live = np.flatnonzero(~self._dead(more.signals))
            count = min(len(rows), len(live))
            if count:
                batch = batch.with_groups(rows[:count], more, live[:count], data=self.data)
            replaced += count
        return batch, replaced

    def _put_signals(self, signals: Signals, drawn: Signals) -> Signals:
        """Signals on the mesh; constraint arrays [C, M, G] have the prompt axis second.

        Args:
          drawn: those of the batch as first drawn, which travel too where dead groups are replaced.
        """
        mesh = self.policy.mesh
        second = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, meshes.BATCH_AXES))
        put = jax.make_array_from_process_local_data
        flat = self.policy.put({"task": signals.task, "accuracy": signals.accuracy, "format": signals.format})
        rows: dict[str, Any] = {"values": signals.values, "mask": signals.mask}
        if self.config.algorithm.filter_dead:
            rows |= {"drawn_values": drawn.values, "drawn_mask": drawn.mask}
        return Signals(**flat, **{name: put(second, row) for name, row in rows.items()})

    def _values(self, step: int, figures: dict[str, Any], drawn: Collected, spent: Spent) -> dict[str, Any]:
        """The row's values but for times and the comparison of log-probs, of the batch as first drawn."""
        mask, signals = drawn.rollouts.mask, drawn.signals
        out: dict[str, Any] = {
            "step": step + 1,
            "reward/task": signals.task.mean(),
            "reward/accuracy": signals.accuracy.mean(),
            "reward/format": signals.format.mean(),
            "sampler/tokens": spent["tokens"],
            "sampler/tokens_per_second": spent["tokens"] / spent["sampling"],
            "rollout/length": mask.sum(-1).mean(),
            "rollout/truncated": 1.0 - drawn.rollouts.finished.mean(),
            "compile/count": self._compilations,
            "advantage/share/task": figures["advantage/share"][0],
        }
        for index, constraint in enumerate(self.config.constraints):
            applicable = int(figures["constraint/applicable"][index])
            mean = float(figures["constraint/mean"][index]) if applicable else None
            name = f"constraint/{constraint.name}"
            out[f"{name}/mean"], out[f"{name}/applicable"] = mean, applicable
            out[f"{name}/lambda"] = figures["constraint/lambda"][index]
            out[f"{name}/saturated"] = figures["constraint/saturated"][index]
            out[f"{name}/violation"] = metrics.violation(mean, constraint.threshold, direction=constraint.direction)
            out[f"advantage/share/{constraint.name}"] = figures["advantage/share"][1 + index]
        return out | {name: value for name, value in figures.items() if np.ndim(value) == 0}

    def _compare_logps(self, rollouts: Rollouts, logps: np.ndarray) -> dict[str, float]:
        """Differences between the sampler's and the learner's log-probs, and the stop when they are two models."""
        mask, limits = rollouts.mask, self.config.rollout
        difference = np.abs(rollouts.logps - logps)[mask]
        shift = (np.exp(logps) - np.exp(rollouts.logps))[mask]
        # What a truncated distribution keeps it makes likelier, so there only the other sign tells two models apart.
        truncated = limits.top_p < 1.0 or limits.top_k > 0 or limits.min_p > 0
        shift = np.maximum(shift, 0) if truncated else np.abs(shift)
        exact = self.config.model.compute_dtype == "float32"
        if exact:
            kind, value, warn, stop = "max", shift.max(), limits.logp_max_warn, limits.logp_max_stop
        else:
            kind, value, warn, stop = "mean", shift.mean(), limits.logp_mean_warn, limits.logp_mean_stop
        self.over = 0 if value <= stop else self.over + 1  # NaN is over
        message = f"sampler and learner give token probabilities that differ by {value:.3g} ({kind} of the step)"
        if self.over >= (1 if exact else limits.logp_patience):
            raise ValueError(
                f"{message}, above {stop}: they do not run the same model; compare their weights, positions and masks, "
                f"or raise config.rollout.logp_{kind}_stop"
            )
        if value > warn:
            warnings.warn(message, stacklevel=2)
        return {"sampler/logp_diff_max": float(difference.max()), "sampler/logp_diff_mean": float(difference.mean())}

    def _report_saturated(self, saturated: np.ndarray) -> None:
        """A line for a constraint whose multiplier has come to its bound without bringing it about; once a run each."""
        for constraint, at_bound in zip(self.config.constraints, saturated, strict=True):
            if at_bound and constraint.name not in self.saturated:
                self.saturated.add(constraint.name)
                warnings.warn(
                    f"constraint '{constraint.name}' is violated with its multiplier at its bound {constraint.max}: "
                    f"mean {constraint.direction} {constraint.threshold} is probably infeasible; ease the threshold "
                    f"or raise config.constraints.{constraint.name}.max",
                    stacklevel=2,
                )

    def _write_rollouts(self, step: int, batch: Collected, lam: np.ndarray) -> None:
        """W/rollouts/STEP.jsonl: a line a prompt with all its rollouts and what they earned, those learnt from."""
        names = [c.name for c in self.config.constraints]
        lines = batch.lines(step + 1, dict(zip(names, map(float, lam), strict=True)))
        write_rows(self.workdir / "rollouts" / f"{step + 1:06d}{suffix()}.jsonl", lines)

    # --------------------------------------------------------------------------------------------- around the steps
    def _guard_updates(self, state: TrainState, reference: Flat, checkpoints: checkpoint.Checkpoints) -> None:
        skipped, limit = int(state.skipped), self.config.optim.max_skipped
        if skipped >= limit:
            self._save(checkpoints, state, reference)
            raise ValueError(
                f"{skipped} updates in a row had a gradient that is not finite (config.optim.max_skipped={limit}); the "
                "last state is saved; look at the newest rows of metrics.jsonl and lower the learning rate"
            )

    def _guard_judge(self, state: TrainState, reference: Flat, checkpoints: checkpoint.Checkpoints) -> None:
        if (trouble := self.watch.trouble) is not None:
            self._save(checkpoints, state, reference)
            raise ValueError(
                f"{trouble}; the last state is saved, and verdicts that came are in the cache: look after the judge "
                "(config.judge) and start the same command again, or raise config.judge.max_failure_rate"
            )

    def _refreshed(self, steps: int) -> bool:
        """Whether the reference is another than the starting policy after so many steps."""
        return 0 < self.config.algorithm.reference_every <= steps

    def _save(self, checkpoints: checkpoint.Checkpoints, state: TrainState, reference: Flat) -> None:
        checkpoints.save(
            state,
            reference=reference if self._refreshed(int(state.step)) else None,
            config=configs.to_dict(self.config),
            data=self.data.get_state(),
            hf=str(self.policy.folder),
        )

    def _evaluate(self, params: Any, label: str) -> list[Answer]:
        scorer = self.eval_scorer
        answers = evaluate(self.config, self.policy, params, self.eval_sampler, scorer=scorer, label=label)
        scorer.judges.tally.take()  # it may be the judge of training: what it did here is no part of a step
        return answers

    def _evaluate_once(self, when: str, params: Any) -> None:
        """W/eval/WHEN.jsonl, unless it is there already or evaluation is off."""
        path = self.workdir / "eval" / f"{when}.jsonl"
        if not self.config.eval.examples or (when == "before" and path.exists()):
            return
        if params is None:  # a resumed run that lost its first figures: the starting policy is still in its folder
            params = self.policy.load(self.config.model.param_dtype)
        began = time.perf_counter()
        answers = self._evaluate(params, f"held-out {when}")
        write_rows(path, answers)
        shown = "  ".join(f"{k} {100 * value:.1f}%" for k, value in means(answers).items() if value is not None)
        tqdm.write(f"held-out {when} ({len(answers)} questions, {time.perf_counter() - began:.0f} s): {shown}")

    def _report(self) -> None:
        """The table of held-out figures before and after, with paired intervals."""
        if not self.config.eval.examples:
            return
        before, after = (read_rows(self.workdir / "eval" / f"{w}.jsonl") for w in ("before", "after"))
        both = list(zip(before, after, strict=True))
        defined = [name for name in MEANS if any(None not in (a[name], b[name]) for a, b in both)]
        rows = [paired(name, before, after) for name in defined]
        results = {
            "temperature": self.config.eval.temperature,
            "figures": {row.name: {**dataclasses.asdict(row), "change": row.change} for row in rows},
        }
        write_json(self.workdir / "eval" / "results.json", results)
        print(f"\n{table(rows)}\n")
        print(f"metrics and rollouts are in {self.workdir}; export the policy with")
        print(f"  python -m fgrpo_jax.export --checkpoint={self.workdir / 'checkpoints'} --out=FOLDER")


def parser() -> argparse.ArgumentParser:
    """Flags of this door."""
    out = command.parser(__doc__, config=True, workdir=True)
    command.add_processes(out)
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
