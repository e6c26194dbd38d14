"""Eight devices against one: five steps of the same run on a mesh 2×2×2 and on a single device.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python tools/compare_devices.py [--hf=FOLDER] [--steps=5]

Both sides begin with the same policy. Each step's rollouts are drawn on the single device and fed to both; what both
return is compared, and so are the tokens the eight would have drawn. Prints one JSON object: the worst difference of
each figure (relative where it exceeds 1), the number of rollouts, how many differ, and how many of those part at a tie
(two best perturbed scores closer than rollout.replay.TIE), which rounding may decide either way.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from checks import runs
from replay import TIE, Replay

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.records import Signals
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.training import setup

COMPARED = ("loss/policy", "loss/kl", "loss/total", "optim/grad_norm", "lambda")


@dataclasses.dataclass
class Side:
    """A policy on one mesh, with all that trains it."""

    policy: setup.Policy
    sampler: Any
    learner: Any
    state: Any
    reference: Any

    @classmethod
    def create(cls, config: configs.Config, mesh: jax.sharding.Mesh) -> Side:
        """The config's starting policy on `mesh`."""
        policy = setup.policy(config)
        policy = dataclasses.replace(policy, mesh=mesh, model=dataclasses.replace(policy.model, mesh=mesh))
        learner, params = setup.learner(config, policy), policy.load("float32")
        reference = learner.reference(params)
        return cls(policy, setup.sampler(config, policy, purpose="train"), learner, learner.init(params), reference)

    def draw(self, prompts: Any, **key: Any) -> Generation:
        """Rollouts of host prompts under the present state."""
        decode = self.policy.processor.decode
        return generate(self.sampler, self.state.params, self.policy.put(prompts), decode=decode, **key)

    def step(self, prompts: Any, rollouts: Any, signals: Signals) -> dict[str, Any]:
        """One learner step on host records; the figures, on the host, with the new multipliers as 'lambda'."""
        put = self.policy.put
        self.state, figures, _ = self.learner.step(
            self.state, self.reference, put(prompts), put(rollouts), self._put(signals)
        )
        return jax.device_get({**figures, "lambda": self.state.lam})

    def _put(self, signals: Signals) -> Signals:
        """Signals on this mesh; constraint arrays [C, M, G] have the prompt axis second."""
        second = jax.sharding.NamedSharding(self.policy.mesh, jax.sharding.PartitionSpec(None, meshes.BATCH_AXES))
        flat = self.policy.put({"task": signals.task, "accuracy": signals.accuracy, "format": signals.format})
        values, mask = jax.device_put((signals.values, signals.mask), second)
        return Signals(**flat, values=values, mask=mask)


def compare(config: configs.Config, steps: int) -> dict[str, Any]:
    """{'worst': {figure: difference}, 'rollouts', 'differing', 'ties'} of `steps` steps."""
    one = Side.create(config, meshes.make_mesh(1, 1, 1, devices=jax.devices()[:1]))
    eight = Side.create(config, meshes.make_mesh(2, 2, 2, devices=jax.devices()[:8]))
    out: dict[str, Any] = {"worst": dict.fromkeys(COMPARED, 0.0), "rollouts": 0, "differing": 0, "ties": 0}
    data = setup.training_batches(config, one.policy)
    for step in range(steps):
        batch = next(data)
        key = {"seed": config.seed, "purpose": "train", "step": step}
        drawn, other = one.draw(batch.prompts, **key), eight.draw(batch.prompts, **key)
        differing, ties = parted(one, batch.prompts, drawn, other=other, key=key)
        out["rollouts"] += drawn.rollouts.finished.size
        out["differing"], out["ties"] = out["differing"] + differing, out["ties"] + ties
        signals, _ = score(
            batch.examples,
            drawn.texts,
            sizes=[prompt.sizes[0] for prompt in batch.encoded],
            config=setup.rewards(config),
            measures=setup.measures(config),
            lengths=np.sum(drawn.rollouts.mask, axis=-1),
            finished=np.asarray(drawn.rollouts.finished),
        )
        a, b = (side.step(batch.prompts, drawn.rollouts, signals) for side in (one, eight))
        for name in COMPARED:
            difference = np.abs(a[name] - b[name]) / np.maximum(1, np.abs(a[name]))
            out["worst"][name] = max(out["worst"][name], float(difference.max()))
    data.close()
    return out


def parted(one: Side, prompts: Any, drawn: Generation, *, other: Generation, key: dict[str, Any]) -> tuple[int, int]:
    """(rollouts whose tokens differ, those of them that part at a tie)."""
    unlike = drawn.rollouts.tokens != other.rollouts.tokens
    if not unlike.any():
        return 0, 0
    again = Replay(one.sampler)(one.state.params, one.policy.put(prompts), one.policy.put(drawn.rollouts), **key)
    first = np.argmax(unlike, axis=-1)[..., None]
    margins = np.take_along_axis(jax.device_get(again.margins), first, axis=-1)[..., 0]
    differs = unlike.any(-1)
    return int(differs.sum()), int((differs & (margins < TIE)).sum())


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--hf", type=Path, default=setup.SHIPPED, help="HF folder of the policy (default: %(default)s)")
    out.add_argument("--steps", type=int, default=5, help="rollout steps (default 5)")
    return out


def main(args: argparse.Namespace) -> None:
    """Compares and prints."""
    raw: Any = files.load_config(runs.CONFIGS / "tiny.py", runs.overrides({**runs.SMALL, "model.hf": args.hf}))
    print(json.dumps(compare(configs.load(raw), args.steps)))


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
