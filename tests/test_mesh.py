"""Mesh and sharding rules, on eight CPU devices."""

import dataclasses
import types
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model


@dataclasses.dataclass(frozen=True)
class Spec:
    shape: tuple[int, ...]
    axes: tuple[str, ...]


needs_eight = pytest.mark.skipif(len(jax.devices()) < 8, reason="needs XLA_FLAGS for eight CPU devices")


@needs_eight
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((), (8, 1, 1)), ((2, 2, 2), (2, 2, 2)), ((1, -1, 2), (1, 4, 2)), ((1, 1, -1), (1, 1, 8)), ((4, 2, 1), (4, 2, 1))],
)
def test_mesh_takes_all_devices_with_explicit_axis_types(sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    mesh = meshes.make_mesh(*sizes, devices=jax.devices()[:8])
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == meshes.MESH_AXES
    assert mesh.axis_types == (AxisType.Auto,) * 3


@needs_eight
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1), "mesh.data=3.* needs 3 devices but there are 8"),
        ((-1, 3, 1), "a multiple of 3 devices but there are 8"),
        ((2, 2, 1), "needs 4 devices but there are 8"),
        ((16, 1, 1), "needs 16 devices but there are 8"),
        ((-1, -1, 1), "only one mesh axis may be -1"),
        ((-1, 0, 1), "must be positive or -1"),
    ],
)
def test_mesh_that_does_not_divide_the_devices_gives_both_counts(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meshes.make_mesh(*sizes, devices=jax.devices()[:8])


@needs_eight
def test_batches_are_split_over_data_and_fsdp() -> None:
    mesh = meshes.make_mesh(2, 2, 2)
    assert meshes.batch_sharding(mesh).spec == P(("data", "fsdp"))
    x = jax.device_put(np.arange(8.0), meshes.batch_sharding(mesh))
    assert {s.data.shape for s in x.addressable_shards} == {(2,)}
    meshes.require_divisible(mesh, rollout__batch_prompts=8)
    with pytest.raises(ValueError, match=r"rollout.batch_prompts=6 .* data=2 × fsdp=2 = 4 .* multiple of 4"):
        meshes.require_divisible(mesh, rollout__batch_prompts=6)


@pytest.mark.parametrize(("sizes", "mixed"), [((4, 1, 2), ""), ((1, 2, 4), ""), ((2, 1, 4), ""), ((1, 1, 8), "0, 1")])
def test_devices_that_compute_one_prompt_are_of_one_process(sizes: tuple[int, int, int], mixed: str) -> None:
    """Two processes of four devices each."""
    devices: Any = np.array([types.SimpleNamespace(process_index=index // 4) for index in range(8)], object)
    mesh: Any = types.SimpleNamespace(
        devices=devices.reshape(sizes), shape=dict(zip(meshes.MESH_AXES, sizes, strict=True))
    )
    if not mixed:
        meshes.require_own_prompts(mesh)
        return
    with pytest.raises(ValueError, match=rf"mesh.tensor=8 .* processes {mixed}, .* divides the 4 devices of a process"):
        meshes.require_own_prompts(mesh)


@needs_eight
def test_rules_for_training_and_sampling() -> None:
    mesh = meshes.make_mesh(2, 2, 2)
    specs = {"text": {"q": Spec((3, 8, 4, 16), ("layers", "embed", "heads", "head_dim"))}, "n": Spec((8,), ("norm",))}
    trained = meshes.shardings(specs, mesh)
    assert trained["text"]["q"].spec == P(None, "fsdp", "tensor")
    assert trained["n"].spec == P()
    assert meshes.shardings(specs, mesh, rules=meshes.SAMPLE_RULES)["text"]["q"].spec == P(None, None, "tensor")


@needs_eight
def test_an_axis_that_does_not_divide_is_an_error_but_for_kv_heads() -> None:
    mesh = meshes.make_mesh(1, 2, 4)
    kv = meshes.shardings({"k": Spec((8, 2, 16), ("embed", "kv_heads", "head_dim"))}, mesh)
    assert kv["k"].spec == P("fsdp")
    with pytest.raises(ValueError, match=r"mesh.tensor=4 does not divide axis 'heads' of .*'text/q' \(6\).*1, 2, 3, 6"):
        meshes.shardings({"text": {"q": Spec((8, 6), ("embed", "heads"))}}, mesh)


def test_unknown_axes_and_missing_axes_are_named() -> None:
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="parameter 'a/b' has logical axis 'colour' without a sharding rule"):
        meshes.shardings({"a": {"b": Spec((2,), ("colour",))}}, mesh)
    with pytest.raises(ValueError, match="one axis a dimension"):
        meshes.shardings({"b": Spec((2, 3), ("embed",))}, mesh)


def real_config(size: str) -> ModelConfig:
    """The published shapes of the 3B and 7B models."""
    text = {
        "3b": dict(hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
                   intermediate_size=11008, vocab_size=151936, tie_word_embeddings=True),
        "7b": dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                   intermediate_size=18944, vocab_size=152064, tie_word_embeddings=False),
    }[size]  # fmt: skip
    vision = dict(depth=32, hidden_size=1280, num_heads=16, intermediate_size=3420, patch_size=14,
                  temporal_patch_size=2, spatial_merge_size=2, window_size=112, fullatt_block_indexes=[7, 15, 23, 31],
                  out_hidden_size=text["hidden_size"], tokens_per_second=2, in_chans=3)  # fmt: skip
    rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    ids = dict(image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
               bos_token_id=151643, eos_token_id=151645)  # fmt: skip
    return ModelConfig.from_hf(
        {"model_type": "qwen2_5_vl", **text, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": rope,
         "vision_config": vision, **ids}
    )  # fmt: skip


@needs_eight
@pytest.mark.parametrize("size", ["3b", "7b"])
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (1, 2, 4)])
def test_real_shapes_have_a_sharding_for_every_weight(size: str, sizes: tuple[int, int, int]) -> None:
    mesh = meshes.make_mesh(*sizes)
    model = Model.create(real_config(size))
    for rules in (meshes.TRAIN_RULES, meshes.SAMPLE_RULES):
        tree = meshes.shardings(model.specs, mesh, rules=rules)
        shards = jax.tree.map(lambda spec, sharding: sharding.shard_shape(spec.shape), model.specs, tree)
        whole = sum(np.prod(s.shape) for s in jax.tree.leaves(model.specs, is_leaf=lambda s: hasattr(s, "axes")))
        held = sum(np.prod(s) for s in jax.tree.leaves(shards, is_leaf=lambda s: isinstance(s, tuple)))
        parts = mesh.shape["tensor"] * (mesh.shape["fsdp"] if rules is meshes.TRAIN_RULES else 1)
        # Norms and biases are whole; they and the 3B model's two kv heads must not cost more than 3% a device.
        assert whole / parts <= held < whole / parts * 1.03 + whole * 0.005
