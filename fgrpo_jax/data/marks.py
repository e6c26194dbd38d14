"""Marks in a question that say where its images stand: `<image>`, or `<image 2>` for the second of them.

An example that a source gives holds as many plain marks as images, or none, and then the images come first. The
processor puts images where the marks are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MARK = "<image>"
_ANY = re.compile(r"<image(?:[ _]?(\d{1,3}))?>")


def numbers(texts: Sequence[str]) -> list[int]:
    """The numbers of the marks in order, from 1; [] where they have none. ValueError where only some have one."""
    found = [match[1] for text in texts for match in _ANY.finditer(text)]
    if len({number is None for number in found}) > 1:
        raise ValueError("some <image> marks have a number and some have none; number all of them or none")
    return [int(number) for number in found if number is not None]


def plain(text: str) -> str:
    """A text with its marks without numbers."""
    return _ANY.sub(MARK, text)


def settle(question: str, options: Sequence[str], *, count: int) -> str:
    """The question of an example of `count` images, without marks where all of them lead, since images come first.

    Raises:
      ValueError: another number of marks than of images.
    """
    marks = sum(text.count(MARK) for text in (question, *options))
    if marks not in (0, count):
        raise ValueError(f"{marks} {MARK} marks for {count} images; give each image a mark, or drop the marks")
    rest = question
    for _ in range(marks):
        rest = rest.lstrip().removeprefix(MARK)
    return question if any(MARK in text for text in (rest, *options)) else rest.lstrip() if marks else question


def protected(text: str) -> str:
    """A text whose marks no reader of texts takes out; `restored` brings them back."""
    return _ANY.sub(lambda match: f"\ufffc{match[1] or ''}\ufffc", text)


def restored(text: str) -> str:
    return re.sub("\ufffc(\\d*)\ufffc", lambda match: f"<image {match[1]}>" if match[1] else MARK, text)
