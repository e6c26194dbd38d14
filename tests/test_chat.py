"""Whose chat template is taken, which tokens are content, what ends an answer, and what is refused by name.

Shapes of files are those of the released folder (Qwen/Qwen2.5-VL-3B-Instruct), of AWQ and bitsandbytes re-releases of
it (huggingface/transformers, docs/source/en/quantization/awq.md and bitsandbytes.md), and of PEFT's save_pretrained
(huggingface/peft, docs/source/developer_guides/checkpoint.md).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import small_tokenizer
import tokenizers
from folders import TEXT_AND_TOOLS, change

from fgrpo_jax.data import hub
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.records import Example
from fgrpo_jax.rollout.stopping import StopTable

VISION = small_tokenizer.CHAT_TEMPLATE
EXAMPLE = Example(
    "one", images=(np.zeros((56, 84, 3), np.uint8),), question="Where?", options=("left", "right"), answer="A"
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<plan>")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write_folder(tmp_path_factory.mktemp("chat") / "hf")


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy to be changed, with the text-and-tools template where the released folder has it."""
    shutil.copytree(plain, tmp_path / "hf")
    change(tmp_path / "hf" / "tokenizer_config.json", lambda content: content.update(chat_template=TEXT_AND_TOOLS))
    return tmp_path / "hf"


def mark_special(folder: Path, *texts: str) -> list[int]:
    """Their ids; as `tokenizer.add_special_tokens` and `save_pretrained` write them, new or known to the vocabulary."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in texts])
    tokenizer.save(str(folder / "tokenizer.json"))
    return [tokenizer.token_to_id(text) for text in texts]


# ----------------------------------------------------------------------------------------------------------- templates
def marked(mark: str) -> str:
    return VISION.replace("You are a helpful assistant.", mark)


PLACES: dict[str, Any] = {
    "chat_template.jinja": marked,
    "chat_template.json": lambda mark: json.dumps({"chat_template": marked(mark)}),
    "processor_config.json": lambda mark: json.dumps({"chat_template": marked(mark)}),
}


def test_the_processors_template_comes_before_the_tokenizers(plain: Path, folder: Path) -> None:
    """The text-and-tools one fails on images; beside it any of the processor's is taken, in their order."""
    want = Processor.load(plain).encode(EXAMPLE)
    for name in reversed(PLACES):
        (folder / name).write_text(PLACES[name](f"From {name}."))
        processor = Processor.load(folder)
        assert processor.chat.file == folder / name
        assert f"From {name}." in processor.encode(EXAMPLE, system="").text
        np.testing.assert_array_equal(processor.encode(EXAMPLE).tokens, want.tokens)


def test_of_several_templates_the_default_is_taken(folder: Path) -> None:
    """As tool-using checkpoints have them (transformers, docs/source/en/chat_templating_writing.md)."""
    several = [{"name": "tool_use", "template": TEXT_AND_TOOLS}, {"name": "default", "template": VISION}]
    change(folder / "tokenizer_config.json", lambda content: content.update(chat_template=several))
    assert Processor.load(folder).encode(EXAMPLE).grids


PRINTS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TEXT_AND_TOOLS, r"tokenizer_config\.json fails on a turn with a list of parts \(TypeError: .*copy"),
        ("{{ raise_exception('roles must alternate') }}", r"TemplateError: roles must alternate"),
        ("{{ messages[0].nothing.at_all }}", r"UndefinedError"),
        ("{% for %}", r"TemplateSyntaxError"),
        (PRINTS, r"tokenizer_config\.json prints a turn's list of parts as it is; copy"),
        (VISION.replace("<|image_pad|>", ""), r"tokenizer_config\.json gives 0 placeholders for one image; copy"),
        (VISION.replace("<|image_pad|>", "<|image_pad|>" * 2), r"gives 2 placeholders for one image"),
    ],
)  # fmt: skip
def test_a_template_that_takes_no_images_is_named_with_its_file(folder: Path, template: str, message: str) -> None:
    change(folder / "tokenizer_config.json", lambda content: content.update(chat_template=template))
    with pytest.raises(ValueError, match=message):
        Processor.load(folder)


def test_a_template_that_fails_later_is_named_too(folder: Path) -> None:
    """Some take no system turn (as Gemma's); found out when there is one."""
    refuses = (
        "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
    )
    (folder / "chat_template.jinja").write_text(refuses + VISION)
    processor = Processor.load(folder)
    assert processor.encode(EXAMPLE, system="").grids
    with pytest.raises(ValueError, match=r"chat_template\.jinja fails .*System role not supported"):
        processor.encode(EXAMPLE, system="Be brief.")


# ------------------------------------------------------------------------------------------------------------- content
def test_added_special_tokens_are_content(folder: Path) -> None:
    """Sampled, decoded, found by stop sequences, and allowed in a prompt, a prefill and a response."""
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": VISION}))
    before = len(Processor.load(folder).tokenizer)
    ids = mark_special(folder, *TAGS)
    processor = Processor.load(folder)
    assert len(processor.tokenizer) == before + 1, "one is new, the others are made special"
    text = "<think><plan>the <|box_start|>(1,2),(3,4)<|box_end|></think><answer>A</answer>"
    response = processor.encode_response(text, None)
    assert set(ids) <= set(response.tolist()) and not processor.banned[response].any()
    assert processor.decode(response) == text
    assert [processor.token_bytes[index] for index in ids] == [tag.encode() for tag in TAGS]
    assert processor.token_bytes[processor.eos_ids[0]] == b""
    table = StopTable.build(["</answer>"], processor.token_bytes)
    assert (table.table[0, ids] % 2).tolist() == [0, 0, 0, 1, 0]
    begun = processor.encode(EXAMPLE, prefill="<think>")
    assert begun.tokens[-1] == ids[0] and begun.text.endswith("<think>")
    asks = Example(
        "two", images=EXAMPLE.images, question="What is in <|box_start|>(1,2),(3,4)<|box_end|>?", options=(), answer=""
    )
    assert "<|box_start|>" in processor.encode(asks).text  # fmt: skip


def test_only_placeholders_and_unknown_ids_are_banned(folder: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": VISION}))
    processor = Processor.load(folder)
    named = {
        processor.tokenizer.convert_ids_to_tokens(int(i))
        for i in np.flatnonzero(processor.banned)
        if i < len(processor.tokenizer)
    }
    assert named == {"<|image_pad|>", "<|video_pad|>"}  # fmt: skip
    assert processor.banned[len(processor.tokenizer) :].all() and len(processor.tokenizer) < len(processor.banned)


# ---------------------------------------------------------------------------------------------------------------- ends
@pytest.mark.parametrize(
    ("generation", "config", "tokenizer"),
    [
        ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),  # as a base model's files, which never saw a chat
        (["<|im_end|>", "<|endoftext|>"], "<|im_end|>", "<|im_end|>"),  # as released
        (["<|endoftext|>"], "<|im_end|>", "<|im_end|>"),
        (None, "<|endoftext|>", "<|im_end|>"),
        (None, None, "<|endoftext|>"),
        ("<|endoftext|>", None, None),
    ],
)
def test_every_named_end_ends_and_the_turns_comes_first(
    folder: Path, generation: Any, config: Any, tokenizer: Any
) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": VISION}))
    ids = Processor.load(folder).tokenizer.convert_tokens_to_ids
    for name, ends in (("generation_config.json", generation), ("config.json", config)):
        value = [ids(one) for one in ends] if isinstance(ends, list) else ends and ids(ends)
        change(folder / name, lambda content, value=value: content.update(eos_token_id=value))
    change(folder / "tokenizer_config.json", lambda content: content.update(eos_token=tokenizer))
    processor = Processor.load(folder)
    assert processor.eos_ids == (ids("<|im_end|>"), ids("<|endoftext|>"))
    assert processor.encode_response("A", None)[-1] == ids("<|im_end|>")


def test_the_nested_dialect_names_ends_too(folder: Path) -> None:
    """transformers 5 writes them under text_config."""
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": VISION}))
    other = Processor.load(folder).tokenizer.convert_tokens_to_ids("<|fim_pad|>")
    change(folder / "config.json", lambda content: content.update(text_config={**content, "eos_token_id": other}))
    assert other in Processor.load(folder).eos_ids


def test_where_a_turn_ends_with_plain_text_the_tokenizers_end_is_first(folder: Path) -> None:
    """A Vicuna-like layout, whose answer is followed by a line break."""
    parts = "{% for p in m.content -%}{{ '<|image_pad|>' if p.type == 'image' else p.text }}{%- endfor %}"
    plain = f"{{%- for m in messages -%}}{{{{ m.role }}}}: {parts}\n{{% endfor -%}}"
    (folder / "chat_template.jinja").write_text(plain)
    assert Processor.load(folder).tokenizer.convert_ids_to_tokens(Processor.load(folder).eos_ids[0]) == "<|im_end|>"


# ------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784"),
        ({"image_mean": [0.5, 0.5, 0.5]}, r"image_mean is \[0.5"),
        ({"image_std": [0.5, 0.5, 0.5]}, r"image_std is \[0.5"),
        (
            {"do_rescale": True, "do_normalize": True, "rescale_factor": 0.00392156862745098},
            None,
        ),  # as saved by default
    ],
)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_images_prepared_otherwise_are_refused(
    plain: Path, tmp_path: Path, name: str, settings: Any, message: Any
) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(plain, folder)
    if not (folder / name).exists():
        shutil.copyfile(folder / "preprocessor_config.json", folder / name)
    change(folder / name, lambda content: content.update(settings))
    if message is None:
        assert Processor.load(folder).min_pixels == 784
        return
    with pytest.raises(ValueError, match=f"{name}: {message}.*images are prepared with"):
        Processor.load(folder)


AWQ = {"bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"], "quant_method": "awq", "version": "gemm"}
BNB = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}


@pytest.mark.parametrize("how", [AWQ, BNB], ids=["awq", "bitsandbytes"])
def test_quantised_weights_are_refused_by_name(folder: Path, how: dict[str, Any]) -> None:
    change(folder / "config.json", lambda content: content.update(quantization_config=how))
    with pytest.raises(ValueError, match=rf"hf is quantised \(quantization_config .*'{how['quant_method']}'"):
        hub.find(folder)


ADAPTER = {"base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct", "peft_type": "LORA", "r": 16, "lora_alpha": 32}


@pytest.mark.parametrize("beside", [True, False], ids=["beside weights", "alone"])
def test_an_adapter_is_refused_by_name(folder: Path, beside: bool) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    if beside:
        (folder / "model.safetensors").write_bytes(b"")
    else:
        (folder / "config.json").unlink()
    with pytest.raises(
        ValueError, match=r"PEFT adapter of 'Qwen/Qwen2\.5-VL-3B-Instruct' \(adapter_config\.json\).*merge"
    ):
        hub.find(folder)
