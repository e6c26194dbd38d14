"""What published texts hide: options inside the question, instructions to the model, answers in five notations.

Options are only ever found as a whole chain of labels from A on, so that "vitamin C." or "point B." in a question is no
option. Order of options is a function of the example's id alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from fgrpo_jax.data.styles import LETTERS

_PLACEHOLDERS = re.compile(r"<(?:image|video)(?:_\d+|\s+\d+)?>[ \t]*\n?")
_INSTRUCTIONS = re.compile(
    r"(?:please )?(?:"
    r"answer directly with (?:only the letter of the correct option and nothing else|a single word or number)"
    r"|answer (?:the question )?(?:using|with) a single word or phrase"
    r"|answer with the (?:option'?s letter from the given choices directly|text of the option|letter of the option)"
    r"|select the correct answer from the options above"
    r"|(?:only )?answer with the option'?s letter"
    r")\.?",
    re.IGNORECASE,
)
_HEADINGS = re.compile(
    r"(?:answer choices|choices|options|select from the following choices)\s*[:.]?\s*$", re.IGNORECASE
)
_LEADS = re.compile(r"^\s*question\s*:\s*", re.IGNORECASE)
_LABELS = (  # (A) x   (a) x | A. x   A) x   A: x
    re.compile(r"(?:^|(?<=\s))\((?P<letter>[A-Za-z])\)\s*"),
    re.compile(r"(?:^|(?<=\s))(?P<letter>[A-Z])[.):]\s+"),
)
_GLUED = re.compile(r"\((?P<letter>[A-Za-z])\)\s*")


def plain(text: str) -> str:
    """A question without image placeholders, instructions to the model and a leading 'Question:'."""
    return _LEADS.sub("", _INSTRUCTIONS.sub("", _PLACEHOLDERS.sub("", text))).strip()


def split_options(text: str, *, alone: bool = False) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text that holds both; () where it holds no options.

    The longest chain of labels A, B, … of one notation is taken, the last of those equally long.

    Args:
      alone: the text is nothing but options, so that "(a)Open(b)Closed" is read too.
    """
    text = plain(text)
    best: list[re.Match[str]] = []
    for pattern in (*_LABELS, _GLUED) if alone else _LABELS:
        found = list(pattern.finditer(text))
        for start, match in enumerate(found):
            if match["letter"].upper() != "A":
                continue
            chain = [match]
            for later in found[start + 1 :]:
                if later["letter"].upper() == LETTERS[len(chain)]:
                    chain.append(later)
            best = chain if len(chain) >= max(2, len(best)) else best
    if not best:
        return text, ()
    ends = [match.start() for match in best[1:]] + [len(text)]
    options = tuple(text[match.end() : end].strip() for match, end in zip(best, ends, strict=True))
    if not all(options):
        return text, ()
    return _HEADINGS.sub("", text[: best[0].start()].strip()).strip(), options


def distinct(options: Sequence[str]) -> tuple[str, ...]:
    """Options without repetitions, in order. For answers that are published as texts: a repeated one has two places."""
    return tuple(dict.fromkeys(option.strip() for option in options))


def letter(answer: str, options: Sequence[str]) -> str | None:
    """'A'.. of an answer written as 'C', 'c', '(C)', 'C.' or 'C. text'; None when it is none of them.

    For sets whose answers are letters by their documentation; a text that happens to be one letter is not tried.
    """
    match = re.match(r"\s*\(?([A-Za-z])\)?\s*(?:$|[.:)]\s*(?P<text>.*)$)", answer, re.DOTALL)
    if match is None or match[1].upper() not in LETTERS[: len(options)]:
        return None
    text, found = match["text"], match[1].upper()
    if text and normal(text) != normal(options[LETTERS.index(found)]):
        return None
    return found


def letter_of_text(answer: str, options: Sequence[str]) -> str | None:
    """'A'.. of the one option that reads as `answer`, but for case, spaces, a full stop; None for none or several."""
    found = [place for place, option in enumerate(options) if normal(option) == normal(answer)]
    return LETTERS[found[0]] if len(found) == 1 else None


def normal(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.lower().split()).rstrip(".")


def shuffled(name: str, options: Sequence[str], right: int, *, rotation: int = 0) -> tuple[tuple[str, ...], str]:
    """Options in an order that depends on `name` alone, and the letter of the right one.

    Args:
      name: id of the example.
      right: place of the right option as published.
      rotation: places by which the order is turned to the left, for circular evaluation.
    """
    places = list(range(len(options)))
    places.sort(key=lambda place: hashlib.blake2b(f"{name}\0{place}".encode(), digest_size=8).digest())
    turned = [places[(at + rotation) % len(places)] for at in range(len(places))]
    return tuple(options[place] for place in turned), LETTERS[turned.index(right)]
