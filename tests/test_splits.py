"""One learner step under every way of splitting and laying out its work, against the plain one.

The same 32 prompts of the built-in world with 4 rollouts each, the same rewards (made up, with dead groups and masked
entries) and multipliers, and one optimiser update. Factors: micro-batches {1, 2, 4, 8}; devices {1, 2, 8}; padding of
prompts and completions (none, more); side of the prompts' padding; order of the prompts; group members on one device or
split over several. All twelve pairs of micro-batches and devices are tried, the other factors dealt over them so that
every pair of settings stands together somewhere; then each of these alone. λ is an input: each case runs once with λ
in force (FGRPO) and once with λ = 0 (GRPO), by the same program.

Advantages, losses and multipliers alone are computed in float64 besides, by their own functions, in all the same cases.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import policies
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.fgrpo import advantages, losses, multipliers, optimizer
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.records import PromptBatch, Rollouts, Signals
from fgrpo_jax.training import setup

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")

BOUNDS = {"loss": 1e-6, "gradient": 1e-5, "lambda": 1e-6, "parameters": 5e-6}
"""Absolute, but for the gradient (of its norm); parameters after one update at a learning rate of 1e-5."""

MESHES = {1: (1, 1, 1), 2: (2, 1, 1), 8: (2, 2, 2)}
"""data × fsdp × tensor of each number of devices."""

MULTIPLIERS = {"fgrpo": (0.8, 1.7, 0.3), "grpo": (0.0, 0.0, 0.0)}
EXTRA = 24
"""Columns of padding more, of prompts and of completions."""

SETTINGS: dict[str, Any] = {
    "data__prompts_per_step": 32,
    "rollout__batch_prompts": 32,
    "rollout__max_new_tokens": 16,
    "algorithm__micro_batch_prompts": 32,
    "algorithm__updates_per_batch": 1,
    "optim__learning_rate": 1e-5,
    "optim__schedule": "constant",
    "optim__clip_norm": 1e9,  # the first moment is then the gradient, but for a factor
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
    def create(cls) -> Work:
        config = policies.config(setup.model_folder(setup.SHIPPED), **SETTINGS)
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
    return policies.policy(config, meshes.make_mesh(*MESHES[devices], devices=jax.devices()[:devices]))


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
    learner = dataclasses.replace(
        base, config=policies.altered(base.config, prompts=32, micro_batches=case.micro_batches)
    )
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
    scale = 1 - learner.config.rule.settings.b1
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


# --------------------------------------------------------------------------------------------------------------- tests
@pytest.fixture(scope="module")
def work() -> Work:
    return Work.create()


TRIED = [case for case in cases() if case != Case()]


def noted(apart: list[dict[str, float]], note: Callable[[str, object], None]) -> dict[str, float]:
    """The worst of each figure, which goes into the test's report."""
    worst = {name: float(max(found[name] for found in apart)) for name in apart[0]}
    for name, value in worst.items():
        note(name, f"{value:.1e}")
    return worst


@pytest.mark.slow
def test_no_split_or_layout_changes_the_step(work: Work, record_property: Callable[[str, object], None]) -> None:
    plain = dict(run(work, Case()))
    apart = [result.differences(plain[name]) for case in TRIED for name, result in run(work, case)]
    worst = noted(apart, record_property)
    assert len(TRIED) >= 20 and all(worst[name] <= bound for name, bound in BOUNDS.items()), worst


@pytest.mark.slow
def test_its_functions_agree_in_float64(work: Work, record_property: Callable[[str, object], None]) -> None:
    with jax.enable_x64(True):
        exact = functions(work, Case())
        assert all(np.asarray(x).dtype == np.float64 for x in exact.values())
        apart = [{name: np.max(np.abs(x - exact[name])) for name, x in functions(work, case).items()} for case in TRIED]
    worst = noted(apart, record_property)
    assert max(worst.values()) <= 1e-10, worst
