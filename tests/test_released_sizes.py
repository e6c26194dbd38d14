"""The four released sizes without a byte of them: parameters, names, a forward pass, the sharding of every array."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import released
import sharding_table
from test_model import prompt_batch

from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model


def model(size: str) -> Model:
    return Model.create(ModelConfig.from_hf(released.HUB[size]), compute_dtype=jnp.bfloat16)


@pytest.mark.parametrize("size", released.HUB)
def test_parameter_counts_are_the_published_ones(size: str) -> None:
    leaves = jax.tree.leaves(model(size).abstract())
    assert sum(leaf.size for leaf in leaves) == released.PARAMETERS[size]


@pytest.mark.parametrize("size", released.HUB)
def test_names_and_shapes_equal_transformers(size: str) -> None:
    """Every tensor of the checkpoint, by its hub name; neither side allocates anything."""
    torch = pytest.importorskip("torch", reason="comparison with transformers needs torch (the 'test' extra)")
    import transformers

    with torch.device("meta"):
        theirs = transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig(**released.flat(size)))
    shapes = {hub_name(name): tuple(weight.shape) for name, weight in theirs.named_parameters()}
    ours = {}
    for spec in jax.tree.leaves(model(size).specs):
        layers = range(spec.shape[0]) if spec.axes[0] == "layers" else (None,)
        ours |= {spec.hf.name.format(layer): spec.hf.shape for layer in layers}
    assert ours == shapes
    assert sum(weight.numel() for weight in theirs.parameters()) == released.PARAMETERS[size]


def hub_name(name: str) -> str:
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


@pytest.mark.parametrize("size", released.HUB)
def test_a_forward_pass_has_the_right_shapes(size: str) -> None:
    m, s, i, p, g, t = 2, 64, 2, 128, 3, 5
    whole, config = model(size), released.HUB[size]
    params = whole.abstract(jnp.bfloat16)
    batch = jax.eval_shape(lambda: prompt_batch(m, s, i, p))
    features = jax.eval_shape(whole.encode, params, batch.vision)
    assert features.shape == (m, i * p // 4, config["hidden_size"])
    hidden, kv = jax.eval_shape(whole.prefix, params, batch, features)
    kv_shape = (config["num_hidden_layers"], m, s, config["num_key_value_heads"], 128)
    assert hidden.shape == (m, s, config["hidden_size"]) and kv.k.shape == kv.v.shape == kv_shape
    tokens, mask = (jax.ShapeDtypeStruct((m, g, t), dtype) for dtype in (jnp.int32, bool))
    suffix = jax.eval_shape(whole.suffix, params, tokens, mask, batch.next_position, prefix=kv, prefix_mask=batch.mask)
    logits = jax.eval_shape(whole.logits, params, suffix)
    assert (logits.shape, logits.dtype) == ((m, g, t, config["vocab_size"]), jnp.float32)


@pytest.mark.parametrize("size", released.HUB)
def test_sharding_of_every_array_is_the_one_looked_at(size: str) -> None:
    """After a change on purpose: python tools/sharding_table.py --write, and read the difference."""
    assert sharding_table.table(size) == sharding_table.golden_file(size).read_text(encoding="utf-8")


@pytest.mark.parametrize("size", released.HUB)
def test_what_is_left_whole_is_small(size: str) -> None:
    """Of the arrays that no axis of the mesh splits, all together are less than a thousandth of the model."""
    lines = sharding_table.table(size).splitlines()
    whole = [int(line.split()[3].replace(",", "")) for line in lines if " whole " in line]
    assert whole and sum(whole) < released.PARAMETERS[size] / 1000
    assert len(lines) == len(jax.tree.leaves(model(size).specs)) + 5
