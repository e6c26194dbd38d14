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
_CLAIM = r"(?:claim|statement|idea|assertion|notion|view|suggestion|belief|assumption|proposition|thought|premise)"
_TRUE = r"(?:true|right|correct|the case|so|accurate|a fact|the truth)"
_UNTRUE = (
    rf"(?:false|wrong|untrue|incorrect|inaccurate|mistaken|erroneous|a mistake|an error|a lie|not {_TRUE}|"
    rf"by no means "
    rf"{_TRUE}|in no way {_TRUE}|far from (?:being )?{_TRUE}|anything but {_TRUE})"
)
_IS = r"(?: is|'s| was| would be| seems)"
_DENIALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
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
    rf"[;,] (?:it|that|this) (?:is {_UNTRUE}|is not (?:so|{_TRUE})|does not hold)$", re.IGNORECASE
)


def without_lead(text: str) -> str:
    """The text without a beginning such as 'Wait, that is not right:'."""
    return _LEAD.sub("", text) or text


def denied(text: str) -> str | None:
    """What a sentence denies: 'It is not true that ..'; None where it is no such denial."""
    bare = _SURE.sub("", text).strip().rstrip(".!")
    bare = re.sub(r"^no, ", "", bare, flags=re.IGNORECASE)
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
