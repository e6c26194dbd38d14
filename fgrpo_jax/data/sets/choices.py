"""Open answers: kept, dropped, or turned into multiple choice with wrong answers from the same set.

Wrong options are of the kind of the right one: the other of yes and no, whole numbers beside it, or answers to other
questions of the set with about as many words. Which, and in what order, depends on the example's id and the set's
answers alone. That none of them happens to be right as well cannot be known from the set; the paper does not say how it
made its options.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from fgrpo_jax.data.sets.catalogue import SetPart, SetSource
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sets.readers.texts import normal, shuffled
from fgrpo_jax.records import Example

MODES = ("keep", "drop", "choices")
WRONG = 3  # wrong options a question
_PAIRS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_REACH = 4  # whole numbers this far from the right one are options

Pools = Mapping[int, Sequence[str]]


def pools(entries: Sequence[Entry]) -> Pools:
    """The different open answers of a set, by their class of length, each class sorted."""
    found: dict[int, dict[str, str]] = collections.defaultdict(dict)
    for entry in entries:
        key = normal(entry.answer)
        if not entry.options and key not in _PAIRS and not _whole(key):
            same = found[_length(key)]
            same[key] = min(entry.answer, same.get(key, entry.answer))  # one spelling, whatever the order of rows
    return {length: sorted(answers.values()) for length, answers in found.items()}


def options_for(entry: Entry, others: Pools) -> tuple[tuple[str, ...], str] | None:
    """(options, letter of the right one) of an open question; None where the set has no fit wrong answers."""
    key = normal(entry.answer)
    if key in _PAIRS:
        wrong = [_PAIRS[key].capitalize() if entry.answer[:1].isupper() else _PAIRS[key]]
    elif _whole(key):
        near = [int(key) + step for step in range(-_REACH, _REACH + 1) if step and int(key) + step >= 0]
        wrong = [str(number) for number in _chosen(entry.id, near)]
    else:
        fit = [a for a in others.get(_length(key), ()) if normal(a) not in key and key not in normal(a)]
        wrong = list(_chosen(entry.id, fit))
    if not wrong or (len(wrong) < WRONG and key not in _PAIRS):
        return None
    return shuffled(entry.id, (entry.answer, *wrong), 0)


def _chosen(name: str, values: Sequence) -> Sequence:
    """Some of the values, by the id alone."""
    return sorted(values, key=lambda v: hashlib.blake2b(f"{name}\0{v}".encode(), digest_size=8).digest())[:WRONG]


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _length(text: str) -> int:
    """Class of a text's length: a word, two or three, more."""
    words = len(text.split())
    return 1 if words <= 1 else 2 if words <= 3 else 3


@dataclasses.dataclass(frozen=True)
class Settled:
    """What becomes of the questions of a set."""

    places: Sequence[int]  # of those that stay, in order
    options: Mapping[int, tuple[tuple[str, ...], str]]  # {place: (options, right letter)} of open ones that are turned
    kept: int  # open ones that stay open
    dropped: int  # open ones that go

    @property
    def counts(self) -> dict[str, int]:
        return {"kept": self.kept, "turned": len(self.options), "dropped": self.dropped}

    def apply(self, example: Example, place: int) -> Example:
        """The example at `place`, with the options it was given."""
        if place not in self.options:
            return example
        options, letter = self.options[place]
        return dataclasses.replace(example, options=options, answer=letter)


def settle(entries: Sequence[Entry], mode: str) -> Settled:
    """Decides over the open questions of a set.

    Args:
      mode: 'keep', 'drop', or 'choices', which drops those that the set has no fit wrong answers for.

    Raises:
      ValueError: unknown mode, or nothing would be left.
    """
    if mode not in MODES:
        raise ValueError(f"open_answers='{mode}'; use one of {', '.join(map(repr, MODES))}")
    opened = [place for place, entry in enumerate(entries) if not entry.options]
    if mode == "keep":
        return Settled(range(len(entries)), {}, len(opened), 0)
    others = pools(entries) if mode == "choices" else {}
    made = {place: options_for(entries[place], others) for place in opened} if mode == "choices" else {}
    turned = {place: options for place, options in made.items() if options is not None}
    places = [place for place, entry in enumerate(entries) if entry.options or place in turned]
    if not places:
        raise ValueError(f"all {len(entries)} questions are open, and open_answers='{mode}' leaves none; use 'keep'")
    return Settled(places, turned, 0, len(entries) - len(places))


class SettledSource(SetPart):
    """A set whose open questions are dropped or turned into multiple choice; `settled` says which."""

    def __init__(self, source: SetSource, mode: str) -> None:
        self.settled = settle(source.entries, mode)
        super().__init__(source, self.settled.places)

    def __getitem__(self, index: int) -> Example:
        return self.settled.apply(super().__getitem__(index), self.places[index])

    def outline(self, index: int) -> Example:
        return self.settled.apply(super().outline(index), self.places[index])

    @property
    def entries(self) -> Sequence[Entry]:
        options = self.settled.options
        return [
            dataclasses.replace(entry, answer=options[place][1], options=len(options[place][0]))
            if place in options
            else entry
            for place, entry in zip(self.places, super().entries, strict=True)
        ]
