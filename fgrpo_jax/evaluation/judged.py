"""A judged answer as a row of W/eval/SET.jsonl: what was asked, said, read and judged (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.config import load as configs
from fgrpo_jax.data.pipeline import Batch
from fgrpo_jax.data.styles import LETTERS, find_style
from fgrpo_jax.reading.answers import same_answer
from fgrpo_jax.reading.dialects import find_dialect
from fgrpo_jax.reading.parsing import Parsed, answer_index, answer_text, parse
from fgrpo_jax.records import Example, Signals
from fgrpo_jax.rewards.judges.extraction import Extracted, Extractor
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rewards.task import gold_index
from fgrpo_jax.rollout.generate import Generation
from fgrpo_jax.training.scoring import Scored

Answer = dict[str, Any]


def judged_answers(config: configs.Config, batch: Batch, drawn: Generation, scored: Scored) -> list[Answer]:
    """The rows of a batch's real prompts."""
    signals, diagnostics = scored
    dialect = find_dialect(find_style(config.data.prompt).dialect)
    out = []
    for row in range(batch.count):
        example, text = batch.examples[row], drawn.texts[row][0]
        parsed = parse(text, dialect=dialect)
        by_rules = _read(example, parsed)
        answer = {
            "id": example.id,
            "source": example.source,
            "tags": dict(example.tags),
            "question": example.question,
            "options": list(example.options),
            "gold": example.answer,
            "text": text,
            "read": by_rules,
            **_judged(signals, diagnostics, row),
            "tokens": int(drawn.rollouts.mask[row, 0].sum()),
            "truncated": float(not drawn.rollouts.finished[row, 0]),
            "words": len(parsed.think.split()),
        }
        if "extracted" in diagnostics:
            answer |= _extracted(example, diagnostics["extracted"][row, 0], by_rules)
        out.append(answer)
    return out


def _read(example: Example, parsed: Parsed) -> str | None:
    """What the answer was read as: the letter of an option, or the text of an open answer; None for nothing."""
    if not example.options:
        return answer_text(parsed)
    chosen = answer_index(parsed, example.options)
    return None if chosen is None else LETTERS[chosen]


def read_by(
    extractor: Extractor, examples: Sequence[Example], texts: Sequence[Sequence[str]], **settings: Any
) -> Scored:
    """`score` with what the extractor read besides, in diagnostics 'extracted', [M, 1] of `Extracted`."""
    signals, diagnostics = score(examples, texts, **settings)
    read = np.empty((len(texts), 1), object)
    read[:, 0] = extractor(examples, [group[0] for group in texts])
    return signals, diagnostics | {"extracted": read}


def _extracted(example: Example, extracted: Extracted, by_rules: str | None) -> Answer:
    """What the extractor changes of an answer; where it failed, rules have read it, and that is counted."""
    if extracted.error:
        return {"read_by_rules": by_rules, "extractor_failed": 1}
    read = extracted.read
    if example.options:
        right = read == LETTERS[gold_index(example)]
    else:
        right = read is not None and same_answer(read, example.answer)
    known = {"read": read, "answered": read is not None, "accuracy": float(right)}
    return {**known, "read_by_rules": by_rules, "extractor_failed": 0}


def _judged(signals: Signals, diagnostics: Mapping[str, np.ndarray], row: int) -> Answer:
    of = {name: values[row, 0] for name, values in diagnostics.items()}
    defined = lambda name, mask: float(of[name]) if of[mask] else None  # noqa: E731
    return {
        "answered": bool(of["answered"]),
        "accuracy": float(signals.accuracy[row, 0]),
        "format": float(signals.format[row, 0]),
        "consistency": defined("consistent", "consistent_mask"),
        "semantic_grounding": defined("semantic", "semantic_mask"),
        "spatial_grounding": defined("spatial", "spatial_mask"),
        "box_iou": defined("iou", "spatial_mask"),
        "judge_failed": int(of["judge_failed"]),
        "judge_abstained": int(of["judge_abstained"]),
    }
