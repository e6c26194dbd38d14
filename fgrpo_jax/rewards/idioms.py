"""Turns of phrase: of travelling, of scanning, of measuring, as small grammars over a sentence with things as R0, R1.

Like `constructions`, but over the words as they stand (without articles and adverbs that change nothing), so that one
pattern holds a family: where one starts, the verb of motion, the direction, the goal, in the orders that English has.
Every pattern must use up the whole line, so that a word it does not know keeps the sentence unread.
"""

from __future__ import annotations

import re

from fgrpo_jax.rewards import measures, reports, tallies, travel
from fgrpo_jax.rewards.claims import Claim, Symbols
from fgrpo_jax.rewards.phrases import PRONOUN, opened, raw_line
from fgrpo_jax.rewards.turns import Match, compiled

_PATTERNS = tuple(
    (compiled(pattern), make)
    for make, patterns in (*travel.TABLE, *measures.TABLE, *tallies.TABLE, *reports.TABLE)
    for pattern in patterns
)
_NOISE = re.compile(
    r"\b(?:the|a|an|clearly|exactly|precisely|only|just|simply|slightly|visibly"
    r"|noticeably|quite|really|plainly|entirely|"
    r"wholly|fully|immediately|definitely|certainly|obviously|evidently|considerably|indeed|actually|therefore|also|"
    r"much|very|own|itself|overall|snugly) "
)
_PAGE = re.compile(
    r" (?:in|on|within|of|across|over) (?:this |our |whole )?(?:image|picture|scene"
    r"|page|drawing|figure|canvas|frame|photo|sheet|diagram)\b(?! R)"
)
_LONGEST = 60


def told(text: str) -> tuple[Claim, ...] | None:
    """What a sentence states by one turn of phrase that uses it up; else None."""
    symbols = Symbols.of(PRONOUN.sub("uno", text))
    if symbols is None or not 1 <= len(symbols.things) <= 8:
        return None
    whole = _plain(raw_line(symbols))
    for line in dict.fromkeys((whole, opened(whole))):
        if len(line.split()) > _LONGEST:
            return None
        for pattern, make in _PATTERNS:
            match = pattern.fullmatch(line)
            found = None if match is None else Match(match, symbols)
            claim = make(found) if found is not None and found.clear else None
            if claim is not None:
                return (claim,)
    return None


def _plain(line: str) -> str:
    line = _PAGE.sub("", _NOISE.sub("", line))
    line = re.sub(r"\b(?:it|that) s\b", "it is", line)
    return re.sub(r"\b(left|right) hand\b", r"\1", line).strip(" ,;:")
