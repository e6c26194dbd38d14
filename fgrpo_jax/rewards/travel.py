"""Turns of phrase for left, right, above and below: travelling from one to the other, scanning, lines between them."""

from __future__ import annotations

from fgrpo_jax.rewards.turns import Make, relation

SCAN = (
    r"(?:(?:if|when|as|while) (?:MOVER)?)?(?:scan|scanning|read|reading|go|going"
    r"|look|looking|sweep|sweeping|move|moving|work|"
    r"working|travel|travell?ing|run|running|proceed|proceeding|walk|walking|order"
    r"|ordering|ordered|sort|sorting|sorted|list|"
    r"listing|listed|view|viewing|trace|tracing|pass|passing|count|counting|browsing|following|arranged|arranging)?"
    r" ?(?:(?:OBJ|it|them|page|sheet|picture|image|drawing|scene|canvas|figure|rows?"
    r"|positions?|both|two|along|across|over|through|my|your|our|way|eyes?|gaze"
    r"|by|order|of) )*"
    r"from (?:REL)(?: (?:side|edge|hand side|part|end))? to (?:OPP)(?: (?:side|edge|hand side|part|end))?"
)
_FIRST = (
    r"(?:(?:MOVER)?(?:MEET) X (?:, )?(?:before|prior to|sooner than|earlier than"
    r"|ahead of|first (?:, )?and (?:only )?(?:then|afterwards|later|next)|"
    r"(?:and )?(?:only )?(?:then|afterwards|later|next)|first (?:, )?(?:then|before)"
    r"|first (?:, )?and)(?: (?:MOVER)?(?:MEET))? Y(?: (?:later|second|next|afterwards"
    r"|after that))?|"
    r"(?:MOVER)?first (?:MEET) X (?:, )?(?:and |before |(?:only )?then |afterwards "
    r"|later |after that )+(?:(?:MOVER)?(?:MEET) )?Y|"
    r"X (?:is |would be |would come |listed |comes |appears |shows up |turns up |precedes |occurs |arrives |is met "
    r"|is seen |is reached |is passed |is encountered |is listed |is found |gets "
    r"|goes |is hit )*"
    r"(?:first )?(?:before|prior to|earlier than|sooner than|ahead of|first (?:, )?(?:and "
    r"|while |with |followed by |then |before )+|followed by|(?:, )?then|(?:, )?and then) ?Y"
    r"(?: (?:is|does|comes|appears|second|next|later|afterwards|after|follows))*)"
)
_PLACED = r"(?:it is |it s )?X(?: that| which)? (?:BE) (?:DIR)"
_LINE = (
    r"(?:if (?:MOVER))?(?:rule|rules|ruled|draw|draws|drew|drawing|put|place|imagine"
    r"|picture|take|with)? ?(?:vertical|horizontal|straight|dividing|imaginary|separating"
    r"| )+ line"
)
_BETWEEN_THEM = (
    r"(?: (?:that |which |to |in order to |drawn |halfway |midway |placed |running "
    r"|through middle )*(?:separates|separate|separating|divides|divide|dividing"
    r"|parts|between|splits|split) (?:V (?:from|and) W|(?:two|N\d+)(?: OBJ)?|them"
    r"|both|OBJ))"
)

TABLE: tuple[tuple[Make, tuple[str, ...]], ...] = (
    (
        relation("xy"),
        (
            # Travelling from y to x.
            r"(?:START) Y(?: (?:, )?(?:and|and then|but)?(?: (?:want|wants|wanting|wish"
            r"|wishing|need|needing|have|having|trying|try|would like))? ?to (?:MEET) X)? (?:, )?(?:and "
            r"|then )*(?:MOVER)?(?:MOVE) (?:it )?(?:DIR) (?:GOAL) (?:X|it)",
            r"(?:START) Y (?:, )?(?:and|and then|but)? ?(?:want|wants|wanting|wish|wishing"
            r"|need|needing|have|having|trying|try|would like)? ?to (?:MEET) X (?:, )?(?:MOVER)?(?:MOVE) "
            r"(?:DIR)",
            r"(?:taking|with|using|choosing|take) Y as (?:\w+ )?(?:reference|start|starting point"
            r"|anchor|origin|basis|base)(?: point)? (?:, )?X (?:BE) (?:DIR)(?: of it| it)?",
            r"X (?:precedes|leads) Y (?:, )?" + SCAN,
            r"(?:MOVER)?(?:MEET) X (?:before|first and then|sooner than) Y (?:, )?(?:(?:when"
            r"|if|as|while) it )?" + SCAN,
            r"(?:as )?(?:compared (?:to|with)|relative to|seen from|as against|starting from"
            r"|from) (?:where )?Y(?: is)? (?:, )?"
            r"X (?:(?:BE)|is) (?:shifted |displaced |offset |moved |set |further )?(?:DIR)",
            r"(?:picture|image|drawing|layout|scene) (?:puts|places|shows|has|sets|draws) X (?:DIR) "
            r"(?:, )?(?:and|while|with) Y (?:ODIR)",
            r"X (?:BE) (?:DIR) (?:, |; )Y (?:(?:BE) )?(?:ODIR)",
            r"(?:in order )?to (?:MEET) X (?:, )?(?:START) Y (?:, )?(?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:in order )?(?:to|getting|travelling|traveling|going|moving) ?(?:get|go"
            r"|travel|move|come|pass|walk|jump)? ?from Y to (?:MEET )?X (?:, )?(?:MOVER)?(?:(?:means"
            r"|requires|involves|takes|needs|calls for|implies|demands) (?:a |some )?)?(?:MOVE"
            r"|move|step|movement|shift|motion|jump|trip) (?:DIR)",
            r"(?:from Y to X|from Y , to (?:MEET) X) (?:, )?(?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:(?:if|when|by) )?(?:MOVER)?(?:MOVE) (?:DIR) (?:START) Y (?:, )?(?:(?:and"
            r"|to|until|then|will|would|,) )*(?:MOVER)?(?:MEET) X",
            r"(?:(?:if|when|by) )?(?:MOVER)?(?:MOVE) (?:DIR) (?:START|of) Y (?:GOAL) X",
            r"(?:START) Y (?:, )?(?:step|move|movement|shift|jump|trip|walk|glance|look) (?:DIR) (?:MEET) X",
            r"(?:way|path|route|step|move|arrow|trip|journey|road|line|vector|jump|direction"
            r"|movement|shift)(?: drawn| that leads| leading| going| running| pointing)? from Y (?:to"
            r"|towards?) X (?:would |will |must )?(?:lead|leads|go|goes|point|points|run"
            r"|runs|is|takes (?:me|us|you|uno)|heads|head) (?:DIR)",
            r"(?:MOVER)?(?:MEET) X (?:START) Y (?:, )?(?:by|if|when|after|in|on) (?:MOVER)?(?:MOVE) (?:DIR)",
            r"(?:MOVER)?(?:MEET) X (?:, )?(?:by|if|when|after|on) (?:MOVER)?(?:MOVE) (?:DIR) (?:START|of) Y",
            r"X is (?:reached|found|met|seen|encountered|where (?:MOVER)?(?:end up|land"
            r"|arrive|get)) (?:START) Y (?:by|if|when|after|in|on) (?:MOVER)?(?:MOVE) (?:DIR)",
            r"X is (?:reached|found|met|seen|encountered|where (?:MOVER)?(?:end up|land"
            r"|arrive|get)) (?:by|if|when|after) (?:MOVER)?(?:MOVE) (?:DIR) (?:START) Y",
            r"(?:should|if|when|were|as) (?:MOVER)?(?:to |were to |go to )?(?:MOVE) (?:START )?from Y "
            r"(?:over |across |on )?(?:GOAL|to) X (?:, )?(?:(?:MOVER)?(?:MOVE)|(?:my|your"
            r"|our|uno s)? ?(?:steps?|way|path|route|trip|journey|road|eyes?|gaze|walk|move"
            r"|movement|that|this|it|direction)(?: (?:would|will|must|is|be|has to))* ?(?:takes?"
            r"|leads?|brings?|goes?|points?|runs?|is|carries)?(?: (?:me|you|us|uno))?) (?:DIR)",
            r"(?:drawing|draw|drawn|if (?:MOVER)?(?:draw|drew|put)|imagine|picture)? ?(?:straight )?"
            r"(?:arrow|line|vector|pointer)(?: drawn| going| that goes| leading)? from Y (?:over )?to X "
            r"(?:, )?(?:and )?(?:it |this |that |arrow )?(?:(?:would|will|must|has to|does"
            r"|make|makes|it|that) )*(?:points?|goes?|runs?|leads?|heads?|slopes?|faces?) (?:DIR)",
            r"(?:MOVER|there |here |OBJ )?(?:have|has|see|find|is|there|with|notice|contains"
            r"|shows|observe|place|put) X (?:(?:BE) )?(?:DIR) (?:, )?(?:and|while|whereas"
            r"|with|but)(?: have)? Y (?:(?:BE) )?(?:ODIR)",
            r"(?:DIR)(?: of (?:these )?(?:N\d+|pair|two)(?: OBJ)?)? (?:is|BE|sits|THERE) X (?:, )?(?:and"
            r"|while|whereas|with|but|;)? ?(?:on )?(?:ODIR) (?:(?:of them|uno) )?(?:is|sits"
            r"|lies|stands|we have|we find|there is|comes)? ?Y",
            r"(?:between|of|out of|comparing|looking at|taking|given|considering|with) V (?:and"
            r"|with|to|or) W (?:, )?(?:MOVER)?(?:would |d )?(?:call|pick|judge|say|name"
            r"|deem|consider|rate|see|choose|find|regard|declare|it is|clearly)? ?X (?:(?:as"
            r"|to be|is|BE|comes out|that is|which is|has|takes|occupies) )*(?:DIR|CMP)(?: (?:uno"
            r"|one|OBJ|area|size|extent|space|box|footprint|place|position))?",
            # One's own half, or the side of a line between.
            _LINE
            + _BETWEEN_THEM
            + r" (?:, )?(?:(?:and|then|you|we|i|will|find|would) )*X (?:BE) (?:on )?(?:its )?(?:DIR)(?: of it"
            r"| it| of line)?(?: (?:, )?(?:and|while|with|whereas|but) Y (?:(?:BE) )?(?:on )?(?:its )?"
            r"(?:ODIR)(?: of it| it| of line)?)?",
            _PLACED + r"(?: on| in| up| down| along| across)?(?: page| sheet| OBJ| paper)? (?:than"
            r"|compared (?:to|with)|relative to|in comparison (?:to|with)|as opposed to) Y(?: is"
            r"| does)?",
            r"(?:REL) Y (?:is|sits|lies|stands|hangs|floats|appears|rests|comes|hovers) X",
            r"X (?:BE) (?:DIR) (?:, )?(?:and|while|whereas|with|but|as)(?: it is)? Y (?:(?:BE) )?(?:ODIR)",
            r"X (?:BE) (?:DIR) of (?:two|N\d+|pair|them) (?:, )?(?:and|while|whereas|with"
            r"|but)(?: it is)? Y (?:(?:BE) )?(?:ODIR)",
            r"(?:of (?:two|N\d+|pair|these|both|these two|these N\d+)(?: OBJ)? , )?(?:X and Y , )?it is X "
            r"(?:that |which |who )?(?:BE) (?:DIR)(?: , not Y| rather than Y| and not Y)",
            r"X (?:BE) (?:DIR) (?:, )?(?:not|rather than|and not) Y",
            # Scanning.
            SCAN + r" (?:, )?" + _FIRST,
            r"X (?:is |comes |appears |shows up |turns up |is met |is seen |gets )+(?:before"
            r"|earlier than|ahead of|prior to) Y(?: does| is)? (?:, )?" + SCAN,
        ),
    ),
    (
        relation("yx"),
        (
            SCAN + r" (?:, )?X (?:comes|appears|is|is met|is seen|shows up|is reached|is found"
            r"|follows|turns up)+ ?(?:only )?(?:after|later than|behind|second , after)? Y"
            r"(?<!is R\d)(?<!is R\d\d)",
        ),
    ),
)
