"""One wording for many: a sentence as a line of few tokens, for the constructions of `constructions` to match.

    "In the picture, the red circle sits further to the left than the blue square."   ->   "R0 IS LEFT OF R1"

Verbs of position become IS, of seeing THERE, of having HAS, of travelling GO and REACH; what is compared with stands
behind OF or REF; words for a thing of no kind become OBJ; adverbs that change nothing are left out. What no rule knows
stays as it is, so that no construction matches it: negations, hedges, conditions and questions among it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fgrpo_jax.rewards.claims import Symbols
from fgrpo_jax.rewards.words import COLORS, SHAPES, SIZES


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


_INTRO = _words(
    """
    in on at with by to from of as for the a an this that these those their its it i we you let us me my our and
    now so here there well okay ok alright first firstly next then finally lastly again also further furthermore
    additionally moreover besides likewise similarly similar meanwhile overall therefore thus hence accordingly
    consequently looking look looks see seen sees seeing view viewing viewed judging judge judged based basing
    going gone checking check comparing compare compared comparison measuring measure measured considering
    consider considered given counting count counted examining examine inspecting inspection inspect observing
    observe observed observation analyzing analysing analysis studying study noting note reading according terms
    regard regards regarding respect concerning speaking facing closer close closely careful carefully glance
    second another last time reflection thought thinking picture image scene figure frame drawing photo
    photograph canvas whole layout arrangement position positions positioned placement placements location
    locations coordinate coordinates box boxes bounding size sizes area areas extent dimension dimensions
    distance distances order ordering axis axes direction x y horizontal horizontally vertical vertically height
    heights spatial spatially relation relations information data object objects shape shapes item items thing
    things OBJ two both all them everything each other others one can could when after having is are do does be
    been being using use evidence facts fact truth reality visual visually clearly obviously evidently indeed
    actually really certainly definitely surely course know known together side hand sum total uno result
    results step mind end addition particular detail details provided stated mentioned ranking rank ranked sort
    list put more sorting concerned far along goes go estimate measurements across remaining relevant
    corresponding respective center centers centre centres wise comes came turns matter what listed taken find
    found shows show shown tells told say said summary short brief plus too where they how much
    room take values value off whichever
    """
)
"""Words of an opening before a comma that changes nothing in what follows."""
_PROCESS = re.compile(
    r"^if (?:i|we|you|one) (?:look|compare|check|measure|examine|consider|inspect|study|count|"
    r"view|rank|sort|order|list|go|take|put)\b"
)
_STATES = re.compile(r"[RBN]\d")

_BEINGS = (
    "lies sits rests stands appears stays hangs floats hovers resides remains falls comes exists shows turns "
    "occurs towers looms soars rises hovering seems looks ranks goes ends perches dwells lives lie sit rest stand "
    "appear stay remain fall come exist"
)
_PLACED = (
    "located positioned placed situated found seen drawn shown set depicted displayed visible standing sitting lying "
    "resting spotted put laid rendered painted displaced shifted present centered centred observed pictured kept "
    "identified detected hanging floating sited arranged marked discovered"
)
_SEEING = (
    "see find spot notice observe count have discover identify detect locate encounter recognize recognise note "
    "perceive view sees finds spots notices observes counts has counted found spotted noticed saw"
)
_SHOWING = "shows contains includes has holds features displays depicts presents comprises"
_REACHING = (
    "reach reaches meet meets pass passes cross crosses hit hits encounter encounters find finds see sees get gets "
    "arrive arrives come comes land lands run runs bump bumps end ends go goes lead leads bring brings take takes"
)
_GOING = (
    "go going move moving walk walking travel travelling traveling head heading look looking scan scanning step "
    "stepping shift shifting proceed proceeding continue continuing run running wander wandering pan panning glance "
    "glancing slide sliding trace tracing follow following navigate navigating steer draw drawing jump jumping"
)
_IMAGE = (
    "image picture scene photo photograph drawing figure frame canvas illustration view plane layout arrangement "
    "composition display grid"
)
_EXTENT = (
    "area size space room surface footprint extent dimensions dimension pixels box portion part region ground spread "
    "proportions"
)
_NOISE = (
    "the a an clearly also indeed very exactly precisely only just simply directly diagonally slightly noticeably "
    "visibly considerably significantly substantially markedly distinctly definitely evidently obviously certainly "
    "quite somewhat actually really plainly entirely completely fully wholly totally somewhere immediately now "
    "undoubtedly too surely truly clear immediate altogether distinctly notably"
)
_WHO = "(?:i|we|you|uno|someone|anyone|people|viewers?)"
_MAY = (
    "(?:can|could|will|would|do|does|did|d|ll|ve|have|also|then|now|easily|must|should|has|to|need|needs|had|clearly)"
)
_EDGE = "(?:edge|border|side|margin|boundary|end|part|corner|rim)"
_SUP_MIN = "(?:shortest|smallest|least|minimal|minimum|lowest|tiniest|nearest|closest)"
_SUP_MAX = "(?:largest|greatest|longest|biggest|maximal|maximum|highest|farthest|furthest)"
_GAP = "(?:distance|gap|separation|spacing|way|path|interval)"
_OTHERS = (
    r"(?:all |any |every |each )?(?:of )?(?:these |those )?(?:other |others |remaining |rest of |present )?"
    r"(?:OBJ|others|them|all|rest|candidates)(?: (?:present|here|listed|considered|shown))?"
)

_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        # Particles that point nowhere, before anything else looks at 'right', 'there' and 'one'.
        (r"(?<!the )(?<!to )\bright (?=in|between|inside|at|here|above|below|under|beneath|beside|next|within)", ""),
        (r"\b(?:a (?:bit|little|lot|good deal|great deal)|by far|as well|of course|in fact|for sure)\b", ""),
        (r"\b(?:much|far|way|still|even) (?=(?:larg|bigg|great|small|near|clos|farth|furth|high|low)\w*|more )", ""),
        (rf"\b{_any(_NOISE)} ", ""),
        (
            rf"\b(?:in|within|of|across|throughout|on|from|inside) (?:this |our |whole |"
            rf"given )?{_any(_IMAGE)}\b(?! R)",
            "",
        ),
        (
            r"^(?:(?:so|then|thus|hence|also|and|now|therefore|furthermore|additionally|moreover|next|first|"
            r"finally|here|overall|that|if anything|,) )+",
            "",
        ),
        (r"\b(?:hand|handed)(?= side)", ""),
        (r"\b(takes?|adds?|makes?|picks?|fills?) up\b", r"\1"),
        (r"\b(?:most|least) distant\b", "farthest"),
        # Attributes that stand for the thing.
        (r"\b(?:x|horizontal) (?:axis )?(?:coordinates?|values?|co ordinates?)\b", "XCO"),
        (r"\b(?:y|vertical) (?:axis )?(?:coordinates?|values?|co ordinates?)\b", "YCO"),
        (
            r"\b(?:horizontal |vertical |bounding )?(?:cent(?:er|re)s?|midpoint|position|location|spot|place|"
            r"placement|"
            r"box|outline|area|size|surface|footprint|extent|dimensions)\b(?= of R\d| of (?:that|one) of)",
            "POS",
        ),
        (
            r"\bR(\d+) s (?:horizontal |vertical |bounding )?(?:cent(?:er|re)|midpoint|position|location|box|area|size|"
            r"outline|surface)\b",
            r"R\1",
        ),
        (r"\bR(\d+) s (XCO|YCO)\b", r"\2 of R\1"),
        (r"\bPOS of (?=R\d)", ""),
        (r"\bthan to (?:see|reach|find|get to) (?=R\d)", "than "),
        (r"\b(?:that|those|uno|ones) of (?=R\d|XCO|YCO)", ""),
        (r"\bthan R(\d+) s$", r"than R\1"),
        (r"\bthan (?:where )?R(\d+)(?: (?:is|does|are|has|lies))?$", r"than R\1"),
        (r"\b(?:has|have|had|need|needs) to (?=[a-z])", ""),
        # Seeing and being.
        (rf"\b{_WHO} (?:{_MAY} )*{_any(_SEEING)} that ", ""),
        (
            r"\b(?:it|this) (?:shows|means|is clear|is evident|is obvious|is visible|can be seen|follows|"
            r"is seen) that ",
            "",
        ),
        (rf"\b{_WHO} (?:{_MAY} )*(?:{_any(_SEEING)}|make out)\b", "THERE"),
        (rf"\b(?:this |our )?{_any(_IMAGE)} (?:{_any(_SHOWING)})\b", "THERE"),
        (
            rf"\b(?:there|here) (?:{_MAY} )*(?:is|are|was|exists?|happens to be|appears?|lies|sits|stands|comes|"
            rf"s)\b",
            "THERE",
        ),
        (
            r"\b(?:can|could|may|will|is to|are to|has to|would) be (?:found|seen|spotted|located|observed|"
            r"counted)\b",
            "IS",
        ),
        (r"\b(?:has|have) been (?=placed|drawn|put|positioned|located|set)", "is "),
        (r"\b(?:does|do) (?=lie|sit|stand|appear|rest)", ""),
        (r"\b(?:turns out to be|turn out to be|happens to be|would be|has to be|must be|comes out(?: as)?)\b", "is"),
        (rf"\b(?:shows? up|turns? up|ends? up|{_any(_BEINGS)})\b", "is"),
        (rf"\b(?:is|are|was|were|being)\b(?: (?:being )?(?:{_any(_PLACED)}))*", "IS"),
        (
            rf"\b(?:IS )*\b{_any(_PLACED)}\b(?= (?:to|on|at|in|left|right|above|below|over|under|between|inside|"
            rf"within))",
            "IS",
        ),
        (r"\b(?:and|which|that) (?=IS\b)", ""),
        (r"\bIS(?: IS)+\b", "IS"),
        # Left, right, above, below.
        (rf"\b(?:nearer|closer)(?: to| towards?)? left(?: hand)? ?{_EDGE}?(?: of it)? than\b", "LEFT OF"),
        (rf"\b(?:nearer|closer)(?: to| towards?)? right(?: hand)? ?{_EDGE}?(?: of it)? than\b", "RIGHT OF"),
        (rf"\b(?:nearer|closer)(?: to| towards?)? (?:top|upper)(?: {_EDGE})? than\b", "ABOVE OF"),
        (rf"\b(?:nearer|closer)(?: to| towards?)? (?:bottom|lower)(?: {_EDGE})? than\b", "BELOW OF"),
        (rf"\b(?:farther|further)(?: away)? from left(?: {_EDGE})? than\b", "RIGHT OF"),
        (rf"\b(?:farther|further)(?: away)? from right(?: {_EDGE})? than\b", "LEFT OF"),
        (rf"\b(?:farther|further)(?: away)? from (?:top|upper)(?: {_EDGE})? than\b", "BELOW OF"),
        (rf"\b(?:farther|further)(?: away)? from (?:bottom|lower)(?: {_EDGE})? than\b", "ABOVE OF"),
        (r"\b(?:(?:to|on|at) )?R(\d+) s left(?: hand)?(?: side)?\b", r"LEFT OF R\1"),
        (r"\b(?:(?:to|on|at) )?R(\d+) s right(?: hand)?(?: side)?\b", r"RIGHT OF R\1"),
        (r"\b(?:to|on|at|from) its left(?: hand)?(?: side| flank)?\b", "ITS LEFT"),
        (r"\b(?:to|on|at|from) its right(?: hand)?(?: side| flank)?\b", "ITS RIGHT"),
        *(
            (
                rf"\b(?:(?:to|on|at|in|towards?|over|off|further|farther|more|along|out|far|up|down) )*{side}"
                rf"(?:most|wards?)?(?: hand)?(?: (?:side|half|part|portion|end|direction|position))*\b",
                side.upper(),
            )
            for side in ("left", "right")
        ),
        (r"\b(?:above|over|atop|on top of|north of)(?= R\d)", "ABOVE OF"),
        (r"\b(?:below|under|beneath|underneath|south of)(?= R\d)", "BELOW OF"),
        (r"\b(?:above|over|below|under|beneath|underneath) it\b", lambda m: "ITS " + _vertical(m[0].split()[0])),
        (
            r"\b(?:(?:to|on|at|in|towards?|further|farther|more|out|of) )*(?:above|higher|upper|up|upwards?|topmost|"
            r"uppermost|top|highest)(?: up)?(?: (?:side|half|part|portion|end|level|position|spot|point|height|place|"
            r"location|direction))*\b",
            "ABOVE",
        ),
        (
            r"\b(?:(?:to|on|at|in|towards?|further|farther|more|out|of) )*(?:below|lower|down|downwards?|bottommost|"
            r"lowermost|bottom|lowest|beneath|underneath)(?: down)?(?: (?:side|half|part|portion|end|level|position|"
            r"spot|point|height|place|location|direction))*\b",
            "BELOW",
        ),
        # Sizes.
        (
            rf"\b(?:more|greater|larger|bigger) (?:of )?(?:bounding |surface |"
            rf"overall )?(?:{_any(_EXTENT)})\b",
            "larger EXT",
        ),
        (rf"\b(?:less|smaller|fewer) (?:of )?(?:bounding |surface |overall )?(?:{_any(_EXTENT)})\b", "smaller EXT"),
        (r"\b(?:takes(?: up)?|covers|occupies|fills|spans|uses|claims) more(?: of it)?(?= than)", "IS LARGER"),
        (r"\b(?:takes(?: up)?|covers|occupies|fills|spans|uses|claims) less(?: of it)?(?= than)", "IS SMALLER"),
        (r"\b(?:larger|bigger|greater|largest|biggest)\b(?! (?:distance|gap|separation))", "LARGER"),
        (
            r"\b(?:smaller|tinier|lesser|smallest|less)\b(?! (?:distance|gap|separation|spacing|way|path|"
            r"LARGER))",
            "SMALLER",
        ),
        (r"\b(?:has|have|takes(?: up)?|covers|occupies|fills|spans|IS of|of|with) (LARGER|SMALLER) EXT\b", r"IS \1"),
        (r"\b(LARGER|SMALLER) (?:in|by) (?:terms of )?(?:size|area|dimensions|extent|surface)\b", r"\1"),
        (
            r"\b(?:exceeds|outsizes|surpasses|dwarfs|outmeasures)\b(?=(?: R\d+)(?: in (?:size|"
            r"area))?$)",
            "IS LARGER OF",
        ),
        (r"\b(?:falls short of|IS short of)\b", "IS SMALLER OF"),
        (r"\bIS (?:dwarfed|outsized|exceeded|surpassed) by\b", "IS SMALLER OF"),
        # Near and far.
        (rf"\b{_SUP_MIN} (?:cent(?:er|re) to cent(?:er|re) |measured |straight )?{_GAP}\b", "MINGAP"),
        (rf"\b{_SUP_MAX} (?:cent(?:er|re) to cent(?:er|re) |measured |straight )?{_GAP}\b", "MAXGAP"),
        (r"\b(?:nearest|closest)\b", "NEAREST"),
        (r"\b(?:farthest|furthest|remotest)(?: away| off)?\b", "FARTHEST"),
        (r"\b(?:nearer|closer)\b", "NEARER"),
        (r"\b(?:farther|further|more distant|more remote)(?: away| off)?\b", "FARTHER"),
        # Inside.
        (
            r"\b(?:inside|within|in) (?:of )?(?:(?:interior|inside|bounds|boundar(?:y|ies)|borders?|confines|"
            r"perimeter|"
            r"outlines?|area|edges|limits|walls|POS) of )?(?=R\d)",
            "INSIDE ",
        ),
        (r"\binside of (?=R\d)", "INSIDE "),
        (
            r"\b(?:contained|enclosed|nested|embedded|housed|surrounded|encircled|encompassed|enveloped|held|included|"
            r"framed|wrapped|located) (?:INSIDE|by|from all sides by|on all sides by) ?(?=R\d)",
            "INSIDE ",
        ),
        (
            r"\b(?:contains|encloses|surrounds|includes|holds|houses|encompasses|envelops|encircles|wraps around|"
            r"wraps|goes around|IS (?:all )?around|envelopes)\b(?= R\d)",
            "CONTAINS",
        ),
        (
            r"\b(?:inside|within|in) (?:it|itself|its (?:interior|bounds|outline|area|boundar(?:y|ies)|borders?|"
            r"inside))\b",
            "INIT",
        ),
        (
            r"\b(?:(?:in|on|through|along) (?:space|gap|area|region|middle|line|stretch|path|zone|"
            r"room) )?(?:in )?between(?= R\d)",
            "BETWEEN",
        ),
        (
            r"\b(?:sandwiched|wedged|squeezed|nestled|caught|flanked|bracketed|framed|stuck|trapped|halfway|"
            r"midway) (?:BETWEEN|by)\b",
            "BETWEEN",
        ),
        (r"\b(?:has|have|had)\b(?! to\b)", "HAS"),
        (r"\bHAS (LEFT|RIGHT|ABOVE|BELOW)(?= OF| than| REF| ,| ;| and|$)", r"IS \1"),
        (r"\b(LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER) than\b", r"\1 OF"),
        # What somebody makes of it, and where it is read from.
        (
            rf"^{_WHO} (?:{_MAY} )*(?:place|put|locate|judge|consider|rate|deem|call|estimate|"
            rf"position) (R\d+)(?: to be| as| IS)? ?"
            r"(?=LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER|NEAREST|FARTHEST|INSIDE|BETWEEN)",
            r"\1 IS ",
        ),
        (
            r"(?: ,)? (?:to|for) (?:me|us)$|(?: ,)? in my (?:view|eyes|opinion)$|(?: ,)? in size comparison$|"
            r" on (?:\w+ )?axis$",
            "",
        ),
        # What is compared with.
        (
            r"\b(?:as )?(?:when |if )?(?:compared|relative|in relation|in comparison|with respect|with regard|next|"
            r"put next|placed next|with reference|in contrast|set)(?: (?:to|with|against))\b",
            "REF",
        ),
        (
            r"\b(?:as )?(?:seen|viewed|looked at|measured|observed|judged|starting|counted|taken|"
            r"looking)? ?from (?:perspective|"
            r"viewpoint|point of view|vantage point|standpoint|position|side|view|angle) of\b",
            "REF",
        ),
        (r"\b(?:as )?(?:IS )?(?:seen|viewed|measured|observed|starting|looking) from\b", "REF"),
        (r"\b(?:beside|against|versus|vs|alongside)(?= R\d)", "REF"),
        (
            r"\b(?:with|taking|using) R(\d+) as (?:reference|basis|starting point|anchor|"
            r"origin)(?: point)?",
            r"REF R\1",
        ),
        (r"\bREF (?:that|uno|POS) of\b", "REF"),
        (r"\b(LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER) (?:of|than|from|to|as|OF)\b(?! OF)", r"\1 OF"),
        # Clefts and relative clauses: 'it is x that is ..', 'x is the object that is ..', 'what is .. is x'.
        (r"\b(LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER|NEAREST|FARTHEST) uno\b", r"\1 OBJ"),
        (r"^it IS (R\d+) (?:that |which |who )?(?=IS|HAS)", r"\1 "),
        (r"\bIS (?:OBJ|uno) (?:that |which )?(?:IS )?(?=[A-Z])", "IS "),
        (r"^(?:what|that which|OBJ(?: that| which)?) IS (?=[A-Z])", "OBJ "),
        (r"\b(LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER|NEAREST|FARTHEST) (?:OBJ|member)\b", r"\1"),
        (r"\bHAS (LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER)(?: EXT| OBJ)?(?= OF| than| REF| ,| ;| and|$)", r"IS \1"),
        (r"(?<=[RX]\d)(?: IS)? (?:uno|OBJ) (?=LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER|NEAREST|FARTHEST)", " IS "),
        (r"^(?:uno|OBJ) (?=(?:LEFT|RIGHT|ABOVE|BELOW|LARGER|SMALLER)\b)", ""),
        (rf"\b(?:out of|of|among|amongst|from among) {_OTHERS}(?= |$)", "AMONG"),
        (r"\s+", " "),
    )
)


def _vertical(word: str) -> str:
    return "ABOVE" if word in ("above", "over") else "BELOW"


_REPORTED = re.compile(
    r"^(?:(?:horizontal|vertical|distance|distances|gap|gaps|their|these|this|those|it|comparison|of|"
    r"measurement|measurements|"
    r"positions?|POS|sizes?|areas?|boxes|box|coordinates|XCO|YCO|placement|layout|in|on|x|y|axis|look|at|closer|"
    r"check|all|"
    r"data|bounding|evidence|measuring|comparing|THERE) )+(?:tells?|shows?|reveals?|indicates?|confirms?|means?|"
    r"proves?|puts?|places?|"
    r"makes? clear|demonstrates?|establish(?:es)?)(?: us| me)?(?: that)? (?=R\d)"
)
"""'The coordinates show that ..'."""


_EVIDENCE = re.compile(
    r"(?:with|given|since|because|as|thanks to|due to|having) (?:its |the |a |it has a )?(?:clearly |"
    r"much )?(?:smaller|larger|lower|"
    r"higher|greater|bigger|lesser) (?:x|y|horizontal|vertical) (?:coordinates?|values?)|(?:since|because|"
    r"as) its (?:x|y) "
    r"(?:coordinate|value) is (?:smaller|larger|lower|higher|greater|bigger)"
)
"""'With its smaller x-coordinate, ..': of the same thing, and of no weight beside what follows."""


def opened(line: str) -> str:
    """The line without openings such as 'In the image,' and 'Looking at the sizes,'."""
    for _ in range(3):
        parts = re.split(r" [,:] ", line, maxsplit=1)
        head, rest = parts[0], parts[-1]
        if len(parts) == 1 or _EVIDENCE.fullmatch(head):
            return rest
        if _STATES.search(head) or not _harmless(head):
            return line
        line = rest
    return line


def _harmless(head: str) -> bool:
    words = head.split()
    if words[:1] == ["if"] and _PROCESS.match(head):
        words = words[1:]
    return _INTRO.issuperset(words)


def raw_line(symbols: Symbols) -> str:
    """The line of symbols, with OBJ for things that have neither colour nor shape, and for words such as 'object'."""
    out = []
    for word in symbols.line.split():
        if word[0] == "R" and word[1:].isdigit() and not symbols.things[int(word[1:])].name:
            word = "OBJ"
        out.append("OBJ" if word in _OBJECT_WORDS else word)
    return " ".join(out)


_OBJECT_WORDS = _words("object thing shape item element entity candidate neighbour neighbor")


PRONOUN = re.compile(
    rf"(?<!number )(?<!to )(?<!get )(?<!find )(?<!are )(?<!is )(?<!equals )(?<!at )(?<!exactly )\bone\b"
    rf"(?! (?:{'|'.join((*COLORS, *SHAPES, *SIZES, 'object', 'shape', 'thing', 'item'))})\b)|\bone\b(?= (?:to|"
    rf"from)\b)",
    re.IGNORECASE,
)
"""'one' where it is no number: 'one finds', 'the left one', 'on one side'."""


def canonical(line: str) -> str:
    """A line of symbols in the tokens of this module."""
    for pattern, into in _RULES:
        line = pattern.sub(into, line)
    return _REPORTED.sub("", line.strip(" ,;:"))
