"""Rollouts that can be reproduced: noise and tokens under other layouts, shared prefix against repeated computation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from checks import runs
from checks.record import Check, same

VOCAB = 1000


def noise(_: runs.Context) -> Iterator[Check]:
    """Noise of a rollout is the same bits in every batch it can stand in, and other bits for any other key."""
    import jax

    from fgrpo_jax.rollout.noise import gumbel, key_words, noise_keys

    ids, again = np.arange(6, dtype=np.uint32) * 77, np.zeros(6, np.uint32)

    def draw(rows: list[int], *, group: int = 5, step: int = 2, seed: int = 5, t: int = 3) -> np.ndarray:
        words = key_words(seed, purpose="train", step=step)
        keys = noise_keys(words, prompt_id=ids[rows], occurrence=again[rows], group_size=group)
        return np.asarray(jax.jit(gumbel, static_argnums=2)(keys, t, VOCAB)).view(np.uint32)

    whole = draw(list(range(6)))
    layouts = [([5, 3, 1, 0], 5), ([2], 5), ([4, 0, 2], 2), ([1, 2, 3], 1)]
    unlike = sum(int((draw(rows, group=group) != whole[rows, :group]).sum()) for rows, group in layouts)
    yield same(f"noise/bits that differ in {len(layouts)} other layouts", unlike, 0)
    others = [draw([0, 1], step=3), draw([0, 1], seed=6), draw([0, 1], t=4), whole[[1, 0]], np.roll(whole, 1, 1)[:2]]
    repeated = sum(bool((other == whole[:2]).mean() > 0.01) for other in others)
    yield same("noise/other step, seed, token, prompt or member with the same noise", repeated, 0)
