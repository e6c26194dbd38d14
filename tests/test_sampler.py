"""The sampler on a table-driven bigram model, whose every probability is known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bigram import (
    BANNED,
    EOS,
    EOS2,
    FIRSTS,
    PAD,
    PLACEHOLDER,
    SAMPLER,
    Bigram,
    S,
    T,
    V,
    assert_same,
    batch,
    chi_square,
    draw,
    exact_probabilities,
    make,
    pick,
    table,
)
from scipy import stats

from fgrpo_jax.rollout import noise as noise_lib
from fgrpo_jax.rollout.generate import generate
from fgrpo_jax.rollout.stopping import StopTable


# --------------------------------------------------------------------------------------------------------------- EOS
@pytest.mark.parametrize("eos", [EOS, EOS2])
def test_first_token_eos(eos):
    params = table()
    params["table"] = params["table"].at[:, eos].set(100.0)
    out = draw(SAMPLER, params, batch(FIRSTS))
    assert (out.tokens[:, :, 0] == eos).all() and (out.tokens[:, :, 1:] == PAD).all()
    assert out.mask[:, :, 0].all() and not out.mask[:, :, 1:].any()
    assert out.finished.all() and (out.logps[:, :, 1:] == 0).all()


def test_truncated_rollouts_are_not_finished():
    out = draw(SAMPLER, table(eos=-100.0), batch(FIRSTS))
    assert not out.finished.any() and out.mask.all() and not np.isin(out.tokens, (EOS, EOS2)).any()


def test_mask_ends_at_the_first_eos_of_either_kind():
    out = draw(make(group_size=64), table(eos=2.5), batch(FIRSTS))
    kinds = set()
    for tokens, mask, logps, finished in zip(
        *(x.reshape(-1, *x.shape[2:]) for x in (out.tokens, out.mask, out.logps, out.finished)), strict=True
    ):
        ends = np.flatnonzero(np.isin(tokens, (EOS, EOS2)))
        n = ends[0] + 1 if len(ends) else T
        assert finished == bool(len(ends))
        np.testing.assert_array_equal(mask, np.arange(T) < n)
        assert (tokens[n:] == PAD).all() and (logps[n:] == 0).all() and (logps[:n] < 0).all()
        kinds.add(int(tokens[n - 1]) if finished else "truncated")
    assert kinds == {EOS, EOS2, "truncated"}  # the batch held all three, or the test says nothing


def test_pad_equal_to_an_eos_is_content_where_drawn():
    sampler = make(pad_id=EOS, banned=np.arange(V) == PLACEHOLDER, group_size=64)
    params = table(eos=2.5)
    params["table"] = params["table"].at[:, PAD].add(-9.0)
    out = draw(sampler, params, batch(FIRSTS))
    drawn = (out.tokens == EOS) & out.mask
    assert drawn.any() and (drawn.sum(-1) <= 1).all() and out.finished[drawn.any(-1)].all()


def test_no_eos_ids_runs_to_the_end():
    assert draw(make(eos_ids=()), table(eos=3.0), batch(FIRSTS)).mask.all()


# ---------------------------------------------------------------------------------------------------------- banned ids
@pytest.mark.parametrize(
    "setting", [{"temperature": 0.0}, {"temperature": 5.0}, {"top_k": 2}, {"top_p": 0.5, "temperature": 2.0}], ids=str
)
def test_banned_ids_are_never_drawn(setting):
    out = draw(make(group_size=64, **setting), table(), batch(FIRSTS))
    assert not np.isin(out.tokens[out.mask], np.flatnonzero(BANNED)).any()
    assert np.isfinite(out.logps).all()


# ----------------------------------------------------------------------------------------------------------- log-probs
@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_log_probs_are_of_the_sampled_distribution(temperature):
    params, prompts = table(eos=-1.0), batch(FIRSTS)
    out = draw(make(temperature=temperature), params, prompts)
    for m, first in enumerate(FIRSTS):
        for g in range(8):
            n = out.mask[m, g].sum()
            want = Bigram().exact(params, first, out.tokens[m, g, :n], temperature=temperature, banned=BANNED)
            np.testing.assert_allclose(out.logps[m, g, :n], want, atol=1e-5)


def test_greedy_takes_the_best_and_reports_temperature_one():
    params = table(eos=-1.0)
    out = draw(make(temperature=0.0), params, batch(FIRSTS))
    assert (out.tokens == out.tokens[:, :1]).all()  # all members of a group are the same
    n = out.mask[0, 0].sum()
    want = Bigram().exact(params, 5, out.tokens[0, 0, :n], temperature=1.0, banned=BANNED)
    np.testing.assert_allclose(out.logps[0, 0, :n], want, atol=1e-5)
    best = np.where(BANNED, -np.inf, np.asarray(params["table"])[5]).argmax()
    assert out.tokens[0, 0, 0] == best


def test_truncated_distributions_against_numpy():
    logits = np.random.default_rng(1).normal(size=(7, V)).astype(np.float32)
    kept = np.asarray(make(top_k=3).distribution.scores(jnp.asarray(logits)))
    for row, got in zip(np.where(BANNED, -np.inf, logits), kept, strict=True):
        assert set(np.flatnonzero(np.isfinite(got))) == set(np.argsort(row)[-3:])
    kept = np.asarray(make(top_p=0.6).distribution.scores(jnp.asarray(logits)))
    for row, got in zip(np.where(BANNED, -np.inf, logits), kept, strict=True):
        order = np.argsort(row)[::-1]
        mass = np.cumsum(np.exp(row[order]) / np.exp(row).sum())
        assert set(np.flatnonzero(np.isfinite(got))) == set(order[: np.searchsorted(mass, 0.6) + 1])


def test_min_p_keeps_what_is_likely_enough():
    logits = np.random.default_rng(1).normal(size=(7, V)).astype(np.float32)
    kept = np.asarray(make(min_p=0.2, temperature=0.5).distribution.scores(jnp.asarray(logits)))
    probs = np.exp(np.where(BANNED, -np.inf, logits) / 0.5)
    np.testing.assert_array_equal(np.isfinite(kept), probs >= 0.2 * probs.max(-1, keepdims=True))


def test_truncated_log_probs_are_renormalised():
    out = draw(make(top_k=1), table(eos=-1.0), batch([5]))
    np.testing.assert_allclose(out.logps, 0.0, atol=1e-6)
    for setting in ({"top_k": 1}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"min_new_tokens": 1}):
        assert make(**setting).distribution.truncated
    assert not make().distribution.truncated


# --------------------------------------------------------------------------------------------------------- frequencies
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_frequencies_pass_a_chi_square_test(temperature):
    """First and second tokens over 4,096 draws, against exact probabilities; fixed seed, level 0.1%."""
    params, prompts = table(seed=3, eos=-20.0), batch([5])
    out = draw(make(group_size=4096, max_new_tokens=2, temperature=temperature), params, prompts)
    pairs = [(a, b) for a in range(V) for b in range(V)]
    logp = [Bigram().exact(params, 5, np.array(p), temperature=temperature, banned=BANNED).sum() for p in pairs]
    expected = np.exp(logp) * 4096
    seen = np.zeros((V, V))
    np.add.at(seen, (out.tokens[0, :, 0], out.tokens[0, :, 1]), 1)
    seen, common = seen.reshape(-1), expected >= 5
    seen = np.append(seen[common], seen[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert common.sum() > 30
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3


TRUNCATED = (
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9},
)


@pytest.mark.parametrize("settings", TRUNCATED, ids=str)
def test_truncated_frequencies_pass_it_too(settings):
    """First tokens of 16,384 draws, against probabilities written down once more and otherwise."""
    params = table(seed=3, eos=-20.0)
    drawn = draw(make(group_size=16_384, max_new_tokens=1, **settings), params, batch([5])).tokens
    exact = exact_probabilities(np.asarray(params["table"][5]), BANNED, **{"temperature": 1.0, **settings})
    assert chi_square(np.bincount(drawn.reshape(-1), minlength=V), exact) > 1e-3


# ---------------------------------------------------------------------------------------------------------- randomness
def tokens(prompts=None, *, sampler=SAMPLER, **kwargs):
    return draw(sampler, table(eos=-3.0), batch(FIRSTS) if prompts is None else prompts, **kwargs).tokens


def check_members_differ(sampler):
    drawn = tokens(sampler=sampler)
    assert len({tuple(row) for row in drawn[0]}) == drawn.shape[1], "members of a group drew the same tokens"


def check_steps_differ(sampler):
    assert (tokens(sampler=sampler, step=0) != tokens(sampler=sampler, step=1)).any(axis=-1).mean() > 0.9


def check_prompts_differ(sampler):
    same = batch([5, 5], ids=[1, 2])
    same = same.replace(tokens=same.tokens[[0, 0]], mask=same.mask[[0, 0]])
    drawn = tokens(same, sampler=sampler)
    assert (drawn[0] != drawn[1]).any(axis=-1).mean() > 0.9


def check_occurrences_differ(sampler):
    a, b = (tokens(batch(FIRSTS, occurrence=[i] * 4), sampler=sampler) for i in (0, 1))
    assert (a != b).any(axis=-1).mean() > 0.9


def check_tokens_differ(sampler):
    """On a flat model, a repeated noise gives the same id at every index."""
    flat = {"table": jnp.zeros((V, V)), "drift": jnp.zeros((V, V))}
    drawn = draw(sampler, flat, batch(FIRSTS)).tokens
    assert (drawn[..., 0] != drawn[..., 1]).mean() > 0.5


def check_seeds_and_purposes_differ(sampler):
    assert (tokens(sampler=sampler, seed=0) != tokens(sampler=sampler, seed=1)).any(axis=-1).mean() > 0.9
    assert (tokens(sampler=sampler, purpose="train") != tokens(sampler=sampler, purpose="eval")).any()


CHECKS = {
    "group": check_members_differ,
    "step": check_steps_differ,
    "prompt": check_prompts_differ,
    "occurrence": check_occurrences_differ,
    "token": check_tokens_differ,
    "seed": check_seeds_and_purposes_differ,
}


@pytest.mark.parametrize("name", CHECKS)
def test_noise_depends_on(name):
    CHECKS[name](SAMPLER)


def test_a_resumed_step_repeats_exactly():
    first = draw(SAMPLER, table(), batch(FIRSTS), seed=7, step=3)
    draw(SAMPLER, table(), batch(FIRSTS), seed=7, step=4)
    assert_same(first, draw(make(), table(), batch(FIRSTS), seed=7, step=3))


def test_batch_order_batch_size_and_group_size_do_not_matter():
    params, prompts, order = table(eos=-1.0), batch(FIRSTS), [2, 0, 3, 1]
    whole = draw(SAMPLER, params, prompts)
    assert_same(pick(whole, order), draw(SAMPLER, params, pick(prompts, order)))
    for i in range(4):
        assert_same(pick(whole, [i]), draw(SAMPLER, params, pick(prompts, [i])))
    fewer = draw(make(group_size=3), params, prompts)
    assert_same(jax.tree.map(lambda x: x[:, :3], whole), fewer)


@pytest.mark.parametrize("vocab", [67, 1000])
def test_noise_is_bit_equal_for_every_layout(vocab):
    words = noise_lib.key_words(5, purpose="train", step=2)
    ids, again = np.arange(6, dtype=np.uint32) * 77, np.zeros(6, np.uint32)

    @jax.jit
    def noise(ids, again, t):
        keys = noise_lib.noise_keys(words, prompt_id=ids, occurrence=again, group_size=5)
        return noise_lib.gumbel(keys, t, vocab)

    whole = np.asarray(noise(ids, again, 3))
    for i in range(6):
        np.testing.assert_array_equal(whole[i], np.asarray(noise(ids[[i]], again[[i]], 3))[0])
    np.testing.assert_array_equal(whole[::-1], np.asarray(noise(ids[::-1], again, 3)))
    key = jax.random.key(5, impl="threefry2x32")  # the chain, written out once by hand
    for part in (words[1], 2, ids[4], 0, 3, 3):
        key = jax.random.fold_in(key, part)
    np.testing.assert_allclose(whole[4, 3], jax.random.gumbel(key, (vocab,)), atol=1e-6)


def test_left_and_right_padding_agree():
    params = table(eos=-1.0)
    assert_same(draw(SAMPLER, params, batch(FIRSTS)), draw(SAMPLER, params, batch(FIRSTS, left=True)))
    assert_same(draw(SAMPLER, params, batch(FIRSTS)), draw(SAMPLER, params, batch(FIRSTS, length=S + 1).replace(
        **{k: np.pad(getattr(batch(FIRSTS), k), ((0, 0), (0, 1))) for k in ("tokens", "mask")})))  # fmt: skip


# ------------------------------------------------------------------------------------------------- loop and compilation
def test_check_every_changes_nothing():
    params, prompts = table(eos=4.0), batch(FIRSTS)
    want = draw(make(check_every=1, max_new_tokens=23), params, prompts)
    assert want.finished.all()  # so that the early stop is taken
    for every in (3, 22, 100):
        assert_same(want, draw(make(check_every=every, max_new_tokens=23), params, prompts))


def test_one_token_window():
    out = draw(make(max_new_tokens=1), table(), batch(FIRSTS))
    assert out.tokens.shape == (4, 8, 1) and out.mask.all()


def test_filling_rows_emit_nothing_and_are_not_waited_for():
    prompts = batch(FIRSTS)
    prompts = prompts.replace(mask=prompts.mask & (np.arange(4) < 3)[:, None])
    params = table(eos=-1.0)
    out = draw(SAMPLER, params, prompts)
    assert not out.mask[3].any() and not out.finished[3].any() and (out.tokens[3] == PAD).all()
    assert_same(pick(out, [0, 1, 2]), pick(draw(SAMPLER, params, batch(FIRSTS)), [0, 1, 2]))


def test_compilations_are_counted_and_steps_do_not_compile():
    sampler, params = make(), table()
    assert sampler.compilations == 0
    for step in range(3):
        draw(sampler, params, batch(FIRSTS), step=step, seed=step)
    assert sampler.compilations == 1
    longer = batch(FIRSTS, length=S + 2)
    sampler.compile(params, longer)
    assert sampler.compilations == 2
    draw(sampler, params, longer)
    assert sampler.compilations == 2


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"group_size": 0}, "group_size is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"check_every": 0}, "check_every is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"min_new_tokens": T + 1}, f"min_new_tokens is {T + 1}, more than max_new_tokens {T}"),
        ({"stops": StopTable(np.zeros((1, V + 1), np.int16))}, f"vocabulary of {V + 1}, not {V}"),
        ({"banned": np.ones(V, bool)}, f"forbids all {V}"),
        ({"banned": np.zeros(V, np.int32)}, "bool"),
        ({"eos_ids": (EOS, V)}, f"eos id {V} is outside the vocabulary of {V}"),
        ({"eos_ids": (PLACEHOLDER,)}, "could never end"),
        ({"pad_id": -1}, "pad_id -1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        make(**setting)


def test_seeds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        SAMPLER.sample(table(), batch(FIRSTS), seed=-1, purpose="train", step=0)


# ----------------------------------------------------------------------------------------------------------- host side
def test_generate_decodes_by_mask_and_counts():
    params, prompts = table(eos=2.5), batch(FIRSTS)
    got = generate(SAMPLER, params, prompts, decode=lambda ids: " ".join(map(str, ids)), seed=0, purpose="t", step=0)
    want = draw(SAMPLER, params, prompts, purpose="t")
    assert_same(got.rollouts, want)
    assert got.tokens == want.mask.sum() and got.seconds > 0 and got.tokens_per_second > 0
    assert [int(i) for i in got.texts[2][1].split()] == got.ids(2, 1) == want.tokens[2, 1][want.mask[2, 1]].tolist()
    assert got.logprob(2, 1) == pytest.approx(want.logps[2, 1].sum(), abs=1e-5)


def test_generate_refuses_weights_that_are_not_finite():
    params = table()
    params["table"] = params["table"].at[5].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        generate(SAMPLER, params, batch(FIRSTS), decode=str, seed=0, purpose="t", step=0)
