"""What looks wrong about a set as a whole, though each of its rows can be used.

`prepare` writes it into the data card, and whoever opens published files is warned of it.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from fgrpo_jax.data.sets.readers.layout import Published
from fgrpo_jax.data.styles import LETTERS

FEW = 20  # different texts that there must be before a beginning counts as shared
SHARED = 0.9  # share of them that must have it
DEVIATIONS = 4.0  # standard deviations of chance beyond which right answers lean to a letter
_BEGINNING = re.compile(r"\W*\w+\W+(?=\w)")


def doubts(rows: Sequence[Published], *, boxes: bool) -> Iterator[str]:
    """What is doubtful of the rows of a split, a sentence each; `boxes` says that the set is published with some."""
    boxed = [row for row in rows if row.example.boxes]
    if boxes and not boxed:
        yield f"none of {len(rows)} examples has a box for R_G, as the published set has; they are of another form"
    unit = [row.place for row in boxed if row.frame == "original" and max(map(max, row.example.boxes or ())) <= 1]
    if unit:
        yield f"{len(unit)} of {len(boxed)} examples have boxes within 0..1 ({unit[0]}); give pixels of the first image"
    open_answers = [row.example.answer for row in rows if not row.example.options]
    options = [[e.options[k] for row in rows if k < len((e := row.example).options)] for k in range(len(LETTERS))]
    for kind, texts in (("open answers", open_answers), *zip(map("options {}".format, LETTERS), options, strict=True)):
        if example := shared_beginning(texts):
            yield f"nearly all {kind} begin alike, as in {example!r}; take off what is no part of them"
    yield from _leaning([row for row in rows if row.example.options])


def shared_beginning(texts: Iterable[str]) -> str:
    """One of many different texts that nearly all begin with the same word; '' where they do not."""
    different = sorted({text.strip() for text in texts})
    words = {text: match[0] for text in different if (match := _BEGINNING.match(text))}
    ((word, count),) = collections.Counter(words.values()).most_common(1) or [("", 0)]
    shared = len(different) >= FEW and count >= SHARED * len(different)
    return next(text for text, beginning in words.items() if beginning == word) if shared else ""


def _leaning(rows: Sequence[Published]) -> Iterator[str]:
    """Letters that are right more often than chance allows where every option is as likely to be right."""
    right = collections.Counter(row.example.answer for row in rows)
    for letter, count in right.most_common():
        chances = [1 / len(row.example.options) for row in rows if LETTERS.index(letter) < len(row.example.options)]
        expected, spread = sum(chances), math.sqrt(sum(chance * (1 - chance) for chance in chances))
        if count > expected + DEVIATIONS * spread:
            seen, chance = (round(100 * number / len(rows)) for number in (count, expected))
            yield f"{seen}% of the right answers are {letter}, where chance gives {chance}%; shuffle the options"
