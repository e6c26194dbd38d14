"""Stop sequences, minimum length, repetition penalty and compaction, on the bigram model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bigram import BANNED, EOS, EOS2, FIRSTS, PAD, V, assert_same, batch, draw, make, table

from fgrpo_jax.rollout.stopping import StopTable

STOP = "</answer>"
WORDS = [b""] * 4 + [b"<", b"</", b"</a", b"an", b"ans", b"swer", b"wer", b"er>", b">\n", b">", b"x</answer>y"]
SAID = WORDS + [b"answer", b"s", b"n", b"a", b"/", b"<</"] + [bytes([97 + i % 26]) for i in range(V - len(WORDS) - 6)]
"""What each id says: pieces of the stop sequence that overlap every which way, then letters."""


def first_stop(ids: list[int], stops: list[str], *, at_least: int = 0) -> int | None:
    """Tokens up to and with the first that completes a stop sequence, by searching the text itself."""
    for n in range(1, len(ids) + 1):
        before, now = (b"".join(SAID[i] for i in ids[:k]) for k in (n - 1, n))
        if n >= at_least and any(now.count(s.encode()) > before.count(s.encode()) for s in stops):
            return n
    return None


def read(table: StopTable, ids: list[int]) -> int | None:
    """The same by the table."""
    state = 0
    for n, token in enumerate(ids, 1):
        state, complete = divmod(int(table.table[state, token]), 2)
        if complete:
            return n
    return None


@pytest.mark.parametrize("stops", [[STOP], ["an", STOP, "swer>x"], ["aab", "ab"]], ids=str)
def test_a_stop_sequence_is_found_in_any_tokenisation(stops):
    """Random texts of pieces, and every way to cut the sequence itself into the pieces there are."""
    table = StopTable.build(stops, SAID)
    rng = np.random.default_rng(0)
    pieces = [i for i in range(4, len(SAID)) if SAID[i] in b"".join(s.encode() for s in stops) or i < 21]
    found = 0
    for _ in range(1000):
        ids = rng.choice(pieces, size=12).tolist()
        assert read(table, ids) == first_stop(ids, stops), [SAID[i] for i in ids]
        found += read(table, ids) is not None
    cuts = list(itertools.islice(tokenisations(stops[-1].encode()), 2000))
    for ids in cuts:
        assert read(table, ids) == len(ids)
    assert found > 20 and len(cuts) > 1


def tokenisations(text: bytes):
    if not text:
        yield []
    for index, said in enumerate(SAID):
        if said and text.startswith(said):
            yield from ([index, *rest] for rest in tokenisations(text[len(said) :]))


def test_special_tokens_say_nothing_and_do_not_break_a_sequence():
    ids = [SAID.index(b"</a"), EOS2, SAID.index(b"n"), SAID.index(b"swer"), SAID.index(b">\n")]
    assert read(StopTable.build([STOP], SAID), ids) == 5


@pytest.mark.parametrize(("stops", "message"), [([], "at least one"), (["a", ""], "at least one"), (["~"], "no token")])
def test_stop_sequences_that_cannot_be_are_refused(stops, message):
    with pytest.raises(ValueError, match=message):
        StopTable.build(stops, SAID)


STOPPING = {"max_new_tokens": 30, "check_every": 5, "stops": StopTable.build(["aa", "b"], SAID)}
"""Texts of single letters, in which these are common."""


@pytest.mark.parametrize("least", [0, 12])
def test_rollouts_end_at_stop_sequences_and_not_too_soon(least):
    params = table(eos=0.5)
    rest = {**STOPPING, "stops": None, "min_new_tokens": least}
    free, out = (draw(make(**kwargs), params, batch(FIRSTS)) for kwargs in (rest, rest | STOPPING))
    stopped = 0
    for ids, long, mask, finished in zip(
        *(x.reshape(-1, *x.shape[2:]) for x in (out.tokens, free.tokens, out.mask, out.finished)), strict=True
    ):
        eos = np.flatnonzero(np.isin(long, (EOS, EOS2)))
        end = first_stop(long.tolist(), ["aa", "b"], at_least=least)
        ends = [n for n in (end, eos[0] + 1 if len(eos) else None) if n is not None]
        assert mask.sum() == min(ends, default=30) and finished == bool(ends)
        np.testing.assert_array_equal(ids[mask], long[: mask.sum()])
        assert (ids[~mask] == PAD).all() and (not len(eos) or eos[0] >= least)
        stopped += end is not None and end == min(ends)
    assert stopped > 5 and out.finished.mean() > 0.5


def test_a_repetition_penalty_counts_prompt_and_rollout():
    """Greedy: by hand, a token at a time, as transformers defines it."""
    params, prompts = table(eos=-9.0), batch(FIRSTS)
    out = draw(make(temperature=0.0, repetition_penalty=1.7, group_size=1, max_new_tokens=8), params, prompts)
    rows, drift = (np.asarray(params[k], np.float32) for k in ("table", "drift"))
    repeats = 0
    for m, first in enumerate(FIRSTS):
        seen, total, last = {5, first}, 0, first
        for n, token in enumerate(out.tokens[m, 0].tolist()):
            logits = rows[last] + (drift[total % V] if n else 0)
            plain = np.where(BANNED, -np.inf, logits).argmax()
            for i in seen:
                logits[i] = logits[i] / 1.7 if logits[i] > 0 else logits[i] * 1.7
            logits = np.where(BANNED, -np.inf, logits)
            assert token == logits.argmax()
            np.testing.assert_allclose(out.logps[m, 0, n], logits[token] - np.log(np.exp(logits).sum()), atol=1e-5)
            repeats += plain != token
            seen, total, last = seen | {token}, total + token, token
    assert repeats > 0  # the penalty decided something


# ---------------------------------------------------------------------------------------------------------- compaction
@pytest.mark.slow
def test_compaction_changes_nothing():
    """32 rows end one after the other: the batch shrinks down to the smallest size, and every output stays."""
    params, prompts = table(eos=1.5), batch(FIRSTS)
    settings = {"max_new_tokens": 40, "stops": STOPPING["stops"], "repetition_penalty": 1.05, "min_new_tokens": 2}
    want = draw(make(check_every=3, **settings), params, prompts)
    sampler = make(check_every=3, compact=True, **settings)
    sampler.compile(params, prompts)
    compiled = sampler.compilations
    assert compiled == 11  # begin and collect, and shrink, go on and collect at 24, 16 and 8 rows
    assert_same(want, draw(sampler, params, prompts))
    assert_same(draw(make(check_every=3, **settings), params, prompts, step=1), draw(sampler, params, prompts, step=1))
    assert sampler.compilations == compiled
    lengths = np.sort(want.mask.sum(-1).reshape(-1))
    assert lengths[15] + 9 < lengths[-1]  # there was a tail, or the test says nothing
