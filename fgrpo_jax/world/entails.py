"""R_C: does the reasoning entail the answer? Text only: neither the image nor the truth of the reasoning matters.

What the reasoning is committed to is looked for in this order, later sentences overriding earlier ones:

1. claims about the very relation asked ("The red circle is left of the blue square.");
2. what follows from the boxes it claims, where it makes no such claim;
3. what it says the answer is ("So the answer is B."), which must agree with 1 or 2, or stands alone.

Nothing found is UNCERTAIN, which counts as inconsistent. The world's grammar is read and no more; for any other text
there is `reading.precheck`, which decides the clear cases and leaves the others to a judge that can read.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgrpo_jax.reading.answers import choose
from fgrpo_jax.reading.dialects import in_paper_notation
from fgrpo_jax.reading.parsing import Parsed, answer_index
from fgrpo_jax.reading.values import plain
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.reading.words import SIZES
from fgrpo_jax.records import Box, Query
from fgrpo_jax.world.grammar import Claim, read
from fgrpo_jax.world.relations import OPPOSITE, distance, holds, is_between, is_inside

NONE_OF_THEM = -1
"""Entailed 'option' of a reasoning whose claim fits no option: inconsistent with every answer."""


def entails(parsed: Parsed, options: Sequence[str], *, query: Query) -> Verdict:
    """YES, NO or UNCERTAIN: whether the reasoning entails the answer given to a structured question.

    Empty reasoning is NO. No readable answer is UNCERTAIN.
    """
    if not parsed.sentences:
        return Verdict.NO
    answered = answer_index(parsed, options)
    if answered is None:
        return Verdict.UNCERTAIN
    readings = [read(in_paper_notation(sentence, parsed.dialect)) for sentence in parsed.sentences]
    claims = [claim for reading in readings for claim in reading.claims]
    found = {_Argument(query, options, claims).entailed(), _concluded(claims, options)} - {None}
    if not found:
        return Verdict.UNCERTAIN
    return Verdict.YES if found == {answered} else Verdict.NO


def _concluded(claims: Sequence[Claim], options: Sequence[str]) -> int | None:
    """The option of the last 'the answer is ..' that names one."""
    for claim in reversed(claims):
        if claim.kind == "conclusion":
            named = choose(claim.text, options)
            if named is not None and (not claim.negated or len(options) == 2):
                return 1 - named if claim.negated else named
    return None


class _Argument:
    """What a reasoning says on a structured question."""

    def __init__(self, query: Query, options: Sequence[str], claims: Sequence[Claim]) -> None:
        self.query = query
        self.options = [plain(option) for option in options]
        self.claims = claims
        self.yes_no = set(self.options) == {"yes", "no"}
        # Of several boxes that are claimed for a thing the last one stands.
        self.boxes: dict[str, Box] = {
            claim.things[0].name: claim.box
            for claim in claims
            if claim.kind == "at" and claim.box is not None and not claim.negated
        }

    def entailed(self) -> int | None:
        """Index of the entailed option, NONE_OF_THEM, or None when nothing is entailed."""
        if self.query.family == "counting":
            return self._counting()
        picking = self.query.family in ("nearest", "farthest", "between", "inside")
        return self._picking() if picking else self._sides()

    def _option(self, text: str) -> int:
        return self.options.index(text) if text in self.options else NONE_OF_THEM

    def _yes(self, truth: bool) -> int:
        return self._option("yes" if truth else "no")

    def _sides(self) -> int | None:
        """One or two relations of a pair, each on its axis: left_right, above_below, larger, compound."""
        asked = self.query.relation.split("+")
        subject, *others = self.query.args
        pairs = [(subject, others[min(i, len(others) - 1)]) for i in range(len(asked))]
        facts = [self._claimed(relation, *pair) for relation, pair in zip(asked, pairs, strict=True)]
        for i, (relation, pair) in enumerate(zip(asked, pairs, strict=True)):
            facts[i] = facts[i] or self._seen(relation, *pair)
        if self.yes_no:
            if any(fact == OPPOSITE[relation] for fact, relation in zip(facts, asked, strict=True)):
                return self._yes(False)
            return self._yes(True) if facts == asked else None
        known = [fact for fact in facts if fact is not None]
        if len(known) < len(facts):
            return None
        if self.query.family == "larger":
            return self._option(subject if known == asked else others[0])
        return self._option(" and ".join(known))

    def _claimed(self, relation: str, a: str, b: str) -> str | None:
        """The relation of a to b on the axis of `relation` by the last claim about it."""
        fact = self._by_size_words(relation, a, b)
        for claim in self.claims:
            if claim.kind != "relation" or claim.relation not in (relation, OPPOSITE[relation]):
                continue
            names = (claim.things[0].name, claim.things[1].name)
            if names in ((a, b), (b, a)):
                turned = (names == (b, a)) != claim.negated
                fact = OPPOSITE[claim.relation] if turned else claim.relation
        return fact

    def _by_size_words(self, relation: str, a: str, b: str) -> str | None:
        if relation not in ("larger", "smaller"):
            return None
        sizes = {
            claim.things[0].name: SIZES.index(claim.relation)
            for claim in self.claims
            if claim.kind == "size" and not claim.negated
        }
        if a not in sizes or b not in sizes or sizes[a] == sizes[b]:
            return None
        return "larger" if sizes[a] > sizes[b] else "smaller"

    def _seen(self, relation: str, a: str, b: str) -> str | None:
        """The same from the boxes claimed."""
        if a not in self.boxes or b not in self.boxes:
            return None
        facts = (relation, OPPOSITE[relation])
        return next((fact for fact in facts if holds(fact, self.boxes[a], self.boxes[b])), None)

    def _picking(self) -> int | None:
        """One object picked among several: nearest, farthest, between, inside."""
        family, args = self.query.family, self.query.args
        fixed = args[:2] if family == "between" else args[:1]
        candidate = args[len(fixed)] if len(args) > len(fixed) else None
        picks = [pick for claim in self.claims if (pick := self._picked(claim, fixed)) is not None]
        if candidate is not None:
            return self._candidate(candidate, fixed, picks)
        denied = {name for name, positive in picks if not positive}
        for name, positive in reversed(picks):
            if positive:
                return self._option(name)
        left = [option for option in self.options if option not in denied]
        if denied and len(left) == 1:
            return self._option(left[0])
        return self._pick_by_boxes(fixed)

    def _picked(self, claim: Claim, fixed: Sequence[str]) -> tuple[str, bool] | None:
        """(name, affirmed) if the claim says of something that it is, or is not, what is asked for."""
        names = [thing.name for thing in claim.things]
        family = self.query.family
        if family in ("nearest", "farthest"):
            if claim.kind == "extreme" and claim.relation == family and names[1] == fixed[0]:
                return names[0], not claim.negated
            return self._compared(claim, names, fixed[0])
        if family == "between" and claim.kind == "between" and set(names[1:]) == set(fixed):
            return names[0], not claim.negated
        if family == "inside" and claim.kind == "relation" and claim.relation == "inside" and names[1] == fixed[0]:
            return names[0], not claim.negated
        return None

    def _compared(self, claim: Claim, names: Sequence[str], reference: str) -> tuple[str, bool] | None:
        """'x is nearer to the reference than y' denies y the nearest place."""
        wanted = {"nearest": "nearer", "farthest": "farther"}[self.query.family]
        if claim.kind != "nearer" or names[1] != reference:
            return None
        return (names[2] if (claim.relation == wanted) != claim.negated else names[0]), False

    def _candidate(self, candidate: str, fixed: Sequence[str], picks: Sequence[tuple[str, bool]]) -> int | None:
        """Yes/no: 'is this one it?'. Only one can be nearest; several can be between or inside."""
        unique = self.query.family in ("nearest", "farthest")
        for name, positive in reversed(picks):
            if name == candidate:
                return self._yes(positive)
            if positive and unique:
                return self._yes(False)
        if not unique:
            if any(name not in self.boxes for name in (*fixed, candidate)):
                return None
            return self._yes(self._fits(candidate, fixed))
        best = self._best_by_boxes(fixed[0])
        return None if best is None or candidate not in self.boxes else self._yes(best == candidate)

    def _fits(self, name: str, fixed: Sequence[str]) -> bool:
        boxes = [self.boxes[other] for other in fixed]
        if self.query.family == "between":
            return is_between(self.boxes[name], boxes[0], boxes[1])
        return is_inside(self.boxes[name], boxes[0])

    def _pick_by_boxes(self, fixed: Sequence[str]) -> int | None:
        """Choice: needs the boxes of everything fixed and of every option."""
        if any(name not in self.boxes for name in (*fixed, *self.options)):
            return None
        if self.query.family in ("between", "inside"):
            fitting = [option for option in self.options if self._fits(option, fixed)]
            return self._option(fitting[0]) if len(fitting) == 1 else None
        best = self._best_by_boxes(fixed[0])
        return None if best is None else self._option(best)

    def _best_by_boxes(self, reference: str) -> str | None:
        """The nearest or farthest of at least two located things."""
        others = [name for name in self.boxes if name != reference]
        if reference not in self.boxes or len(others) < 2:
            return None
        sign = 1 if self.query.family == "nearest" else -1
        return min(others, key=lambda name: sign * distance(self.boxes[reference], self.boxes[name]))

    def _counting(self) -> int | None:
        kind = self.query.args[0]
        counts = [claim for claim in self.claims if claim.kind == "count" and claim.things[0].size is None]
        located = sum(kind in name.split() for name in self.boxes)
        numbers = [claim.number for claim in counts if claim.things[0].name == kind] or ([located] if located else [])
        if not numbers:
            return None
        number = str(numbers[-1])
        return self._yes(number == self.query.args[1]) if self.yes_no else self._option(number)
