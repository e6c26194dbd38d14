"""What must not be combined in a config: algorithm, constraints, rewards, sampling, batches, what is trained.

`check` asks all of it. Each function takes the whole config, or checked sections, and raises a ValueError that names
the fields, their values and the remedy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fgrpo_jax.config.data_checks import check_data
from fgrpo_jax.config.judge_checks import check_judges
from fgrpo_jax.config.schema import nearest
from fgrpo_jax.config.sections import Config
from fgrpo_jax.fgrpo.settings import Constraint
from fgrpo_jax.rewards.custom import Custom, resolve
from fgrpo_jax.rewards.signals import SIGNALS, Signal


def check(config: Config, *, door: str) -> None:
    """Everything; training is refused more than evaluation is."""
    check_data(config)
    _check_batches(config)
    _check_guards(config)
    check_judges(config)
    if door == "evaluate":
        return
    _check_masters(config, door)
    freeze = config.model.freeze if door == "train" else config.sft.freeze
    if any(rule in ("*", "**") for rule in freeze):
        raise ValueError(f"freeze rules {list(freeze)} leave nothing to train; remove '*' or '**'")
    if door == "train":
        _check_learning(config)


def refuse_moved(raw: Mapping[str, Any]) -> None:
    """A field of earlier versions is named with the one that took its place."""
    if isinstance(rewards := raw.get("rewards"), Mapping) and "judge" in rewards:
        raise ValueError(
            f"config.rewards.judge={rewards['judge']!r} has moved: set config.judge.backend to the same value "
            "(rules | none | local | server; docs/judges.md)"
        )


def named_constraint(name: str, fields: Any, signals: Collection[str]) -> dict[str, Any]:
    """The section of one constraint with its name, when what it bounds is a signal."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"config.constraints.{name} must be a section with fields, got {fields!r}")
    bounded = fields.get("signal", name) or name
    if bounded not in signals:
        own = f"unknown constraint 'config.constraints.{name}': there is no signal of that name"
        what = own if bounded == name else f"config.constraints.{name}.signal='{bounded}' is no signal"
        raise ValueError(f"{what}; {nearest(str(bounded), signals)} (fgrpo_jax/rewards/signals.py lists them)")
    return {**fields, "name": name}


def signal_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that a config not yet checked may give as signals: the built-in ones and its own."""
    rewards = raw.get("rewards")
    own = rewards.get("custom") if isinstance(rewards, Mapping) else None
    return (*SIGNALS, *(map(str, own) if isinstance(own, Mapping) else ()))


def custom(config: Config) -> tuple[Custom, ...]:
    """The functions that the config names; ValueError when one is not there or can't be called."""
    return tuple(resolve(name, path) for name, path in config.rewards.custom.items())


def signals(config: Config) -> Mapping[str, Signal]:
    """All signals of a config: the built-in ones, and those of functions that it names."""
    return SIGNALS | {one.name: one.signal for one in custom(config)}


def _check_signals(config: Config) -> None:
    """Rewards by weight, and the settings of the signals they need."""
    rewards, fields, known = config.rewards, ("accuracy", "format"), signals(config)
    for name, weight in rewards.weights.items():
        if name in fields:
            raise ValueError(f"config.rewards.weights.{name} has a field of its own; set config.rewards.{name}_weight")
        if name not in known:
            raise ValueError(f"config.rewards.weights.{name}={weight}: unknown signal; {nearest(name, known)}")
    wanted = {name for name, weight in rewards.weights.items() if weight} | {c.measured for c in config.constraints}
    if unread := set(rewards.custom) - wanted:
        name = min(unread)
        raise ValueError(
            f"config.rewards.custom.{name}={rewards.custom[name]!r} is read by nothing; give it a weight in "
            "config.rewards.weights, put a constraint on it, or drop it"
        )
    if "overlong" in wanted and rewards.overlong_cache == 0:
        raise ValueError(
            "the signal 'overlong' is 0 throughout with config.rewards.overlong_cache=0; set it to the number of "
            "tokens over which the penalty grows"
        )
    if rewards.overlong_cache > config.rollout.max_new_tokens:
        raise ValueError(
            f"config.rewards.overlong_cache={rewards.overlong_cache} exceeds config.rollout.max_new_tokens="
            f"{config.rollout.max_new_tokens}; lower it"
        )


def _check_constraint(constraint: Constraint, signals: Mapping[str, Signal]) -> None:
    at, signal = f"config.constraints.{constraint.name}", signals[constraint.measured]
    if constraint.init > constraint.max:
        raise ValueError(f"{at}.init={constraint.init} exceeds max={constraint.max}; lower init")
    if constraint.init < constraint.min:
        raise ValueError(f"{at}.init={constraint.init} is below min={constraint.min}; raise init")
    if constraint.rule == "exponential" and constraint.init == 0:
        raise ValueError(f"{at}.init=0 stays 0 under rule='exponential', which multiplies; use a positive init")
    if constraint.rule != "pid" and (constraint.kp or constraint.kd):
        raise ValueError(
            f"{at}.kp={constraint.kp} and kd={constraint.kd} are gains of rule='pid', not of '{constraint.rule}'; "
            "set them to 0 or rule='pid'"
        )
    beyond = constraint.threshold > signal.high if constraint.sign > 0 else constraint.threshold < signal.low
    if beyond:
        raise ValueError(
            f"{at}: mean {constraint.direction} {constraint.threshold} cannot be met, '{constraint.measured}' lies in "
            f"[{signal.low}, {signal.high}]; change the threshold"
        )


def _check_sampling(config: Config) -> None:
    """Tokens must come from the learner's own distribution, or their weights must say how they did."""
    rollout, corrected = config.rollout, config.algorithm.importance_cap is not None
    if not corrected and (rollout.top_p < 1.0 or rollout.top_k > 0):
        raise ValueError(
            f"training samples from the full distribution, got top_p={rollout.top_p}, top_k={rollout.top_k}: truncated "
            "log-probs are not the learner's; set top_p=1.0 and top_k=0 (evaluation may truncate), or correct for them "
            "with config.algorithm.importance_cap"
        )
    if rollout.ahead and not corrected:
        raise ValueError(
            "config.rollout.ahead=1 draws with the policy of the step before, which the learner must correct for; set "
            "config.algorithm.importance_cap (2.0, say) or rollout.ahead=0"
        )
    if rollout.ahead and config.algorithm.filter_dead:
        raise ValueError(
            "config.rollout.ahead=1 draws the next prompts before it is known how many of them this step takes under "
            "config.algorithm.filter_dead=True; use one of the two"
        )
    others = {"min_p": 0.0, "repetition_penalty": 1.0, "min_new_tokens": 0}
    for name, neutral in others.items():
        if name == "min_p" and corrected:
            continue
        if (value := getattr(rollout, name)) != neutral:
            raise ValueError(
                f"training samples from the policy's own distribution, got config.rollout.{name}={value}, under which "
                f"log-probs are not the learner's; set {name}={neutral} (evaluation may use it)"
            )


def _check_algorithm(config: Config) -> None:
    """Aggregation, KL, and what would be undone or never read."""
    algorithm, at = config.algorithm, "config.algorithm"
    if algorithm.normalise_lambda and (algorithm.whiten != "none" or algorithm.aggregation != "fgrpo"):
        raise ValueError(
            f"{at}.normalise_lambda divides Eq. 6 by 1 + Σλ, which whiten='{algorithm.whiten}' would undo and "
            f"aggregation='{algorithm.aggregation}' may not have; set whiten='none' and aggregation='fgrpo'"
        )
    if algorithm.kl_in == "reward" and (algorithm.kl_coef == 0 or algorithm.kl_estimator != "k1"):
        raise ValueError(
            f"{at}.kl_in='reward' takes kl_coef·Σ k1 off the reward, got kl_coef={algorithm.kl_coef} and kl_estimator="
            f"'{algorithm.kl_estimator}'; use kl_estimator='k1' (the others' gradients are made for the loss) and a "
            "positive kl_coef, or kl_in='loss'"
        )
    if algorithm.filter_dead and algorithm.max_resample == 0:
        raise ValueError(f"{at}.filter_dead=True with max_resample=0 draws nothing anew; allow at least one round")
    if algorithm.aggregation in ("additive", "multiplicative"):
        for name in ("consistency", "spatial_grounding"):
            if name not in {c.measured for c in config.constraints}:
                raise ValueError(
                    f"{at}.aggregation='{algorithm.aggregation}' needs the signal '{name}'; keep a constraint on it"
                )
    weights = [algorithm.task_weight, *(c.weight for c in config.constraints if c.enabled)]
    if algorithm.aggregation == "gdpo" and not any(weights):
        raise ValueError(f"{at}.aggregation='gdpo' with every weight 0; set task_weight or a constraint's weight")


def _divides(small: int, large: int, what: str, whole: str, remedy: str) -> None:
    if large % small:
        raise ValueError(f"{what}={small} does not divide {whole}={large}; {remedy}")


def _check_batches(config: Config) -> None:
    prompts, algorithm = config.data.prompts_per_step, config.algorithm
    whole = "config.data.prompts_per_step"
    updates = algorithm.updates_per_batch
    _divides(config.rollout.batch_prompts, prompts, "config.rollout.batch_prompts", whole, "use one of its divisors")
    _divides(updates, prompts, "config.algorithm.updates_per_batch", whole, "every update takes an equal share")
    _divides(config.sft.micro_batch, config.sft.batch, "config.sft.micro_batch", "config.sft.batch", "use a divisor")


def _check_guards(config: Config) -> None:
    rollout = config.rollout
    for kind, warn, stop in (
        ("max", rollout.logp_max_warn, rollout.logp_max_stop),
        ("mean", rollout.logp_mean_warn, rollout.logp_mean_stop),
    ):
        if warn > stop:
            raise ValueError(f"config.rollout.logp_{kind}_warn={warn} exceeds logp_{kind}_stop={stop}; lower it")
    if rollout.min_new_tokens > rollout.max_new_tokens:
        raise ValueError(
            f"config.rollout.min_new_tokens={rollout.min_new_tokens} exceeds max_new_tokens={rollout.max_new_tokens}; "
            "lower it"
        )
    if not all(rollout.stop):
        raise ValueError(f"config.rollout.stop={list(rollout.stop)} holds an empty text; drop it")
    for name in ("data", "fsdp", "tensor"):
        size = getattr(config.mesh, name)
        if size < 1 and size != -1:
            raise ValueError(f"config.mesh.{name}={size}; use a positive size, or -1 on one axis for the rest")


def _check_masters(config: Config, door: str) -> None:
    """That no update is lost in the rounding of what holds the weights, and what adapters go with."""
    model, optim, adapters = config.model, config.optim, config.model.lora.rank > 0
    if model.param_dtype != "float32" and not (optim.compensated or adapters):
        # Measured: 20 AdamW steps at lr 1e-6 change 2% of N(0, 0.02) bfloat16 weights; the others round back.
        raise ValueError(
            "config.model.param_dtype='bfloat16' loses small updates (it keeps 8 bits); set optim.compensated=True, or "
            "train with float32 masters (param_dtype='float32') and compute_dtype='bfloat16' for speed"
        )
    if optim.compensated and (model.param_dtype == "float32" or adapters):
        what = "adapters" if adapters else "weights"
        raise ValueError(f"config.optim.compensated=True is for bfloat16 weights, these {what} are float32; drop it")
    if adapters and door == "sft":
        raise ValueError(f"config.model.lora.rank={model.lora.rank}: supervised training trains weights; set rank=0")
    every = config.algorithm.reference_every
    if every and (adapters or not config.algorithm.kl_coef):
        why = "adapters stay near their base" if adapters else "kl_coef=0 has no reference"
        raise ValueError(f"config.algorithm.reference_every={every}, but {why}; set reference_every=0")


def _check_learning(config: Config) -> None:
    rewards, optim = config.rewards, config.optim
    _check_sampling(config)
    _check_algorithm(config)
    if rewards.accuracy_weight + rewards.format_weight == 0:
        raise ValueError(
            "config.rewards.accuracy_weight and format_weight are both 0: there is no task reward; set one"
        )
    _check_signals(config)
    known = signals(config)
    for constraint in config.constraints:
        _check_constraint(constraint, known)
    total = config.num_steps * config.algorithm.updates_per_batch
    if optim.schedule != "constant" and optim.warmup_updates >= total:
        raise ValueError(
            f"config.optim.warmup_updates={optim.warmup_updates} leaves nothing of the {total} updates to a "
            f"'{optim.schedule}' schedule; lower it or use schedule='constant'"
        )
