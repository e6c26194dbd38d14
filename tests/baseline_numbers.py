"""What each baseline of docs/method.md must change, and its advantages on a fixed batch in plain numpy.

`mixed` goes the whole way a run goes: the baseline's file, the config's checks, `setup.learner`, its `mix`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from checks import runs

from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.fgrpo import multipliers
from fgrpo_jax.fgrpo.learner import Learner
from fgrpo_jax.records import Signals
from fgrpo_jax.rows import differences as differences_of
from fgrpo_jax.training import setup

FOLDER = runs.CONFIGS / "baselines"
BASES: Mapping[str, list[str]] = {"tiny": [], "qwen3b": ["--config.data.path=somewhere"]}
M, G, C = 6, 5, 3
EACH = ("consistency", "semantic_grounding", "spatial_grounding")


def every(*lines: str) -> set[str]:
    return {f"constraints.{name}.{line}" for name in EACH for line in lines}


def without(kept: str) -> set[str]:
    return {f"constraints.{name}.enabled: True → False" for name in EACH if name != kept}


GRPO = "algorithm.aggregation: fgrpo → grpo"
DIFFERENCES: dict[str, set[str]] = {
    "grpo_t": {GRPO},
    "additive": {"algorithm.aggregation: fgrpo → additive"},
    "multiplicative": {"algorithm.aggregation: fgrpo → multiplicative"},
    "gdpo": {"algorithm.aggregation: fgrpo → gdpo", "algorithm.whiten: live → all"},
    "fixed_lambda": every("lr: 0.05 → 0.0"),
    "consistency_only": without("consistency"),
    "semantic_only": without("semantic_grounding"),
    "spatial_only": without("spatial_grounding"),
    "dr_grpo": {
        *(GRPO, "algorithm.std: True → False", "algorithm.whiten: live → none"),
        "algorithm.loss_aggregation: token_mean → constant",
    },
    "dapo": {
        *(GRPO, "algorithm.filter_dead: False → True", "algorithm.kl_coef: 0.01 → 0.0"),
        *("rewards.weights.overlong: absent → 1.0", "rewards.overlong_cache: 0 → "),
    },
    "exponential": every("rule: linear → exponential"),
    "pid": every("rule: linear → pid", "kp: 0.0 → 1.0", "kd: 0.0 → 1.0"),
    "safe_rlhf": {"algorithm.normalise_lambda: False → True", "algorithm.whiten: live → none"},
}


def load(name: str, base: str, *overrides: str) -> configs.Config:
    """A baseline on a base; '' for the base itself."""
    file = f"{FOLDER / name}.py:{base}" if name else f"{runs.CONFIGS / base}.py"
    raw: Any = files.load_config(file, [*BASES[base], *overrides])
    return configs.load(raw)


def differences(name: str, base: str) -> set[str]:
    """'field: before → after' of all that the baseline changes."""
    return set(differences_of(configs.to_dict(load("", base)), configs.to_dict(load(name, base))))


def expected(name: str, base: str) -> set[str]:
    """What it is to change; DAPO's penalty grows over a fifth of the base's window."""
    fifth = load("", base).rollout.max_new_tokens // 5
    return {f"{line}{fifth}" if line.endswith("→ ") else line for line in DIFFERENCES[name]}


# ------------------------------------------------------------------------------------------- their advantages, by hand
def make_signals() -> Any:
    """Levels as rewards have them; group 2 is dead in everything, group 4 in the task alone."""
    rng = np.random.default_rng(3)
    levels = lambda *shape: (rng.integers(0, 5, size=shape) / 4).astype(np.float32)  # noqa: E731
    accuracy, form = (rng.random((2, M, G)) < 0.6).astype(np.float32)
    values, mask = levels(C, M, G), rng.random((C, M, G)) < 0.8
    mask[:2] &= accuracy > 0
    accuracy[[2, 4]], form[[2, 4]], values[:, 2], mask[:, 2] = 1, 1, np.float32(0.7), True
    task = (np.float32(0.5) * accuracy + np.float32(0.5) * form).astype(np.float32)
    leaves: dict[str, Any] = {"task": task, "accuracy": accuracy, "format": form}
    leaves |= {"values": np.where(mask, values, 0), "mask": mask}
    return Signals(**leaves)


SIGNALS = make_signals()
ALL = np.ones((M, G), bool)


def normalise(values: np.ndarray, mask: np.ndarray = ALL, *, std: bool = True) -> np.ndarray:
    out = np.zeros((M, G))
    for row in range(M):
        kept = values[row][mask[row]].astype(np.float64)
        if len(kept) >= 2 and kept.max() != kept.min():
            centred = kept - kept.mean()
            out[row, mask[row]] = centred / (kept.std(ddof=1) + 1e-6) if std else centred
    return out


def whiten(mixed: np.ndarray, *, every: bool = False) -> np.ndarray:
    counted = every | (mixed != 0).any(axis=1)
    return mixed / np.sqrt((mixed[counted] ** 2).mean())


def constraint(k: int) -> np.ndarray:
    return normalise(SIGNALS.values[k], SIGNALS.mask[k])


def eq6(lam: tuple[float, ...]) -> np.ndarray:
    return normalise(SIGNALS.task) + sum(weight * constraint(k) for k, weight in enumerate(lam))


S = SIGNALS
REFERENCE: dict[str, Callable[[], np.ndarray]] = {
    "grpo_t": lambda: whiten(normalise(S.task)),
    "additive": lambda: whiten(
        normalise((S.accuracy + S.accuracy * S.values[0] + S.format * S.values[2]).astype(np.float64) / 3)
    ),
    "multiplicative": lambda: whiten(
        normalise((0.5 * S.accuracy * S.values[0] + 0.5 * S.format * S.values[2]).astype(np.float64))
    ),
    "gdpo": lambda: whiten(eq6((1, 1, 1)), every=True),
    "fixed_lambda": lambda: whiten(eq6((1, 1, 1))),
    "consistency_only": lambda: whiten(eq6((1, 0, 0))),
    "semantic_only": lambda: whiten(eq6((0, 1, 0))),
    "spatial_only": lambda: whiten(eq6((0, 0, 1))),
    "dr_grpo": lambda: normalise(S.task, std=False),
    "dapo": lambda: whiten(normalise(S.task)),
    "exponential": lambda: whiten(eq6((1, 1, 1))),
    "pid": lambda: whiten(eq6((1, 1, 1))),
    "safe_rlhf": lambda: eq6((1, 1, 1)) / 4,
}


def learner(name: str, policy: setup.Policy, **fields: Any) -> Learner:
    """Of the baseline's own file, on configs/tiny.py; '' for tiny itself, '__' in a field stands for '.'."""
    values = {"model.hf": policy.folder} | {key.replace("__", "."): value for key, value in fields.items()}
    return setup.learner(load(name, "tiny", *runs.overrides(values)), policy)


TOKENS = np.random.default_rng(7).integers(1, 40, size=(M, G)).astype(np.int32)
TOKENS[0, 1] = 0  # a truncated rollout that the overlong mask takes out


def masked_whiten(mixed: np.ndarray) -> np.ndarray:
    """What verl/utils/torch_functional.py of volcengine/verl computes: each token has the advantage of its rollout."""
    values = np.repeat(mixed.ravel(), TOKENS.ravel())
    return (mixed - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-8) * (TOKENS > 0)


def mixed(learner: Learner, lam: Any = None) -> np.ndarray:
    """[M, G], the advantages of the fixed batch under `lam`, the initial multipliers by default."""
    lam = multipliers.start(learner.config.constraints)[0] if lam is None else jnp.asarray(lam, jnp.float32)
    signals = jax.tree.map(jnp.asarray, SIGNALS)
    return np.asarray(jax.jit(lambda s, x: learner.mix(s, x, tokens=jnp.asarray(TOKENS)).total)(signals, lam))
