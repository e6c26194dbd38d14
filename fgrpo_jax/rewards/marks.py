"""The one statement of a sentence, by what marks what: for wordings that no whole construction fits.

This looks for three things: which things are named, which one kind of statement the words make of them, and which of
the things is the one compared with (behind 'of', 'than', 'from', as the owner in 'has .. on its left', ..). Only when
all of that is found once, nothing speaks against it (a hedge, a negation that is not understood, a second kind of
statement) and no word is unknown is there a statement.
"""

from __future__ import annotations

import re

from fgrpo_jax.rewards.claims import Claim, Symbols, Thing
from fgrpo_jax.rewards.relations import OPPOSITE
from fgrpo_jax.rewards.words import COLORS, SHAPES, SIZES

_HEDGE = re.compile(
    r"\b(?:perhaps|maybe|possibly|probably|might|may|could|whether|if|unless|either|or|unclear|not sure|unsure|"
    r"seems? "
    r"possible|can't tell|cannot tell|hard to tell|can not tell|although|though|except|but|would)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|never|no|none|nothing|neither|nor|without|nowhere|nobody|hardly|scarcely|cannot|rather than|"
    r"instead of|"
    r"fails?|lacks?|false|wrong|untrue|incorrect|unlike|anything but|far from being|opposite|contrary)\b"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIRECTIONS = {
    "left": "left leftmost leftward leftwards",
    "right": "right rightmost rightward rightwards",
    "above": "above over higher upper up upward upwards upmost top topmost uppermost highest",
    "below": "below under beneath underneath lower down downward downwards bottom bottommost lowest",
    "larger": "larger bigger greater largest biggest more exceeds dwarfs outsizes",
    "smaller": "smaller tinier smallest less fewer",
}
_RELATION_OF = {word: relation for relation, words in _DIRECTIONS.items() for word in words.split()}
_HEADS = ("above", "below", "over", "under", "beneath", "underneath")  # prepositions: what follows is compared with
_EXTENT = _words("room space area pixels surface extent big large small size dimensions")
_BETWEEN = _words("between middle flanked separates separate gap halfway midway amid sandwiched side")
_INSIDE = _words(
    "inside within interior enclosed encloses enclose surrounded surrounds contained contains contain encircles "
    "encircled holds in into outline around"
)
_NEAR = _words("nearest closest shortest smallest nearer closer")
_FAR = _words("farthest furthest greatest largest longest remotest farther further biggest")
_SIZED = _words("larger bigger smaller tinier")
_SUPERLATIVES = _words("nearest closest farthest furthest remotest")
_GAPS = _words("distance gap way")
_GROUND = _words("of than from with beside against where")
_SIZE_ADJECTIVES = {"big": "larger", "large": "larger", "tall": "larger", "small": "smaller", "tiny": "smaller"}


def statement(text: str) -> Claim | None:
    """The one statement of a text, or None."""
    text = _NO_NUMBER.sub("someone", text)
    if _HEDGE.search(text):
        return None
    symbols = Symbols.of(text)
    if symbols is None:
        return None
    marks = _Marks(symbols)
    if not (marks.boxes or _KNOWN.issuperset(word for word in symbols.line.split() if not _SYMBOL.match(word))):
        return None  # one thing and one box can't be taken for much else, whatever the verb
    if _QUALIFIED.search(marks.text):
        return None
    for look in (marks.location, marks.between, marks.extreme, marks.inside, marks.compared, marks.count, marks.exists):
        claim, final = look()
        if claim is not None or final:
            return claim
    return None


_QUALIFIED = re.compile(
    r"\b(?:(?:greater|larger|bigger|more|smaller|less|lesser) height|upper hand|said|claimed|supposed|expected"
    r"|believed|short of|used to|(?:one|someone|N\d+) of (?:nearest|closest|"
    r"farthest|furthest|larg|small)|"
    r"(?:someone of|second|third|next|almost|nearly|not (?:all|every\w*)) ?(?:nearest|closest|farthest|furthest|"
    r"everything|"
    r"every|all|R|is)|(?:all|every|each|some|any|several|most|few|no) R\d+ (?!N\d|number|total|can|appear))"
)
"""What is said with a reserve, of an unknown one, or of several at once."""
_SYMBOL = re.compile(r"[RBN]\d+$|\W$")
_THINGS = "|".join((*COLORS, *SHAPES, *SIZES, "object", "shape"))
_NO_NUMBER = re.compile(
    rf"(?<!number )(?<!to )(?<!get )(?<!find )(?<!are )\bone\b(?=[ ,])(?! (?:of|{_THINGS})\b)", re.IGNORECASE
)
"""The pronoun: 'one finds', 'the left one and ..'."""
IDLE = _words(
    "on in at with by to from of the a an this that my our your it its i we you someone again closer close "
    "closely careful carefully second another further last final first look looking glance inspection view "
    "thought thoughts reflection check checking fact truth reality all now then here there so well yes indeed "
    "clearly obviously evidently actually really finally next upon after before having seen looked checked "
    "counted found said being is was as know knows measured measuring compared comparing relative see sees "
    "result results settled take back once more end sum"
)
_KNOWN = (
    IDLE
    | frozenset(_RELATION_OF)
    | _EXTENT
    | _BETWEEN
    | _INSIDE
    | _NEAR
    | _FAR
    | _GAPS
    | _GROUND
    | _words(
        "and or but for than not no nothing none nobody never neither nor s also too both just only very still "
        "somewhat much quite rather same other others else everything everyone anything something someone every "
        "each any these those them they their he she which who what where whose one ones two are be been were "
        "am has have had having do does did will can may must need needs sit sits stand stands lie lies rest "
        "rests hang hangs appear appears stay stays located placed situated positioned drawn put set found "
        "shown seen visible present marked kept laid occupies occupy fills covers spans takes exceeds falls "
        "short size sizes object objects thing things shape shapes item items picture image scene photo drawing "
        "place position positions location spot point edge border side sides corner region area box bounding "
        "boxes frame line way path gap stretch space outline hand go goes going come comes coming move moves "
        "moving run runs running get gets getting reach reaches reaching meet meets meeting bring brings lead "
        "leads leading pass passes passing cross crosses crossing arrive arrives start starts starting scan "
        "scanning read reading travel connecting connects joining joins join linking wander until towards "
        "toward through along across around about away off out up down near next beside among between directly "
        "exactly entirely completely fully wholly totally all always horizontal horizontally vertical "
        "vertically further farther far distance distances neighbour neighbor neighbours as like such because "
        "since while whereas if order sequence then first last before after us me him her contains containing "
        "includes include included holds keep keeps keeping encloses see sees spots count counts counting "
        "counted number numbers total totals altogether make makes making made find finds finding notice "
        "notices observe discover locate locates points happen happens mark marks height width depth surface "
        "part walk walks walking end ends float floats hover hovers judge consider compare compares turn turns "
        "follow follows apart reads borders bordering belongs step steps sight eye arrange arranged row ahead "
        "behind over rank ranks rise rises sink sinks land lands looks eyes wedged fits shows show presents "
        "respect regard regards comparison pair couple three case true false lower upper column middle centre "
        "center midst flanked separated separates encircled big large small tall tiny measured measures when"
    )
)
"""Words that change nothing beyond what is looked for: a sentence with any other word is not read."""

_SHOWN = re.compile(
    r"\b(?:seen|see|spot|visible|includes?|included|shows?|shown|appears?|exists?|here|among|somewhere|there|present|"
    r"one of|find|found|notice|have|make out|picture|image|scene)\b"
)
_NO_NUMBERS = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (
            r"\b(?:of|between|among) (?:the |these |those )?N\d+\b(?! R)(?: objects| shapes| things)?",
            "",
        ),  # 'of the two'
        (r"\bN\d+ of (?:the )?R\d+ (?=is\b)", "among them "),  # 'one of the objects is'
        (r"\bN\d+ (?=side\b)", "one "),  # 'on one side'
        (r"\bN\d+ (?=(?:can|could|finds?|meets?|passes|reaches|sees|comes|gets)\b)", ""),  # 'one finds'
        (r"\b((?:larg|bigg|small|high|low|upp|near|clos|farth|furth)er|left|right|top|bottom) N\d+\b", r"\1 one"),
        (r"\bN\d+(?= (?:is|which|that|further|farther)\b)", "one"),
        (r"\btakes up\b", "takes"),
        (r"\bright (?=next|beside|above|below|at|in|on|under|beneath|here|there|where|now)", ""),
    )
)
"""Words for numbers that count nothing, and particles that point nowhere."""


_PHRASAL = re.compile(
    r"\b(?:shows?|turns?|takes?|fills?|ends?|makes?) up\b|\b(?:up|down) to\b|\btop left|"
    r"bottom right\b"
)
_ELSEWHERE = re.compile(
    r"\b(?:outside|beyond|far|away|next|near|beside|adjacent|except|avoids?|misses|leaves|overlaps?|"
    r"touch(?:es)?|borders|"
    r"larger|smaller|exceeds|nearest|farthest|between|than)\b|\bas \w+ as\b"
)
"""Words of a sentence that names a box without placing the thing there."""


class _Marks:
    """The words of one sentence, with things, boxes and numbers as symbols, and what they mark."""

    def __init__(self, symbols: Symbols) -> None:
        line = symbols.line
        for pattern, word in _NO_NUMBERS:
            line = pattern.sub(word, line)
        self.words = [w for w in line.split() if w not in ("the", "a", "an", "both", "very", "also", "just")]
        self.text = " ".join(self.words)
        self.symbols = symbols
        self.places = [(at, self.thing(w)) for at, w in enumerate(self.words) if re.fullmatch(r"R\d+", w)]
        self.places = [(at, thing) for at, thing in self.places if thing.name]
        self.things = list(dict.fromkeys(thing for _, thing in self.places))
        self.boxes = [w for w in self.words if re.fullmatch(r"B\d+", w)]
        self.numbers = [w for w in self.words if re.fullmatch(r"N\d+", w)]
        self.negated = NEGATION.search(self.text) is not None

    def thing(self, symbol: str) -> Thing:
        return self.symbols.things[int(symbol[1:])]

    def has(self, words: frozenset[str]) -> bool:
        return not words.isdisjoint(self.words)

    def other(self, thing: Thing) -> Thing:
        return self.things[1 - self.things.index(thing)]

    # Each of these looks for one kind of statement: (the claim or None, whether to look no further).
    def location(self) -> tuple[Claim | None, bool]:
        """One thing, one box."""
        if not self.boxes:
            return None, False
        plain = len(self.boxes) == len(self.things) == 1 and not self.negated and not self.numbers
        text = _PHRASAL.sub(" ", self.text)
        if not plain or _ELSEWHERE.search(text) or not set(text.split()).isdisjoint(frozenset(_RELATION_OF) - {"over"}):
            return None, True
        return Claim("at", (self.things[0],), box=self.symbols.boxes[int(self.boxes[0][1:])]), True

    def between(self) -> tuple[Claim | None, bool]:
        """Three things, two of them a pair: the third is between."""
        if len(self.things) != 3 or len(self.places) != 3:
            return None, len(self.things) > 3
        pair = self._pair()
        marked = self.has(_BETWEEN) or re.search(r"\b(?:line|way|path|stretch|going|moving|connecting)\b", self.text)
        sized = self.has(_NEAR | _FAR | _SIZED)  # 'the distance between a and b is the shortest', 'in between in size'
        if pair is None or self.negated or not marked or sized:
            return None, True
        middle = next(thing for thing in self.things if thing not in pair)
        return Claim("between", (middle, *pair)), True

    def _pair(self) -> tuple[Thing, Thing] | None:
        """'b and c', 'b on one side and c', 'from b to c', 'b from c'."""
        joint = r"(?: (?:on|to|at) one side)?(?: ,)? and(?: (?:on|to|at) other side)?| to| towards?| from| with"
        found = re.search(rf"R(\d+)(?:{joint}) R(\d+)", self.text)
        return (self.symbols.things[int(found[1])], self.symbols.things[int(found[2])]) if found else None

    def extreme(self) -> tuple[Claim | None, bool]:
        """'nearest to', 'smallest distance', and 'nothing is nearer than', 'all else is farther than'."""
        near, far = self.has(_NEAR), self.has(_FAR)
        gap = self.has(_GAPS)
        superlative = self.has(_SUPERLATIVES) or gap
        comparative = re.search(r"\b(?:nearer|closer|farther|further)\b", self.text)
        comparative = comparative is not None and not self.has(frozenset(_RELATION_OF))
        if (not superlative and not comparative) or near == far or len(self.things) != 2 or len(self.places) != 2:
            return None, False
        nobody = re.search(r"\b(?:no|nothing|none)\b|\bnot\b.*\banything\b", self.text)
        everybody = re.search(r"\b(?:everything|everyone|all|every|each)\b(?: other)?", self.text)
        if comparative and not superlative:
            than = re.search(r"\bthan R(\d+)", self.text)
            if than is None or (nobody is None) == (everybody is None):
                return None, True
            subject = self.symbols.things[int(than[1])]
            kind = near if nobody else far  # all else is farther: it is the nearest
            return Claim("extreme", (subject, self.other(subject)), relation="nearest" if kind else "farthest"), True
        grounds = [
            thing
            for at, thing in self.places
            if (at and self.words[at - 1] in ("to", "from", "of")) or self.words[at + 1 : at + 2] == ["s"]
        ]
        grounds = list(dict.fromkeys(grounds))
        if len(grounds) != 1 or (self.negated and not nobody) or nobody:
            return None, True
        return (
            Claim("extreme", (self.other(grounds[0]), grounds[0]), relation="nearest" if near else "farthest"),
            True,
        )

    def inside(self) -> tuple[Claim | None, bool]:
        """Two things, one of them around the other."""
        if len(self.things) != 2 or len(self.places) != 2 or not self.has(_INSIDE) or self.has(frozenset(_RELATION_OF)):
            return None, False
        (_, first), (_, second) = self.places
        holder = re.search(r"\b(?:in|inside|within|of|by|into|enclosed in) R(\d+)", self.text)
        active = re.search(
            r"R(\d+) (?:\w+ly )?(?:encloses|surrounds|contains|encircles|holds|(?:goes|runs|is) (?:all )?around) ",
            self.text,
        )
        owner = re.search(r"^R\d+ (?:has|with|keeps) R\d+ (?:\w+ )?(?:in|inside|within)(?: it| its \w+)?$", self.text)
        if self.negated or (holder is not None) + (active is not None) + (owner is not None) != 1:
            return None, True
        outer = first if owner else self.symbols.things[int((holder or active)[1])]  # pyright: ignore[reportOptionalSubscript]
        return Claim("relation", (second if outer == first else first, outer), relation="inside"), True

    def compared(self) -> tuple[Claim | None, bool]:
        """Two things, one relation: left, right, above, below, larger, smaller."""
        if len(self.things) != 2 or self.boxes or self.numbers:
            return None, False
        if len(self.places) > 2:  # 'with a and b in view, the larger is a': a pair named first is no ground
            return None, True
        as_as = self._as_as()
        if as_as is not None:
            return as_as, True
        relation = self._relation()
        if relation is None or self.negated:
            return None, relation is not None
        ground = self._ground(relation)
        if ground is None:
            return None, True
        return Claim("relation", (self.other(ground), ground), relation=relation), True

    def _as_as(self) -> Claim | None:
        """'a is not as big as b'."""
        found = re.search(r"R(\d+) is not (?:quite )?as (\w+) as R(\d+)", self.text)
        if found is None or found[2] not in _SIZE_ADJECTIVES:
            return None
        things = self.symbols.things[int(found[1])], self.symbols.things[int(found[3])]
        return Claim("relation", things, relation=OPPOSITE[_SIZE_ADJECTIVES[found[2]]])

    def _relation(self) -> str | None:
        """The one relation that the words name; where there are two that are opposite, the first."""
        if "falls short of" in self.text or "dwarfed by" in self.text:
            return "smaller" if re.search(r"falls short|R\d+ is dwarfed", self.text) else None
        found = []
        for at, word in enumerate(self.words):
            relation = _RELATION_OF.get(word)
            if word in ("more", "less", "fewer") and not _EXTENT.intersection(self.words[at + 1 : at + 2]):
                continue  # 'more to the left'
            if relation is not None:
                found.append(relation)
        if not found:
            return None
        kinds = set(found)
        travelled = re.search(r"\bfrom (\w+) to (\w+)\b", self.text)
        if travelled and {travelled[1], travelled[2]} <= set(_RELATION_OF):
            if re.search(r"\b(?:comes|is) before\b|\bfirst (?:and )?then\b|\bR\d+ first\b", self.text):
                return found[0]
            return OPPOSITE[found[0]] if re.search(r"\b(?:comes|is) after\b", self.text) else None
        if re.search(r"\b(?:farther|further) from \w+ (?:edge|border|side)", self.text):
            return OPPOSITE[found[0]] if len(kinds) == 1 else None
        if len(kinds) == 1 or (len(kinds) == 2 and OPPOSITE[found[0]] in kinds and self._each_its_own(found)):
            return found[0]
        return None

    def _each_its_own(self, found: list[str]) -> bool:
        """'a is the left one and b the right one': two opposite relations, each said of its own thing."""
        return len(found) == 2 and len(self.places) in (2, 3)

    def _ground(self, relation: str) -> Thing | None:
        """The thing that the other is compared with; None when it is not clear which."""
        pair = re.search(r"(?:\b(?:of|between)(?: pair| two)?|^pair) R\d+ and R\d+", self.text)
        if pair:  # 'of a and b, the left one is a'
            rest = [thing for at, thing in self.places if at >= len(self.text[: pair.end()].split())]
            return self.other(rest[0]) if len(set(rest)) == 1 else None
        if re.search(r"\b(?:its|it)\b", self.text) and re.match(r"R\d+ (?:(?:has|with|sees) R|is\b)", self.text):
            if re.match(r"R\d+ is\b", self.text) and not re.search(r"\bits\b.*\bby R", self.text):
                return None
            return self.places[0][1]
        found = []
        for at, thing in self.places:
            before = self.words[at - 1] if at else ""
            earlier = " ".join(self.words[max(0, at - 3) : at])
            if re.search(r"\b(?:position|place|location|centre|center) of$", earlier):
                continue  # 'the position of a is left of that of b'
            behind = before in _GROUND or before in _HEADS or self._owns_a_side(at)
            if behind or re.search(
                r"(?:relative|compared|next|respect) ?(?:to|with)?$|before$|first (?:and )?then$", earlier
            ):
                found.append(thing)
        grounds = list(dict.fromkeys(found))
        if len(grounds) == 1:
            return grounds[0]
        if not grounds:
            return self._by_one(relation)
        return None

    def _owns_a_side(self, at: int) -> bool:
        """'on the square's left'."""
        return (
            self.words[at + 1 : at + 2] == ["s"] and _RELATION_OF.get("".join(self.words[at + 2 : at + 3])) is not None
        )

    def _by_one(self, relation: str) -> Thing | None:
        """'a is the left one, b the right one', 'of the two the bigger one is a': the first said with the relation."""
        first = next(at for at, word in enumerate(self.words) if _RELATION_OF.get(word) == relation)
        copula = re.search(
            r"R(\d+) (?:is|sits|lies|stands) (?:one )?(?:further |more )?(?:to |on |at )?(\w+)", self.text
        )
        if copula and _RELATION_OF.get(copula[2]) == relation:
            return self.other(self.symbols.things[int(copula[1])])
        turned = re.search(r"(\w+)(?: one)? is R(\d+)", self.text)
        if turned and _RELATION_OF.get(turned[1]) == relation:
            return self.other(self.symbols.things[int(turned[2])])
        del first
        return None

    def count(self) -> tuple[Claim | None, bool]:
        """One kind of thing, one number."""
        if len(self.things) != 1 or len(self.numbers) != 1 or self.negated:
            return None, bool(self.numbers)
        vague = re.search(
            r"\b(?:least|most|more|fewer|less|about|around|almost|nearly|over|under|another)\b", self.text
        )
        if vague or self.has(frozenset(_RELATION_OF)):
            return None, True
        number = self.symbols.numbers[int(self.numbers[0][1:])]
        return Claim("count", (self.things[0],), number=number), True

    def exists(self) -> tuple[Claim | None, bool]:
        """One thing that is said to be there."""
        if len(self.things) != 1 or self.negated or self.has(frozenset(_RELATION_OF)) or not self._fresh():
            return None, True
        thing = self.things[0]
        return (Claim("exists", (thing,)) if thing.color and thing.shape else None), True

    def _fresh(self) -> bool:
        return _SHOWN.search(self.text) is not None
