"""How a step is laid out on devices, and the counts that its roofline is made of, against compiled programs."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import released
from programs import building, roofline
from test_model import TINY, prompt_batch

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.fgrpo import forward
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

QUICK = {"xla_backend_optimization_level": 0}
GROUP, WINDOW = 3, 6


def abstract(model: Model, prompts: int, length: int, mesh: Any = None) -> tuple[Any, ...]:
    """(params, prompts, completions) as shapes, placed as a run places them."""
    batch = jax.eval_shape(lambda: prompt_batch(prompts, length))
    tokens = jax.ShapeDtypeStruct((prompts, GROUP, WINDOW), jnp.int32)
    if mesh is None:
        return model.abstract(), batch, tokens
    place = lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to)  # noqa: E731
    params = jax.tree.map(place, model.abstract(), meshes.shardings(model.specs, mesh))
    return params, *jax.tree.map(lambda x: place(x, meshes.batch_sharding(mesh)), (batch, tokens))


def loss(model: Model, params: Any, prompts: Any, tokens: Any) -> jax.Array:
    features = jnp.zeros((tokens.shape[0], 0, TINY.text.hidden_size))
    banned = jnp.zeros(TINY.text.vocab_size, bool)
    mask = jnp.ones(tokens.shape, bool)
    known: dict[str, Any] = {"temperature": 1.0, "banned": banned}
    return forward.completion_logps(model, params, prompts, features, tokens, mask, **known)[0].sum()


def test_no_device_holds_the_whole_batch_or_sums_activations() -> None:
    """Weights split in D over 'fsdp' are gathered; the compiler is not to follow them and split activations in D."""
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices (tests/conftest.py asks for 8 on CPU)")
    mesh = meshes.make_mesh(1, 8, 1)
    model = Model.create(TINY, mesh=mesh)
    run = jax.jit(jax.grad(lambda *args: loss(model, *args)), compiler_options=QUICK)
    text = run.lower(*abstract(model, 24, 11, mesh)).compile().as_text() or ""
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", text)}
    assert (1, 3 * (11 + GROUP * WINDOW), 32) in shapes, "the stream of a device's own prompts, whole in D"
    whole = [shape for shape in shapes if shape[0] in (8, 24, 24 * GROUP) and shape[-1] in (32, 48)]
    assert not whole, f"activations of all 24 prompts on one device: {whole}"


def test_operations_are_those_of_the_compiled_program() -> None:
    """One layer, so that the compiler's count, which takes a loop's body once, is of all of it."""
    config = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, num_layers=1))
    model = Model.create(config)
    sizes = {"prompts": 1, "group": GROUP, "prompt_tokens": 300, "new_tokens": WINDOW}  # attention loops over prompts
    run = jax.jit(lambda *args: loss(model, *args), compiler_options=QUICK)
    seen: Any = run.lower(*abstract(model, 1, 300)).compile().cost_analysis()
    counted = sum(roofline.forward_operations(config, **sizes).values())
    # What is counted by hand are products; norms, rotations and softmax are the rest of a model this thin.
    assert 0.9 * counted < seen["flops"] < 1.6 * counted


def test_a_deeper_recomputation_counts_more() -> None:
    model, shape = ModelConfig.from_hf(released.HUB["3B"]), building.bucket(1024, 2048)
    counted = [roofline.step_operations(Config(), shape, model, remat=remat) for remat in ("none", "dots", "full")]
    none, dots, full = counted
    assert none["layers"] == dots["layers"] < full["layers"] and none["attention"] < dots["attention"]
    assert full["vision"] == none["vision"] and none["vocabulary"] == full["vocabulary"]
    # 128 prompts of 1,024 tokens with 5 × 1,024 more: 786k tokens, 2.77G weights of layers, 2 + 1 + 6 + 2 a weight.
    assert abs(full["layers"] / (128 * 6144 * 2.774e9 * 2 * 5.5) - 1) < 0.01
