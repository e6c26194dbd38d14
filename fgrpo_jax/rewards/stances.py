"""Cues by which free wordings commit to an option, deny it or leave it open: many more than `commitments` trusts alone.

They are for readers that may abstain and know what was asked. Where a text is all there is, a word such as 'only',
'remains' or 'drops' may be about the image, and the few cues of `commitments` hold.
"""

from __future__ import annotations

import re

CUE = re.compile(
    r"\b(?:answer|answers|choose|chose|pick|select|choice|option|go(?:ing)? with|fits?|best|conclude|conclusion|"
    r"therefore|thus|hence|consequently|accordingly|so|must be|has to be|leads? (?:me |us )?to|points? (?:me |"
    r"us )?to|"
    r"speaks? for|settles?|settle (?:on|for)|decide (?:on|for)|final|finally|means|it is|it's|that is|that's|this is|"
    r"which is|is (?:right|correct|true)|result|statement|sentence|claim|indicates?|implies|favou?rs?|matches|makes|"
    r"gives|wins|say|suggests?|go(?:ing)? for|looking for|opt(?:ing)? for|vote for|(?:comes?|boils?) down to|"
    r"corresponds? to|agrees? with|yields?|results? in|end(?:s|ing)? (?:up )?(?:at|with)|"
    r"lands? (?:on|at)|commit(?:s|ting)? to|stick(?:ing)? with|stay(?:ing)? with|take|tick|report|respond|reply|"
    r"deduce|"
    r"infer|determine|solution|response|winner|choosing|picking|selecting|select(?:s|ed)|picks?|chosen|tells|"
    r"(?:leav(?:es?|ing)|left)(?: (?:us|me|you|one))?(?: only| just)?(?: with)?"
    r"|sole|selection|pick|letter|tick\w*|mark\w*|submit\w*|enter\w*|"
    r"put down|write|circl(?:e|ing) letter|award|lock(?:ing|ed)? in|labell?ed|"
    r"bet|money|nod|goes to|belongs to|stays|survives"
    r"|left standing|favorite|favourite|"
    r"preference|decision|judge?ment|hit|target|spot on|description|accurate|fitting"
    r"|appropriate|suitable|proper|going with|correct)\b"
)
STRONG = re.compile(
    r"\b(?:answers?|options?|choices?|choose|chose|pick|select|correct|conclude|conclusion|"
    r"rules? out|ruled out|exclude\w*|cross(?:ed)? out|go(?:ing)? (?:for|with)|settle (?:on|for)|opt for|final|"
    r"vote for|(?:comes?|boils?) down to)\b|"
    r"\b(?:selection|letter|tick(?:ed|ing|s)?|check ?mark|cross(?:ing|es)? off|strike"
    r"|struck|struck off|discard\w*|eliminat\w*|scrap|in two minds|toss[- ]?up|my (?:response"
    r"|reply|verdict|vote|pick|decision|guess)|"
    r"(?:cross|strike|scratch)(?:ed|es|ing)? (?:\S+ ){1,3}(?:out|off)|off the (?:list|table)|"
    r"left with(?: only| just)?|leaves?(?: us| me| you| one)?(?: with)?(?: only"
    r"| just)|only \S+ (?:is left|remains)|submit|lock(?:ing|ed)? in|my money|bet on"
    r"|the one to (?:pick|choose|take|go for|select))\b|"
    r"\b(?:is|be) (?:right|wrong)$|\b(?:is|be) (?:the )?(?:right|correct) (?:one|answer|option|choice)\b|"
    r"^(?:the )?(?:right|correct) (?:one|answer|option|choice)\b"
)
HEDGE = re.compile(
    r"\b(?:could|may|might|perhaps|maybe|possibly|either|can(?:no|')t tell|can not tell|hard to (?:tell|say)|"
    r"not sure|unsure|unclear|undecided|uncertain|equally|both|(?<!not )possible|(?<!not )plausible|likely|or|"
    r"whether|ambiguous|guess|torn|hesitate|wavering|waver|undetermined|inconclusive|doubt|hardly|scarcely|barely|"
    r"toss[- ]?up|conceivable|conceivably|seems? to work|(?:difficult|hard|tough|impossible|tricky) to (?:tell|say|"
    r"decide|"
    r"determine|distinguish|choose|know|judge)|(?:can(?:no|')t|can not|cannot|could not|unable to|"
    r"not able to) (?:tell|say|"
    r"decide|determine|distinguish|choose|settle|make up|be (?:sure|certain))|not (?:be )?(?:certain|excluded|"
    r"ruled out|"
    r"impossible|out of the question|off the table|decided|convinced|settled|quite there"
    r"|fully (?:sure|certain|convinced)|yet|entirely (?:sure|certain|clear))|"
    r"just as (?:likely|good|plausible|well|possible|easily)|as likely as|equal(?:ly)?"
    r"|(?:in|of) two minds|on the fence|up in the air|go either way|either way|fifty[- ]fifty"
    r"|50[-/ ]50|coin|unresolved|open question|dilemma|"
    r"(?:do not|don't|can't|cannot|couldn't|could not|did not|didn't|haven't|have not"
    r"|am not|i'm not|not) (?:really |quite |yet |fully |entirely |completely )*(?:know"
    r"|see which|made? up|decided?|settled|figured|clear|obvious)|no idea|wonder(?:ing)?"
    r"|remains? to be seen|too close to call|evenly|"
    r"lean(?:s|ing)?|inclined|tempted|suspect|suppose|probabl[ey]|presumably|seemingly"
    r"|tentatively|provisional(?:ly)?|hunch|gut|debatable|contenders|in the running"
    r"|"
    r"still (?:open|undecided|possible|unsure|unclear|wavering|considering|weighing)"
    r"|(?:still|am|'m) weighing|hesitat\w+|hesitant|vacillat\w+|oscillat\w+|dither\w*|struggl\w+"
    r"|undecid\w+|puzzl\w+|confus\w+|don't trust|"
    r"might|as good as (?=\W)|interchangeabl[ey]|on a par|neck and neck|stumped"
    r"|at a loss|arguabl[ey]|chances?|odds|argument for both|case for (?:both|either)"
    r"|depends|iffy|shaky|not (?:very |too |really |so |fully )?confident|(?:arguments?"
    r"|reasons?|something|case) (?:to be said )?(?:for|speaking for)|as well as"
    r"|'m afraid|i (?:would|could) not|"
    r"i (?:think|believe|feel) (?:it )?(?:could|might|may)|(?:decide|choose|choice"
    r"|tie|toss up|undecided|split|caught|stuck|"
    r"vacillate|go back and forth) between|no way to (?:tell|know)|(?:is|remains|left) open)\b"
)
DENY = re.compile(
    r"\b(?:can(?:no|')t be|can not be|cannot|not|isn't|never|rules? out|ruled out|exclud\w+|eliminat\w+|discard\w*|"
    r"reject\w*|(?:cross|strike|scratch|tick|mark)(?:ed|es|ing)? (?:\S+ ){0,3}(?:out"
    r"|off)|strik(?:e|es|ing)|struck|scrap(?:s|ped)?|toss(?:ed)? (?:\S+ )?out|throw(?:n"
    r"|s|ing)? (?:\S+ ){0,2}out|get rid of|drop(?:s|ped|ping)?|remov(?:e|es|ed|ing)"
    r"|set aside|leave aside|"
    r"a mistake|an error|mistaken|no good|inconsistent|incompatible|contradict\w*"
    r"|conflicts?|unsuitable|untenable|disqualif\w*|forget about|no match|fails?"
    r"|can be (?:safely )?(?:ignored|skipped)|a non-?starter|far from|does not (?:fit"
    r"|match|hold|apply|suit)|doesn't (?:fit|match|hold|apply|suit)|dismiss\w*|wrong"
    r"|incorrect|false|impossible|leaves? \S+(?: \S+){0,3} out|"
    r"(?:takes?|taken|took|taking|puts?|gets?|is|are|goes|comes) (?:\S+ ){0,3}off the (?:list|table|menu)|"
    r"out of the question|neither|nor|no longer|(?:is|are|drops?|falls?) out|does not work|doesn't work)\b"
)
NOT_DENIED = re.compile(
    r"\b(?:no|nothing|not|never|without|nobody|n't|cannot|can't|isn't|hardly|free of"
    r"|don't|doesn't|wouldn't|won't) (?:\w+ ){0,2}(?:contradict\w*|conflict\w*|inconsisten\w*"
    r"|"
    r"incompatib\w*|rules? out|speaks? against|exclud\w*|eliminat\w*|discard\w*"
    r"|reject\w*|dismiss\w*|wrong|incorrect|false|mistake|error|unsuitable|drop\w*"
    r"|remov\w*|strik\w*|scrap\w*|fails?|miss)\b|"
    r"\b(?:mistake|error|wrong|foolish|odd) not to\b"
)
"""A denial of a denial."""
CONDITION = re.compile(
    r"\b(?:(?<!unclear )(?<!sure )(?<!certain )(?<!know )(?<!tell )(?<!wonder )(?<!see )(?<!say )if"
    r"|unless|suppose|assuming|were)\b"
)
IDIOMS = re.compile(
    r"\b(?:(?:no|without|beyond)(?: a| any)? doubt|"
    r"in the end|ends? up|ending up|ends? with|at the end of the day|up (?=with|at|on|to)|down (?=to)|"
    r"after all|from all of this|on the whole|"
    r"all signs|(?:every|all the) signs?|in this picture|left (?:with|standing|over)"
    r"|(?:leaves?|leaving|we are|i am|we're|i'm) left|(?:next to|beside|against) (?=letter"
    r"|option|answer|choice|[a-h]\b|\W)|"
    r"in other words|(?:which|that) reads|letter|i see no|looking (?:just |equally "
    r"|quite )?as (?=likely|plausible|good)|(?:point|word) of view|not what (?:we"
    r"|i)(?: are|'re| am|'m) looking for|what (?:we|i)(?: are|'re| am|'m) (?:looking for"
    r"|after)|"
    r"(?:put|jot|write|mark|set) (?:it |this |that |that one )?down(?: as)?|my money is on"
    r"|based on what (?:i|we) (?:see|saw)|from what (?:i|we) (?:see|saw)|taking everything together"
    r"|on (?:the|my) (?:answer )?sheet|as far as i can (?:see|tell)|looking back"
    r"|looking for|with (?:that|this) in view|so far|by far|all things considered)\b"
)
"""Words of seeing in phrases that see nothing."""
LOOKING = re.compile(
    r"\b(?:looks?|seems?|appears?|sees?|there|here|a closer look|(?:from|in|on) (?:the|this) (?:image|picture|scene)|"
    r"between|number|close|equally|sides?|up my mind|look(?:s|ing)? (?:just |equally )?(?:as )?"
    r"(?:good|plausible|likely))\b"
)
"""Words of seeing that say nothing of the image when several options stand beside a hedge."""
