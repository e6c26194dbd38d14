"""R_C: does the reasoning entail the answer? Text only: neither the image nor the truth of the reasoning matters.

What the reasoning is committed to is looked for in this order, later sentences overriding earlier ones:

1. claims about the very relation asked ("The red circle is left of the blue square.");
2. what follows from the boxes it claims, where it makes no such claim;
3. what it says the answer is ("So the answer is B."), which must agree with 1 or 2, or stands alone.

Nothing found is UNCERTAIN, which counts as inconsistent. That is `entails`, for training on the built-in world: it
reads the world's grammar and no more. `precheck` serves any multiple-choice text and all wordings: it decides the
clear cases and leaves the others to a judge that can read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from fgrpo_jax.records import Box, Query
from fgrpo_jax.rewards.answers import choose, is_denied, mentions, plain
from fgrpo_jax.rewards.claims import Claim, read
from fgrpo_jax.rewards.commitments import Commitment, commitment, names_an_option
from fgrpo_jax.rewards.dialects import in_paper_notation
from fgrpo_jax.rewards.parsing import Parsed, answer_index
from fgrpo_jax.rewards.relations import OPPOSITE, distance, holds, is_between, is_inside
from fgrpo_jax.rewards.sentences import Trivial
from fgrpo_jax.rewards.silence import is_silent, takes_back
from fgrpo_jax.rewards.verdict import Verdict
from fgrpo_jax.rewards.wide import read_widely
from fgrpo_jax.rewards.words import COLORS, NUMBERS, SHAPES, SIZES

Yes = Literal["supported", "concluded"]

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
    claims = [
        claim for sentence in parsed.sentences for claim in read(in_paper_notation(sentence, parsed.dialect)).claims
    ]
    concluded = _concluded(claims, options)
    entailed = _Argument(query, options, claims).entailed()
    if entailed is None:
        entailed = concluded
    elif concluded is not None and concluded != entailed:
        return Verdict.NO
    if entailed is None:
        return Verdict.UNCERTAIN
    return Verdict.YES if entailed == answered else Verdict.NO


def _concluded(claims: Sequence[Claim], options: Sequence[str]) -> int | None:
    """The option of the last 'the answer is ..' that names one."""
    for claim in reversed(claims):
        if claim.kind == "conclusion":
            named = choose(claim.text, options)
            if named is not None and not claim.negated:
                return named
            if named is not None and len(options) == 2:
                return 1 - named
    return None


# ------------------------------------------------------------------------------------------------------- the pre-check
@dataclasses.dataclass(frozen=True)
class _Step:
    """A sentence: what it claims, where it stands towards the options, and whether it stayed dark."""

    claims: tuple[Claim, ...]
    stance: Commitment | None
    dark: bool
    text: str


def precheck(
    parsed: Parsed, options: Sequence[str], *, query: Query | None = None, yes: Yes = "supported"
) -> Verdict | None:
    """The verdict where the text makes it clear, and None where somebody else must judge.

    With a structured question the reasoning is read as in `entails`, but in free wordings too, and what could not be
    read stands in the way of a verdict when it may decide. Without one, only what is said of the options counts: the
    last one committed to against the answer.

    Args:
      yes: without a structured question, what is enough for YES. 'supported': the rest of the reasoning speaks of the
        option concluded on and of no other, or says nothing; else a policy could write any reasoning and close with
        "so the answer is B", and no judge would ever look. 'concluded': the conclusion alone, for rules that stand on
        their own: where YES needs more than NO, the mean over decided responses is biased.
    """
    if not parsed.sentences:
        return Verdict.NO
    answered = answer_index(parsed, options)
    if answered is None:
        return Verdict.UNCERTAIN
    widely = query is not None
    steps = [_step(in_paper_notation(text, parsed.dialect), options, widely=widely) for text in parsed.sentences]
    if query is None:
        return _by_stance(steps, options, answered, yes)
    return _by_argument(steps, options, answered, query)


def _step(sentence: str, options: Sequence[str], *, widely: bool) -> _Step:
    reading = read_widely(sentence)
    facts = tuple(claim for claim in reading.claims if claim.kind != "conclusion")
    stance = _stated(reading.claims, options)
    if stance is None and not facts:
        stance = commitment(sentence, options, widely=widely)
    unread = not reading.understood and stance is None
    silent = _TRIVIAL(sentence) or is_silent(sentence)
    dark = unread and (not silent or names_an_option(sentence, options))
    return _Step(facts, stance, dark, plain(sentence))


_TRIVIAL = Trivial()


def _stated(claims: Sequence[Claim], options: Sequence[str]) -> Commitment | None:
    """'The answer is ..' as a stance."""
    for claim in reversed(claims):
        named = choose(claim.text, options) if claim.kind == "conclusion" else None
        if named is not None:
            return Commitment("denies" if claim.negated else "commits", frozenset({named}))
    return None


def _settled(steps: Sequence[_Step], count: int) -> tuple[int | None, int, bool]:
    """(the option the text ends up committed to, where it does, whether a hedge stands after it).

    Of the options that are left when all the others are ruled out, one is as good as committed to.
    """
    found, at, hedged = None, -1, False
    denied: set[int] = set()
    for index, step in enumerate(steps):
        if step.stance is None:
            continue
        if step.stance.stance == "hedges":
            hedged = True
            continue
        if step.stance.stance == "commits":
            found, at, hedged = step.stance.only, index, False
            denied.discard(found)
            continue
        denied |= step.stance.options
        left = set(range(count)) - denied
        if found in denied:
            found = None
        if len(left) == 1:
            found, at, hedged = left.pop(), index, False
    return found, at, hedged


def _by_stance(steps: Sequence[_Step], options: Sequence[str], answered: int, yes: Yes) -> Verdict | None:
    committed, at, hedged = _settled(steps, len(options))
    if committed is None:
        open_ = [step.stance.options for step in steps if step.stance is not None and step.stance.stance == "hedges"]
        last = steps[-1].stance is not None and steps[-1].stance.stance == "hedges"
        return Verdict.UNCERTAIN if open_ and last and len(open_[-1]) > 1 else None
    if hedged or any(_TURNS.search(step.text) or (step.dark and _named(step, options)) for step in steps[at + 1 :]):
        return None
    if committed != answered:
        return Verdict.NO
    return Verdict.YES if yes == "concluded" or _supports(steps, options, committed) else None


def _supports(steps: Sequence[_Step], options: Sequence[str], committed: int) -> bool:
    """Whether what is not about the options speaks for one: it names that one and no other, or it says nothing.

    And nothing spoke for another one, or against it, without being taken back: 'the uniform suggests baseball; the
    answer is tennis'.
    """
    back = max((index for index, step in enumerate(steps) if _TURNS.search(step.text)), default=-1)
    for stance in (step.stance for step in steps[max(back, 0) :] if step.stance is not None):
        if stance.stance == "commits" and stance.options != {committed}:
            return False
        if stance.stance == "denies" and committed in stance.options:
            return False
    body = [step for step in steps if step.stance is None and not _TRIVIAL.is_idle(step.text)]
    named = {option for step in body for option in _named(step, options)}
    return named == {committed} if body else True


_TURNS = re.compile(
    r"^(?:wait|actually|hold on|on second|no\b|but|however|hmm|let me (?:correct|re))|\b(?:mistake|misread)\b"
)


def _named(step: _Step, options: Sequence[str]) -> set[int]:
    """Options whose text a sentence holds and does not deny."""
    texts, text = [plain(option) for option in options], step.text
    if all(option.isdigit() for option in texts):
        text = re.sub(r"[a-z]+", lambda match: str(NUMBERS.get(match[0], match[0])), text)
    return {hit[2] for hit in mentions(text, texts) if not is_denied(text, hit)}


def _by_argument(steps: Sequence[_Step], options: Sequence[str], answered: int, query: Query) -> Verdict | None:
    argument = _Argument(query, options, [claim for step in steps for claim in step.claims])
    touching = [i for i, step in enumerate(steps) if any(argument.touches(claim) for claim in step.claims)]
    decided = touching[-1] if touching else -1
    # A later claim stands in the place of an earlier one; but not of one about the other axis.
    open_to_doubt = steps if query.family == "compound" else steps[decided + 1 :]
    if any(step.dark and argument.may_concern(step.text) for step in open_to_doubt):
        return None
    entailed = argument.entailed()
    # What was concluded before the last word on the matter is out of date.
    committed, _, hedged = _settled(steps[decided + 1 :], len(options))
    if hedged and entailed is not None:
        return None
    if entailed is None:
        entailed = committed
    elif committed is not None and committed != entailed:
        return Verdict.NO
    if entailed is None:
        return Verdict.UNCERTAIN
    return Verdict.YES if entailed == answered else Verdict.NO


_THING = re.compile(rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})")


_ONE_MORE = re.compile(
    r"\b(?:one|ones|another|more|others?|further|extra|additional|too|also|as well|twice|again|same|round|both|pair|"
    r"second|third|fourth|fifth|last|next)\b"
)


class _Argument:
    """What a reasoning says on a structured question."""

    def __init__(self, query: Query, options: Sequence[str], claims: Sequence[Claim]) -> None:
        self.query = query
        self.options = [plain(option) for option in options]
        self.claims = claims
        self.yes_no = set(self.options) == {"yes", "no"}
        # The last box claimed for each thing.
        self.boxes: dict[str, Box] = {
            claim.things[0].name: claim.box
            for claim in claims
            if claim.kind == "at" and claim.box is not None and not claim.negated
        }

    def entailed(self) -> int | None:
        """Index of the entailed option, NONE_OF_THEM, or None when nothing is entailed."""
        family = self.query.family
        if family == "counting":
            return self._counting()
        if family in ("nearest", "farthest", "between", "inside"):
            return self._picking()
        return self._sides()

    def touches(self, claim: Claim) -> bool:
        """Whether a claim is a word on the matter asked: a claim about it that is no box."""
        names = {thing.name for thing in claim.things}
        if self.query.family == "counting":
            return claim.kind == "count" and self.query.args[0] in names
        if self.query.family in ("nearest", "farthest", "between", "inside"):
            fixed = self.query.args[:2] if self.query.family == "between" else self.query.args[:1]
            return self._picked(claim, fixed) is not None
        return claim.kind in ("relation", "size") and names <= set(self.query.args)

    def may_concern(self, text: str) -> bool:
        """Whether a sentence that was not read may be a word on the matter asked.

        It may when it names nothing, or what is asked about, or takes something back. A number is also concerned by
        what may be one more of the kind.
        """
        named, asked = set(_THING.findall(text)), set(self.query.args)
        if not named or takes_back(text):
            return True
        if self.query.family == "counting":
            return self.query.args[0] in text or _ONE_MORE.search(text) is not None
        return not named.isdisjoint(asked) or (len(named) == 1 and not named.isdisjoint(self.options))

    def _option(self, text: str) -> int:
        return self.options.index(text) if text in self.options else NONE_OF_THEM

    def _yes(self, truth: bool) -> int:
        return self._option("yes" if truth else "no")

    # One or two relations of a pair, each on its axis: left_right, above_below, larger, compound.
    def _sides(self) -> int | None:
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
        for fact in (relation, OPPOSITE[relation]):
            if holds(fact, self.boxes[a], self.boxes[b]):
                return fact
        return None

    # One object picked among several: nearest, farthest, between, inside.
    def _picking(self) -> int | None:
        family, args = self.query.family, self.query.args
        fixed = args[:2] if family == "between" else args[:1]
        candidate = args[len(fixed)] if len(args) > len(fixed) else None
        said = [pick for claim in self.claims if (pick := self._picked(claim, fixed)) is not None]
        if candidate is not None:
            return self._candidate(candidate, fixed, said)
        denied = {name for name, positive in said if not positive}
        for name, positive in reversed(said):
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

    def _candidate(self, candidate: str, fixed: Sequence[str], said: Sequence[tuple[str, bool]]) -> int | None:
        """Yes/no: 'is this one it?'. Only one can be nearest; several can be between or inside."""
        unique = self.query.family in ("nearest", "farthest")
        for name, positive in reversed(said):
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
        number = None
        for claim in self.claims:
            if claim.kind == "count" and claim.things[0].name == kind and claim.things[0].size is None:
                number = claim.number
        if number is None:
            located = {name for name in self.boxes if kind in name.split()}
            number = len(located) if located else None
        if number is None:
            return None
        if self.yes_no:
            return self._yes(str(number) == self.query.args[1])
        return self._option(str(number))
