"""Turns of phrase for how many there are, and for what is there."""

from __future__ import annotations

from fgrpo_jax.rewards.turns import Make, count, exists

TABLE: tuple[tuple[Make, tuple[str, ...]], ...] = (
    (
        count,
        (
            r"how many X (?:there are|are there|i see|we see|we have|are visible|are shown"
            r"|are present|exist|appear|i can see|are in it)? ?(?:is |can be |has been "
            r"|was |gets )?(?:easily |quickly |soon |readily |clearly )?(?:settled|answered"
            r"|told|seen|clear|obvious|counted|established|determined|known)? ?(?:, |: "
            r"|and |since |as )*(?:(?:count|number|total|tally|answer|it|result) )?(?:TALLIES) ?(?:NUM)"
            r"(?:ENDING)",
            r"(?:as for|as to|regarding|concerning|considering|when it comes to|for|of|about"
            r"|among|with|out of|speaking of) X (?:, )?(?:there|here|we|i|you|uno|it|picture"
            r"|image)? ?(?:are|is|s|exist|have|see|find|count|get|has|contains|shows|be"
            r"|can see|can count|counts|adds up to|makes|come to)* ?(?:total of|sum of|count of"
            r"|altogether|in total|in all|number of|of)? ?(?:NUM)(?:ENDING)",
            r"(?:ticking off|counting(?: up| off| through)?|tallying(?: up)?|adding up|numbering"
            r"|enumerating|listing|going through|running through|collecting|pointing at"
            r"|checking off|summing up|going over|if (?:MOVER)?(?:count|tally|add up|tick off"
            r"|number|list|go through|enumerate)(?: up)?|after counting|having counted|once (?:MOVER)?count"
            r"|when (?:MOVER)?count) ?(?:up )?(?:all |every |each |all of )?X(?: (?:in turn"
            r"|up|off|one by one|uno by uno|N\d+ by N\d+|individually|carefully|in order"
            r"|one after another|N\d+ after another|separately|together|there|visible|i see"
            r"|we see|once|twice|again))* (?:, )?(?:(?:MOVER)?(?:GET)|(?:that|this|it|which"
            r"|result|total|count|number|answer)? ?(?:TALLIES)|(?:takes|brings|leads) (?:me"
            r"|us|you|uno) to|yields|results in) (?:total of |sum of |count of |exactly "
            r"|number )*(?:NUM)(?:ENDING)",
            r"(?:(?:my|our|final|full|overall) )*(?:number|count|total|tally|quantity|amount"
            r"|sum|total number|total count|head count"
            r"|headcount|full count|final count|final tally)(?: (?:i|we) (?:get|find|have"
            r"|see|arrive at|reach))?(?: (?:of|for|with|in case of|as for|concerning))+ X(?: (?:i"
            r"|we) (?:get|find|have|see|count|can see)| (?:shown|present|visible|here|there"
            r"|that i see|depicted|drawn|found|in total))* (?:TALLIES) (?:exactly |at |to "
            r"|precisely )*(?:NUM)(?:ENDING)",
            r"(?:exactly |there are |there is |altogether |in total |all in all )*(?:NUM) (?:of OBJ )?"
            r"(?:is|are|represents|gives|makes) (?:number|count|total|tally|how many|quantity"
            r"|amount|what (?:i|we) get for|what (?:i|we) count for|my count)(?: (?:of|for))? ?X(?: "
            r"(?:there are|i see|we see|we have|are present|are visible|shown|present|exist"
            r"|that i see|i can see|i count|we count))*",
            r"(?:MOVER)?(?:have |ve |can |could |was able to |were able to |am able to "
            r"|do |manage to |managed to )*(?:GET|MEET|got|identify|identified|see|spotted"
            r"|make out|detect|list|recogni[sz]e|have|has|contains|shows) (?:exactly |precisely "
            r"|total of |altogether |in total |all in all )*(?:NUM) X(?:ENDING)",
            r"(?:exactly |altogether |in total |all in all |precisely )*(?:NUM) X (?:can be"
            r"|are|were|is|was|could be|to be) (?:identified|detected|found|made out|seen"
            r"|counted|recogni[sz]ed|spotted|located|distinguished|present|there|visible"
            r"|shown|depicted|listed|drawn)(?:ENDING)",
            r"X (?:number|total|come to|amount to|make|tally|are|count up to|sum to|sum up to"
            r"|come in at|appear|occur) (?:exactly |precisely |to )*(?:NUM)(?: (?:times"
            r"|in total|in number|altogether|in all|all told|overall|strong))*",
            r"(?:MOVER)?(?:GET) (?:exactly |total of |sum of |count of |precisely |altogether "
            r"|in total )*(?:NUM) (?:for|as (?:number|count|total|tally) (?:of|for)|when counting"
            r"|on counting|counting|after counting|if counting|by counting) (?:up |all )*X",
        ),
    ),
    (
        exists,
        (
            r"(?:somewhere |elsewhere |here |also |among OBJ |among them |besides |in addition "
            r"|as well |in this OBJ |on page |on sheet |on canvas )*(?:, )?(?:we ve got"
            r"|we have got|we ve|i ve got|we have|there is|there s|sits|lies|is|appears"
            r"|i find|i see|i spot|i notice|we see|we find|we spot|can be seen|can be found"
            r"|exists|there sits|there lies|there appears|it has|it contains) X(?: (?:too"
            r"|as well|here|there|also|somewhere|on page|to be seen|among OBJ|present|visible"
            r"|as well|in view|on show|on display))*",
            r"(?:my|your|our)? ?(?:eyes?|gaze|attention|glance|look) (?:lands?|falls?|settles?"
            r"|rests?|comes to rest|stops?|lights?|is caught|is drawn|is attracted|is drawn to"
            r"|goes|alights|fixes|stumbles) ?(?:on|upon|by|to|at|over|onto)? X",
            r"X (?:also )?(?:catches|caught|draws|attracts|meets|strikes|greets|grabs) (?:my"
            r"|our|your|the)? ?(?:eyes?|attention|gaze|sight|view)",
            r"X (?:turns up|shows up|crops up|features|figures|makes an appearance|makes appearance"
            r"|pops up|is among OBJ|is there|is here|is on show|is part of it|is also (?:there"
            r"|here|present|visible)|is among them|can be spotted|can be made out|can be found"
            r"|can be seen|can be noticed|is in view|is on view|is on display|belongs to OBJ"
            r"|is uno of OBJ|exists|appears)(?: (?:too|as well|here|there|also|somewhere"
            r"|on page|in it|among OBJ|shown|present))*",
            r"(?:MOVER)?(?:make out|makes out|detect|recogni[sz]e|identify|spot|come across"
            r"|notice|observe|find|see|discover|pick out|catch sight of|caught sight of"
            r"|perceive|point to|point out|catch)(?: (?:also|here|there))* X(?: (?:too|as well"
            r"|here|there|also|somewhere|on page|in it|among OBJ|among them))*",
        ),
    ),
)
