"""One model, written in any dialect of config, weight names or processor files, is the same model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released
from safetensors.numpy import load_file, save_file

from fgrpo_jax.data.limits import PixelLimits
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import exporter, importer

transformers = pytest.importorskip("transformers")

DIALECTS = {"flat": released.flat, "nested": released.nested, "both": released.both}


def theirs(config: dict, folder: Path) -> ModelConfig:
    """What `Qwen2_5_VLConfig.from_pretrained` reads of a config.json, in our record."""
    (folder / "config.json").write_text(json.dumps(config))
    read = transformers.Qwen2_5_VLConfig.from_pretrained(folder)
    text, vision = read.text_config, read.vision_config
    eos = text.eos_token_id
    return ModelConfig(
        text=TextConfig(
            hidden_size=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_heads=text.num_attention_heads,
            num_kv_heads=text.num_key_value_heads,
            head_dim=text.hidden_size // text.num_attention_heads,
            intermediate_size=text.intermediate_size,
            vocab_size=text.vocab_size,
            rope_theta=text.rope_parameters["rope_theta"],
            rms_norm_eps=text.rms_norm_eps,
            mrope_section=tuple(
                text.rope_parameters.get("mrope_section", (16, 24, 24))
            ),  # as its modelling code has it
            tie_word_embeddings=read.tie_word_embeddings,
            max_position_embeddings=text.max_position_embeddings,
        ),
        vision=VisionConfig(
            **{f.name: getattr(vision, f.name) for f in dataclasses.fields(VisionConfig) if f.name not in _OWN},
            fullatt_block_indexes=tuple(vision.fullatt_block_indexes),
            rope_theta=vision.rope_parameters["rope_theta"],
        ),
        **{name: getattr(read, name) for name in _IDS},
        bos_token_id=text.bos_token_id,
        eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
        pad_token_id=text.pad_token_id,
    )


_OWN = ("fullatt_block_indexes", "rope_theta")
_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


# -------------------------------------------------------------------------------------------------------- config.json
@pytest.mark.parametrize("size", released.HUB)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_released_sizes_in_every_dialect(size, dialect, tmp_path):
    config = DIALECTS[dialect](size)
    ours = ModelConfig.from_hf(config)
    assert ours == theirs(config, tmp_path)
    assert ours == ModelConfig.from_hf(released.HUB[size])
    assert ours == theirs(ours.to_hf(), tmp_path)  # what we write is read back the same by both
    assert ours.text.rms_norm_eps == 1e-6 and ours.vision.tokens_per_second == 2
    assert ours.text.tie_word_embeddings == (size == "3B")


ODD = {
    "names of another class in the vision part": {
        "vision_config": {
            "hidden_size": 1280,
            "out_hidden_size": 2048,
            "num_attention_heads": 10,
            "num_hidden_layers": 9,
        }
    },
    "vision base beside the other fields": {
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048, "rope_theta": 5000.0}
    },
    "no rope": {"rope_scaling": None},
    "rope without sections": {"rope_scaling": {"type": "mrope"}},
    "both names of the rope type": {
        "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 7.0}
    },
    "rope_parameters at the top": {
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 24, 32]},
        "rope_theta": 9.0,
    },
    "as many kv heads as heads": {"num_key_value_heads": None},
    "no special tokens": {"eos_token_id": None, "bos_token_id": None},
    "several ends": {"eos_token_id": [151645, 151643]},
    "untied": {"tie_word_embeddings": False},
    "no text_config after all": {"text_config": None},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_files_are_read_as_transformers_reads_them(change, tmp_path):
    config = released.flat("3B") | change
    assert ModelConfig.from_hf(config) == theirs(config, tmp_path)


SPARSE = {
    "flat": {"model_type": "qwen2_5_vl", "vision_config": {"out_hidden_size": 8192}},
    "nested": {"model_type": "qwen2_5_vl", "text_config": {"hidden_size": 3584, "num_attention_heads": 28,
               "num_key_value_heads": 4}},
    "nested, tied inside": {"text_config": {"tie_word_embeddings": True}, "vision_config": {"out_hidden_size": 8192}},
    "nested, tied outside": {"text_config": {}, "tie_word_embeddings": True,
                             "vision_config": {"out_hidden_size": 8192}},
}  # fmt: skip


@pytest.mark.parametrize("config", SPARSE.values(), ids=SPARSE)
def test_absent_fields_take_the_defaults_of_transformers(config, tmp_path):
    read = ModelConfig.from_hf(config)
    assert read == theirs(config, tmp_path)
    assert read.vision.tokens_per_second == 4  # its default, not the released 2


# ------------------------------------------------------------------------------------------------------------- arrays
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_both_dialects_give_the_same_arrays(tied, tmp_path):
    """The hub's folder, and one as a newer transformers writes it: nested config, in-memory names."""
    shapes = folders.write_folder(tmp_path / "shapes")
    config = json.loads((shapes / "config.json").read_text()) | {"tie_word_embeddings": tied}
    (shapes / "config.json").write_text(json.dumps(config))
    model = Model.create(ModelConfig.load(shapes))
    hub, new = tmp_path / "hub", tmp_path / "new"
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), model.abstract())
    exporter.save_hf(hub, params, model, source=shapes)
    shutil.copytree(hub, new)
    read = transformers.Qwen2_5_VLConfig.from_pretrained(hub)
    (new / "config.json").write_text(json.dumps(read.to_dict()))
    assert "text_config" in json.loads((new / "config.json").read_text()) and "text_config" not in config
    tensors = load_file(hub / "model.safetensors")
    assert ("lm_head.weight" in tensors) != tied
    save_file({in_memory_name(name): value for name, value in tensors.items()}, new / "model.safetensors")
    assert ModelConfig.load(new) == ModelConfig.load(hub)
    first, second = (importer.load_hf(folder, model, dtype=jnp.float32) for folder in (hub, new))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def in_memory_name(name: str) -> str:
    for hub, memory in (("model.", "model.language_model."), ("visual.", "model.visual.")):
        if name.startswith(hub):
            return memory + name[len(hub) :]
    return name


# ---------------------------------------------------------------------------------------------------- processor files
COMMON = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_processor_type": "Qwen2VLImageProcessor",
}
EDGES = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
FLAT = {"min_pixels": 3136, "max_pixels": 12845056}
PREPROCESSORS = {
    "flat": FLAT,
    "edges": EDGES,
    "edges, the flat names null": {**EDGES, "min_pixels": None, "max_pixels": None},
    "both, the flat ones win": {"size": {"shortest_edge": 1, "longest_edge": 2}, **FLAT},
    "one of each": {"size": {"shortest_edge": 1, "longest_edge": 12845056}, "min_pixels": 3136},
}  # fmt: skip


@pytest.mark.parametrize("settings", PREPROCESSORS.values(), ids=PREPROCESSORS)
@pytest.mark.parametrize("nested", [False, True], ids=["own file", "transformers 5"])
def test_pixel_limits_equal_transformers(settings, nested, tmp_path):
    content, name = COMMON | settings, "preprocessor_config.json"
    if nested:  # the only file that transformers 5 writes; beside an old one it wins
        (tmp_path / name).write_text(json.dumps(COMMON | {"min_pixels": 784, "max_pixels": 785}))
        content, name = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": content}, "processor_config.json"
    (tmp_path / name).write_text(json.dumps(content))
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    reference = pil.Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    want = (reference.size["shortest_edge"], reference.size["longest_edge"])
    assert PixelLimits.load(tmp_path).image == want == (3136, 12845056)


def test_video_frames_have_limits_of_their_own_where_given(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COMMON | EDGES))
    assert PixelLimits.load(tmp_path).video == (3136, 12845056)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"min_pixels": 100352, "max_pixels": 602112}))
    assert PixelLimits.load(tmp_path).video == (100352, 602112)
    edges = {"size": {"shortest_edge": 4, "longest_edge": 5}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": edges}))
    assert PixelLimits.load(tmp_path) == PixelLimits(image=(3136, 12845056), video=(4, 5))


def test_a_folder_as_transformers_5_saves_it(tmp_path):
    """One processor_config.json, the chat template in a file of its own."""
    folder = folders.write_folder(tmp_path / "hub")
    before = Processor.load(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    low, high = settings.pop("min_pixels"), settings.pop("max_pixels")
    settings["size"] = {"shortest_edge": low, "longest_edge": high}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    (folder / "preprocessor_config.json").unlink()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    template = tokenizer.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="no chat template"):
        Processor.load(folder)
    for name, content in (("chat_template.json", json.dumps({"chat_template": template})),
                          ("chat_template.jinja", template)):  # fmt: skip
        (folder / name).write_text(content)
        after = Processor.load(folder)
        assert after.tokenizer.chat_template == before.tokenizer.chat_template
        assert (after.min_pixels, after.max_pixels) == (before.min_pixels, before.max_pixels) == (784, 200704)
        (folder / name).unlink()
