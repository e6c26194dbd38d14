"""Groups without any signal: constant in the reward and in every constraint in force, so that no advantage is in them.

Only both together make a group dead. One whose rollouts are all right still says something when some of them are
faithful and others are not; a filter by the reward alone would drop just those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def constant(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """bool [...]: fewer than two applicable members, or all of them equal, by a range test as in the advantages.

    Args:
      values, mask: [..., G]; what stands at masked places is not read. A NaN that is applicable equals nothing.
    """
    highest = np.where(mask, values, -np.inf).max(axis=-1)
    lowest = np.where(mask, values, np.inf).min(axis=-1)
    return (mask.sum(axis=-1) < 2) | (highest == lowest)


def dead(reward: np.ndarray, values: np.ndarray, mask: np.ndarray, *, in_force: Sequence[bool]) -> np.ndarray:
    """bool [M]: groups without any signal.

    Args:
      reward: [M, G], what the task advantage is made of.
      values, mask: [C, M, G], the constraint signals.
      in_force: C times, whether the constraint takes part in the advantage.
    """
    still = constant(reward, np.ones(reward.shape, bool))
    for row, counts in enumerate(in_force):
        if counts:
            still &= constant(values[row], mask[row])
    return still
