"""Sentences of a reasoning, and which of them say nothing of the image: those no judge is ever asked about.

A sentence is trivial when it holds no box or point and

1. none of the visual words (`SEEN_WORDS`), or
2. begins with one of `TRIVIAL_PREFIXES` (after words such as 'so' or 'first,'), and no visual word stands beyond the
   first comma, colon or 'that' behind it: "Let me look at the left side." is trivial, "Let me see, the cup is on the
   left side." is a claim, so that a policy can't hide one behind a prefix.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import string
from collections.abc import Sequence

from fgrpo_jax.reading.dialects import PAPER, Dialect, points_at, spans
from fgrpo_jax.reading.words import SEEN_WORDS

_ABBREVIATIONS = ("e.g", "i.e", "vs", "cf", "fig", "approx", "etc")

TRIVIAL_PREFIXES = (
    *("let me", "let us", "let's", "i need to", "i have to", "i should", "i must", "i will", "i'll", "i want to"),
    *("i am going to", "i'm going to", "i am asked", "i'm asked", "my task", "my goal", "my job"),
    *("we need to", "we have to", "we should", "we must", "we will", "we'll", "we want to", "we are asked"),
    *("to answer", "to determine", "to find", "to solve", "to decide", "to check", "to see", "to figure out"),
    *("the question", "question", "the task", "the options", "the choices", "the possible answers", "options"),
    *("the answer", "the final answer", "the correct answer", "the right answer", "the best answer", "my answer"),
    *("the correct option", "the right option", "the best option", "the correct choice", "answer", "final answer"),
    *("looking at", "wait", "hmm", "okay", "ok", "alright", "right,", "good", "great", "done", "in conclusion"),
    *("time to", "i start", "i begin", "here comes", "here is how", "that should be enough", "that is enough"),
)
_FILLERS = re.compile(
    r"^(?:(?:so|thus|therefore|hence|then|now|and|but|first|firstly|second|secondly|third|next|finally|okay|ok|well|hmm|"
    r"also|step \d{1,2}|\d{1,2}[.)]|[-*•])(?:\s?[,:]\s?|\s+))+"
)
_TURN = re.compile(r"[,:;—]|\bthat\b|\bsince\b|\bbecause\b|\bas\b")
_LONGEST = 4_000  # characters of a sentence that are looked at for words


@dataclasses.dataclass(frozen=True)
class Trivial:
    """The filter."""

    prefixes: tuple[str, ...] = ()  # beginnings of sentences without a claim, lower case; () takes TRIVIAL_PREFIXES
    words: tuple[str, ...] = ()  # words that make a sentence visual, lower case; () takes reading.words.SEEN_WORDS

    def __call__(self, sentence: str, *, dialect: Dialect = PAPER) -> bool:
        """Whether a sentence is trivial: SKIP, and no judge is asked."""
        if points_at(sentence, dialect=dialect):
            return False
        text = _lowered(sentence)
        return not self.is_visual(text) or self.is_idle(text)

    def is_idle(self, sentence: str) -> bool:
        """Whether a sentence begins with one of the prefixes and makes no visual claim behind it."""
        text = _FILLERS.sub("", _lowered(sentence))
        begun = next((prefix for prefix in self._prefixes if text.startswith(prefix)), None)
        if begun is None or (begun[-1].isalnum() and text[len(begun) : len(begun) + 1].isalnum()):
            return False
        turn = _TURN.search(text, len(begun))
        return turn is None or not self.is_visual(text[turn.end() :])

    def is_visual(self, text: str) -> bool:
        """Whether a lower-case text holds a visual word."""
        return not self._words.isdisjoint(re.findall(r"\w+", text))

    @functools.cached_property
    def _prefixes(self) -> tuple[str, ...]:
        # The longest comes first, so that 'the answer' does not cut 'the answer is' short.
        return tuple(sorted(self.prefixes or TRIVIAL_PREFIXES, key=len, reverse=True))

    @functools.cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(self.words) if self.words else SEEN_WORDS


def _lowered(sentence: str) -> str:
    return " ".join(sentence[:_LONGEST].lower().replace("’", "'").split())


def split_sentences(text: str, *, dialect: Dialect = PAPER) -> tuple[str, ...]:
    """Sentences, ended by '.', '!', '?' or a line break; decimals, coordinates and abbreviations do not end one."""
    return tuple(text[start:end].strip() for start, end in sentence_spans(text, dialect=dialect))


def sentence_spans(text: str, *, dialect: Dialect = PAPER) -> Sequence[tuple[int, int]]:
    """(start, end) of each sentence; pieces of punctuation alone are left out."""
    shielded = spans(text, dialect=dialect)
    pieces, start, shield = [], 0, 0
    for match in re.finditer(r"[.!?]|\n", text):
        at = match.start()
        while shield < len(shielded) and shielded[shield][1] <= at:
            shield += 1
        if shield < len(shielded) and shielded[shield][0] <= at:
            continue
        if at >= start and _ends_sentence(text, at):
            pieces.append((start, at + 1))
            start = at + 1
    pieces.append((start, len(text)))
    return [(start, end) for start, end in pieces if text[start:end].strip().strip(string.punctuation + " ")]


def _ends_sentence(text: str, at: int) -> bool:
    """Whether the mark at `at` ends a sentence: not in '2.5', 'e.g.' or 'a.png', but in 'left.The'."""
    following = text[at + 1 : at + 2]
    if text[at] != "." or not following:
        return True
    if following.isdigit() or following.islower():
        return False
    words = text[max(0, at - 8) : at].lower().replace("(", " ").split()
    return not words or words[-1] not in _ABBREVIATIONS
