"""From responses to signals: every reward and constraint of a rollout batch, with the masks of the method.

| signal | value | applicable when |
|---|---|---|
| task | accuracy_weight · R_acc + format_weight · R_fmt | always |
| consistency | 1 if the reasoning entails the answer | R_acc > 0, and the judge did not abstain |
| semantic_grounding | CORRECT / (CORRECT + INCORRECT) sentences | R_acc > 0, known scene, ≥ 1 scored sentence |
| spatial_grounding | CIoU under the best assignment | the example has gold boxes |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data.images import convert_box
from fgrpo_jax.records import Box, Example, ImageSize, Signals
from fgrpo_jax.rewards import task
from fgrpo_jax.rewards.grounding import MAPPINGS, mean_iou, spatial
from fgrpo_jax.rewards.judges.rules import RulesJudge
from fgrpo_jax.rewards.parsing import Parsed, answer_index, parse
from fgrpo_jax.rewards.verdict import Verdict

CONSTRAINTS = ("consistency", "semantic_grounding", "spatial_grounding")


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Settings of the rewards.

    Attributes:
      accuracy_weight, format_weight: R_task = accuracy_weight · R_acc + format_weight · R_fmt.
      judge: 'rules', or 'none' for no semantic judge (R_S masked throughout).
      ciou_mapping: 'clamp' or 'shift', see grounding.pair_score.
      dedupe_boxes: whether a box predicted twice counts once in N of Eq. 1.
      no_claim: R_S of a right answer whose reasoning makes no scored claim: 'masked', or 'zero'.
      box_iou_correct: IoU from which the rules judge calls a claimed box correct.
      prefilled: the prompt ends in '<think>', so responses start inside the block.

    Raises:
      ValueError: a value that is none of those named.
    """

    accuracy_weight: float = 0.5
    format_weight: float = 0.5
    judge: str = "rules"
    ciou_mapping: str = "clamp"
    dedupe_boxes: bool = False
    no_claim: str = "masked"
    box_iou_correct: float = 0.5
    prefilled: bool = False

    def __post_init__(self) -> None:
        choices = {"judge": ("rules", "none"), "ciou_mapping": MAPPINGS, "no_claim": ("masked", "zero")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}; known: {known}")


@dataclasses.dataclass(frozen=True)
class Judged:
    """All there is to know about one response. NaN stands for 'not applicable' and becomes a mask in arrays.

    Attributes:
      accuracy, format, task: R_acc, R_fmt, R_task.
      consistent: 1 or 0 whatever the answer; NaN when the judge abstains.
      semantic: share of correct among scored sentences whatever the answer; NaN without judge or scored sentence.
      spatial, iou: R_G, and the same with plain IoU; NaN without gold boxes.
      judged: a semantic judge looked at the response.
      verdicts: one a sentence, () when not judged.
      unread: sentences that could not be read.
      answered: an answer could be read.
      abstained: the consistency judge had nothing to go by (a failed judgement: masked and counted, never 0).
      malformed: <bbox> tags without a box.
    """

    accuracy: float
    format: float
    task: float
    consistent: float
    semantic: float
    spatial: float
    iou: float
    judged: bool
    verdicts: tuple[Verdict, ...]
    unread: int
    answered: bool
    abstained: bool
    malformed: int


def judge_one(example: Example, text: str, size: ImageSize, *, config: RewardConfig) -> Judged:
    """Judges one response to an example whose first image has this size."""
    parsed = parse(text, prefilled=config.prefilled)
    judge = RulesJudge(box_iou_correct=config.box_iou_correct)
    accuracy, formatted = task.accuracy(parsed, example), task.format_score(parsed)
    verdict = judge.consistency(example, parsed)
    abstained = judge.abstains(example, verdict)
    judged = config.judge == "rules" and example.scene is not None
    verdicts = tuple(judge.semantic(example, parsed, size=size)) if judged else ()
    grounding, iou = _spatial(example, parsed, size, config)
    return Judged(
        accuracy=accuracy,
        format=formatted,
        task=config.accuracy_weight * accuracy + config.format_weight * formatted,
        consistent=float("nan") if abstained else float(verdict is Verdict.YES),
        semantic=_share(verdicts),
        spatial=grounding,
        iou=iou,
        judged=judged,
        verdicts=verdicts,
        unread=judge.unread(parsed) if judged else 0,
        answered=answer_index(parsed, example.options) is not None if example.options else parsed.answer is not None,
        abstained=abstained,
        malformed=parsed.malformed,
    )


def _spatial(example: Example, parsed: Parsed, size: ImageSize, config: RewardConfig) -> tuple[float, float]:
    """(R_G, mean IoU) in the processed frame, which is the one the policy speaks."""
    if not example.boxes:
        return float("nan"), float("nan")
    gold: list[Box] = [convert_box(box, size, src="original", dst="processed") for box in example.boxes]
    value = spatial(parsed.boxes, gold, mapping=config.ciou_mapping, dedupe=config.dedupe_boxes)
    return value, mean_iou(parsed.boxes, gold, dedupe=config.dedupe_boxes)


def _share(verdicts: Sequence[Verdict]) -> float:
    right, wrong = verdicts.count(Verdict.CORRECT), verdicts.count(Verdict.INCORRECT)
    return right / (right + wrong) if right + wrong else float("nan")


def score(
    examples: Sequence[Example],
    texts: Sequence[Sequence[str]],
    *,
    sizes: Sequence[ImageSize],
    config: RewardConfig,
    constraint_names: Sequence[str] = CONSTRAINTS,
) -> tuple[Signals, dict[str, np.ndarray]]:
    """Signals of M prompts with G responses each.

    Args:
      examples: M examples.
      texts: M lists of G responses, decoded without special tokens.
      sizes: M sizes of `examples[m].images[0]`.
      config: reward settings.
      constraint_names: which constraints, in the order of the leading axis of `values` and `mask`.

    Returns:
      Signals with numpy leaves, and diagnostics: float32 [M, G] 'consistent', 'semantic', 'spatial', 'iou' of *all*
      responses, right or wrong (0 where bool [M, G] 'consistent_mask', 'semantic_mask', 'spatial_mask' is False); bool
      [M, G] 'answered', 'no_claim' (a judged reasoning without a scored claim); int32 [M, G] 'sentences', 'skipped',
      'incorrect', 'unread', 'malformed', 'judge_failed'.

    Raises:
      ValueError: lengths that differ, an unknown constraint, or an example without a valid answer.
    """
    unknown = [name for name in constraint_names if name not in CONSTRAINTS]
    if unknown:
        raise ValueError(f"unknown constraints {unknown}; known: {CONSTRAINTS}")
    groups = {len(group) for group in texts}
    if not len(examples) == len(texts) == len(sizes) or len(groups) > 1:
        raise ValueError(
            f"{len(examples)} examples, {len(texts)} groups of {sorted(groups)} texts, {len(sizes)} sizes: "
            "need as many of each, and groups of one size"
        )
    judged = [
        [judge_one(example, text, size, config=config) for text in group]
        for example, group, size in zip(examples, texts, sizes, strict=True)
    ]
    figures = _diagnostics(judged)
    accuracy = _array(judged, "accuracy")
    values, mask = _constraints(judged, accuracy > 0, figures, config)
    order = [CONSTRAINTS.index(name) for name in constraint_names]
    leaves: dict[str, Any] = {name: _array(judged, name) for name in ("task", "format")}
    leaves |= {"accuracy": accuracy, "values": values[order], "mask": mask[order]}
    return Signals(**leaves), figures


def _array(judged: Sequence[Sequence[Judged]], name: str) -> np.ndarray:
    """float32 [M, G] of one attribute."""
    shape = (len(judged), len(judged[0]) if judged else 0)
    return np.array([[getattr(one, name) for one in group] for group in judged], dtype=np.float32).reshape(shape)


def _constraints(
    judged: Sequence[Sequence[Judged]], right: np.ndarray, figures: dict[str, np.ndarray], config: RewardConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(values float32 [3, M, G], mask bool [3, M, G]) in the order of CONSTRAINTS; values are 0 where masked."""
    semantic_mask = figures["semantic_mask"]
    if config.no_claim == "zero":
        semantic_mask = semantic_mask | figures["no_claim"]
    mask = np.stack([right & figures["consistent_mask"], right & semantic_mask, figures["spatial_mask"]])
    values = np.stack([figures["consistent"], figures["semantic"], figures["spatial"]])
    return np.where(mask, values, np.float32(0)), mask


def _diagnostics(judged: Sequence[Sequence[Judged]]) -> dict[str, np.ndarray]:
    figures: dict[str, np.ndarray] = {}
    for name in ("consistent", "semantic", "spatial", "iou"):
        values = _array(judged, name)
        figures[name] = np.nan_to_num(values, nan=0.0)
        if name != "iou":
            figures[f"{name}_mask"] = ~np.isnan(values)
    figures["answered"] = _array(judged, "answered").astype(bool)
    figures["no_claim"] = _array(judged, "judged").astype(bool) & ~figures["semantic_mask"]
    shape = figures["answered"].shape
    for name, of in _COUNTS.items():
        figures[name] = np.array([[of(one) for one in group] for group in judged], dtype=np.int32).reshape(shape)
    return figures


_COUNTS = {
    "sentences": lambda one: len(one.verdicts),
    "skipped": lambda one: one.verdicts.count(Verdict.SKIP),
    "incorrect": lambda one: one.verdicts.count(Verdict.INCORRECT),
    "unread": lambda one: one.unread,
    "malformed": lambda one: one.malformed,
    "judge_failed": lambda one: int(one.abstained),
}
