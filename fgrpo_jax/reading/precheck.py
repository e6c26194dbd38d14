"""The clear cases of consistency in any multiple-choice text: what the reasoning last commits to, against the answer.

Only sentences that speak of the options themselves count: "The answer is B", "It must be the red one", "Option A is
wrong". Everything else is left to a judge that can read. No list of wordings is kept here, and none should grow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgrpo_jax.reading.answers import is_denied, mentions
from fgrpo_jax.reading.commitments import Commitment, commitment
from fgrpo_jax.reading.dialects import in_paper_notation
from fgrpo_jax.reading.parsing import Parsed, answer_index
from fgrpo_jax.reading.sentences import Trivial
from fgrpo_jax.reading.values import plain
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.reading.words import NUMBERS

_TRIVIAL = Trivial()


def precheck(parsed: Parsed, options: Sequence[str]) -> Verdict | None:
    """YES, NO or UNCERTAIN where the text makes it clear; None where somebody else must judge.

    NO without any reasoning, UNCERTAIN without a readable answer. YES needs a commitment to the answer, and other
    sentences (where there are any that are not idle) that name this option and no other.
    """
    if not parsed.sentences:
        return Verdict.NO
    answered = answer_index(parsed, options)
    if answered is None:
        return Verdict.UNCERTAIN
    sentences = [in_paper_notation(sentence, parsed.dialect) for sentence in parsed.sentences]
    stances = [commitment(sentence, options) for sentence in sentences]
    committed, at, hedged = _settled(stances, len(options))
    if committed is None:
        last = stances[-1]
        open_ = last is not None and last.stance == "hedges" and len(last.options) > 1
        return Verdict.UNCERTAIN if open_ else None
    if hedged or any(_TURNS.search(plain(s)) or _named(s, options) - {committed} for s in sentences[at + 1 :]):
        return None
    if committed != answered:
        return Verdict.NO
    return Verdict.YES if _supports(sentences, stances, options, committed) else None


def _settled(stances: Sequence[Commitment | None], count: int) -> tuple[int | None, int, bool]:
    """(the option the text ends up committed to, where it does, whether a hedge stands after it)."""
    found, at, hedged = None, -1, False
    denied: set[int] = set()
    for index, stance in enumerate(stances):
        if stance is None:
            continue
        if stance.stance == "hedges":
            hedged = True
        elif stance.stance == "commits":
            (found,), at, hedged = stance.options, index, False
            denied.discard(found)
        else:
            denied |= stance.options
            left = set(range(count)) - denied
            found = None if found in denied else found
            if len(left) == 1:
                found, at, hedged = left.pop(), index, False
    return found, at, hedged


def _supports(
    sentences: Sequence[str], stances: Sequence[Commitment | None], options: Sequence[str], committed: int
) -> bool:
    """Whether all that is not about the options names that one and no other, and nothing spoke for another.

    What stands before a sentence that takes something back ('Wait, ..') does not count.
    """
    back = max((at for at, sentence in enumerate(sentences) if _TURNS.search(plain(sentence))), default=0)
    taken = [stance for stance in stances[back:] if stance is not None]
    if any((stance.stance == "commits") != (committed in stance.options) for stance in taken):
        return False
    body = [s for s, stance in zip(sentences, stances, strict=True) if stance is None and not _TRIVIAL.is_idle(s)]
    return {option for s in body for option in _named(s, options)} == {committed} if body else True


_TURNS = re.compile(
    r"^(?:wait|actually|hold on|on second|no\b|but|however|hmm|let me (?:correct|re))|\b(?:mistake|misread)\b"
)


def _named(sentence: str, options: Sequence[str]) -> set[int]:
    """Options whose text a sentence holds and does not deny; where all are numbers, in words too."""
    whole, texts = plain(sentence), [plain(option) for option in options]
    if all(text.isdigit() for text in texts):
        whole = re.sub(r"[a-z]+", lambda match: str(NUMBERS.get(match[0], match[0])), whole)
    return {hit[2] for hit in mentions(whole, texts) if not is_denied(whole, hit)}
