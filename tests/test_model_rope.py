"""Positions and rotary tables against `transformers`: text, images, several images, video with its own clock."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.rope import mrope_positions, rotate, text_rotation, vision_rotation

IMAGE, VIDEO = 290, 291
CONFIG = ModelConfig(
    text=TextConfig(hidden_size=64, num_heads=4, num_kv_heads=2, head_dim=16, mrope_section=(2, 3, 3)),
    vision=VisionConfig(hidden_size=32, num_heads=2, out_hidden_size=64, tokens_per_second=2),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
)


def test_text_advances_all_axes():
    positions, following = mrope_positions(np.arange(5), [], CONFIG)
    np.testing.assert_array_equal(positions, np.repeat(np.arange(5)[:, None], 3, axis=1))
    assert positions.dtype == np.int32 and following == 5


def test_image_by_hand():
    """Two words, a 4×6-patch image (2×3 tokens), one word: the word after goes on from 2 + max(2, 3)."""
    tokens = np.array([1, 2, *[IMAGE] * 6, 3])
    positions, following = mrope_positions(tokens, [(1, 4, 6)], CONFIG)
    image = [[2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4]]
    np.testing.assert_array_equal(positions, [[0, 0, 0], [1, 1, 1], *image, [5, 5, 5]])
    assert following == 6


def test_video_frames_follow_the_clock():
    tokens = np.array([7, *[VIDEO] * 3])
    positions, _ = mrope_positions(tokens, [(3, 2, 2)], CONFIG, video_seconds=[0.75])  # 2 a second: 0, 1.5, 3
    np.testing.assert_array_equal(positions[1:, 0], [1, 2, 4])
    np.testing.assert_array_equal(positions[1:, 1:], [[1, 1]] * 3)


@pytest.mark.parametrize(
    ("tokens", "grids", "message"),
    [
        ([1, IMAGE, IMAGE, 2], [(1, 4, 4)], "needs 4 placeholder tokens, but 2 stand at token 1"),
        ([1, *[IMAGE] * 3], [(1, 4, 4)], "needs 4 placeholder tokens, but 3 stand at token 1"),
        ([1, IMAGE], [], "image 0, but only 0 grids"),
        ([1, 2], [(1, 2, 2)], "1 image grids given, but the prompt has placeholders for 0"),
    ],
)
def test_counts_that_do_not_match(tokens, grids, message):
    with pytest.raises(ValueError, match=message):
        mrope_positions(np.array(tokens), grids, CONFIG)


def test_positions_equal_transformers():
    pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
    import qwen_reference as ref
    import torch

    model = ref.reference_model().model
    config = ModelConfig.from_hf(ref.reference_config().to_dict())
    cases = [
        ref.make_prompt(0, [(1, 2, 2)]),
        ref.make_prompt(1, [(1, 2, 14), (1, 12, 2), (1, 10, 14)]),
        ref.make_prompt(2, [(5, 4, 6)], seconds=[0.7]),
        ref.make_prompt(3, [(2, 4, 6), (1, 6, 2), (3, 2, 2)], seconds=[1.0, 0.3]),
    ]
    for prompt in cases:
        inputs = ref.reference_inputs([prompt])
        inputs = {k: v for k, v in inputs.items() if not k.startswith("pixel")}
        theirs, delta = model.get_rope_index(**inputs)
        ours, following = mrope_positions(prompt.tokens, prompt.grids, config, video_seconds=prompt.seconds or None)
        np.testing.assert_array_equal(ours, theirs[:, 0].T.numpy())
        assert following == len(prompt.tokens) + int(delta[0, 0])
    assert isinstance(delta, torch.Tensor)


def test_sections_are_dealt_to_axes():
    """Half-dims 0-1 turn by t, 2-4 by h, 5-7 by w."""
    positions = jnp.eye(3, dtype=jnp.int32)
    tables = text_rotation(positions, head_dim=16, theta=100.0, sections=(2, 3, 3))
    turned = np.asarray(tables.sin) != 0
    expected = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]], bool)
    np.testing.assert_array_equal(turned, expected)


def test_rotation_keeps_length_and_depends_on_distance():
    positions = jnp.arange(8)[:, None] * jnp.ones(3, jnp.int32)
    tables = text_rotation(positions, head_dim=16, theta=100.0, sections=(2, 3, 3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 16)), jnp.float32)
    turned = np.asarray(rotate(jnp.broadcast_to(x, (8, 1, 16)), tables))[:, 0]
    products = turned @ turned.T
    for distance in range(8):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_tables_equal_transformers_up_to_32768(kind):
    """≤ 1e-5 as compiled; with frequencies made in float32 the tables were off by 2e-3 at position 32,768."""
    pytest.importorskip("torch", reason="parity with transformers needs torch (the 'test' extra)")
    import qwen_reference as ref
    import torch
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as theirs

    config = ref.reference_config(
        text=dict(
            hidden_size=512, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
        ),
        vision=dict(hidden_size=160, out_hidden_size=512),
    )
    rng = np.random.default_rng(0)
    rows = np.unique(np.concatenate([np.arange(64), rng.integers(0, 32768, 2000), [32767, 32768]])).astype(np.int32)
    if kind == "text":
        positions = np.stack([rows, np.roll(rows, 7), rows[::-1]], axis=-1)
        cos, sin = theirs.Qwen2_5_VLRotaryEmbedding(config.text_config)(
            torch.zeros(1), torch.from_numpy(positions.T.copy())[:, None]
        )
        cos, sin = cos[0], sin[0]
        make = functools.partial(text_rotation, head_dim=128, theta=1e6, sections=(16, 24, 24))
    else:
        positions = np.stack([rows, np.roll(rows, 7)], axis=-1)
        cos, sin = theirs.Qwen2_5_VLVisionRotaryEmbedding(config.vision_config)(
            torch.zeros(1), torch.from_numpy(positions)
        )
        make = functools.partial(vision_rotation, head_dim=80, theta=10000.0)
    ours = jax.jit(make)(jnp.asarray(positions))
    half = ours.cos.shape[-1]
    for table, golden in ((ours.cos, cos), (ours.sin, sin)):
        golden = golden.numpy()
        np.testing.assert_array_equal(golden[:, :half], golden[:, half:])
        assert np.max(np.abs(np.asarray(table) - golden[:, :half])) <= 1e-5


def test_tables_stay_float32_for_bfloat16_activations():
    tables = text_rotation(jnp.full((1, 3), 257), head_dim=16, theta=1e6, sections=(2, 3, 3))
    assert tables.cos.dtype == jnp.float32
    np.testing.assert_allclose(tables.cos[0, 0], np.cos(257.0), atol=1e-6)
    assert rotate(jnp.ones((1, 1, 16), jnp.bfloat16), tables).dtype == jnp.bfloat16
