"""One learner step under every way of splitting and laying out its work, against the plain one.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python tools/compare_splits.py [--hf=FOLDER]

The same 32 prompts of the built-in world with 4 rollouts each, the same rewards (made up, with dead groups and masked
entries) and multipliers, and one optimiser update. Factors: micro-batches {1, 2, 4, 8}; devices {1, 2, 8}; padding of
prompts and completions (none, more); side of the prompts' padding; order of the prompts; group members on one device or
split over several. All twelve pairs of micro-batches and devices are tried, the other factors dealt over them so that
every pair of settings stands together somewhere; then each of these alone. λ is an input: each case runs once with λ
in force (FGRPO) and once with λ = 0 (GRPO), by the same program.

Advantages, losses and multipliers alone are computed in float64 besides, by their own functions, in all the same cases.

Prints a line a case and then one JSON object: the worst difference from the plain case of loss (absolute), gradient
(norm of the difference over the norm), multipliers (absolute) and parameters (absolute; lr 1e-5), and those of the
float64 functions (absolute).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from checks import runs
from jax.sharding import NamedSharding, PartitionSpec

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.fgrpo import advantages, losses, multipliers, optimizer
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.records import PromptBatch, Rollouts, Signals
from fgrpo_jax.training import setup

MESHES = {1: (1, 1, 1), 2: (2, 1, 1), 8: (2, 2, 2)}
"""data × fsdp × tensor of each number of devices."""

MULTIPLIERS = {"fgrpo": (0.8, 1.7, 0.3), "grpo": (0.0, 0.0, 0.0)}
EXTRA = 24
"""Columns of padding more, of prompts and of completions."""

SETTINGS = {
    "data.prompts_per_step": 32,
    "rollout.batch_prompts": 32,
    "rollout.group_size": 4,
    "rollout.max_new_tokens": 16,
    "algorithm.micro_batch_prompts": 32,
    "algorithm.updates_per_batch": 1,
    "optim.learning_rate": 1e-5,
    "optim.schedule": "constant",
    "optim.clip_norm": 1e9,  # the first moment is then the gradient, but for a factor
    "eval.examples": 0,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to do the same step; the defaults are the plain one."""

    micro_batches: int = 1
    devices: int = 1
    padded: bool = False
    left: bool = False
    shuffled: bool = False
    split: bool = False

    def __str__(self) -> str:
        words = [f"{self.micro_batches} micro-batches", f"{self.devices} devices"]
        return ", ".join(words + [name for name in ("padded", "left", "shuffled", "split") if getattr(self, name)])


def cases() -> tuple[Case, ...]:
    """The cover, then what it does not try alone."""
    # Found by search: over the table of the first two factors, every two settings stand together somewhere, but for a
    # group split over one device.
    padded, left, shuffled, split = "010010001011", "001111001100", "010001011010", "000010110111"
    switches = zip(padded, left, shuffled, split, strict=True)
    table = itertools.product((1, 2, 8), (1, 2, 4, 8))
    cover = [
        Case(micro, devices, *(bit == "1" for bit in bits))
        for (devices, micro), bits in zip(table, switches, strict=True)
    ]
    alone = [Case(devices=n) for n in (2, 8)] + [Case(micro_batches=n) for n in (2, 4, 8)]
    alone += [Case(padded=True), Case(left=True), Case(shuffled=True), Case(devices=2, split=True)]
    return tuple(dict.fromkeys([*cover, *alone]))


@dataclasses.dataclass(frozen=True)
class Work:
    """What every case is given; host arrays."""

    config: configs.Config
    prompts: PromptBatch
    rollouts: Rollouts
    signals: Signals

    @classmethod
    def create(cls, hf: str) -> Work:
        raw: Any = files.load_config(runs.CONFIGS / "tiny.py", runs.overrides({**SETTINGS, "model.hf": hf}))
        config = configs.load(raw)
        policy = on_mesh(config, 1)
        data = setup.training_batches(config, policy)
        prompts = next(data).prompts
        data.close()
        sampler = setup.sampler(config, policy, purpose="train")
        drawn = sampler.sample(policy.load("float32"), policy.put(prompts), seed=0, purpose="train", step=0)
        rng = np.random.default_rng(0)
        rollouts = jax.device_get(drawn)
        lengths = rng.integers(2, rollouts.mask.shape[-1] + 1, size=rollouts.finished.shape)
        mask = rollouts.mask & (np.arange(rollouts.mask.shape[-1]) < lengths[..., None])
        return cls(config, prompts, rollouts.replace(mask=mask), _signals(rng, rollouts.finished.shape))


def _signals(rng: np.random.Generator, shape: tuple[int, int]) -> Signals:
    """A few levels, as rewards are; dead groups, and groups with one applicable rollout or none."""
    levels = lambda *shape: (rng.integers(0, 5, size=shape) / 4).astype(np.float32)  # noqa: E731
    task, values, mask = levels(*shape), levels(3, *shape), rng.random((3, *shape)) < 0.7
    task[3::7], values[:, 3::7] = 0.7, np.float32(0.1)
    mask[1, 5::6] = False
    mask[1, 5, 1] = True
    arrays: Any = {"task": task, "accuracy": levels(*shape), "format": levels(*shape)}
    arrays |= {"values": np.where(mask, values, 0), "mask": mask}
    return Signals(**arrays)


def on_mesh(config: configs.Config, devices: int) -> setup.Policy:
    """The starting policy on so many devices."""
    plain = dataclasses.replace(config, mesh=configs.MeshSection(data=-1, fsdp=1, tensor=1))
    mesh = meshes.make_mesh(*MESHES[devices], devices=jax.devices()[:devices])
    policy = setup.policy(plain)
    return dataclasses.replace(policy, mesh=mesh, model=dataclasses.replace(policy.model, mesh=mesh))


# ------------------------------------------------------------------------------------------------- the same, otherwise
def repadded(prompts: PromptBatch, *, extra: int, left: bool) -> PromptBatch:
    """The prompts with `extra` columns more and their padding, which is filled with rubbish, on either side."""
    m, s = prompts.tokens.shape
    rng = np.random.default_rng(1)
    rubbish = {
        "tokens": rng.integers(0, 300, (m, s + extra)),
        "positions": rng.integers(0, 99, (m, s + extra, 3)),
        "mask": np.zeros((m, s + extra)),
        "image_slot": np.full((m, s + extra), -1),
    }
    out = {}
    for name, filled in rubbish.items():
        old = np.asarray(getattr(prompts, name))
        filled = filled.astype(old.dtype)
        for row, length in enumerate(np.asarray(prompts.mask).sum(1)):
            at = slice(s + extra - length, None) if left else slice(0, length)
            filled[row, at] = old[row, :length]
        out[name] = filled
    return prompts.replace(**out)


def longer(rollouts: Rollouts, *, extra: int) -> Rollouts:
    """The completions with `extra` columns of rubbish that their mask leaves out."""
    room = [(0, 0), (0, 0), (0, extra)]
    return rollouts.replace(
        tokens=np.pad(rollouts.tokens, room, constant_values=7),
        mask=np.pad(rollouts.mask, room),
        logps=np.pad(rollouts.logps, room, constant_values=-3.0),
    )


def taken(work: Work, order: np.ndarray) -> tuple[PromptBatch, Rollouts, Signals]:
    """Prompts, rollouts and signals with their prompts in another order."""
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[order], tree)  # noqa: E731
    flat = pick({"task": work.signals.task, "accuracy": work.signals.accuracy, "format": work.signals.format})
    values, mask = work.signals.values[:, order], work.signals.mask[:, order]
    return pick(work.prompts), pick(work.rollouts), Signals(**flat, values=values, mask=mask)


def placed(tree: Any, mesh: jax.sharding.Mesh, *, split: bool) -> Any:
    """Rollouts or signals on the mesh, by prompt, or with the members of each group on different devices."""

    def put(x: np.ndarray, prompts: int) -> jax.Array:
        axis = prompts + 1 if split and x.ndim > prompts + 1 else prompts
        spec = PartitionSpec(*(meshes.BATCH_AXES if i == axis else None for i in range(x.ndim)))
        return jax.device_put(x, NamedSharding(mesh, spec))

    if isinstance(tree, Signals):
        second = {name: put(getattr(tree, name), 1) for name in ("values", "mask")}
        return Signals(**{name: put(getattr(tree, name), 0) for name in ("task", "accuracy", "format")}, **second)
    return jax.tree.map(lambda x: put(np.asarray(x), 0), tree)


# ---------------------------------------------------------------------------------------------------------- one case
@dataclasses.dataclass(frozen=True)
class Result:
    """What a step came to, on the host."""

    loss: float
    gradient: dict[str, np.ndarray]
    lam: np.ndarray
    params: dict[str, np.ndarray]

    def differences(self, plain: Result) -> dict[str, float]:
        """Of each figure, from the plain case."""
        square = lambda tree: sum(float(np.sum(np.square(x, dtype=np.float64))) for x in tree.values())  # noqa: E731
        apart = {name: self.gradient[name] - x for name, x in plain.gradient.items()}
        return {
            "loss": abs(self.loss - plain.loss),
            "gradient": (square(apart) / square(plain.gradient)) ** 0.5,
            "lambda": float(np.max(np.abs(self.lam - plain.lam))),
            "parameters": max(float(np.max(np.abs(self.params[name] - x))) for name, x in plain.params.items()),
        }


def run(work: Work, case: Case) -> Iterator[tuple[str, Result]]:
    """(multipliers by name, what the step came to with them); one program."""
    policy = on_mesh(work.config, case.devices)
    base = setup.learner(work.config, policy)
    learner = dataclasses.replace(base, config=dataclasses.replace(base.config, micro_batches=case.micro_batches))
    order = np.random.default_rng(2).permutation(len(work.prompts.mask)) if case.shuffled else np.arange(32)
    prompts, rollouts, signals = taken(work, order)
    extra = EXTRA if case.padded else 0
    prompts = policy.put(repadded(prompts, extra=extra, left=case.left))
    rollouts = placed(longer(rollouts, extra=extra), policy.mesh, split=case.split)
    signals = placed(signals, policy.mesh, split=case.split)
    for name, lam in MULTIPLIERS.items():
        state = learner.init(policy.load("float32"))
        state = state.replace(lam=jax.device_put(jnp.asarray(lam, jnp.float32), state.lam.sharding))
        reference = learner.reference(state.params)
        state, figures, _ = learner.step(state, reference, prompts, rollouts, signals)
        yield name, _result(learner, state, float(figures["loss/total"]))
    assert learner.step.compilations == 1


def _result(learner: Learner, state: Any, loss: float) -> Result:
    means = optax.tree.get(state.opt_state, "mu")  # of gradients; after one step from 0, (1 − b1) times the gradient
    scale = 1 - learner.config.optimizer.b1
    trainable, _ = optimizer.partition(state.params, learner.config.freeze)
    host = lambda tree: {name: np.asarray(x) for name, x in tree.items()}  # noqa: E731
    gradient = {name: x / scale for name, x in host(means).items()}
    return Result(loss, gradient, np.asarray(state.lam), host(trainable))


# ------------------------------------------------------------------------------------------------ functions in float64
@functools.partial(jax.jit, static_argnames="micro_batches")
def _functions(signals: Signals, lam: jax.Array, logps: Any, mask: jax.Array, *, micro_batches: int) -> dict[str, Any]:
    """Advantages, loss and its gradient, multipliers. logps: learner's, old and reference log-probs [M, G, T]."""
    adv = advantages.combine(signals.task, signals.values, signals.mask, lam).total
    normaliser = losses.count(mask, aggregation="token_mean")
    cut = lambda x: x.reshape(micro_batches, -1, *x.shape[1:])  # noqa: E731

    def loss(new: jax.Array) -> jax.Array:
        total = jnp.zeros((), new.dtype)
        for logp, old, ref, part, keep in zip(*map(cut, (new, *logps[1:], adv, mask)), strict=True):
            known: Any = {"mask": keep, "normaliser": normaliser}
            total += losses.policy_loss(logp, old, advantages=part, dual_clip=3.0, **known)[0]
            apart = losses.kl(logp, ref, mask=keep)
            total += 0.01 * losses.aggregate(apart, keep, aggregation="token_mean", normaliser=normaliser)
        return total

    value, gradient = jax.value_and_grad(loss)(logps[0])
    mean, applicable = multipliers.constraint_means(signals.values, signals.mask)
    rules = {"threshold": 0.9, "direction": 1.0, "lr": 0.05, "lam_max": 5.0, "min_applicable": 8}
    columns: Any = {name: jnp.full(lam.shape, rule) for name, rule in rules.items()}
    new_lam = multipliers.update(lam, mean, applicable, **columns)
    return {"advantages": adv, "loss": value, "gradient": gradient, "lambda": new_lam}


def functions(work: Work, case: Case) -> dict[str, np.ndarray]:
    """The same in float64 laid out as `case` says, in the plain order of prompts and without its padding."""
    order = np.random.default_rng(2).permutation(len(work.prompts.mask)) if case.shuffled else np.arange(32)
    _, rollouts, signals = taken(work, order)
    rng = np.random.default_rng(3)
    old = np.minimum(work.rollouts.logps, -1e-3).astype(np.float64)
    logps = [old + rng.normal(scale=0.3, size=old.shape), old, old + rng.normal(scale=0.3, size=old.shape)]
    room = [(0, 0), (0, 0), (0, EXTRA if case.padded else 0)]
    logps = [np.pad(x[order], room, constant_values=np.nan) for x in logps]
    mask = np.pad(np.asarray(rollouts.mask), room)
    # Quarters add up exactly in any order: a factor that is no power of two makes rounding matter.
    wide = jax.tree.map(lambda x: x.astype(np.float64) * 0.73123 if x.dtype == np.float32 else x, signals)
    mesh = meshes.make_mesh(*MESHES[case.devices], devices=jax.devices()[: case.devices])
    signals, logps, mask = (placed(x, mesh, split=case.split) for x in (wide, logps, mask))
    lam = jnp.asarray(MULTIPLIERS["fgrpo"], jnp.float64)
    found = jax.device_get(_functions(signals, lam, logps, mask, micro_batches=case.micro_batches))
    back = np.argsort(order)
    found["gradient"] = found["gradient"][back][..., : work.rollouts.mask.shape[-1]]
    return found | {"advantages": found["advantages"][back]}


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--hf", type=Path, default=setup.SHIPPED, help="HF folder of the policy (default: %(default)s)")
    out.add_argument("--functions", dest="step", action="store_false", help="the float64 functions alone")
    return out


def main(args: argparse.Namespace) -> None:
    """Runs all cases and prints."""
    work = Work.create(args.hf)
    plain = dict(run(work, Case())) if args.step else {}
    worst: dict[str, float] = {}
    tried = [case for case in cases() if case != Case()]
    for case in tried if args.step else ():
        apart = [result.differences(plain[name]) for name, result in run(work, case)]
        largest = {figure: max(found[figure] for found in apart) for figure in apart[0]}
        print(f"{case}: " + ", ".join(f"{k} {v:.1e}" for k, v in largest.items()), file=sys.stderr, flush=True)
        worst = {figure: max(worst.get(figure, 0.0), value) for figure, value in largest.items()}
    with jax.enable_x64(True):
        exact = functions(work, Case())
        assert all(np.asarray(x).dtype == np.float64 for x in exact.values())
        apart = [{name: np.max(np.abs(x - exact[name])) for name, x in functions(work, case).items()} for case in tried]
    float64 = {name: float(max(found[name] for found in apart)) for name in exact}
    print(json.dumps({"cases": len(tried), "worst": worst, "float64": float64}))


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
