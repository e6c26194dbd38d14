"""An export has the layout of the hub's Qwen2.5-VL folders, which is what other programs read (docs/weights.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import folders
import jax
import numpy as np
import pytest
import released
from safetensors import safe_open

from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import exporter

UNREAD = {"vision_token_id", "max_window_layers", "sliding_window", "transformers_version"}
"""Fields of the hub's config.json that say nothing of the model: no sliding window is in use."""
NEEDED_VISION = {
    *("depth", "hidden_act", "hidden_size", "intermediate_size", "num_heads", "in_channels", "out_hidden_size"),
    *("patch_size", "spatial_merge_size", "window_size", "fullatt_block_indexes", "tokens_per_second"),
    "temporal_patch_size",
}
SERVED = {  # prefixes of names in a file → in vLLM's model; the first that fits
    "model.language_model.": "language_model.model.",
    "model.visual.": "visual.",
    "lm_head.": "language_model.lm_head.",
    "model.": "language_model.model.",
}
TENSORS = {"3B": 824, "7B": 729}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untied model in several shards."""
    base = tmp_path_factory.mktemp("export")
    shapes = folders.write_folder(base / "shapes")
    config = json.loads((shapes / "config.json").read_text()) | {"tie_word_embeddings": False}
    (shapes / "config.json").write_text(json.dumps(config))
    model, rng = Model.create(ModelConfig.load(shapes)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), model.abstract())
    exporter.save_hf(base / "hf", params, model, source=shapes, shard_bytes=60_000)
    return base / "hf"


def test_config_is_flat_and_has_every_field_of_the_hub(exported: Path) -> None:
    config, hub = json.loads((exported / "config.json").read_text()), released.HUB["3B"]
    assert set(hub) - set(config) == UNREAD and "text_config" not in config
    assert config["architectures"] == hub["architectures"] and config["model_type"] == hub["model_type"]
    assert config["rope_scaling"].keys() == hub["rope_scaling"].keys() and config["rope_scaling"]["type"] == "mrope"
    assert config["vision_config"].keys() >= NEEDED_VISION
    assert config["torch_dtype"] == config["dtype"] == "float32"


@pytest.mark.parametrize("size", released.HUB)
def test_a_released_config_comes_back_field_by_field(size: str) -> None:
    written, hub = ModelConfig.from_hf(released.HUB[size]).to_hf(), released.HUB[size]
    for name in hub.keys() - UNREAD - {"vision_config", "torch_dtype"}:
        assert written[name] == hub[name], name
    for name in hub["vision_config"].keys() - {"in_chans", "spatial_patch_size", "torch_dtype"}:
        assert written["vision_config"][name] == hub["vision_config"][name], name


def test_index_and_shards_are_named_as_on_the_hub(exported: Path) -> None:
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in exported.glob("*.safetensors"))
    count = len(files)
    assert count > 1 and files == [f"model-{k + 1:05d}-of-{count:05d}.safetensors" for k in range(count)]
    assert index.keys() == {"metadata", "weight_map"} and set(index["weight_map"].values()) == set(files)
    total = 0
    for file in files:
        with safe_open(exported / file, framework="numpy") as handle:
            assert handle.metadata() == {"format": "pt"}  # transformers 4 refuses a file that does not say so
            assert set(handle.keys()) == {name for name, place in index["weight_map"].items() if place == file}
            total += sum(handle.get_tensor(name).nbytes for name in handle.keys())  # noqa: SIM118
    assert index["metadata"]["total_size"] == total


def test_names_are_the_hubs_and_every_one_finds_its_place_in_vllm(exported: Path) -> None:
    names = json.loads((exported / "model.safetensors.index.json").read_text())["weight_map"]
    for name in names:
        assert re.match(
            r"(visual\.(patch_embed|blocks\.\d+|merger)|model\.(embed_tokens|layers\.\d+|norm)|lm_head)\.", name
        )
        mapped = next((new + name[len(old) :] for old, new in SERVED.items() if name.startswith(old)), name)
        assert mapped.startswith(("visual.", "language_model.model.", "language_model.lm_head.")), name
    assert {"lm_head.weight", "model.embed_tokens.weight", "visual.merger.ln_q.weight"} <= names.keys()


@pytest.mark.parametrize("size", TENSORS)
def test_there_are_as_many_tensors_as_on_the_hub(size: str) -> None:
    specs = jax.tree.leaves(Model.create(ModelConfig.from_hf(released.HUB[size])).specs)
    assert sum(spec.shape[0] if spec.axes[0] == "layers" else 1 for spec in specs) == TENSORS[size]
