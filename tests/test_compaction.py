"""How living rows move into smaller batches: the sizes, and where rows stand at their prompts' prefixes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bigram import FIRSTS, SAMPLER, batch, table

from fgrpo_jax.model import cache
from fgrpo_jax.model.attention import attend_whole
from fgrpo_jax.model.cache import Places
from fgrpo_jax.rollout import compaction
from fgrpo_jax.rollout.noise import key_words


def sizes(rows: int) -> list[int]:
    found = [rows]
    while (size := compaction.smaller(found[-1])) is not None:
        found.append(size)
    return found


def test_sizes_are_few_and_hold_what_halves_would_waste():
    assert sizes(64) == [64, 56, 48, 40, 32, 24, 16, 8] and sizes(8) == [8] and sizes(5) == [5]
    for rows in range(9, 2000, 7):
        ladder = sizes(rows)
        assert ladder[-1] == 8 and all(size % 8 == 0 for size in ladder[1:]) and (np.diff(ladder) < 0).all()
        assert len(ladder) <= 2 + 4 * np.log2(rows / 8)  # whatever the lengths are
        for alive in range(9, rows):  # at most a quarter more rows than live, but for the last multiple of 8
            assert min(size for size in ladder if size >= alive) <= max(1.26 * alive, alive + 7)


@pytest.fixture(scope="module")
def begun():
    """A batch of 4 prompts × 8 before its first token."""
    words = key_words(0, purpose="train", step=0)
    shared, rows = jax.jit(SAMPLER.prefill)(table(), batch(FIRSTS), words)
    return compaction.Batch(rows, shared)


def test_living_rows_take_the_first_places_of_their_prompt(begun):
    """Twice over, by all its definitions: each living row has a place of its own at its prompt, without a gap."""
    rng = np.random.default_rng(0)
    now, home = begun, np.arange(32)
    for parts, size, live in ((2, 8, 7), (2, 5, 4)):
        alive = np.zeros(now.rows.done.size, bool)
        for part in np.split(np.arange(alive.size), parts):
            alive[rng.choice(part, live, replace=False)] = True
        now = now.replace(rows=now.rows.replace(done=jnp.asarray(~alive).reshape(now.rows.done.shape)))
        kept = set(home[alive])
        now = jax.jit(lambda now, parts=parts, size=size: compaction.shrink(now, parts=parts, size=size))(now)
        home = (np.asarray(now.home) + np.arange(parts)[:, None] * 16).reshape(-1)
        places, living = now.shared.places, ~np.asarray(now.rows.done).reshape(parts, size)
        assert set(home[living.reshape(-1)]) == kept
        counts = []
        for part in range(parts):
            place = np.asarray(places.place)[part][living[part]]
            prompts, counted = np.unique(place // 8, return_counts=True)
            for prompt, count in zip(prompts, counted, strict=True):
                assert sorted(place[place // 8 == prompt] % 8) == list(range(count))
            assert (np.asarray(places.row)[part][place] == np.flatnonzero(living[part])).all()
            assert (np.asarray(places.row)[part] < size).sum() == living[part].sum()  # nobody else stands anywhere
            # The rows of one prompt were those of one prompt before: their first token's group tells.
            assert len(np.unique(home.reshape(parts, size)[part][living[part]] // 8)) == len(prompts)
            counts += list(counted)
        assert int(places.breadth) == max(counts)


R = 20
"""Rows, more than live."""


@jax.jit
def laid_out(places: Places, q: jax.Array, k: jax.Array, v: jax.Array):
    """(attention at as few places as will do, at all of them, and row by row) over 3 prompts with 8 places each."""
    over = lambda q: attend_whole(q, k, v, key_mask=jnp.ones((3, 5), bool))  # noqa: E731
    mine = places.place[0] // 8
    alone = attend_whole(q, k[mine], v[mine], key_mask=jnp.ones((R, 5), bool))
    known = {"places": places, "prompts": 3}
    return cache.at_places(over, q, **known), cache.at_first_places(over, q, **known, width=8), alone


def test_fewer_places_a_prompt_change_nothing():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((R, 1, 2, 3, 4), (3, 2, 5, 4), (3, 2, 5, 4)))
    for breadth in range(1, 9):
        counts = [breadth, max(breadth - 2, 0), 1]
        live = rng.permutation([8 * prompt + rank for prompt, count in enumerate(counts) for rank in range(count)])
        place, row = np.zeros(R, np.int32), np.full(24, R, np.int32)
        place[: len(live)], row[live] = live, np.arange(len(live))
        places = Places(place=place[None], row=row[None], breadth=np.int32(breadth))
        few, full, alone = jax.tree.map(lambda x, n=len(live): x[:n], laid_out(places, q, k, v))
        for part in (few, full):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), part, alone)
        if breadth > 6:  # the mutation: a breadth that is too small loses rows
            short = laid_out(places.replace(breadth=np.int32(4)), q, k, v)[0]
            assert np.abs(short.out[: len(live)] - alone.out).max() > 1e-3
