"""How questions are worded: the one documented template of a prompt, and its presets.

Presets go by the names of `fgrpo_jax.reading.dialects.DIALECTS`, so that a checkpoint is asked, and its responses are
read, as it was trained. What a preset asks for (tags, boxes or points, letter or text, what the response begins with)
is that of the family; the words are ours. FILE.json in the place of a preset's name holds other words.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class PromptStyle:
    """How a question is put: a system turn, and a user turn of images, question, option lines and a request."""

    system: str  # the system turn
    question: str  # a format string of `question`
    options: str  # line before the options; none when empty
    request: str  # line after the options; none when empty
    open_request: str  # the same for a question without options
    prefill: str = ""  # how every response begins; it is given and not drawn
    dialect: str = "paper"  # how a response is written, a name of `fgrpo_jax.reading.dialects.DIALECTS`

    def user_text(self, question: str, options: Sequence[str]) -> str:
        """The text of the user turn. Options are lettered from A."""
        lines = [self.question.format(question=question)]
        if options:
            lines += [self.options, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))]
        lines.append(self.request if options else self.open_request)
        return "\n".join(line for line in lines if line)


# fmt: off
STYLES = {
    # The layout of the paper's evaluation prompt, in our own words.
    "paper": PromptStyle(
        system=(
            "You answer questions about images. First reason step by step between <think> and </think>. Whenever "
            "your reasoning speaks of an object, point at it right after its name with its box in pixels of the image, "
            "as in <bbox>[x1,y1,x2,y2]</bbox>. Then give your final answer between <answer> and </answer>."
        ),
        question="Question: {question}", options="Options:",
        request="Answer with the letter and the text of the right option.",
        open_request="Answer in as few words as you can.",
    ),
    # As few tokens as possible, for small policies whose format comes from their training.
    "tiny": PromptStyle(system="Think, then answer.", question="{question}", options="", request="", open_request=""),
    # Qwen2.5-VL as released, under its own default system turn: the answer alone.
    "direct": PromptStyle(
        system="", question="{question}", options="Options:", dialect="direct",
        request="Answer with the letter of the right option and nothing else.",
        open_request="Answer with a word or a short phrase and nothing else.",
    ),
    # The same, with reasoning in free text before it.
    "cot": PromptStyle(
        system="", question="{question}", options="Options:", dialect="cot",
        request="Reason step by step. Then end with a line 'Answer: ' and the letter of the right option.",
        open_request="Reason step by step. Then end with a line 'Answer: ' and your answer in as few words as you can.",
    ),
    # ViGoRL-Spatial (Sarch et al. 2025): steps anchored in points, the answer is the text of the option.
    "vigorl": PromptStyle(
        system=(
            "You answer questions about images. Reason between one pair of <think> and </think> tags, step by step, "
            "and anchor every step in the image with the point (x, y) in pixels that it speaks of. Verify your steps "
            "and consider other solutions before you decide. Then give the text of the option that you choose between "
            "<answer> and </answer>; where none is certain, choose the likeliest."
        ),
        question="{question}", options="Options:", request="", open_request="", dialect="vigorl",
    ),
    # TreeVGR (Wang et al. 2025): boxes between <box> tags, a letter, and a response whose <think> is given.
    "treevgr": PromptStyle(
        system=(
            "You answer questions about images. You must first reason between <think> and </think> and then give the "
            "answer between <answer> and </answer>. Whenever your reasoning refers to an object, you must locate it "
            "with its bounding box in pixels between <box> and </box>, as in <box>[x1,y1,x2,y2]</box>. Keep strictly "
            "to this form."
        ),
        question="{question}", options="Options:", request="Answer with the letter of the right option.",
        open_request="Answer in as few words as you can.", prefill="<think>", dialect="treevgr",
    ),
    # VLM-R1 (Shen et al. 2025): no system turn of its own, the tags are asked for after the question.
    "vlm_r1": PromptStyle(
        system="", question="{question}", options="Options:", dialect="vlm_r1",
        request="First write your reasoning between <think> and </think> tags, then the letter of the right option "
                "between <answer> and </answer> tags.",
        open_request="First write your reasoning between <think> and </think> tags, then the final answer between "
                     "<answer> and </answer> tags.",
    ),
}
# fmt: on

BARE = PromptStyle(system="", question="{question}", options="", request="", open_request="")
"""The question alone."""


def find_style(name: str | PromptStyle) -> PromptStyle:
    """The preset of this name, or the style in a JSON file (an object with the fields of `PromptStyle`), or itself.

    Raises:
      ValueError: no such preset or file, or a file with other fields; names the nearest or the missing one.
    """
    if isinstance(name, PromptStyle):
        return name
    if name.endswith(".json"):
        return _from_file(Path(name))
    if name not in STYLES:
        raise ValueError(f"unknown prompt style {name!r}; one of {', '.join(STYLES)}, or a FILE.json with another")
    return STYLES[name]


def _from_file(path: Path) -> PromptStyle:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"prompt style {path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ValueError(f"prompt style {path} is not JSON ({error})") from error
    known = {field.name: field for field in dataclasses.fields(PromptStyle)}
    needed = [name for name, field in known.items() if field.default is dataclasses.MISSING]
    if not isinstance(fields, dict) or not set(needed) <= set(fields) <= set(known):
        raise ValueError(
            f"prompt style {path} must hold the texts {', '.join(needed)}, and may hold prefill and dialect"
        )
    if odd := [name for name, value in fields.items() if not isinstance(value, str)]:
        raise ValueError(f"prompt style {path}: {odd[0]!r} must be a text, got {fields[odd[0]]!r}")
    return PromptStyle(**fields)
