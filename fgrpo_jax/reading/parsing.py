"""Reading a response: think and answer blocks, boxes, points, sentences and the answer. Total: no input raises.

Every scan is linear in the length of the text (`str.find`, or patterns whose repeats are bounded), so that a runaway
response of 100,000 characters costs milliseconds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from fgrpo_jax.reading.answers import choose, stated
from fgrpo_jax.reading.dialects import PAPER, Dialect, read_boxes, read_points, text_in
from fgrpo_jax.reading.frames import Point
from fgrpo_jax.reading.sentences import sentence_spans, split_sentences
from fgrpo_jax.records import Box, ImageSize


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A response taken apart.

    It is of the form (`format_ok`) with exactly one think block, then exactly one answer block, and nothing else but
    white space, in every dialect: without the tags there is no form to reward. Boxes and points are in the frame of the
    dialect, which `dialects.boxes_in` changes.
    """

    format_ok: bool
    think: str  # the reasoning ('' when there is none)
    answer: str | None  # the text of the last closed answer block; None when there is none
    boxes: tuple[
        Box, ...
    ]  # of the reasoning in the order written, four finite numbers, degenerate and inverted ones too
    sentences: tuple[str, ...]  # of the reasoning, stripped, none empty
    outside: str = ""  # what follows the reasoning, where an answer without tags may stand
    malformed: int = 0  # marks of boxes in the reasoning that hold no four finite numbers
    points: tuple[Point, ...] = ()  # of the reasoning
    dialect: Dialect = PAPER  # how it was read


def parse(text: str, *, dialect: Dialect = PAPER) -> Parsed:
    """Takes a response apart.

    Args:
      text: the response as decoded, without special tokens.
      dialect: how the model writes. One that is prefilled gets its '<think>' where the text does not begin with one.
    """
    if dialect.prefilled and not text.lstrip().startswith("<think>"):
        text = f"<think>{text}"
    think, outside = _parts(text, dialect)
    located = f"{think}\n{outside}" if dialect.boxes_in_answer else think
    boxes, malformed = read_boxes(located, dialect=dialect)
    return Parsed(
        format_ok=_is_well_formed(text),
        think=think,
        answer=_last_answer(outside),
        boxes=boxes,
        sentences=split_sentences(think, dialect=dialect),
        outside=outside,
        malformed=malformed,
        points=read_points(located, dialect=dialect),
        dialect=dialect,
    )


def moved(text: str, size: ImageSize, *, dialect: Dialect, src: str, dst: str) -> str:
    """A response with its marked boxes in another frame, and the points of its reasoning; those of an answer stay.

    In an answer '(3, 4)' may as well be what was asked for.
    """
    think = _parts(text, dialect)[0]
    head, think, tail = text.partition(think) if think else (text, "", "")
    frames = {"src": src, "dst": dst}
    boxes = dataclasses.replace(dialect, points=dialect.points and dialect.boxes_in_answer)
    head, tail = (text_in(part, size, dialect=boxes, **frames) for part in (head, tail))
    return head + text_in(think, size, dialect=dialect, **frames) + tail


_WELL_FORMED = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


def _is_well_formed(text: str) -> bool:
    once = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return once and _WELL_FORMED.fullmatch(text) is not None  # linear, since every tag can be in one place only


def _parts(text: str, dialect: Dialect) -> tuple[str, str]:
    """(reasoning, all that follows it)."""
    if dialect.form == "tags" or "<think>" in text or "<answer>" in text:  # tags mean the same in every dialect
        return _split_think(text)
    return _split_free(text, dialect) if dialect.form == "cot" else ("", text)


def _split_think(text: str) -> tuple[str, str]:
    """(reasoning, all that follows it). An unclosed think block ends at the first answer tag."""
    start = text.find("<think>")
    if start < 0:
        closing = text.find("</think>")
        # Without an opening tag there is no block to read; what stands before a stray closing tag is no answer either.
        return "", text[closing + len("</think>") :] if closing >= 0 else text
    inner = start + len("<think>")
    end, answer = text.find("</think>", inner), text.find("<answer>", inner)
    if end < 0:
        end = answer if answer >= 0 else len(text)
        return text[inner:end].strip(), text[end:]
    return text[inner:end].strip(), text[end + len("</think>") :]


_NAMES_ANSWER = re.compile(r"\b(?:answer|correct option|correct choice)\b|\\boxed", re.IGNORECASE)


def _split_free(text: str, dialect: Dialect) -> tuple[str, str]:
    """(reasoning, answer) of a text without tags: parted before the last sentence that names the answer, else the last
    sentence."""
    pieces = sentence_spans(text, dialect=dialect)
    if not pieces:
        return "", text
    naming = [start for start, end in pieces if _NAMES_ANSWER.search(text, start, end)]
    start = naming[-1] if naming else pieces[-1][0]
    return text[:start].strip(), text[start:]


def _last_answer(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def is_proper(box: Sequence[float]) -> bool:
    """Whether a box has a positive width and height."""
    return box[2] > box[0] and box[3] > box[1]


# ------------------------------------------------------------------------------------------------------------ answers
def answer_text(parsed: Parsed) -> str | None:
    """Where to look for the answer: the answer block, or else what follows the reasoning; None if there is nothing."""
    if parsed.answer is not None:
        return parsed.answer
    return parsed.outside.replace("<answer>", " ").strip() or None


def answer_index(parsed: Parsed, options: Sequence[str]) -> int | None:
    """Index of the option that the response answers; None when it answers none.

    Free text ('cot') whose end names no option is looked at as a whole.
    """
    found = choose(answer_text(parsed), options)
    if found is None and parsed.dialect.form == "cot" and parsed.answer is None:
        return choose(f"{parsed.think} {parsed.outside}", options)
    return found


def open_answer(parsed: Parsed) -> str | None:
    """The answer to a question without options: the answer block, or what the rest says the answer is, or the rest."""
    text = answer_text(parsed)
    if text is None or parsed.answer is not None:
        return text
    return stated(text) or text
