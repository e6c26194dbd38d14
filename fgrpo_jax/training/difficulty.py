"""How often a policy is right on each training prompt, and which prompts are worth training on.

W/filter/settings.json       what the accuracies depend on; other settings are refused by name
W/filter/accuracies.jsonl    a line a prompt, appended batch by batch
W/filter/kept.jsonl          the prompts that are kept (`data.sets.subsets`), which training reads
W/filter/summary.json        counts, and the policy that answered
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from fgrpo_jax import rows as files
from fgrpo_jax.config import effects
from fgrpo_jax.config.load import to_dict
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import buckets
from fgrpo_jax.data.pipeline import Batch, Encoder, PromptIterator
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.data.sources import Part, outline
from fgrpo_jax.data.styles import find_style
from fgrpo_jax.reading.dialects import find_dialect
from fgrpo_jax.rewards.judges.dispatch import Dispatcher
from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.rollout.generate import generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rows import Row
from fgrpo_jax.training import setup
from fgrpo_jax.training.collect import everywhere
from fgrpo_jax.training.scoring import Scorer

SETTINGS, ACCURACIES = "settings.json", "accuracies.jsonl"
SHAPES = 4
"""Padded shapes of the batches where the config gives no lengths, each of them one compile."""


def settings(config: Config, data: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """What the accuracies depend on, JSON types."""
    return {"data": dict(data), "weights": weights, **effects.depending(to_dict(config), "filter")}


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """The accuracies of a policy in their folder; `source` are the prompts in the order they are answered in.

    All processes answer; the first alone writes.
    """

    folder: Path
    config: Config
    policy: setup.Policy
    source: Part

    def claim(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Makes the folder this command's own; a ValueError where it holds the accuracies of other settings."""
        stored, process = self.folder / SETTINGS, files.this_process()
        if stored.is_file() and not overwrite:
            what = f"{self.folder} holds the accuracies of other settings"
            remedy = "use another --workdir, the same settings to go on, or --overwrite to start afresh"
            files.require_same(stored, settings, what=what, remedy=remedy)
        files.barrier("filter looked at", process)  # before the first process changes what the others decide by
        if process[0] == 0:
            for name in (ACCURACIES, subsets.KEPT, subsets.SUMMARY) if overwrite else ():
                (self.folder / name).unlink(missing_ok=True)
            files.write_json(stored, settings)
        files.barrier("filter claimed", process)

    def answers(self, params: Callable[[], Any], sampler: Sampler, needs: np.ndarray, encoder: Encoder) -> list[Row]:
        """A row a prompt: those that are in the folder, and then the others, appended batch by batch.

        Args:
          params: called for the parameters, once, and only when something is left to answer.
          needs: int32 [N, 4], what each prompt needs of a batch.
        """
        batches, file = self._batches(needs, encoder), self.folder / ACCURACIES
        first = jax.process_index() == 0
        if first:
            rows = files.resume_rows(file, keep=self._whole_batches)
        else:
            rows = self._whole_batches(files.read_rows(file) if file.is_file() else [])
        done = -(-len(rows) // self.config.data.difficulty.batch_prompts)
        if done == len(batches):
            return rows
        batches.set_state({**batches.get_state(), "batches_taken": done})
        # Accuracy alone is looked at: no model judges, and no function of the user's own is asked.
        dialect = find_dialect(find_style(self.config.data.prompt).dialect)
        rewards = RewardConfig(dialect=dialect, answer=self.config.rewards.answer)
        weights, scorer = sampler.lay_out(params()), Scorer(rewards, Dispatcher(), measures=())
        with tqdm(initial=done, total=len(batches), desc="filter", unit="batch") as bar:
            for batch in batches:
                rows += (more := list(self._answered(weights, sampler, scorer, batch)))
                if first:
                    files.append_rows(file, more)
                bar.update()
                bar.set_postfix(kept=f"{np.mean([_informative(row) for row in rows]):.0%}")
        scorer.close()
        batches.close()
        return rows

    def _whole_batches(self, rows: list[Row]) -> list[Row]:
        """Whole batches alone are kept, so that the same prompts share a batch whenever the command was killed."""
        size = self.config.data.difficulty.batch_prompts
        return rows if len(rows) == len(self.source) else rows[: len(rows) // size * size]

    def _batches(self, needs: np.ndarray, encoder: Encoder) -> PromptIterator:
        config, data = self.config, self.config.data
        once: dict[str, Any] = {"known": needs, "epochs": 1, "remainder": "pad", "workers": data.workers}
        batches = setup.batches(config, self.source, encoder, batch_size=data.difficulty.batch_prompts, **once)
        if not (data.buckets.prompt or data.buckets.patches):
            # Processes must agree on every shape.
            count = 1 if jax.process_count() > 1 else data.buckets.choose or SHAPES
            shapes = buckets.choose(batches.needs(len(batches)), count=count)
            batches.use(dataclasses.replace(setup.buckets(config), shapes=shapes))
        return batches

    def _answered(self, params: Any, sampler: Sampler, scorer: Scorer, batch: Batch) -> Iterator[Row]:
        key: dict[str, Any] = {"seed": self.config.seed, "purpose": "filter", "step": 0}
        decode = setup.decoder(self.config, self.policy)
        drawn = generate(sampler, params, self.policy.put(batch.prompts), decode=decode, **key)
        signals, _ = scorer.submit(score, batch.examples, batch.encoded, drawn.texts, drawn.rollouts).result()
        everyones = np.concatenate(list(everywhere(signals.accuracy)))
        for index, values in zip(batch.indices, everyones, strict=False):  # rows of filling come last
            place = int(self.source.places[index])
            row = subsets.row_of(place, outline(self.source, int(index)))
            yield {**row, "right": [round(float(value), 4) for value in values]}

    def write(self, rows: Sequence[Row], about: Mapping[str, Any]) -> str:
        """Writes kept.jsonl and summary.json; returns the table that is shown."""
        share = self.config.data.difficulty.keep
        rows = sorted(rows, key=lambda row: row["index"])
        kept = [row for row in rows if _informative(row) or chosen(f"{row['source']}/{row['id']}", share)]
        summary = {**about, "rollouts": self.config.data.difficulty.rollouts, "keep": share, **counts(rows, kept)}
        names = ("index", "source", "id", "digest")
        lines = [{**{name: row[name] for name in names}, "accuracy": _mean(row)} for row in kept]
        files.write_rows(self.folder / subsets.KEPT, lines)
        files.write_json(self.folder / subsets.SUMMARY, summary)
        return f"{table(summary)}\n\nread it with --config.data.filter={self.folder.parent}"


def _mean(row: Row) -> float:
    return round(sum(row["right"]) / len(row["right"]), 4)


def _informative(row: Row) -> bool:
    """Neither always right nor always wrong: a group of rollouts has an advantage to learn from."""
    return 0 < _mean(row) < 1


def chosen(name: str, share: float) -> bool:
    """Whether an example is among the `share` that is kept anyway: by its name alone, the same in every run."""
    digest = hashlib.sha256(f"kept/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def counts(rows: Sequence[Row], kept: Sequence[Row]) -> dict[str, Any]:
    """How many of each source, and of all, were tried, always wrong, mixed, always right, kept; and all accuracies."""

    def of(name: str | None) -> dict[str, int]:
        mine = [_mean(row) for row in rows if name in (None, row["source"])]
        return {
            "tried": len(mine),
            "wrong": sum(mean == 0 for mean in mine),
            "mixed": sum(0 < mean < 1 for mean in mine),
            "right": sum(mean == 1 for mean in mine),
            "kept": sum(name in (None, row["source"]) for row in kept),
        }

    accuracies = sorted(collections.Counter(_mean(row) for row in rows).items())
    return {
        "all": of(None),
        "sources": {name: of(name) for name in sorted({row["source"] for row in rows})},
        "accuracies": {f"{value:g}": count for value, count in accuracies},
    }


def table(summary: Mapping[str, Any]) -> str:
    """The counts as lines of text."""
    heads = ("tried", "wrong", "mixed", "right", "kept")
    lines = [f"{'':<24}" + "".join(f"{head:>10}" for head in heads)]
    for name, found in [*summary["sources"].items(), ("all", summary["all"])]:
        lines.append(f"{name:<24}" + "".join(f"{found[head]:>10,}" for head in heads))
    return "\n".join(lines)
