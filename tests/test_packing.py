"""Work that follows real tokens: what is packed gives what is not, prompts find their pieces, little is padding."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest
import released
from programs import roofline
from test_model import TINY, prompt_batch

from fgrpo_jax.fgrpo import forward, pieces
from fgrpo_jax.model import vocabulary
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

M, S, T = 4, 11, 9
BANNED = 3
MODEL = Model.create(TINY)


def completions(model: Any, params: Any, prompts: Any, features: Any, tokens: Any, mask: Any, **how: Any) -> Any:
    known: dict[str, Any] = {"temperature": 0.9, "banned": banned()}
    return forward.completion_logps(model, params, prompts, features, tokens, mask, **known, **how)


def banned() -> jax.Array:
    return jnp.zeros(TINY.text.vocab_size, bool).at[BANNED].set(True)


@functools.cache
def batch(group: int) -> tuple[Any, np.ndarray, jax.Array]:
    """Prompts of several lengths with a feature row each, tokens [M, G, T] and a weight of each."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (M, group, T), dtype=np.int32)
    tokens = np.where(tokens == BANNED, BANNED + 1, tokens)
    return prompt_batch(M, S), tokens, jnp.asarray(rng.normal(size=(2, *tokens.shape)), jnp.float32)


@functools.cache
def program(group: int, parts: int = 1, room: int | None = None) -> Any:
    """jitted (params, features, prompts, mask) → ((loss, (logps, entropy)), gradients of params and features)."""
    _, tokens, weight = batch(group)

    def loss(params: Any, features: Any, prompts: Any, mask: Any) -> Any:
        out = completions(MODEL, params, prompts, features, tokens, mask, parts=parts, room=room)
        return jnp.sum(weight[0] * out[0] + weight[1] * out[1]), out

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), compiler_options=policies.QUICK)


LENGTHS = {
    "mixed": np.array([[3, 9, 1], [0, 5, 2], [9, 9, 9], [4, 0, 7]]),
    "one long and many empty": np.array([[0, 0, 0], [0, 9, 0], [0, 0, 0], [0, 0, 0]]),
    "all masked": np.zeros((M, 3), int),
    "all full": np.full((M, 3), T),
}


@pytest.mark.parametrize("case", [*LENGTHS, "holes", "padding on the left", "two parts"])
def test_packed_is_unpacked(case: str) -> None:
    """Log-probs, entropies and gradients of weights and image features; two cases without room to spare."""
    prompts, _, _ = batch(3)
    mask = np.arange(T) < LENGTHS.get(case, LENGTHS["mixed"])[..., None]
    if case == "holes":
        mask[0, 1, 4] = mask[2, 0, 0] = mask[2, 1, 7:] = False
    if case == "padding on the left":
        turned = {name: getattr(prompts, name)[:, ::-1] for name in ("tokens", "mask", "positions", "image_slot")}
        prompts = prompts.replace(**turned)
    parts = 2 if case == "two parts" else 1
    room = M // parts * (S + 3 * T)
    if case in ("mixed", "two parts"):  # of two parts both have room for the larger
        room = int(np.asarray(pieces.tokens(prompts.mask, jnp.asarray(mask))).reshape(parts, -1).sum(1).max())
    features = jnp.asarray(np.random.default_rng(1).normal(size=(M, 16, TINY.text.hidden_size)), jnp.float32)
    args = MODEL.init(jax.random.key(0)), features, prompts, jnp.asarray(mask)
    (_, want), want_grads = jax.device_get(program(3)(*args))
    (_, found), grads = jax.device_get(program(3, parts, room)(*args))
    np.testing.assert_allclose(found, want, atol=3e-6)
    assert (np.asarray(found)[:, ~mask] == 0).all()
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(np.abs(other).max(), 1e-3))


def test_a_group_of_one_and_a_window_of_padding() -> None:
    """G = 1, and more room than tokens: what lies behind the last one changes nothing."""
    prompts, _, _ = batch(1)
    mask = jnp.asarray(np.arange(T) < np.array([[4], [9], [0], [1]])[..., None])
    features = jnp.ones((M, 16, TINY.text.hidden_size))
    args = MODEL.init(jax.random.key(0)), features, prompts, mask
    (_, want), want_grads = jax.device_get(program(1)(*args))
    (_, found), grads = jax.device_get(program(1, 1, M * (S + T))(*args))
    np.testing.assert_allclose(found, want, atol=3e-6)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(np.abs(other).max(), 1e-3))


def test_only_wanted_rows_reach_the_vocabulary() -> None:
    """Chunks of 4 of 14 rows of which 5 are wanted: two run, with all values and gradients as without a count."""
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((1, 14, 8), (20, 8)))
    ids, weight = jnp.asarray(rng.integers(0, 20, (1, 14))), jnp.where(jnp.arange(14) < 5, 1.0, 0.0)

    def loss(table: Any, hidden: Any, count: Any) -> Any:
        logps, entropy = vocabulary.token_logps(table, hidden, ids, temperature=1.0, banned=None, rows=4, count=count)
        return jnp.sum(weight * (logps + entropy)), logps

    run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, logps), grads = run(table, hidden, jnp.array([5]))
    (want, _), want_grads = run(table, hidden, None)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert (logps[0, 8:] == 0).all() and (logps[0, :5] != 0).all()
    for one, other in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- pieces
@pytest.mark.parametrize("times", pieces.PLACES)
def test_every_prompt_has_a_place_and_no_piece_more_than_it_holds(times: int) -> None:
    sizes = np.random.default_rng(0).integers(5, 61, (2, 4, 12)).astype(np.int32)
    sizes[0, 1] = 60  # nothing but full length: as many pieces as there can be
    cut = jax.device_get(pieces.cut(jnp.asarray(sizes), micro=8, full=60, packs=True, times=times))
    assert cut.room == 120 and cut.prompt.shape == (2, 6, 4, 2 * times)
    for update in range(2):
        found = cut.prompt[update]  # [n, p, R]
        for part in range(4):
            assert sorted(found[:, part][found[:, part] < 12].tolist()) == list(range(12))
            padded = np.append(sizes[update, part], 0)
            assert padded[found[:, part]].sum(-1).max() <= cut.room
            assert (np.moveaxis(found, 1, 0)[part].reshape(-1)[cut.home[update, part]] == np.arange(12)).all()
        assert (found[cut.count[update] :] == 12).all() and (found[cut.count[update] - 1] < 12).any()
    assert cut.count[0] == 6 and (cut.count[1] < 6 or times == 1)


@pytest.mark.parametrize(("lengths", "times"), [(10, 1), (9, 1), (5, 2), (3, 4), (0, 4)])
def test_places_follow_lengths(lengths: int, times: int) -> None:
    """Of 4 prompts of 2 tokens with 3 completions of a window of 10."""
    mask = np.broadcast_to(np.arange(10) < lengths, (4, 3, 10))
    assert pieces.places(np.ones((4, 2), bool), mask) == times


def test_dealt_prompts_stay_with_their_update_and_come_back() -> None:
    x = np.arange(24)
    dealt = pieces.deal(x, updates=3, parts=2)
    assert dealt.shape == (3, 2, 4)
    for update in range(3):
        assert (dealt[update] % 3 == update).all() and (dealt[update, 0] < 12).all()
    np.testing.assert_array_equal(pieces.gather(jnp.asarray(dealt)), x)


def test_a_step_stacks_what_its_pieces_give() -> None:
    sizes = jnp.asarray([[[4, 9, 2, 2, 10, 1]]])
    cut = jax.tree.map(lambda x: x[0], pieces.cut(sizes, micro=1, full=10, packs=True))
    seen = pieces.stack(cut, lambda number: cut.take(number, sizes[0])[0])
    np.testing.assert_array_equal(cut.collect(seen), sizes[0])
    grads, total, out = pieces.accumulate(lambda w, n: (w * n, {"n": n + 1}), jnp.float32(2), cut)
    assert int(cut.count) == 3 and grads == 0 + 1 + 2 and total == 2 * 3
    assert out["n"].tolist() == [1, 2, 3, 0, 0, 0]


@pytest.mark.parametrize("together", [0.0, 0.5])
def test_operations_are_close_to_those_of_real_tokens(together: float) -> None:
    """The 3B shape, 64 prompts × 5 of mean length 300 in a window of 1,024: at most 1.15 times the products needed.

    Attention is counted as kernels do it, which leave out what is masked. `together` is the share of the variance of a
    log-length that rollouts of a prompt have in common.
    """
    prompts, group, prompt, window, micro = 64, 5, 1024, 1024, 4
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(prompts, 1)) * together**0.5 + rng.normal(size=(prompts, group)) * (1 - together) ** 0.5
    lengths = np.clip(290 * np.exp(0.6 * spread - 0.18 * (1 - 0.1)), 1, window).astype(int)
    assert 270 < lengths.mean() < 330 and lengths.max() > 800
    sizes = jnp.asarray(prompt + (lengths - 1).sum(-1), jnp.int32)
    cut = pieces.cut(sizes[None, None], micro=micro, full=prompt + group * window, packs=True)
    computed, real = int(cut.count[0]) * cut.room, int(sizes.sum())
    config = ModelConfig.from_hf(released.HUB["3B"])
    weights = roofline.forward_operations(config, prompts=1, group=1, prompt_tokens=1, new_tokens=0)["layers"]
    a_key = 4.0 * config.text.num_layers * config.text.num_heads * config.text.head_dim
    keys = prompts * prompt * (prompt + 1) / 2 + (lengths * (prompt + (lengths + 1) / 2)).sum()
    vocabulary_row = 2.0 * config.text.vocab_size * config.text.hidden_size
    others = a_key * keys + vocabulary_row * lengths.sum()
    rows = vocabulary_row * (int(cut.count[0]) * 1024)  # of a chunk that is not full, at most
    assert computed / real < 1.15
    assert (weights * computed + others + rows) / (weights * real + others) < 1.15
    padded = prompts * (prompt + group * window)
    assert padded / real > 2.2  # what is not computed any more
