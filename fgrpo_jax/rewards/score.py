"""From responses to signals: every reward and constraint of a rollout batch, with the masks of the method.

| signal | value | applicable when |
|---|---|---|
| task | accuracy_weight · R_acc + format_weight · R_fmt + Σ weight · signal (0 where it does not apply) | always |
| consistency | 1 if the reasoning entails the answer | R_acc > 0, and the judge did not abstain |
| semantic_grounding | CORRECT / (CORRECT + INCORRECT) sentences | R_acc > 0, every sentence judged, ≥ 1 scored |
| spatial_grounding | CIoU under the best assignment | the example has gold boxes |

and whatever else `fgrpo_jax.rewards.signals` and functions of the user's own (`rewards.custom`) name. Who judges is
`rewards.judges.dispatch`; a judgement that failed or was left open is masked and counted, never a 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.reading.dialects import PAPER, Dialect, boxes_in
from fgrpo_jax.reading.frames import convert_box
from fgrpo_jax.reading.parsing import Parsed, answer_index, parse
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.records import Example, ImageSize, Signals
from fgrpo_jax.rewards import custom, task
from fgrpo_jax.rewards.custom import CustomRewards, Responses
from fgrpo_jax.rewards.grounding import MAPPINGS, mean_iou, spatial
from fgrpo_jax.rewards.judges.dispatch import KINDS, Case, Dispatcher, Opinion
from fgrpo_jax.rewards.judges.protocol import Kind
from fgrpo_jax.rewards.signals import NAN, SIGNALS, Judged, Measure, Signal, overlong_penalty

MEASURES = tuple(map(Measure, ("consistency", "semantic_grounding", "spatial_grounding")))
"""The paper's three constraints."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Settings of the rewards.

    Attributes:
      answer: how R_acc reads an answer, 'reader' or 'strict', see task.accuracy.
      accuracy_weight, format_weight: R_task = accuracy_weight · R_acc + format_weight · R_fmt, plus
      weights: signal → its weight in R_task; where the signal does not apply it adds 0.
      ciou_mapping: 'clamp' or 'shift', see grounding.pair_score.
      dedupe_boxes: whether a box predicted twice counts once in N of Eq. 1.
      no_claim: R_S of a right answer whose reasoning makes no scored claim: 'masked', or 'zero'.
      window, overlong_cache: most tokens of a response, and over how many of them the signal 'overlong' falls to −1.

    Raises:
      ValueError: a value that is none of those named.
    """

    answer: task.Reading = "reader"
    accuracy_weight: float = 0.5
    format_weight: float = 0.5
    ciou_mapping: str = "clamp"
    dedupe_boxes: bool = False
    no_claim: str = "masked"
    dialect: Dialect = PAPER
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    window: int = 0
    overlong_cache: int = 0
    custom: CustomRewards | None = None

    @property
    def signals(self) -> Mapping[str, Signal]:
        """All signals that there are."""
        return SIGNALS if self.custom is None else self.custom.signals

    def __post_init__(self) -> None:
        _require_known(self.weights, "rewards", self.signals)
        choices = {"ciou_mapping": MAPPINGS, "no_claim": ("masked", "zero"), "answer": ("reader", "strict")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}; known: {known}")
        if self.answer == "strict" and self.dialect.form != "tags":
            raise ValueError(
                f"rewards.answer='strict' counts only what stands in answer tags, and responses of "
                f"'{self.dialect.name}' have none; set rewards.answer='reader', or another data.prompt"
            )


def _judged(
    example: Example,
    parsed: Parsed,
    size: ImageSize,
    opinion: Opinion,
    *,
    config: RewardConfig,
    length: float = NAN,
    finished: bool | None = None,
) -> Judged:
    accuracy = task.accuracy(parsed, example, reading=config.answer)
    formatted = float(parsed.format_ok)
    grounding, iou = _spatial(example, parsed, size, config)
    found = [judgement.verdict for judgement in opinion.sentences or ()]
    verdicts = tuple(verdict for verdict in found if verdict is not None)
    # A share over the sentences that did get a verdict would reward those that confuse the judge.
    judged = opinion.sentences is not None and len(verdicts) == len(found)
    semantic = _share(verdicts) if judged else NAN
    silent = judged and semantic != semantic and config.no_claim == "zero"
    consistency = None if opinion.consistency is None else opinion.consistency.verdict
    return Judged(
        accuracy=accuracy,
        format=formatted,
        task=config.accuracy_weight * accuracy + config.format_weight * formatted,
        consistent=NAN if consistency is None else float(consistency is Verdict.YES),
        semantic=semantic,
        grounded=0.0 if silent else semantic,
        spatial=grounding,
        iou=iou,
        judged=judged,
        verdicts=verdicts,
        unread=opinion.unread,
        answered=answer_index(parsed, example.options) is not None if example.options else parsed.answer is not None,
        failures=sum(judgement.failed for judgement in opinion.judgements),
        abstentions=sum(judgement.abstained for judgement in opinion.judgements),
        malformed=parsed.malformed,
        boxes=len(parsed.boxes),
        words=len(parsed.think.split()),
        length=length,
        truncated=NAN if finished is None else float(not finished),
        overlong=overlong_penalty(length, window=config.window, cache=config.overlong_cache),
    )


def _rewarded(
    judged: Sequence[Sequence[Judged]], responses: Responses, *, config: RewardConfig, measures: Sequence[Measure]
) -> list[list[Judged]]:
    """The same with the weighed or bounded signals of the user's own, and with all that is weighed in R_task."""
    signals, wanted = config.signals, {name for name, weight in config.weights.items() if weight}
    names = sorted((wanted | {measure.signal for measure in measures}) - set(SIGNALS))
    found = config.custom.values(responses, names) if config.custom is not None and names else {}
    own = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    row = itertools.count()

    def rewarded(one: Judged) -> Judged:
        one = dataclasses.replace(one, custom=own[next(row)]) if own else one
        return dataclasses.replace(one, task=one.task + _weighed(one, config.weights, signals))

    return [[rewarded(one) for one in group] for group in judged]


def _weighed(judged: Judged, weights: Mapping[str, float], signals: Mapping[str, Signal]) -> float:
    """Σ weight · signal over the signals that apply; those masked to right answers count 0 for wrong ones."""
    total = 0.0
    for name, weight in weights.items():
        value, signal = signals[name].read(judged), signals[name]
        if value == value and (judged.accuracy > 0 or not signal.correct_only):
            total += weight * value
    return total


def _spatial(example: Example, parsed: Parsed, size: ImageSize, config: RewardConfig) -> tuple[float, float]:
    """(R_G, mean IoU) in the processed frame, which is the one the policy speaks."""
    if not example.boxes:
        return NAN, NAN
    gold = [convert_box(box, size, src="original", dst="processed") for box in example.boxes]
    boxes = boxes_in(parsed.boxes, size, dialect=parsed.dialect)
    value = spatial(boxes, gold, mapping=config.ciou_mapping, dedupe=config.dedupe_boxes)
    return value, mean_iou(boxes, gold, dedupe=config.dedupe_boxes)


def _share(verdicts: Sequence[Verdict]) -> float:
    right, wrong = verdicts.count(Verdict.CORRECT), verdicts.count(Verdict.INCORRECT)
    return right / (right + wrong) if right + wrong else NAN


def score(
    examples: Sequence[Example],
    texts: Sequence[Sequence[str]],
    *,
    sizes: Sequence[ImageSize],
    config: RewardConfig,
    judges: Dispatcher | None = None,
    encoded: Sequence[EncodedPrompt] | None = None,
    everyone: bool = False,
    measures: Sequence[Measure] = MEASURES,
    lengths: np.ndarray | None = None,
    finished: np.ndarray | None = None,
) -> tuple[Signals, dict[str, np.ndarray]]:
    """Signals of M prompts with G responses each.

    Args:
      texts: M lists of G responses, decoded without special tokens.
      sizes: M sizes of `examples[m].images[0]`.
      judges: who judges; the pre-check of free text alone when left out, which knows no scene.
      encoded: the M prompts as the policy saw them, for judges that can use them.
      everyone: ask a model about wrong answers too (evaluation); else only where the verdict counts for a signal.
      measures: the signals that constraints are put on, in the order of the leading axis of `values` and `mask`.
      lengths: int [M, G] tokens of each response, EOS included; without, what depends on it does not apply.
      finished: bool [M, G], ended by itself; likewise.

    Returns:
      Signals with numpy leaves, and diagnostics: float32 [M, G] 'consistent', 'semantic', 'spatial', 'iou' of *all*
      responses, right or wrong (0 where bool [M, G] 'consistent_mask', 'semantic_mask', 'spatial_mask' is False); bool
      [M, G] 'answered', 'judged' (every sentence has a verdict), 'no_claim' (judged, but without a scored claim); int32
      [M, G] 'sentences' (with a verdict), 'skipped', 'incorrect', 'unread', 'malformed', 'judge_failed',
      'judge_abstained'; and float32 [M, G] 'custom/NAME' of signals of the user's own, NaN where they do not apply.

    Raises:
      ValueError: lengths that differ, an unknown signal, or an example without a valid answer.
    """
    _require_known([measure.signal for measure in measures], "constraints", config.signals)
    _require_groups(examples, texts, sizes)
    parsed = [[parse(text, dialect=config.dialect) for text in group] for group in texts]
    counting = {right: _counting(config, measures, right=right, everyone=everyone) for right in (True, False)}
    prompts = [None] * len(examples) if encoded is None else encoded
    cases = [
        Case(example, one, size, prompt, kinds=counting[task.accuracy(one, example, reading=config.answer) > 0])
        for example, size, prompt, group in zip(examples, sizes, prompts, parsed, strict=True)
        for one in group
    ]
    found = iter((Dispatcher() if judges is None else judges).judge(cases))

    def judge(row: int, column: int) -> Judged:
        length = NAN if lengths is None else float(lengths[row, column])
        ended = None if finished is None else bool(finished[row, column])
        one = parsed[row][column]
        return _judged(examples[row], one, sizes[row], next(found), config=config, length=length, finished=ended)

    judged = [[judge(row, column) for column in range(len(group))] for row, group in enumerate(texts)]
    responses = custom.batch(examples, texts, parsed, judged, sizes=sizes)
    judged = _rewarded(judged, responses, config=config, measures=measures)
    leaves: dict[str, Any] = {
        name: _array(judged, operator.attrgetter(name)) for name in ("task", "format", "accuracy")
    }
    leaves["values"], leaves["mask"] = _constraints(judged, leaves["accuracy"] > 0, measures, config.signals)
    return Signals(**leaves), _diagnostics(judged)


def _require_groups(examples: Sequence[Any], texts: Sequence[Sequence[str]], sizes: Sequence[Any]) -> None:
    groups = {len(group) for group in texts}
    if not len(examples) == len(texts) == len(sizes) or len(groups) > 1:
        raise ValueError(
            f"{len(examples)} examples, {len(texts)} groups of {sorted(groups)} texts, {len(sizes)} sizes: "
            "need as many of each, and groups of one size"
        )


_SIGNALS: Mapping[Kind, str] = {"consistency": "consistency", "semantic": "semantic_grounding"}


def _counting(config: RewardConfig, measures: Sequence[Measure], *, right: bool, everyone: bool) -> frozenset[Kind]:
    """The kinds of verdict that count for a right (or a wrong) answer."""
    if everyone:
        return KINDS
    weighed = {name for name, weight in config.weights.items() if weight} if right else set()
    bounded = {measure.signal for measure in measures if right or measure.mask == "all"}
    return frozenset(kind for kind, signal in _SIGNALS.items() if signal in weighed | bounded)


def _require_known(names: Iterable[str], what: str, signals: Mapping[str, Signal]) -> None:
    unknown = [name for name in names if name not in signals]
    if unknown:
        raise ValueError(f"unknown {what} {unknown}; known signals: {', '.join(signals)}")


def _array(judged: Sequence[Sequence[Judged]], of: Callable[[Judged], Any], dtype: Any = np.float32) -> np.ndarray:
    """[M, G] of one thing about each response."""
    shape = (len(judged), len(judged[0]) if judged else 0)
    return np.array([[of(one) for one in group] for group in judged], dtype).reshape(shape)


def _constraints(
    judged: Sequence[Sequence[Judged]], right: np.ndarray, measures: Sequence[Measure], signals: Mapping[str, Signal]
) -> tuple[np.ndarray, np.ndarray]:
    """(values float32 [C, M, G], mask bool [C, M, G]), a row a measure; values are 0 where masked."""
    values = np.zeros((len(measures), *right.shape), np.float32)
    mask = np.zeros(values.shape, bool)
    for row, measure in enumerate(measures):
        signal = signals[measure.signal]
        found = _array(judged, signal.read)
        mask[row] = signal.applies(found, right, rule=measure.mask)
        values[row] = np.where(mask[row], found, np.float32(0))
    return values, mask


def _diagnostics(judged: Sequence[Sequence[Judged]]) -> dict[str, np.ndarray]:
    figures: dict[str, np.ndarray] = {}
    for name in ("consistent", "semantic", "spatial", "iou"):
        values = _array(judged, operator.attrgetter(name))
        figures[name] = np.nan_to_num(values, nan=0.0)
        if name != "iou":
            figures[f"{name}_mask"] = ~np.isnan(values)
    figures |= {name: _array(judged, operator.attrgetter(name), bool) for name in ("answered", "judged")}
    figures["no_claim"] = figures["judged"] & ~figures["semantic_mask"]
    figures |= {name: _array(judged, of, np.int32) for name, of in _COUNTS.items()}
    for name in judged[0][0].custom if figures["answered"].size else ():
        figures[f"custom/{name}"] = _array(judged, lambda one, name=name: one.custom[name])
    return figures


_COUNTS = {
    "sentences": lambda one: len(one.verdicts),
    "skipped": lambda one: one.verdicts.count(Verdict.SKIP),
    "incorrect": lambda one: one.verdicts.count(Verdict.INCORRECT),
    "unread": lambda one: one.unread,
    "malformed": lambda one: one.malformed,
    "judge_failed": lambda one: one.failures,
    "judge_abstained": lambda one: one.abstentions,
}
