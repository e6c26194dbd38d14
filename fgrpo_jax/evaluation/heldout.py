"""Held-out figures of a training run: before it, along the way and after it."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from fgrpo_jax.config import load as configs
from fgrpo_jax.evaluation.answering import Spent, answer_batches
from fgrpo_jax.evaluation.judged import Answer
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.training import setup
from fgrpo_jax.training.scoring import Scorer


def evaluate(
    config: configs.Config,
    policy: setup.Policy,
    params: Any,
    sampler: Sampler,
    *,
    scorer: Scorer,
    label: str = "held-out",
) -> list[Answer]:
    """One answer a held-out question of the config's own data, judged; nothing is written."""
    batches = setup.heldout_batches(config, policy)
    found = answer_batches(config, policy, params, sampler, batches, scorer=scorer, spent=Spent())
    with tqdm(found, total=len(batches), desc=label, unit="batch", leave=False) as bar:
        answers = [answer for rows in bar for answer in rows]
    batches.close()
    return answers
