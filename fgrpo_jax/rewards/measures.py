"""Turns of phrase for sizes, distances, what is between and what is inside."""

from __future__ import annotations

from fgrpo_jax.rewards.turns import Make, between, extreme, inside, relation

TABLE: tuple[tuple[Make, tuple[str, ...]], ...] = (
    (
        relation("xy"),
        (
            r"(?:of|between|among|out of) (?:two|N\d+|pair|these|these two|these N\d+|both)?(?: OBJ)?"
            r"(?: , )? ?X and Y (?:, )?(?:it is |it s )?(?:former|first|first one|first uno)(?: one"
            r"| uno)? (?:that |which )?(?:BE|has) (?:DIR|CMP)(?: (?:size|area|uno|one|OBJ"
            r"|extent))?",
            r"X (?:BE) (?:CMP) than Y (?:if|when|were) (?:MOVER)?(?:laid|put|placed|set"
            r"|held|compared|measured|lay|put|place|compare|measure|to (?:lay|put|place"
            r"|compare|measure)) (?:uno|N\d+|them|two|both)(?: (?:OBJ|on|top|of|next|to"
            r"|beside|over|against|upon|side|by|other|each|another|uno|together|directly))*",
            r"(?:if|when|were) (?:MOVER)?(?:laid|put|placed|set|held|compared|measured|lay"
            r"|put|place|compare|measure|to (?:lay|put|place|compare|measure)) (?:uno|N\d+"
            r"|them|two|both)(?: (?:OBJ|on|top|of|next|to|beside|over|against|upon|side"
            r"|by|other|each|another|uno|together|directly))* , X (?:BE) (?:CMP)(?: than Y)(?: is)?",
            r"(?:it |that |MOVER)?(?:(?:would|will|d) )*(?:need|needs|take|takes|requires?"
            r"|want) ?(?:CMP) (?:frame|box|rectangle|canvas|sheet|lid|piece|patch|square of paper"
            r"|amount|area|space|paint|ink)(?: of \w+)? (?:to (?:fit|enclose|cover|hold"
            r"|frame|surround|contain|wrap|draw|paint|fill|go|colou?r|put|box|print|shade)(?: (?:snugly"
            r"|tightly|in|up|all of|completely))* )?(?:(?:ROUND) )?X than (?:(?:to )?(?:(?:fit"
            r"|enclose|cover|hold|frame|surround|contain|wrap|paint|fill|colou?r|draw|print"
            r"|shade|box)(?: in| up)? )?(?:(?:ROUND) )?)?Y",
            r"(?:comparison|comparing|measuring|measurement)?(?: of)?(?: (?:their|two|both"
            r"|OBJ|sizes?|dimensions|areas?|extents?|them))* (?:gives|assigns|awards|attributes"
            r"|shows|yields) (?:CMP) (?:measurement|area|size|value|extent|number|figure"
            r"|dimensions?) (?:to|for|in) X (?:rather than|than|and not|not)(?: to| for)? Y",
            r"(?:CMP)(?: (?:uno|one|OBJ))?(?: (?:of|among|between) (?:two|N\d+|pair|them"
            r"|these)(?: OBJ)?)? is X (?:, )?(?:and|while|whereas|with|but|;)? ?(?:(?:OCMP)(?: (?:uno"
            r"|one|OBJ))?(?: (?:is|being))? )Y",
            r"(?:(?:if|when) )?(?:MOVER)?(?:put|placed|place|laid|set|held|seen|viewed|looked at) (?:OBJ "
            r"|them |both |two |N\d+ )?(?:side by side|next to each other|next to uno another"
            r"|on top of each other|over each other|together|beside each other|next to N\d+ another) "
            r"(?:, )?X (?:BE) (?:CMP) than Y(?: is)?",
            r"(?:CMP) (?:area|size|extent|footprint|surface|box|dimensions?|measurement"
            r"|value|share|uno|one|OBJ)?(?: of (?:two|N\d+|pair|them|these))?(?: here)? ?(?:BELONGS) X "
            r"(?:, )?(?:rather than|and not|not|instead of)(?: to| of| for)? Y",
            r"X (?:BE) (?:CMP)(?: (?:uno|one|OBJ))?(?: of (?:two|N\d+|pair|them|these))? (?:, )?(?:and"
            r"|while|whereas|with|but) Y (?:(?:BE) )?(?:OCMP)(?: (?:uno|one|OBJ))?",
            r"X (?:BE|has got|has|takes|covers|occupies|fills|uses|claims|needs|spans) ?(?:up )?(?:CMP)"
            r"(?: (?:size|area|space|room|extent|of (?:OBJ|page|canvas)|OBJ|uno|one|on page"
            r"|footprint|dimensions|pixels))* (?:than|compared (?:to|with)|in comparison (?:to"
            r"|with)|relative to|as opposed to)(?: that of)? Y(?: is| does| has)?",
        ),
    ),
    (
        relation("yx"),
        (
            r"(?:of|between|among|out of) (?:two|N\d+|pair|these|these two|these N\d+|both)?(?: OBJ)?"
            r"(?: , )? ?X and Y (?:, )?(?:it is |it s )?(?:latter|second|second one|second uno)(?: one"
            r"| uno)? (?:that |which )?(?:BE|has) (?:DIR|CMP)(?: (?:size|area|uno|one|OBJ"
            r"|extent))?",
        ),
    ),
    (
        extreme,
        (
            r"(?:AMONG)?(?:SUP) (?:GAPS )?(?:TO) Y (?:AMONG)?(?:BELONGS) X",
            r"(?:AMONG)?(?:SUP) (?:GAPS )?(?:TO) Y (?:AMONG)?(?:is|has) X(?: s)?",
            r"(?:(?:if|when|by|after|once|on) )?(?:MOVER)?(?:measur|rank|sort|order|compar"
            r"|list|consider|tak|comput|calculat|check|look|work|estimat|arrang|go|judg)(?:e"
            r"|es|ed|ing|s)?(?: (?:by|up|at|out|all|every|each|any|the|of|their|OBJ|distances?"
            r"|gaps?|how|far|near|close|others?|according|to|them|everything|it|is|are|off"
            r"|in|terms|with|respect|each of|rest|between|lengths?))* (?:from|to) Y (?:, )?(?:then "
            r"|and )?(?:it is )?X (?:that |which )?(?:has|is|shows|gets|comes out with|comes out"
            r"|wins with|leads with|comes|ranks|turns out to have|turns out|turns out to be"
            r"|with)? ?(?:SUP)(?: (?:GAPS)| uno| one| OBJ)?(?: (?:of|among) (?:all|them"
            r"|these|others|OBJ| )+)?",
            r"(?:START|from|for|starting from|seen from|taking) Y (?:as (?:reference|origin"
            r"|start|starting point) )?(?:, )?(?:SUP) (?:GAPS )(?:AMONG)?(?:BELONGS|is to"
            r"|is uno to|is toward|leads to|goes to|runs to|is N\d+ to|is taken to) X",
            r"(?:it is )?X (?:, )?(?:and (?:no|none|nothing)(?: (?:other|else))?(?: (?:OBJ"
            r"|uno|of others))?(?: ,)? )?(?:that |which |who )?(?:is|comes|lies|sits|stands"
            r"|gets|has)(?: (?:OBJ|uno))?(?: (?:that|which))?(?: (?:lying|sitting|standing"
            r"|placed|located|positioned|found|situated|is|lies|sits|comes|with|having|has"
            r"|at|drawn|the))* (?:SUP) (?:GAPS )?(?:TO) Y(?: (?:of|among) (?:all|any|every"
            r"|the|them|these|OBJ|others|everything|shown|here| )+)?",
            r"(?:nobody|nothing|none|no uno|no OBJ|no other|no other OBJ)(?: (?:else|of them"
            r"|here|of others|of OBJ))* (?:is|comes|gets|lies|sits|stands) (?P<sup>nearer"
            r"|closer|farther|further|farther away|further away) (?:TO) Y than X(?: is| does)?",
            r"(?:if|when) (?:MOVER)?(?:look|search|hunt|looking|searching)(?:es|s)? for (?:OBJ )?(?:SUP) "
            r"(?:TO) Y (?:, )?(?:MOVER)?(?:MEET) X",
            r"(?:of|among) all (?:distances|gaps|ways|lengths) (?:to|from) Y (?:, )?uno (?:of"
            r"|to|from|for) X is (?:SUP)",
            r"(?:AMONG)?(?:GAPS )from Y to X is (?:SUP)(?: (?:of|among) (?:all|any|every"
            r"|them|these|OBJ|others|distances|gaps| )+)?",
            r"(?:GAPS )between V and W is (?:SUP)(?: (?:of|among))? (?:all|any|every|them"
            r"|these|OBJ|pairing|pairings|pair|pairs|others|distances|that|which|one|uno"
            r"| )+ "
            r"(?:involves?|involving|including|include|with|from|to|measured from|starting from"
            r"|contains?|containing) Y",
            r"(?:measuring|measured|going|looking|counting|taking|drawing lines|computing distances"
            r"|taking distances|working)?(?: out)? ?(?:from|for|starting from) Y(?: to (?:each"
            r"|every|all|any|OBJ|others|other|uno|of|the|everything|else|rest|them| )+)? (?:, )?(?:MOVER)?"
            r"(?:get|gets|find|finds|obtain|have|see|is|has|reach|read|measure|note) (?:SUP) (?:GAPS )"
            r"(?:for|with|to|at) X",
            r"(?:if|were) (?:there|we|i|you|uno) (?:were|was|gave|had|award|awarded|give) ?(?:a "
            r"|any )?(?:prize|medal|award|trophy|contest|competition|race|vote)(?: given)? for (?:being "
            r"|who is |which is )?(?:SUP) (?:GAPS )?(?:TO) Y (?:, )?X (?:would |will |should )?(?:win"
            r"|wins|get|gets|take|takes|receive|earn|deserve)(?: it| first| that)?",
            r"(?:with )?(?:compass point|compass|compasses|needle|ruler|tape)? ?(?:on|at"
            r"|in|centered on|centred on|around|round) Y (?:, )?(?:it is )?X (?:that |which )?(?:calls for"
            r"|needs|requires|has|gets|takes|gives|is reached (?:with|by|at)|demands|wants) (?:SUP) "
            r"(?:GAPS)",
            r"(?:AMONG)?(?:it is )?X (?:that |which )?(?:has|with|is at|lies at|is|sits at"
            r"|shows|keeps) (?:SUP) (?:GAPS )?(?:TO) Y(?: (?:of|among) (?:all|any|every"
            r"|the|them|these|OBJ|others|everything|shown|here| )+)?",
        ),
    ),
    (
        between,
        (
            r"X (?:is|lies|sits|stands)(?: somewhere| right| just)? ?(?:in|at)? (?:middle(?: uno"
            r"| one| OBJ)?|between|cent(?:er|re)) ?(?:, )?(?:with|and|having)? ?Y (?:is )?(?:to"
            r"|on|at) (?:uno|one|N\d+) (?:side|end|hand|flank)(?: of (?:it|R(?P=x)))? (?:, )?(?:and"
            r"|while|,) Z (?:is )?(?:to|on|at) (?:other|opposite|another)(?: (?:side|end"
            r"|hand|flank|uno))?(?: of (?:it|R(?P=x)))?",
            r"with Y (?:to|on|at) (?:uno|one|N\d+) (?:side|end|hand|flank)(?: of it)? (?:, )?(?:and"
            r"|while|,) Z (?:to|on|at) (?:other|opposite|another)(?: (?:side|end|hand|flank"
            r"|uno))?(?: of it)? (?:, )?X (?:is|lies|sits|stands|takes|occupies)(?: somewhere"
            r"| right| just)? ?(?:in|at)? ?(?:middle|between|cent(?:er|re))(?: (?:uno|one"
            r"|OBJ|place|spot|position))?",
            r"(?:if (?:MOVER))?(?:join|connect|link|joining|connecting|linking|joined|connected) Y (?:to"
            r"|with|and) Z (?:(?:with|by|using) (?:a |ruler|straight|line|string|segment"
            r"| )+ ?)?(?:, )?(?:(?:and|then|line|it|will|would|the|i|you|we|d|ll|uno) )*(?:come across"
            r"|comes across|meet|meets|pass|passes|pass through|passes through|hit|hits"
            r"|cross|crosses|run into|runs through|run through|find|touch|touches|go through"
            r"|goes through|encounter|cut through|cuts through|run over|see) X(?: on (?:way"
            r"|route)| along way| in between| in middle)?",
            r"(?:sitting|standing|lying|being|placed|located|positioned|situated) (?:right "
            r"|just )?(?:in between|between|in middle|in the middle) (?:, )?X (?:separates"
            r"|parts|divides|splits|keeps) Y (?:from|and|apart from) Z(?: apart)?",
            r"X (?:is|lies) (?:middle|central) (?:uno|one|OBJ)(?: of (?:three|N\d+|these three"
            r"|these N\d+)(?: OBJ)?)?(?: ,)? (?:with|between|flanked by) Y and Z (?:(?:on"
            r"|at|to|as) )?(?:either side|both sides|ends|both ends|each side|its sides"
            r"|outsides?|its neighbou?rs|either end|opposite sides)",
            r"(?:flanked|bordered|bracketed|framed|enclosed|sandwiched|squeezed|hemmed in)(?: by"
            r"| between) Y and Z (?:, )?X (?:is|lies|sits|stands|occupies|takes|has|holds)(?: (?:in"
            r"|at|up|place|spot|space|position|middle|between|cent(?:er|re)))+",
            r"(?:neighbou?rs?|OBJ)(?: (?:of|to) X|)(?: (?:on|at|to) (?:its |either |both "
            r"|N\d+ |each |two )*(?:sides?|hands?|flanks?|ends?))? (?:of X )?(?:is|are|being) Y and Z",
            r"Y (?:is|lies|sits|stands|appears|comes) (?:to|on|at) (?:uno|one|N\d+) (?:side"
            r"|end|hand|flank)(?: of X)? (?:, )?(?:and|while|,|whereas|with) Z (?:is |lies "
            r"|sits |stands |appears |comes )?(?:to|on|at) (?:other|opposite|another)(?: (?:side"
            r"|end|hand|flank|uno))?(?: of (?:it|X))?",
            r"(?:if (?:MOVER)|when (?:MOVER))?(?:join|connect|link|joining|connecting|linking) Y (?:to"
            r"|with|and) Z (?:(?:with|by|using) (?:a |ruler|straight|line|string|segment"
            r"| )+ ?)?(?:, )?(?:then )?X (?:is|lies|sits|falls|comes|will be|would be|appears)(?: (?:right"
            r"|somewhere|exactly|directly))? (?:on|along) (?:it|line|way|that line|this line"
            r"|this segment|segment|connection)",
            r"(?:on (?:its |way |my |your |the )*|going |to go |to get |travelling |travell?ing )?from Y to Z "
            r"(?:, )?(?:(?:MOVER)|\w+ )(?:(?:would|will|must|has to|have to|needs to|would have to"
            r"|can not help but|d|ll|could) )*(?:crawl|walk|run|step|fly|pass|travel|go"
            r"|climb|hop|drive|roll|move|jump|cross)(?:s|es)? ?(?:over|through|across|past"
            r"|by|via)? ?X(?: first)?",
            r"(?:MOVER)(?:can not|not) (?:go|get|walk|travel|move|draw|pass|run|come)(?: (?:straight"
            r"|directly|line|straight line))* from Y to Z without (?:crossing|passing|touching"
            r"|hitting|running into|going through|going over|meeting|running over|cutting"
            r"|encountering)(?: (?:through|over|by))? X",
            r"(?:space|gap|area|region|room|stretch|place|spot|middle|ground|distance)(?: (?:separating"
            r"|between|that separates|that lies between|in between|left between)) Y (?:and"
            r"|from) Z (?:is|gets|has been) (?:occupied|filled|taken|held|claimed|covered"
            r"|inhabited)(?: up)? by X",
            r"(?:space|gap|area|region|room|stretch|place|spot|middle|ground)(?: (?:separating"
            r"|between|that separates|that lies between|in between|left between)) Y (?:and"
            r"|from) Z (?:is where|is home to|contains|holds|hosts|belongs to|goes to|is for)(?: (?:MOVER)?"
            r"(?:MEET))? X(?: (?:is|sits|lies|stands))?",
            r"Y (?:is|lies|sits|stands) on (?:uno|one|N\d+) side (?:, )?(?:and )?Z (?:is "
            r"|lies |sits |stands )?on other(?: side)? (?:, )?"
            r"(?:and|with) X (?:is |lies |sits |stands )?(?:in |right )*(?:between|middle)(?: of them| them)?",
            r"(?:moving|going|travell?ing|walking|heading|passing) from Y (?:to|towards?) Z (?:, )?(?:MOVER)?"
            r"(?:MEET) X(?: first| on way| along way)",
            r"X (?:finds|is found) (?:right |just )?between Y and Z",
            r"Y and Z (?:are|lie|sit|stand|is|appear|come|are located|are placed)(?: (?:on"
            r"|at|to))? (?:opposite|either|both|different|two|N\d+) (?:sides|side|ends|end) of X",
        ),
    ),
    (
        inside,
        (
            r"(?:whole|all|entirety|every part|every bit|every corner)?(?: of)? ?X (?:falls"
            r"|lies|is|fits|sits|rests|stays|remains|keeps|is (?:drawn|located|placed|contained"
            r"|tucked|tucked away|hidden|nested|enclosed))(?: away| wholly| fully)* (?:inside"
            r"|within|in interior of|in|inside of)(?: (?:bounds|boundary|boundaries|borders"
            r"|outline|limits|confines|edges|perimeter|frame|interior) of)? Y(?: ,? ?with (?:no"
            r"|not|none|nothing|N0)(?: part| bit| piece| edge| corner)?(?: of it)? (?:poking"
            r"|sticking|peeking|spilling|reaching|showing|protruding|jutting|left|standing) ?(?:out"
            r"|outside|over|beyond)?)?",
            r"(?:outline|border|boundary|edge|edges|contour|line|perimeter|frame|rim|sides) of Y (?:goes"
            r"|go|runs|run|is|are|passes|extends|reaches|closes|encloses|surrounds|wraps"
            r"|encircles)(?: (?:all|whole|the|way|completely|entirely|wholly|fully))* ?(?:round"
            r"|around|about|in)? ?X(?: on all sides| completely| entirely)?",
            r"Y has X (?:sitting |lying |placed |completely |safely )*(?:inside|within|in)(?: of)? (?:it|itself)",
            r"X (?:is|lies|sits|stands|falls|rests) (?:inside|within|in) (?:area|region"
            r"|space|surface|ground)(?: (?:that|which))? Y (?:covers|occupies|takes up|takes"
            r"|fills|encloses|bounds|spans)",
            r"Y (?:forms|makes|builds|draws|provides|creates|is|acts as|serves as|puts) (?:border"
            r"|frame|boundary|fence|wall|enclosure|outline|loop|container|hull|shell)(?: that)? ?(?:all "
            r"|completely |goes |runs |way )*(?:around|round|for|about|enclosing) X",
            r"(?:if|when) (?:MOVER)?(?:look|peek|peer|check|go|step|zoom|search|glance)(?:s"
            r"|ing)? (?:inside|into|in|within)(?: (?:interior|area|outline|bounds|boundary) of)? Y (?:, )?"
            r"(?:(?:MOVER)?(?:MEET)|there is|THERE|what (?:MOVER)?(?:MEET) is) X",
            r"(?:every|each|any|all) (?:points?|parts?|pixels?|corners?|bits?|pieces?|edges?) of X (?:belongs? to"
            r"|is|are|lies?|falls?|sits?|is contained|stays?|is part of|is found)(?: (?:in"
            r"|inside|within|to))*(?: (?:interior|area|inside|bounds|region|box|outline) of)? ?Y",
            r"(?:MOVER)?(?:find|finds|see|spot|get|discover|have) X (?:tucked|hidden|nested"
            r"|sitting|lying|placed|resting|drawn|enclosed|contained|located|nestled|packed)?(?: away"
            r"| up| safely| completely| entirely| wholly| fully)* ?(?:inside|within|in)(?: of)? Y",
        ),
    ),
)
