"""What a sentence says about the options themselves: it commits to one, rules some out, or leaves several open.

This needs no understanding of the image or the question, so it works for any multiple-choice text. A sentence that is
none of the three, or not clearly one, is none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from fgrpo_jax.reading.answers import is_denied, labels, mentions
from fgrpo_jax.reading.values import plain
from fgrpo_jax.reading.words import SEEN_WORDS

Stance = Literal["commits", "denies", "hedges"]


@dataclasses.dataclass(frozen=True)
class Commitment:
    """A stance towards options, by their indices."""

    stance: Stance
    options: frozenset[int]


_CUE = re.compile(
    r"\b(?:answer|answers|choose|chose|pick|select|choice|option|go(?:ing)? with|fits?|best|conclude|conclusion|"
    r"therefore|thus|hence|consequently|accordingly|so|must be|has to be|leads? (?:me |us )?to|points? (?:me |us )?to|"
    r"speaks? for|settles?|settle (?:on|for)|decide (?:on|for)|final|finally|means|it is|it's|that is|that's|this is|"
    r"which is|is (?:right|correct|true)|result|statement|sentence|claim|indicates?|implies|favou?rs?|matches|makes|"
    r"gives|wins|say|suggests?|go(?:ing)? for|looking for|opt for)\b"
)
_STRONG = re.compile(
    r"\b(?:answers?|options?|choices?|choose|chose|pick|select|correct|conclude|conclusion|"
    r"rules? out|ruled out|exclude\w*|cross(?:ed)? out|go(?:ing)? (?:for|with)|settle (?:on|for)|opt for|final)\b|"
    r"\b(?:is|be) (?:right|wrong)$"
)
_HEDGE = re.compile(
    r"\b(?:could|may|might|perhaps|maybe|possibly|either|can(?:no|')t tell|can not tell|hard to (?:tell|say)|"
    r"not sure|unsure|unclear|undecided|uncertain|equally|both|possible|plausible|likely|or|"
    r"whether|ambiguous|guess|torn)\b"
)
_DENY = re.compile(
    r"\b(?:can(?:no|')t be|can not be|cannot|not|isn't|never|rules? out|ruled out|exclud\w+|eliminat\w+|discard\w*|"
    r"reject\w*|cross(?:ed)? out|dismiss\w*|wrong|incorrect|false|impossible|leaves? \S+(?: \S+){0,3} out|"
    r"out of the question|neither|nor|no longer|(?:is|are|drops?|falls?) out|does not work|doesn't work)\b"
)
_CONDITION = re.compile(r"\b(?:if|unless|suppose|assuming|were)\b")
_TAG = re.compile(r"<\s{0,3}/?\s{0,3}[A-Za-z!]")  # markup in a reasoning is no statement, whatever it encloses
_LONGEST = 400


def commitment(sentence: str, options: Sequence[str]) -> Commitment | None:
    """The stance of a sentence; None when it has none, or asks, or supposes."""
    if len(sentence) > _LONGEST or sentence.rstrip().endswith("?"):
        return None
    text = plain(sentence.replace("’", "'"))
    if _CONDITION.search(text) or _TAG.search(sentence):
        return None
    named = _named(sentence, text, options)
    if not named:
        return None
    rest, every = _without(text, options), frozenset(named)
    if not _STRONG.search(rest) and not SEEN_WORDS.isdisjoint(re.findall(r"\w+", rest)):
        return None  # a statement about the image that happens to hold the words of an option
    if _HEDGE.search(rest):
        return Commitment("hedges", every)
    kept = frozenset(option for option, denied in named.items() if not denied)
    if kept and len(kept) < len(every):  # 'not A but B'
        return Commitment("commits", kept) if len(kept) == 1 else None
    if _DENY.search(rest):
        return Commitment("denies", every)
    if len(every) > 1 or not (_CUE.search(rest) or text == plain(options[next(iter(every))])):
        return None
    return Commitment("commits", every)


def _named(sentence: str, text: str, options: Sequence[str]) -> dict[int, bool]:
    """Options that a sentence names by text or letter, each with whether it is denied where it stands."""
    texts = [plain(option) for option in options]
    out: dict[int, bool] = {}
    for hit in mentions(text, texts):
        if re.match(r" (?:of|than|from|to)\b", text[hit[1] :]) and len(texts[hit[2]].split()) == 1:
            continue  # 'left of the cup' places something, it is not the option 'left'
        out[hit[2]] = out.get(hit[2], True) and is_denied(text, hit)
    for one in labels(sentence, len(options)):
        if one.option is not None:
            out[one.option] = out.get(one.option, True) and one.denied
    return out


def _without(text: str, options: Sequence[str]) -> str:
    """The text without the words of the options, which may hold 'not' or 'both' themselves."""
    for option in sorted((plain(option) for option in options), key=len, reverse=True):
        if option:
            text = re.sub(rf"(?<!\w){re.escape(option)}(?!\w)", "…", text)
    return text
