"""Sentences that can't say anything of a relation, a number or an option, whatever their other words mean.

Two arguments from what is missing. A sentence that names nothing, no side, size, number or option, and refers to no
statement makes none. One that names exactly one thing and one box, and has no word that compares, denies, doubts or
counts, says where that thing is.
"""

from __future__ import annotations

import re

from fgrpo_jax.rewards.claims import Claim, Symbols
from fgrpo_jax.rewards.words import COLORS, NUMBERS, PLURALS, SHAPES, SIZES


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMES = frozenset((*COLORS, *SHAPES, *PLURALS.values()))
_RELATIONS = _words(
    """
    left right leftmost rightmost leftward rightward leftwards rightwards above below over under beneath underneath
    up upward upwards down downward downwards top bottom higher highest lower lowest upper uppermost topmost
    bottommost lowermost larger largest bigger biggest greater greatest smaller smallest tinier tiniest more less
    fewer most least near nearer nearest close closer closest far farther farthest further furthest distant remote
    shorter shortest longer longest between inside within outside contains contained containing encloses enclosed
    surrounds surrounded encircled middle beside adjacent neighbour neighbor neighbours neighbors than north south
    east west northern southern eastern western taller tallest wider wide high low beyond behind
    """
).union(SIZES, ("big", "tiny", "huge", "little", "tall"))
_DENIES = _words(
    """
    not no never none nothing neither nor nobody nowhere without cannot hardly scarcely barely false wrong untrue
    incorrect mistaken mistake mistook error errors fails fail failed lacks misread misplaced outside avoids misses
    rather instead unlike contrary opposite except elsewhere excludes ruled rule almost nearly
    """
)
_DOUBTS = _words(
    """
    perhaps maybe possibly probably might may could would whether unless either or unclear unsure seems seemingly
    apparently supposedly allegedly presumably suppose assume assuming doubt suspect guess likely claims claimed claim
    said says supposed expected believed wonder wondering wondered should
    """
)
_ANSWERS = _words(
    """
    yes no yeah yep nope true false right wrong correct incorrect mistaken mistake error former latter same equal
    opposite reverse vice versa both neither either another other others otherwise so thus therefore affirmative
    negative first second third last hold holds confirmed confirms confirm refuted contradicts denied not never none
    nothing cannot indeed does did agree agrees disagree retract withdraw scratch strike number count counts total
    option options choice choices pick answer answers all every each wins win loses tie case sided one ones
    """
).union(NUMBERS)
_HARMLESS = re.compile(
    r"\b(?:so (?:far|much)|(?:so|that) (?:good|let|i|we|that|as)|as far as|by far"
    r"|far from (?:hard|difficult)|close (?:look|attention)|"
    r"closer (?:look|inspection)|more (?:closely|carefully|time|slowly|look|detail"
    r"|thing|care)|further (?:ado|delay|on)|"
    r"(?:each|every) (?:thing|step|one|detail|object|shape|item|part|piece|of (?:them"
    r"|these))|(?:each|every) in turn|all (?:right|set|the (?:\w+ )?(?:objects|shapes"
    r"|items|details|options|facts|"
    r"things|information))|all (?:of )?(?:them|these|this)|first of all|(?:at|on) (?:first"
    r"|second) (?:glance|sight|thought|look)|"
    r"(?:one|another|a second|a first|last|other) (?:thing|step|moment|minute|look"
    r"|more|glance|second|at a time|by one|after (?:the other|another)|sec)|first(?= i"
    r"| we| let|,| things| off)|"
    r"things first|right (?:away|then|now|here)|alright|all in all|over (?:it|this|that|everything|again|the)|"
    r"(?:look|looking|go|going|think|thinking|read|reading|run|running|mull|mulling) (?:\w+ ){0,2}over"
    r"|break \w+ down|"
    r"(?:break|write|note|jot|slow|narrow|get|pin|settle|work|put|lay|buckle|calm"
    r"|boil) (?:\w+ ){0,3}down|down to (?:it|business|work|the)|"
    r"(?:draw|sum|set|start|wake|speed|warm|size|look|think|zoom|line|dig|follow"
    r"|ready|wrap|end|give|make|come|hurry) (?:\w+ ){0,2}up|up (?:to|with) (?:me"
    r"|this|it|a)|step up|"
    r"the (?:question|answer|options|choices|correct answer|right answer|options given"
    r"|answer options|possible answers)|(?:an|my|any|this|your|final) answer|before answering"
    r"|question|"
    r"(?:no|not) (?:rush|hurry|problem|worries|need|doubt about it|guesswork|guessing"
    r"|too fast|easy|hard|difficult|trivial|rushing|"
    r"so fast|that hard|complicated|skip|miss|overlook|jump)|without (?:further"
    r"|rushing|haste|hurry|guessing|delay|more)|nothing (?:hard|difficult|missed"
    r"|overlooked|escapes)|"
    r"(?:the|these|those|which) (?:options|choices)|under(?:stand| consideration"
    r"| scrutiny| review)|a little|little by little|bit by bit|"
    r"the (?:first|next|second|last|final) (?:step|thing|task|job|move)|in (?:the )?right (?:order"
    r"|way)|the right (?:way|track|approach|conclusion|answer)|on the right track"
    r"|"
    r"step (?:one|two|1|2|3)|one step|(?:a|one) (?:second|moment|minute)|two (?:things"
    r"|steps|objects|shapes)|the two|them both|both (?:of them|objects|shapes|things)"
    r"|"
    r"most (?:important|of all|likely thing)|last of all|at last|last but|i (?:should"
    r"|would like|could use|may|might as well)|what (?:should|would|could)|number of (?:things"
    r"|steps|ways)|"
    r"the (?:others?|rest)|each other|one another|does it|did i|in the middle of|more|further|close|near|high time)\b"
)
"""Uses of the words above that say nothing."""
_REFERS = re.compile(
    r"\b(?:it|they|this|that|these|those|he|she|which|everything|object|shape|thing)(?:'s"
    r"| is| are| was| were| does| do| did| has|"
    r" holds?| fits?| match(?:es)?| lies| sits| must| can| isn't| can't| doesn't"
    r"| works?| will be| should| would)\b(?! (?:the (?:\w+ )?(?:question|task|plan"
    r"|part|bit|step|moment|time|method|approach|way to|key|hard|trick|first|"
    r"idea|point|problem|puzzle|challenge)|what (?:i|we)|how|why|where|easy|simple"
    r"|tricky|fun|enough|to be|going to|a (?:good|nice|fun|simple|tricky|straightforward"
    r"|"
    r"matter|question|careful|neat|task|puzzle|fair|quick|short|small|bit|place"
    r"|moment|start)|all i|my|our|time|worth|important|interesting|good|nice|straightforward"
    r"|need|require|"
    r"asked|about|helpful|useful|deserves?))"
)
"""What affirms, denies or points at something said before."""
_THERE = re.compile(
    r"\b(?:t?here)(?:'s| is| are| was)(?: (?:indeed|one|some|really))?\W*$|\bhere (?:it|they) (?:is|are)\b"
)
_LETTER = re.compile(r"(?<![\w'’])(?:[B-HJ-Z]|A(?!\s[a-z])|\([A-Z]\))(?![\w'’])")


_TAKES_BACK = re.compile(
    r"\b(?:mirror\w*|flip\w*|revers\w*|backwards?|swap\w*|switch\w*|exchang\w*|interchang\w*|invert\w*|rotat\w*|"
    r"confus\w*|overlook\w*|miss(?:ed|es|ing)?|skip(?:s|ped|ping)?|mistook|mistak\w*|mix(?:ed|ing)?|mislabell?ed|"
    r"misread|misjudged|turn(?:s|ed)? (?:\w+ ){0,2}around|upside|wrong way|other way|opposite)\b"
)


def takes_back(text: str) -> bool:
    """Whether a lower-case text has a word by which what was said before may be turned around."""
    return _TAKES_BACK.search(text) is not None


def is_silent(sentence: str) -> bool:
    """Whether a sentence names nothing that a statement could be about, and affirms or takes back none."""
    if "<" in sentence or len(sentence) > 200 or _LETTER.search(sentence) or re.search(r"\d", sentence):
        return False
    text = " ".join(re.sub(r"[’]", "'", sentence.lower()).split())
    if sentence.rstrip().endswith("?") or _REFERS.search(text) or _THERE.search(text) or takes_back(text):
        return False
    words = re.findall(r"\w+", _HARMLESS.sub(" ", text.replace("n't", " not")))
    return not _BLOCKING.intersection(words)


_BLOCKING = _NAMES | _RELATIONS | _DENIES | _DOUBTS | (_ANSWERS - {"so", "thus", "therefore"})

_FRAMES = re.compile(
    r"\b(?:(?:would|should) (?:be|read)(?: at)?(?= <)|drawn? (?:\w+ ){0,3}(?:around"
    r"|round|over)|if (?:you|i|we|one) (?:draw"
    r"|put|place|trace|fit|look|zoom|focus|go|check|measure|crop|cut|wrap|box)|"
    r"(?:takes?|fill|fills|ends?|shows?|turns?|picks?|taken|picking|marked) up|up to"
    r"|down (?:where|the|its|that|to|here|as)|"
    r"(?:note|write|jot|noted|pin|pinned|set|written|jotted|put|track|tracked|narrow"
    r"|narrowed|hunt|mark|nail) (?:\w+ ){0,6}?down|close(?:ly)?|more (?:closely"
    r"|carefully|precisely|exactly)|"
    r"closer (?:look|inspection)|look(?:ing)? (?:\w+ )?over|within|inside(?= <)"
    r"|middle of|top left|bottom right|upper left|lower right|left and top|right and bottom"
    r"|"
    r"(?:would|should|could|may|might) (?:be able to|like to|say|put it|give|get"
    r"|place|have|find|see|obtain|locate|point out|describe|box)|little|no doubt"
    r"|without (?:a )?doubt|"
    r"no more and no less|not hard to (?:find|spot|see|locate)|(?:large|small|big) as it is"
    r"|over (?:at|in|here|there)|right (?:at|in|here|there|now)|between (?:the )?(?:corners"
    r"|coordinates))\b"
)
"""Words of placing that compare nothing."""


def placed(text: str) -> Claim | None:
    """'at', for a sentence of one named thing and one box with nothing that compares, denies, doubts or counts."""
    if text.count("<bbox>") != 1 or text.rstrip().endswith("?"):
        return None
    symbols = Symbols.of(text)
    if symbols is None or len(symbols.boxes) != 1 or symbols.numbers:
        return None
    named = {thing for thing in symbols.things if thing.name}
    if len({thing.name for thing in named}) != 1:
        return None
    thing = max(named, key=lambda one: one.size is not None)
    if not (thing.color and thing.shape):
        return None
    outside = _FRAMES.sub(" ", re.sub(r"<bbox>.*?</bbox>", "<>", text.lower().replace("n't", " not")))
    words = re.findall(r"\w+", re.sub(r"\b(?:small|medium|large)\b", "", outside))
    return (
        None
        if (_RELATIONS | _DENIES | _DOUBTS | _MOVED).intersection(words)
        else Claim("at", (thing,), box=symbols.boxes[0])
    )


_MOVED = _words(
    """
    if except although though other others another mirror mirrored flipped shifted moved away touches touching
    overlaps overlap overlapping partly partially was were had formerly used same compared versus question caption
    option answer beside past corner opposite half twice
    """
)
"""Words of a thing that is not, or not quite, or no longer where the box is."""
