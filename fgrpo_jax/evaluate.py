"""Held-out figures of a policy: accuracy, format, consistency, semantic and spatial grounding.

    python -m fgrpo_jax.evaluate --config=configs/tiny.py --workdir=runs/eval [--hf=DIR_OR_ID | --checkpoint=C]

Without --hf and --checkpoint it evaluates the config's own starting policy. Leaves W/eval/SET.jsonl, a line a question
with the whole answer, and W/eval/results.json; prints the means. Figures are over all answers, right or wrong (training
masks some): a figure that is undefined for an answer is null and out of its mean.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from tqdm import tqdm

from fgrpo_jax import checkpoint, doors, scoring, setup
from fgrpo_jax import config as configs
from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.pipeline import Batch
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.rollout.sampler import Sampler

FIGURES = ("accuracy", "format", "consistency", "semantic_grounding", "spatial_grounding", "box_iou")
"""What is averaged, each in [0, 1]; the inconsistency rate is 1 − consistency."""

Answer = dict[str, Any]


def main(args: argparse.Namespace) -> None:
    """Evaluates one policy and writes what it answered."""
    if args.hf and args.checkpoint:
        raise ValueError("--hf and --checkpoint both name a policy; give one")
    raw: Any = ml_collections.ConfigDict(args.config)
    if args.hf or args.checkpoint:
        raw.model.hf, raw.model.revision = args.hf or str(checkpoint.hf_folder(args.checkpoint)), args.revision
    config = setup.pinned(configs.load(raw, door="evaluate"), args.workdir, overwrite=True)  # no run to go on with
    policy = setup.policy(config)
    scorer = setup.scorer(config, args.workdir, purpose="eval")
    meshes.require_divisible(policy.mesh, config__eval__batch_prompts=config.eval.batch_prompts)
    if args.checkpoint:
        params = checkpoint.load_params(args.checkpoint, policy.abstract(config.model.param_dtype))
    else:
        params = policy.load(config.model.param_dtype)
    sampler = setup.sampler(config, policy, purpose="eval")
    with contextlib.closing(scorer):
        answers = evaluate(config, policy, params, sampler, scorer=scorer)
    name = f"{config.data.source}-{config.data.eval_split}"
    write_answers(args.workdir / "eval" / f"{name}.jsonl", answers)
    results = {"set": name, "questions": len(answers), "temperature": config.eval.temperature, **means(answers)}
    results |= {"policy": str(args.checkpoint or config.model.hf), "revision": config.model.revision}
    write_atomically(args.workdir / "eval" / "results.json", json.dumps(results, indent=1) + "\n")
    for figure, value in means(answers).items():
        print(f"{figure:<22}{'–' if value is None else f'{100 * value:.1f}%':>8}")


def evaluate(
    config: configs.Config,
    policy: setup.Policy,
    params: Any,
    sampler: Sampler,
    *,
    scorer: scoring.Scorer,
    label: str = "held-out",
) -> list[Answer]:
    """One answer a held-out question, judged.

    The noise is keyed by `eval.seed` and the question alone, so two policies are compared on the same questions under
    the same draws, and differences are paired.
    """
    answers: list[Answer] = []
    waiting: collections.deque[tuple[Batch, Generation, Future[scoring.Scored]]] = collections.deque()

    def finish(left: int) -> None:
        while len(waiting) > left:
            batch, drawn, scored = waiting.popleft()
            signals, seen = scored.result()
            answers.extend(
                _answer(batch.examples[row], drawn.texts[row][0], signals, seen, row) for row in range(batch.count)
            )

    batches = setup.heldout_batches(config, policy)
    with tqdm(batches, total=len(batches), desc=label, unit="batch", leave=False) as bar:
        for batch in bar:
            drawn = generate(
                sampler,
                params,
                policy.put(batch.prompts),
                decode=policy.processor.decode,
                seed=config.eval.seed,
                purpose="eval",
                step=0,
            )
            # Judged while the next batches are drawn; only so many that their images do not fill the memory.
            scored = scorer.submit(score, batch.examples, batch.encoded, drawn.texts, drawn.rollouts)
            waiting.append((batch, drawn, scored))
            finish(left=scoring.THREADS)
    finish(left=0)
    batches.close()
    return answers


def _answer(example: Any, text: str, signals: Any, seen: dict[str, np.ndarray], row: int) -> Answer:
    def defined(name: str, mask: str) -> float | None:
        return float(seen[name][row, 0]) if seen[mask][row, 0] else None

    return {
        "id": example.id,
        "question": example.question,
        "options": list(example.options),
        "gold": example.answer,
        "text": text,
        "answered": bool(seen["answered"][row, 0]),
        "accuracy": float(signals.accuracy[row, 0]),
        "format": float(signals.format[row, 0]),
        "consistency": defined("consistent", "consistent_mask"),
        "semantic_grounding": defined("semantic", "semantic_mask"),
        "spatial_grounding": defined("spatial", "spatial_mask"),
        "box_iou": defined("iou", "spatial_mask"),
    }


def means(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Mean of each figure over the answers where it is defined; None where it is for none."""
    out: dict[str, float | None] = {}
    for name in FIGURES:
        values = [answer[name] for answer in answers if answer[name] is not None]
        out[name] = float(np.mean(values)) if values else None
    return out


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """One JSON object a line."""
    write_atomically(path, "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers))


def write_atomically(path: Path, text: str) -> None:
    """Writes beside the place, then renames: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf8")
    beside.replace(path)


def parser() -> argparse.ArgumentParser:
    """Flags of this door."""
    out = doors.parser(__doc__, config=True)
    out.add_argument("--workdir", required=True, type=Path, help="folder for answers and results")
    doors.add_policy(out)
    out.add_argument("--checkpoint", type=Path, help="a policy as a checkpoint: one, or a run's folder for its newest")
    return out


if __name__ == "__main__":
    raise SystemExit(doors.run(main, parser()))
