"""Reading a response: think and answer blocks, boxes, sentences and the chosen option. Total: no input raises.

Every scan is linear in the length of the text (`str.find`, or patterns whose repeats are bounded), so that a runaway
response of 100,000 characters costs milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import re
import string
from collections.abc import Sequence

from fgrpo_jax.records import Box

_BBOX = re.compile(r"<bbox>([^<>]{0,200})</bbox>")
_NUMBER = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,4})?")
_ABBREVIATIONS = ("e.g", "i.e", "vs", "cf", "fig", "approx", "etc")


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A response taken apart.

    Attributes:
      format_ok: exactly one think block, then exactly one answer block, and nothing else but white space.
      think: the reasoning ('' when there is none).
      answer: the text of the last closed answer block; None when there is none.
      boxes: boxes of the reasoning in the order written, four finite numbers each, degenerate and inverted ones too.
      sentences: sentences of the reasoning, stripped, none empty.
      outside: what follows the reasoning, where an answer without tags may stand.
      malformed: <bbox> tags of the reasoning that hold no four finite numbers.
    """

    format_ok: bool
    think: str
    answer: str | None
    boxes: tuple[Box, ...]
    sentences: tuple[str, ...]
    outside: str = ""
    malformed: int = 0


def parse(text: str, *, prefilled: bool = False) -> Parsed:
    """Takes a response apart.

    Args:
      text: the response as decoded, without special tokens.
      prefilled: the prompt already ends in '<think>', so the response starts inside the think block.
    """
    text = f"<think>{text}" if prefilled else text
    think, outside = _split_think(text)
    answer = _last_answer(outside)
    boxes, malformed = read_boxes(think)
    return Parsed(
        format_ok=_is_well_formed(text),
        think=think,
        answer=answer,
        boxes=boxes,
        sentences=split_sentences(think),
        outside=outside,
        malformed=malformed,
    )


def _is_well_formed(text: str) -> bool:
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if any(text.count(tag) != 1 for tag in tags):
        return False
    body = text.strip()
    places = [body.find(tag) for tag in tags]
    between = body[places[1] + len(tags[1]) : places[2]] if places[1] < places[2] else "x"
    return places == sorted(places) and places[0] == 0 and not between.strip() and body.endswith(tags[3])


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


def _last_answer(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def read_boxes(text: str) -> tuple[tuple[Box, ...], int]:
    """(boxes of the <bbox> tags in order, number of tags that hold no box)."""
    boxes, malformed = [], 0
    for match in _BBOX.finditer(text):
        box = read_box(match.group(1))
        if box is None:
            malformed += 1
        else:
            boxes.append(box)
    return tuple(boxes), malformed


def read_box(text: str) -> Box | None:
    """'[28, 56, 56, 84]' (brackets and spaces optional) as numbers; None unless they are exactly four and finite."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    parts = [part.strip() for part in inner.split(",")]
    if len(parts) != 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    x1, y1, x2, y2 = (float(part) for part in parts)
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def is_proper(box: Sequence[float]) -> bool:
    """Whether a box has a positive width and height."""
    return box[2] > box[0] and box[3] > box[1]


def split_sentences(text: str) -> tuple[str, ...]:
    """Sentences, ended by '.', '!', '?' or a line break; decimals, bbox contents and abbreviations do not end one."""
    shielded = _spans(text)
    sentences, start, shield = [], 0, 0
    for match in re.finditer(r"[.!?]|\n", text):
        at = match.start()
        while shield < len(shielded) and shielded[shield][1] <= at:
            shield += 1
        if shield < len(shielded) and shielded[shield][0] <= at:
            continue
        if at >= start and _ends_sentence(text, at):
            sentences.append(text[start : at + 1])
            start = at + 1
    sentences.append(text[start:])
    return tuple(s for s in (sentence.strip() for sentence in sentences) if s.strip(string.punctuation + " "))


def _spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _BBOX.finditer(text)]


def _ends_sentence(text: str, at: int) -> bool:
    """Whether the mark at `at` ends a sentence: not in '2.5', 'e.g.' or 'a.png', but in 'left.The'."""
    following = text[at + 1 : at + 2]
    if text[at] != "." or not following:
        return True
    if following.isdigit() or following.islower():
        return False
    words = text[max(0, at - 8) : at].lower().replace("(", " ").split()
    return not words or words[-1] not in _ABBREVIATIONS


# ------------------------------------------------------------------------------------------------------------ answers
_CUE = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?(?:\s*:)?\s+\(?([a-z])\)?(?![a-z'])", re.IGNORECASE)
_LONGEST_ANSWER = 600  # characters of an answer that are looked at, from its end: the last commitment wins


def plain(text: str) -> str:
    """Lower case, without punctuation at the ends, single spaces: the form in which answers are compared."""
    return " ".join(text.lower().split()).strip(string.punctuation + " ")


def choose(text: str | None, options: Sequence[str]) -> int | None:
    """Index of the option that an answer commits to; None when it commits to none.

    In this order: the whole text is an option's text or letter; it starts with a letter as 'B.', '(B)', 'B: text';
    it says 'answer is B'; it holds option texts as whole words (the last one counts); it ends in a capital letter.
    """
    if text is None or not options:
        return None
    tail = text[-_LONGEST_ANSWER:]
    whole, texts = plain(tail), [plain(option) for option in options]
    if not whole:
        return None
    if whole in texts:  # before letters: the option 'a' of an odd question is meant as text
        return texts.index(whole)
    letter = _as_letter(whole, len(options))
    if letter is None:
        letter = _leading_letter(tail.strip(), texts)
    if letter is None:
        cues = [_as_letter(match.lower(), len(options)) for match in _CUE.findall(tail)]
        letter = next((cue for cue in reversed(cues) if cue is not None), None)
    if letter is None:
        letter = _last_mention(whole, texts)
    return _final_letter(tail, len(options)) if letter is None else letter


def _as_letter(text: str, count: int) -> int | None:
    index = ord(text) - ord("a") if len(text) == 1 else -1
    return index if 0 <= index < count else None


def _leading_letter(text: str, texts: Sequence[str]) -> int | None:
    """'(B) right', 'B. right' or 'B right', but not the article of 'A cat is near': a bare letter needs its option."""
    match = re.match(r"(\()?([A-Za-z])([).:,]{1,2}|\s|$)", text)
    if match is None:
        return None
    letter = _as_letter(match.group(2).lower(), len(texts))
    if letter is None:
        return None
    rest = plain(text[match.end() :])
    if match.group(1) or match.group(3).strip():
        return letter
    return letter if rest == texts[letter] else None


def _final_letter(text: str, count: int) -> int | None:
    match = re.search(r"(?<![\w'])([A-Z])[\s.)!]{0,4}$", text)
    return _as_letter(match.group(1).lower(), count) if match else None


def _last_mention(whole: str, texts: Sequence[str]) -> int | None:
    """The option whose words come last in the text; a longer option hides the shorter ones inside it ('not red')."""
    found = []
    for index, option in enumerate(texts):
        if option:
            spans = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", whole)]
            found += [(start, end, index) for start, end in spans]
    outer = [hit for hit in found if not any(_covers(other, hit) for other in found)]
    return max(outer, key=lambda hit: hit[1])[2] if outer else None


def _covers(other: tuple[int, int, int], hit: tuple[int, int, int]) -> bool:
    return other[0] <= hit[0] and hit[1] <= other[1] and other[1] - other[0] > hit[1] - hit[0]


def answer_text(parsed: Parsed) -> str | None:
    """Where to look for the answer: the answer block, or else what follows the reasoning; None if there is nothing."""
    if parsed.answer is not None:
        return parsed.answer
    return parsed.outside.replace("<answer>", " ").strip() or None


def answer_index(parsed: Parsed, options: Sequence[str]) -> int | None:
    """Index of the option that the response answers; None when it answers none."""
    return choose(answer_text(parsed), options)
