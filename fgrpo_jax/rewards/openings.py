"""What stands around a statement in free wordings: beginnings that take something back, denials, sentences that say
nothing of the image."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AGAIN = r"(?:again|more closely|closely|closer|more carefully|carefully|once more|twice|another time)"
_WRONG = (
    r"(?:wrong|incorrect|false|untrue|inaccurate|mistaken|erroneous|a mistake|an error|off|nonsense|"
    r"not (?:quite |entirely |at all )?(?:right|correct|true|so|accurate|it|what i see|the case))"
)
_LEADS = (
    r"wait",
    r"actually",
    r"no(?=\s?[,;:.!—-])|no wait|oh no",
    r"hold on",
    r"hang on",
    r"hmm+|hm|oh|oops|ah|ugh|er|um|well|okay|ok|alright",
    r"(?:i am |i'm )?sorry|apologies|pardon|my (?:bad|mistake|error|apologies)|i apologi[sz]e",
    r"(?:a )?(?:small |quick )?correction|scratch that|strike that|not so fast|rather|instead",
    r"(?:on|upon|after|at|with) (?:a |an )?(?:second|closer|further|another|more careful|careful|better|fresh|"
    r"quick)? ?"
    r"(?:thoughts?|inspection|look|examination|reflection|consideration|check|glance|review|reading|analysis)",
    r"(?:let me|i (?:have to|need to|must|should|want to|will|'ll)|to|allow me to) (?:correct|fix|revise|"
    r"rephrase|restate|"
    r"amend|re-?check|re-?examine|reconsider|retract|redo|double-?check|update|clarify)(?: (?:that|this|it|myself|my "
    r"(?:claim|statement|reasoning|answer)))?(?= ?[,:;.—-])",
    r"let me (?:look|check|think|see) " + _AGAIN,
    r"(?:looking|checking|thinking|seeing it|having looked|having checked) (?:at (?:it|this|that|the image|"
    r"the picture) )?" + _AGAIN,
    r"(?:that|this|it|what i (?:just )?said|my (?:last|previous|earlier)? ?(?:claim|statement|reading))(?: is|"
    r"'s| was) "
    rf"{_WRONG}(?= ?[,;:.!—-])",
    r"i (?:misread|misjudged|misspoke|miscounted|mixed up|got|confused|mis-?saw)(?: (?:it|that|this|them|"
    r"things))?(?: wrong| up)?",
    r"i (?:was|am|stand) (?:wrong|mistaken|corrected|confused)(?: (?:about|on) (?:it|that|this))?|i'm (?:wrong|"
    r"mistaken)",
    r"i (?:have )?made (?:a|an) (?:mistake|error)(?: (?:there|here))?|i take (?:that|it|this) back|i spoke too soon",
    r"i (?:meant|mean)(?: to say)?(?: that)?|i (?:should|ought to) have said(?: that)?|what i meant (?:was|"
    r"is)(?: that)?",
    r"i (?:now |do )*(?:see|realize|realise|notice|find|think|believe|know) (?:now )?that",
    r"it (?:really |actually |now )*turns out(?: that)?|as it turns out|the truth is(?: that)?|the fact is(?: that)?",
    r"in (?:fact|truth|reality|actual fact)|to be (?:precise|exact|correct|clear)|more precisely|correctly(?= ?[,:])",
    r"(?:contrary to|unlike|in contrast to|as opposed to|against|despite|in spite of"
    r"|notwithstanding) (?:what|the thing|all that|everything) (?:i|we) "
    r"(?:\w+ )?(?:said|claimed|stated|wrote|thought|noted|assumed|believed|put|mentioned|told|asserted|had|reported)"
    r"(?: (?:you|it|that|there|down))?(?: (?:before|earlier|above|previously|just now"
    r"|a moment ago|first|at first|initially|originally|in the beginning))*",
    r"(?:contrary to|unlike|in contrast to|against|despite) my (?:\w+ )?(?:statement"
    r"|claim|words?|remark|assertion|impression|assumption|reading|note|description)",
    r"(?:i|we)(?: (?:\w+))? (?:need to|have to|must|should|will|am going to|want to"
    r"|would like to|shall|'d better|had better|ought to|do|got to)? ?"
    r"(?:revise|correct|withdraw|amend|retract|fix|take back|rectify|rephrase|restate"
    r"|update|change|adjust|reconsider|undo|rescind|apologi[sz]e for|drop) "
    r"(?:that|this|it|myself|(?:my|the|what i|that|this) (?:\w+ ){0,3}(?:statement"
    r"|claim|remark|reading|line|words?|sentence|said|assertion|wrote|"
    r"observation|view|judge?ment|mistake|error|slip|point|description|step|opinion"
    r"|mind|note))(?: (?:above|before|earlier|here|there|just now|now))?(?:,? (?:as"
    r"|since|because|for|to say(?: that)?|in that))?",
    r"(?:sorry,? )?(?:that|this|it|there|above|before|what i (?:just )?(?:said|wrote)(?: (?:before"
    r"|earlier|above))?) (?:was|is|were|has been) (?:clearly |just |obviously |purely "
    r"|only )?(?:a|an|my|some) (?:\w+ )?"
    r"(?:slip|mistake|error|blunder|misreading|misstatement|oversight|typo|mix-?up"
    r"|confusion|lapse|misjudge?ment|misperception)"
    r"(?: (?:of mine|on my part|of the (?:pen|tongue|eye)|by me|in what i (?:said|wrote)))?",
    r"(?:and )?what i (?:should|ought to|meant to|wanted to|intended to) (?:have )?(?:said"
    r"|written|say|write|state|stated|claim|claimed|put) (?:is|was)(?: that)?",
    r"(?:and |but )?(?:the )?(?:correct|right|true|proper|accurate|better|actual"
    r"|revised|corrected) (?:statement|version|reading|fact|description|observation"
    r"|claim|wording|state of affairs|situation|picture|thing) (?:is|would be|reads"
    r"|should be)(?: that|:)?",
    r"(?:and |but )?(?:it (?:should|ought to|must) (?:be|read|have read|have been)"
    r"|make that|let me (?:put it right|set (?:that|this|it) (?:right|straight)"
    r"|start over|try again|redo this|rectify (?:that|this|it)|take (?:that|this"
    r"|it) back|fix (?:that|this|it)|correct (?:that|this|it|myself)))(?: (?:that))?(?=[ ,:;.—-])",
    r"(?:please )?(?:disregard|ignore|forget|strike|scratch|scrap|cancel|delete"
    r"|erase|drop|never ?mind) (?:that|this|it|(?:what i|my|the) (?:\w+ ){0,3}(?:said"
    r"|statement|claim|wrote|sentence|line|remark|step)(?: (?:before|earlier|above))?)(?: last "
    r"(?:bit|part|remark))?",
    r"(?:my|the) (?:\w+ )?(?:mistake|error|slip|bad|fault|apologies|misreading|oversight)(?: "
    r"(?:there|here|above|earlier|was mine|is mine))?",
    r"(?:having|after having|now that i(?: have)?|when i|if i|as i|after i|once i"
    r"|after) (?:look(?:ed|ing)?|check(?:ed|ing)?|inspect(?:ed|ing)?|stud(?:y|ied"
    r"|ying)|review(?:ed|ing)?|verif(?:y|ied|ying)|measur(?:e|ed|ing)|re-?check(?:ed"
    r"|ing)?|compar(?:e|ed|ing)|consider(?:ed|ing)?)"
    r"(?: (?:at|over|into|it|this|that|the (?:image|picture|drawing|boxes|scene"
    r"|coordinates)|things|everything|closely|more|again|carefully|closer|once|twice"
    r"|better))*(?=,)",
    r"(?:i|we) (?:now )?(?:have to|must|need to|should) (?:admit|confess|concede"
    r"|acknowledge|say|own up|add)(?: now)?(?: that)?",
    r"it (?:is|was) (?:exactly |just |actually |really |precisely |in fact )?the (?:other way "
    r"(?:round|around)|opposite|reverse|contrary)(?=\s?[,;:.—-])|the (?:opposite"
    r"|reverse|contrary) (?:is|holds|was) ?(?:true|the case|so)?(?=\s?[,;:.—-])",
    r"(?:that|this|it|which) (?:can ?not|could ?not|must ?not|does ?not|did ?not"
    r"|is ?not|was ?not) (?:be |seem |look |sound )?(?:right|true|correct|so|it"
    r"|quite right|add up|make sense|fit)(?=\s?[,;:.—-])",
    r"(?:it is|it's) (?:quite |very |also |pretty |fairly |immediately )?(?:evident"
    r"|clear|obvious|plain|visible|certain|undeniable|easy to see|a fact|safe to say"
    r"|noticeable|plain to see|true)(?: to me| here| from this)? that",
    r"(?:one|we|you|i) (?:can )?(?:sees?|tell|notices?)(?: (?:right away|at once"
    r"|immediately|clearly|easily|quickly|directly|straight away))? that",
    r"what (?:strikes me|i (?:see|notice|find|observe)|we (?:see|notice|find|observe)"
    r"|is clear|stands out|can be seen|is striking|catches the eye)(?: (?:here|first"
    r"|now|most))? is that",
    r"(?:i'd|i would|i|we|we'd|we would|one|you|one can|we can|you can|i can)(?: also)? (?:say"
    r"|note|notice|observe|state|conclude|find|add|point out|remark|tell|maintain) that"
    r"|(?:i'd|i would) say",
    r"as (?:a matter of fact|i (?:now )?(?:see|notice|realize|realise)(?: it)?(?: now)?)"
    r"|upon closer (?:inspection|look)|sure enough|no doubt about it",
    r"(?:because|as|since|for|where) (?=what i (?:just )?(?:said|wrote)|my (?:earlier|previous|last)|the (?:truth|fact|"
    r"reality) is\b|i (?:mixed|confused|misread|misjudged|got it))",
    rf"what i (?:just |had |have )?(?:said|wrote|stated|claimed)(?: (?:before|earlier|above|just now|a moment ago|"
    rf"previously|first))* (?:is|was) {_WRONG}(?=\s?[,;:.!—-]| and\b| but\b)",
    r"(?:that|this|my (?:\w+ )?(?:statement|claim|remark|reading|line|sentence|assertion|observation)|what i (?:just )?"
    r"(?:said|wrote)(?: (?:before|earlier|above))?) (?:does|did|do) not (?:hold|stand|fit|work|add up)(?: up| true|"
    r" at all)?"
    r"(?=\s?[,;:.!—-])",
    r"i (?:must have |have |seem to have )?(?:mixed|got|confused|muddled|mixed up) (?:something|some things?|things"
    r"|it|that"
    r"|them|two things|the two)(?: (?:up|wrong|mixed up|confused))?(?: (?:just now|there|here|earlier|before|above))*"
    r"(?=\s?[,;:.—-])",
    r"i (?:mixed|muddled|swapped) up (?:the two|the sides|the objects|the shapes|them|two things|things"
    r"|something)(?=\s?"
    r"[,;:.—-])|i (?:erred|slipped up|slipped|blundered)(?: (?:there|here))?(?=\s?[,;:.—-])|strictly speaking",
    rf"(?:my|the) (?:\w+ )?(?:claim|statement|remark|reading|line|sentence|assertion|observation|note) (?:is|was)"
    rf" {_WRONG}"
    r"(?:,? (?:since|as|because|for)(?= (?:the|there|in)\b)|(?=\s?[,;:.!—-]))",
    r"(?:my|our|the) (?:eyes|measurements?|ruler|check|analysis|comparison|inspection) (?:tells?|shows?|says?|reveals?|"
    r"confirms?)(?: me| us)?(?: that)?(?= (?:the|there|an?)\b)",
    r"(?:the )?(?:truth|reality|fact of the matter|truth of the matter) is(?: that)?",
    r"it (?:looks|appears|seems) (?:like|as if|as though|that)(?= (?:the|there|a|an)\b)"
    r"(?!.*\b(?:but|however|yet|though|although|might|could|may|maybe|perhaps|or|if|not)\b)",
    r"(?:you|we|one|i) could (?:also )?(?:say|note|state|add|point out|remark) that(?= (?:the|there|a|an)\b)"
    r"(?!.*\b(?:but|however|yet|though|although|might|maybe|perhaps|or|if|not|wrong|false|mistaken)\b)",
    r"so|thus|hence|therefore|indeed|clearly|also|now|and|but|then|still|this time|again",
)
_LEAD = re.compile(rf"^(?:(?:{'|'.join(_LEADS)})\b[\s,:;.!—-]*)+", re.IGNORECASE)
_SURE = re.compile(
    r"\b(?:simply|clearly|certainly|definitely|just|really|actually|plainly|obviously|quite|entirely|absolutely|"
    r"at all|"
    r"evidently|by any means|strictly|surely) ",
    re.IGNORECASE,
)
_SAY = r"(?:say|claim|think|state|assert|believe|suggest|conclude|maintain|argue|hold|assume|insist|find|see|confirm)"
_CLAIM = (
    r"(?:claim|statement|idea|assertion|notion|view|suggestion|belief|assumption"
    r"|proposition|thought|premise|impression|opinion|thesis|hypothesis|conclusion"
    r"|judge?ment|observation)"
)
_TRUE = r"(?:true|right|correct|the case|so|accurate|a fact|the truth)"
_UNTRUE = (
    rf"(?:false|wrong|untrue|incorrect|inaccurate|mistaken|erroneous|a mistake|an error|a lie|not {_TRUE}|"
    rf"by no means "
    rf"{_TRUE}|in no way {_TRUE}|far from (?:being )?{_TRUE}|anything but {_TRUE})"
)
_IS = r"(?: is|'s| was| would be| seems)"
_PREDICATE = (
    r"(?!.*\b(?:question|caption|options?|answers?|prompt|task|expectations?|title|text)\b)"
    r"(?:(?:is|was|'s|would be|seems|turns out(?: to be)?|proves(?: to be)?|must be|has to be|can only be|appears) "
    rf"(?:{_UNTRUE}|(?:refuted|contradicted|disproved|disproven|ruled out|excluded"
    rf"|unsupported|not supported|not borne out|"
    r"belied|debunked|rejected|to be rejected|untenable|unfounded|groundless|baseless"
    r"|at odds|in conflict|out of the question|invalid|"
    r"not (?:valid|tenable|accurate|what (?:the|this) \w+ shows|what (?:i|we) see))(?: (?:by|with) [\w ]{2,40})?)|"
    r"(?:does|do|did|can|could|will|would) ?not (?:hold(?: up| true| water)?|stand(?: up)?"
    r"|work(?: out)?|match|agree|fit|survive|square|correspond|"
    r"apply|add up|check out|be (?:true|right|correct|upheld|maintained|sustained"
    r"|defended|supported|accepted)|accord|tally)"
    r"(?: (?:with|to|by|at all|up|the|here)[\w ]{0,40})?|"
    r"(?:fails|collapses|falls apart|falls flat)(?: [\w ]{2,30})?|(?:conflicts|clashes|disagrees) with [\w ]{2,40}|"
    r"(?:contradicts|goes against|runs counter to) (?:the |this |our )?[\w ]{2,40}|"
    r"(?:must|can|has to|should|needs to) be (?:rejected|dismissed|discarded|ruled out"
    r"|excluded|refuted|abandoned|denied|discounted|set aside))"
)
_EVIDENCE = (
    r"(?:(?:(?:the|this|that|my|our|all|these|those|a) )?(?:\w+ ){0,3}(?:picture"
    r"|image|scene|drawing|figure|layout|arrangement|evidence|coordinates|boxes"
    r"|positions|"
    r"placement|look|inspection|comparison|measurements?|sizes?|check|view|photo"
    r"|observation|facts?|bounding boxes|geometry|data)"
    r"(?: (?:clearly|plainly|here|itself|in front of (?:me|us)))?|this|that|it|what (?:i"
    r"|we) (?:see|found|observe)|what (?:the|this) \w+ (?:shows|depicts|tells(?: us"
    r"| me)?|reveals|says)|everything|all of this)"
)
_CONTRADICTED = (
    rf"(?:(?:is|would be) {_UNTRUE}|(?:is not|isn't) (?:borne out|supported|what (?:is|i|we|the (?:picture|image)))"
    r"(?: (?:here|by|in|the|picture|image|scene|drawing|drawn|shown|see|shows|find|can|depicted))*"
    r"|(?:does not|doesn't) (?:match|fit|agree|correspond|hold|square)(?: (?:up|here|with|to|the|what|is|are|we|i"
    r"|picture"
    r"|image|scene|drawing|drawn|shown|see|shows|depicted|facts|reality|true|in|can|evidence|boxes|coordinates))*)"
)
_DENIALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^that (?P<claim>(?:the|there|an?) .+?),? {_CONTRADICTED}$",
        rf"^(?:it|that|this) (?:is|would be|will be) (?:{_UNTRUE}|misleading|not accurate|not possible|impossible)"
        rf" to {_SAY}"
        r"(?: that)? (?P<claim>(?:the|there|an?) .+)$",
        rf"^(?:i|we|one|you) (?:can|could|do|did|would|must|should|will) ?not (?:agree|accept|say|claim|confirm|state|"
        rf"assert|share the {_CLAIM})(?: with)?(?: the {_CLAIM})? that (?P<claim>(?:the|there|an?) .+)$",
        rf"^(?:somebody|someone|some(?: people)?|one|you|people|anyone|anybody|we|i|others|a (?:viewer|reader|person|"
        rf"hasty \w+))(?: (?:could|might|may|would|can))? (?:be (?:tempted|inclined|led) to )?(?:{_SAY}|imagine"
        rf"|expect|guess|"
        rf"suppose|get the impression|have the impression)(?: that)? (?P<claim>(?:the|there|an?) .+?),? "
        rf"(?:but|yet|however|although|though),? (?:in fact |actually |in truth )?(?:this|that|it|which)"
        rf" {_CONTRADICTED}$",
        rf"^(?:the|any|this|that|every|such a|a) (?:\w+ )?{_CLAIM}(?: made| here)?(?: that "
        rf"|[:,]? ?[\"“])(?P<claim>.+?)[\"”]?,? {_PREDICATE}$",
        rf"^{_EVIDENCE} (?:contradicts?|refutes?|disproves?|rules? out|excludes?|belies"
        rf"|denies|deny|rebuts?|debunks?|invalidates?|"
        rf"falsif(?:y|ies)|speaks? against|argues? against|goes against|go against|tells? against"
        rf"|disagrees? with|conflicts? with|overturns?|(?:is|are) (?:incompatible|inconsistent"
        rf"|at odds|in conflict|irreconcilable|not compatible|not consistent|not in line"
        rf"|not in agreement|out of line) with)"
        rf"(?: (?:the|any|this) {_CLAIM})? that (?P<claim>.+)$",
        rf"^{_EVIDENCE} (?:does|do|can) ?not (?:support|confirm|bear out|back up|allow"
        rf"|justify|agree with|square with|fit|match|permit)"
        rf" (?:the|any|this) {_CLAIM} that (?P<claim>.+)$",
        rf"^(?:i|we|you|one)(?: (?:can|could|may|must|would|will|have to|'d|am able to"
        rf"|are able to|am forced to|safely|therefore|thus))* (?:rule out|exclude|reject"
        rf"|"
        rf"deny|dismiss|discard|refute|disprove|discount|dispute|contest|rule out)(?: the (?:{_CLAIM}"
        rf"|possibility|option))? that (?P<claim>.+)$",
        rf"^(?:by no means|in no way|under no circumstances|on no account|never)(?: (?:can"
        rf"|could|would|may|should|do|is|does) (?:i|we|one|you|it|anyone))?"
        rf"(?: be)?(?: {_SAY}| {_TRUE}| agree| said| claimed| follow)? that (?P<claim>.+)$",
        r"^(?:anyone|anybody|whoever|someone|somebody|everyone|people|those|a person"
        r"|he|one)(?: who)?(?: (?:might|would|were to|should|may|ever))? "
        r"(?:told (?:me|us|you)|tells (?:me|us|you)|says|said|claims|claimed|claiming"
        r"|saying|thinks|thought|thinking|states|stated|stating|believes|"
        r"believed|argues|argued|asserts|asserted|insists|insisted|say|claim|think|believe) that (?P<claim>.+?),? "
        r"(?:would|will|must|has to|is|are|was|'d|can only)(?: clearly)?(?: have to)?(?: be)? (?:wrong"
        r"|mistaken|incorrect|in error|lying|in the wrong|misled|"
        r"off|off the mark|making a mistake|misreading [\w ]{2,30}|telling (?:a lie|an untruth))$",
        r"^(?:if|should) (?:anyone|somebody|someone|you|i|one|we)(?: were to)? (?:says?"
        r"|said|claims?|claimed|told (?:me|us)|states?|stated|thinks?|thought) that "
        r"(?P<claim>.+), (?:they|he|she|i|you|one|we|that|it)(?: would|'d|'re| are| is"
        r"| will| must)(?: be)? (?:wrong|mistaken|incorrect|false|lying|in error|a mistake"
        r"|an error)$",
        rf"^it (?:is|would be|'s|'d be|will be) (?:a )?(?:wrong|false|incorrect|mistaken"
        rf"|inaccurate|misleading|untrue|an error|an? mistake|mistake|misreading|"
        rf"falsehood|erroneous|untruthful|inaccurate) (?:to|for me to) (?:{_SAY}|call it true"
        rf"|write|tell you|tell) that (?P<claim>.+)$",
        rf"^it (?:is|'s) (?:out of the question|impossible|not possible|inconceivable"
        rf"|excluded|ruled out|not so|not as if|not as though|refuted|"
        rf"contradicted by [\w ]{{2,30}}|at odds with [\w ]{{2,30}}|a misconception|a mistake"
        rf"|an error|a fallacy|nonsense|a lie|false|no fact)(?:,? (?:that|to {_SAY} that))? (?P<claim>"
        rf"(?:the|there) .+)$",
        rf"^(?:there (?:is|'s)|i see|i find|we have) no (?:way|chance|possibility|question"
        rf"|basis for {_SAY}ing|ground for {_SAY}ing|support for the {_CLAIM})(?: of {_SAY}ing)? ?"
        rf"(?:that )?(?P<claim>(?:the|there) .+)$",
        rf"^(?:nothing|no part)(?: (?:in|about|of) (?:the|this) \w+)? (?:supports|confirms"
        rf"|backs up|bears out|justifies)(?: the {_CLAIM}| {_SAY}ing)? that (?P<claim>.+)$",
        rf"^(?:i|we|one|you|nobody|no one)(?: (?:would|could|can|do|will|should|must))? ?not (?:be "
        rf"(?:right|correct|justified)|subscribe|consent|go along) "
        rf"(?:to {_SAY}|in {_SAY}ing|to the {_CLAIM}|with the {_CLAIM}) that (?P<claim>.+)$",
        rf"^(?:one|you|i|we|anyone)(?: can ?not| could ?not| should ?not| would ?not"
        rf"| must ?not) (?:truthfully |rightly |honestly |fairly |possibly |seriously "
        rf"|correctly |reasonably )?"
        rf"(?:{_SAY}|write|tell|call it true) that (?P<claim>.+)$",
        rf"^(?:i|we) disagree with (?:the|any) {_CLAIM} that (?P<claim>.+)$",
        rf"^(?P<claim>the .+?),? (?:which|and that|but that|and this|but this) (?:is|would be) {_UNTRUE}$",
        rf"^(?:i|we)(?: would| must| will| can| do| have to| 'd)* (?:deny|dispute|reject|disagree|refute|"
        rf"refuse to {_SAY})(?: with)?(?: the {_CLAIM})? that (?P<claim>.+)$",
        rf"^(?:i|we|one|you|nobody|no one|none) (?:do|did|can|could|would|will|should|must)(?: ?not) (?:{_SAY}|"
        rf"agree|accept)"
        rf"(?: with)?(?: the {_CLAIM})? that (?P<claim>.+)$",
        rf"^(?:nobody|no one) (?:can|could|would) {_SAY} that (?P<claim>.+)$",
        rf"^(?:it|this|that){_IS} {_UNTRUE}(?: to {_SAY})? that (?P<claim>.+)$",
        rf"^(?:it|this|that) is (?:a|an) (?:false|wrong|untrue|incorrect|mistaken) {_CLAIM} that (?P<claim>.+)$",
        r"^it is not that (?P<claim>.+)$",
        rf"^(?:it|one) can ?not (?:be {_TRUE}|be (?:said|claimed|stated|asserted|argued|maintained|that)|be {_TRUE}) "
        rf"(?:that )?(?P<claim>.+)$",
        r"^it (?:does|can|could|would|will) ?not (?:hold|be that|be)(?: true)?(?: that)? (?P<claim>the .+)$",
        rf"^(?:by no means|in no way|under no circumstances|never)(?: is| can| could)(?: it)?(?: be)?(?: {_TRUE})?"
        rf"(?: (?:said|claimed))? that (?P<claim>.+)$",
        rf"^(?:one|you|i|we)(?: would| 'd|'d) be (?:wrong|mistaken|incorrect|lying) (?:to {_SAY}|in {_SAY}ing|"
        rf"if \w+ said) that "
        r"(?P<claim>.+)$",
        rf"^there is no (?:truth|sense|way)(?: (?:in|to))?(?: the {_CLAIM}| {_SAY}ing)? that (?P<claim>.+)$",
        rf"^(?:the {_CLAIM}|to {_SAY}|{_SAY}ing)(?: that)?[:,]? [\"'“]?(?P<claim>.+?)[\"'”]?,?{_IS} {_UNTRUE}$",
        rf"^(?:the {_CLAIM}) that (?P<claim>.+?) (?:does not hold|is not supported|fails|can be rejected|"
        rf"must be rejected|"
        r"is to be rejected|does not stand)$",
        rf"^that (?P<claim>.+?){_IS} {_UNTRUE}$",
        rf"^(?:false|wrong|untrue|incorrect|not true) ?(?:that|:|is that|is the {_CLAIM} that) (?P<claim>.+)$",
    )
)
_AFTERTHOUGHT = re.compile(
    rf"[;,] (?:(?:because|since|as|for) )?(?:(?:it|that|this) (?:is {_UNTRUE}|is not (?:so|{_TRUE})|does not hold)|"
    r"(?:the |my |its )?(?:picture|image|drawing|scene|boxes|coordinates|figure|evidence|positions|sizes|facts|eyes) "
    r"(?:shows?|says?|tells?|proves?|suggests?|indicates?|speaks?|tell me|show me|contradicts?) (?:otherwise|the"
    r" opposite|"
    r"something else|the contrary|it differently|differently|against (?:it|this|that)|it|this|that))$",
    re.IGNORECASE,
)


_TOPIC = re.compile(
    r"^(?:(?:size|position|location|distance|height|area|space|order|direction)-? ?wise"
    r"|in terms of|as far as|when it comes to|with (?:regard|respect) to|"
    r"regarding|concerning|as regards|as for|as to|speaking of|considering|judging (?:by"
    r"|from|on)|going (?:by|from|through|over)|based on|according to|comparing|"
    r"looking (?:at|over|across|through|around)|on (?:checking|inspecting|comparing)"
    r"|checking|measuring|inspecting|examining|scanning|surveying|reviewing|studying"
    r"|"
    r"observing|upon|on|after|by|from what|from the|in my|to my|for the|at a|as (?:i"
    r"|we|you|one) (?:can )?(?:see|look)|given|turning to|moving on to|"
    r"focusing on|(?:sure enough|okay|ok|alright|hmm+|well|now|so|good|great|all right"
    r"|right then|let me see|let's see|interestingly|evidently|notably|visually"
    r"|"
    r"spatially|geometrically|numerically|horizontally speaking|vertically speaking"
    r"|to be precise|to be exact|overall)(?=[,:]))(?P<rest>[^,:]{0,70})[,:] (?=\w)",
    re.IGNORECASE,
)
_NO_TOPIC = re.compile(
    r"\b(?:not|no|never|none|without|if|unless|mirror\w*|flip\w*|rotat\w*|revers\w*"
    r"|opposite|other|others|unlike|contrary|question|claims?|claimed|options?|"
    r"caption|says?|said|people|apart|except|excluding|upside|behind|back|imagin\w*"
    r"|suppos\w*|assum\w*|would|could|might|may|perhaps|maybe|possibl\w*|"
    r"probabl\w*|guess|doubt|first|second|next|after|before|left|right|above|below"
    r"|higher|lower|larger|smaller|bigger|nearest|farthest|closest|inside|between"
    r"|"
    r"red|green|blue|yellow|purple|orange|cyan|white|circles?|squares?|triangles?"
    r"|cross(?:es)?|diamonds?|rings?|else|instead|wrong|false|mistake|"
    r"someone|somebody|turned|turning|hypothe\w*|would-be|expect\w*|depth|mov\w+"
    r"|swap\w*|exchang\w*|dream\w*|story|theory|principle|fantas\w*|world|sake|argument"
    r"|remember|recall|hear\w*|told|rumou?r\w*|pretend\w*|say\w*|contrast|vain|ideal\w*"
    r"|most|least|almost|nearly|apparent\w*|alleged\w*|suspect\w*|tentativ\w*|uncertain\w*"
    r"|unsure|hunch|chance|luck|way)\b|<",
    re.IGNORECASE,
)


def without_topic(text: str) -> str:
    """The text without beginnings that only say what is looked at: 'Size-wise, ..', 'As far as the sizes go, ..'."""
    for _ in range(3):
        match = _TOPIC.match(text)
        if match is None or _NO_TOPIC.search(match["rest"]):
            return text
        rest = text[match.end() :]
        text = rest[:1].upper() + rest[1:]
    return text


def without_lead(text: str) -> str:
    """The text without a beginning such as 'Wait, that is not right:'."""
    return _LEAD.sub("", text) or text


def denied(text: str) -> str | None:
    """What a sentence denies: 'It is not true that ..'; None where it is no such denial."""
    bare = _SURE.sub("", re.sub(r"\b(it|that|there)'s\b", r"\1 is", text, flags=re.IGNORECASE)).strip().rstrip(".!")
    bare = re.sub(r"^(?:no|nope|nah|no no)[,.;] ", "", bare, flags=re.IGNORECASE)
    for pattern in _DENIALS:
        match = pattern.match(bare)
        if match:
            return _AFTERTHOUGHT.sub("", match["claim"].strip())
    return None


_PROCESS = _words(
    """
    look looking check checking compare comparing examine examining inspect inspecting locate locating find
    finding identify identifying analyze analyse analyzing analysing think thinking go going start starting
    begin beginning consider considering determine determining need task question questions asked asks asking
    focus focusing turn proceed proceeding study studying review reviewing measure measuring count counting
    decide deciding answer answering solve solving work working figure move step steps reason reasoning scan
    scanning see observe observing recall remember note list listing map evaluate evaluating assess assessing
    verify verifying establish gather have continue comparison careful carefully care straightforward easy
    simple enough ready follow tackle break walk do understand understanding visualize visualise approach
    describe describing time concentrate concerns about requires matters know knowing use using
    """
)
"""What one does with a question and an image; an idle sentence has one of these."""
_IDLE = _PROCESS | _words(
    """
    i we you us me let lets my our your the a an this that these those is are am was be been being does did will
    would can should must may might has had want wants wanted like to of in on at for from with by as and then
    so now here there first firstly second third next finally last lastly again another other others one ones
    each every all everything both two three after before while when where what which how why who okay ok
    alright well right good great fine hmm sure please ll s m re ve d just only simply also too very more most
    some any further up out through over into down together it them they their its problem options option
    choices choice object objects shape shapes item items thing things image picture scene photo drawing
    position positions location locations place places placement arrangement layout size sizes area areas
    distance distances coordinate coordinates relation relations relationship relationships relative spatial
    horizontal vertical axis respect box boxes bounding order information detail details visual named mentioned
    involved relevant given provided shown listed concerned pair reference target remaining way part parts
    attention eye eyes close closely closer glance systematically slowly quickly briefly directly bit moment
    minute whole entire overall settled known clear decisive key main important point evidence facts fact data
    needed necessary required method plan idea comes come keep keeping mind bearing make makes made take takes
    taking get getting put set between correct reach conclusion conclude decision judgement judgment verdict
    final matter piece pieces accurate accurately properly thoroughly logically several multiple various
    different visually mentally calmly patiently separately individually exactly really
    """
)
_ASSERTING = re.compile(
    r"\b(?:not|no|never|yes|neither|nor|same|former|latter|"
    r"(?:it|they|both|this|that|these|those|one|which|answer|conclusion|objects?|shapes?|positions?|sizes?|"
    r"option|choice) "
    r"(?:is|are|was|were|has|have|matches|match|fits|holds)(?! (?:asked|about|needed|required|given|named|"
    r"mentioned|shown|"
    r"to be|straightforward|easy|simple|enough|involved|relevant|the question|what|where|how|all i|settled|"
    r"clear|known)\b)|"
    r"(?:is|are) (?:it|them|there|both|this|that|correct|right|the (?:answer|one|option|choice))$|right|"
    r"correct (?!answer))\b"
)


def is_idle(text: str) -> bool:
    """Whether a sentence only says what is being done: known words, none for a thing, a side, a size or a verdict."""
    if "<" in text or len(text) > 200:
        return False
    lowered = re.sub(r"[\"'’.!:;,()—-]+", " ", text.lower())
    words = lowered.split()
    if not _IDLE.issuperset(words) or _PROCESS.isdisjoint(words):
        return False
    return _ASSERTING.search(" ".join(words)) is None
