"""Writes a small random Qwen2.5-VL as an HF checkpoint folder, without torch.

    python tools/make_tiny_checkpoint.py --out=FOLDER [--seed=0] [--vocab_size=640] [--hidden_size=192] ...

The model is initialised by this package and written by its own export; the tokenizer is trained in seconds on questions
and reference responses of the built-in world. The folder loads in `transformers` like a released one.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Iterator

import jax
from absl import app, flags

from fgrpo_jax.data import tokenizer as tokenizers
from fgrpo_jax.data.styles import STYLES
from fgrpo_jax.data.world import World, supervised_families
from fgrpo_jax.model import weights
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model

OUT = flags.DEFINE_string("out", None, "folder to write; must not exist", required=True)
SEED = flags.DEFINE_integer("seed", 0, "of the random weights")
VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 640, "tokens, Qwen's 22 added ones included")
HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 192, "width of the decoder")
LAYERS = flags.DEFINE_integer("layers", 4, "decoder layers")
HEADS = flags.DEFINE_integer("heads", 6, "query heads")
KV_HEADS = flags.DEFINE_integer("kv_heads", 2, "key and value heads")
MLP = flags.DEFINE_integer("mlp", 384, "width inside the decoder's MLPs")
ROPE_THETA = flags.DEFINE_float("rope_theta", 10_000.0, "base of the rotary frequencies")
VISION_DEPTH = flags.DEFINE_integer("vision_depth", 3, "blocks of the vision tower; the last has full attention")
VISION_HIDDEN = flags.DEFINE_integer("vision_hidden", 96, "width of the vision tower")
VISION_HEADS = flags.DEFINE_integer("vision_heads", 3, "heads of the vision tower")
VISION_MLP = flags.DEFINE_integer("vision_mlp", 192, "width inside the tower's MLPs")
DIFFICULTY = flags.DEFINE_string("difficulty", "tiny", "of the built-in world whose texts train the tokenizer")
TEXTS = flags.DEFINE_integer("texts", 3000, "examples of the built-in world that train the tokenizer")
MIN_PIXELS = flags.DEFINE_integer("min_pixels", 28 * 28, "lower limit of the processed image area")
MAX_PIXELS = flags.DEFINE_integer("max_pixels", 448 * 448, "upper limit of the processed image area")


def world_texts(difficulty: str, count: int) -> Iterator[str]:
    """What a policy of the built-in world reads and writes: wording of the prompts, questions, options, responses."""
    for style in STYLES.values():
        yield style.system
        yield style.user_text("", ("", ""))
    yield "user assistant system You are a helpful assistant."
    world = World(difficulty, families=supervised_families(difficulty))
    for index in range(count):
        example = world.example(index)
        yield STYLES["tiny"].user_text(example.question, example.options)
        yield example.trace or ""


def tiny_config(vocab_size: int, token_ids: dict[str, int]) -> ModelConfig:
    """The model the flags describe; of the rotary frequencies a quarter is for time, 3/8 for height, 3/8 for width."""
    head_dim = HIDDEN_SIZE.value // HEADS.value
    half = head_dim // 2
    section = (half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8)
    text = TextConfig(
        hidden_size=HIDDEN_SIZE.value,
        num_layers=LAYERS.value,
        num_heads=HEADS.value,
        num_kv_heads=KV_HEADS.value,
        head_dim=head_dim,
        intermediate_size=MLP.value,
        vocab_size=vocab_size,
        rope_theta=ROPE_THETA.value,
        rms_norm_eps=1e-6,
        mrope_section=section,
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=VISION_DEPTH.value,
        hidden_size=VISION_HIDDEN.value,
        num_heads=VISION_HEADS.value,
        intermediate_size=VISION_MLP.value,
        fullatt_block_indexes=(VISION_DEPTH.value - 1,),
        out_hidden_size=HIDDEN_SIZE.value,
        tokens_per_second=2,
    )
    names = {name: index for name, index in token_ids.items() if name != "vision_token_id"}
    return ModelConfig(text=text, vision=vision, **names)


def write(out: pathlib.Path) -> ModelConfig:
    """Trains the tokenizer, initialises the model and writes the folder."""
    if out.exists():
        raise ValueError(f"{out} exists; give a new folder or remove it")
    tokenizer = tokenizers.train(world_texts(DIFFICULTY.value, TEXTS.value), vocab_size=VOCAB_SIZE.value)
    config = tiny_config(VOCAB_SIZE.value, tokenizers.token_ids(tokenizer))
    model = Model.create(config)
    params = model.init(jax.random.key(SEED.value))
    with tempfile.TemporaryDirectory() as source:
        tokenizers.save(source, tokenizer, min_pixels=MIN_PIXELS.value, max_pixels=MAX_PIXELS.value)
        (pathlib.Path(source) / "config.json").write_text(json.dumps(config.to_hf(), indent=2))
        weights.save_hf(out, params, model, source=source)
    return config


def main(_: list[str]) -> None:
    config = write(pathlib.Path(OUT.value))
    shapes = jax.tree.leaves(Model.create(config).abstract())
    count = sum(leaf.size for leaf in shapes)
    print(f"{OUT.value}: {count / 1e6:.2f}M parameters, {config.text.vocab_size} tokens, seed {SEED.value}")


if __name__ == "__main__":
    app.run(main)
