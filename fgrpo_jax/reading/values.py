"""What a short text says by itself: its plain form, number, yes or no, and whether it says what another does."""

from __future__ import annotations

import math
import re
import unicodedata

from fgrpo_jax.reading.formulas import is_latex, same_formula
from fgrpo_jax.reading.words import NO, NUMBERS, YES

# Signs of one meaning. Ideographic marks become the Latin ones, so that one grammar reads both.
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u201c\u201d\u300c\u300d\u300e\u300f", '"'),
        "\u3002": ". ",
        "\u3001": ", ",
        "\u3010": "[",
        "\u3011": "]",
        "\u00a0": " ",
    }
)
_END = r"\s,;:!?\"'()\[\]{}*_`~|\u2026"
_ENDS = re.compile(rf"^(?:[{_END}]|\.(?!\d))+|[{_END}.]+$")
_NUMBER = r"[$€£]?\s?([+-]?(?:\d{1,3}(?:,\d{3}){1,6}|\d{1,30})(?:\.\d{0,30})?|[+-]?\.\d{1,30})"
_QUANTITY = re.compile(rf"{_NUMBER}\s{{0,3}}(?P<unit>[%°]?\s?[^\W\d]{{0,20}}[²³]?(?:[ /][^\W\d]{{1,20}})?)")


def fold(text: str) -> str:
    """Composed (NFC), with full-width and circled letters, dashes, quotes and ideographic stops as the plain ones."""
    if text.isascii():
        return text
    wide = (
        unicodedata.normalize("NFKC", c) if unicodedata.decomposition(c).startswith(("<wide>", "<circle>")) else c
        for c in unicodedata.normalize("NFC", text)
    )
    return "".join(wide).translate(_SAME)


def plain(text: str) -> str:
    """Lower case, composed, single spaces, without punctuation at the ends: the form in which answers are compared.

    A sign belongs to what it stands before, and `C++`, `<` or `?` are what they are.
    """
    folded = " ".join(fold(text).lower().split())
    return _ENDS.sub("", folded) or folded


def number_in(text: str) -> float | None:
    """The number that a text is: '3', '3.0', '1,000', '-2', '50%', '$5', 'three'; None for all else."""
    whole = fold(text).strip().lower().rstrip(".!").strip()
    if whole in NUMBERS:
        return float(NUMBERS[whole])
    match = re.fullmatch(rf"{_NUMBER}\s?%?", whole)
    return float(match[1].replace(",", "")) if match else None


def quantity(text: str) -> tuple[float, str] | None:
    """(value, unit) of a text that is a number with at most two words of unit behind it; the unit may be ''."""
    number, whole = number_in(text), plain(text)
    if number is not None:
        return number, ""
    match = _QUANTITY.fullmatch(whole)
    return (float(match[1].replace(",", "")), match["unit"].strip()) if match else None


def same_quantity(given: str, gold: str) -> bool:
    """Whether both are quantities of one value; units count where both have one."""
    one, other = quantity(given), quantity(gold)
    if one is None or other is None or (one[1] and other[1] and one[1] != other[1]):
        return False
    return math.isclose(one[0], other[0], rel_tol=1e-9, abs_tol=1e-12)


def yes_or_no(text: str) -> str | None:
    """'yes' or 'no' where a text is such a word, 'true' or 'false', or begins with 'yes,' or 'no,'; else None."""
    whole = plain(text)
    if match := re.match(r"(yes|no)(?:$|\s?[,.;:!])", whole):
        return match[1]
    return "yes" if whole in YES else "no" if whole in NO else None


def same_value(given: str, gold: str) -> bool:
    """Whether a text says what the gold answer says: the same words, quantity, or yes or no; LaTeX as mathematics."""
    if plain(given) == plain(gold) or same_quantity(given, gold):
        return True
    if is_latex(gold):
        return same_formula(given, gold)
    return plain(gold) in ("yes", "no") and yes_or_no(given) == plain(gold)
