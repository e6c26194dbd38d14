"""Everything that can be measured about one rollout, each under a name: what a reward may weigh and a constraint bound.

A signal is a plain function of what was judged of a response. To add one, add a line to `SIGNALS`; configs, masks,
metrics and errors know it from there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from fgrpo_jax.reading.verdict import Verdict

MaskRule = Literal["own", "correct", "all"]

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Judged:
    """All there is to know about one response. NaN stands for 'not applicable' and becomes a mask in arrays."""

    accuracy: float  # R_acc
    format: float  # R_fmt
    task: float  # R_task
    consistent: float  # 1 or 0 whatever the answer; NaN when the judge abstains
    semantic: float  # share of correct among scored sentences whatever the answer; NaN without judge or scored sentence
    grounded: float  # the same as the constraint sees it: 0 for a reasoning without any claim, where such ones count
    spatial: float  # R_G; NaN without gold boxes
    iou: float  # the same with plain IoU
    judged: bool  # every sentence of the response has a verdict
    verdicts: tuple[Verdict, ...]  # of the sentences that have one, () when nobody looked
    unread: int  # sentences that could not be read
    answered: bool  # an answer could be read
    failures: int  # judgements that a model was asked for and did not give (masked and counted, never 0)
    abstentions: int  # judgements that the rules left open with no model behind them (likewise)
    malformed: int  # <bbox> tags without a box
    boxes: int  # of the reasoning, the repeated and degenerate ones too
    words: int  # of the reasoning
    length: float = NAN  # tokens up to and including the first EOS; NaN when unknown (text from elsewhere)
    truncated: float = NAN  # 1 when cut off by the window, else 0; NaN when unknown
    overlong: float = NAN  # 0 down to −1 over the last tokens of the window (`overlong_penalty`); NaN when unknown
    # What functions of the user's own say (`rewards.custom`), NaN where they do not apply.
    custom: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Signal:
    """One measurable thing, within [low, high]."""

    about: str  # what the number is, for people
    low: float
    high: float
    read: Callable[[Judged], float]  # NaN where it is not applicable
    correct_only: bool = False  # its own mask holds right answers only: else a wrong but coherent answer would do

    def applies(self, value: np.ndarray, right: np.ndarray, *, rule: MaskRule) -> np.ndarray:
        """bool, of the shape of `value`: where it counts under a mask rule.

        'own' is the signal's rule, 'correct' keeps right answers only, 'all' takes every rollout that has a value.
        """
        defined = ~np.isnan(value)
        return defined & right if rule == "correct" or (rule == "own" and self.correct_only) else defined


SIGNALS: dict[str, Signal] = {
    "consistency": Signal("the reasoning entails the answer", 0, 1, lambda j: j.consistent, correct_only=True),
    "semantic_grounding": Signal("share of true visual claims", 0, 1, lambda j: j.grounded, correct_only=True),
    "spatial_grounding": Signal("boxes against gold boxes, Eq. 1", 0, 1, lambda j: j.spatial),
    "accuracy": Signal("the answer is right", 0, 1, lambda j: j.accuracy),
    "format": Signal("one think block, then one answer block", 0, 1, lambda j: j.format),
    "answered": Signal("an answer could be read", 0, 1, lambda j: float(j.answered)),
    "box_iou": Signal("boxes against gold boxes, plain IoU", 0, 1, lambda j: j.iou),
    "boxes": Signal("boxes in the reasoning", 0, math.inf, lambda j: float(j.boxes)),
    "malformed_boxes": Signal("<bbox> tags that hold no box", 0, math.inf, lambda j: float(j.malformed)),
    "reasoning_length": Signal("words of the reasoning", 0, math.inf, lambda j: float(j.words)),
    "response_length": Signal("tokens up to and including the EOS", 0, math.inf, lambda j: j.length),
    "truncated": Signal("cut off by the window", 0, 1, lambda j: j.truncated),
    "overlong": Signal("0, falling to -1 over the last `rewards.overlong_cache` tokens", -1, 0, lambda j: j.overlong),
}
"""Name → signal. The first three are the paper's R_C, R_S and R_G; response lengths need the sampler's tokens."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """What one row of the constraint arrays holds: a signal, and where it counts."""

    signal: str
    mask: MaskRule = "own"


def overlong_penalty(length: float, *, window: int, cache: int) -> float:
    """DAPO's soft punishment (Yu et al. 2025, eq. 13): 0 up to window − cache tokens, then linear to −1 at the window.

    Args:
      length: tokens of the response; NaN gives NaN.
      window: most tokens a response may have.
      cache: tokens over which the punishment grows; 0 for none at all.
    """
    if math.isnan(length) or cache == 0:
        return length * 0.0
    return 0.0 - min(max((length - (window - cache)) / cache, 0.0), 1.0)
