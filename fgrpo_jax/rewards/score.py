"""From responses to signals: every reward and constraint of a rollout batch, with the masks of the method.

| signal | value | applicable when |
|---|---|---|
| task | accuracy_weight · R_acc + format_weight · R_fmt + Σ weight · signal (0 where it does not apply) | always |
| consistency | 1 if the reasoning entails the answer | R_acc > 0, and the judge did not abstain |
| semantic_grounding | CORRECT / (CORRECT + INCORRECT) sentences | R_acc > 0, known scene, ≥ 1 scored sentence |
| spatial_grounding | CIoU under the best assignment | the example has gold boxes |

and whatever else `fgrpo_jax.rewards.signals` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data.images import convert_box
from fgrpo_jax.records import Box, Example, ImageSize, Signals
from fgrpo_jax.rewards import task
from fgrpo_jax.rewards.grounding import MAPPINGS, mean_iou, spatial
from fgrpo_jax.rewards.judges.rules import RulesJudge
from fgrpo_jax.rewards.parsing import Parsed, answer_index, parse
from fgrpo_jax.rewards.signals import NAN, SIGNALS, Judged, Measure, overlong_penalty
from fgrpo_jax.rewards.verdict import Verdict

CONSTRAINTS = ("consistency", "semantic_grounding", "spatial_grounding")
"""The paper's three."""

MEASURES = tuple(Measure(name) for name in CONSTRAINTS)


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Settings of the rewards.

    Attributes:
      accuracy_weight, format_weight: R_task = accuracy_weight · R_acc + format_weight · R_fmt, plus
      weights: signal → its weight in R_task; where the signal does not apply it adds 0.
      judge: 'rules', or 'none' for no semantic judge (R_S masked throughout).
      ciou_mapping: 'clamp' or 'shift', see grounding.pair_score.
      dedupe_boxes: whether a box predicted twice counts once in N of Eq. 1.
      no_claim: R_S of a right answer whose reasoning makes no scored claim: 'masked', or 'zero'.
      box_iou_correct: IoU from which the rules judge calls a claimed box correct.
      prefilled: the prompt ends in '<think>', so responses start inside the block.
      window, overlong_cache: most tokens of a response, and over how many of them the signal 'overlong' falls to −1.

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
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    window: int = 0
    overlong_cache: int = 0

    def __post_init__(self) -> None:
        _require_known(self.weights, "rewards")
        choices = {"judge": ("rules", "none"), "ciou_mapping": MAPPINGS, "no_claim": ("masked", "zero")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}; known: {known}")


def judge_one(
    example: Example,
    text: str,
    size: ImageSize,
    *,
    config: RewardConfig,
    length: float = NAN,
    finished: bool | None = None,
) -> Judged:
    """Judges one response to an example whose first image has this size.

    Args:
      length, finished: tokens of the response, EOS included, and whether it ended by itself; left out when unknown.
    """
    parsed = parse(text, prefilled=config.prefilled)
    judge = RulesJudge(box_iou_correct=config.box_iou_correct)
    accuracy, formatted = task.accuracy(parsed, example), task.format_score(parsed)
    verdict = judge.consistency(example, parsed)
    abstained = judge.abstains(example, verdict)
    judged = config.judge == "rules" and example.scene is not None
    verdicts = tuple(judge.semantic(example, parsed, size=size)) if judged else ()
    grounding, iou = _spatial(example, parsed, size, config)
    semantic = _share(verdicts)
    silent = judged and semantic != semantic and config.no_claim == "zero"
    out = Judged(
        accuracy=accuracy,
        format=formatted,
        task=config.accuracy_weight * accuracy + config.format_weight * formatted,
        consistent=NAN if abstained else float(verdict is Verdict.YES),
        semantic=semantic,
        grounded=0.0 if silent else semantic,
        spatial=grounding,
        iou=iou,
        judged=judged,
        verdicts=verdicts,
        unread=judge.unread(parsed) if judged else 0,
        answered=answer_index(parsed, example.options) is not None if example.options else parsed.answer is not None,
        abstained=abstained,
        malformed=parsed.malformed,
        boxes=len(parsed.boxes),
        words=len(parsed.think.split()),
        length=length,
        truncated=NAN if finished is None else float(not finished),
        overlong=overlong_penalty(length, window=config.window, cache=config.overlong_cache),
    )
    return dataclasses.replace(out, task=out.task + _weighed(out, config.weights)) if config.weights else out


def _weighed(judged: Judged, weights: Mapping[str, float]) -> float:
    """Σ weight · signal over the signals that apply; those masked to right answers count 0 for wrong ones."""
    total = 0.0
    for name, weight in weights.items():
        value, signal = SIGNALS[name].read(judged), SIGNALS[name]
        if value == value and (judged.accuracy > 0 or not signal.correct_only):
            total += weight * value
    return total


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
    measures: Sequence[Measure] = MEASURES,
    lengths: np.ndarray | None = None,
    finished: np.ndarray | None = None,
) -> tuple[Signals, dict[str, np.ndarray]]:
    """Signals of M prompts with G responses each.

    Args:
      examples: M examples.
      texts: M lists of G responses, decoded without special tokens.
      sizes: M sizes of `examples[m].images[0]`.
      config: reward settings.
      measures: the signals that constraints are put on, in the order of the leading axis of `values` and `mask`.
      lengths: int [M, G] tokens of each response, EOS included; without, what depends on it does not apply.
      finished: bool [M, G], ended by itself; likewise.

    Returns:
      Signals with numpy leaves, and diagnostics: float32 [M, G] 'consistent', 'semantic', 'spatial', 'iou' of *all*
      responses, right or wrong (0 where bool [M, G] 'consistent_mask', 'semantic_mask', 'spatial_mask' is False); bool
      [M, G] 'answered', 'no_claim' (a judged reasoning without a scored claim); int32 [M, G] 'sentences', 'skipped',
      'incorrect', 'unread', 'malformed', 'judge_failed'.

    Raises:
      ValueError: lengths that differ, an unknown signal, or an example without a valid answer.
    """
    _require_known([measure.signal for measure in measures], "constraints")
    groups = {len(group) for group in texts}
    if not len(examples) == len(texts) == len(sizes) or len(groups) > 1:
        raise ValueError(
            f"{len(examples)} examples, {len(texts)} groups of {sorted(groups)} texts, {len(sizes)} sizes: "
            "need as many of each, and groups of one size"
        )

    def judge(row: int, column: int) -> Judged:
        told: dict[str, Any] = {} if lengths is None else {"length": float(lengths[row, column])}
        told |= {} if finished is None else {"finished": bool(finished[row, column])}
        return judge_one(examples[row], texts[row][column], sizes[row], config=config, **told)

    judged = [[judge(row, column) for column in range(len(group))] for row, group in enumerate(texts)]
    leaves: dict[str, Any] = {name: _array(judged, name) for name in ("task", "format", "accuracy")}
    leaves["values"], leaves["mask"] = _constraints(judged, leaves["accuracy"] > 0, measures)
    return Signals(**leaves), _diagnostics(judged)


def _require_known(names: Iterable[str], what: str) -> None:
    unknown = [name for name in names if name not in SIGNALS]
    if unknown:
        raise ValueError(f"unknown {what} {unknown}; known signals: {', '.join(SIGNALS)}")


def _array(judged: Sequence[Sequence[Judged]], name: str) -> np.ndarray:
    """float32 [M, G] of one attribute."""
    shape = (len(judged), len(judged[0]) if judged else 0)
    return np.array([[getattr(one, name) for one in group] for group in judged], dtype=np.float32).reshape(shape)


def _constraints(
    judged: Sequence[Sequence[Judged]], right: np.ndarray, measures: Sequence[Measure]
) -> tuple[np.ndarray, np.ndarray]:
    """(values float32 [C, M, G], mask bool [C, M, G]), a row a measure; values are 0 where masked."""
    values = np.zeros((len(measures), *right.shape), np.float32)
    mask = np.zeros(values.shape, bool)
    for row, measure in enumerate(measures):
        signal = SIGNALS[measure.signal]
        found = np.array([[signal.read(one) for one in group] for group in judged], np.float32).reshape(right.shape)
        mask[row] = signal.applies(found, right, rule=measure.mask)
        values[row] = np.where(mask[row], found, np.float32(0))
    return values, mask


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
