"""Scoring beside the sampler: parts of a batch are judged in threads while further parts of the same batch are drawn.

Results are those of scoring the parts one after another, bit for bit. Whoever submits parts takes all their results
before it learns from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.records import Example, Rollouts, Signals
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.rewards.judges.tally import Tally
from fgrpo_jax.rewards.score import RewardConfig
from fgrpo_jax.rewards.signals import Measure
from fgrpo_jax.training.collect import PROMPT_AXIS

Scored = tuple[Signals, dict[str, np.ndarray]]
Score = Callable[..., Scored]
"""`rewards.score.score`, or what stands in its place."""

THREADS = 4  # parts scored at once; a judge bounds its own requests


class Scorer:
    """Scores parts of batches with one judge; `dialect` is how responses are written.

    Args:
      judges: who judges; closed with the scorer.
      measures: the signals that constraints are put on; None for the paper's three.
      everyone: wrong answers are judged like right ones (evaluation).
    """

    def __init__(
        self,
        config: RewardConfig,
        judges: Dispatcher,
        *,
        measures: Sequence[Measure] | None = None,
        everyone: bool = False,
    ) -> None:
        self.judges, self.dialect, self._custom = judges, config.dialect, config.custom
        self._settings: dict[str, Any] = {"config": config, "judges": judges, "everyone": everyone}
        self._settings |= {} if measures is None else {"measures": measures}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="score") if judges.overlaps else None

    def submit(
        self,
        score: Score,
        examples: Sequence[Example],
        encoded: Sequence[EncodedPrompt],
        texts: Sequence[Sequence[str]],
        rollouts: Rollouts,
        *,
        tally: Tally | None = None,
    ) -> Future[Scored]:
        """Begins to score a part (numpy leaves); a judge that can't run beside the sampler has ended at the return.

        Args:
          tally: where judgements are counted, since parts of two steps may be judged at once; None: the judge's own.
        """
        counting = {} if tally is None else {"judges": dataclasses.replace(self.judges, tally=tally)}
        settings = {
            **self._settings,
            **counting,
            "encoded": encoded,
            "sizes": [prompt.first_size for prompt in encoded],
            "lengths": np.sum(rollouts.mask, axis=-1),
            "finished": np.asarray(rollouts.finished),
        }
        if self._pool is not None:
            return self._pool.submit(score, examples, texts, **settings)
        done: Future[Scored] = Future()
        done.set_result(score(examples, texts, **settings))
        return done

    def close(self) -> None:
        """Ends what is under way and closes the judge."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._custom is not None:
            self._custom.close()
        self.judges.close()


def joined(parts: Sequence[Scored]) -> Scored:
    """The signals and diagnostics of the batch that these are the parts of, in order."""
    if len(parts) == 1:
        return parts[0]
    signals: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part, _ in parts], axis) for name, axis in PROMPT_AXIS.items()
    }
    return Signals(**signals), jax.tree.map(lambda *xs: np.concatenate(xs), *[found for _, found in parts])


def custom_means(diagnostics: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """'reward/custom/NAME' of a step's row: the mean over responses that the user's signal applies to, None of none."""
    found = {name: values for name, values in diagnostics.items() if name.startswith("custom/")}
    return {f"reward/{name}": None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in found.items()}
