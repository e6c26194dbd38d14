"""Held-out figures of a training run: before it, along the way and after it, and the table of the change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fgrpo_jax.config.sections import Config
from fgrpo_jax.evaluation import answering
from fgrpo_jax.evaluation.answering import Spent
from fgrpo_jax.evaluation.figures import MEANS, means
from fgrpo_jax.evaluation.judged import Answer
from fgrpo_jax.evaluation.significance import paired, table
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rows import read_rows, write_json, write_rows
from fgrpo_jax.training import judges, setup
from fgrpo_jax.training.scoring import Scorer


def evaluate(
    config: Config, policy: setup.Policy, params: Any, sampler: Sampler, *, scorer: Scorer, label: str = "held-out"
) -> list[Answer]:
    """One answer a held-out question of the config's own data, judged; nothing is written."""
    batches = setup.heldout_batches(config, policy)
    found = answering.answer_batches(config, policy, params, sampler, batches, scorer=scorer, spent=Spent())
    with tqdm(found, total=len(batches), desc=label, unit="batch", leave=False) as bar:
        answers = [answer for rows in bar for answer in rows]
    batches.close()
    return answers


class HeldOut:
    """Evaluates the policy of a run on the held-out questions of its data; does nothing where there are none.

    Args:
      shared: the judge of training, who judges here too unless `eval.judge` says otherwise.
    """

    def __init__(self, config: Config, policy: setup.Policy, workdir: Path, *, shared: Dispatcher) -> None:
        self._config, self._policy, self._folder = config, policy, workdir / "eval"
        self._sampler = setup.sampler(config, policy, purpose="eval")
        self._scorer = judges.scorer(config, policy, workdir, purpose="eval", shared=shared)

    def figures(self, params: Any, label: str) -> dict[str, float | None]:
        """The means of the figures, along the way."""
        return means(self._answers(params, label))

    def write(self, when: str, params: Any) -> None:
        """W/eval/WHEN.jsonl with every answer; that of 'before' stays where it is there already."""
        path = self._folder / f"{when}.jsonl"
        if not self._config.eval.examples or (when == "before" and path.exists()):
            return
        began = time.perf_counter()
        answers = self._answers(params, f"held-out {when}")
        write_rows(path, answers)
        figures = {name: value for name, value in means(answers).items() if value is not None}
        shown = "  ".join(f"{name} {100 * value:.1f}%" for name, value in figures.items())
        tqdm.write(f"held-out {when} ({len(answers)} questions, {time.perf_counter() - began:.0f} s): {shown}")

    def report(self) -> None:
        """Prints the figures before and after with paired intervals, and writes them to W/eval/results.json."""
        if not self._config.eval.examples:
            return
        before, after = (read_rows(self._folder / f"{when}.jsonl") for when in ("before", "after"))
        both = list(zip(before, after, strict=True))
        defined = [name for name in MEANS if any(None not in (a[name], b[name]) for a, b in both)]
        rows = [paired(name, before, after) for name in defined]
        figures = {row.name: row.json for row in rows}
        results = {"temperature": self._config.eval.temperature, "figures": figures}
        write_json(self._folder / "results.json", results)
        print(f"\n{table(rows)}\n")

    def close(self) -> None:
        """Closes the judge."""
        self._scorer.close()

    def _answers(self, params: Any, label: str) -> list[Answer]:
        scorer = self._scorer
        answers = evaluate(self._config, self._policy, params, self._sampler, scorer=scorer, label=label)
        scorer.judges.tally.take()  # it may be the judge of training: what it did here is no part of a step
        return answers
