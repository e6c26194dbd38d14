"""The words that turns of phrase are made of, as macros of patterns, and the claims that a match is made into."""

from __future__ import annotations

import re
from collections.abc import Callable

from fgrpo_jax.rewards.claims import Claim, Symbols, Thing
from fgrpo_jax.rewards.relations import OPPOSITE

_DIRECTIONS = {
    "left": "left leftward leftwards leftmost",
    "right": "right rightward rightwards rightmost",
    "above": "up upward upwards top above higher over upper uppermost topmost highest",
    "below": "down downward downwards bottom below lower under beneath underneath lowermost bottommost lowest",
    "larger": "larger bigger greater largest biggest greatest more",
    "smaller": "smaller tinier lesser smallest tiniest least less",
}
_RELATION_OF = {word: relation for relation, words in _DIRECTIONS.items() for word in words.split()}


def _words(*relations: str) -> str:
    return "(?:" + "|".join(word for relation in relations for word in _DIRECTIONS[relation].split()) + ")"


_SIDES, _SIZES = _words("left", "right", "above", "below"), _words("larger", "smaller")
_SPOT = (
    "(?:hand |hand side|side|part|portion|half|end|direction|edge|border|position|way|page|level|location|one|uno|OBJ)"
)
_TOWARDS = "(?:(?:to|on|at|in|towards?|further|farther|more|straight|somewhat|along|over|out|off|its|way) )*"
_PERSON = "(?:i|you|we|uno|someone|somebody|anyone|people|a viewer|viewer|reader|observer)"
_EYE = "(?:(?:my|your|our|uno s|viewer s) )?(?:eyes?|gaze|glance|finger|sight|attention|look|pencil|pen|cursor|view)"
_MODAL = (
    "(?:d|ll|have|has|had|need|needs|must|should|would|will|can|could|to|only|just"
    "|simply|then|first|got|are|is|going|"
    "forced|obliged|required|get|do|does|now|soon|eventually|quickly|next|may|want"
    "|wants|be|been|might as well|always)"
)
_MOVE = (
    "(?:go|goes|going|move|moves|moving|travel|travels|travell?ing|head|heads|heading"
    "|look|looks|looking|shift|shifts|"
    "shifting|slide|slides|sliding|step|steps|stepping|walk|walks|walking|proceed|proceeds|proceeding|turn|turns|"
    "turning|drift|drifts|drifting|wander|wanders|wandering|jump|jumps|jumping|pan|panning|scroll|scrolling|run|runs|"
    "continue|continues|continuing|sweep|sweeps|sweeping|advance|advancing|glance|glancing|glide|glides|gliding|"
    "progress|progressing|come|coming|drop|dropping|climb|climbing|set off|scan|scanning|make (?:my|your|our) way)"
)
_MEET = (
    "(?:get to|gets to|getting to|reach|reaches|reaching|meet|meets|meeting|arrive at|arrives at|arriving at|come to|"
    "comes to|come across|comes across|coming across|come upon|comes upon|find"
    "|finds|finding|see|sees|seeing|hit|hits|"
    "hitting|land on|lands on|land at|encounter|encounters|encountering|bump into|run into|runs into|stumble upon|"
    "stumble on|end up at|end at|ends up at|pass|passes|spot|spots|notice|discover|locate|go to|move to|touch)"
)
_LEADS = (
    "(?:(?:which |that )?(?:leads?|brings?|takes?|gets?|carries|carry) (?:(?:me|you|us|uno|someone|it|straight) )*to)"
)
_MACROS = {
    **{letter: rf"R(?P<{letter.lower()}>\d+)" for letter in "XYZVW"},
    "REL": f"(?P<rel>{_SIDES})",
    "OPP": f"(?P<opp>{_SIDES})",
    "DIR": rf"{_TOWARDS}(?P<rel>{_SIDES})(?: {_SPOT})*",
    "ODIR": rf"{_TOWARDS}(?P<opp>{_SIDES})(?: {_SPOT})*",
    "CMP": f"(?P<rel>{_SIZES})",
    "OCMP": f"(?P<opp>{_SIZES})",
    "MOVER": f"(?:(?:{_PERSON}|{_EYE})(?: {_MODAL})* )?",
    "MOVE": _MOVE,
    "MEET": f"(?:{_MEET}|{_LEADS})",
    "START": rf"(?:from|starting (?:out )?(?:at|from|with|on|off at)|beginning (?:at|from|with|on)|leaving|"
    rf"(?:if|when|once|as|should|were|suppose) (?:{_PERSON} )?(?:to |were to )?(?:are "
    rf"|am |is )?(?:start|starts|starting|begin|begins|stand|standing|set off|set out"
    rf"|"
    rf"leave|look|looking|go|going|move|moving|depart|located)(?: (?:out|off))?(?: (?:at|from|with|on))?|"
    r"(?:put|place|set|rest|putting|placing)(?: (?:my|your|our|uno s))? (?:finger"
    r"|eyes?|pen|pencil|gaze)(?: (?:on|at))|standing (?:at|on)|with R\d+ as (?:my "
    r"|our |your )?start(?:ing point)?|departing from|setting (?:out|off) from)",
    "GOAL": rf"(?:(?:, )?(?:(?:in order )?to|until|till|before|and|and then|,|then|so as to"
    rf"|so that|if) (?:there )?(?:(?:{_PERSON}|{_EYE})"
    rf"(?: {_MODAL})* )?(?:(?:want|wants|wish|wanted|try|hope) to )?(?:{_MEET}|{_LEADS})"
    rf"|(?:, )?{_LEADS}|towards?|to)",
    "BE": r"(?:can be (?:found|seen|located|spotted)|is (?:to be )?(?:found|seen)|(?:has"
    r"|takes|finds|holds) its (?:place|spot|position|home)|would look|would be seen"
    r"|looks|is uno|is OBJ|has its cent(?:er|re)|occupies (?:position|place|spot"
    r"|part)|is|lies|sits|stands|appears|appear|comes|falls|ends up|will be|would be"
    r"|is found|is located|is placed|is positioned|"
    r"has been (?:drawn|placed|put)|is drawn|turns out to be|would turn out|would come out|will end up|would end up|"
    r"turns out|comes out|shows up|turns up|must be|has to be|is going to be|is situated"
    r"|rests|proves(?: to be)?|gets|hangs|floats)",
    "SUP": "(?P<sup>nearest|closest|shortest|smallest|least|minimal|minimum|tiniest|lowest|farthest|furthest|longest|"
    "largest|greatest|biggest|maximal|maximum|highest|widest)",
    "GAPS": r"(?:(?:straight|line|direct|cent(?:er|re)|to cent(?:er|re)|measured|linear"
    r"|overall|pixel|euclidean) )*(?:distance|gap|way|separation|value|path|route"
    r"|"
    "spacing|radius|stretch|measurement|number|length|span|figure|result|interval|line|connection|trip|step|journey)",
    "TO": "(?:to|from|of|towards?|out from|away from|for)",
    "AMONG": r"(?:, )?(?:(?:of|among|amongst|from|out of|for|in) (?:all |any |the |these "
    r"|those |other |others|OBJ |OBJ|them|pairing|pairings|everything|else|here"
    r"|every|remaining|view|shown|visible|listed|candidates|options|choices| )+ ?)?(?:, )?",
    "BELONGS": r"(?:belongs to|goes to|is for|is that (?:of|to|for|from)|is (?:of|to|with|from"
    r"|by)|is held by|is found (?:for|with|at)|"
    r"occurs (?:for|with|at)|is claimed by|is (?:the )?uno to|is had by|comes from"
    r"|is taken by|comes (?:out )?(?:for|with)|is owned by|"
    r"is achieved by|leads to|is obtained for|results for|is where|is seen (?:for|with))",
    "NUM": r"N(?P<n>\d+)",
    "GET": "(?:get|gets|reach|reaches|find|arrive at|obtain|have|come to|end up with|end with"
    "|end up at|stop at|come up with|land at|finish (?:at|with|on)|make it|see"
    "|"
    "count|counted|wind up with|conclude with|tally|am at|tot up to|got|found|reached|had)",
    "TALLIES": "(?:is|being|comes to|comes out (?:at|as|to be)|amounts to|stands at|equals"
    "|totals|turns out to be|works out (?:at|as|to)|adds up to|gives|makes|will be"
    "|reads|reaches|must be|ends up (?:at|as|being)|:|,|=)",
    "ENDING": r"(?: (?:, )?(?:and|no|not|further|more|less|fewer|in|total|all|altogether|of them"
    r"|of those|of these|overall|uno|beyond that|OBJ|exactly|precisely|sum|all told"
    r"|here|there|visible|none|left|over|single|whole|to be seen|at end|as result)(?: (?:more"
    r"|less|fewer|further|no|and|in|all|total|of them|overall|sum|or))*)*",
    "ROUND": "(?:round|around|about|over|for|enclosing|surrounding|containing)",
}
_MACRO = re.compile(rf"\b(?:{'|'.join(sorted(_MACROS, key=len, reverse=True))})\b")


def compiled(pattern: str) -> re.Pattern[str]:
    """A group that stands in several alternatives is called x, x_1, x_2."""
    text = _MACRO.sub(lambda match: _MACROS[match[0]], pattern)
    seen: dict[str, int] = {}

    def named(match: re.Match[str]) -> str:
        seen[match[1]] = seen.get(match[1], -1) + 1
        return f"(?P<{match[1]}{'_' + str(seen[match[1]]) if seen[match[1]] else ''}>"

    return re.compile(re.sub(r"\(\?P<(\w+)>", named, text))


class Match:
    def __init__(self, match: re.Match[str], symbols: Symbols) -> None:
        found: dict[str, set[str]] = {}
        for group, value in match.groupdict().items():
            if value is not None:
                found.setdefault(group.split("_")[0], set()).add(value)
        self.clear = all(len(values) == 1 for values in found.values())
        self.groups = {group: values.pop() for group, values in found.items()}
        self.symbols = symbols

    def things(self, letters: str) -> tuple[Thing, ...] | None:
        if "x" in letters and "y" not in self.groups:  # 'separates p from q .. x'
            return self._rest()
        found = tuple(self.symbols.things[int(self.groups[letter])] for letter in letters)
        return found if len(set(found)) == len(found) and all(thing.name for thing in found) else None

    def pair(self) -> tuple[Thing, ...] | None:
        """The other of v and w, and y."""
        pair = [self.symbols.things[int(self.groups[letter])] for letter in "vw"]
        y = self.symbols.things[int(self.groups["y"])]
        return (pair[1 - pair.index(y)], y) if len(set(pair)) == 2 and y in pair else None

    def _rest(self) -> tuple[Thing, ...] | None:
        x, *pair = (self.symbols.things[int(self.groups[letter])] for letter in "xvw" if letter in self.groups)
        return (x, pair[1 - pair.index(x)]) if len(set(pair)) == 2 and x in pair else None

    def side(self) -> str | None:
        """The relation of 'rel', unless 'opp' is there and is not its opposite."""
        relation, other = _RELATION_OF[self.groups["rel"]], self.groups.get("opp")
        return relation if not other or _RELATION_OF[other] == OPPOSITE[relation] else None


Make = Callable[[Match], "Claim | None"]


def relation(order: str) -> Make:
    def make(match: Match) -> Claim | None:
        things, relation = match.things(order), match.side()
        return None if things is None or relation is None else Claim("relation", things, relation=relation)

    return make


def extreme(match: Match) -> Claim | None:
    things = match.pair() if "v" in match.groups else match.things("xy")
    far = match.groups["sup"] in _FAR
    return None if things is None else Claim("extreme", things, relation="farthest" if far else "nearest")


_FAR = frozenset(
    [
        "farthest",
        "furthest",
        "farther",
        "further",
        "longest",
        "largest",
        "greatest",
        "biggest",
        "maximal",
        "maximum",
        "highest",
        "widest",
    ]
)


def between(match: Match) -> Claim | None:
    things = match.things("xyz")
    return None if things is None else Claim("between", things)


def inside(match: Match) -> Claim | None:
    things = match.things("xy")
    return None if things is None else Claim("relation", things, relation="inside")


def count(match: Match) -> Claim | None:
    thing = match.symbols.things[int(match.groups["x"])]
    number = match.symbols.numbers[int(match.groups["n"])]
    return Claim("count", (thing,), number=number) if bool(thing.color) != bool(thing.shape) else None


def exists(match: Match) -> Claim | None:
    thing = match.symbols.things[int(match.groups["x"])]
    return Claim("exists", (thing,)) if thing.color and thing.shape else None
