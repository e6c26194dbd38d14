"""The five stages of a training step: data, rollout, signals, learner, row. Each is a call into one room.

`fgrpo_jax.train.step` calls them in this order. What the rooms make of a config stands in `Parts`. None of them waits
for the devices but where it needs what they compute: the learner returns at once, and the row is made and written while
the next step draws. Under `rollout.ahead` the first three stages of the next step run while this one is judged and
learnt from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data.buckets import padding
from fgrpo_jax.data.pipeline import Batch, PromptIterator
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.fgrpo.optimizer import Flat, Stepper
from fgrpo_jax.fgrpo.pieces import places
from fgrpo_jax.records import PromptBatch, Rollouts, Signals, TrainState
from fgrpo_jax.rewards.groups import dead
from fgrpo_jax.rewards.judges.tally import Counts, Tally
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.generate import Decode, Generation, decode_texts, fetched, generations
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rows import write_rows
from fgrpo_jax.training import judges, metrics, scoring, setup
from fgrpo_jax.training.beside import Beside
from fgrpo_jax.training.collect import PROMPT_AXIS, Collected, anywhere, everywhere, redrawn, suffix, together
from fgrpo_jax.training.guards import Guards
from fgrpo_jax.training.tensorboard import Board


@dataclasses.dataclass
class Parts:
    """What the stages of a run work with.

    Attributes:
      names: the keys of a row of metrics.
      beside: what writes rows and checkpoints.
      board: TensorBoard events, while they are written.
    """

    config: Config
    workdir: Path
    policy: setup.Policy
    data: PromptIterator
    sampler: Sampler
    scorer: scoring.Scorer
    learner: Learner
    guards: Guards
    names: tuple[str, ...]
    beside: Beside
    board: Board | None = None

    @property
    def compilations(self) -> int:
        """Programs of sampler, learner and a judge in this process."""
        own = self.sampler.compilations + sum(step.compilations for step in self.learner.steps.values())
        return own + judges.compilations(self.scorer.judges)

    def saves_after(self, steps: int) -> bool:
        """Whether a checkpoint is written after so many steps."""
        every = self.config.checkpoint.every
        return steps == self.config.num_steps or (every > 0 and steps % every == 0)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of this process for one draw, on the host (numpy leaves) and on the devices."""

    batch: Batch
    prompts: PromptBatch
    placed: Any


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What a learner step gives, on the devices and perhaps not there yet.

    Attributes:
      figures: by name.
      logps: [M, G, T], under the policy that entered the step.
      began: when the step was asked for.
    """

    figures: dict[str, Any]
    logps: jax.Array
    began: float


Draw = Callable[..., Collected]
"""The first three stages: (stages of the step, prompt ids of its draws before) → what was drawn and earned."""


class Stages:
    """The stages of one step, and what they take.

    Args:
      number: of the step, from 0.
      stored: rollouts that this step is to learn from, drawn before a restart; this process's, numpy leaves.

    Attributes:
      position: of the data before this step.
      seconds: of each phase: 'data', 'rollout', 'reward', 'learner'; and of the sampler alone, 'sampling'.
      tokens: drawn, those of groups that were dropped among them.
      staleness: updates between the policy that drew and the one that learns.
    """

    def __init__(self, parts: Parts, number: int, *, stored: Rollouts | None = None) -> None:
        self.parts, self.number, self.tokens = parts, number, 0
        self.position = parts.data.get_state()
        self.seconds: dict[str, float] = dict.fromkeys(("data", "rollout", "reward", "learner", "sampling"), 0.0)
        self.staleness = 0 if stored is None else 1
        self._tally, self._stored = Tally(), stored
        self._begun: Future[Collected] | None = None  # the first three stages, where they run ahead
        self._arrived = threading.Event()  # no sampler call of this step needs its parameters any more
        self._following: Stages | None = None

    # ------------------------------------------------------------------------------------------------ from step to step
    def drawn(self, draw: Draw) -> Collected:
        """What this step learns from: `draw(self)`, now.

        Under `rollout.ahead` it was begun in the step before, with the parameters of that one, and now the next begins.
        """
        if not self.parts.config.rollout.ahead:
            return draw(self)
        begun = self._begin(draw) if self._begun is None else self._begun
        self._arrived.wait()  # so it has, but in the first step of a run
        if begun.done():
            begun.result()  # what went wrong with it, before anything is begun after it
        if self.number + 1 < self.parts.config.num_steps:
            self._following = Stages(self.parts, self.number + 1)
            self._following.staleness = 1
            self._following._begin(draw)
        return begun.result()

    def after(self) -> Stages:
        """The stages of the next step."""
        return Stages(self.parts, self.number + 1) if self._following is None else self._following

    def under_way(self) -> Rollouts | None:
        """Rollouts of this step that were drawn ahead, once they are scored; None where there are none."""
        if self._begun is None:
            return self._stored
        return None if self._begun.exception() else self._begun.result().rollouts

    def _begin(self, draw: Draw) -> Future[Collected]:
        """Begins the first three stages in a thread."""
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"ahead {self.number}")
        self._begun = pool.submit(draw, self)
        self._begun.add_done_callback(lambda _: self._arrived.set())  # whatever went wrong: `drawn` raises it
        pool.shutdown(wait=False)
        return self._begun

    # ------------------------------------------------------------------------------------------------------- the stages

    @contextlib.contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Adds the seconds of the block to a phase."""
        began = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - began

    def data(self, params: Any, earlier: Sequence[np.ndarray] = ()) -> Prompts:
        """The next prompts; `earlier` are the prompt ids of this step's draws before.

        Their images are encoded on the way, once for sampler and learner, where no step changes the tower of `params`.
        """
        with self.clock("data"):
            batch = next(self.parts.data)
            prompts = redrawn(batch.prompts, earlier) if earlier else batch.prompts
            return Prompts(batch, prompts, self._placed(params, prompts))

    def _placed(self, params: Any, prompts: PromptBatch) -> PromptBatch:
        """Prompts on the devices."""
        placed, encode = self.parts.policy.put(prompts), self.parts.learner.encode
        return placed if encode is None else encode(params, placed)

    def rollout(self, params: Any, prompts: Prompts) -> Iterator[Generation]:
        """Rollouts of the prompts, `rollout.batch_prompts` of them at a time, when they are asked for.

        All come from the same parameters, so that training stays on-policy.
        """
        config, placed = self.parts.config, prompts.placed
        decode = setup.decoder(config, self.parts.policy)
        size, total = config.rollout.batch_prompts, len(placed.tokens)
        cut = (jax.tree.map(lambda x, s=start: x[s : s + size], placed) for start in range(0, total, size))
        key: dict[str, Any] = {"seed": config.seed, "purpose": "train", "step": self.number}
        if self._stored is None:
            batches = cut if size < total else [placed]
            with self.clock("rollout"):
                laid_out = self.parts.sampler.lay_out(params)
            drawing = generations(self.parts.sampler, laid_out, batches, decode=decode, **key)
        else:
            drawing = iter([_again(self._stored, decode)])
        if not config.rollout.ahead:
            self.parts.beside.settle()  # the devices have work now, so that there is time to look at the step before
        jax.block_until_ready(params)  # the learner's time is not the sampler's
        while True:
            with self.clock("rollout"):
                drawn = next(drawing, None)
            if drawn is None:
                break
            self.tokens += drawn.tokens
            self.seconds["sampling"] += drawn.seconds
            yield drawn
        self._arrived.set()

    def signals(self, prompts: Prompts, rollouts: Iterable[Generation]) -> Collected:
        """The prompts with their rollouts and what these earn. One part is scored while the next is drawn."""
        submit = self.parts.scorer.submit
        batch, parts, scores, first = prompts.batch, [], [], 0
        for part in rollouts:
            rows = slice(first, first + len(part.texts))
            first = rows.stop
            examples, encoded = batch.examples[rows], batch.encoded[rows]
            with self.clock("reward"):  # takes no time where the judge runs beside the sampler
                scores.append(submit(score, examples, encoded, part.texts, part.rollouts, tally=self._tally))
            parts.append(part)
        with self.clock("reward"):
            signals, diagnostics = scoring.joined([scored.result() for scored in scores])
        return Collected(
            batch.examples,
            batch.encoded,
            prompts.prompts,
            rollouts=jax.tree.map(lambda *xs: np.concatenate(xs), *[part.rollouts for part in parts]),
            texts=[text for part in parts for text in part.texts],
            signals=signals,
            diagnostics=diagnostics,
            placed=prompts.placed,
        )

    def without_dead_groups(self, drawn: Collected, draw: Draw) -> Collected:
        """The batch with live groups of further prompts in the place of dead ones, under `algorithm.filter_dead`.

        At most `max_resample` draws, each of the next prompts of the data; what is still dead then stays, with
        advantage 0. All processes draw as long as any of them has dead groups left.

        Args:
          draw: the first three stages.
        """
        algorithm, batch = self.parts.config.algorithm, drawn
        if not algorithm.filter_dead:
            return batch
        earlier = [everywhere(drawn.prompts.prompt_id)]
        for _ in range(algorithm.max_resample):
            rows = np.flatnonzero(self._dead(batch.signals))
            if not anywhere(np.array(len(rows) > 0)):
                break
            more = draw(self, earlier)
            earlier.append(everywhere(more.prompts.prompt_id))
            live = np.flatnonzero(~self._dead(more.signals))
            if count := min(len(rows), len(live)):
                batch = batch.with_groups(rows[:count], more, live[:count], data=self.parts.data)
        return batch

    def _dead(self, signals: Signals) -> np.ndarray:
        """bool [M], groups of this process that no advantage can be in."""
        learner, filled = self.parts.learner, self.parts.config.algorithm.masked == "zero_fill"
        mask = np.ones_like(signals.mask) if filled else np.asarray(signals.mask)
        reward, values = np.asarray(learner.reward(signals)), np.asarray(signals.values)
        return dead(reward, values, mask, in_force=learner.in_force)

    def learner(
        self, state: TrainState, reference: Flat, batch: Collected, *, drawn: Collected
    ) -> tuple[TrainState, Learnt]:
        """One compiled step: advantages with λ(t), the updates of the policy, λ(t+1). The state is donated.

        The multipliers answer to the batch as first drawn.
        """
        put = self.parts.policy.put
        self._before_update()
        with self.clock("learner"):
            began = time.perf_counter()
            prompts = self._placed(state.params, batch.prompts) if batch.placed is None else batch.placed
            signals = self._put_signals(batch.signals, drawn.signals)
            state, figures, logps = self._step(batch)(state, reference, prompts, put(batch.rollouts), signals)
            return state, Learnt(figures, logps, began)

    def _step(self, batch: Collected) -> Stepper:
        """The learner's step for the lengths of a batch; of several processes the one that all need."""
        steps = self.parts.learner.steps
        needed = 1 if len(steps) == 1 else int(everywhere(places(batch.prompts.mask, batch.rollouts.mask)).max())  # type: ignore[arg-type]
        return steps[needed]

    def _before_update(self) -> None:
        """Waits for those who still read the state that the learner is about to take, and for what may stop the run."""
        if self._following is not None:
            self._following._arrived.wait()
        self.parts.beside.before_update()

    def _put_signals(self, signals: Signals, drawn: Signals) -> Signals:
        """Signals on the mesh, with constraint arrays of the batch as first drawn where dead groups are replaced."""
        policy, put = self.parts.policy, jax.make_array_from_process_local_data
        second = jax.sharding.NamedSharding(policy.mesh, jax.sharding.PartitionSpec(None, meshes.BATCH_AXES))
        flat = policy.put({name: getattr(signals, name) for name, axis in PROMPT_AXIS.items() if axis == 0})
        rows: dict[str, Any] = {"values": signals.values, "mask": signals.mask}  # [C, M, G]
        if self.parts.config.algorithm.filter_dead:
            rows |= {"drawn_values": drawn.values, "drawn_mask": drawn.mask}
        return Signals(**flat, **{name: put(second, row) for name, row in rows.items()})

    def row(self, batch: Collected, learnt: Learnt, *, drawn: Collected) -> Future[metrics.Row]:
        """The row of metrics, over all processes; and W/rollouts/STEP.jsonl, and a prompt for TensorBoard.

        Made beside the next step, once the figures are there. Means are of the batch as first drawn. A ValueError says
        that sampler and learner run two models.
        """
        return self.parts.beside.begin(self._row, batch, learnt, drawn, self._tally.take(), self.parts.compilations)

    def _row(
        self, batch: Collected, learnt: Learnt, drawn: Collected, counts: Counts, compilations: int
    ) -> metrics.Row:
        parts, config, seconds = self.parts, self.parts.config, self.seconds
        figures, logps = jax.device_get(learnt.figures), fetched(learnt.logps)
        seconds["learner"] = time.perf_counter() - learnt.began
        values: dict[str, Any] = {"step": self.number + 1, "compile/count": compilations}
        rate = self.tokens / seconds["sampling"] if seconds["sampling"] else None
        values |= {"sampler/tokens": self.tokens, "sampler/tokens_per_second": rate}
        values |= metrics.of_rollouts(drawn.rollouts, drawn.signals)
        values |= metrics.of_learner(figures, config.constraints)
        values |= {"rollout/dead_groups": int(self._dead(batch.signals).sum()), "rollout/resampled": batch.replaced}
        values |= scoring.custom_means(drawn.diagnostics)
        values |= parts.guards.judging(counts, drawn.diagnostics)
        values |= parts.guards.logps(batch.rollouts, logps, stale=self.staleness > 0)
        parts.guards.saturation(figures["constraint/saturated"])
        values |= {"rollout/staleness": self.staleness} if config.rollout.ahead else {}
        waste = padding(batch.prompts)
        values |= {"data/padding_waste": waste["tokens"], "data/padding_waste_patches": waste["patches"]}
        values |= {f"time/{phase}": seconds[phase] for phase in ("data", "rollout", "reward", "learner")}
        if config.log.rollouts:
            self._write_rollouts(batch, figures["constraint/lambda"])
        if parts.board is not None and parts.saves_after(self.number + 1):
            first = (batch.examples[0], batch.encoded[0], batch.texts[0][0])
            parts.board.example(self.number + 1, *first, dialect=parts.scorer.dialect)
        return metrics.row(parts.names, together(values))

    def _write_rollouts(self, batch: Collected, lam: np.ndarray) -> None:
        """W/rollouts/STEP.jsonl: a line a prompt with all its rollouts and what they earned, those learnt from."""
        names = [constraint.name for constraint in self.parts.config.constraints]
        lines = batch.lines(self.number + 1, dict(zip(names, map(float, lam), strict=True)))
        write_rows(self.parts.workdir / "rollouts" / f"{self.number + 1:06d}{suffix()}.jsonl", lines)


def _again(rollouts: Rollouts, decode: Decode) -> Generation:
    """Rollouts that were drawn before a restart."""
    return Generation(rollouts, decode_texts(rollouts, decode), int(rollouts.mask.sum()), seconds=0.0)
