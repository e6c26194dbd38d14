"""The difficulty filter: which training prompts a policy sometimes gets right and sometimes not.

    python -m fgrpo_jax.filter --config=configs/tiny.py --config.data.difficulty.examples=1000 --workdir=runs/filter
    python -m fgrpo_jax.train --config=configs/tiny.py --config.data.filter=runs/filter --workdir=runs/tiny

Every prompt of the training source is answered `data.difficulty.rollouts` times, as training would. Kept are those
with 0 < mean accuracy < 1, and a share `data.difficulty.keep` of the others, chosen by id. Leaves
W/filter/accuracies.jsonl (a line a prompt), kept.jsonl, which training reads, and summary.json. The same command goes
on where a killed one stopped, and comes to the same lists.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from fgrpo_jax import command, evaluate
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import buckets
from fgrpo_jax.data.pipeline import Batch, Encoder, Needs, PromptIterator
from fgrpo_jax.data.sets import subsets
from fgrpo_jax.data.sources import First, Part, Source, outline
from fgrpo_jax.data.steps import by_need
from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.rewards.task import accuracy
from fgrpo_jax.rollout.generate import generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.training import checkpoint, datasets, metrics, selection, setup
from fgrpo_jax.training.collect import everywhere

SETTINGS, ACCURACIES = "settings.json", "accuracies.jsonl"
SHAPES = 4
"""Padded shapes of the batches where the config gives no lengths, each of them one compile."""
TAIL = 1 << 16
"""Bytes at the end of a file of weights that tell it from others of its size."""

Row = dict[str, Any]


def main(args: argparse.Namespace) -> None:
    """Answers what is not answered yet, then writes the lists."""
    config, policy, params, identity = _policy(args)
    meshes.require_divisible(policy.mesh, config__data__difficulty__batch_prompts=config.data.difficulty.batch_prompts)
    whole = datasets.source(config, config.data.train_split)
    tried = _tried(config, whole)
    encoder = setup.encoder(config, policy)
    order, needs, long = _order(config, tried, encoder)
    data = selection.description(config, whole)
    run = Run(args.workdir / "filter", config, policy, Part(tried, order.tolist()))
    run.claim(_settings(config, data, identity["weights"]), overwrite=args.overwrite)
    rows = run.answers(params, setup.sampler(config, policy, purpose="filter"), needs, encoder)
    if jax.process_index() == 0:
        about = {"data": data, "policy": identity, "examples": len(tried), "too_long": long}
        print(run.write(rows, about))


def _policy(args: argparse.Namespace) -> tuple[Config, setup.Policy, Any, dict[str, str]]:
    """(config, policy, parameters, who it is)."""
    if args.hf and args.checkpoint:
        raise ValueError("--hf and --checkpoint both name a policy; give one")
    raw: Any = ml_collections.ConfigDict(args.config)
    if args.hf or args.checkpoint:
        raw.model.hf, raw.model.revision = args.hf or str(checkpoint.hf_folder(args.checkpoint)), args.revision
    config = setup.pinned(configs.load(raw, door="train"), args.workdir, overwrite=True)
    policy = setup.policy(config)
    dtype = config.model.param_dtype
    identity = {"hf": str(args.checkpoint or config.model.hf), "revision": config.model.revision}
    if args.checkpoint:
        params = checkpoint.load_params(args.checkpoint, policy.abstract(dtype))
        folder = checkpoint.resolve(args.checkpoint) / "params"
    else:
        params, folder = policy.load(dtype), policy.folder
    return config, policy, params, {**identity, "weights": weights_digest(folder)}


def weights_digest(folder: Path) -> str:
    """Names the weights in a folder by the names, sizes and ends of its files; reads little of them."""
    total = hashlib.sha256()
    found = sorted(folder.glob("*.safetensors")) or sorted(file for file in folder.rglob("*") if file.is_file())
    for file in found:
        size = file.stat().st_size
        total.update(f"{file.relative_to(folder)} {size}\n".encode())
        with file.open("rb") as handle:
            handle.seek(max(0, size - TAIL))
            total.update(handle.read())
    return total.hexdigest()[:16]


def _tried(config: Config, whole: Source) -> Source:
    first = config.data.difficulty.examples
    if config.data.source == "world" and not first:
        raise ValueError(
            "the built-in world has no end; say how many of its examples are tried: "
            "--config.data.difficulty.examples=1000"
        )
    return First(whole, first) if first else whole


def _order(config: Config, source: Source, encoder: Encoder) -> tuple[np.ndarray, np.ndarray, int]:
    """(places in the source, the largest prompts first; int32 [N, 4] what each needs; how many are too long).

    So batches hold what is alike, and what does not fit into memory shows at once.
    """
    if config.data.source == "world":
        need = Needs(source, encoder)
        bar = tqdm(range(len(source)), desc="measuring prompts", unit="prompt", leave=False)
        known = np.array([dataclasses.astuple(need(index)) for index in bar], np.int32)
    else:
        known = selection.needs(config, source, encoder)
    indices = np.arange(len(source))
    if config.data.overlong == "drop":
        indices = selection.short(known, indices, config.data.max_prompt_tokens)
    order = indices[by_need([buckets.Shape(*map(int, known[index])) for index in indices])[::-1]]
    return order, known[order], len(source) - len(indices)


def _settings(config: Config, data: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """What the accuracies depend on, JSON types."""
    shown = ("prompt", "min_pixels", "max_pixels", "max_prompt_tokens", "overlong")
    difficulty = dataclasses.asdict(config.data.difficulty)
    difficulty.pop("keep")  # read when all are answered
    settings = {
        "data": data,
        "shown": {name: getattr(config.data, name) for name in shown},
        "buckets": {name: getattr(config.data.buckets, name) for name in ("prompt", "patches", "choose")},
        "difficulty": difficulty,
        "rollout": {
            name: value
            for name, value in dataclasses.asdict(config.rollout).items()
            if not name.startswith("logp") and name not in ("group_size", "batch_prompts")
        },
        "model": {name: getattr(config.model, name) for name in ("param_dtype", "compute_dtype")},
        "seed": config.seed,
        "weights": weights,
    }
    return json.loads(json.dumps(settings))


@dataclasses.dataclass(frozen=True)
class Run:
    """The filter in its folder; `source` are the prompts in the order they are answered in."""

    folder: Path
    config: Config
    policy: setup.Policy
    source: Part

    def claim(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Makes the folder this run's own.

        Raises:
          ValueError: it holds the accuracies of other settings.
        """
        stored = self.folder / SETTINGS
        if overwrite and jax.process_index() == 0:
            for name in (SETTINGS, ACCURACIES, subsets.KEPT, subsets.SUMMARY):
                (self.folder / name).unlink(missing_ok=True)
        if stored.is_file():
            lines = checkpoint.differences(json.loads(stored.read_text(encoding="utf8")), settings)
            if lines:
                shown = "\n  ".join(lines[:12])
                raise ValueError(
                    f"{self.folder} holds the accuracies of other settings:\n  {shown}\n"
                    "use another --workdir, the same settings to go on, or --overwrite to start afresh"
                )
        elif jax.process_index() == 0:
            evaluate.write_atomically(stored, json.dumps(settings, indent=1) + "\n")

    def answers(self, params: Any, sampler: Sampler, needs: np.ndarray, encoder: Encoder) -> list[Row]:
        """A row a prompt: those that are in the folder, and then the others, appended batch by batch."""
        batches = self._batches(needs, encoder)
        # Whole batches alone are kept, so that the same prompts share a batch whenever the run was killed.
        file, size = self.folder / ACCURACIES, self.config.data.difficulty.batch_prompts
        rows = metrics.read_jsonl(file) if file.is_file() else []
        if len(rows) < len(self.source):
            rows = rows[: len(rows) // size * size]
        done = -(-len(rows) // size)
        batches.set_state({**batches.get_state(), "batches_taken": done})
        if jax.process_index() == 0:
            evaluate.write_atomically(file, "".join(_line(row) for row in rows))
        known: dict[str, Any] = {"initial": done, "total": len(batches), "desc": "filter", "unit": "batch"}
        with tqdm(**known, disable=done == len(batches)) as bar:
            for batch in batches:
                rows += (more := list(self._answered(params, sampler, batch)))
                if jax.process_index() == 0:
                    with file.open("a", encoding="utf8") as out:
                        out.write("".join(map(_line, more)))
                bar.update()
                bar.set_postfix(kept=f"{np.mean([_informative(row) for row in rows]):.0%}")
        batches.close()
        return rows

    def _batches(self, needs: np.ndarray, encoder: Encoder) -> PromptIterator:
        config = self.config
        padded = setup.buckets(config)
        batches = PromptIterator(
            self.source,
            encoder,
            batch_size=config.data.difficulty.batch_prompts,
            known=needs,
            epochs=1,
            remainder="pad",
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=config.data.workers,
        )
        given = config.data.buckets
        if not (given.prompt or given.patches):
            count = 1 if jax.process_count() > 1 else given.choose or SHAPES  # processes must agree on every shape
            shapes = buckets.choose(batches.needs(len(batches)), count=count)
            padded = dataclasses.replace(padded, shapes=shapes)
        batches.use(padded)
        return batches

    def _answered(self, params: Any, sampler: Sampler, batch: Batch) -> Iterator[Row]:
        drawn = generate(
            sampler,
            params,
            self.policy.put(batch.prompts),
            decode=setup.decoder(self.config, self.policy),
            seed=self.config.seed,
            purpose="filter",
            step=0,
        )
        right = [
            [accuracy(parse(text), example) for text in texts]
            for example, texts in zip(batch.examples, drawn.texts, strict=True)
        ]
        everyones = np.concatenate(list(everywhere(np.array(right, np.float32))))
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
        lines = [
            {**{name: row[name] for name in ("index", "source", "id", "digest")}, "accuracy": _mean(row)}
            for row in kept
        ]
        evaluate.write_atomically(self.folder / subsets.KEPT, "".join(map(_line, lines)))
        evaluate.write_atomically(
            self.folder / subsets.SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        )
        return f"{table(summary)}\n\nread it with --config.data.filter={self.folder.parent}"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


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
    """Of each source, and of all: how many were tried, always wrong, mixed, always right and kept; and the histogram of
    mean accuracies."""

    def of(name: str | None) -> dict[str, int]:
        mine = [_mean(row) for row in rows if name in (None, row["source"])]
        return {
            "tried": len(mine),
            "wrong": sum(mean == 0 for mean in mine),
            "mixed": sum(0 < mean < 1 for mean in mine),
            "right": sum(mean == 1 for mean in mine),
            "kept": sum(name in (None, row["source"]) for row in kept),
        }

    histogram = collections.Counter(_mean(row) for row in rows)
    names = sorted({row["source"] for row in rows})
    return {
        "all": of(None),
        "sources": {name: of(name) for name in names},
        "accuracies": {f"{value:g}": histogram[value] for value in sorted(histogram)},
    }


def table(summary: Mapping[str, Any]) -> str:
    """The counts as lines of text."""
    heads = ("tried", "wrong", "mixed", "right", "kept")
    lines = [f"{'':<24}" + "".join(f"{head:>10}" for head in heads)]
    for name, found in [*summary["sources"].items(), ("all", summary["all"])]:
        lines.append(f"{name:<24}" + "".join(f"{found[head]:>10,}" for head in heads))
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Flags of this door."""
    out = command.parser(__doc__, config=True, workdir=True)
    command.add_policy(out)
    out.add_argument("--checkpoint", type=Path, help="a policy as a checkpoint: one, or a run's folder for its newest")
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
