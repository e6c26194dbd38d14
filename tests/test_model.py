"""The model's own promises: full-size shapes, one declaration a weight, shared prefix, bounded buffers."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import SMALL_TEXT

from fgrpo_jax.model import vocabulary
from fgrpo_jax.model.cache import KV
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.model.vocabulary import BANNED
from fgrpo_jax.records import PromptBatch, VisionInputs

TINY = ModelConfig(
    text=TextConfig(
        **SMALL_TEXT,
        vocab_size=70,
    ),
    vision=VisionConfig(
        depth=2, hidden_size=16, num_heads=2, intermediate_size=20, out_hidden_size=32, fullatt_block_indexes=(1,)
    ),
)
RELEASED = {
    "3B": dict(
        hidden_size=2048, num_layers=36, num_heads=16, num_kv_heads=2, intermediate_size=11008, vocab_size=151936
    ),
    "7B": dict(
        hidden_size=3584, num_layers=28, num_heads=28, num_kv_heads=4, intermediate_size=18944, vocab_size=152064
    ),
}


def prompt_batch(m: int, s: int, i: int = 1, p: int = 64) -> PromptBatch:
    """M prompts of S tokens, the first token of each fed by an image of one full window of patches."""
    rng = np.random.default_rng(0)
    vision = VisionInputs(
        patches=jnp.asarray(rng.normal(size=(m, i, p, 1176)), jnp.float32),
        positions=jnp.asarray(rng.integers(0, 8, (m, i, p, 2)), jnp.int32),
        windows=jnp.broadcast_to(jnp.arange(p, dtype=jnp.int32).reshape(-1, 64), (m, i, p // 64, 64)),
        slots=jnp.broadcast_to(jnp.arange(p, dtype=jnp.int32), (m, i, p)),
        valid=jnp.ones((m, i, p), bool),
    )
    lengths = rng.integers(s // 2, s + 1, m)
    return PromptBatch(
        tokens=jnp.asarray(rng.integers(0, 60, (m, s)), jnp.int32),
        mask=jnp.asarray(np.arange(s) < lengths[:, None]),
        positions=jnp.broadcast_to(jnp.arange(s, dtype=jnp.int32)[None, :, None], (m, s, 3)),
        next_position=jnp.asarray(lengths, jnp.int32),
        image_slot=jnp.full((m, s), -1, jnp.int32).at[:, 0].set(3),
        prompt_id=jnp.arange(m, dtype=jnp.uint32),
        occurrence=jnp.zeros(m, jnp.uint32),
        vision=vision,
    )


@functools.cache
def tiny_params():
    return jax.jit(Model.create(TINY).init)(jax.random.key(0))


# -------------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_declared_whole(tied):
    """One axis a dimension, 'layers' first where stacked, a checkpoint home of the same size, no home twice."""
    config = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, tie_word_embeddings=tied))
    model = Model.create(config)
    assert set(model.specs) == {"visual", "text"} | (set() if tied else {"lm_head"})
    homes = []
    for path, spec in jax.tree_util.tree_leaves_with_path(model.specs):
        name = jax.tree_util.keystr(path)
        assert len(spec.axes) == len(spec.shape), name
        stacked = "layers" in name or "blocks" in name
        assert (spec.axes[0] == "layers") == stacked == ("{}" in spec.hf.name), name
        assert int(np.prod(spec.shape[stacked:])) == int(np.prod(spec.hf.shape)), name
        homes.append(spec.hf.name)
    assert len(homes) == len(set(homes))


def test_init_has_the_declared_structure():
    model = Model.create(TINY)
    params = tiny_params()
    assert jax.tree.structure(params) == jax.tree.structure(model.abstract())
    for (path, leaf), spec in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(model.specs), strict=True
    ):
        assert leaf.shape == spec.shape and leaf.dtype == jnp.float32
        std = float(jnp.std(leaf))
        assert abs(std - spec.init.std) <= 0.2 * spec.init.std, jax.tree_util.keystr(path)
        assert abs(float(jnp.mean(leaf)) - spec.init.mean) <= 0.01 + spec.init.std, jax.tree_util.keystr(path)
    assert jax.tree.leaves(model.abstract(jnp.bfloat16))[0].dtype == jnp.bfloat16


def test_initial_weights_differ_and_follow_the_key():
    kernel = tiny_params()["text"]["layers"]["mlp"]["gate"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])
    assert not np.allclose(kernel[0], tiny_params()["text"]["layers"]["mlp"]["up"]["kernel"][0])
    other = jax.jit(Model.create(TINY).init)(jax.random.key(1))
    assert not np.allclose(kernel, other["text"]["layers"]["mlp"]["gate"]["kernel"])


def test_large_weights_are_drawn_apart(monkeypatch):
    from fgrpo_jax.model import layers

    monkeypatch.setattr(layers, "_SMALL", 100)
    leaves = jax.tree.leaves(Model.create(TINY).specs)
    leaves = [spec for spec in leaves if spec.init.std][:3]
    values = layers.draw(jax.random.key(0), leaves)
    for value, spec in zip(values, leaves, strict=True):
        assert value.shape == spec.shape and abs(float(jnp.std(value)) - spec.init.std) <= 0.2 * spec.init.std


def test_params_of_another_structure_are_refused():
    params = {k: v for k, v in tiny_params().items() if k != "lm_head"}
    with pytest.raises(ValueError, match="lm_head/table"):
        jax.eval_shape(Model.create(TINY).encode, params, prompt_batch(1, 4).vision)


# --------------------------------------------------------------------------------------------------------- full shapes
def released(size: str) -> Model:
    """The text and vision shape of a release; the 3B ties its embeddings."""
    fields = RELEASED[size] | {"rms_norm_eps": 1e-6, "tie_word_embeddings": size == "3B"}
    vision = VisionConfig(hidden_size=1280, out_hidden_size=fields["hidden_size"], tokens_per_second=2)
    return Model.create(ModelConfig(TextConfig(**fields), vision), compute_dtype=jnp.bfloat16, remat="full")


@pytest.mark.parametrize(("size", "count"), [("3B", 3_754_622_976), ("7B", 8_292_166_656)])
def test_released_shapes(size, count):
    """Every method at full size, in bfloat16, without allocating anything."""
    model = released(size)
    params = model.abstract(jnp.float32)
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)) == count
    text = model.config.text
    m, g, t, s, i, p = 2, 4, 16, 64, 2, 128
    batch = jax.eval_shape(lambda: prompt_batch(m, s, i, p))
    features = jax.eval_shape(model.encode, params, batch.vision)
    assert features.shape == (m, i * p // 4, text.hidden_size) and features.dtype == jnp.bfloat16
    hidden, kv = jax.eval_shape(model.prefix, params, batch, features)
    assert hidden.shape == (m, s, text.hidden_size) and hidden.dtype == jnp.bfloat16
    assert kv.k.shape == kv.v.shape == (text.num_layers, m, s, text.num_kv_heads, 128)
    tokens = jax.ShapeDtypeStruct((m, g, t), jnp.int32)
    mask = jax.ShapeDtypeStruct((m, g, t), jnp.bool_)
    shared = dict(prefix=kv, prefix_mask=batch.mask)
    suffix = jax.eval_shape(model.suffix, params, tokens, mask, batch.next_position, **shared)
    assert suffix.shape == (m, g, t, text.hidden_size)
    logps, entropy = jax.eval_shape(model.token_logps, params, suffix, tokens)
    assert logps.shape == entropy.shape == (m, g, t) and logps.dtype == entropy.dtype == jnp.float32
    cache = jax.eval_shape(lambda: model.empty_cache(m, g, t, jnp.bfloat16))
    one = jax.ShapeDtypeStruct((m, g), jnp.int32)
    at = jax.ShapeDtypeStruct((), jnp.int32)
    last, after = jax.eval_shape(model.decode, params, one, at, batch.next_position, **shared, cache=cache)
    assert last.shape == (m, g, text.hidden_size) and last.dtype == jnp.bfloat16
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), cache)
    logits = jax.eval_shape(model.logits, params, last)
    assert logits.shape == (m, g, text.vocab_size) and logits.dtype == jnp.float32


# ------------------------------------------------------------------------------------------------------- shared prefix
M, G, T, S = 2, 3, 5, 8


def completions():
    rng = np.random.default_rng(1)
    tokens = jnp.asarray(rng.integers(0, 60, (M, G, T)), jnp.int32)
    return tokens, jnp.asarray(np.arange(T) < rng.integers(1, T + 1, (M, G))[..., None])


def shared_loss(model, params, prompts):
    """Sum of log-probs of completion tokens 1.. given those before, through the shared prefix."""
    tokens, mask = completions()
    _, kv = model.prefix(params, prompts, model.encode(params, prompts.vision))
    hidden = model.suffix(params, tokens, mask, prompts.next_position, prefix=kv, prefix_mask=prompts.mask)
    logps, _ = model.token_logps(params, hidden[:, :, :-1], tokens[:, :, 1:])
    return jnp.sum(jnp.where(mask[:, :, 1:], logps, 0.0))


def repeated_loss(model, params, prompts):
    """The same with prompt and completion in one row, the prompt G times."""
    tokens, mask = completions()
    rows = jax.tree.map(lambda x: jnp.repeat(x, G, axis=0), prompts)
    after = rows.next_position[:, None] + jnp.arange(T)
    rows = rows.replace(
        tokens=jnp.concatenate([rows.tokens, tokens.reshape(M * G, T)], axis=1),
        mask=jnp.concatenate([rows.mask, mask.reshape(M * G, T)], axis=1),
        positions=jnp.concatenate([rows.positions, jnp.repeat(after[..., None], 3, axis=-1)], axis=1),
        image_slot=jnp.concatenate([rows.image_slot, jnp.full((M * G, T), -1)], axis=1),
    )
    hidden, _ = model.prefix(params, rows, model.encode(params, rows.vision))
    logps = jax.nn.log_softmax(model.logits(params, hidden[:, S:-1]))
    logps = jnp.take_along_axis(logps, tokens.reshape(M * G, T)[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask.reshape(M * G, T)[:, 1:], logps, 0.0))


@pytest.mark.slow
def test_shared_prefix_equals_the_repeated_prompt():
    """Loss and the gradient of every weight, tower included; with and without rematerialisation."""
    prompts = prompt_batch(M, S)
    plain, remat, dots = (Model.create(TINY, remat=policy) for policy in ("none", "full", "dots"))
    losses = (
        functools.partial(shared_loss, plain),
        functools.partial(shared_loss, remat),
        functools.partial(shared_loss, dots),
        functools.partial(repeated_loss, plain),
    )
    run = jax.jit(lambda params, prompts: [jax.value_and_grad(loss)(params, prompts) for loss in losses])
    shared, rematerialised, products_kept, repeated = run(tiny_params(), prompts)
    for other in (rematerialised, products_kept, repeated):
        paths = jax.tree_util.tree_leaves_with_path(shared)
        for (path, a), b in zip(paths, jax.tree.leaves(other), strict=True):
            scale = float(jnp.max(jnp.abs(b)))
            np.testing.assert_allclose(a, b, atol=1e-4 * scale + 1e-5, err_msg=jax.tree_util.keystr(path))
    assert float(jnp.max(jnp.abs(shared[1]["visual"]["blocks"]["mlp"]["up"]["kernel"]))) > 0


def test_bfloat16_is_close_to_float32():
    """Norms, softmax, rotation and log-probs stay in float32: 8 bits of mantissa cost a per cent or two of the loss."""
    prompts = prompt_batch(M, S)
    models = [Model.create(TINY), Model.create(TINY, compute_dtype=jnp.bfloat16)]
    run = jax.jit(lambda params, prompts: [shared_loss(model, params, prompts) for model in models])
    exact, low = run(tiny_params(), prompts)
    assert low.dtype == jnp.float32 and exact != low
    np.testing.assert_allclose(low, exact, rtol=0.02)


def test_decode_writes_the_cache_in_place():
    """Compiled with a donated cache, a step allocates far less than the cache."""
    model = Model.create(TINY)
    params, prompts = model.abstract(), jax.eval_shape(lambda: prompt_batch(M, S))
    length = 4096
    cache = jax.eval_shape(lambda: model.empty_cache(M, G, length, jnp.float32))
    text = TINY.text
    shape = jax.ShapeDtypeStruct((text.num_layers, M, S, text.num_kv_heads, text.head_dim), jnp.float32)

    def step(params, tokens, t, next_position, kv, mask, cache):
        return model.decode(params, tokens, t, next_position, prefix=kv, prefix_mask=mask, cache=cache)

    args = (
        params,
        jax.ShapeDtypeStruct((M, G), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
        prompts.next_position,
        KV(shape, shape),
        prompts.mask,
        cache,
    )
    compiled = jax.jit(step, donate_argnums=6).lower(*args).compile()
    cache_bytes = 2 * text.num_layers * M * G * length * text.num_kv_heads * text.head_dim * 4
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= cache_bytes
    # One layer's keys and values are read out: a half of this cache, which has two layers.
    assert memory.temp_size_in_bytes < 0.8 * cache_bytes
    assert not re.search(rf"copy\(f32\[{text.num_layers},{M},{G},{length}", compiled.as_text())


# --------------------------------------------------------------------------------------------------------- vocabulary
def test_token_logps_equal_log_softmax():
    """Value and both gradients, with temperature, banned ids and a last chunk that is not full."""
    params, rng = tiny_params(), np.random.default_rng(2)
    hidden = jnp.asarray(rng.normal(size=(3, 5, 32)), jnp.float32)
    banned = jnp.zeros(70, bool).at[jnp.array([3, 60, 69])].set(True)
    targets = jnp.asarray(rng.choice([1, 2, 4, 59], (3, 5)), jnp.int32)

    def chunked(table, hidden):
        out = vocabulary.token_logps(table, hidden, targets, temperature=0.7, banned=banned, rows=4)
        return jnp.sum(out[0] * 0.3 + out[1]), out

    def plain(table, hidden):
        logits = jnp.where(banned, -jnp.inf, hidden @ table.T / 0.7)
        logps = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.where(banned, 0.0, jnp.exp(logps) * jnp.where(banned, 0.0, logps)), axis=-1)
        picked = jnp.take_along_axis(logps, targets[..., None], axis=-1)[..., 0]
        return jnp.sum(picked * 0.3 + entropy), (picked, entropy)

    both = jax.jit(lambda *a: [jax.value_and_grad(f, (0, 1), has_aux=True)(*a) for f in (chunked, plain)])
    ours, theirs = both(params["lm_head"]["table"], hidden)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert jnp.all(ours[1][0][jnp.array([3, 60, 69])] == 0)


def test_banned_target_is_finite():
    model, params = Model.create(TINY), tiny_params()
    logp, entropy = model.token_logps(
        params, jnp.ones((1, 32)), jnp.array([3]), banned=jnp.zeros(70, bool).at[3].set(True)
    )
    assert BANNED * 2 < float(logp[0]) < BANNED / 2 and np.isfinite(entropy[0])
    assert float(jnp.exp(logp[0])) == 0.0


def test_no_buffer_of_positions_times_vocabulary():
    """512 positions in chunks of 32: neither pass holds 512·V, only 32·V."""
    model = Model.create(TINY)

    def loss(params, hidden, targets):
        table = params["lm_head"]["table"]
        return jnp.sum(vocabulary.token_logps(table, hidden, targets, temperature=1.0, banned=None, rows=32)[0])

    hidden = jax.ShapeDtypeStruct((512, 32), jnp.float32)
    targets = jax.ShapeDtypeStruct((512,), jnp.int32)
    text = jax.jit(jax.grad(loss, (0, 1))).lower(model.abstract(), hidden, targets).compile().as_text()
    assert "f32[32,70]" in text
    assert not re.search(r"\[512,70\]|\[16,32,70\]", text)


# ------------------------------------------------------------------------------------------------------------- vision
def test_tower_holds_no_patches_squared():
    """1,024 patches: windows are [.., 64] and full attention runs in blocks of keys; no [1024, 1024] in either pass."""
    model = Model.create(TINY)
    vision = jax.eval_shape(lambda: prompt_batch(1, 4, 1, 1024)).vision

    def loss(params, vision):
        return jnp.sum(model.encode(params, vision) ** 2)

    text = jax.jit(jax.grad(loss)).lower(model.abstract(), vision).compile().as_text()
    assert "1024,512]" in text and "1024,1024]" not in text


def test_no_images_at_all():
    """I = 0: features are empty, and the prompts are text."""
    model = Model.create(TINY)
    prompts = jax.eval_shape(lambda: prompt_batch(2, 6))
    vision = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, 0, *x.shape[2:]), x.dtype), prompts.vision)
    features = jax.eval_shape(model.encode, model.abstract(), vision)
    assert features.shape == (2, 0, 32)
    hidden, _ = jax.eval_shape(model.prefix, model.abstract(), prompts, features)
    assert hidden.shape == (2, 6, 32)
