"""A labelled set for auditing judges: traces of the built-in world in other words, with verdicts known by construction.

Each trace states facts of a scene, true or false on purpose, and answers with what they entail, or with something
else, or after saying nothing that decides. So it is known whether the reasoning entails the answer, and of every
sentence whether it is true. Nothing of this is read off the text: the labels are made with the facts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from audit.wordings import OPPOSITES, WORDINGS
from fgrpo_jax.reading.frames import area, iou
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.reading.words import COLORS, NUMBERS, SHAPES
from fgrpo_jax.records import Box, Example, Scene, SceneObject
from fgrpo_jax.world.examples import World
from fgrpo_jax.world.questions import PHRASES, count_sentence, plural, sentence
from fgrpo_jax.world.relations import OPPOSITE, extreme, holds, is_between, offset
from fgrpo_jax.world.scenes import DIFFICULTIES, name_of
from fgrpo_jax.world.traces import box_text, letter

DIFFICULTY = "easy"  # of the scenes
KINDS = (
    "consistent_grounded",  # true facts, and the answer that follows
    "consistent_ungrounded",  # a false fact, and the wrong answer that follows
    "inconsistent_grounded",  # true facts, and another answer
    "inconsistent_ungrounded",  # a false fact, and yet the right answer
    "contradiction",  # facts that speak for one option, a conclusion for another, which is the answer
    "ambiguous",  # nothing that decides, or a hedge
    "mixed",  # the answer follows; true and false facts besides
    "corrected",  # a false fact, taken back; the answer follows from what stands last
    "concluded",  # no deciding fact, only a conclusion: the same as the answer or another
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One sentence, and the verdict it deserves."""

    text: str
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A response with its verdicts.

    Attributes:
      id: unique in the set.
      kind: one of KINDS.
      example: the question; boxes of the response are in the frame of its image as published.
      response: '<think>..</think><answer>..</answer>'.
      consistency: YES, NO or UNCERTAIN.
      sentences: those of the reasoning, in order.
    """

    id: str
    kind: str
    example: Example
    response: str
    consistency: Verdict
    sentences: tuple[Sentence, ...]


@dataclasses.dataclass(frozen=True)
class Fact:
    """What a sentence says of a scene, true or not: a relation of the things named, 'exists', or 'count'."""

    relation: str
    names: tuple[str, ...]
    number: int = 0
    negated: bool = False

    @property
    def opposite(self) -> Fact:
        """The same things in the opposite relation."""
        return dataclasses.replace(self, relation=OPPOSITE[self.relation])


def labelled(index: int, *, seed: int = 7) -> Labelled:
    """Trace `index`, the same at every call; the kinds take turns."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))
    example = World(DIFFICULTY, split_seed=seed).example(index, split="validation", with_trace=False)
    return _Writer(example, rng).write(KINDS[index % len(KINDS)], f"labelled-{index}")


def labelled_set(count: int = 1_200, *, seed: int = 7) -> list[Labelled]:
    """The first `count` traces."""
    return [labelled(index, seed=seed) for index in range(count)]


# -------------------------------------------------------------------------------------------------------------- truth
def is_true(fact: Fact, scene: Scene) -> bool:
    """Whether a fact holds in a scene."""
    return _holds(fact, scene) != fact.negated


def _holds(fact: Fact, scene: Scene) -> bool:
    if fact.relation == "count":
        return _count(fact.names[0], scene) == fact.number
    if fact.relation == "exists":
        return any(name_of(thing) == fact.names[0] for thing in scene.objects)
    things = _things(fact, scene)
    boxes = [thing.box for thing in things]
    if fact.relation in ("nearest", "farthest"):
        others = [thing for thing in scene.objects if thing != things[1]]
        return others[extreme(fact.relation, boxes[1], [other.box for other in others])] == things[0]
    return is_between(*boxes) if fact.relation == "between" else holds(fact.relation, *boxes)


def _count(kind: str, scene: Scene) -> int:
    return sum(kind in (thing.color, thing.shape) for thing in scene.objects)


def _things(fact: Fact, scene: Scene) -> list[SceneObject]:
    named = {name_of(thing): thing for thing in scene.objects}
    return [named[name] for name in fact.names]


# ------------------------------------------------------------------------------------------------------------- writing
class _Writer:
    """Writes one trace."""

    def __init__(self, example: Example, rng: np.random.Generator) -> None:
        assert example.scene is not None and example.query is not None
        self.example, self.scene, self.query, self.rng = example, example.scene, example.query, rng
        self.gold = ord(example.answer) - ord("A")
        self.things = {name_of(thing): thing for thing in self.scene.objects}
        self.out: list[Sentence] = []
        self.said: set[Fact] = set()

    def write(self, kind: str, id: str) -> Labelled:
        """The trace of a kind."""
        if self._chance(0.4) or kind == "ambiguous":  # empty reasoning would be NO
            self._add("idle", Verdict.SKIP)
        claimed = self.gold if kind not in ("consistent_ungrounded", "inconsistent_ungrounded") else self._other()
        decides = kind not in ("ambiguous", "concluded")
        self._locate(wrong=kind == "mixed" and self._chance(0.5), few=not decides)
        if kind == "mixed" or self._chance(0.3):
            self._aside(true=True)
        if kind in ("mixed", "consistent_ungrounded") and self._chance(0.6):
            self._aside(true=False)
        if kind == "corrected":
            self._decide(self._other())
        if decides:
            self._decide(claimed, correcting=kind == "corrected")
        answered, verdict = self._end(kind, claimed)
        shown = letter(answered) if self._chance(0.5) else self.example.options[answered]
        response = f"<think>{' '.join(s.text for s in self.out)}</think><answer>{shown}</answer>"
        return Labelled(id, kind, self.example, response, verdict, tuple(self.out))

    def _end(self, kind: str, claimed: int) -> tuple[int, Verdict]:
        """Writes what follows the facts: (the answer, whether the reasoning entails it)."""
        if kind == "ambiguous":
            any_of_them = range(len(self.example.options))
            if self._chance(0.7):
                self._conclude("hedge", self._one_of(any_of_them))
            return self._one_of(any_of_them), Verdict.UNCERTAIN
        if kind == "concluded":
            self._conclude("conclusion", claimed)
            return (claimed, Verdict.YES) if self._chance(0.5) else (self._other(claimed), Verdict.NO)
        if kind == "contradiction":
            other = self._other(claimed)
            self._conclude("conclusion", other)
            return other, Verdict.NO
        if self._chance(0.15):
            self._conclude("elimination", self._other(claimed))
        if self._chance(0.5):
            self._conclude("conclusion", claimed)
        if kind == "inconsistent_grounded":
            return self._other(claimed), Verdict.NO
        if kind == "inconsistent_ungrounded":
            return self.gold, Verdict.NO
        return claimed, Verdict.YES

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _one_of(self, pool: Sequence[T]) -> T:
        return pool[int(self.rng.integers(len(pool)))]

    def _other(self, avoid: int | None = None) -> int:
        avoid = self.gold if avoid is None else avoid
        return self._one_of([at for at in range(len(self.example.options)) if at != avoid])

    def _add(self, what: str, verdict: Verdict, **known: str) -> None:
        """Writes a sentence by one of the wordings; words in braces that are not known mean themselves."""
        text = self._one_of(WORDINGS[what]).format_map(_Itself(known))
        self.out.append(Sentence(text[:1].upper() + text[1:], verdict))

    def _conclude(self, what: str, option: int) -> None:
        texts = self.example.options
        self._add(what, Verdict.SKIP, o=texts[option], L=letter(option), p=texts[self._other(option)])

    def _locate(self, *, wrong: bool, few: bool) -> None:
        """Says where the objects of the question are: all of them most of the time, at most one if `few`."""
        asked = [name for name in self.query.args if name in self.things]
        if self.query.family == "counting":
            asked = [] if few else [name for name in self.things if self.query.args[0] in name.split()]
        if few:
            asked = asked[: self._one_of((0, 1))]
        elif self._chance(0.3):
            return
        missed = self._one_of(asked) if wrong and asked else None
        for name in asked:
            thing = self.things[name]
            box = self._wrong_box(thing.box) if name == missed else thing.box
            verdict = Verdict.INCORRECT if name == missed else Verdict.CORRECT
            self._add("at", verdict, a=f"the {name}", box=box_text(box))

    def _wrong_box(self, right: Box) -> Box:
        """A box of the same size elsewhere in the image."""
        width, height = right[2] - right[0], right[3] - right[1]
        while True:
            x = float(self.rng.integers(int(self.scene.width - width) + 1))
            y = float(self.rng.integers(int(self.scene.height - height) + 1))
            box = (x, y, x + width, y + height)
            if iou(box, right) < 0.2:
                return box

    # Facts.
    def _decide(self, option: int, *, correcting: bool = False) -> None:
        """Says what entails an option; the first of it as a correction if `correcting`."""
        for at, fact in enumerate(self._facts_for(option)):
            if correcting and at == 0:
                self._say(fact, "correction", claim=self._clause(fact))
            else:
                self._state(fact)

    def _facts_for(self, option: int) -> list[Fact]:
        """What entails an option: true facts for the right one, and at least one false for the others."""
        family, args, text = self.query.family, self.query.args, self.example.options[option]
        if set(self.example.options) == {"yes", "no"}:
            return self._facts_for_yes_no(text == "yes", right=option == self.gold)
        if family in ("left_right", "above_below"):
            return [Fact(text, args)]
        if family == "compound":
            return [Fact(side, args[:2]) for side in text.split(" and ")]
        if family == "larger":
            return [Fact(self.query.relation, (text, args[0] if text == args[1] else args[1]))]
        if family == "counting":
            return [Fact("count", args, number=int(text))]
        return [Fact(self.query.relation, (text, *args[:2]))]

    def _facts_for_yes_no(self, yes: bool, *, right: bool) -> list[Fact]:
        family, args, relation = self.query.family, self.query.args, self.query.relation
        if family in ("left_right", "above_below", "larger"):
            return [Fact(relation if yes else OPPOSITE[relation], args)]
        if family == "compound":
            first, second = relation.split("+")
            facts = [Fact(first, args[:2]), Fact(second, (args[0], args[-1]))]
            if yes:
                return facts
            if right:  # what is true of each: at least one is not as asked
                return [fact if is_true(fact, self.scene) else fact.opposite for fact in facts]
            return self._one_of(([facts[0].opposite, facts[1]], [facts[0], facts[1].opposite]))
        if family == "counting":
            said = int(args[1]) if yes else self._one_of([n for n in range(1, 5) if n != int(args[1])])
            return [Fact("count", args[:1], number=_count(args[0], self.scene) if right else said)]
        if family in ("between", "inside"):
            return [Fact(relation, (args[-1], *args[:-1]), negated=not yes)]
        others = [name for name in self.things if name not in args]
        if right:
            others = [name for name in others if _holds(Fact(relation, (name, args[0])), self.scene)]
        return [Fact(relation, (args[1] if yes else self._one_of(others), args[0]))]

    def _aside(self, *, true: bool) -> None:
        """A fact beside the point: on a pair, or of a thing, that is not asked about."""
        about = set(self.query.args)
        pairs = [(a, b) for a in self.things for b in self.things if a != b and not {a, b} <= about]
        facts = [Fact(relation, pair) for pair in pairs for relation in self._contrasts(*pair)]
        if facts and self._chance(0.7):
            fact = self._one_of(facts)
            self._state(fact if is_true(fact, self.scene) == true else fact.opposite)
            return
        present = [name for name in self.things if not about & set(name.split())]
        absent = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in self.things and not about & {c, s}]
        self._state(Fact("exists", (self._one_of(present if true and present else absent),)))

    def _contrasts(self, first: str, second: str) -> list[str]:
        """Relations in which two objects clearly stand, or clearly don't."""
        a, b = self.things[first], self.things[second]
        margin = DIFFICULTIES[DIFFICULTY].margin
        clear = {side: abs(offset(side, a.box, b.box)) >= margin for side in ("left", "above")}
        small, large = sorted((area(a.box), area(b.box)))
        clear["larger"] = a.size != b.size and large >= 1.5 * small
        return [relation for relation, so in clear.items() if so]

    def _state(self, fact: Fact) -> None:
        """A sentence for a fact, or one that denies its opposite."""
        if fact.negated or (fact.relation in ("left", "right", "above", "below") and self._chance(0.12)):
            denied = dataclasses.replace(fact, negated=False) if fact.negated else fact.opposite
            self._say(dataclasses.replace(denied, negated=True), "denial", claim=self._clause(denied))
            return
        what = fact.relation if fact.relation in WORDINGS else OPPOSITE[fact.relation]
        self._say(fact, what, **self._names(fact), **OPPOSITES.get(fact.relation, {}))

    def _say(self, fact: Fact, what: str, **known: str) -> None:
        """Writes a sentence that says a fact; a correct claim that is repeated is worth nothing."""
        said = fact
        if fact.relation in ("right", "below", "smaller"):  # the same as the opposite of the turned pair
            said = dataclasses.replace(fact.opposite, names=fact.names[::-1])
        repeated = Verdict.SKIP if said in self.said else Verdict.CORRECT
        self.said.add(said)
        self._add(what, repeated if is_true(fact, self.scene) else Verdict.INCORRECT, **known)

    def _names(self, fact: Fact) -> dict[str, str]:
        name = fact.names[0]
        if fact.relation == "count":
            counted = count_sentence(name, fact.number).rstrip(".").split(maxsplit=3)[3]
            words = [word for word, value in NUMBERS.items() if value == fact.number]
            return {"kinds": plural(name), "nkinds": counted, "n": self._one_of((str(fact.number), words[0]))}
        if fact.relation == "exists":
            return {"an": f"{'an' if name[0] in 'aeiou' else 'a'} {name}"}
        return {key: f"the {name}" for key, name in zip("abc", fact.names, strict=False)}

    def _clause(self, fact: Fact) -> str:
        """The fact in the world's own words, as part of a sentence: 'the red circle is left of the blue square'."""
        if fact.relation == "count":
            text = count_sentence(fact.names[0], fact.number)
        else:
            phrase = PHRASES.get(fact.relation, fact.relation)
            first, *others = _things(fact, self.scene)
            text = sentence(first, f"not {phrase}" if fact.negated else phrase, *others)
        return text[:1].lower() + text[1:].rstrip(".")


class _Itself(dict[str, str]):
    """Words in braces; one that is not known means itself."""

    def __missing__(self, key: str) -> str:
        return key
