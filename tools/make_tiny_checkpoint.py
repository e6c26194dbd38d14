"""Writes a small random Qwen2.5-VL as an HF checkpoint folder, without torch.

    python tools/make_tiny_checkpoint.py --out=FOLDER [--seed=0] [--vocab_size=640] [--hidden_size=128] ...

The model is initialised by this package and written by its own export; the tokenizer is trained in seconds on questions
and reference responses of the built-in world. The folder loads in `transformers` like a released one. The default sizes
are those of the shipped warm start, which begins here (tools/make_warmstart.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import small_tokenizer as tokenizers

from fgrpo_jax import command
from fgrpo_jax.data.styles import STYLES
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import exporter
from fgrpo_jax.world.examples import World


def _flag(default: int | float | str, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything the folder depends on; each field is a flag of the command."""

    seed: int = _flag(0, "of the random weights")
    vocab_size: int = _flag(640, "tokens, Qwen's 22 added ones included")
    hidden_size: int = _flag(128, "width of the decoder")
    layers: int = _flag(4, "decoder layers")
    heads: int = _flag(4, "query heads")
    kv_heads: int = _flag(2, "key and value heads")
    mlp: int = _flag(384, "width inside the decoder's MLPs")
    # Slow frequencies leave attention by content free of position: with base 30 finding objects took far longer.
    rope_theta: float = _flag(10_000.0, "base of the rotary frequencies")
    vision_depth: int = _flag(3, "blocks of the vision tower; the last has full attention")
    vision_hidden: int = _flag(96, "width of the vision tower")
    vision_heads: int = _flag(3, "heads of the vision tower")
    vision_mlp: int = _flag(256, "width inside the tower's MLPs")
    difficulty: str = _flag("tiny", "of the built-in world whose texts train the tokenizer")
    texts: int = _flag(3000, "examples of the built-in world that train the tokenizer")
    min_pixels: int = _flag(28 * 28, "lower limit of the processed image area")
    max_pixels: int = _flag(448 * 448, "upper limit of the processed image area")


def world_texts(difficulty: str, count: int) -> Iterator[str]:
    """What a policy of the built-in world reads and writes: wording of the prompts, questions, options, responses."""
    for style in (STYLES[name] for name in ("paper", "tiny")):  # what small policies are asked in
        yield style.system
        yield style.user_text("", ("", ""))
    yield "user assistant system You are a helpful assistant."
    world = World(difficulty, captions=0.25)
    for index in range(count):
        example = world.example(index)
        yield STYLES["tiny"].user_text(example.question, example.options)
        yield example.trace or ""


def tiny_config(recipe: Recipe, token_ids: dict[str, int]) -> ModelConfig:
    """The model of a recipe; of the rotary frequencies a quarter is for time, 3/8 for height, 3/8 for width."""
    head_dim = recipe.hidden_size // recipe.heads
    half = head_dim // 2
    section = (half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8)
    text = TextConfig(
        hidden_size=recipe.hidden_size,
        num_layers=recipe.layers,
        num_heads=recipe.heads,
        num_kv_heads=recipe.kv_heads,
        head_dim=head_dim,
        intermediate_size=recipe.mlp,
        vocab_size=recipe.vocab_size,
        rope_theta=recipe.rope_theta,
        rms_norm_eps=1e-6,
        mrope_section=section,
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=recipe.vision_depth,
        hidden_size=recipe.vision_hidden,
        num_heads=recipe.vision_heads,
        intermediate_size=recipe.vision_mlp,
        fullatt_block_indexes=(recipe.vision_depth - 1,),
        out_hidden_size=recipe.hidden_size,
        tokens_per_second=2,
    )
    names = {name: index for name, index in token_ids.items() if name != "vision_token_id"}
    return ModelConfig(text=text, vision=vision, **names)


def write(out: Path, recipe: Recipe) -> ModelConfig:
    """Trains the tokenizer, initialises the model and writes the folder, whole or not at all.

    Raises:
      FileExistsError: `out` is there.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; give a new folder or remove it")
    tokenizer = tokenizers.train(world_texts(recipe.difficulty, recipe.texts), vocab_size=recipe.vocab_size)
    config = tiny_config(recipe, tokenizers.token_ids(tokenizer))
    model = Model.create(config)
    params = model.init(jax.random.key(recipe.seed))
    with tempfile.TemporaryDirectory() as source:
        tokenizers.save(source, tokenizer, min_pixels=recipe.min_pixels, max_pixels=recipe.max_pixels)
        (Path(source) / "config.json").write_text(json.dumps(config.to_hf(), indent=2))
        exporter.save_hf(out, params, model, source=source)
    return config


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a model, tied ones once."""
    return sum(leaf.size for leaf in jax.tree.leaves(Model.create(config).abstract()))


def parser() -> argparse.ArgumentParser:
    """Flags of this tool: --out, and one for each field of a recipe."""
    out = command.parser(__doc__)
    out.add_argument("--out", required=True, type=Path, help="folder to write; must not exist")
    for field in dataclasses.fields(Recipe):
        text = f"{field.metadata['help']} (default {field.default})"
        out.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=text)
    return out


def main(args: argparse.Namespace) -> None:
    """Writes the folder and says what it holds."""
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    count = count_parameters(write(args.out, recipe))
    print(f"{args.out}: {count / 1e6:.2f}M parameters, {recipe.vocab_size} tokens, seed {recipe.seed}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
