"""R_G: Complete-IoU of the boxes of the reasoning with the gold boxes under the best one-to-one assignment (Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from fgrpo_jax.reading.frames import iou
from fgrpo_jax.reading.parsing import is_proper
from fgrpo_jax.records import Box

MAPPINGS = ("clamp", "shift")
FARTHEST = 1e9
"""Pixels from the origin beyond which a predicted corner lies in no image; squares of such numbers may overflow."""


def ciou(a: Box, b: Box) -> float:
    """Complete IoU of two proper boxes, in (-1.5, 1] (Zheng et al. 2020): IoU − ρ²/c² − α·v.

    ρ is the distance of the centres, c the diagonal of the smallest enclosing box, v the squared difference of the
    aspect angles times 4/π², and α = v / (1 − IoU + v), taken as 0 when v = 0: for identical boxes it is 0/0 otherwise.

    Raises:
      ValueError: a box without a positive width and height.
    """
    for box in (a, b):
        if not is_proper(box):
            raise ValueError(f"box {box} has no area; CIoU needs x1 < x2 and y1 < y2")
    overlap = iou(a, b)
    rho = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    angles = math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1]))
    v = 4 / math.pi**2 * angles**2
    alpha = v / (1 - overlap + v) if v > 0 else 0.0
    return overlap - rho / diagonal - alpha * v


def pair_score(value: float, *, mapping: str) -> float:
    """A CIoU as a score in [0, 1]: 'clamp' cuts at 0, 'shift' is (CIoU + 1) / 2.

    Raises:
      ValueError: unknown mapping.
    """
    if mapping not in MAPPINGS:
        raise ValueError(f"unknown box score mapping {mapping!r}; known: {MAPPINGS}")
    return min(1.0, max(0.0, value if mapping == "clamp" else (value + 1) / 2))


def spatial(
    pred_boxes: Sequence[Box], gold_boxes: Sequence[Box], *, mapping: str = "clamp", dedupe: bool = False
) -> float:
    """R_G in [0, 1]: (1 / max(N, M)) Σ score over the assignment of N predicted to M gold boxes.

    Predictions that are degenerate, inverted, not finite or beyond FARTHEST count in N and match nothing; repeated ones
    count in N unless `dedupe`. Boxes that reach out of the image are taken as they are: CIoU is less for it.

    Raises:
      ValueError: no gold boxes (the signal is then not applicable), a degenerate one, or an unknown mapping.
    """
    return _matched(pred_boxes, gold_boxes, lambda a, b: pair_score(ciou(a, b), mapping=mapping), dedupe=dedupe)


def mean_iou(pred_boxes: Sequence[Box], gold_boxes: Sequence[Box], *, dedupe: bool = False) -> float:
    """The same with plain IoU as the score: the held-out table's 'box IoU'."""
    return _matched(pred_boxes, gold_boxes, iou, dedupe=dedupe)


def _matched(boxes: Sequence[Box], gold: Sequence[Box], score: Callable[[Box, Box], float], *, dedupe: bool) -> float:
    """The greatest total score over one-to-one assignments, as a share of the larger number of boxes."""
    if not gold:
        raise ValueError("no gold boxes: spatial grounding is not applicable, mask the signal instead")
    predicted = list(dict.fromkeys(boxes)) if dedupe else boxes
    rows = [[score(box, other) if _is_usable(box) else 0.0 for other in gold] for box in predicted]
    scores = np.array(rows, dtype=np.float64).reshape(len(predicted), len(gold))
    assigned = linear_sum_assignment(scores, maximize=True)
    return float(scores[assigned].sum()) / max(scores.shape)


def _is_usable(box: Box) -> bool:
    return is_proper(box) and all(abs(side) <= FARTHEST for side in box)  # False for NaN, too
