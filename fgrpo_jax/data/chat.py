"""The chat template of a checkpoint folder: where it stands, what it makes of turns, and which tokens are its own.

Released Qwen2.5-VL folders hold two: one for text and tools in tokenizer_config.json, which takes strings alone, and
one for images in chat_template.json. The processor's comes first, as in transformers and vLLM.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from fgrpo_jax.data.limits import BOTH_FILE, read_json

_PROBE = "probe"
_REMEDY = "copy chat_template.json or chat_template.jinja of the model's base into the folder"


@dataclasses.dataclass(frozen=True)
class Chat:
    """Renders turns, each a list of parts, with the template that the tokenizer was given."""

    tokenizer: Any  # a fast tokenizer of `transformers`
    file: pathlib.Path  # where the template stands
    marks: frozenset[int] = frozenset()  # special tokens of its layout, such as the beginning of a turn
    end: int | None = None  # the id that ends the turn of an answer; None where plain text does

    @classmethod
    def load(cls, folder: pathlib.Path, tokenizer: Any, *, image_id: int) -> Chat:
        """Gives the template of a folder to the tokenizer; ValueError names the file that has none for images."""
        file, template = _find(folder, tokenizer.chat_template)
        if not isinstance(template, str):
            raise ValueError(f"{file} has no chat template; {_REMEDY}")
        tokenizer.chat_template = template
        said, added = {"type": "text", "text": _PROBE}, tokenizer.added_tokens_decoder
        turns = {"user": [{"type": "image"}, said], "assistant": [said]}
        text = cls(tokenizer, file).render([{"role": role, "content": turns[role]} for role in turns])
        parts = (text, text.rpartition(_PROBE)[2])
        whole, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
        if (count := whole.count(image_id)) != 1:
            raise ValueError(f"the chat template in {file} gives {count} placeholders for one image; {_REMEDY}")
        marks = frozenset(index for index in whole if index in added and added[index].special)
        return cls(tokenizer, file, marks, after[0] if after and after[0] in added else None)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of turns, after a user's up to where the answer begins; ValueError where the template takes none."""
        asks = messages[-1]["role"] == "user"
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        except Exception as error:  # a template is somebody else's program and may raise anything
            what = f"fails on a turn with a list of parts ({type(error).__name__}: {error})"
            raise ValueError(f"the chat template in {self.file} {what}; {_REMEDY}") from error
        if any(str(message["content"]) in text for message in messages):
            raise ValueError(f"the chat template in {self.file} prints a turn's list of parts as it is; {_REMEDY}")
        return text


def _find(folder: pathlib.Path, own: Any) -> tuple[pathlib.Path, Any]:
    """(file, template) of a folder: the processor's, else the tokenizer's `own`, which may be several by name."""
    for name in ("chat_template.jinja", "chat_template.json", BOTH_FILE):
        if (file := folder / name).is_file():
            template = file.read_text("utf-8") if name.endswith("jinja") else read_json(file).get("chat_template")
            if template is not None:
                return file, template
    return folder / "tokenizer_config.json", own.get("default") if isinstance(own, dict) else own
