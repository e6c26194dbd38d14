"""Reading and writing config.json in both dialects, with the defaults that transformers would read."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig

HUB_3B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
SPARSE = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
}
NESTED = {
    "model_type": "qwen2_5_vl",
    "image_token_id": 7,
    "video_token_id": 8,
    "text_config": {
        "model_type": "qwen2_5_vl_text",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "mrope_section": [2, 3, 3]},
    },
    "vision_config": {
        "depth": 4,
        "hidden_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1, 3],
        "rope_parameters": {"rope_type": "axial", "rope_theta": 777.0},
    },
}


def test_released_3b():
    config = ModelConfig.from_hf(HUB_3B)
    assert config.text == TextConfig(
        hidden_size=2048,
        num_layers=36,
        num_heads=16,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=11008,
        vocab_size=151936,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        mrope_section=(16, 24, 24),
        tie_word_embeddings=True,
        max_position_embeddings=128000,
    )
    assert config.vision == VisionConfig(hidden_size=1280, out_hidden_size=2048, tokens_per_second=2)
    assert (config.image_token_id, config.eos_token_id, config.pad_token_id) == (151655, 151645, None)


@pytest.mark.parametrize("source", [HUB_3B, SPARSE, NESTED], ids=["hub", "sparse", "nested"])
def test_round_trip(source):
    """What we write we read back the same, from JSON; a config can be a static argument."""
    config = ModelConfig.from_hf(source)
    again = ModelConfig.from_hf(json.loads(json.dumps(config.to_hf())))
    assert again == config and hash(again) == hash(config)


@pytest.mark.parametrize("source", [HUB_3B, SPARSE, NESTED], ids=["hub", "sparse", "nested"])
@pytest.mark.parametrize("written", [False, True], ids=["given", "rewritten"])
def test_equals_what_transformers_reads(source, written, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = ModelConfig.from_hf(source)
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf() if written else source))
    theirs = transformers.Qwen2_5_VLConfig.from_pretrained(tmp_path)
    text, vision = theirs.text_config, theirs.vision_config
    for ours, name in (
        ("num_layers", "num_hidden_layers"),
        ("num_heads", "num_attention_heads"),
        ("num_kv_heads", "num_key_value_heads"),
    ):
        assert getattr(config.text, ours) == getattr(text, name)
    for name in ("hidden_size", "intermediate_size", "vocab_size", "rms_norm_eps", "max_position_embeddings"):
        assert getattr(config.text, name) == getattr(text, name), name
    assert config.text.rope_theta == text.rope_parameters["rope_theta"]
    assert list(config.text.mrope_section) == text.rope_parameters["mrope_section"]
    assert config.text.tie_word_embeddings == theirs.tie_word_embeddings
    for field in dataclasses.fields(VisionConfig):
        if field.name == "rope_theta":
            assert config.vision.rope_theta == vision.rope_parameters["rope_theta"]
        elif field.name == "fullatt_block_indexes":
            assert list(config.vision.fullatt_block_indexes) == list(vision.fullatt_block_indexes)
        else:
            assert getattr(config.vision, field.name) == getattr(vision, field.name), field.name
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        assert getattr(config, name) == getattr(theirs, name)
    eos = config.eos_token_id
    assert (list(eos) if isinstance(eos, tuple) else eos) == text.eos_token_id
    assert (config.bos_token_id, config.pad_token_id) == (text.bos_token_id, text.pad_token_id)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "qwen2_vl", "this config is a Qwen2-VL checkpoint .*only Qwen2.5-VL.*'qwen2_5_vl'"),
        ("use_sliding_window", True, "sliding"),
        ("layer_types", ["full_attention", "sliding_attention"], "layer_types name sliding_attention"),
        ("hidden_act", "gelu", "only 'silu'"),
        ("num_attention_heads", 15, "hidden_size 2048 must be a multiple of num_heads 15"),
        ("num_key_value_heads", 3, "num_heads 16 must be a multiple of num_kv_heads 3"),
        ("head_dim", 64, "head_dim 64 x num_heads 16 must equal hidden_size 2048"),
        ("rope_scaling", {"type": "yarn", "mrope_section": [16, 24, 24]}, "'yarn'"),
        ("rope_scaling", {"type": "mrope", "mrope_section": [16, 24, 23]}, "sums to 63"),
        ("vision_config/out_hidden_size", 3584, "3584 must equal text hidden_size 2048"),
        ("vision_config/hidden_act", "gelu", "vision hidden_act"),
        ("vision_config/num_heads", 7, "multiple of num_heads 7"),
        ("vision_config/window_size", 100, "window_size 100 must be a multiple of"),
        ("vision_config/patch_size", [14, 14], "only one number"),
    ],
)
def test_what_is_not_implemented_is_refused(path, value, message):
    source = copy.deepcopy(HUB_3B)
    *parents, last = path.split("/")
    at = source
    for parent in parents:
        at = at[parent]
    at[last] = value
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf(source)


def test_load_names_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        ModelConfig.load(tmp_path)
