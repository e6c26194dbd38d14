"""Small checkpoint folders for tests: tokenizer, processor files and config, without weights."""

import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import small_tokenizer as tokenizers

from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig

COLORS, SHAPES = ("red", "green", "blue"), ("circle", "square")


TEXT_AND_TOOLS = (
    "{%- if tools -%}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' -}}"
    "{%- else -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""As the released tokenizer_config.json has it in that it joins a turn's content to strings, and so fails on a list."""


def change(file: pathlib.Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Edits a JSON file in place."""
    content = json.loads(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def two_templates(folder: pathlib.Path) -> None:
    """Templates where Qwen/Qwen2.5-VL-3B-Instruct on the hub has them, in our own wording of what they do.

    That of images stands in chat_template.json, and one for text and tools in tokenizer_config.json.
    """
    change(folder / "tokenizer_config.json", lambda content: content.update(chat_template=TEXT_AND_TOOLS))
    vision = {"chat_template": tokenizers.CHAT_TEMPLATE}
    (folder / "chat_template.json").write_text(json.dumps(vision), encoding="utf-8")


def texts() -> list[str]:
    """A corpus that is quickly made and looks like the built-in world's."""
    things = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    lines = []
    for at, (a, b) in enumerate(itertools.permutations(things, 2)):
        box = f"<bbox>[{7 * (at % 15)},{7 * (at % 11)},{7 * (at % 15) + 28},{7 * (at % 11) + 28}]</bbox>"
        lines.append(f"Where is the {a} relative to the {b}?\nA. left\nB. right\nThink, then answer.")
        lines.append(f"<think>The {a} is at {box}. The {a} is left of the {b}.</think><answer>A</answer>")
    return lines


def write_folder(folder: pathlib.Path, *, vocab_size: int = 512) -> pathlib.Path:
    """Everything `Processor.load` reads."""
    tokenizer = tokenizers.train(texts(), vocab_size=vocab_size)
    tokenizers.save(folder, tokenizer, min_pixels=28 * 28, max_pixels=448 * 448)
    ids = {k: v for k, v in tokenizers.token_ids(tokenizer).items() if k != "vision_token_id"}
    text = TextConfig(
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        intermediate_size=32,
        vocab_size=vocab_size,
        mrope_section=(2, 3, 3),
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=1, hidden_size=32, num_heads=2, intermediate_size=32, fullatt_block_indexes=(0,), out_hidden_size=32
    )
    config = ModelConfig(text=text, vision=vision, **ids)
    (folder / "config.json").write_text(json.dumps(config.to_hf()), encoding="utf-8")
    return folder
