"""Streams of prompts through refilled slots: the tokens of batch sampling, on the bigram model."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from bigram import assert_same, batch, draw, make, pick, table

from fgrpo_jax.records import Rollouts
from fgrpo_jax.rollout.stream import Stream

FIRSTS = [5, 6, 7, 8, 9, 10, 11, 12, 13]
SETTINGS = {"group_size": 2, "max_new_tokens": 11, "check_every": 2, "repetition_penalty": 1.1}


def stacked(ended) -> Rollouts:
    return jax.tree.map(lambda *x: np.stack(x), *(one.rollouts for one in ended))


def test_a_stream_draws_what_batches_draw():
    """Nine prompts in twos through four slots, the last batch half filling; slots are refilled while others go on."""
    params, prompts = table(eos=1.0), batch(FIRSTS)
    sampler = make(**SETTINGS)
    want = draw(sampler, params, prompts)
    stream = Stream(sampler, slots=4, prompt_length=7)
    pairs = [pick(prompts, slice(i, i + 2)) for i in range(0, 8, 2)]
    last = pick(prompts, [8, 8])
    pairs.append(last.replace(mask=last.mask & np.array([[True], [False]])))
    key = {"seed": 0, "purpose": "train", "step": 0}
    ended = list(stream(params, pairs, **key))
    assert sorted(one.number for one in ended) == list(range(9)) != [one.number for one in ended]
    got = stacked(sorted(ended, key=lambda one: one.number))
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_allclose(got.logps, want.logps, atol=1e-6)
    assert want.finished.any() and not want.finished.all()  # both ends of a row were met
    ordered = list(stream(params, pairs, **key, ordered=True))
    assert [one.number for one in ordered] == list(range(9))
    assert_same(stacked(ordered), got)
    assert stream.compilations == 3


def test_what_does_not_fit_is_refused():
    params, prompts = table(), batch(FIRSTS)
    key = {"seed": 0, "purpose": "train", "step": 0}
    with pytest.raises(ValueError, match="9 prompts does not fit 4 slots"):
        list(Stream(make(), slots=4, prompt_length=7)(params, [prompts], **key))
    with pytest.raises(ValueError, match="padded to 5 tokens do not fit prompt_length 3"):
        list(Stream(make(), slots=9, prompt_length=3)(params, [prompts], **key))
    with pytest.raises(ValueError, match="slots is 0"):
        Stream(make(), slots=0, prompt_length=3)
    assert list(Stream(make(), slots=4, prompt_length=3)(params, [], **key)) == []
