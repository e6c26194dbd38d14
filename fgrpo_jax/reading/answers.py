"""Which option an answer commits to, and whether two open answers say the same. Total and linear.

The order is: the whole text is an option's letter or text; 'answer is X' (the last one); a letter in front
('B. right'); option texts as whole words; a capital letter at the end. Later commitments win over earlier ones, what
is denied ('not left', 'left is wrong') is no commitment, and 'A or B' commits to nothing. Nothing found is None.
"""

from __future__ import annotations

import itertools
import math
import re
import string
from collections.abc import Sequence

from fgrpo_jax.reading.words import NUMBERS

_LONGEST_ANSWER = 600  # characters of an answer that are looked at, from its end: the last commitment wins
_ENDS = string.punctuation + " "
_MARKUP = re.compile(r"</?(?:answer|think)>|[*`$_]|\\(?:text|mathrm|textbf)\b")
_CUE = re.compile(
    r"(?:\b(?:answer|option|choice)(?:\s{1,3}(?:is|would\sbe|must\sbe|should\sbe))?(?:\s{0,3}:)?\s{1,3}|\\boxed\s?\{)"
    r"(?P<no>not\s{1,3})?(?:(?:the\s{1,3})?(?:option|choice|letter)\s{1,3})?",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:\bnot|n't|cannot|\bnever|\bneither|\bnor|\brather than|\binstead of|\bno longer|\bruled? out|\bexcludes?)"
    r"(?: (?:to )?be)?(?: (?:on|to|in|at))?(?: (?:the|a|an|is|option|my))?$"
)
_DENIED = re.compile(r"^ (?:is|are|was|would be) (?:wrong|incorrect|not|false|impossible|ruled out|out)\b")
_EITHER = re.compile(r"^[\s)\].,/(&]{0,4}(?:or|and|/|&|,)[\s,(\[]{0,3}(?:option |the |a |an )?$", re.IGNORECASE)


def plain(text: str) -> str:
    """Lower case, without punctuation at the ends, single spaces: the form in which answers are compared."""
    return " ".join(text.lower().split()).strip(_ENDS)


def number_in(text: str) -> float | None:
    """The number that a text is: '3', '3.0', '1,000', '-2', '50%', '$5', 'three'; None for all else."""
    whole = text.strip().lower().rstrip(".!").strip()
    if whole in NUMBERS:
        return float(NUMBERS[whole])
    match = re.fullmatch(
        r"[$€£]?\s?([+-]?(?:\d{1,3}(?:,\d{3}){1,6}|\d{1,30})(?:\.\d{0,30})?|[+-]?\.\d{1,30})\s?%?", whole
    )
    return float(match[1].replace(",", "")) if match else None


def yes_or_no(text: str) -> str | None:
    """'yes' or 'no' where a text begins with it as a word of its own, or is 'true' or 'false'; else None."""
    whole = plain(text)
    if match := re.match(r"(yes|no)(?:$|\s?[,.;:!])", whole):
        return match[1]
    return {"true": "yes", "false": "no", "yeah": "yes", "yep": "yes", "nope": "no"}.get(whole)


def same_answer(given: str | None, gold: str) -> bool:
    """Whether an open answer says what the gold one says: the same words, the same number, or the same yes or no."""
    if given is None:
        return plain(gold) == ""
    if plain(given) == plain(gold):
        return True
    numbers = number_in(given), number_in(gold)
    if numbers[0] is not None and numbers[1] is not None:
        return math.isclose(numbers[0], numbers[1], rel_tol=1e-9, abs_tol=1e-12)
    return plain(gold) in ("yes", "no") and yes_or_no(given) == plain(gold)


def stated(text: str) -> str | None:
    """What an open text says the answer is: 'so the answer is 12.' -> '12'; the last such place, None without one."""
    tail = _clean(text[-_LONGEST_ANSWER:])
    cues = list(_CUE.finditer(tail))
    if not cues:
        return None
    rest = tail[cues[-1].end() :].lstrip(" :")
    return re.split(r"[\n}]|[.!?](?=\s|$)", rest, maxsplit=1)[0].strip() or None


def choose(text: str | None, options: Sequence[str]) -> int | None:
    """Index of the option that an answer commits to; None when it commits to none, or to one of several."""
    if text is None or not options:
        return None
    tail = _clean(text[-_LONGEST_ANSWER:])
    whole, texts = plain(tail), [plain(option) for option in options]
    if not whole:
        return None
    if whole in texts:  # this comes before letters: an option that is 'a' is meant as text
        return texts.index(whole)
    found = _as_letter(whole, len(options))
    found = _by_value(whole, texts) if found is None else found
    for look in (_cued, _lists_letters, _leading_letter, _last_mention, _final_letter):
        if found is not None:
            break
        found, unsure = look(tail, texts)
        if unsure:
            return None
    return found


def _clean(text: str) -> str:
    return _MARKUP.sub(" ", text)


def _as_letter(text: str, count: int) -> int | None:
    index = ord(text) - ord("a") if len(text) == 1 else -1
    return index if 0 <= index < count else None


def _by_value(whole: str, texts: Sequence[str]) -> int | None:
    """'2.0' or 'two' for the option '2', and 'Yes, ..' or 'true' for the option 'yes'."""
    number = number_in(whole)
    if number is not None:
        equal = [index for index, text in enumerate(texts) if number_in(text) == number]
        return equal[0] if len(equal) == 1 else None
    answer = yes_or_no(whole) if set(texts) == {"yes", "no"} else None
    return texts.index(answer) if answer else None


# Each of these looks for one kind of commitment and gives the option or None, and whether the text leaves it open on
# purpose.
def _cued(tail: str, texts: Sequence[str]) -> tuple[int | None, bool]:
    """The option that the last 'answer is ..' names; 'answer is not A' names the other one of two."""
    found, denied = None, False
    for cue in _CUE.finditer(tail):
        named = _named_at(tail[cue.end() : cue.end() + 120], texts)
        if named is not None:
            denied = cue["no"] is not None
            found = named if not denied else 1 - named if len(texts) == 2 else None
    return found, denied and found is None


def _named_at(rest: str, texts: Sequence[str]) -> int | None:
    """The option whose text or letter a text begins with."""
    lowered = re.sub(r"^(?:the|an?)\s{1,3}(?=\w)", "", rest.lower().lstrip("\"'( "))
    matching = [
        (len(option), index)
        for index, option in enumerate(texts)
        if option and len(option) > 1 and re.match(rf"{re.escape(option)}(?!\w)", lowered)
    ]
    if matching:
        return max(matching)[1]
    letter = re.match(r"(\()?([A-Za-z])(?![\w'])(\)?)(.{0,2})", rest.lstrip("\"' "), re.DOTALL)
    if letter is None:
        return None
    # A small 'a' before a word is the article.
    article = letter[2] == "a" and not letter[1] and not letter[3] and re.match(r"\s\w", letter[4])
    return None if article else _as_letter(letter[2].lower(), len(texts))


_LETTERS = re.compile(r"(?<![\w'])\(?([A-Z])\)?(?![\w'])")


def _lists_letters(tail: str, texts: Sequence[str]) -> tuple[int | None, bool]:
    """'A or B', '(A), (B)', 'A/B': letters joined without a choice among them."""
    hits = [match for match in _LETTERS.finditer(tail) if _as_letter(match[1].lower(), len(texts)) is not None]
    joined = any(a[1] != b[1] and _EITHER.match(tail[a.end() : b.start()]) for a, b in itertools.pairwise(hits))
    return None, joined


def _leading_letter(tail: str, texts: Sequence[str]) -> tuple[int | None, bool]:
    """'(B) right', 'B. right' or 'B right', but not the article of 'A cat is near': a bare letter needs its option."""
    text = tail.strip()
    match = re.match(r"(\()?([A-Za-z])([).:,]{1,2}|\s|$)", text)
    letter = _as_letter(match[2].lower(), len(texts)) if match else None
    if match is None or letter is None:
        return None, False
    if match[1] or match[3].strip():
        return letter, False
    return (letter if plain(text[match.end() :]) == texts[letter] else None), False


def _last_mention(tail: str, texts: Sequence[str]) -> tuple[int | None, bool]:
    """The option whose words come last and are not denied; left open when the last two are joined by a plain 'or'."""
    whole, found = affirmed(plain(tail), texts)
    if not found:
        return None, False
    last = found[-1]
    rivals = [hit for hit in found[:-1] if hit[2] != last[2]]
    if rivals and _EITHER.match(whole[rivals[-1][1] : last[0]]):
        return None, True
    return last[2], False


def _final_letter(tail: str, texts: Sequence[str]) -> tuple[int | None, bool]:
    match = re.search(r"(?<![\w'])\(?([A-Z])[\s.)!]{0,4}$", tail)
    if match is None or _DENIAL.search(tail[: match.start()].rstrip().lower()):
        return None, False
    return _as_letter(match[1].lower(), len(texts)), False


def mentions(whole: str, texts: Sequence[str]) -> list[tuple[int, int, int]]:
    """(start, end, option) of every option text in a plain text, by where it ends; longer ones hide those inside."""
    found = []
    for index, option in enumerate(texts):
        if option:
            matches = re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", whole)
            found += [(*match.span(), index) for match in matches]

    def hidden(start: int, end: int) -> bool:
        return any(a <= start and end <= b and b - a > end - start for a, b, _ in found)

    return sorted((hit for hit in found if not hidden(*hit[:2])), key=lambda hit: hit[1])


def affirmed(whole: str, texts: Sequence[str]) -> tuple[str, list[tuple[int, int, int]]]:
    """(the text, its mentions that are not denied); where all options are numbers, with number words as digits."""
    if all(text.isdigit() for text in texts):
        whole = re.sub(r"[a-z]+", lambda match: str(NUMBERS.get(match[0], match[0])), whole)
    return whole, [hit for hit in mentions(whole, texts) if not is_denied(whole, hit)]


def is_denied(whole: str, hit: tuple[int, int, int]) -> bool:
    """Whether a mention is in a denial: 'not left', 'rather than left', 'left is wrong'."""
    before, after = whole[max(0, hit[0] - 24) : hit[0]].rstrip(), whole[hit[1] : hit[1] + 24]
    return _DENIAL.search(before) is not None or _DENIED.match(after) is not None
