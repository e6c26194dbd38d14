"""Turns of phrase: of travelling, of scanning, of measuring, as small grammars over a sentence with things as R0, R1.

Like `constructions`, but over the words as they stand (without articles and adverbs that change nothing), so that one
pattern holds a family: where one starts, the verb of motion, the direction, the goal, in the orders that English has.
Every pattern must use up the whole line, so that a word it does not know keeps the sentence unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fgrpo_jax.rewards.claims import Claim, Symbols, Thing
from fgrpo_jax.rewards.phrases import PRONOUN, opened, raw_line
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
_SPOT = "(?:hand |hand side|side|part|portion|half|end|direction|edge|border|position|way|page|level|location|one|uno|OBJ)"
_TOWARDS = "(?:(?:to|on|at|in|towards?|further|farther|more|straight|somewhat|along|over|out|off|its|way) )*"
_PERSON = "(?:i|you|we|uno|someone|somebody|anyone|people|a viewer|viewer|reader|observer)"
_EYE = "(?:(?:my|your|our|uno s|viewer s) )?(?:eyes?|gaze|glance|finger|sight|attention|look|pencil|pen|cursor|view)"
_MODAL = (
    "(?:d|ll|have|has|had|need|needs|must|should|would|will|can|could|to|only|just|simply|then|first|got|are|is|going|"
    "forced|obliged|required|get|do|does|now|soon|eventually|quickly|next|may|want|wants|be|been|might as well|always)"
)
_MOVE = (
    "(?:go|goes|going|move|moves|moving|travel|travels|travell?ing|head|heads|heading|look|looks|looking|shift|shifts|"
    "shifting|slide|slides|sliding|step|steps|stepping|walk|walks|walking|proceed|proceeds|proceeding|turn|turns|"
    "turning|drift|drifts|drifting|wander|wanders|wandering|jump|jumps|jumping|pan|panning|scroll|scrolling|run|runs|"
    "continue|continues|continuing|sweep|sweeps|sweeping|advance|advancing|glance|glancing|glide|glides|gliding|"
    "progress|progressing|come|coming|drop|dropping|climb|climbing|set off|scan|scanning|make (?:my|your|our) way)"
)
_MEET = (
    "(?:get to|gets to|getting to|reach|reaches|reaching|meet|meets|meeting|arrive at|arrives at|arriving at|come to|"
    "comes to|come across|comes across|coming across|come upon|comes upon|find|finds|finding|see|sees|seeing|hit|hits|"
    "hitting|land on|lands on|land at|encounter|encounters|encountering|bump into|run into|runs into|stumble upon|"
    "stumble on|end up at|end at|ends up at|pass|passes|spot|spots|notice|discover|locate|go to|move to|touch)"
)
_LEADS = "(?:(?:which |that )?(?:leads?|brings?|takes?|gets?|carries|carry) (?:(?:me|you|us|uno|someone|it|straight) )*to)"
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
    rf"(?:if|when|once|as|should|were|suppose) (?:{_PERSON} )?(?:to |were to )?(?:are |am |is )?(?:start|starts|starting|begin|begins|stand|standing|set off|set out|"
    rf"leave|look|looking|go|going|move|moving|depart|located)(?: (?:out|off))?(?: (?:at|from|with|on))?|"
    r"(?:put|place|set|rest|putting|placing)(?: (?:my|your|our|uno s))? (?:finger|eyes?|pen|pencil|gaze)(?: (?:on|at))|standing (?:at|on)|with R\d+ as (?:my |our |your )?start(?:ing point)?|departing from|setting (?:out|off) from)",
    "GOAL": rf"(?:(?:, )?(?:(?:in order )?to|until|till|before|and|and then|,|then|so as to|so that|if) (?:there )?(?:(?:{_PERSON}|{_EYE})"
    rf"(?: {_MODAL})* )?(?:(?:want|wants|wish|wanted|try|hope) to )?(?:{_MEET}|{_LEADS})|(?:, )?{_LEADS}|towards?|to)",
    "BE": r"(?:can be (?:found|seen|located|spotted)|is (?:to be )?(?:found|seen)|(?:has|takes|finds|holds) its (?:place|spot|position|home)|would look|would be seen|looks|is uno|is OBJ|has its cent(?:er|re)|occupies (?:position|place|spot|part)|is|lies|sits|stands|appears|appear|comes|falls|ends up|will be|would be|is found|is located|is placed|is positioned|"
    r"has been (?:drawn|placed|put)|is drawn|turns out to be|would turn out|would come out|will end up|would end up|"
    r"turns out|comes out|shows up|turns up|must be|has to be|is going to be|is situated|rests|proves(?: to be)?|gets|hangs|floats)",
    "SUP": "(?P<sup>nearest|closest|shortest|smallest|least|minimal|minimum|tiniest|lowest|farthest|furthest|longest|"
    "largest|greatest|biggest|maximal|maximum|highest|widest)",
    "GAPS": r"(?:(?:straight|line|direct|cent(?:er|re)|to cent(?:er|re)|measured|linear|overall|pixel|euclidean) )*(?:distance|gap|way|separation|value|path|route|"
    "spacing|radius|stretch|measurement|number|length|span|figure|result|interval|line|connection|trip|step|journey)",
    "TO": "(?:to|from|of|towards?|out from|away from|for)",
    "AMONG": r"(?:, )?(?:(?:of|among|amongst|from|out of|for|in) (?:all |any |the |these |those |other |others|OBJ |OBJ|them|pairing|pairings|everything|else|here|every|remaining|view|shown|visible|listed|candidates|options|choices| )+ ?)?(?:, )?",
    "BELONGS": r"(?:belongs to|goes to|is for|is that (?:of|to|for|from)|is (?:of|to|with|from|by)|is held by|is found (?:for|with|at)|"
    r"occurs (?:for|with|at)|is claimed by|is (?:the )?uno to|is had by|comes from|is taken by|comes (?:out )?(?:for|with)|is owned by|"
    r"is achieved by|leads to|is obtained for|results for|is where|is seen (?:for|with))",
    "NUM": r"N(?P<n>\d+)",
    "GET": "(?:get|gets|reach|reaches|find|arrive at|obtain|have|come to|end up with|end with|end up at|stop at|come up with|land at|finish (?:at|with|on)|make it|see|"
    "count|counted|wind up with|conclude with|tally|am at|tot up to|got|found|reached|had)",
    "TALLIES": "(?:is|being|comes to|comes out (?:at|as|to be)|amounts to|stands at|equals|totals|turns out to be|works out (?:at|as|to)|adds up to|gives|makes|will be|reads|reaches|must be|ends up (?:at|as|being)|:|,|=)",
    "ENDING": r"(?: (?:, )?(?:and|no|not|further|more|less|fewer|in|total|all|altogether|of them|of those|of these|overall|uno|beyond that|OBJ|exactly|precisely|sum|all told|here|there|visible|none|left|over|single|whole|to be seen|at end|as result)(?: (?:more|less|fewer|further|no|and|in|all|total|of them|overall|sum|or))*)*",
    "ROUND": "(?:round|around|about|over|for|enclosing|surrounding|containing)",
}
_MACRO = re.compile(rf"\b(?:{'|'.join(sorted(_MACROS, key=len, reverse=True))})\b")


def _compile(pattern: str) -> re.Pattern[str]:
    """A group that stands in several alternatives is called x, x_1, x_2."""
    text = _MACRO.sub(lambda match: _MACROS[match[0]], pattern)
    seen: dict[str, int] = {}

    def named(match: re.Match[str]) -> str:
        seen[match[1]] = seen.get(match[1], -1) + 1
        return f"(?P<{match[1]}{'_' + str(seen[match[1]]) if seen[match[1]] else ''}>"

    return re.compile(re.sub(r"\(\?P<(\w+)>", named, text))


class _Match:
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

    def relation(self) -> str | None:
        """The relation of 'rel', unless 'opp' is there and is not its opposite."""
        relation, other = _RELATION_OF[self.groups["rel"]], self.groups.get("opp")
        return relation if not other or _RELATION_OF[other] == OPPOSITE[relation] else None


_Make = Callable[[_Match], "Claim | None"]


def _relation(order: str) -> _Make:
    def make(match: _Match) -> Claim | None:
        things, relation = match.things(order), match.relation()
        return None if things is None or relation is None else Claim("relation", things, relation=relation)

    return make


def _extreme(match: _Match) -> Claim | None:
    things = match.pair() if "v" in match.groups else match.things("xy")
    far = match.groups["sup"] in _FAR
    return None if things is None else Claim("extreme", things, relation="farthest" if far else "nearest")


_FAR = frozenset("farthest furthest farther further longest largest greatest biggest maximal maximum highest widest".split())


def _between(match: _Match) -> Claim | None:
    things = match.things("xyz")
    return None if things is None else Claim("between", things)


def _inside(match: _Match) -> Claim | None:
    things = match.things("xy")
    return None if things is None else Claim("relation", things, relation="inside")


def _count(match: _Match) -> Claim | None:
    thing = match.symbols.things[int(match.groups["x"])]
    number = match.symbols.numbers[int(match.groups["n"])]
    return Claim("count", (thing,), number=number) if bool(thing.color) != bool(thing.shape) else None


def _exists(match: _Match) -> Claim | None:
    thing = match.symbols.things[int(match.groups["x"])]
    return Claim("exists", (thing,)) if thing.color and thing.shape else None


_SCAN = (
    r"(?:(?:if|when|as|while) (?:MOVER)?)?(?:scan|scanning|read|reading|go|going|look|looking|sweep|sweeping|move|moving|work|"
    r"working|travel|travell?ing|run|running|proceed|proceeding|walk|walking|order|ordering|ordered|sort|sorting|sorted|list|"
    r"listing|listed|view|viewing|trace|tracing|pass|passing|count|counting|browsing|following|arranged|arranging)?"
    r" ?(?:(?:OBJ|it|them|page|sheet|picture|image|drawing|scene|canvas|figure|rows?|positions?|both|two|along|across|over|through|my|your|our|way|eyes?|gaze|by|order|of) )*"
    r"from (?:REL)(?: (?:side|edge|hand side|part|end))? to (?:OPP)(?: (?:side|edge|hand side|part|end))?"
)
_FIRST = (
    r"(?:(?:MOVER)?(?:MEET) X (?:, )?(?:before|prior to|sooner than|earlier than|ahead of|first (?:, )?and (?:only )?(?:then|afterwards|later|next)|"
    r"(?:and )?(?:only )?(?:then|afterwards|later|next)|first (?:, )?(?:then|before)|first (?:, )?and)(?: (?:MOVER)?(?:MEET))? Y(?: (?:later|second|next|afterwards|after that))?|"
    r"(?:MOVER)?first (?:MEET) X (?:, )?(?:and |before |(?:only )?then |afterwards |later |after that )+(?:(?:MOVER)?(?:MEET) )?Y|"
    r"X (?:is |comes |appears |shows up |turns up |precedes |occurs |arrives |is met |is seen |is reached |is passed |is encountered |is listed |is found |gets |goes |is hit )*"
    r"(?:first )?(?:before|prior to|earlier than|sooner than|ahead of|first (?:, )?(?:and |while |with |followed by |then |before )+|followed by|(?:, )?then|(?:, )?and then) ?Y(?: (?:is|does|comes|appears|second|next|later|afterwards|after|follows))*)"
)
_PLACED = r"(?:it is |it s )?X(?: that| which)? (?:BE) (?:DIR)"
_LINE = (
    r"(?:if (?:MOVER))?(?:rule|rules|ruled|draw|draws|drew|drawing|put|place|imagine|picture|take|with)? ?(?:vertical|horizontal|straight|dividing|imaginary|separating| )+ line"
)
_BETWEEN_THEM = r"(?: (?:that |which |to |in order to |drawn |halfway |midway |placed |running |through middle )*(?:separates|separate|separating|divides|divide|dividing|parts|between|splits|split) (?:V (?:from|and) W|(?:two|N\d+)(?: OBJ)?|them|both|OBJ))"

_TABLE: tuple[tuple[_Make, tuple[str, ...]], ...] = (
    (
        _relation("xy"),
        (
            # Travelling from y to x.
            r"(?:START) Y(?: (?:, )?(?:and|and then|but)?(?: (?:want|wants|wanting|wish|wishing|need|needing|have|having|trying|try|would like))? ?to (?:MEET) X)? (?:, )?(?:and |then )*(?:MOVER)?(?:MOVE) (?:it )?(?:DIR) (?:GOAL) (?:X|it)",
            r"(?:START) Y (?:, )?(?:and|and then|but)? ?(?:want|wants|wanting|wish|wishing|need|needing|have|having|trying|try|would like)? ?to (?:MEET) X (?:, )?(?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:taking|with|using|choosing|take) Y as (?:\w+ )?(?:reference|start|starting point|anchor|origin|basis|base)(?: point)? (?:, )?X (?:BE) (?:DIR)(?: of it| it)?",
            r"X (?:precedes|leads) Y (?:, )?" + _SCAN,
            r"(?:in order )?to (?:MEET) X (?:, )?(?:START) Y (?:, )?(?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:in order )?(?:to|getting|travelling|traveling|going|moving) ?(?:get|go|travel|move|come|pass|walk|jump)? ?from Y to (?:MEET )?X (?:, )?(?:MOVER)?(?:(?:means|requires|involves|takes|needs|calls for|implies|demands) (?:a |some )?)?(?:MOVE|move|step|movement|shift|motion|jump|trip) (?:DIR)",
            r"(?:from Y to X|from Y , to (?:MEET) X) (?:, )?(?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:(?:if|when|by) )?(?:MOVER)?(?:MOVE) (?:DIR) (?:START) Y (?:, )?(?:(?:and|to|until|then|will|would|,) )*(?:MOVER)?(?:MEET) X",
            r"(?:(?:if|when|by) )?(?:MOVER)?(?:MOVE) (?:DIR) (?:START|of) Y (?:GOAL) X",
            r"(?:START) Y (?:, )?(?:step|move|movement|shift|jump|trip|walk|glance|look) (?:DIR) (?:MEET) X",
            r"(?:way|path|route|step|move|arrow|trip|journey|road|line|vector|jump|direction|movement|shift)(?: drawn| that leads| leading| going| running| pointing)? from Y (?:to|towards?) X (?:would |will |must )?(?:lead|leads|go|goes|point|points|run|runs|is|takes (?:me|us|you|uno)|heads|head) (?:DIR)",
            r"(?:MOVER)?(?:MEET) X (?:START) Y (?:, )?(?:by|if|when|after|in|on) (?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:MOVER)?(?:MEET) X (?:, )?(?:by|if|when|after|on) (?:MOVER)?(?:MOVE) (?:DIR) (?:START|of) Y",
            r"X is (?:reached|found|met|seen|encountered|where (?:MOVER)?(?:end up|land|arrive|get)) (?:START) Y (?:by|if|when|after|in|on) (?:MOVER)?(?:MOVE) (?:DIR)",
            r"X is (?:reached|found|met|seen|encountered|where (?:MOVER)?(?:end up|land|arrive|get)) (?:by|if|when|after) (?:MOVER)?(?:MOVE) (?:DIR) (?:START) Y",
            r"(?:should|if|when|were|as) (?:MOVER)?(?:to |were to |go to )?(?:MOVE) (?:START )?from Y (?:over |across |on )?(?:GOAL|to) X (?:, )?(?:(?:MOVER)?(?:MOVE)|(?:my|your|our|uno s)? ?(?:steps?|way|path|route|trip|journey|road|eyes?|gaze|walk|move|movement|that|this|it|direction)(?: (?:would|will|must|is|be|has to))* ?(?:takes?|leads?|brings?|goes?|points?|runs?|is|carries)?(?: (?:me|you|us|uno))?) (?:DIR)",
            r"(?:drawing|draw|drawn|if (?:MOVER)?(?:draw|drew|put)|imagine|picture)? ?(?:straight )?(?:arrow|line|vector|pointer)(?: drawn| going| that goes| leading)? from Y (?:over )?to X (?:, )?(?:and )?(?:it |this |that |arrow )?(?:(?:would|will|must|has to|does|make|makes|it|that) )*(?:points?|goes?|runs?|leads?|heads?|slopes?|faces?) (?:DIR)",
            r"(?:MOVER|there |here |OBJ )?(?:have|has|see|find|is|there|with|notice|contains|shows|observe|place|put) X (?:(?:BE) )?(?:DIR) (?:, )?(?:and|while|whereas|with|but)(?: have)? Y (?:(?:BE) )?(?:ODIR)",
            r"(?:DIR)(?: of (?:these )?(?:N\d+|pair|two)(?: OBJ)?)? (?:is|BE|sits|THERE) X (?:, )?(?:and|while|whereas|with|but|;)? ?(?:on )?(?:ODIR) (?:(?:of them|uno) )?(?:is|sits|lies|stands|we have|we find|there is|comes)? ?Y",
            r"(?:between|of|out of|comparing|looking at|taking|given|considering|with) V (?:and|with|to|or) W (?:, )?(?:MOVER)?(?:would |d )?(?:call|pick|judge|say|name|deem|consider|rate|see|choose|find|regard|declare|it is|clearly)? ?X (?:(?:as|to be|is|BE|comes out|that is|which is|has|takes|occupies) )*(?:DIR|CMP)(?: (?:uno|one|OBJ|area|size|extent|space|box|footprint|place|position))?",
            # One's own half, or the side of a line between.
            _LINE + _BETWEEN_THEM + r" (?:, )?(?:(?:and|then|you|we|i|will|find|would) )*X (?:BE) (?:on )?(?:its )?(?:DIR)(?: of it| it| of line)?(?: (?:, )?(?:and|while|with|whereas|but) Y (?:(?:BE) )?(?:on )?(?:its )?(?:ODIR)(?: of it| it| of line)?)?",
            _PLACED + r"(?: on| in| up| down| along| across)?(?: page| sheet| OBJ| paper)? (?:than|compared (?:to|with)|relative to|in comparison (?:to|with)|as opposed to) Y(?: is| does)?",
            r"(?:REL) Y (?:is|sits|lies|stands|hangs|floats|appears|rests|comes|hovers) X",
            r"X (?:BE) (?:DIR) (?:, )?(?:and|while|whereas|with|but|as)(?: it is)? Y (?:(?:BE) )?(?:ODIR)",
            r"X (?:BE) (?:DIR) of (?:two|N\d+|pair|them) (?:, )?(?:and|while|whereas|with|but)(?: it is)? Y (?:(?:BE) )?(?:ODIR)",
            r"(?:of (?:two|N\d+|pair|these|both|these two|these N\d+)(?: OBJ)? , )?(?:X and Y , )?it is X (?:that |which |who )?(?:BE) (?:DIR)(?: , not Y| rather than Y| and not Y)",
            r"X (?:BE) (?:DIR) (?:, )?(?:not|rather than|and not) Y",
            # Scanning.
            _SCAN + r" (?:, )?" + _FIRST,
            r"X (?:is |comes |appears |shows up |turns up |is met |is seen |gets )+(?:before|earlier than|ahead of|prior to) Y(?: does| is)? (?:, )?" + _SCAN,
        ),
    ),
    (
        _relation("yx"),
        (
            _SCAN + r" (?:, )?X (?:comes|appears|is|is met|is seen|shows up|is reached|is found|follows|turns up)+ ?(?:only )?(?:after|later than|behind|second , after)? Y"
            r"(?<!is R\d)(?<!is R\d\d)",
        ),
    ),
    (
        _relation("xy"),
        (
            r"(?:of|between|among|out of) (?:two|N\d+|pair|these|these two|these N\d+|both)?(?: OBJ)?(?: , )? ?X and Y (?:, )?(?:it is |it s )?(?:former|first|first one|first uno)(?: one| uno)? (?:that |which )?(?:BE|has) (?:DIR|CMP)(?: (?:size|area|uno|one|OBJ|extent))?",
            r"X (?:BE) (?:CMP) than Y (?:if|when|were) (?:MOVER)?(?:laid|put|placed|set|held|compared|measured|lay|put|place|compare|measure|to (?:lay|put|place|compare|measure)) (?:uno|N\d+|them|two|both)(?: (?:OBJ|on|top|of|next|to|beside|over|against|upon|side|by|other|each|another|uno|together|directly))*",
            r"(?:if|when|were) (?:MOVER)?(?:laid|put|placed|set|held|compared|measured|lay|put|place|compare|measure|to (?:lay|put|place|compare|measure)) (?:uno|N\d+|them|two|both)(?: (?:OBJ|on|top|of|next|to|beside|over|against|upon|side|by|other|each|another|uno|together|directly))* , X (?:BE) (?:CMP)(?: than Y)(?: is)?",
            r"(?:it |that |MOVER)?(?:(?:would|will|d) )*(?:need|needs|take|takes|requires?|want) ?(?:CMP) (?:frame|box|rectangle|canvas|sheet|lid|piece|patch|square of paper|amount|area|space|paint|ink)(?: of \w+)? (?:to (?:fit|enclose|cover|hold|frame|surround|contain|wrap|draw|paint|fill|go|colou?r|put|box|print|shade)(?: (?:snugly|tightly|in|up|all of|completely))* )?(?:(?:ROUND) )?X than (?:(?:to )?(?:(?:fit|enclose|cover|hold|frame|surround|contain|wrap|paint|fill|colou?r|draw|print|shade|box)(?: in| up)? )?(?:(?:ROUND) )?)?Y",
            r"(?:comparison|comparing|measuring|measurement)?(?: of)?(?: (?:their|two|both|OBJ|sizes?|dimensions|areas?|extents?|them))* (?:gives|assigns|awards|attributes|shows|yields) (?:CMP) (?:measurement|area|size|value|extent|number|figure|dimensions?) (?:to|for|in) X (?:rather than|than|and not|not)(?: to| for)? Y",
            r"(?:CMP)(?: (?:uno|one|OBJ))?(?: (?:of|among|between) (?:two|N\d+|pair|them|these)(?: OBJ)?)? is X (?:, )?(?:and|while|whereas|with|but|;)? ?(?:(?:OCMP)(?: (?:uno|one|OBJ))?(?: (?:is|being))? )Y",
            r"(?:(?:if|when) )?(?:MOVER)?(?:put|placed|place|laid|set|held|seen|viewed|looked at) (?:OBJ |them |both |two |N\d+ )?(?:side by side|next to each other|next to uno another|on top of each other|over each other|together|beside each other|next to N\d+ another) (?:, )?X (?:BE) (?:CMP) than Y(?: is)?",
            r"(?:CMP) (?:area|size|extent|footprint|surface|box|dimensions?|measurement|value|share|uno|one|OBJ)?(?: of (?:two|N\d+|pair|them|these))?(?: here)? ?(?:BELONGS) X (?:, )?(?:rather than|and not|not|instead of)(?: to| of| for)? Y",
            r"X (?:BE) (?:CMP)(?: (?:uno|one|OBJ))?(?: of (?:two|N\d+|pair|them|these))? (?:, )?(?:and|while|whereas|with|but) Y (?:(?:BE) )?(?:OCMP)(?: (?:uno|one|OBJ))?",
            r"X (?:BE|has got|has|takes|covers|occupies|fills|uses|claims|needs|spans) ?(?:up )?(?:CMP)(?: (?:size|area|space|room|extent|of (?:OBJ|page|canvas)|OBJ|uno|one|on page|footprint|dimensions|pixels))* (?:than|compared (?:to|with)|in comparison (?:to|with)|relative to|as opposed to)(?: that of)? Y(?: is| does| has)?",
        ),
    ),
    (
        _relation("yx"),
        (
            r"(?:of|between|among|out of) (?:two|N\d+|pair|these|these two|these N\d+|both)?(?: OBJ)?(?: , )? ?X and Y (?:, )?(?:it is |it s )?(?:latter|second|second one|second uno)(?: one| uno)? (?:that |which )?(?:BE|has) (?:DIR|CMP)(?: (?:size|area|uno|one|OBJ|extent))?",
        ),
    ),
    (
        _extreme,
        (
            r"(?:AMONG)?(?:SUP) (?:GAPS )?(?:TO) Y (?:AMONG)?(?:BELONGS) X",
            r"(?:AMONG)?(?:SUP) (?:GAPS )?(?:TO) Y (?:AMONG)?(?:is|has) X(?: s)?",
            r"(?:(?:if|when|by|after|once|on) )?(?:MOVER)?(?:measur|rank|sort|order|compar|list|consider|tak|comput|calculat|check|look|work|estimat|arrang|go|judg)(?:e|es|ed|ing|s)?(?: (?:by|up|at|out|all|every|each|any|the|of|their|OBJ|distances?|gaps?|how|far|near|close|others?|according|to|them|everything|it|is|are|off|in|terms|with|respect|each of|rest|between|lengths?))* (?:from|to) Y (?:, )?(?:then |and )?(?:it is )?X (?:that |which )?(?:has|is|shows|gets|comes out with|comes out|wins with|leads with|comes|ranks|turns out to have|turns out|turns out to be|with)? ?(?:SUP)(?: (?:GAPS)| uno| one| OBJ)?(?: (?:of|among) (?:all|them|these|others|OBJ| )+)?",
            r"(?:START|from|for|starting from|seen from|taking) Y (?:as (?:reference|origin|start|starting point) )?(?:, )?(?:SUP) (?:GAPS )(?:AMONG)?(?:BELONGS|is to|is uno to|is toward|leads to|goes to|runs to|is N\d+ to|is taken to) X",
            r"(?:it is )?X (?:, )?(?:and (?:no|none|nothing)(?: (?:other|else))?(?: (?:OBJ|uno|of others))?(?: ,)? )?(?:that |which |who )?(?:is|comes|lies|sits|stands|gets|has)(?: (?:OBJ|uno))?(?: (?:that|which))?(?: (?:lying|sitting|standing|placed|located|positioned|found|situated|is|lies|sits|comes|with|having|has|at|drawn|the))* (?:SUP) (?:GAPS )?(?:TO) Y(?: (?:of|among) (?:all|any|every|the|them|these|OBJ|others|everything|shown|here| )+)?",
            r"(?:nobody|nothing|none|no uno|no OBJ|no other|no other OBJ)(?: (?:else|of them|here|of others|of OBJ))* (?:is|comes|gets|lies|sits|stands) (?P<sup>nearer|closer|farther|further|farther away|further away) (?:TO) Y than X(?: is| does)?",
            r"(?:AMONG)?(?:GAPS )from Y to X is (?:SUP)(?: (?:of|among) (?:all|any|every|them|these|OBJ|others|distances|gaps| )+)?",
            r"(?:GAPS )between V and W is (?:SUP)(?: (?:of|among))? (?:all|any|every|them|these|OBJ|pairing|pairings|pair|pairs|others|distances|that|which|one|uno| )+ "
            r"(?:involves?|involving|including|include|with|from|to|measured from|starting from|contains?|containing) Y",
            r"(?:measuring|measured|going|looking|counting|taking|drawing lines|computing distances|taking distances|working)?(?: out)? ?(?:from|for|starting from) Y(?: to (?:each|every|all|any|OBJ|others|other|uno|of|the|everything|else|rest|them| )+)? (?:, )?(?:MOVER)?(?:get|gets|find|finds|obtain|have|see|is|has|reach|read|measure|note) (?:SUP) (?:GAPS )(?:for|with|to|at) X",
            r"(?:if|were) (?:there|we|i|you|uno) (?:were|was|gave|had|award|awarded|give) ?(?:a |any )?(?:prize|medal|award|trophy|contest|competition|race|vote)(?: given)? for (?:being |who is |which is )?(?:SUP) (?:GAPS )?(?:TO) Y (?:, )?X (?:would |will |should )?(?:win|wins|get|gets|take|takes|receive|earn|deserve)(?: it| first| that)?",
            r"(?:with )?(?:compass point|compass|compasses|needle|ruler|tape)? ?(?:on|at|in|centered on|centred on|around|round) Y (?:, )?(?:it is )?X (?:that |which )?(?:calls for|needs|requires|has|gets|takes|gives|is reached (?:with|by|at)|demands|wants) (?:SUP) (?:GAPS)",
            r"(?:AMONG)?(?:it is )?X (?:that |which )?(?:has|with|is at|lies at|is|sits at|shows|keeps) (?:SUP) (?:GAPS )?(?:TO) Y(?: (?:of|among) (?:all|any|every|the|them|these|OBJ|others|everything|shown|here| )+)?",
        ),
    ),
    (
        _between,
        (
            r"X (?:is|lies|sits|stands)(?: somewhere| right| just)? ?(?:in|at)? (?:middle(?: uno| one| OBJ)?|between|cent(?:er|re)) ?(?:, )?(?:with|and|having)? ?Y (?:is )?(?:to|on|at) (?:uno|one|N\d+) (?:side|end|hand|flank)(?: of (?:it|R(?P=x)))? (?:, )?(?:and|while|,) Z (?:is )?(?:to|on|at) (?:other|opposite|another)(?: (?:side|end|hand|flank|uno))?(?: of (?:it|R(?P=x)))?",
            r"with Y (?:to|on|at) (?:uno|one|N\d+) (?:side|end|hand|flank)(?: of it)? (?:, )?(?:and|while|,) Z (?:to|on|at) (?:other|opposite|another)(?: (?:side|end|hand|flank|uno))?(?: of it)? (?:, )?X (?:is|lies|sits|stands|takes|occupies)(?: somewhere| right| just)? ?(?:in|at)? ?(?:middle|between|cent(?:er|re))(?: (?:uno|one|OBJ|place|spot|position))?",
            r"(?:if (?:MOVER))?(?:join|connect|link|joining|connecting|linking|joined|connected) Y (?:to|with|and) Z (?:(?:with|by|using) (?:a |ruler|straight|line|string|segment| )+ ?)?(?:, )?(?:(?:and|then|line|it|will|would|the|i|you|we|d|ll|uno) )*(?:come across|comes across|meet|meets|pass|passes|pass through|passes through|hit|hits|cross|crosses|run into|runs through|run through|find|touch|touches|go through|goes through|encounter|cut through|cuts through|run over|see) X(?: on (?:way|route)| along way| in between| in middle)?",
            r"(?:sitting|standing|lying|being|placed|located|positioned|situated) (?:right |just )?(?:in between|between|in middle|in the middle) (?:, )?X (?:separates|parts|divides|splits|keeps) Y (?:from|and|apart from) Z(?: apart)?",
            r"X (?:is|lies) (?:middle|central) (?:uno|one|OBJ)(?: of (?:three|N\d+|these three|these N\d+)(?: OBJ)?)?(?: ,)? (?:with|between|flanked by) Y and Z (?:(?:on|at|to|as) )?(?:either side|both sides|ends|both ends|each side|its sides|outsides?|its neighbou?rs|either end|opposite sides)",
            r"(?:flanked|bordered|bracketed|framed|enclosed|sandwiched|squeezed|hemmed in)(?: by| between) Y and Z (?:, )?X (?:is|lies|sits|stands|occupies|takes|has|holds)(?: (?:in|at|up|place|spot|space|position|middle|between|cent(?:er|re)))+",
            r"(?:neighbou?rs?|OBJ)(?: (?:of|to) X|)(?: (?:on|at|to) (?:its |either |both |N\d+ |each |two )*(?:sides?|hands?|flanks?|ends?))? (?:of X )?(?:is|are|being) Y and Z",
            r"Y (?:is|lies|sits|stands|appears|comes) (?:to|on|at) (?:uno|one|N\d+) (?:side|end|hand|flank)(?: of X)? (?:, )?(?:and|while|,|whereas|with) Z (?:is |lies |sits |stands |appears |comes )?(?:to|on|at) (?:other|opposite|another)(?: (?:side|end|hand|flank|uno))?(?: of (?:it|X))?",
            r"(?:if (?:MOVER)|when (?:MOVER))?(?:join|connect|link|joining|connecting|linking) Y (?:to|with|and) Z (?:(?:with|by|using) (?:a |ruler|straight|line|string|segment| )+ ?)?(?:, )?(?:then )?X (?:is|lies|sits|falls|comes|will be|would be|appears)(?: (?:right|somewhere|exactly|directly))? (?:on|along) (?:it|line|way|that line|this line|this segment|segment|connection)",
            r"(?:on (?:its |way |my |your |the )*|going |to go |to get |travelling |travell?ing )?from Y to Z (?:, )?(?:(?:MOVER)|\w+ )(?:(?:would|will|must|has to|have to|needs to|would have to|can not help but|d|ll|could) )*(?:crawl|walk|run|step|fly|pass|travel|go|climb|hop|drive|roll|move|jump|cross)(?:s|es)? ?(?:over|through|across|past|by|via)? ?X(?: first)?",
            r"(?:MOVER)(?:can not|not) (?:go|get|walk|travel|move|draw|pass|run|come)(?: (?:straight|directly|line|straight line))* from Y to Z without (?:crossing|passing|touching|hitting|running into|going through|going over|meeting|running over|cutting|encountering)(?: (?:through|over|by))? X",
            r"(?:space|gap|area|region|room|stretch|place|spot|middle|ground|distance)(?: (?:separating|between|that separates|that lies between|in between|left between)) Y (?:and|from) Z (?:is|gets|has been) (?:occupied|filled|taken|held|claimed|covered|inhabited)(?: up)? by X",
            r"(?:space|gap|area|region|room|stretch|place|spot|middle|ground)(?: (?:separating|between|that separates|that lies between|in between|left between)) Y (?:and|from) Z (?:is where|is home to|contains|holds|hosts|belongs to|goes to|is for)(?: (?:MOVER)?(?:MEET))? X(?: (?:is|sits|lies|stands))?",
            r"Y and Z (?:are|lie|sit|stand|is|appear|come|are located|are placed)(?: (?:on|at|to))? (?:opposite|either|both|different|two|N\d+) (?:sides|side|ends|end) of X",
        ),
    ),
    (
        _count,
        (
            r"how many X (?:there are|are there|i see|we see|we have|are visible|are shown|are present|exist|appear|i can see|are in it)? ?(?:is |can be |has been |was |gets )?(?:easily |quickly |soon |readily |clearly )?(?:settled|answered|told|seen|clear|obvious|counted|established|determined|known)? ?(?:, |: |and |since |as )*(?:(?:count|number|total|tally|answer|it|result) )?(?:TALLIES) ?(?:NUM)(?:ENDING)",
            r"(?:as for|as to|regarding|concerning|considering|when it comes to|for|of|about|among|with|out of|speaking of) X (?:, )?(?:there|here|we|i|you|uno|it|picture|image)? ?(?:are|is|s|exist|have|see|find|count|get|has|contains|shows|be|can see|can count|counts|adds up to|makes|come to)* ?(?:total of|sum of|count of|altogether|in total|in all|number of|of)? ?(?:NUM)(?:ENDING)",
            r"(?:ticking off|counting(?: up| off| through)?|tallying(?: up)?|adding up|numbering|enumerating|listing|going through|running through|collecting|pointing at|checking off|summing up|going over|if (?:MOVER)?(?:count|tally|add up|tick off|number|list|go through|enumerate)(?: up)?|after counting|having counted|once (?:MOVER)?count|when (?:MOVER)?count) ?(?:up )?(?:all |every |each |all of )?X(?: (?:in turn|up|off|one by one|uno by uno|N\d+ by N\d+|individually|carefully|in order|one after another|N\d+ after another|separately|together|there|visible|i see|we see|once|twice|again))* (?:, )?(?:(?:MOVER)?(?:GET)|(?:that|this|it|which|result|total|count|number|answer)? ?(?:TALLIES)|(?:takes|brings|leads) (?:me|us|you|uno) to|yields|results in) (?:total of |sum of |count of |exactly |number )*(?:NUM)(?:ENDING)",
            r"(?:number|count|total|tally|quantity|amount|sum|total number|total count|head count|headcount|full count|final count|final tally)(?: (?:i|we) (?:get|find|have|see|arrive at|reach))?(?: (?:of|for|with|in case of|as for|concerning))+ X(?: (?:i|we) (?:get|find|have|see|count|can see)| (?:shown|present|visible|here|there|that i see|depicted|drawn|found|in total))* (?:TALLIES) (?:exactly |at |to |precisely )*(?:NUM)(?:ENDING)",
            r"(?:exactly |there are |there is |altogether |in total |all in all )*(?:NUM) (?:of OBJ )?(?:is|are|represents|gives|makes) (?:number|count|total|tally|how many|quantity|amount|what (?:i|we) get for|what (?:i|we) count for|my count)(?: (?:of|for))? ?X(?: (?:there are|i see|we see|we have|are present|are visible|shown|present|exist|that i see|i can see|i count|we count))*",
            r"(?:MOVER)?(?:have |ve |can |could |was able to |were able to |am able to |do |manage to |managed to )*(?:GET|MEET|got|identify|identified|see|spotted|make out|detect|list|recogni[sz]e|have|has|contains|shows) (?:exactly |precisely |total of |altogether |in total |all in all )*(?:NUM) X(?:ENDING)",
            r"(?:exactly |altogether |in total |all in all |precisely )*(?:NUM) X (?:can be|are|were|is|was|could be|to be) (?:identified|detected|found|made out|seen|counted|recogni[sz]ed|spotted|located|distinguished|present|there|visible|shown|depicted|listed|drawn)(?:ENDING)",
            r"X (?:number|total|come to|amount to|make|tally|are|count up to|sum to|sum up to|come in at|appear|occur) (?:exactly |precisely |to )*(?:NUM)(?: (?:times|in total|in number|altogether|in all|all told|overall|strong))*",
            r"(?:MOVER)?(?:GET) (?:exactly |total of |sum of |count of |precisely |altogether |in total )*(?:NUM) (?:for|as (?:number|count|total|tally) (?:of|for)|when counting|on counting|counting|after counting|if counting|by counting) (?:up |all )*X",
        ),
    ),
    (
        _exists,
        (
            r"(?:somewhere |elsewhere |here |also |among OBJ |among them |besides |in addition |as well |in this OBJ |on page |on sheet |on canvas )*(?:, )?(?:we ve got|we have got|we ve|i ve got|we have|there is|there s|sits|lies|is|appears|i find|i see|i spot|i notice|we see|we find|we spot|can be seen|can be found|exists|there sits|there lies|there appears|it has|it contains) X(?: (?:too|as well|here|there|also|somewhere|on page|to be seen|among OBJ|present|visible|as well|in view|on show|on display))*",
            r"(?:my|your|our)? ?(?:eyes?|gaze|attention|glance|look) (?:lands?|falls?|settles?|rests?|comes to rest|stops?|lights?|is caught|is drawn|is attracted|is drawn to|goes|alights|fixes|stumbles) ?(?:on|upon|by|to|at|over|onto)? X",
            r"X (?:also )?(?:catches|caught|draws|attracts|meets|strikes|greets|grabs) (?:my|our|your|the)? ?(?:eyes?|attention|gaze|sight|view)",
            r"X (?:turns up|shows up|crops up|features|figures|makes an appearance|makes appearance|pops up|is among OBJ|is there|is here|is on show|is part of it|is also (?:there|here|present|visible)|is among them|can be spotted|can be made out|can be found|can be seen|can be noticed|is in view|is on view|is on display|belongs to OBJ|is uno of OBJ|exists|appears)(?: (?:too|as well|here|there|also|somewhere|on page|in it|among OBJ|shown|present))*",
            r"(?:MOVER)?(?:make out|makes out|detect|recogni[sz]e|identify|spot|come across|notice|observe|find|see|discover|pick out|catch sight of|caught sight of|perceive|point to|point out|catch)(?: (?:also|here|there))* X(?: (?:too|as well|here|there|also|somewhere|on page|in it|among OBJ|among them))*",
        ),
    ),
    (
        _inside,
        (
            r"(?:whole|all|entirety|every part|every bit|every corner)?(?: of)? ?X (?:falls|lies|is|fits|sits|rests|stays|remains|keeps|is (?:drawn|located|placed|contained|tucked|tucked away|hidden|nested|enclosed))(?: away| wholly| fully)* (?:inside|within|in interior of|in|inside of)(?: (?:bounds|boundary|boundaries|borders|outline|limits|confines|edges|perimeter|frame|interior) of)? Y(?: ,? ?with (?:no|not|none|nothing|N0)(?: part| bit| piece| edge| corner)?(?: of it)? (?:poking|sticking|peeking|spilling|reaching|showing|protruding|jutting|left|standing) ?(?:out|outside|over|beyond)?)?",
            r"(?:outline|border|boundary|edge|edges|contour|line|perimeter|frame|rim|sides) of Y (?:goes|go|runs|run|is|are|passes|extends|reaches|closes|encloses|surrounds|wraps|encircles)(?: (?:all|whole|the|way|completely|entirely|wholly|fully))* ?(?:round|around|about|in)? ?X(?: on all sides| completely| entirely)?",
            r"Y has X (?:sitting |lying |placed |completely |safely )*(?:inside|within|in)(?: of)? (?:it|itself)",
            r"X (?:is|lies|sits|stands|falls|rests) (?:inside|within|in) (?:area|region|space|surface|ground)(?: (?:that|which))? Y (?:covers|occupies|takes up|takes|fills|encloses|bounds|spans)",
            r"Y (?:forms|makes|builds|draws|provides|creates|is|acts as|serves as|puts) (?:border|frame|boundary|fence|wall|enclosure|outline|loop|container|hull|shell)(?: that)? ?(?:all |completely |goes |runs |way )*(?:around|round|for|about|enclosing) X",
            r"(?:if|when) (?:MOVER)?(?:look|peek|peer|check|go|step|zoom|search|glance)(?:s|ing)? (?:inside|into|in|within)(?: (?:interior|area|outline|bounds|boundary) of)? Y (?:, )?(?:(?:MOVER)?(?:MEET)|there is|THERE|what (?:MOVER)?(?:MEET) is) X",
            r"(?:every|each|any|all) (?:points?|parts?|pixels?|corners?|bits?|pieces?|edges?) of X (?:belongs? to|is|are|lies?|falls?|sits?|is contained|stays?|is part of|is found)(?: (?:in|inside|within|to))*(?: (?:interior|area|inside|bounds|region|box|outline) of)? ?Y",
            r"(?:MOVER)?(?:find|finds|see|spot|get|discover|have) X (?:tucked|hidden|nested|sitting|lying|placed|resting|drawn|enclosed|contained|located|nestled|packed)?(?: away| up| safely| completely| entirely| wholly| fully)* ?(?:inside|within|in)(?: of)? Y",
        ),
    ),
)
_PATTERNS = tuple((_compile(pattern), make) for make, patterns in _TABLE for pattern in patterns)
_NOISE = re.compile(
    r"\b(?:the|a|an|clearly|exactly|precisely|only|just|simply|slightly|visibly|noticeably|quite|really|plainly|entirely|"
    r"wholly|fully|immediately|definitely|certainly|obviously|evidently|considerably|indeed|actually|therefore|also|"
    r"much|very|own|itself|overall|snugly) "
)
_PAGE = re.compile(r" (?:in|on|within|of|across|over) (?:this |our |whole )?(?:image|picture|scene|page|drawing|figure|canvas|frame|photo|sheet|diagram)\b(?! R)")
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
            found = None if match is None else _Match(match, symbols)
            claim = make(found) if found is not None and found.clear else None
            if claim is not None:
                return (claim,)
    return None


def _plain(line: str) -> str:
    line = _PAGE.sub("", _NOISE.sub("", line))
    line = re.sub(r"\b(?:it|that) s\b", "it is", line)
    return re.sub(r"\b(left|right) hand\b", r"\1", line).strip(" ,;:")
