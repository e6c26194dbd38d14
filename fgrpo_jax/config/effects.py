"""What a change of a field may change: one table for every comparison of two configs.

A run may be resumed, its answers gone on with, its filter's list used, when no field on which they depend differs.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Literal

from fgrpo_jax.rows import leaves

Effect = Literal["steps", "traces", "answers", "filter", "data"]
"""What may depend on a field.

steps: what a training step computes. traces: what a step of supervised training computes. answers: those of an
evaluation, and judgements of them. filter: accuracies that `filter` measures. data: which training examples there are,
wherever they lie and however they are shown.
"""

STEPS, TRACES, ANSWERS, FILTER, DATA = "steps", "traces", "answers", "filter", "data"

_OF_AN_ENDPOINT = ("url", "key_env", "connect_timeout", "timeout", "deadline", "retries", "backoff")
_OF_AN_ENDPOINT = ("concurrency", "server.requests_per_minute", *(f"server.{name}" for name in _OF_AN_ENDPOINT))
_OF_A_JUDGE = ("max_failure_rate", "min_failures", "window", "cache", *_OF_AN_ENDPOINT)
"""Settings on which no verdict depends."""

TABLE: tuple[tuple[str, tuple[Effect, ...]], ...] = (
    ("*", (STEPS,)),
    ("seed", (STEPS, TRACES, FILTER)),
    ("model.*", (STEPS, TRACES)),  # which policy it is, evaluation and filter tell by its weights
    ("model.attention", ()),  # the same sums on the same numbers, as on another mesh
    ("model.freeze", (STEPS,)),
    ("model.lora.*", (STEPS,)),
    ("model.*_dtype", (STEPS, TRACES, ANSWERS, FILTER)),
    ("data.*", (STEPS, TRACES, ANSWERS, DATA)),
    ("data.path", ()),  # where a thing lies is not what it is
    ("data.images", ()),
    ("data.workers", ()),
    ("data.length_cache", ()),
    ("data.filter", ()),  # a checkpoint has the digest of the list itself
    ("data.train_split", (STEPS, TRACES, DATA)),
    ("data.eval_split", (STEPS, ANSWERS)),
    ("data.prompts_per_step", (STEPS,)),
    ("data.bad", (STEPS, TRACES, ANSWERS)),
    ("data.prompt", (STEPS, TRACES, ANSWERS, FILTER)),
    ("data.m??_pixels", (STEPS, TRACES, ANSWERS, FILTER)),
    ("data.max_prompt_tokens", (STEPS, TRACES, ANSWERS, FILTER)),
    ("data.overlong", (STEPS, TRACES, FILTER)),
    ("data.mix.*.path", ()),
    ("data.mix.*.images", ()),
    ("data.buckets.*", (STEPS, TRACES)),
    ("data.buckets.prompt", (STEPS, TRACES, FILTER)),
    ("data.buckets.patches", (STEPS, TRACES, FILTER)),
    ("data.buckets.choose", (STEPS, TRACES, FILTER)),
    ("data.buckets.precompile", ()),
    ("data.difficulty.*", (FILTER,)),
    ("data.difficulty.keep", ()),  # read when all prompts are answered
    ("data.world.flaw*", (STEPS, TRACES, ANSWERS)),  # of traces, which prompts do not hold
    ("rollout.*", (STEPS, ANSWERS, FILTER)),
    ("rollout.group_size", (STEPS,)),
    ("rollout.temperature", (STEPS, FILTER)),
    ("rollout.batch_prompts", (STEPS,)),
    ("rollout.compact", ()),
    ("rollout.ahead", (STEPS,)),
    ("rollout.logp_*", (STEPS,)),
    ("rewards.*", (STEPS, ANSWERS)),
    ("rewards.answer", (STEPS, ANSWERS, FILTER)),
    ("rewards.custom_*", ()),  # how functions are called, not what they return
    ("judge.*", (STEPS,)),
    *((f"judge.{name}", ()) for name in _OF_A_JUDGE),
    ("mesh.*", ()),
    ("eval.*", (STEPS, ANSWERS)),
    ("eval.examples", (STEPS,)),
    ("eval.every", ()),
    ("eval.batch_prompts", (STEPS,)),
    ("eval.sets", ()),
    ("eval.root", ()),
    ("eval.paths.*", ()),
    ("eval.limit", ()),
    ("eval.resamples", ()),
    *((f"eval.judge.{name}", ()) for name in _OF_A_JUDGE),
    *((f"eval.extractor.{name}", ()) for name in _OF_AN_ENDPOINT),
    ("checkpoint.*", ()),
    ("log.*", ()),
    ("optim.*", (STEPS, TRACES)),
    *((f"optim.{name}", (STEPS,)) for name in ("name", "learning_rate", "schedule", "warmup_updates", "weight_decay")),
    ("optim.clip_norm", (STEPS,)),
    ("optim.max_skipped", (STEPS,)),
    ("sft.*", (TRACES,)),
)
"""Field, as a pattern, and what a change of it may change. The last pattern that fits a field counts."""


def effects(path: str) -> tuple[Effect, ...]:
    """What a change of the field may change; `path` is dotted, without 'config.'."""
    return next(effects for pattern, effects in reversed(TABLE) if fnmatch.fnmatchcase(path, pattern))


def depending(config: Mapping[str, Any], effect: Effect) -> dict[str, Any]:
    """{dotted path: value} of the fields of a resolved config (`load.to_dict`) that such a thing depends on."""
    return {path: value for path, value in leaves(config).items() if effect in effects(path)}


def resume_free(config: Mapping[str, Any], *, steps: Effect = STEPS) -> Callable[[str], bool]:
    """Whether a field may differ when a run of this resolved config is resumed, since no step depends on it.

    `num_steps` may where the learning rate does not depend on it.

    Args:
      steps: of which kind of run: 'steps', or 'traces' for supervised training.
    """
    steady = config["optim"]["schedule"] == "constant"
    return lambda path: steps not in effects(path) or (path == "num_steps" and steady)
