"""The chat template of a checkpoint folder: where it stands, what it makes of turns, and which tokens are its own.

Released Qwen2.5-VL folders hold two: one for text and tools in tokenizer_config.json, which takes strings alone, and
one for images in chat_template.json. The processor's comes first, as in transformers and vLLM.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from fgrpo_jax.data.limits import BOTH_FILE, read_json

_PROBE = "probe"
_REMEDY = "copy chat_template.json or chat_template.jinja of the model's base into the folder"


@dataclasses.dataclass(frozen=True)
class Chat:
    """Renders turns, each a list of parts, with the template that `tokenizer` was given."""

    tokenizer: Any  # a fast tokenizer of `transformers`
    file: pathlib.Path  # the template is out of it

    @classmethod
    def load(cls, folder: pathlib.Path, tokenizer: Any, *, image_id: int) -> Chat:
        """Finds the template of a folder, gives it to the tokenizer and tries it on an image.

        Raises:
          ValueError: there is no template, or it takes no images; names the file.
        """
        file, template = _find(folder, tokenizer.chat_template)
        if not isinstance(template, str):
            raise ValueError(f"{file} has no chat template; {_REMEDY}")
        tokenizer.chat_template = template
        chat = cls(tokenizer, file)
        if (count := chat._ids(chat._probe).count(image_id)) != 1:
            raise ValueError(f"the chat template in {file} gives {count} placeholders for one image; {_REMEDY}")
        return chat

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of some turns; after that of a user it goes on to where the answer begins.

        Raises:
          ValueError: the template raises, or prints a turn's list instead of reading it; names the file.
        """
        asks = messages[-1]["role"] == "user"
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        except Exception as error:  # a template is somebody else's program and may raise anything
            what = f"fails on a turn with a list of parts ({type(error).__name__}: {error})"
            raise ValueError(f"the chat template in {self.file} {what}; {_REMEDY}") from error
        if any(str(message["content"]) in text for message in messages):
            raise ValueError(f"the chat template in {self.file} prints a turn's list of parts as it is; {_REMEDY}")
        return text

    @property
    def end(self) -> int | None:
        """The id that ends the turn of an answer; None where the template ends it with plain text."""
        following = self._ids(self._probe.rpartition(_PROBE)[2])[:1]
        return following[0] if following and following[0] in self.tokenizer.added_tokens_decoder else None

    @property
    def marks(self) -> frozenset[int]:
        """Special tokens of which the template makes its layout, such as the beginning of a turn."""
        added = self.tokenizer.added_tokens_decoder
        return frozenset(index for index in self._ids(self._probe) if index in added and added[index].special)

    @functools.cached_property
    def _probe(self) -> str:
        """A question about an image and its answer."""
        said = {"type": "text", "text": _PROBE}
        question = {"role": "user", "content": [{"type": "image"}, said]}
        return self.render([question, {"role": "assistant", "content": [said]}])

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _find(folder: pathlib.Path, own: Any) -> tuple[pathlib.Path, Any]:
    """(file, template) of a folder: the processor's, else the tokenizer's `own`, which may be several by name."""
    if (file := folder / "chat_template.jinja").is_file():
        return file, file.read_text(encoding="utf-8")
    file, template = folder / "tokenizer_config.json", own
    for name in ("chat_template.json", BOTH_FILE):
        given = read_json(folder / name).get("chat_template") if (folder / name).is_file() else None
        if given is not None:
            file, template = folder / name, given
            break
    if isinstance(template, list):  # as files have several; transformers makes a mapping of those of a tokenizer
        template = {one["name"]: one["template"] for one in template}
    return file, template.get("default") if isinstance(template, dict) else template
