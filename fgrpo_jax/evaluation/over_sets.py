"""Evaluating one policy over the sets of a config, and what is reported of it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from fgrpo_jax import __version__
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.data.styles import find_style
from fgrpo_jax.evaluation import answering, paper, results, tables
from fgrpo_jax.evaluation.answering import Spent
from fgrpo_jax.evaluation.results import SetResult
from fgrpo_jax.rows import write_json
from fgrpo_jax.training import datasets, judges, setup
from fgrpo_jax.training.policy import Named


def evaluate(args: argparse.Namespace) -> None:
    """Evaluates one policy and writes what it answered."""
    if (args.workdir / "eval" / "before.jsonl").exists() or (args.workdir / "metrics.jsonl").exists():
        raise ValueError(
            f"{args.workdir} is the workdir of a training run, whose held-out results would be overwritten; give "
            "another --workdir"
        )
    named = Named.of(args, door="evaluate")
    config, policy, folder = named.config, named.policy, args.workdir / "eval"
    meshes.require_divisible(policy.mesh, config__eval__batch_prompts=config.eval.batch_prompts)
    sets = datasets.heldout_sets(config)
    for name, source in sets.items():
        first = setup.heldout_batches(config, policy, source=source).try_first()
        notice = judges.masked_by_rules(config.eval_judge, first.examples, at="config.eval.judge")
        if notice and jax.process_index() == 0:
            print(f"{name}: {notice}")
    sampler, found = setup.sampler(config, policy, purpose="eval"), []
    with contextlib.ExitStack() as stack:
        scorer = stack.enter_context(contextlib.closing(judges.scorer(config, policy, args.workdir, purpose="eval")))
        extractor = judges.extractor(config)
        if extractor is not None:
            stack.enter_context(contextlib.closing(extractor))
        for name, source in sets.items():
            spent = Spent()
            file = answering.answers_on_file(config, name, folder=folder, policy=named.identity)
            work: dict[str, Any] = {"scorer": scorer, "spent": spent, "extractor": extractor}
            answers = answering.answer_set(config, policy, lambda: named.params, sampler, source, file, **work)
            found.append(results.of_set(name, answers, resamples=config.eval.resamples))
            tqdm.write(f"{name}: {spent.line()}")
    if jax.process_index() == 0:
        who = {"extractor": extractor.about if extractor else {"backend": "rules"}, "judge": scorer.judges.about}
        report(folder, found, protocol(config, named.identity, **who))


# ----------------------------------------------------------------------------------------------------- what is reported
def protocol(config: configs.Config, named: Mapping[str, Any], **who: Mapping[str, str]) -> dict[str, Any]:
    """What moves scores, as it stands in every result file; `who` reads answers and judges."""
    style = find_style(config.data.prompt)
    sampling = {name: getattr(config.rollout, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    return {
        "policy": dict(named),
        "prompt": config.data.prompt,
        "prefill": style.prefill,
        "dialect": style.dialect,
        "pixels": {"min": config.data.min_pixels, "max": config.data.max_pixels},
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_new_tokens": setup.eval_window(config),
        "temperature": config.eval.temperature,
        "sampling": {**sampling, "seed": config.eval.seed},
        "compute_dtype": config.model.compute_dtype,
        "param_dtype": config.model.param_dtype,
        **{name: dict(about) for name, about in who.items()},
        "resamples": config.eval.resamples,
        "version": __version__,
    }


def report(folder: Path, found: Sequence[SetResult], settings: Mapping[str, Any]) -> None:
    """Writes results.json, .md and .tex, and prints the tables."""
    write_json(folder / "results.json", results.to_json(found, settings))
    summary = tables.summary(found, label="this run")
    broken_down = [grid for result in found if (grid := tables.groups(result))]
    first = [*([summary] if len(found) > 1 or len(summary.body) > 1 else []), *tables.by_set({"this run": found})]
    grids = [*first, *map(tables.details, found), *broken_down]
    notes = [*tables.notes(found, settings), *([paper.about()] if len(summary.body) > len(found) else [])]
    tables.write(folder, "results", grids, notes)
    tables.show(grids if len(found) == 1 else first, notes)
    print(f"answers, results.json, results.md and results.tex are in {folder}")
