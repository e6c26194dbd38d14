"""Hugging Face folders in and out: exact round trips, both namings, an error with a name for whatever is off."""

from __future__ import annotations

import errno
import json
import logging
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from policies import SMALL_TEXT
from safetensors.numpy import load_file, save_file

from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import exporter, importer, leaves, shards

CONFIG = ModelConfig(
    text=TextConfig(
        **SMALL_TEXT,
        vocab_size=70,
        rms_norm_eps=1e-6,
    ),
    vision=VisionConfig(
        depth=3, hidden_size=16, num_heads=2, intermediate_size=20, out_hidden_size=32, fullatt_block_indexes=(2,)
    ),
    image_token_id=60,
    video_token_id=61,
    vision_start_token_id=62,
    vision_end_token_id=63,
    bos_token_id=64,
    eos_token_id=65,
    pad_token_id=66,
)
MODEL = Model.create(CONFIG)
TENSORS = 3 + 2 * 12 + 1 + 3 * 12 + 5  # embed, norm, head; decoder layers; patch embed; blocks; merger


def random_params(model=MODEL, dtype=np.float32):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda spec: rng.normal(size=spec.shape).astype(dtype), model.specs)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture
def folder(tmp_path):
    exporter.save_hf(tmp_path / "saved", random_params(), MODEL)
    return tmp_path / "saved"


@pytest.fixture
def sharded(tmp_path):
    exporter.save_hf(tmp_path / "sharded", random_params(), MODEL, shard_bytes=2e4)
    return tmp_path / "sharded"


def rewrite(folder, change):
    """Replace the tensors of a single-file folder by `change(tensors)`."""
    tensors = load_file(folder / shards.SINGLE)
    save_file(change(tensors), folder / shards.SINGLE)


# --------------------------------------------------------------------------------------------------------- round trips
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shard_bytes", [5e9, 2e4], ids=["single", "sharded"])
def test_round_trip_is_exact(tmp_path, dtype, shard_bytes):
    params = random_params(dtype=dtype)
    exporter.save_hf(tmp_path / "out", params, MODEL, shard_bytes=shard_bytes)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (shards.INDEX in files) == (shard_bytes < 5e9)
    assert ModelConfig.load(tmp_path / "out") == CONFIG
    assert_same(importer.load_hf(tmp_path / "out", MODEL, dtype=dtype), params)


def test_second_export_has_the_same_bytes(tmp_path, sharded):
    again = importer.load_hf(sharded, MODEL, dtype=jnp.float32)
    exporter.save_hf(tmp_path / "again", again, MODEL, shard_bytes=2e4)
    names = {path.name for path in sharded.iterdir()}
    assert names == {path.name for path in (tmp_path / "again").iterdir()}
    for name in names:
        assert (sharded / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_index_lists_every_tensor_in_its_file(sharded):
    index = json.loads((sharded / shards.INDEX).read_text())
    assert len(index["weight_map"]) == TENSORS
    for file in set(index["weight_map"].values()):
        tensors = load_file(sharded / file)
        assert sorted(tensors) == sorted(name for name, place in index["weight_map"].items() if place == file)
        assert sum(x.nbytes for x in tensors.values()) <= 2e4 or len(tensors) == 1
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(random_params()))


def test_both_namings_load_the_same(folder):
    def renamed(tensors):
        return {
            name.replace("model.", "model.language_model.", 1)
            if name.startswith("model.")
            else name.replace("visual.", "model.visual.", 1): value
            for name, value in tensors.items()
        }

    rewrite(folder, renamed)
    assert any(name.startswith("model.visual.blocks") for name in load_file(folder / shards.SINGLE))
    assert_same(importer.load_hf(folder, MODEL, dtype=jnp.float32), random_params())


def test_projections_are_transposed_and_layers_stacked(folder):
    tensors = load_file(folder / shards.SINGLE)
    params = random_params()
    kernel = params["text"]["layers"]["attn"]["q"]["kernel"][1]  # [D, N, H]
    np.testing.assert_array_equal(tensors["model.layers.1.self_attn.q_proj.weight"], kernel.reshape(32, 32).T)
    conv = tensors["visual.patch_embed.proj.weight"]
    assert conv.shape == (16, 3, 2, 14, 14)
    np.testing.assert_array_equal(conv.reshape(16, -1).T, params["visual"]["patch_embed"]["kernel"])


def test_dtype_is_converted_on_the_way_in(folder):
    loaded = importer.load_hf(folder, MODEL, dtype=jnp.bfloat16)
    assert_same(loaded, random_params(dtype=ml_dtypes.bfloat16))


def test_shardings_place_the_leaves(folder):
    device = jax.devices()[-1]
    shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(device), MODEL.specs)
    loaded = importer.load_hf(folder, MODEL, dtype=jnp.float32, shardings=shardings)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(loaded))
    with pytest.raises(ValueError, match="shardings have 1 leaves"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32, shardings={"text": jax.tree.leaves(shardings)[0]})


def tied_model():
    text = CONFIG.text.__class__(**{**CONFIG.text.__dict__, "tie_word_embeddings": True})
    return Model.create(ModelConfig(**{**CONFIG.__dict__, "text": text}))


def test_tied_embeddings_have_no_head(tmp_path):
    model = tied_model()
    params = random_params(model)
    assert "lm_head" not in params
    exporter.save_hf(tmp_path / "tied", params, model)
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / shards.SINGLE)
    table = params["text"]["embed"]["table"]
    rewrite(tmp_path / "tied", lambda tensors: tensors | {"lm_head.weight": table})
    assert_same(importer.load_hf(tmp_path / "tied", model, dtype=jnp.float32), params)
    rewrite(tmp_path / "tied", lambda tensors: tensors | {"lm_head.weight": table + 1})
    with pytest.raises(ValueError, match=r"lm_head.weight.*tie_word_embeddings to false"):
        importer.load_hf(tmp_path / "tied", model, dtype=jnp.float32)


# -------------------------------------------------------------------------------------------------------------- errors
NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != NORM}, rf"1 tensors missing from .*saved, first \['{NORM}'\]"),
        (
            lambda t: t | {"model.layers.2.foo": t[NORM]},
            r"1 unknown tensors in .*model.layers.2.foo' in model.safetensors",
        ),
        (
            lambda t: t | {NORM.replace("model.", "model.language_model."): t[NORM]},
            r"duplicate tensor: .*model.l.* in model.safetensors",
        ),
        (lambda t: t | {NORM: t[NORM][:-1]}, rf"'{NORM}' in model.safetensors has shape \(31,\).* gives \(32,\)"),
        (lambda t: t | {NORM: t[NORM].astype(np.int32)}, rf"'{NORM}' in model.safetensors has dtype I32"),
    ],
    ids=["missing", "unknown", "duplicate", "mis-shaped", "integers"],
)
def test_tensors_that_are_off(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)


def test_truncated_file(folder):
    path = folder / shards.SINGLE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)


def test_missing_shard_and_wrong_index(sharded):
    index = json.loads((sharded / shards.INDEX).read_text())
    name, file = next(iter(index["weight_map"].items()))
    other = next(place for place in index["weight_map"].values() if place != file)
    (sharded / shards.INDEX).write_text(json.dumps(index | {"weight_map": index["weight_map"] | {name: other}}))
    with pytest.raises(ValueError, match=rf"(missing|unknown) tensor '{name}'"):
        importer.load_hf(sharded, MODEL, dtype=jnp.float32)
    (sharded / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        importer.load_hf(sharded, MODEL, dtype=jnp.float32)


def test_folder_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither model.safetensors"):
        importer.load_hf(tmp_path, MODEL, dtype=jnp.float32)


def test_save_refuses_a_folder_with_content(folder):
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(FileExistsError, match="not empty"):
        exporter.save_hf(folder, random_params(), MODEL)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_save_into_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    exporter.save_hf(tmp_path / "empty", random_params(), MODEL)
    assert_same(importer.load_hf(tmp_path / "empty", MODEL, dtype=jnp.float32), random_params())


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def full_disk(handle, block, start):
        calls.append(start)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, "no space left on device")
        write_at(handle, block, start)

    write_at = exporter._write_at
    monkeypatch.setattr(exporter, "_write_at", full_disk)
    with pytest.raises(OSError, match=r"tensor '(model|visual)\..* into model-0.*: no space"):
        exporter.save_hf(tmp_path / "out", random_params(), MODEL, shard_bytes=2e4)
    assert list(tmp_path.iterdir()) == []


def test_params_of_another_structure(tmp_path):
    params = random_params()
    del params["lm_head"]
    with pytest.raises(ValueError, match="lm_head"):
        exporter.save_hf(tmp_path / "out", params, MODEL)
    params = random_params() | {"lm_head": {"table": np.zeros((3, 3), np.float32)}}
    with pytest.raises(ValueError, match=r"lm_head.*\(3, 3\).*\(70, 32\)"):
        exporter.save_hf(tmp_path / "out", params, MODEL)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- other files, export
def test_tokenizer_processor_and_generation_files_travel(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text('{"a": 1}')
    (source / "preprocessor_config.json").write_text('{"min_pixels": 3136}')
    (source / "pytorch_model.bin").write_text("not this")
    generation = {"eos_token_id": [151645, 151643], "repetition_penalty": 1.05, "top_k": 5}
    (source / "generation_config.json").write_text(json.dumps(generation))
    exporter.save_hf(tmp_path / "out", random_params(), MODEL, source=source)
    assert (tmp_path / "out/tokenizer.json").read_text() == '{"a": 1}'
    assert (tmp_path / "out/preprocessor_config.json").exists()
    assert not (tmp_path / "out/pytorch_model.bin").exists()
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert written == generation | {"repetition_penalty": 1.0}
    with pytest.raises(FileNotFoundError, match="gone"):
        exporter.save_hf(tmp_path / "other", random_params(), MODEL, source=tmp_path / "gone")


# ------------------------------------------------------------------------------------------------ loading elsewhere
def test_transformers_loads_the_export(sharded, caplog):
    """Every tensor equal, nothing missing or unexpected, not a word of warning."""
    pytest.importorskip("torch", reason="loading in transformers needs torch (the 'test' extra)")
    import transformers

    transformers.utils.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        theirs, info = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
            sharded, output_loading_info=True
        )
    assert not caplog.records, [record.message for record in caplog.records]
    assert not any(info.values()), info
    exported = {k: v for path in sharded.glob("*.safetensors") for k, v in load_file(path).items()}
    state = {leaves.hub_name(name): value.numpy() for name, value in theirs.state_dict().items()}
    assert state.keys() == exported.keys()
    assert all(np.array_equal(state[name], exported[name]) for name in state)
    assert theirs.generation_config.eos_token_id == 65


def test_bfloat16_of_transformers_comes_back_byte_for_byte(tmp_path):
    """save_pretrained → load_hf → save_hf, in bfloat16: the same tensors, bit by bit."""
    torch = pytest.importorskip("torch", reason="loading in transformers needs torch (the 'test' extra)")
    import qwen_reference as ref

    theirs = ref.reference_model(tie_word_embeddings=True).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    model = Model.create(ModelConfig.load(tmp_path / "theirs"))
    params = importer.load_hf(tmp_path / "theirs", model, dtype=jnp.bfloat16)
    exporter.save_hf(tmp_path / "ours", params, model)
    a, b = (load_file(tmp_path / side / shards.SINGLE) for side in ("theirs", "ours"))
    assert {leaves.hub_name(name) for name in a} == set(b)
    for name, value in a.items():
        other = b[leaves.hub_name(name)]
        assert other.dtype == ml_dtypes.bfloat16 and value.tobytes() == other.tobytes(), name
    assert json.loads((tmp_path / "ours/config.json").read_text())["dtype"] == "bfloat16"


RELEASED = {
    "3B": dict(hidden=2048, layers=36, heads=16, kv=2, mlp=11008, vocab=151936, tied=True, total=3_754_622_976),
    "7B": dict(hidden=3584, layers=28, heads=28, kv=4, mlp=18944, vocab=152064, tied=False, total=8_292_166_656),
}


@pytest.mark.parametrize("size", RELEASED)
def test_released_shapes_equal_transformers(size):
    """Names, shapes and number of parameters at full size, nothing allocated on either side."""
    torch = pytest.importorskip("torch", reason="comparison with transformers needs torch (the 'test' extra)")
    import transformers

    r = RELEASED[size]
    config = transformers.Qwen2_5_VLConfig(
        text_config=dict(
            hidden_size=r["hidden"],
            num_hidden_layers=r["layers"],
            num_attention_heads=r["heads"],
            num_key_value_heads=r["kv"],
            intermediate_size=r["mlp"],
            vocab_size=r["vocab"],
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        ),
        vision_config=dict(hidden_size=1280, out_hidden_size=r["hidden"], tokens_per_second=2),
        tie_word_embeddings=r["tied"],
    )
    with torch.device("meta"):
        theirs = transformers.Qwen2_5_VLForConditionalGeneration(config)
    shapes = {leaves.hub_name(name): tuple(p.shape) for name, p in theirs.named_parameters()}
    specs = jax.tree.leaves(Model.create(ModelConfig.from_hf(config.to_dict())).specs)
    assert {name: spec.hf.shape for spec in specs for name in leaves._names(spec)} == shapes
    assert sum(int(np.prod(spec.shape)) for spec in specs) == r["total"]
    assert sum(p.numel() for p in theirs.parameters()) == r["total"]
