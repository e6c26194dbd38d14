"""The sampler on the real model: image prompts of several sizes, text-only rows, filling rows, one batch."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bigram import sampling
from policies import SMALL_TEXT
from replay import TIE, Replay

from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.model import cache, rope
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.rollout import compaction
from fgrpo_jax.rollout.noise import key_words
from fgrpo_jax.rollout.sampler import Sampler

VOCAB, IMAGE, VIDEO, START, END = 96, 90, 91, 92, 93
EOS, PAD = 1, 0
G, T = 3, 7
CONFIG = ModelConfig(
    text=TextConfig(
        **SMALL_TEXT,
        vocab_size=VOCAB,
        rope_theta=10000.0,
        tie_word_embeddings=True,
    ),
    vision=VisionConfig(
        depth=2,
        hidden_size=16,
        num_heads=2,
        intermediate_size=24,
        fullatt_block_indexes=(1,),
        out_hidden_size=32,
    ),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
)
BANNED = np.isin(np.arange(VOCAB), (IMAGE, VIDEO, START, END, PAD))
BUCKETS = Buckets(prompt=(32,), patches=(64,), images=(2,), window_slack=(4.0,))


def prompt(number: int, grids: tuple[tuple[int, int], ...]) -> EncodedPrompt:
    """Images (patch grids h x w), then a few tokens of text."""
    rng = np.random.default_rng(number)
    parts, index = [], []
    for i, (h, w) in enumerate(grids):
        parts += [START] + [IMAGE] * (h * w // 4) + [END]
        index += [-1] + [i] * (h * w // 4) + [-1]
    words = rng.integers(2, 80, size=4 + number % 3).tolist()
    tokens = np.array([5, *parts, *words], np.int32)
    image_index = np.array([-1, *index, *[-1] * len(words)], np.int32)
    feature_index = np.zeros(len(tokens), np.int32)
    for i, (h, w) in enumerate(grids):
        feature_index[image_index == i] = np.arange(h * w // 4)
    full = [(1, h, w) for h, w in grids]
    positions, following = rope.mrope_positions(tokens, full, CONFIG)
    return EncodedPrompt(
        id=str(number),
        prompt_id=number,
        text="",
        tokens=tokens,
        positions=np.asarray(positions, np.int32),
        next_position=int(following),
        image_index=image_index,
        feature_index=feature_index,
        patches=tuple(rng.integers(0, 256, size=(h * w, 3, 14, 14), dtype=np.uint8) for h, w in grids),
        grids=tuple(full),
        sizes=(),
    )


PROMPTS = [prompt(1, ((4, 6),)), prompt(2, ((2, 2), (6, 4))), prompt(3, ()), prompt(4, ((8, 8),))]
MODEL = Model.create(CONFIG)


@functools.cache
def params():
    """Random weights, scaled so that the logits are far from flat and images matter."""
    out = MODEL.init(jax.random.key(0))
    out["text"]["embed"]["table"] = out["text"]["embed"]["table"] * 20
    return out


def batch(prompts=PROMPTS):
    return collate(prompts, buckets=BUCKETS, pad_id=80)


QUICK = {"xla_backend_optimization_level": 0}  # these programs are compiled for longer than they run


def make(model: Model = MODEL, **kwargs) -> Sampler:
    defaults = {"eos_ids": (EOS, 7), "pad_id": PAD, "banned": BANNED}
    settings = sampling({"group_size": G, "max_new_tokens": T}, kwargs)
    return Sampler(model, settings, **(defaults | {"compiler_options": QUICK} | kwargs))


UNROLLED = dataclasses.replace(MODEL, unrolled=True)


SAMPLER = make()


def draw(sampler=SAMPLER, prompts=None, **kwargs):
    out = sampler.sample(params(), batch() if prompts is None else prompts, seed=3, purpose="train", step=0, **kwargs)
    return jax.device_get(out)


@functools.partial(jax.jit, compiler_options=QUICK)
def recompute(params, prompts, rollouts, temperature):
    """Log-probs [M, G, T] as the learner computes them: token t from the hidden state before it."""
    hidden, prefix = MODEL.prefix(params, prompts, MODEL.encode(params, prompts.vision))
    suffix = MODEL.suffix(
        params, rollouts.tokens, rollouts.mask, prompts.next_position, prefix=prefix, prefix_mask=prompts.mask
    )
    last = prompts.mask.sum(1) - 1
    first = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, :, None]
    before = jnp.concatenate([jnp.broadcast_to(first, (len(last), G, 1, first.shape[-1])), suffix[:, :, :-1]], axis=2)
    logps, _ = MODEL.token_logps(params, before, rollouts.tokens, temperature=temperature, banned=jnp.asarray(BANNED))
    return jnp.where(rollouts.mask, logps, 0.0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_equal_those_of_the_learner(temperature):
    rollouts = draw(SAMPLER if temperature == 1.0 else make(temperature=temperature))
    want = np.asarray(recompute(params(), batch(), rollouts, temperature))
    np.testing.assert_allclose(rollouts.logps, want, atol=1e-5)
    assert (rollouts.logps[rollouts.mask] < 0).all() and rollouts.mask.sum() > 4 * G


@pytest.mark.parametrize(("unrolled", "window"), [(True, 256), (False, 3), (True, 2)])
def test_layers_one_by_one_and_windows_of_the_cache_draw_the_same(unrolled, window, monkeypatch):
    """A cache of 7 columns in chunks of 2, 2 and 3, or by blocks of 3, the last of which overlaps, is one whole."""
    monkeypatch.setattr(cache, "WINDOW", window)
    drawn = draw(make(UNROLLED if unrolled else MODEL))
    np.testing.assert_array_equal(drawn.tokens, draw().tokens)
    np.testing.assert_allclose(drawn.logps, draw().logps, atol=2e-6)


@pytest.mark.slow
def test_unrolled_layers_compact_alike():
    settings = {"group_size": 4, "eos_ids": tuple(range(1, 60)), "check_every": 1, "max_new_tokens": 12}
    one = draw(make(**settings))
    sampler = make(UNROLLED, compact=True, **settings)
    drawn = draw(sampler)
    assert sampler.compilations > 3  # it did compact
    np.testing.assert_array_equal(drawn.tokens, one.tokens)
    np.testing.assert_allclose(drawn.logps, one.logps, atol=2e-6)


def test_replay_draws_the_same_tokens_and_knows_their_margins():
    rollouts = draw()
    replay = Replay(SAMPLER)
    again = jax.device_get(replay(params(), batch(), rollouts, seed=3, purpose="train", step=0))
    assert again.same.all() and (again.margins > TIE).all()  # no tie on this seed, so runs must agree on all tokens
    np.testing.assert_allclose(again.logps, rollouts.logps, atol=1e-5)
    other = jax.device_get(replay(params(), batch(), rollouts, seed=3, purpose="train", step=1))
    assert other.same[rollouts.mask].mean() < 0.9


def test_images_reach_the_completion():
    """Other pixels, other log-probs, in that row alone; or the tests above would pass on a blind sampler."""
    other = dataclasses.replace(PROMPTS[0], patches=(255 - PROMPTS[0].patches[0],))
    a, b = draw(), draw(prompts=batch([other, *PROMPTS[1:]]))
    assert np.abs(a.logps[0, :, 0] - b.logps[0, :, 0]).max() > 1e-4
    np.testing.assert_array_equal(a.tokens[1:], b.tokens[1:])


def test_rows_do_not_depend_on_their_batch():
    whole = draw()
    for order in ([2, 0, 3, 1], [3]):
        part = draw(prompts=batch([PROMPTS[i] for i in order]))
        np.testing.assert_array_equal(part.tokens, whole.tokens[order])
        np.testing.assert_allclose(part.logps, whole.logps[order], atol=1e-5)


def test_given_features_are_those_encoded_inside():
    features = jax.jit(MODEL.encode, compiler_options=QUICK)(params(), batch().vision)
    given, inside = draw(prompts=batch().replace(vision=None, features=features)), draw()
    np.testing.assert_array_equal(given.tokens, inside.tokens)
    np.testing.assert_allclose(given.logps, inside.logps, atol=1e-5)


def test_filling_rows_do_no_harm():
    prompts = batch()
    prompts = prompts.replace(mask=prompts.mask & (np.arange(4) != 3)[:, None])
    out, whole = draw(prompts=prompts), draw()
    assert not out.mask[3].any() and np.isfinite(out.logps).all()
    np.testing.assert_array_equal(out.tokens[:3], whole.tokens[:3])


def test_a_narrow_cache_is_close():
    sampler = make(cache_dtype=jnp.bfloat16)
    narrow, exact = draw(sampler), draw()
    same = (narrow.tokens == exact.tokens).all(-1)
    assert same.mean() > 0.5
    np.testing.assert_allclose(narrow.logps[same], exact.logps[same], atol=0.05)


def test_the_cache_is_written_in_place():
    """When the window grows, temporary memory of the program grows by the cache and nothing else: no copy of it."""

    def temporary(window: int) -> tuple[int, int]:
        memory = make(max_new_tokens=window).compile(MODEL.abstract(), batch()).memory_analysis()
        cache = jax.eval_shape(lambda: MODEL.empty_cache(4, G, window, jnp.float32))
        return memory.temp_size_in_bytes, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))

    (small, small_cache), (large, large_cache) = temporary(256), temporary(1280)
    assert large - small <= 1.1 * (large_cache - small_cache)


# ---------------------------------------------------------------------------------------------------------- 8 devices
def gathered_while_decoding(text: str) -> list[int]:
    """Elements of each all-gather of the decode loop, from the text of a compiled program."""
    lines = [line for line in text.splitlines() if " all-gather(" in line and "/decode/while" in line]
    shapes = [re.search(r"= \w+\[([\d,]*)\]", line) for line in lines]
    return [int(np.prod([int(n) for n in shape[1].split(",") if n])) for shape in shapes if shape]


def on_mesh(layout: bool, *, sizes: tuple[int, int, int] = (2, 2, 2), **settings):
    """(sampler on a mesh, params as the learner lays them out, prompts split over data x fsdp)."""
    mesh = meshes.make_mesh(*sizes, devices=jax.devices()[:8])
    rules = meshes.shardings(MODEL.specs, mesh, rules=meshes.SAMPLE_RULES)
    sampler = make(mesh=mesh, param_shardings=rules if layout else None, **settings)
    placed = jax.device_put(params(), meshes.shardings(MODEL.specs, mesh))
    return sampler, placed, jax.device_put(batch(), meshes.batch_sharding(mesh))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")
def test_eight_devices_draw_the_same_tokens_and_gather_no_weight_while_decoding():
    sampler, placed, prompts = on_mesh(layout=True)
    sizes = gathered_while_decoding(sampler.compile(placed, prompts).as_text())
    assert max(sizes, default=0) < 32 * 8  # the smallest matrix of a layer; the argmax over split vocabulary stays
    drawn = sampler.sample(placed, prompts, seed=3, purpose="train", step=0)
    assert drawn.tokens.addressable_shards[0].data.shape[0] == 1  # 4 prompts over data x fsdp = 4
    eight, one = jax.device_get(drawn), draw()
    np.testing.assert_array_equal(eight.tokens, one.tokens)
    np.testing.assert_allclose(eight.logps, one.logps, atol=1e-5)
    assert sampler.compilations == 1


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (tests/conftest.py asks for 8 on CPU)")
def test_eight_devices_compact_without_gathering_weights_or_changing_tokens(monkeypatch):
    """Every part of the batch shrinks by itself; kv heads (2) are fewer than the tensor axis (4) and stay whole."""
    monkeypatch.setattr(compaction, "SMALLEST", 4)  # a part of the batch has 6 rows, or 12
    settings = {"max_new_tokens": 12, "group_size": 6, "eos_ids": tuple(range(1, 60)), "check_every": 1}
    one = draw(make(**settings))
    for sizes in ((2, 2, 2), (2, 1, 4)):
        sampler, placed, prompts = on_mesh(layout=True, sizes=sizes, compact=True, **settings)
        drawn = sampler.sample(placed, prompts, seed=3, purpose="train", step=0)
        np.testing.assert_array_equal(np.asarray(drawn.tokens), one.tokens)
        assert sampler.compilations > 2  # it did compact
        laid_out = sampler.lay_out(placed)
        begun, _ = sampler._programs["begin"](laid_out, prompts, key_words(3, purpose="train", step=0))
        more = sampler._programs["more"].lower(laid_out, sampler._programs["shrink"](begun)).compile()
        assert max(gathered_while_decoding(more.as_text()), default=0) < 32 * 8
