"""Reading sentences of a reasoning as claims, in the grammar of the built-in world and a little beyond.

A sentence becomes a line of symbols, in which things, boxes and numbers are R0, B0, N0 and the wordings of a relation
are one capital word:

    "The red circle is to the left of and above the blue square."   ->   "R0 is LEFT and ABOVE R1"

The line is then read from left to right, clause by clause, with the patterns of `_CLAUSES`. A line that is not used up
is not understood. Nothing here looks at an image or a scene.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable

from fgrpo_jax.reading.dialects import read_box
from fgrpo_jax.reading.words import COLORS, NUMBERS, PLURALS, SHAPES, SIZES, THING_WORDS, VISUAL_WORDS
from fgrpo_jax.records import Box

_LONGEST = 80  # tokens of a sentence; longer ones are not read


@dataclasses.dataclass(frozen=True)
class Thing:
    """What a mention says of what it means; None where it says nothing."""

    color: str | None = None
    shape: str | None = None
    size: str | None = None

    @property
    def name(self) -> str:
        """'red circle', or 'red', or 'circle'; the size is left out, since names are told apart without it."""
        return " ".join(word for word in (self.color, self.shape) if word)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement.

    Attributes:
      kind: 'at' (things[0] is at `box`), 'relation' (things[0] is `relation` of things[1]; left, right, above, below,
        larger, smaller, inside), 'extreme' (things[0] is the nearest to or farthest from things[1]), 'nearer'
        (things[0] is nearer to, or farther from, things[1] than things[2] is), 'between' (things[0] between things[1]
        and things[2]), 'count' (there are `number` of things[0]), 'exists', 'size' (things[0] is `relation`),
        'conclusion' (the answer is `text`).
    """

    kind: str
    things: tuple[Thing, ...] = ()
    relation: str = ""
    negated: bool = False
    box: Box | None = None
    number: int = 0
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A sentence as read: its claims, whether all of it was understood, and whether it speaks of the image at all."""

    claims: tuple[Claim, ...]
    understood: bool
    visual: bool


def read(sentence: str) -> Reading:
    """Reads one sentence. Total: what it can't read comes back with understood=False and no claims."""
    if len(sentence) > 40 * _LONGEST:  # not read, and not kept in the cache either
        return Reading((), False, is_visual(sentence))
    return _read(sentence)


def is_visual(sentence: str) -> bool:
    return "<bbox>" in sentence or not VISUAL_WORDS.isdisjoint(re.findall(r"\w+", sentence.lower()))


@functools.lru_cache(maxsize=1 << 14)
def _read(sentence: str) -> Reading:
    body, conclusions = take_conclusion(sentence)
    visual = is_visual(sentence)
    symbols = Symbols.of(body)
    if symbols is None:
        return Reading((), False, visual)
    line = _normal(symbols.line)
    if _IDLE.match(line) and not re.search(r"\bB\d", line):
        hidden = _hidden_claim(body)
        if hidden is None:
            return Reading(conclusions, True, False)
        return dataclasses.replace(hidden, claims=(*hidden.claims, *conclusions), visual=visual)
    claims = _Reader(symbols).read(line)
    if claims is None:
        return Reading((), False, visual)
    return Reading((*claims, *conclusions), True, visual)


def _hidden_claim(sentence: str) -> Reading | None:
    """What stands behind the idle beginning of 'Let me see: the red circle is left of ..'; None if that is no claim."""
    if re.search(r"\b(?:whether|if|where|which|what)\b", sentence):
        return None
    for turn in itertools.islice(re.finditer(r"[:,;]|\b(?:that|say|note|state|add)\b", sentence), 4):
        rest = _read(sentence[turn.end() :].strip(" :,;"))
        if any(claim.kind != "conclusion" for claim in rest.claims):
            denied = re.search(r"\b(?:not|never|deny|doubt|reject|refuse|cannot)\b|n't\b", sentence[: turn.start()])
            return Reading((), False, True) if denied else rest
    return None


# -------------------------------------------------------------------------------------------------------- conclusions
_CONCLUSION = re.compile(
    r"(?:^|[\s,;])(?:(?:so|thus|therefore|hence|then|and)\b[\s,]{0,3}){0,3}"
    r"(?:the\s|my\s)?(?:final\s|correct\s|right\s|best\s)?(?:answer|option|choice)"
    r"(?:\s(?:is|must be|should be|would be)|\s?:)\s(?P<no>not\s)?(?P<what>.{1,80})$",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    r"^(?:(?:so|thus|therefore|hence|then)\b[\s,]{0,3})?(?P<what>yes|no)(?:\s?,|\s?[.!]?$)", re.IGNORECASE
)


def take_conclusion(sentence: str) -> tuple[str, tuple[Claim, ...]]:
    """(the sentence without the part that names the answer, what that part names)."""
    tail = sentence[-200:]
    match = _CONCLUSION.search(tail)
    if match is not None and "<" not in match["what"]:
        claim = Claim("conclusion", text=match["what"], negated=match["no"] is not None)
        return sentence[: len(sentence) - len(tail) + match.start()], (claim,)
    match = _VERDICT.match(sentence[:40])
    if match is not None:
        return sentence[match.end() :], (Claim("conclusion", text=match["what"]),)
    return sentence, ()


# ------------------------------------------------------------------------------------------------------------ symbols
_TOKEN = re.compile(r"<bbox>([^<>]{0,200})</bbox>|([A-Za-z]+)|(\d{1,9})(?!\.?\d)|([,;:])|([^\s.!?\"'()*\-])")
_CONTRACTIONS = {"isn't": "is not", "aren't": "are not", "there's": "there is", "it's": "it is", "n't": " not"}
_COLOR_WORDS, _SIZE_WORDS = frozenset(COLORS), frozenset((*SIZES, "big"))
_SHAPE_WORDS = {**{shape: shape for shape in SHAPES}, **{many: shape for shape, many in PLURALS.items()}}
_THING_WORDS = frozenset((*THING_WORDS, *(word + "s" for word in THING_WORDS), "one", "ones"))


@dataclasses.dataclass
class Symbols:
    """A line of symbols and what R0.., B0.., N0.. stand for."""

    line: str
    things: list[Thing]
    boxes: list[Box]
    numbers: list[int]

    @classmethod
    def of(cls, text: str) -> Symbols | None:
        """None for a sentence that is too long or holds a <bbox> tag without a box."""
        tokens = _tokens(text)
        if tokens is None:
            return None
        symbols = cls("", [], [], [])
        words: list[str] = []
        at = 0
        while at < len(tokens):
            thing, used = _mention(tokens, at)
            if thing is None:
                words.append(symbols.word(tokens[at]))
                used = 1
            else:
                words.append(f"R{len(symbols.things)}")
                symbols.things.append(thing)
            at += used
        symbols.line = " ".join(words)
        return symbols

    def word(self, token: str | Box | int) -> str:
        """The symbol of one token that is no mention."""
        if isinstance(token, tuple):
            self.boxes.append(token)
            return f"B{len(self.boxes) - 1}"
        if isinstance(token, int) or token in NUMBERS:
            self.numbers.append(token if isinstance(token, int) else NUMBERS[token])
            return f"N{len(self.numbers) - 1}"
        return token


def _tokens(text: str) -> list[str | Box | int] | None:
    for short, full in _CONTRACTIONS.items():
        text = text.replace(short, full)
    tokens: list[str | Box | int] = []
    for match in _TOKEN.finditer(text):
        if match[1] is not None:
            box = read_box(match[1])
            if box is None:
                return None
            tokens.append(box)
        else:
            tokens.append(match[0].lower() if match[3] is None else int(match[3]))
    return tokens if len(tokens) <= _LONGEST else None


def _mention(tokens: list[str | Box | int], at: int) -> tuple[Thing | None, int]:
    """A mention starting at a token: [size] [colour] [shape or 'object'], with a colour or a shape; and its length."""
    start, parts = at, {}
    if at < len(tokens) and tokens[at] in _SIZE_WORDS:
        parts["size"], at = "large" if tokens[at] == "big" else tokens[at], at + 1
    if at < len(tokens) and tokens[at] in _COLOR_WORDS:
        parts["color"], at = tokens[at], at + 1
    word = tokens[at] if at < len(tokens) else ""
    if isinstance(word, str) and word in _SHAPE_WORDS:
        parts["shape"], at = _SHAPE_WORDS[word], at + 1
    elif isinstance(word, str) and word in _THING_WORDS and (parts or word in ("objects", "things", "shapes", "items")):
        return Thing(**parts), at + 1 - start
    return (Thing(**parts), at - start) if "color" in parts or "shape" in parts else (None, 0)


# ------------------------------------------------------------------------------------------------------- normal wording
_IDLE = re.compile(
    r"(?:(?:first|now|next|so|then|okay|ok|well) ?,? )?(?:let (?:me|us)|i (?:need|have to|will|should|must|want)|"
    r"we (?:need|have to|will|should|must)|to answer|looking|the question|question)\b"
)

_JOINS = "so|thus|therefore|hence|while|whereas|but|since|because|then"
_SIDE = r"(?:to |on |at )?{0}(?: side| hand side)? of"
_REWRITES = tuple(
    (re.compile(pattern), symbol)
    for pattern, symbol in (
        (r"\b(?:the|a|an|clearly|also|indeed|both|very|exactly|only|just|actually) ", ""),
        (r"\b(?:in|within|of) (?:this |our )?(?:image|picture|scene)\b ?", ""),
        (r"\b(?:i|we|you|one) (?:can )?(?:see|count|find|notice|observe) that ", ""),
        (r"\b(?:i|we|you) (?:can )?(?:see|count|find|notice|observe)\b", "THERE"),
        (r"\b(?:(?:this |our )?(?:image|picture|scene)|it) (?:shows|has|contains|holds)\b", "THERE"),
        (r"\bthere (?:is|are|exists|exist)\b", "THERE"),
        (r"\bare\b|\blies\b|\bsits\b|\bappears\b|\bstands\b", "is"),
        (r"\bis (?:located|positioned|placed|found|situated|drawn)\b", "is"),
        (r"\b(?:located|positioned|placed|found|situated|drawn) (?=at|in|within)", ""),
        (_SIDE.format("left"), "LEFT"),
        (_SIDE.format("right"), "RIGHT"),
        (r"\b(?:on top of|higher than|above|over)\b", "ABOVE"),
        (r"\b(?:lower than|below|underneath|under|beneath)\b", "BELOW"),
        (r"\b(?:larger|bigger) than\b", "LARGER"),
        (r"\bsmaller than\b", "SMALLER"),
        (r"\b(?:object |thing |N\d+ )?(?:nearest|closest)(?: object| thing| N\d+)? to\b", "NEAREST"),
        (r"\b(?:object |thing |N\d+ )?(?:farthest|furthest)(?: object| thing| N\d+)?(?: away)? from\b", "FARTHEST"),
        (r"\b(?:nearer|closer) to\b", "NEARER"),
        (r"\b(?:farther|further)(?: away)? from\b", "FARTHER"),
        (r"\b(?:in )?between\b", "BETWEEN"),
        (r" ?: (?=B\d)", " AT "),
        (r"\bat (?=B\d)|\b(?:in|within|inside) (?=B\d)", "AT "),
        (r"\b(?:contained in|inside of|inside|within|in) (?=R\d)", "INSIDE "),
        (r"\bis (not )?outside(?: of)? (?=R\d)", lambda m: "is INSIDE " if m.group(1) else "is not INSIDE "),
        (r"\b(?:contains|holds|surrounds)\b", "CONTAINS"),
        (r"^(?:(?:so|thus|therefore|hence|then|now|and|first|next|finally|since|because|here) ?,? ?)+", ""),
        (rf"\b(?:(?:this|which) means|{_JOINS}|;) ?(?:that )?", "and "),
        (r" ?, (?:and )?", " and "),
        (r"(?:and )+", "and "),
        (r" (?:and )?$", ""),
    )
)


def _normal(line: str) -> str:
    """The line with one wording for each relation, without articles and other idle words."""
    line += " "
    for pattern, symbol in _REWRITES:
        line = pattern.sub(symbol, line)
    return line.strip()


# -------------------------------------------------------------------------------------------------------------- clauses
_TWO = "LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER|INSIDE|NEAREST|FARTHEST"
_LOCATION = re.compile(r"R(\d+)( is)?( not)?( AT)? B(\d+)\b")
_POINTING = re.compile(r"B(\d+) (?:is|shows|CONTAINS|has|marks) R(\d+)\b")
_JOINT = re.compile(r"(?:and(?: |$))+")
_AFTER_LOCATION = re.compile(rf" (?:and )?(?:is |(?={_TWO}|BETWEEN))")


class _Reader:
    """Reads one normal line; keeps the subject for clauses that leave it out."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.claims: list[Claim] = []
        self.subject: Thing | None = None
        self.listing = False  # the last clause was 'there is ..', so that 'and R' goes on listing
        self.boxed: set[int] = set()  # mentions followed by a box: these may stand alone

    def read(self, line: str) -> list[Claim] | None:
        """The claims of the line, or None if a part of it can't be read."""
        line = _POINTING.sub(self._point, line)
        line = re.sub(r" +", " ", self._take_locations(line)).strip()
        at = 0
        while at < len(line):
            joint = _JOINT.match(line, at)
            at = joint.end() if joint else at
            if at >= len(line):
                break
            end = self._clause(line, at)
            if end is None:
                return None
            at = end + (line[end : end + 1] == " ")
        return self.claims

    def thing(self, index: str | None) -> Thing | None:
        """What a mention means; for 'it', which has no index, the subject so far."""
        return self.subject if index is None else self.symbols.things[int(index)]

    def _point(self, match: re.Match[str]) -> str:
        thing = self.symbols.things[int(match[2])]
        self.claims.append(Claim("at", (thing,), box=self.symbols.boxes[int(match[1])]))
        return "and"

    def _take_locations(self, line: str) -> str:
        """Records every 'R at B' and leaves what the rest of its clause needs."""
        parts, at = [], 0
        for match in _LOCATION.finditer(line):
            thing = self.symbols.things[int(match[1])]
            box = self.symbols.boxes[int(match[5])]
            self.claims.append(Claim("at", (thing,), negated=match[3] is not None, box=box))
            self.subject = thing
            parts.append(line[at : match.start()])
            at, goes_on = match.end(), _AFTER_LOCATION.match(line, match.end())
            if match[2] is None:  # 'R at B' or 'R B' is a mention with its box, 'R is at B' is a clause
                self.boxed.add(int(match[1]))
                parts.append(f"R{match[1]}")
            elif goes_on:
                parts.append(f"R{match[1]} is")
                at = goes_on.end() - 1
            else:
                parts.append("and")
        return "".join((*parts, line[at:]))

    def _clause(self, line: str, at: int) -> int | None:
        for pattern, handle in _CLAUSES:
            match = pattern.match(line, at)
            if match is not None and handle(self, match):
                return match.end()
        return None

    def _say(self, kind: str, *things: Thing | None, **more) -> bool:
        """Records a claim; False when a thing it speaks of is not known ('it' without an antecedent)."""
        known = tuple(thing for thing in things if thing is not None)
        if len(known) < len(things):
            return False
        self.claims.append(Claim(kind, known, **more))
        self.listing = kind in ("count", "exists")
        self.subject = None if self.listing else known[0]
        return True

    # What follows handles the clause patterns. Each returns whether it could make sense of the match.
    def two_place(self, match: re.Match[str], subject: str | None) -> bool:
        """'R is [not] LEFT [and [not] ABOVE] R'."""
        thing, other = self.thing(subject), self.thing(match["object"])
        relations = ((match["first"], match["not1"]), (match["second"], match["not2"] or match["not1"]))
        return all(self.relate(thing, relation, other, no=no) for relation, no in relations if relation)

    def turned(self, match: re.Match[str]) -> bool:
        """'NEAREST R is [not] R' and 'object LEFT R is [not] R': the subject comes last."""
        return self.relate(self.thing(match[4]), match[1], self.thing(match[2]), no=match[3])

    def relate(self, thing: Thing | None, relation: str, other: Thing | None, *, no: str | None = None) -> bool:
        """Records a claim of two things, denied where the line has a word `no` for it."""
        kind = "extreme" if relation in ("NEAREST", "FARTHEST") else "relation"
        return self._say(kind, thing, other, relation=relation.lower(), negated=no is not None)

    def between(self, match: re.Match[str], subject: str | None) -> bool:
        """'R is [not] BETWEEN R and R'."""
        ends = self.thing(match["a"]), self.thing(match["b"])
        return self._say("between", self.thing(subject), *ends, negated=match["not1"] is not None)

    def nearer(self, match: re.Match[str]) -> bool:
        """'R is [not] NEARER R than R'."""
        things = (self.thing(match[name]) for name in ("subject", "a", "b"))
        return self._say("nearer", *things, relation=match["relation"].lower(), negated=match["not1"] is not None)

    def size(self, match: re.Match[str]) -> bool:
        """'R is [not] small'."""
        size = "large" if match["size"] == "big" else match["size"]
        return self._say("size", self.thing(match["subject"]), relation=size, negated=match["not1"] is not None)

    def listed(self, thing: str, number: str | None, none: str | None) -> bool:
        """'there are N R', 'there is R', 'there is no R'."""
        if none is None and number is None:
            return self._say("exists", self.thing(thing))
        count = 0 if none is not None or number is None else self.symbols.numbers[int(number)]
        return self._say("count", self.thing(thing), number=count)


_OBJECT = r"R(?P<object>\d+)"
_PREDICATE = rf"(?P<not1>not )?(?P<first>{_TWO})(?: and (?P<not2>not )?(?P<second>{_TWO}))? {_OBJECT}"
_MIDDLE = r"(?P<not1>not )?BETWEEN R(?P<a>\d+) and R(?P<b>\d+)"
_SUBJECT = r"(?:R(?P<subject>\d+)|it) is "

_Handler = Callable[[_Reader, re.Match[str]], bool]
_PATTERNS: tuple[tuple[str, _Handler], ...] = (
    (_SUBJECT + _PREDICATE, lambda r, m: r.two_place(m, m["subject"])),
    (r"(?:is )?" + _PREDICATE + r"(?! is)", lambda r, m: r.two_place(m, None)),
    (_SUBJECT + _MIDDLE, lambda r, m: r.between(m, m["subject"])),
    (r"(?:is )?" + _MIDDLE + r"(?! is)", lambda r, m: r.between(m, None)),
    (_SUBJECT + r"(?P<not1>not )?(?P<relation>NEARER|FARTHER) R(?P<a>\d+) than R(?P<b>\d+)", _Reader.nearer),
    (_SUBJECT + r"(?P<not1>not )?(?P<size>small|medium|large|big)", _Reader.size),
    (r"(NEAREST|FARTHEST) R(\d+) is (not )?R(\d+)", _Reader.turned),
    (r"object (LEFT|RIGHT|ABOVE|BELOW|INSIDE) R(\d+) is (not )?R(\d+)", _Reader.turned),
    (r"object BETWEEN R(?P<a>\d+) and R(?P<b>\d+) is (?P<not1>not )?R(?P<subject>\d+)",
     lambda r, m: r.between(m, m["subject"])),
    (r"R(\d+) CONTAINS R(\d+)", lambda r, m: r.relate(r.thing(m[2]), "INSIDE", r.thing(m[1]))),
    (r"THERE (?:(no) )?(?:N(\d+) )?R(\d+)", lambda r, m: r.listed(m[3], m[2], m[1])),
    (r"(?:number|count) of R(\d+) is N(\d+)", lambda r, m: r.listed(m[1], m[2], None)),
    (r"R(\d+) is (?:present|visible)", lambda r, m: r.listed(m[1], None, None)),
    (r"R(\d+) is not (?:present|visible)", lambda r, m: r.listed(m[1], None, "no")),
    (r"(?:(no) )?(?:N(\d+) )?R(\d+)", lambda r, m: r.listing and r.listed(m[3], m[2], m[1])),
    (r"R(\d+)(?! (?!and))", lambda r, m: int(m[1]) in r.boxed),
)  # fmt: skip
_CLAUSES = tuple((re.compile(pattern + r"(?= |$)"), handle) for pattern, handle in _PATTERNS)
