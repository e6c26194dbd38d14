"""Faithful GRPO: from an HF folder, over images, to checkpoints.

    python -m fgrpo_jax.train --config=configs/tiny.py --workdir=runs/tiny

`step` is the method: data → rollout → signals → learner (policy and multipliers in one compiled step) → row. A run
leaves W/config.json, W/metrics.jsonl (a row a step), W/rollouts/STEP.jsonl, W/checkpoints/, W/eval/ and TensorBoard
events; it prints held-out figures before and after. The same command goes on where a stopped run's newest checkpoint
stands.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from fgrpo_jax import command

if TYPE_CHECKING:
    import numpy as np

    from fgrpo_jax.fgrpo.optimizer import Flat
    from fgrpo_jax.records import TrainState
    from fgrpo_jax.training.collect import Collected
    from fgrpo_jax.training.metrics import Row
    from fgrpo_jax.training.stages import Stages


def step(stages: Stages, state: TrainState, reference: Flat) -> tuple[TrainState, Future[Row]]:
    """One step of the method: the new state, and the row of metrics, which is made beside the next step.

    Args:
      stages: what each stage does, a call into one room.
      reference: the policy to stay near.
    """
    params = state.params

    def draw(stages: Stages, earlier: Sequence[np.ndarray] = ()) -> Collected:
        prompts = stages.data(params, earlier)
        rollouts = stages.rollout(params, prompts)  # drawn a part at a time, while the part before is scored
        return stages.signals(prompts, rollouts)

    drawn = stages.drawn(draw)  # now; under config.rollout.ahead in the step before, and now those of the next
    batch = stages.without_dead_groups(drawn, draw)  # the same batch, unless config.algorithm.filter_dead
    state, learnt = stages.learner(state, reference, batch, drawn=drawn)
    return state, stages.row(batch, learnt, drawn=drawn)


def main(args: argparse.Namespace) -> None:
    """Trains, or goes on training, in `args.workdir`."""
    from fgrpo_jax.config import load as configs  # these take seconds, for which no mistyped flag should wait
    from fgrpo_jax.config.effects import resume_free
    from fgrpo_jax.evaluation.heldout import HeldOut
    from fgrpo_jax.rows import claim_workdir, this_process
    from fgrpo_jax.training import loop, setup

    config = setup.pinned(configs.load(args.config, door="train"), args.workdir, overwrite=args.overwrite)
    run = loop.Run.create(config, args.workdir)  # before the workdir is claimed: a bad config leaves nothing behind
    heldout = HeldOut(config, run.parts.policy, args.workdir, shared=run.parts.scorer.judges)
    resolved = configs.to_dict(config)
    resumed = claim_workdir(
        args.workdir, resolved, free=resume_free(resolved), overwrite=args.overwrite, process=this_process()
    )
    with contextlib.closing(run), contextlib.closing(heldout):
        state, reference = run.begin(resumed=resumed)
        heldout.write("before", run.params)
        state = run.train(step, state, reference, evaluate=heldout.figures)
        heldout.write("after", state.params)
    heldout.report()
    print(f"metrics and rollouts are in {args.workdir}; export the policy with")
    print(f"  python -m fgrpo_jax.export --checkpoint={args.workdir / 'checkpoints'} --out=FOLDER")


def parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    out = command.parser(__doc__, config=True, workdir=True)
    command.add_processes(out)
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
