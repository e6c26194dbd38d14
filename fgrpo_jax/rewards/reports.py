"""Turns of phrase for what a look, a comparison, a measurement or a count has come to: 'I get ..', 'that leaves ..'."""

from __future__ import annotations

from fgrpo_jax.rewards.claims import Claim
from fgrpo_jax.rewards.travel import SCAN
from fgrpo_jax.rewards.turns import Make, Match, between, count, exists, extreme, inside, relation


def _larger(match: Match) -> Claim | None:
    things = match.things("xy")
    return None if things is None else Claim("relation", things, relation="larger")


_UNO = r"(?: (?:uno|OBJ|member))?"
_WHILE = r"(?:, )?(?:and|while|whereas|with|but) "
_OF_TWO = r"(?: of (?:two|N\d+|pair|them|these)(?: OBJ)?)?"
_EXTENT = r"(?: (?:in|size|area|extent|dimensions?|space|room|footprint|box|uno|OBJ))*"
_VIEW = (
    r"(?: (?:both |now |right )*(?:in (?:view|mind|sight|question|front of (?:me|us|you))|at hand|before (?:me|us|you)"
    r"|under consideration|to compare|to choose from|side by side|as candidates|being compared|compared))?"
)
_COMPARED = (
    r"(?:(?:if|when|once|as) (?:MOVER)?(?:compare|compared|comparing|measure|measured|judge|judged|hold|held|seen"
    r"|look at|looked at|viewed|set|put)(?: (?:it|this|that|them))?|compared|comparing|in comparison|by comparison"
    r"|relative|as compared|in relation)(?: (?:to|with|against|together|next to|beside|alongside))+"
)
_TOGETHER = (
    r"(?:(?:if|when|once|after) )?(?:MOVER)?(?:put|putting|placing|place|lay|laying|set|setting|hold|holding|view|"
    r"viewing|compare|comparing|see|seeing|look at|looking at)(?: (?:OBJ|them|both|two|N\d+|pair|of|of them|these))+"
    r"(?: (?:side by side|next to|each other|uno another|together|beside|on top of|over|against|with|directly"
    r"|N\d+ another))* (?:, )?"
)
_ENDS = (
    r"(?: (?:, )?(?:in (?:all|total|sum)|altogether|all told|of them|of those|no more(?: ,)? (?:and|or|but)? ?"
    r"(?:no|not)? ?(?:fewer|less)|not uno more(?: ,)? (?:and|or) not uno (?:fewer|less)|and (?:no|not) more|here|there"
    r"|and that is (?:all|it)|overall))*"
)
_ROUND_TRIP = (
    r"(?:(?:after|by|on|upon|having|when|once|with) (?:MOVER)?(?:going|gone|look(?:ing|ed)?|scann(?:ing|ed)|check(?:ing"
    r"|ed)?|count(?:ing|ed)?|inspect(?:ing|ed)|search(?:ing|ed)|study(?:ing)?|review(?:ing|ed)|survey(?:ing|ed)"
    r"|examin(?:ing|ed)|went|run(?:ning)?|walk(?:ing)?)(?: (?:over|through|across|at|around|everything|it|all|up"
    r"|carefully|whole|twice|again|OBJ|uno by uno|N\d+ by N\d+|closely|image|picture|scene|every|each|this|corner"
    r"|of|once|more|row by row))* (?:, )?)?"
)
_TOTAL = r"(?:(?:exactly|precisely|total of|sum of|count of|number|number of|of|tally of|figure of|result of|at) )*"
_ARRIVE = (
    r"(?:(?:(?:i|we|you|uno)(?: (?:d|ll|ve|have|can|will|would|only|do|then|finally))* )(?:end up with|ends up with"
    r"|arrive at|am left with|are left with|come to|come up with|get|have|reach|obtain|wind up with|finish with"
    r"|finish at"
    r"|count|find|see|got|land at|stop at)|(?:which |that |this |it )?(?:gives|gave|yields|leaves|brings|takes|gets"
    r"|leads|makes|results in|produces|returns|comes to)(?: (?:me|us|you|uno))?(?: (?:with|to|at))?)"
)
_REST = r"(?:each|all|every|any|everything|rest|both)(?: (?:of|uno|remaining|other|others|else|OBJ|N\d+|rest|them))*"
_SO = r"(?:, )?(?:and )?(?:so|thus|hence|therefore|which makes|making|which means|meaning|that makes)(?: that)?"
_ALONG = r"(?:(?:in|along|on) (?:vertical|horizontal|x|y) (?:direction|axis|dimension|sense) (?:, )?)?"
_PLACE = r"(?: (?:uno|OBJ|place|position|spot|role|rank))?"
_PAIR = r"(?:(?:of|among|out of|between)(?: (?:these|those))? (?:two|N\d+|pair)(?: OBJ)? (?:, )?)?"
_KEEPS = r"(?:occupies|takes|has|holds|fills)"
_IN_SIZE = (
    r" (?:in|on|by|for|as to|regarding|when it comes to|in terms of|in matters of) (?:size|area|extent"
    r"|dimensions|space)"
)
_BEATS = "beats|outdoes|tops|surpasses|exceeds|outclasses|outmatches|outranks"
_BEATEN = "beaten|outdone|topped|surpassed|exceeded|outclassed|outmatched|outranked|dwarfed|outsized"
_CONTAINED = (
    r"(?: (?:, )?(?:since|as|because|for|so|and) (?:it|all of it|whole of it|whole thing) (?:is|lies|sits|stays"
    r"|remains)"
    r"(?: (?:contained|inside|enclosed|within|in|held|located|kept|there|it|safely))+)?"
)
_INNER = r"(?:in|within|inside|at) (?:inner (?:part|area|region|space|side|portion)|inside|interior|insides)"

TABLE: tuple[tuple[Make, tuple[str, ...]], ...] = (
    (
        relation("xy"),
        (
            r"(?:with|given|between|comparing|taking|considering|having|of|out of|among|from) V and W"
            + _VIEW
            + r" (?:, )?"
            r"(?:it is )?(?:DIR|CMP)" + _UNO + _OF_TWO + r" (?:is|turns out to be|would be|must be|has to be) X",
            _ALONG
            + r"X (?:BE|keeps|stays|sticks) (?:uno |OBJ )?(?:that |which )?(?:is )?(?:DIR)(?: here| there)? "
            + _WHILE
            + r"Y (?:(?:BE|keeps|stays|sticks) )?(?:uno |OBJ )?(?:that |which )?(?:ODIR)(?: here| there)?",
            r"(?:MOVER)?(?:GET|place|put|notice|read|note|observe|locate|spot) X (?:as |to be |being )?(?:uno"
            r" )?(?:DIR) " + _WHILE + r"Y (?:as |to be |being )?(?:uno )?(?:ODIR)",
            SCAN + r" (?:, )?(?:our |my |this )?(?:order|sequence|row|series|succession) (?:is|goes|reads|runs|would be"
            r"|will be"
            r"|becomes|starts with|begins with)(?: (?:as follows|:|,|like this|thus))* (?:first )?X (?:, )?(?:first )?"
            r"(?:(?:and )?(?:then|afterwards|next|second|after that|followed by|before)(?: comes)?) Y(?: next|"
            r" second)?",
            r"(?:MOVER)?(?:have|see|find|get|measure|note|obtain|there is|there s|record|read off) (?:CMP) (?:size"
            r"|area|"
            r"extent|dimensions?|box|footprint|value|surface|measurement) (?:for|with|at|in case of|in|on) X than "
            r"(?:(?:for|with|at|in case of|in|on) )?Y",
            r"(?:(?:MOVER)(?:see|find|notice|observe) (?:that )?)?X (?:BE|is having|having|has|has got|shows"
            r"|possesses) "
            r"(?:CMP)" + _EXTENT + r" (?:, )?" + _COMPARED + r" Y(?: (?:, )?(?:which|that) is (?:OCMP)" + _UNO + ")?",
            r"(?:(?:MOVER)(?:see|find|notice|observe) (?:that )?)?X (?:BE) (?:DIR) (?:, )?"
            r"(?:if|when) (?:MOVER)?(?:compare|compared)(?: it)? (?:to|with) Y",
            _TOGETHER + r"X (?:BE) (?:CMP)" + _UNO + " " + _WHILE + r"Y (?:(?:BE) )?(?:OCMP)" + _UNO,
            r"(?:closer|nearer) to (?:REL) (?:edge|border|side|margin|end) (?:is|lies|sits|comes) X (?:, )?(?:than|not"
            r"|rather than|and not) Y",
            r"(?:closer|nearer) to (?:REL) (?:edge|border|side|margin|end) (?:is|lies|sits|comes) X "
            + _WHILE
            + r"Y (?:is |lies |sits )?(?:ODIR)(?: it| of it)?",
        ),
    ),
    (
        relation("xy"),
        (
            _PAIR + rf"X {_KEEPS} (?:DIR|CMP){_PLACE} {_WHILE}Y (?:{_KEEPS} )?(?:ODIR|OCMP){_PLACE}",
            _PAIR + rf"X (?:BE) (?:DIR|CMP){_UNO} (?:, |{_WHILE})Y (?:(?:BE) )?(?:ODIR|OCMP){_UNO}",
            r"(?:(?:when|if|by|on|while) )?(?:MOVER)?(?:comparing|compare|contrasting) V (?:and|with|to|against) W"
            r" (?:, )?"
            r"X (?:BE) (?:DIR|CMP)" + _UNO,
            r"it is X (?:, )?(?:and )?(?:not|rather than) Y (?:, )?(?:that |which )?(?:BE) (?:DIR|CMP)" + _UNO,
            r"(?:DIR|CMP)"
            + _PLACE
            + r" (?:is|gets) (?:taken|occupied|held|filled|claimed)(?: up)? by X (?:, )?(?:(?:and|"
            r"while|with) )?(?:ODIR|OCMP)" + _PLACE + r" (?:is )?(?:taken |occupied |held |filled |claimed )?by Y",
            r"(?:DIR|CMP)(?: up| down| away)? (?:than|of) Y is (?:where|what) X (?:BE)",
            r"X (?:BE) (?:DIR|CMP)"
            + _UNO
            + r" (?:of|among|between|out of)(?: (?:pair|two|N\d+|duo))?(?: OBJ)? ?(?:, |of )?"
            r"V and W",
            r"X (?:takes|has|covers|occupies|needs|fills|uses)(?: up)? (?:CMP)(?: (?:space|room|area|size|of it))? "
            + _WHILE
            + r"Y (?:(?:takes|has|covers|occupies|needs|fills|uses)(?: up)? )?(?:OCMP)(?: (?:space|room|area|size|of"
            r" it))?",
        ),
    ),
    (
        _larger,
        (
            rf"X (?:{_BEATS}) Y{_IN_SIZE}",
            rf"(?:in terms of size |sizewise |in size )?Y (?:is|gets) (?:{_BEATEN}) by X{_IN_SIZE}",
            r"X (?:outgrows|outsizes|dwarfs) Y(?:" + _IN_SIZE + r")?",
            rf"X has (?:upper hand|edge|advantage|lead|better) over Y{_IN_SIZE}",
            r"(?:in terms of|in|regarding) (?:size|area|extent) (?:, )?Y (?:has to |must )?(?:yields?|gives? way"
            r"|loses?|loses?"
            r" out|takes second place|comes second) to X",
            r"(?:set|put|placed|held|seen|compared|viewed) (?:beside|next to|against|to|with|alongside) X (?:, )?Y"
            r" (?:looks"
            r"|is|appears|comes out) (?:rather |just )?(?:small|tiny|little)",
        ),
    ),
    (
        relation("yx"),
        tuple(
            rf"X (?:BE) (?:{big}){_UNO} (?:, )?(?:{_COMPARED}|next to|beside|{_WHILE}) ?Y (?:, )?(?:(?:which|that|it"
            rf"|being|"
            rf"and it) )?(?:is |being )?(?P<rel>{small}){_UNO}"
            for big, small in (("big|large", "smaller|tinier"), ("small|little|tiny", "larger|bigger"))
        ),
    ),
    (
        extreme,
        (
            r"(?:AMONG)?(?P<sup>nearest|closest|farthest|furthest) (?:uno|OBJ) (?:(?:that|which) )?(?:(?:i|we|you)"
            r" (?:can )?"
            r"(?:find|see|spot|have) )?(?:around|about|near|to|from|of) Y is X",
            r"Y has X (?:for|as) (?:its )?(?P<sup>nearest|closest|farthest|furthest)(?: (?:OBJ|neighbou?r))",
            r"X (?:wins|takes|gets|earns|holds)(?: (?:contest|prize|race|title|competition|place|rank|award))?(?:"
            r" (?:of|for|in"
            r"|as))? (?:being )?(?P<sup>nearest|closest|farthest|furthest)" + _UNO + r" (?:TO) Y",
            r"(?:AMONG)?(?:it is )?X (?:(?:BE) )?(?:uno|OBJ) (?:with|that has|which has|having|at) (?:SUP) (?:GAPS"
            r" )(?:TO) Y",
            r"(?:(?:if|when) )?(?:MOVER)?(?:rank|sort|order|ranking|sorting|ordering|ranked|sorted|ordered)(?:"
            r" (?:OBJ|them|all"
            r"))* by (?:their )?(?:GAPS )(?:to|from) Y (?:, )?X (?:is|comes|ranks|stands)(?: (?:at|on|top|first|out"
            r"|as|being"
            r"))* (?P<sup>nearest|closest|farthest|furthest)" + _UNO,
            r"(?:(?:measured|measuring|seen|starting|counted|taken|going|looking|judged|viewed|computed) )?(?:from"
            r"|starting "
            r"at|for|out from) Y (?:, )?(?:GAPS )(?:to|towards|of) X (?:BE) (?:SUP)(?: (?:uno|OBJ|of|among|all|GAPS"
            r"|them"
            r"|distances|gaps))*",
            r"(?:GAPS )between V and W (?:BE) (?:SUP)(?: (?:uno|OBJ))? (?:of|among|out of)(?: (?:all|any|every|these"
            r"|those"
            r"))* (?:distances|gaps|lengths|ones|paths)(?: (?:measured|that start|starting|taken|drawn|going|we have"
            r"|i get"
            r"))? (?:from|to|of) Y(?: (?:to|and|from)(?: (?:all|any|each|every|other|others|OBJ|everything|else|rest|of"
            r"|remaining))+)?",
            *(
                rf"{_REST} (?:BE|is|are|lie|sit|stand)(?: (?:located|placed|positioned|situated|found))? (?:{compared})"
                rf"(?: away| off)? (?:from|to) Y {_SO} X (?:is |comes out |comes out as |must be |remains )?(?P<sup>"
                rf"{extreme_}){_UNO}(?: (?:of all|of them|to it))?"
                for compared, extreme_ in (
                    ("farther|further|more distant", "nearest|closest"),
                    ("nearer|closer", "farthest|furthest"),
                )
            ),
        ),
    ),
    (
        between,
        (
            r"Y (?:BE) (?:on|at|to) (?:uno|N\d+) (?:side|flank) of X (?:, )?(?:and |while )?(?:on|at|to) (?:its"
            r" )?(?:other|"
            r"opposite)(?: (?:side|flank|uno))?(?: of it)? (?:is|lies|sits|stands|there is|we find) Z",
            r"on (?:both|either|each) sides? of X (?:there are|are|sit|lie|stand)(?: (?:other|N\d+|OBJ))*(?: :)? Y"
            r" and Z",
            r"X (?:acts|serves|works|functions) as (?:separator|divider|barrier|buffer|bridge|link|wall) (?:of"
            r"|between) Y and Z",
            r"Y (?:, )?(?:and )?then X (?:, )?(?:and )?then Z is (?:how they (?:line up|are lined up|stand|come|are"
            r" arranged|"
            r"are ordered)|order|sequence)",
            r"(?:MOVER)?(?:MEET) X in (?:space|gap|room|area)(?: (?:that|which))? Y and Z leave(?: open| free)?"
            r" between them",
            r"(?:(?:of|out of|among|from)(?: (?:N\d+|these|them|OBJ))+ (?:, )?)?Y and Z (?:are|form|make|take|occupy"
            r"|sit at"
            r"|lie at|are at)(?: on)? (?:outer|outside|outermost|end|ends|extremes?)(?: (?:ones|uno|OBJ|positions?"
            r"|places?"
            r"|spots?|points))? "
            + _WHILE
            + r"X (?:is |lies |sits |stands |takes |comes )?(?:right )?(?:in |at )?(?:between|middle|inner|cent(?:er"
            r"|re))"
            r"(?: (?:uno|OBJ|of them|them|those|place|position|spot))*",
            r"X (?:BE|is)(?: (?:positioned|located|placed|somewhere|situated|found|drawn))* (?:along|on) (?:straight )?"
            r"(?:stretch|line|path|way|segment|route|connection|section|track|road|strip)(?: (?:that|which))?"
            r"(?: (?:leads|runs|goes|going|running|leading|drawn|extending|stretching|extends))? (?:from|between"
            r"|connecting"
            r"|joining|linking) Y (?:to|and|with|towards) Z",
        ),
    ),
    (
        inside,
        (
            r"Y (?:swallows|engulfs|envelops|houses|harbou?rs|encapsulates)(?: up)? X(?: (?:completely|whole"
            r"|entirely|fully))?",
            r"all (?:around|round) X (?:runs|goes|is|lies|there is) (?:outline of |border of )?Y",
            r"X (?:does not|never) (?:leaves?|exceeds?|goes? beyond|extends? beyond|reach(?:es)? beyond) (?:area"
            r"|border|bounds"
            r"|outline|boundary|limits|interior|edges?) of Y(?: (?:anywhere|at any point|on any side|in any"
            r" direction))?",
            r"(?:MOVER)?(?:MEET|can be seen|make out) X " + _INNER + r" of Y",
            r"X (?:BE) " + _INNER + r" of Y",
            r"(?:no|not (?:any|single|uno))(?: single)? (?:part|bit|piece|corner|edge|side|portion|section|pixel"
            r"|point) "
            r"of X (?:sticks|pokes|peeks|protrudes|juts|spills|reaches|extends|lies|goes|falls|stands|is|leaks|hangs) "
            r"(?:out|outside|beyond)(?: of| from)?(?: (?:border|edge|outline|bounds|boundary|limits) of)? Y"
            + _CONTAINED,
            r"Y (?:is|being) (?:container|outer uno|outer OBJ|holder|enclosing OBJ) (?:, )?(?:(?:and|while|with) )?X"
            r" (?:(?:is"
            r"|being) )?(?:content|contents|inner uno|inner OBJ|contained OBJ|enclosed uno)",
        ),
    ),
    (
        count,
        (
            r"(?:MOVER)(?:name|list|enumerate|point to|point out|tick off|number) " + _TOTAL + r"(?:NUM) X" + _ENDS,
            r"(?:NUM) is (?:number|count|total|tally|quantity|amount|sum) of X (?:(?:that|which) )?(?:i|we) (?:come"
            r" to|arrive"
            r" at|get|reach|end up with|end with|end at|have|find)",
            r"X (?:show up|appear|occur|turn up|come up|feature) " + _TOTAL + r"(?:NUM) times" + _ENDS,
            r"(?:if|when|after|once|by) (?:MOVER)?(?:add|adding|put|putting|sum|summing|take|taking|tally)(?: (?:up"
            r"|all|of"
            r"|together))* X(?: (?:up|together|in))* (?:, )?" + _ARRIVE + " " + _TOTAL + r"(?:NUM)" + _ENDS,
            r"(?:(?:my|our|this|careful|quick|full|thorough) )*(?:check|count|inspection|tally|survey|review|scan"
            r"|search"
            r"|examination|enumeration|counting)(?: (?:of|for|through|over|up|all))+ X (?:yields|yielded|gives|gave"
            r"|produces"
            r"|results in|returns|comes to|brings|ends with|ends at|shows|finds|reveals|turns up|delivers)(?: (?:me"
            r"|us))? " + _TOTAL + r"(?:NUM)" + _ENDS,
            r"(?:NUM)(?: (?:in (?:all|total)|altogether|all told|all in all|overall))? (?:, )?(?:that |this |it "
            r"|which )?(?:is"
            r"|s|makes|would be) (?:quantity|number|count|total|tally|amount|sum|total number)(?: of) X(?: (?:here"
            r"|there"
            r"|i see|we see|there are|shown|present))*",
            r"(?:NUM) is (?:exactly )?how many X (?:(?:(?:i|we|you|uno) (?:can |could )?(?:find|see|count|spot|have"
            r"|make out"
            r"|get|detect|found|counted))|there are|are there|are shown|are visible|exist|appear|are present)"
            r"(?: (?:here|there|in total|in all|altogether))*",
            r"(?:counting|tallying|adding|numbering|enumerating|listing|going through|checking|summing)(?: (?:up|off"
            r"|all"
            r"|through|of))* X(?: (?:uno by uno|N\d+ by N\d+|in turn|up|off|carefully|individually|separately|again"
            r"|twice"
            r"|uno after another|uno after other))* (?:, )?" + _ARRIVE + " " + _TOTAL + r"(?:NUM)" + _ENDS,
            _ROUND_TRIP + _ARRIVE + " " + _TOTAL + r"(?:NUM) X" + _ENDS,
            _ROUND_TRIP + r"there being " + _TOTAL + r"(?:NUM) X" + _ENDS,
            r"(?:as for|regarding|concerning|when it comes to) X (?:, )?" + _ARRIVE + " " + _TOTAL + r"(?:NUM)" + _ENDS,
        ),
    ),
    (
        exists,
        (
            r"(?:(?:in|on|within) (?:this |our )?(?:picture|image|scene|drawing) (?:, )?)?(?:it|there) (?:does |do "
            r"|also )?"
            r"(?:exists?|has|is existing) X(?: (?:too|as well|here|there|also))*",
            r"(?:let us |also )*do not (?:overlook|miss|forget|ignore|skip)(?: about| that there is)? X(?: (?:here"
            r"|too|there))*",
            r"X (?:must|should|can) not be (?:overlooked|missed|forgotten|ignored)",
        ),
    ),
)
