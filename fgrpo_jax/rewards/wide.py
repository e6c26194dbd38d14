"""Reading sentences beyond the grammar of `claims`: free wordings of the same statements.

A sentence is tried in turn as what the strict grammar reads, as the denial of such a one, as a whole construction of
English (`constructions`) or a turn of phrase (`idioms`), as the place of one thing (`silence`), as one that says
nothing of the image (`openings`), and by its marks (`marks`). What none of them can account for, to the last word (but
for the place of one thing, where no other word could tell more) and to the last object, is not read. It is for judges
that may abstain; the oracle of the training reward stays with the strict grammar.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from fgrpo_jax.rewards.claims import Claim, Reading, Symbols, is_visual, read, take_conclusion
from fgrpo_jax.rewards.constructions import claims_of
from fgrpo_jax.rewards.idioms import told
from fgrpo_jax.rewards.marks import IDLE, NEGATION, statement
from fgrpo_jax.rewards.openings import denied, is_idle, without_lead, without_topic
from fgrpo_jax.rewards.silence import placed
from fgrpo_jax.rewards.words import COLORS, PLURALS, SHAPES

_REMARK = re.compile(r"^([^,;:<]{1,60})[,;:]\s(.+)$")  # 'On closer inspection, ..'
_NAMED = re.compile(rf"\b(?:{'|'.join((*COLORS, *SHAPES, *PLURALS.values()))})\b", re.IGNORECASE)
_OTHERS_SAY = re.compile(
    r"^(?:the|this|that|its|some) (?:question|task|prompt|statement|caption|options?|people) (?:claims?|says?|"
    r"states?|assumes?|"
    r"implies|suggests?|supposes|presumes?)\b",
    re.IGNORECASE,
)
_NO_TO_ITSELF = re.compile(
    r"^no\s?[,.!]\s(?=(?:wait|looking|checking|on (?:second|closer|reflection)|upon|after|"
    r"that(?:'s| is| was)|this is|i |let me|actually|sorry|hold on|my |in fact)\b)",
    re.IGNORECASE,
)
"""The 'no' that takes back a sentence, and answers no question."""
_DISSENT = re.compile(
    r"\W*(?:\w+, )?(?:i|we)\b[^,.;]*\b(?:disagree|deny|dispute|reject|refute|doubt|contest|refuse"
    r"|hesitate)\b[^,.;]*\bthat\b",
    re.IGNORECASE,
)
"""Of which the strict grammar would skip the beginning: 'I have to disagree that ..'."""
_PICKED = rf"the (?:small |medium |large )?(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})"
_CLEFT = re.compile(
    r"^(?:(?:out of|of|among|amongst) (?:all )?(?:of )?(?:the |these |those )?(?:other |remaining |given |possible "
    r"|available"
    r" |listed )?(?:candidates|options|objects|shapes|choices|items|things)(?: (?:here|shown|given|listed|present|"
    rf"available))?, )?it is (?={_PICKED} (?:which|that) )(?!.*(?:{NEGATION.pattern}))",
    re.IGNORECASE,
)
"""'Out of all the candidates, it is x which lies ..': what remains is 'x which lies ..'."""
_AXIS = re.compile(
    r"\b((?:left|right)\b[^,;.]*?) (?:along|on|in terms of|with respect to|with regard to|in) the (?:x|horizontal)[ -]"
    r"(?:axis|direction|dimension)(?=[.,;]|$)|\b((?:above|below|higher|lower)\b[^,;.]*?) (?:along|on|in terms of|with "
    r"respect to|with regard to|in) the (?:y|vertical)[ -](?:axis|direction|dimension)(?=[.,;]|$)",
    re.IGNORECASE,
)
"""'.. left of y along the x-axis': of the axis that the relation has anyway."""
_LONGEST = 400


@functools.lru_cache(maxsize=1 << 13)
def read_widely(sentence: str) -> Reading:
    """Reads one sentence, by the strict grammar if that can, else by its marks. Total; what stays dark is not read."""
    strict = read(_NO_TO_ITSELF.sub("", sentence))
    if _OTHERS_SAY.match(sentence):
        return Reading((), False, strict.visual)
    dissent = _DISSENT.match(sentence) is not None
    hiding = strict.understood and (dissent or _leaves_out(strict, sentence))
    if (strict.understood and not hiding) or len(sentence) > _LONGEST or sentence.rstrip().endswith("?"):
        return strict
    text = " ".join(sentence.replace("’", "'").split())
    text = without_lead(text.replace("can't", "can not").replace("cannot", "can not").replace("n't", " not"))
    text = _AXIS.sub(lambda match: match[1] or match[2], _cleft(text))
    claim = denied(text)
    if claim is not None:
        return _negated(read_widely(claim + "."), Reading((), False, strict.visual) if dissent else strict)
    if dissent:
        return Reading((), False, strict.visual)
    body, conclusions = take_conclusion(text)
    inner = read(body[:1].upper() + body[1:])
    if inner.understood and inner.claims and body and not _leaves_out(inner, body):
        return dataclasses.replace(inner, claims=(*inner.claims, *conclusions), visual=strict.visual)
    remark = _REMARK.match(body)
    if remark and _is_idle(remark[1]):
        inner = read(remark[2][:1].upper() + remark[2][1:])
        if inner.understood and inner.claims:
            return dataclasses.replace(inner, claims=(*inner.claims, *conclusions), visual=strict.visual)
    for topical in dict.fromkeys((body, without_topic(body))):
        found = claims_of(topical) or told(topical) or _single(placed(topical))
        if found and _covers(found, topical):
            return Reading((*found, *conclusions), True, is_visual(sentence))
    if hiding:  # what is only announced is silent, but what speaks of half of its things may say something of them
        silent = not strict.claims and _ANNOUNCED.match(text) and not _STATES.search(text)
        return strict if silent or conclusions else Reading((), False, strict.visual)
    if is_idle(text):
        return Reading((), True, False)
    claim = statement(without_topic(body))
    return (
        strict
        if claim is None or not _covers((claim,), body)
        else Reading((claim, *conclusions), True, is_visual(sentence))
    )


def _cleft(text: str) -> str:
    """'It is x which lies ..' as 'X lies ..'."""
    rest = _CLEFT.sub("", text)
    return text if rest == text else re.sub(r" (?:which|that) ", " ", rest[:1].upper() + rest[1:], count=1)


def _covers(claims: tuple[Claim, ...], text: str) -> bool:
    """Whether every object that a text names is in what was made of it: what is left out may turn the meaning."""
    symbols = Symbols.of(text)
    named = {thing.name for thing in symbols.things if thing.color and thing.shape} if symbols else set()
    return named <= {thing.name for claim in claims for thing in claim.things}


def _single(claim: Claim | None) -> tuple[Claim, ...]:
    return () if claim is None else (claim,)


_ANNOUNCED = re.compile(
    r"\W*(?:\w+,? )?(?:let|i (?:need|have to|will|should|must|want)|we (?:need|have to"
    r"|will|should|must)|to answer|the question)\b",
    re.IGNORECASE,
)
_STATES = re.compile(
    r",.*\b(?:is|are|was|lies|sits|stands|lands?|finds?|sees?|appears?|meets?|has|contains|there|turns?|comes?)\b|"
    r"\b(?:revise|correct|retract|withdraw|admit|mistake)\b|[:;]",
    re.IGNORECASE,
)


_BEGUN = re.compile(r"\W*(?:\w+,? )?(?:look|let|i |we |to answer|the question)", re.IGNORECASE)


def _leaves_out(reading: Reading, sentence: str) -> bool:
    """Whether a sentence read by the strict grammar names things that no claim of it is about.

    'Looking left of a, there is b': behind a beginning that is idle there, only the last clause is read.
    """
    if not _NAMED.search(sentence) or not _BEGUN.match(sentence):
        return False
    symbols = Symbols.of(sentence)
    named = set() if symbols is None else {thing.name for thing in symbols.things if thing.name}
    return not named <= {thing.name for claim in reading.claims for thing in claim.things}


def _is_idle(remark: str) -> bool:
    """Whether what stands before a comma changes nothing in what follows: only words that are known to."""
    words = re.findall(r"\w+", remark.lower())
    return IDLE.issuperset(words) and not NEGATION.search(remark.lower())


def _negated(reading: Reading, otherwise: Reading) -> Reading:
    """The denial of a sentence that makes exactly one statement."""
    if not reading.understood or len(reading.claims) != 1 or reading.claims[0].kind in ("conclusion", "exists"):
        return otherwise
    claim = reading.claims[0]
    return Reading((dataclasses.replace(claim, negated=not claim.negated),), True, reading.visual)
