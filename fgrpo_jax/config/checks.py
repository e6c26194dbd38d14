"""What the algorithm's settings may not be together: constraints, rewards, sampling, losses. `config.load` asks these.

Each takes checked sections and raises a ValueError that names the fields, their values and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgrpo_jax.config.schema import nearest
from fgrpo_jax.rewards.custom import Custom, resolve
from fgrpo_jax.rewards.signals import SIGNALS, Signal

if TYPE_CHECKING:
    from fgrpo_jax.config.sections import Config, ConstraintSection


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


def check_signals(config: Config) -> None:
    """Rewards by weight, and the settings of the signals they need."""
    rewards, fields, known = config.rewards, ("accuracy", "format"), signals(config)
    for name, weight in rewards.weights.items():
        if name in fields:
            raise ValueError(f"config.rewards.weights.{name} has a field of its own; set config.rewards.{name}_weight")
        if name not in known:
            raise ValueError(f"config.rewards.weights.{name}={weight}: unknown signal; {nearest(name, known)}")
    wanted = {name for name, weight in rewards.weights.items() if weight} | {c.signal for c in config.constraints}
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


def check_selection(config: Config) -> None:
    """Which training examples there are, and how they are put together."""
    data = config.data
    lists = data.buckets
    if lists.group > 1 and (lists.choose == 1 or (len(lists.prompt) == 1 and len(lists.patches) == 1)):
        raise ValueError(
            f"config.data.buckets.group={lists.group} puts prompts of one size together, but there is one shape of "
            "batches; set group=0, or choose several shapes (data.buckets.choose=4)"
        )
    if data.source == "world" and data.overlong == "drop":
        raise ValueError(
            "config.data.overlong='drop' measures every prompt before the run, and the built-in world has no end; set "
            "overlong='error' and raise max_prompt_tokens"
        )


def check_constraint(constraint: ConstraintSection, signals: Mapping[str, Signal]) -> None:
    at, signal = f"config.constraints.{constraint.name}", signals[constraint.signal]
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
            f"{at}: mean {constraint.direction} {constraint.threshold} cannot be met, '{constraint.signal}' lies in "
            f"[{signal.low}, {signal.high}]; change the threshold"
        )


def check_sampling(config: Config) -> None:
    """Tokens must come from the learner's own distribution, or their weights must say how they did."""
    rollout, corrected = config.rollout, config.algorithm.importance_cap is not None
    if not corrected and (rollout.top_p < 1.0 or rollout.top_k > 0):
        raise ValueError(
            f"training samples from the full distribution, got top_p={rollout.top_p}, top_k={rollout.top_k}: truncated "
            "log-probs are not the learner's; set top_p=1.0 and top_k=0 (evaluation may truncate), or correct for them "
            "with config.algorithm.importance_cap"
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


def check_algorithm(config: Config) -> None:
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
            if name not in {c.signal for c in config.constraints}:
                raise ValueError(
                    f"{at}.aggregation='{algorithm.aggregation}' needs the signal '{name}'; keep a constraint on it"
                )
    weights = [algorithm.task_weight, *(c.weight for c in config.constraints if c.enabled)]
    if algorithm.aggregation == "gdpo" and not any(weights):
        raise ValueError(f"{at}.aggregation='gdpo' with every weight 0; set task_weight or a constraint's weight")
