"""Which option an answer commits to, and what an open answer says. Total and linear.

A text that is nothing but a label, an option or its value is that option (`named`). In any other text labels and the
words of options are mentions. A mention is firm where it declares: behind 'the answer is', in a box, as a line of its
own, as a label before its option's own words, before 'is correct'. The last firm mention counts, and without one the
last other one. What is denied, asked, or only places something is no commitment; what is joined by 'or', 'and', commas
commits to nothing; what stands before 'wait' or 'actually' is not firm any more.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from fgrpo_jax.reading.values import fold, number_in, plain, quantity, same_quantity, same_value, yes_or_no
from fgrpo_jax.reading.words import NUMBERS

_FIRST, _LAST = 200, 1200  # characters of the first line and of the end that are looked at

# A word ends where another script begins: ideographs stand beside labels without a space.
_W = r"[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_WORD = re.compile(_W)
_THOUGHT = re.compile(r"</think>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:[A-Za-z][\w-]{0,30}(?:\s[^<>\n]{0,80})?|\|[^<>\n|]{1,40}\|)/?>")
_MARKUP = re.compile(r"```\w{0,9}|\*+|`|\$(?!\d)|(?<!\w)_+|_+(?!\w)|\\[\[\]()]|\\(?:text|math)[a-z]{0,8}\s?(?=\{)")
_NOUN = (
    r"(?:answer|solution|result|(?:correct|right|best|final)\s(?:option|choice|letter|answer)|"
    r"respuesta(?:\scorrecta)?|réponse|antwort|risposta|resposta|ответ)"
)
_IS = r"(?:is|would\sbe|must\sbe|should\sbe|est|es|ist|è|é)"
# What declares: 'the answer (to that) is', 'answer:', 'I choose', and a box.
_CUE = re.compile(
    rf"(?:\b{_NOUN}[\"']?(?:\s[^.:;=?!\n]{{1,60}}?)??\s{{0,3}}(?::|=|- |(?<=\s){_IS}\b\s?:?)|"
    r"\banswer(?=\s{1,3}\(?[A-Za-z]\b\)?\s*(?:[.\n]|$))|"
    r"\b(?:choose|chose|pick|select|go(?:ing)? with|opt for|settle on)\b|"
    r"(?:正确)?答案\s?(?:是|为|選|选|:)*|(?:应该|故|我)?(?:选择|選擇|选|選)(?![项項])\s?:?|(?:正解|答え)\s?は|"
    r"\\boxed\s?(?=\{))[\s\"'({\[]{0,6}"
    r"(?P<no>not\s{1,3})?(?:(?:the\s{1,3})?(?:option|choice|letter|选项|選項)\s{1,3})?",
    re.IGNORECASE,
)
# What may stand before a label, and behind it: a verb by which 'A' is no article.
_NAMING = re.compile(r"(?:\b(?:option|choice|letter|answer)s?|选项|選項|選択肢) {0,2}[\"'(\[]{0,2}$", re.IGNORECASE)
_LABEL = re.compile(rf"(?<!{_W})(?<![\w]['.])([A-Za-z])(?!{_W}|['+#]\w?|-\w)")
_CLAUSE = re.compile(r"\n|[.!?](?=\s|$)")
_VERBS = re.compile(
    r"^\s(?:is|was|fits|must|can|cannot|could|seems|looks|it|as|or|and|wins|off|out|because|since|for|by|holds|applies|"
    r"works|matches|stands|remains|follows|then|here|would|should|does|isn't|doesn't|but|not|rather|instead)\b"
)
# What denies: a word before a mention, or a predicate behind it.
_DENIAL = re.compile(
    r"(?:\bnot|n't|\bcannot|\bnever|\bneither|\bnor|\bnone of|\brather than|\binstead of|\bno longer|\bruled? out|"
    r"\bexcludes?|\beliminates?)(?:\s(?:to\s)?be)?(?:\s(?:on|to|in|at))?(?:\s(?:the|a|an|is|option|my))?[\s\"'(]{0,2}$|"
    r"(?:不是|不选|并非|而不是|排除)\s?$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"^[\"')\]]{0,2}\s(?:is|are|was|would be|looks|seems|can be)\s(?:also |both |clearly |therefore )?"
    r"(?:wrong|incorrect|not|false|impossible|ruled out|excluded|eliminated|out)\b|"
    r"^[\"')\]]{0,2}\s(?:is|are|was|does|do|can|could|would)(?:n't|\s?not)\b|"
    r"^[\"')\]]{0,2}\s?(?:不对|错|不正确|是错|不是|ではなく|ではない|じゃない)",
    re.IGNORECASE,
)
# What joins mentions, takes back what was said before, or only places something.
_EITHER = re.compile(
    r"^[\s)\].,/(&\"']{0,5}(?:or|and|/|&|,|或者?|和|と)[\s,(\[\"']{0,4}(?:or\s|and\s)?"
    r"(?:option |the |a |an )?[(\"']?$",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:no,? wait|wait|actually|hold on|correction|scratch that|on second thought|sorry|or rather|i mean)\b",
    re.IGNORECASE,
)
_PLACING = re.compile(
    r"\b(?:behind|beside|near|next to|in front of|than|of|under|above|below|from|between|against)"
    r"(?: (?:the|a|an))?\s?$",
    re.IGNORECASE,
)


# --------------------------------------------------------------------------------------------------------- open answers
def _final(text: str) -> str:
    """A text as it is to be read: behind its thoughts, composed, without markup; tags end lines."""
    behind = _THOUGHT.split(text)[-1]
    text = fold(behind if behind.strip() else text).strip()
    if len(text) > _FIRST + _LAST:
        text = text.split("\n", 1)[0][:_FIRST] + "\n" + text[-_LAST:]
    text = re.sub(r"<answer>", "\nanswer: ", text, flags=re.IGNORECASE)
    return _MARKUP.sub("", _TAG.sub("\n", text)).strip()


def stated(text: str) -> str | None:
    """What an open text says the answer is: 'so the answer is 12.' -> '12'; the last such place, None without one."""
    text = _final(text)
    cues = list(_CUE.finditer(text))
    if not cues:
        return None
    return _clause(text[cues[-1].end() :].lstrip(" :\"'")).strip() or None


def _clause(text: str) -> str:
    """The text up to the end of its sentence or line, or to the brace that closes what was opened before it."""
    clause, depth = _CLAUSE.split(text, maxsplit=1)[0], 0
    for at, sign in enumerate(clause):
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return clause[:at]
    return clause


def same_answer(given: str | None, gold: str) -> bool:
    """Whether an open answer says what the gold one says: the same words, quantity, yes or no, or formula.

    Of a longer text it is what the text states, or a number that it begins with, where it holds no second one.
    """
    if given is None or not given.strip():
        return plain(gold) == ""
    if same_value(given, gold):
        return True
    said = stated(given) or " ".join(_final(given).split())
    head, *rest = re.split(r"[,;.]\s", said, maxsplit=1)
    alone = rest and not re.search(r"\d", rest[0]) and _EITHER.match(f"{rest[0]} "[:4]) is None
    return same_value(said, gold) or bool(alone and number_in(head) is not None and same_value(head, gold))


# -------------------------------------------------------------------------------------------------------- named options
def named(text: str, options: Sequence[str]) -> int | None:
    """The option that a text as a whole names: by its label, its words, both, or its value; None for all else.

    Labels come first: of the options (B, A) the text 'A' is the one labelled A, which is how gold answers are written.
    """
    whole, texts = plain(text), [plain(option) for option in options]
    if not whole:
        return None
    label = _index(whole, len(options))
    if label is not None:
        return label
    if whole in texts:
        written = [fold(option).strip() for option in options]  # two may differ in case alone
        return written.index(fold(text).strip()) if fold(text).strip() in written else texts.index(whole)
    both = re.match(r"(?:option |choice )?\(?([a-z])(?:[).:,\]-]{1,2}\s?|\s)(?:[-:]\s)?(?=\S)", whole)
    label = _index(both[1], len(options)) if both else None
    if both and label is not None and plain(whole[both.end() :]) == texts[label]:
        return label
    return _by_value(whole, options)


def _index(letter: str, count: int) -> int | None:
    index = ord(letter.lower()) - ord("a") if len(letter) == 1 else -1
    return index if 0 <= index < count else None


def _by_value(whole: str, options: Sequence[str]) -> int | None:
    """'2.0' or 'two' for the option '2', and 'Yes, ..' or 'true' for the option 'yes'."""
    if quantity(whole) is not None:
        equal = [index for index, option in enumerate(options) if same_quantity(whole, option)]
        return equal[0] if len(equal) == 1 else None
    answer = None if _CUE.search(whole) or _TURN.search(whole) else yes_or_no(whole)
    meant = [index for index, option in enumerate(options) if answer and yes_or_no(option) == answer]
    return meant[0] if len(meant) == 1 and len(options) == 2 else None


# ------------------------------------------------------------------------------------------------------------- mentions
@dataclasses.dataclass(frozen=True)
class Mention:
    """An option that a text names somewhere; `option` is None for a label that no option has."""

    start: int
    end: int
    option: int | None
    firm: bool = False
    denied: bool = False
    label: bool = True


def choose(text: str | None, options: Sequence[str]) -> int | None:
    """Index of the option that an answer commits to; None when it commits to none, or to one of several."""
    if text is None or not options or not text.strip():
        return None
    for whole in (text[: _FIRST + _LAST], final := _final(text)):
        found = named(whole, options)
        if found is not None:
            return found
    return _settled(final, _mentions(final, options), options)


def _settled(text: str, found: Sequence[Mention], options: Sequence[str]) -> int | None:
    """The option that the mentions of a text end up with."""
    last_turn = max((match.start() for match in _TURN.finditer(text)), default=-1)
    if any(one.start > last_turn for one in found):
        found = [dataclasses.replace(one, firm=one.firm and one.start > last_turn) for one in found]
    groups = _grouped(text, found)
    firm = [group for group in groups if any(one.firm for one in group)]
    for level in (firm, groups):
        kept = [group for group in level if not any(one.denied for one in group)]
        if kept:
            last = {one.option for one in kept[-1]}
            return last.pop() if len(last) == 1 else None
        # What is declared wrong leaves the rest: 'the answer is not A' of two.
        left = set(range(len(options))) - {one.option for group in firm for one in group}
        if firm and len(left) == 1:
            return left.pop()
    return None


def _grouped(text: str, found: Sequence[Mention]) -> list[list[Mention]]:
    """Mentions that are joined by 'or', 'and' or a comma stand together; what denies one of them denies all."""
    groups: list[list[Mention]] = []
    for one in found:
        last = groups[-1][-1] if groups else one
        between, alike = text[last.end : one.start], last.option == one.option or one.label == last.label
        if groups and alike and (_EITHER.match(between) or re.fullmatch(r" {0,3}", between)):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _mentions(text: str, options: Sequence[str]) -> list[Mention]:
    """All mentions in the order written, those of questions and of a mere list of the options left out."""
    texts = [plain(option) for option in options]
    text = _without_echo(text, texts)
    worded = list(_worded(text, texts))
    found = [*_declared(text, options, worded), *labels(text, len(texts), worded), *worded]
    asked = [(m.start(), m.end()) for m in re.finditer(r"[^.!?\n]*\?", text)]
    found = [one for one in found if not any(a <= one.start < b for a, b in asked)]
    firm = [one for one in found if one.firm]
    # What is declared is not mentioned a second time.
    return sorted(
        (one for one in found if one.firm or not any(f.start <= one.start < f.end for f in firm)),
        key=lambda one: (one.start, one.end),
    )


def _without_echo(text: str, texts: Sequence[str]) -> str:
    """The text with blanks for lines in a row that only list several options by their labels."""
    lines = text.split("\n")
    pure = [_pure_label(line, texts) for line in lines]
    filled = [at for at, line in enumerate(lines) if line.strip()]
    blank: set[int] = set()
    for a, b in itertools.pairwise(filled):
        if pure[a] is not None and pure[b] is not None and pure[a] != pure[b]:
            blank |= {a, b}
    return "\n".join(" " * len(line) if at in blank else line for at, line in enumerate(lines))


def _pure_label(line: str, texts: Sequence[str]) -> int | None:
    """The option that a line is: its label, its words, or both."""
    if plain(line) in texts:
        return texts.index(plain(line))
    match = re.fullmatch(r"[\W_]*([A-Z])(?![\w+#'])[\s).:,\]-]*(.*)", line)
    label = _index(match[1], len(texts)) if match else None
    rest = plain(match[2]) if match else ""
    return label if label is not None and (not re.search(r"\w", rest) or rest == texts[label]) else None


def _worded(text: str, texts: Sequence[str]) -> Iterator[Mention]:
    """Mentions of options by their words, or, where all are numbers, by value."""
    hits = mentions(text, texts)
    if all(number_in(option) is not None for option in texts):
        hits = [(*at, index) for *at, value in _numbers(text) for index, o in enumerate(texts) if number_in(o) == value]
    kept: list[tuple[int, int, int]] = []
    for start, end, option in hits:
        if end - start == 1 and text[start].isalpha() and (text[start].islower() or _is_article(text, start)):
            continue
        between = text[kept[-1][1] : start] if kept and kept[-1][2] != option else "."
        if not re.search(r"[.!?;\n]", between) and _PLACING.search(text[:start][-24:]):
            continue  # 'the car behind the van' is no van
        denied = is_denied(text, (start, end, option))
        if not denied:
            kept.append((start, end, option))
        alone = not re.search(r"\w", text[text.rfind("\n", 0, start) + 1 : start] + text[end:].split("\n", 1)[0])
        yield Mention(start, end, option, firm=alone, denied=denied, label=False)


def _numbers(text: str) -> Iterator[tuple[int, int, float]]:
    words = r"|\b(?:" + "|".join(NUMBERS) + r")\b"
    for match in re.finditer(rf"(?<![\w.])(?<!\d[,-])[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?!\w){words}", text, re.IGNORECASE):
        value = number_in(match[0].rstrip(",."))
        if value is not None:
            yield match.start(), match.end(), value


def _declared(text: str, options: Sequence[str], worded: Sequence[Mention]) -> Iterator[Mention]:
    """What 'the answer is ..' and its like name: a label, an option's words or value, or such within the clause."""
    for cue in _CUE.finditer(text):
        clause = _clause(text[cue.end() : cue.end() + 160])
        end, denied = cue.end() + len(clause), cue["no"] is not None
        label = re.match(r"([A-Za-z])(?![\w'+#]|-\w)", clause)
        whole = named(clause, options)
        inside = [one for one in worded if cue.end() <= one.start < end]
        if whole is not None:
            yield Mention(cue.end(), end, whole, firm=True, denied=denied)
        elif label and not _is_article(text, cue.end()) and (label[1].isupper() or not clause[1:].strip(" )\"']")):
            yield Mention(cue.end(), cue.end() + 1, _index(label[1], len(options)), firm=True, denied=denied)
        elif inside:
            # 'Right: the circle is left of ..' begins with what it declares.
            opens = not re.search(r"\w", re.sub(r"^(?:the|an?)\s", "", text[cue.end() : inside[0].start]))
            for last, one in zip([None, *inside], inside, strict=False):
                if opens and last and not _EITHER.match(text[last.end : one.start]):
                    break
                yield dataclasses.replace(one, firm=True, denied=denied or one.denied)


def labels(text: str, count: int, worded: Sequence[Mention] = ()) -> Iterator[Mention]:
    """Labels that stand by themselves, outside of options' words: firm as a sentence of their own or a line's head."""
    for match in _LABEL.finditer(text):
        at, end, option = match.start(1), match.end(1), _index(match[1], count)
        before, after = text[max(0, at - 24) : at], text[end : end + 200]
        opens = not re.search(r"\w", text[text.rfind("\n", 0, at) + 1 : at])
        naming = _NAMING.search(before) is not None
        marked = (re.match(r"[)\]]", after) and before[-1:] in ("(", "[", "")) or (opens and after[:1] == ")")
        article = not marked and _is_article(text, at) and (match[1].islower() or not naming)
        if article or (match[1].islower() and not marked and not naming) or any(o.start <= at < o.end for o in worded):
            continue
        alone = (opens or re.search(r"[.!?;:]\s*[\"'(\[]*$", before)) and re.match(r"[^\w\n+#]*(?:\n|$)", after)
        heads = opens and not naming and re.match(r"[).:,\]]|\s(?:because|since|as)\b", after)
        denied = is_denied(text, (at, end, 0))
        firm = bool(alone or heads or (denied and _DENIED.match(after)))
        if firm or option is not None:
            yield Mention(at, end, option, firm=firm, denied=denied)


def _is_article(text: str, at: int) -> bool:
    """Whether the letter at a place is the article 'a' or the pronoun 'I': a word follows it that is no verb of it."""
    after = text[at + 1 : at + 14]
    return text[at] in "AaI" and re.match(r"\s\w", after) is not None and _VERBS.match(after) is None


def mentions(whole: str, texts: Sequence[str]) -> list[tuple[int, int, int]]:
    """(start, end, option) of every option text in a text, by where it ends; longer ones hide those inside."""
    found = []
    for index, option in enumerate(texts):
        if option:
            words = r"\s{1,3}".join(map(re.escape, option.split()))
            spans = (match.span() for match in re.finditer(words, whole, re.IGNORECASE))
            found += [(*span, index) for span in spans if _stands_alone(whole, *span)]

    def hidden(start: int, end: int) -> bool:
        return any(a <= start and end <= b and b - a > end - start for a, b, _ in found)

    return sorted((hit for hit in found if not hidden(*hit[:2])), key=lambda hit: hit[1])


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a piece is no part of a longer word or number: not 'C' of 'C++', nor '5' of '-5', '.5', '1,5'."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if (text[start].isalnum() and _WORD.match(before[-1:])) or (text[end - 1].isalnum() and _WORD.match(after)):
        return False
    if text[start].isdigit() and (before[-1:] in ("+", "-", ".") or re.match(r"\d,", before)):
        return False
    return not (re.match(r"[.,]\d", after) if text[end - 1].isdigit() else after[:1] in ("+", "#"))


def is_denied(whole: str, hit: tuple[int, int, int]) -> bool:
    """Whether a mention is in a denial: 'not left', 'rather than left', 'left is wrong'."""
    before, after = whole[max(0, hit[0] - 24) : hit[0]], whole[hit[1] : hit[1] + 24]
    return _DENIAL.search(before) is not None or _DENIED.match(after) is not None
