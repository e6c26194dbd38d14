"""What the constructions of English say of two or three things, or of a number: patterns over the lines of `phrases`.

Each pattern must use up the whole line. X, Y, Z, P, Q stand for things, REL for one of left, right, above, below,
larger and smaller, N for a number; a word of the pattern stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fgrpo_jax.rewards.claims import Claim, Symbols, Thing
from fgrpo_jax.rewards.phrases import PRONOUN, canonical, opened, raw_line
from fgrpo_jax.rewards.relations import OPPOSITE

_REL = "LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER"
_MACROS = {
    **{letter: rf"R(?P<{letter.lower()}>\d+)" for letter in "XYZPQ"},
    "REL": f"(?P<rel>{_REL})",
    "OPP": f"(?P<opp>{_REL})",
    "SUP": "(?P<sup>NEAREST|FARTHEST)",
    "GAP": "(?P<gap>MINGAP|MAXGAP)",
    "CMP": "(?P<cmp>NEARER|FARTHER)",
    "ADJ": "(?P<adj>big|large|sizable|tall|small|tiny|little)",
    "NEAR": "(?P<near>near|close|far)(?: away)?",
    "N": r"N(?P<n>\d+)",
    "TO": "(?:to|from|of|OF|for|towards?|REF)",
    "WITH": "(?:OF|REF|of|than)",
    "REFER": "(?:REF|for|from)",
    "BE": "(?:IS|THERE|HAS|REACH)",
    "SEE": "(?:IS|THERE)?",
    "GO": "(?:go|going|move|moving|walk|walking|travel|travelling|traveling|head|heading|look|looking|scan|scanning|"
    "step|stepping|shift|shifting|proceed|proceeding|continue|continuing|wander|run|glance|glancing|turn|turning|pan|"
    "panning|THERE|THERE to (?:go|move|look|walk))",
    "WHO": r"(?:(?:i|we|you|uno|someone|eyes|your eyes|eye)(?: (?:d|ll|must|need to|can|will|would|should|"
    "could))* )?",
    "MEET": r"(?:reach|reaches|meet|meets|pass|passes|encounter|encounters|hit|hits|get to|gets to|come to|comes to|"
    r"arrive at|arrives at|come across|comes across|run into|runs into|land at|lands at|land on|lands on|go past|"
    r"goes past|see|sees|find|finds|IS at|IS to|IS across|IS on|leads(?: us| me| you)? to|brings(?: us| me| you)? to|"
    r"takes(?: us| me| you)? to|gets(?: us| me| you)? to|THERE|IS)",
    "ALSO": r"(?: (?:and|while|whereas|but|,|;))+",
    "OTHERS": r"(?:(?:all|any|every|each|of|the|these|other|others|else|OBJ|rest|them|everything|anything|remaining|"
    r"AMONG|uno|do|does|is|IS|in)(?: |$))+",
    "ALL": r"(?:(?:all|every|each|of|the|these|other|others|else|OBJ|rest|them|everything|everybody|remaining|"
    r"any)\s)+",
    "NONE": r"(?:(?:THERE|no|none|nothing|not|other|else|of|others|OBJ|uno|single|AMONG|all|is)\s)*?(?:no|none|"
    "nothing|"
    r"THERE not)(?: (?:other|else|of|others|OBJ|uno|single|AMONG|them|the|that|which|is))*",
    "SIDES": r"(?: (?:on|at|to|from|in) (?:either|both|opposite|opposing|each|different|two|N\d+) sides?)",
    "TOTAL": r"(?:(?: ,)? (?:in (?:total|all|sum)|total|altogether|overall|here|there|visible|present|all told|"
    "together|"
    r"AMONG|in there))*",
}
_MACRO = re.compile(
    rf" (?:ALSO|SIDES|TOTAL)\b|\bWHO |(?<!\(\?)\b(?:{'|'.join(sorted(_MACROS, key=len, reverse=True))})\b(?!\\d)"
)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(_MACRO.sub(lambda match: _MACROS[match[0].strip()], pattern))


class Match:
    """A pattern that fits, and the things that its letters stand for."""

    def __init__(self, match: re.Match[str], symbols: Symbols) -> None:
        self.groups = match.groupdict()
        self.symbols = symbols

    def thing(self, letter: str) -> Thing:
        return self.symbols.things[int(self.groups[letter])]

    def things(self, letters: str) -> tuple[Thing, ...] | None:
        """The things of some letters; None where two of them are the same."""
        found = tuple(map(self.thing, letters))
        return found if len(set(found)) == len(found) else None

    def word(self, group: str) -> str:
        return (self.groups.get(group) or "").lower()


Make = Callable[[Match], "tuple[Claim, ...] | None"]


def _relation(order: str = "xy", *, turned: bool = False) -> Make:
    def make(match: Match) -> tuple[Claim, ...] | None:
        things, relation, opposite = match.things(order), match.word("rel"), match.word("opp")
        if things is None or (opposite and opposite != OPPOSITE[relation]):
            return None
        return (Claim("relation", things, relation=OPPOSITE[relation] if turned else relation),)

    return make


def _chosen(match: Match) -> tuple[Claim, ...] | None:
    """'of p and q, the left one is x': x is p or q."""
    pair, x = match.things("pq"), match.thing("x")
    if pair is None or x not in pair:
        return None
    claim = Claim("relation", (x, pair[1 - pair.index(x)]), relation=match.word("rel"))
    other = match.thing("y") if match.groups.get("y") else claim.things[1]
    opposite = match.word("opp")
    return (claim,) if other == claim.things[1] and (not opposite or opposite == OPPOSITE[claim.relation]) else None


def _ordered(match: Match) -> tuple[Claim, ...] | None:
    """'from left to right, x comes before y'."""
    things, relation = match.things("xy"), match.word("rel")
    if things is None or match.word("opp") != OPPOSITE[relation] or relation in ("larger", "smaller"):
        return None
    return (Claim("relation", things, relation=relation),)


def _coordinate(match: Match) -> tuple[Claim, ...] | None:
    """'x has a smaller x-coordinate than y'; y runs downwards, as the boxes do."""
    things, axis, word = match.things("xy"), match.groups["axis"], match.word("cmp2")
    if things is None or (axis == "Y" and word in ("above", "below")):
        return None
    less = word in ("smaller", "below")
    return (Claim("relation", things, relation={"X": ("right", "left"), "Y": ("below", "above")}[axis][less]),)


def _as_as(match: Match) -> tuple[Claim, ...] | None:
    things = match.things("xy")
    relation = "smaller" if match.word("adj") in ("big", "large", "sizable", "tall") else "larger"
    return None if things is None else (Claim("relation", things, relation=relation),)


def _extreme(order: str = "xy", *, turned: bool = False) -> Make:
    def make(match: Match) -> tuple[Claim, ...] | None:
        things = match.things(order)
        word = match.word("sup") or match.word("gap") or match.word("cmp") or match.word("near")
        near = (word in ("nearest", "mingap", "nearer", "near", "close")) != turned
        return None if things is None else (Claim("extreme", things, relation="nearest" if near else "farthest"),)

    return make


def _between(match: Match) -> tuple[Claim, ...] | None:
    things = match.things("xyz")
    return None if things is None else (Claim("between", things),)


def _inside(match: Match) -> tuple[Claim, ...] | None:
    things = match.things("xy")
    return None if things is None else (Claim("relation", things, relation="inside"),)


def _count(match: Match) -> tuple[Claim, ...] | None:
    return (Claim("count", (match.thing("x"),), number=match.symbols.numbers[int(match.groups["n"])]),)


def _exists(match: Match) -> tuple[Claim, ...] | None:
    thing = match.thing("x")
    return (Claim("exists", (thing,)),) if thing.color and thing.shape else None


_CMP2 = "(?P<cmp2>SMALLER|LARGER|BELOW|ABOVE)"
_AXIS = "(?P<axis>[XY])CO"
_TRAVEL = "(?:line|way|path|route|segment|stretch|journey|trip|road|space|gap|straight line|imaginary line)"
_THROUGH = "(?:through|over|across|by|past|along)"

_TABLE: tuple[tuple[Make, tuple[str, ...]], ...] = (
    (
        _relation(),
        (
            r"(?:THERE )?X (?:IS|HAS (?:its )?(?:place|position))?,? ?REL WITH Y(?: IS)?",
            r"(?:THERE )?X IS (?:to )?REL(?: ,)? REF Y",
            r"(?:SEE )?REL WITH Y (?:, |: )*BE X",
            r"(?:SEE )?REL WITH Y (?:, |: )*(?:REACH )?X",
            r"OBJ REL WITH Y IS X",
            r"(?:REL) WITH Y IS OBJ X",
            r"X (?:, )?REF Y(?: ,)? IS REL",
            r"REF Y(?: ,)? (?:THERE )?X(?: IS)? REL",
            r"REF Y (?:, )?REL (?:IS|THERE) X",
            r"X IS OBJ REL WITH Y",
            r"Y (?:IS|HAS|sees) X ITS REL",
            r"Y HAS X REL(?: OF it)?",
            r"ITS REL (?:, )?Y (?:HAS|IS) X",
            r"Y IS (?:flanked|joined|bordered|accompanied|followed) ITS REL by X",
            r"REF Y (?:, )?(?:and )?ITS REL (?:, )?(?:IS|THERE) X",
            r"Y HAS (?:its )?REL (?:towards?|to|facing) X",
            r"(?:(?:if|when|by|after) )?WHO GO REL (?:OF|from) Y (?:(?:, |and |until |to |then |"
            r"in order )*)(?:they |it |there )?WHO MEET X",
            r"(?:to|in order to) MEET X from Y (?:, )?WHO GO REL",
            r"(?:to|in order to) MEET X (?:, )?WHO GO REL (?:OF|from) Y",
            r"from Y to (?:MEET )?X (?:, )?WHO GO REL",
            r"from Y (?:, )?(?:you )?WHO GO REL (?:to|until|and|, )*WHO MEET X",
            r"from Y (?:, )?X IS REL",
            r"REL (?:(?:of|OF) (?:N\d+|two|pair)(?: OBJ)? )?IS X (?:, )?(?:and )?not Y",
            r"X (?:, )?(?:and )?not Y (?:, )?IS REL(?: (?:of|OF) (?:N\d+|two|pair)(?: OBJ)?)?",
            r"X IS REL (?:, )?(?:and )?not Y",
            r"X IS REL(?: (?:of|OF) (?:N\d+|two|pair)(?: OBJ)?)? (?:REF|when REF|if REF) Y",
            r"(?:THERE|WHO MEET) X (?:if|when|by|after|once) WHO GO REL (?:OF|from) Y",
            r"X IS found by (?:GO) REL (?:OF|from) Y",
            r"X IS by (?:GO) REL (?:OF|from) Y",
            r"X IS (?:where|what) WHO MEET (?:(?:if|when|after) )?WHO GO REL (?:OF|from) Y",
        ),
    ),
    (
        _relation(),
        (
            r"X IS REL ALSO Y(?: IS)? OPP",
            r"X REL(?: ,| and)+ Y OPP",
            r"REL (?:(?:of|OF) pair |of two )?IS X ALSO OPP (?:of pair )?(?:IS )?Y",
            r"X IS REL (?:(?:of|OF) (?:two|pair|N\d+) )?ALSO Y(?: IS)? OPP(?: (?:of|OF) (?:two|pair|N\d+))?",
            r"(?:of|OF|AMONG) (?:N\d+|two|pair) ?,? ?X IS REL ALSO Y(?: IS)? OPP",
            r"X IS REL WITH Y(?: ,| and| which)+ (?:IS )?OPP",
        ),
    ),
    (
        _chosen,
        (
            r"(?:of|OF|BETWEEN|between|AMONG|out of) P (?:and|or) Q (?:, )?(?:it IS )?X (?:that )?(?:IS|HAS)? ?REL",
            r"(?:of|OF|BETWEEN|between|out of) (?:pair )?P and Q (?:, )?REL(?: of (?:N\d+|two|pair))? IS X",
            r"REL (?:of|OF|between|BETWEEN) (?:pair )?P and Q IS X",
            r"(?:comparing|if WHO compare|when WHO compare|compare) P (?:and|with|to) Q ,? ?X IS REL",
            r"(?:of|OF|BETWEEN|between) P and Q (?:, )?X IS REL ALSO Y(?: IS)? OPP",
        ),
    ),
    (
        _ordered,
        (
            r"(?:\w+ )?(?:order )?(?:from )?REL (?:to )?OPP(?: order)? ?,? ?(?:order IS )?X (?:IS|goes|precedes|"
            r"first)? ?"
            r"(?:before|ahead of|precedes|, then|then|and then|first and then|followed by|ahead) (?:IS )?Y",
            r"(?:\w+ )?(?:from )?REL (?:to )?OPP ?,? ?WHO (?:sees|see|meets|THERE|reads|IS)? ?X (?:first )?"
            r"(?:, |and )*(?:then|before|followed by) Y",
            r"X (?:IS |precedes )?(?:before )?Y (?:(?:when|if|as) )?WHO (?:reading|going|scanning|read|scan|go|look|"
            r"looking|ordered|sorted|listed)? ?(?:from )?REL (?:to )?OPP",
        ),
    ),
    (
        _coordinate,
        (
            rf"{_AXIS} of X IS {_CMP2} (?:OF|than) (?:[XY]CO of )?Y",
            rf"X HAS {_CMP2} {_AXIS} (?:than|REF|OF) Y",
            rf"X IS at {_CMP2} {_AXIS} (?:than|REF|OF) Y",
        ),
    ),
    (_as_as, (r"X IS not (?:quite |nearly )?as ADJ as Y(?: IS)?", r"X IS less ADJ than Y")),
    (
        _extreme(),
        (
            r"(?:AMONG )?(?:, )?X IS (?:AMONG )?SUP (?:AMONG )?(?:, )?TO Y(?: AMONG)?",
            r"SUP (?:AMONG )?TO Y (?:AMONG )?IS X",
            r"OBJ (?:that IS )?SUP TO Y (?:AMONG )?IS X",
            r"(?:OBJ|neighbour) SUP TO Y IS X",
            r"(?:REF|for|from|TO) Y (?:, )?(?:AMONG )?(?:, )?X IS SUP(?: AMONG)?",
            r"(?:REF|for|from) Y (?:, )?SUP(?: AMONG)? (?:IS|THERE) X",
            r"SUP (?:as )?TO Y IS X",
            r"Y (?:s )?HAS X as its SUP(?: OBJ)?",
            r"Y s SUP(?: OBJ)? IS X",
            r"X IS Y s SUP(?: OBJ)?",
            r"(?:its )?SUP(?: OBJ)? of Y IS X",
            r"(?:AMONG )?(?:, )?X (?:HAS|IS|with|IS OBJ with|IS at) GAP (?:AMONG )?(?:to|from|of|"
            r"towards) Y(?: AMONG)?",
            r"OBJ (?:with|at|that HAS|HAS) GAP (?:to|from) Y (?:AMONG )?IS X",
            r"GAP (?:to|from) Y IS (?:of|for|from|to|that of|HAS by) ?X",
            r"with GAP (?:, )?X IS (?:NEAREST|FARTHEST) TO Y",
            r"(?:(?:ranking|sorting|ordering|measuring|comparing|considering|OBJ|all|by|as|far|when|measure|"
            r"compare|WHO to|in|"
            r"terms|of|at|GO|looking|their|with|regard) )*(?:distances?|gaps?) (?:from|"
            r"to) Y(?: IS concerned)? ,? ?X IS SUP",
            r"X IS CMP TO Y (?:REF|than) OTHERS",
            r"WHO (?:must |can |could |will |do |would )?not THERE (?:anything|OBJ|any OBJ) CMP TO Y than X",
            r"REF (?:OTHERS)(?:, )?X IS (?:SUP|CMP) TO Y",
            r"NONE ?(?:IS )?as NEAR (?:TO )?Y as X(?: IS)?",
            r"NONE ?(?:IS )?CMP (?:TO )?Y than X(?: IS)?",
            r"NONE ?(?:IS |gets |get )?CMP than X(?: IS)? (?:TO )Y",
            r"(?:REF|from) Y (?:, )?NONE ?(?:IS )?CMP than X(?: IS)?",
        ),
    ),
    (
        _extreme(turned=True),
        (
            r"ALL(?:IS )?CMP TO Y (?:than|REF) X(?: IS)?",
            r"(?:REF|from) Y (?:, )?ALL(?:IS )?CMP than X(?: IS)?",
        ),
    ),
    (
        _between,
        (
            r"(?:THERE )?X (?:IS )?(?:at |in )?BETWEEN Y and Z(?: SIDES)?",
            r"(?:SEE )?BETWEEN Y and Z (?:, )?(?:IS|THERE) X",
            r"OBJ BETWEEN Y and Z IS X",
            r"X IS (?:at |in )?(?:middle|POS|cent(?:er|re)|midst) (?:of|between|BETWEEN) Y and Z",
            r"(?:in )?(?:OBJ in )?(?:middle|midst|cent(?:er|re)) of Y and Z (?:, )?(?:IS|THERE) X",
            r"OBJ (?:in )?(?:middle|midst) of Y and Z IS X",
            r"X IS (?:flanked|enclosed|framed|bracketed|bordered|surrounded) by Y and Z(?: SIDES)?",
            rf"(?:if|when)? ?WHO (?:draw|drawing|connect|connecting|follow|join)? ?{_TRAVEL} (?:joining |"
            rf"connecting |that connects "
            rf"|drawn )?(?:from |BETWEEN |of )?Y (?:and|to|with) Z (?:, )?(?:it )?(?:IS|passes|pass|runs|leads|"
            rf"goes|crosses|cuts|"
            rf"would pass|will pass|would hit|would cross|hits|meets|intersects|would go|would run|touches|"
            rf"must pass) ?(?:{_THROUGH} )?X",
            rf"X IS (?:somewhere )?(?:on|along|in) {_TRAVEL} (?:joining |connecting |separating |"
            rf"that separates )?(?:from )?"
            rf"(?:BETWEEN )?Y (?:to|and|from|with) Z",
            r"(?:to GO|to get|GO|WHO GO|on WHO way|on path|on line|on route|along line|along path|on trip|"
            r"traveling|getting|"
            r"connecting|joining|if WHO GO|when GO) ?(?:from )?(?:BETWEEN )?Y (?:to|with|"
            r"and) Z (?:, )?(?:and )?WHO (?:MEET) "
            r"(?:past |through |over |by |across )?X(?: on way)?",
            r"(?:to GO|to get|GO|on way|on path|on line|connecting|joining) ?(?:from )?Y (?:to|with|"
            r"and) Z (?:, )?WHO X",
            r"Y IS on uno side (?:and |, |while )+Z (?:IS )?on other(?: side)? of X",
            r"Y IS on uno side of X (?:and |, |while )+Z (?:IS )?on other(?: side)?",
            r"(?:THERE|WHO MEET) X (?:if|when|by|while|on way) ?WHO (?:GO )?(?:from )?(?:BETWEEN )?Y (?:to|and) Z",
            r"on uno side of X IS Y (?:and |, |while )+on other(?: side)?(?: IS)? Z",
            r"X IS middle (?:OBJ|uno)? ?(?:of|between|BETWEEN) Y (?:, R\d+ )?(?:and|,) Z",
            r"X HAS Y on uno side (?:and |, )+Z on other(?: side)?",
            r"Y and Z IS SIDES(?: of)? X",
            r"Y and Z (?:IS|HAS) X (?:in|at) (?:middle|between|BETWEEN them|between them|cent(?:er|re))",
            r"Y and Z HAS X between(?: them)?",
            r"(?:both )?Y and Z (?:flank|sandwich|frame|bracket|enclose|surround|border|are around|"
            r"IS around) X(?: SIDES)?",
            r"X IS (?:in|at) (?:middle|cent(?:er|re)) (?:, )?with Y and Z SIDES",
            r"X IS (?:in|at) (?:middle|cent(?:er|re)) (?:, )?(?:with )?Y on uno side and Z on other(?: side)?",
            r"with Y on uno side and Z on other(?: side)? (?:, )?X IS (?:in|at) (?:middle|cent(?:er|re)|between)",
            r"X (?:separates|parts|divides|splits) Y (?:from|and) Z",
            r"X keeps Y and Z apart",
            r"X (?:IS in|blocks|obstructs|interrupts) way (?:from |BETWEEN )?Y (?:to|and) Z",
            r"Y (?:, )?(?:and )?then X (?:, )?(?:and )?then Z(?: : that IS order)?",
        ),
    ),
    (
        _inside,
        (
            r"(?:THERE )?X (?:IS )?(?:OBJ )?INSIDE Y",
            r"(?:all|whole) (?:of )?X IS INSIDE Y",
            r"(?:(?:IS|THERE|WHO GO) )?INSIDE Y (?:, )?(?:IS|THERE) X",
            r"OBJ INSIDE Y IS X",
            r"Y CONTAINS X(?: INIT| completely| entirely| fully| on all sides| from all sides| within| inside)*",
            r"(?:it )?Y (?:HAS|IS with|keeps) X (?:INIT|inside|within)",
            r"Y IS (?:container|frame|enclosure|host) (?:of|for|around) X",
            r"X fits (?:completely |entirely )?(?:INSIDE|into) Y",
            r"X HAS Y (?:all|completely|IS)? ?around it",
            r"X IS completely INSIDE Y",
            r"INSIDE Y WHO (?:see|sees|find|finds|THERE) X",
        ),
    ),
    (
        _count,
        (
            r"THERE (?:total of |sum of |count of )?N X TOTAL",
            r"(?:in total |total of )?N X (?:IS|appear|exist|occur|feature)(?: part)? TOTAL",
            r"(?:my |final |total |full )*(?:number|count|total|tally|sum|amount|quantity) (?:of|for) X(?: IS|"
            r" equals| comes to|"
            r" amounts to| :|,| becomes| stands at| reaches| totals| of IS)+ ?(?:at |to )?N TOTAL",
            r"(?:all )?X (?:number|total|amount to|come to|sum to|adds? ABOVE (?:OF|to)|adds? to|adds? (?:OF|"
            r"to)|IS to|"
            r"sum ABOVE (?:OF|to)|add ABOVE OF|makes) N TOTAL",
            r"counting (?:all )?X (?:, )?WHO (?:get|gets|find|finds|arrive at|end at|reach|come to|gives|yields|"
            r"THERE|IS at|IS to|"
            r"obtain|makes) N",
            r"(?:counting|adding)?(?: them)?(?: ABOVE| all| together)* ?(?:gives|yields|WHO (?:get|arrive at|"
            r"reach|obtain|tally|counted|count|end ABOVE with|"
            r"come to|come ABOVE with|IS at|IS to|IS with)|that (?:makes|gives|IS)|this (?:makes|gives|IS)|"
            r"which makes|makes|adds to) "
            r"(?:total of |sum of |us |me )?N X TOTAL",
            r"N IS (?:number|count|total|tally) of X TOTAL",
            r"as for X ,? ?WHO (?:THERE|count|get) N(?: of them)? TOTAL",
            r"X : N TOTAL",
            r"(?:as for |of )?X (?:, )?THERE N(?: of them| uno)? TOTAL",
        ),
    ),
    (
        _exists,
        (
            r"(?:also |in addition |in addition to that )?(?:THERE|HAS) (?:also |another )?X TOTAL(?: part|"
            r" to be seen| among them)?",
            r"X (?:IS|appear|appears)(?: (?:part|present|visible|there|here|AMONG|another OBJ|uno AMONG|"
            r"among them))*",
            r"(?:another|uno|further|uno more|next|final|last) ?(?:AMONG|OBJ) ?(?:AMONG )?IS X",
            r"(?:AMONG|among them|also|in it) (?:IS|THERE|:) ?X",
            r"(?:IS |THERE )+X",
            r"uno AMONG IS X",
        ),
    ),
)
_PATTERNS = tuple((_compile(pattern), make) for make, patterns in _TABLE for pattern in patterns)
_JOINTS = re.compile(r" ; (?:and )?| ,? ?(?:while|whereas|because|since|as) | , (?:and |so )")
_PARTS = 4
_REST = re.compile(r"(?:all |every |each )?(?:other |others |OBJ |uno |rest |IS )+(?:CMP|NEARER|FARTHER)")
"""'.., all others are farther', beside a superlative."""


def claims_of(text: str) -> tuple[Claim, ...] | None:
    """What a sentence states, if a construction, or several joined, use it up; else None."""
    symbols = Symbols.of(PRONOUN.sub("uno", text))
    return None if symbols is None else _of_line(raw_line(symbols), symbols)


def _of_line(raw: str, symbols: Symbols) -> tuple[Claim, ...] | None:
    line = canonical(opened(raw))
    whole = _whole(line, symbols)
    if whole is not None:
        return whole
    parts = _JOINTS.split(line)
    if not 1 < len(parts) <= _PARTS:
        return None
    read = [_whole(part.strip(), symbols) for part in parts if not _REST.fullmatch(part.strip())]
    if not read or any(claims is None for claims in read):
        return None
    return tuple(claim for claims in read for claim in claims or ())


def _whole(line: str, symbols: Symbols) -> tuple[Claim, ...] | None:
    for pattern, make in _PATTERNS:
        match = pattern.fullmatch(line)
        claims = None if match is None else make(Match(match, symbols))
        if claims is not None:
            return claims
    return None
