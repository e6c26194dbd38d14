"""How questions are worded: the one documented template of a prompt, and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class PromptStyle:
    """How a question is put: a system turn, and a user turn of images, question, option lines and a request.

    Attributes:
      system: the system turn.
      question: a format string of `question`.
      options: line before the options; none when empty.
      request: line after the options; none when empty.
      open_request: the same for a question without options.
      prefill: how every response begins; it is given and not drawn.
      dialect: how a response is written, a name of `fgrpo_jax.rewards.dialects.DIALECTS`.
    """

    system: str
    question: str
    options: str
    request: str
    open_request: str
    prefill: str = ""
    dialect: str = "paper"

    def user_text(self, question: str, options: Sequence[str]) -> str:
        """The text of the user turn. Options are lettered from A."""
        lines = [self.question.format(question=question)]
        if options:
            lines += [self.options, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))]
        lines.append(self.request if options else self.open_request)
        return "\n".join(line for line in lines if line)


STYLES = {
    # The layout of the paper's evaluation prompt, in our own words.
    "paper": PromptStyle(
        system=(
            "You answer questions about images. First reason step by step between <think> and </think>. Whenever "
            "your reasoning speaks of an object, point at it right after its name with its box in pixels of the image, "
            "as in <bbox>[x1,y1,x2,y2]</bbox>. Then give your final answer between <answer> and </answer>."
        ),
        question="Question: {question}",
        options="Options:",
        request="Answer with the letter and the text of the right option.",
        open_request="Answer in as few words as you can.",
    ),
    # As few tokens as possible, for small policies whose format comes from their training.
    "tiny": PromptStyle(system="Think, then answer.", question="{question}", options="", request="", open_request=""),
}


def find_style(name: str) -> PromptStyle:
    """The preset of this name."""
    if name not in STYLES:
        raise ValueError(f"unknown prompt style {name!r}; one of {', '.join(STYLES)}")
    return STYLES[name]
