"""The tool that writes a small random checkpoint: the folder loads, and nothing existing is overwritten."""

import jax
import numpy as np
import pytest
from tools import make_tiny_checkpoint as tool

from fgrpo_jax.data.processor import Processor
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import importer
from fgrpo_jax.world.examples import World, WorldSource

SMALL = tool.Recipe(
    hidden_size=32,
    layers=1,
    heads=2,
    kv_heads=1,
    mlp=32,
    texts=200,
    vision_depth=1,
    vision_hidden=32,
    vision_heads=2,
    vision_mlp=32,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny") / "folder"
    tool.write(out, SMALL)
    return out


def test_folder_loads(folder):
    config = ModelConfig.load(folder)
    model = Model.create(config)
    params = importer.load_hf(folder, model, dtype=np.float32)
    assert config.text.mrope_section == (2, 3, 3) and config.text.tie_word_embeddings
    assert config.vision.fullatt_block_indexes == (0,)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    processor = Processor.load(folder)
    assert processor.config == config and len(processor.tokenizer) <= config.text.vocab_size == 640


def test_world_texts_cost_few_tokens(folder):
    """A box is five tokens, a word of the world one; else the shipped policy would write longer and learn slower."""
    processor = Processor.load(folder)
    source = WorldSource(World(), "heldout", with_trace=True)
    for index in range(20):
        example = source[index]
        words = len(example.trace.replace("<bbox>", " ").replace("</", " ").split())
        boxes = example.trace.count("<bbox>")
        assert len(processor.encode_response(example.trace, None)) <= 1.3 * words + 5 * boxes + 4
        assert len(processor.encode(example, style="tiny").tokens) < 100


def test_nothing_is_overwritten(folder):
    with pytest.raises(FileExistsError, match="exists; give a new folder"):
        tool.write(folder, SMALL)


def test_the_command_has_a_flag_a_field():
    args = tool.parser().parse_args(["--out=x", "--rope_theta=50", "--layers=2"])
    assert (args.rope_theta, args.layers, args.hidden_size) == (50.0, 2, tool.Recipe().hidden_size)
