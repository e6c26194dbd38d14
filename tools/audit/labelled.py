"""A labelled set for auditing judges: traces of the built-in world in other words, with verdicts known by construction.

Each trace states facts of a scene, true or false on purpose, and answers with what they entail, or with something
else, or after saying nothing that decides. So it is known whether the reasoning entails the answer, and of every
sentence whether it is true. Nothing of this is read off the text: the labels are made with the facts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit import wordings as words
from fgrpo_jax.reading.frames import area, iou
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.reading.words import COLORS, NUMBERS, SHAPES
from fgrpo_jax.records import Box, Example, Scene, SceneObject
from fgrpo_jax.world.examples import World
from fgrpo_jax.world.questions import PHRASES, plural
from fgrpo_jax.world.relations import OPPOSITE, distance, holds, is_between, offset
from fgrpo_jax.world.scenes import DIFFICULTIES, name_of
from fgrpo_jax.world.traces import box_text, letter

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


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One sentence, the verdict it deserves, and the wording it was made with."""

    text: str
    verdict: Verdict
    wording: str


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A response with its verdicts.

    Attributes:
      id: unique in the set.
      part: of the wordings, one of `world_wordings.PARTS`.
      kind: one of KINDS.
      example: the question; boxes of the response are in the frame of its image as published.
      response: '<think>..</think><answer>..</answer>'.
      consistency: YES, NO or UNCERTAIN.
      sentences: those of the reasoning, in order.
    """

    id: str
    part: str
    kind: str
    example: Example
    response: str
    consistency: Verdict
    sentences: tuple[Sentence, ...]


@dataclasses.dataclass(frozen=True)
class Fact:
    """What a sentence says of a scene, true or not; kinds: side, size, extreme, between, inside, count, exists."""

    kind: str
    relation: str
    names: tuple[str, ...]
    number: int = 0
    negated: bool = False


def labelled(index: int, *, part: str, difficulty: str = "easy", seed: int = 7) -> Labelled:
    """Trace `index` of a part, the same at every call; the kinds take turns."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, words.PARTS.index(part), index))))
    example = World(difficulty, split_seed=seed).example(index, split="validation", with_trace=False)
    kind = KINDS[index % len(KINDS)]
    return _Writer(example, part, difficulty, rng).write(kind, f"{part}-{index}")


def labelled_set(count: int = 300, *, difficulty: str = "easy", seed: int = 7) -> list[Labelled]:
    """`count` traces of each part."""
    return [
        labelled(index, part=part, difficulty=difficulty, seed=seed) for part in words.PARTS for index in range(count)
    ]


# -------------------------------------------------------------------------------------------------------------- truth
def is_true(fact: Fact, scene: Scene) -> bool:
    """Whether a fact holds in a scene."""
    return _holds(fact, scene) != fact.negated


def _holds(fact: Fact, scene: Scene) -> bool:
    if fact.kind == "count":
        return sum(fact.names[0] in (thing.color, thing.shape) for thing in scene.objects) == fact.number
    if fact.kind == "exists":
        return any(name_of(thing) == fact.names[0] for thing in scene.objects)
    boxes = [_thing(name, scene).box for name in fact.names]
    if fact.kind == "extreme":
        others = [thing.box for thing in scene.objects if name_of(thing) != fact.names[1]]
        distances = [distance(boxes[1], box) for box in others]
        return distance(boxes[1], boxes[0]) == (min(distances) if fact.relation == "nearest" else max(distances))
    if fact.kind == "between":
        return is_between(boxes[0], boxes[1], boxes[2])
    return holds(fact.relation, boxes[0], boxes[1])


def _thing(name: str, scene: Scene) -> SceneObject:
    return next(thing for thing in scene.objects if name_of(thing) == name)


# ------------------------------------------------------------------------------------------------------------- writing
class _Writer:
    """Writes one trace."""

    def __init__(self, example: Example, part: str, difficulty: str, rng: np.random.Generator) -> None:
        assert example.scene is not None and example.query is not None
        self.example, self.scene, self.query = example, example.scene, example.query
        self.part, self.margin, self.rng = part, DIFFICULTIES[difficulty].margin, rng
        self.gold = ord(example.answer) - ord("A")
        self.names = [name_of(thing) for thing in self.scene.objects]
        self.out: list[Sentence] = []
        self.said: set[Fact] = set()

    def write(self, kind: str, id: str) -> Labelled:
        """The trace of a kind."""
        if self._chance(0.4) or kind == "ambiguous":  # empty reasoning would be NO
            self._skip(words.IDLE)
        claimed = self.gold if kind not in ("consistent_ungrounded", "inconsistent_ungrounded") else self._other()
        decides = kind not in ("ambiguous", "concluded")
        self._locate(wrong=kind == "mixed" and self._chance(0.5), few=not decides)
        if kind == "mixed" or self._chance(0.3):
            self._aside(true=True)
        if kind in ("mixed", "consistent_ungrounded") and self._chance(0.6):
            self._aside(true=False)
        if kind == "corrected":
            self._decide(self._other())
            self._decide(claimed, correcting=True)
        elif decides:
            self._decide(claimed)
        answered, verdict = self._end(kind, claimed)
        shown = letter(answered) if self._chance(0.5) else self.example.options[answered]
        response = f"<think>{' '.join(s.text for s in self.out)}</think><answer>{shown}</answer>"
        return Labelled(id, self.part, kind, self.example, response, verdict, tuple(self.out))

    def _end(self, kind: str, claimed: int) -> tuple[int, Verdict]:
        """Writes what follows the facts: (the answer, whether the reasoning entails it)."""
        if kind == "ambiguous":
            if self._chance(0.7):
                first = int(self.rng.integers(len(self.example.options)))
                self._conclude(words.HEDGES, first, second=self._other(first))
            return int(self.rng.integers(len(self.example.options))), Verdict.UNCERTAIN
        if kind == "concluded":
            self._conclude(words.CONCLUSIONS, claimed)
            return (claimed, Verdict.YES) if self._chance(0.5) else (self._other(claimed), Verdict.NO)
        if kind == "contradiction":
            other = self._other(claimed)
            self._conclude(words.CONCLUSIONS, other)
            return other, Verdict.NO
        if self._chance(0.15):
            self._conclude(words.ELIMINATIONS, self._other(claimed))
        if self._chance(0.5):
            self._conclude(words.CONCLUSIONS, claimed)
        if kind == "inconsistent_grounded":
            return self._other(claimed), Verdict.NO
        if kind == "inconsistent_ungrounded":
            return self.gold, Verdict.NO
        return claimed, Verdict.YES

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _pick(self, wordings: tuple[str, ...]) -> str:
        mine = words.part_of(wordings, self.part)
        return mine[int(self.rng.integers(len(mine)))]

    def _other(self, avoid: int | None = None) -> int:
        avoid = self.gold if avoid is None else avoid
        drawn = int(self.rng.integers(len(self.example.options) - 1))
        return drawn + (drawn >= avoid)

    def _skip(self, wordings: tuple[str, ...]) -> None:
        wording = self._pick(wordings)
        self.out.append(Sentence(wording, Verdict.SKIP, wording))

    def _conclude(self, wordings: tuple[str, ...], option: int, second: int = 0) -> None:
        wording, options = self._pick(wordings), self.example.options
        text = wording.format(o=options[option], L=letter(option), p=options[second])
        self.out.append(Sentence(_upper(text), Verdict.SKIP, wording))

    def _locate(self, *, wrong: bool, few: bool) -> None:
        """Says where the objects of the question are: all of them most of the time, at most one if `few`."""
        asked = [name for name in self.query.args if name in self.names]
        if self.query.family == "counting":
            kind = self.query.args[0]
            asked = [] if few else [name for name in self.names if kind in name.split()]
        if few:
            asked = asked[: int(self.rng.integers(2))]
        elif self._chance(0.3):
            return
        missed = int(self.rng.integers(len(asked))) if wrong and asked else -1
        for at, name in enumerate(asked):
            thing, box = _thing(name, self.scene), None
            if at == missed:
                box = self._wrong_box(thing)
            wording = self._pick(words.AT)
            text = wording.format(a=f"the {name}", A=f"The {name}", box=box_text(box or thing.box))
            self.out.append(Sentence(text, Verdict.CORRECT if box is None else Verdict.INCORRECT, wording))

    def _wrong_box(self, thing: SceneObject) -> Box:
        """A box of the same size elsewhere in the image."""
        width, height = thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]
        while True:
            x = float(self.rng.integers(int(self.scene.width - width) + 1))
            y = float(self.rng.integers(int(self.scene.height - height) + 1))
            box = (x, y, x + width, y + height)
            if all(iou(box, other.box) < 0.2 for other in self.scene.objects if name_of(other) == name_of(thing)):
                return box

    # Facts.
    def _decide(self, option: int, *, correcting: bool = False) -> None:
        for fact in self._facts_for(option):
            if correcting:
                wording = self._pick(words.CORRECTIONS)
                self._say(fact, wording.format(claim=_clause(fact)), wording)
                correcting = False
            else:
                self._state(fact)

    def _facts_for(self, option: int) -> list[Fact]:
        """What entails an option: true facts for the right one, and at least one false for the others."""
        family, args, text = self.query.family, self.query.args, self.example.options[option]
        if set(self.example.options) == {"yes", "no"}:
            return self._facts_for_yes_no(text == "yes", right=option == self.gold)
        if family in ("left_right", "above_below"):
            return [Fact("side", text, args)]
        if family == "compound":
            return [Fact("side", side, args[:2]) for side in text.split(" and ")]
        if family == "larger":
            return [Fact("size", self.query.relation, (text, args[0] if text == args[1] else args[1]))]
        if family == "counting":
            return [Fact("count", "count", args, number=int(text))]
        if family == "between":
            return [Fact("between", "between", (text, *args[:2]))]
        return [Fact("inside" if family == "inside" else "extreme", self.query.relation, (text, args[0]))]

    def _facts_for_yes_no(self, yes: bool, *, right: bool) -> list[Fact]:
        family, args, relation = self.query.family, self.query.args, self.query.relation
        if family in ("left_right", "above_below", "larger"):
            kind = "size" if family == "larger" else "side"
            return [Fact(kind, relation if yes else OPPOSITE[relation], args)]
        if family == "compound":
            pairs = (args[0], args[1]), (args[0], args[-1])
            facts = [Fact("side", asked, pair) for asked, pair in zip(relation.split("+"), pairs, strict=True)]
            if yes:
                return facts
            turned = [dataclasses.replace(fact, relation=OPPOSITE[fact.relation]) for fact in facts]
            if right:  # what is true of each: at least one is not as asked
                return [fact if is_true(fact, self.scene) else other for fact, other in zip(facts, turned, strict=True)]
            return [turned[0], facts[1]] if self._chance(0.5) else [facts[0], turned[1]]
        if family == "counting":
            numbers = [n for n in range(1, 5) if n != int(args[1])]
            said = int(args[1]) if yes else numbers[int(self.rng.integers(len(numbers)))]
            if right and not yes:
                said = sum(args[0] in (thing.color, thing.shape) for thing in self.scene.objects)
            return [Fact("count", "count", args[:1], number=said)]
        if family == "between":
            return [Fact("between", "between", (args[2], args[0], args[1]), negated=not yes)]
        if family == "inside":
            return [Fact("inside", "inside", (args[1], args[0]), negated=not yes)]
        others = [name for name in self.names if name not in args]
        if right and not yes:
            others = [name for name in others if _holds(Fact("extreme", relation, (name, args[0])), self.scene)]
        picked = args[1] if yes else others[int(self.rng.integers(len(others)))]
        return [Fact("extreme", relation, (picked, args[0]))]

    def _aside(self, *, true: bool) -> None:
        """A fact beside the point: on a pair, or of a thing, that is not asked about."""
        about = set(self.query.args)
        pairs = [(a, b) for a in self.names for b in self.names if a != b and not {a, b} <= about]
        order = [pairs[i] for i in self.rng.permutation(len(pairs)).tolist()]
        clear = [pair for pair in order if self._clear(pair)]
        if clear and self._chance(0.7):
            kind, (a, b) = self._clear(clear[0]), clear[0]
            pool = ("larger", "smaller") if kind == "size" else ("left", "right") if kind == "x" else ("above", "below")
            facts = [Fact("size" if kind == "size" else "side", relation, (a, b)) for relation in pool]
            self._state(next(fact for fact in facts if is_true(fact, self.scene) == true))
            return
        names = [n for n in self.names if not about & set(n.split())]
        if not true or not names:
            present = {(thing.color, thing.shape) for thing in self.scene.objects}
            names = [f"{c} {s}" for c in COLORS for s in SHAPES if (c, s) not in present and not about & {c, s}]
            true = False
        self._state(Fact("exists", "exists", (names[int(self.rng.integers(len(names)))],)))

    def _clear(self, pair: tuple[str, str]) -> str:
        """On what two objects differ clearly: 'x', 'y', 'size', or '' for nothing."""
        a, b = (_thing(name, self.scene) for name in pair)
        kinds = {
            "x": abs(offset("left", a.box, b.box)) >= self.margin,
            "y": abs(offset("above", a.box, b.box)) >= self.margin,
            "size": a.size != b.size and max(area(a.box), area(b.box)) >= 1.5 * min(area(a.box), area(b.box)),
        }
        found = [kind for kind, clear in kinds.items() if clear]
        return found[int(self.rng.integers(len(found)))] if found else ""

    def _state(self, fact: Fact) -> None:
        """A sentence for a fact, by a wording of this part."""
        if fact.negated or (fact.kind == "side" and self._chance(0.12)):
            plain = dataclasses.replace(fact, negated=False)
            denied = plain if fact.negated else dataclasses.replace(fact, relation=OPPOSITE[fact.relation])
            wording = self._pick(words.DENIALS)
            self._say(fact, wording.format(claim=_clause(denied)), wording, key=denied)
            return
        wording = self._pick(_wordings(fact))
        self._say(fact, _upper(wording.format(**self._words_for(fact))), wording)

    def _say(self, fact: Fact, text: str, wording: str, *, key: Fact | None = None) -> None:
        """Writes a sentence; `key` is what a denial denies, which is another statement than the fact it comes to."""
        verdict = Verdict.CORRECT if is_true(fact, self.scene) else Verdict.INCORRECT
        said = fact if key is None else dataclasses.replace(key, negated=True)
        if said.relation in ("right", "below", "smaller"):  # the same as the opposite of the turned pair
            said = dataclasses.replace(said, relation=OPPOSITE[said.relation], names=said.names[::-1])
        if verdict is Verdict.CORRECT and said in self.said:
            verdict = Verdict.SKIP  # a correct claim that is repeated
        self.said.add(said)
        self.out.append(Sentence(text, verdict, wording))

    def _words_for(self, fact: Fact) -> Mapping[str, str]:
        names = [f"the {name}" for name in fact.names]
        known = dict(zip("abc", names, strict=False)) | dict(zip("ABC", map(_upper, names), strict=False))
        if fact.kind == "side":
            return known | words.SIDES[fact.relation]
        if fact.kind == "size":
            return known | words.SIZES[fact.relation]
        if fact.kind == "extreme":
            return known | {"r": names[1]} | words.DISTANCES[fact.relation]
        if fact.kind == "count":
            kinds = plural(fact.names[0])
            one = kinds[:-2] if kinds == "crosses" else kinds[:-1]
            number = str(fact.number)
            if self._chance(0.5):
                number = next(word for word, value in NUMBERS.items() if value == fact.number)
            return {"kinds": kinds, "nkinds": one if fact.number == 1 else kinds, "n": number, "N": _upper(number)}
        if fact.kind == "exists":
            name = f"{'an' if fact.names[0][0] in 'aeiou' else 'a'} {fact.names[0]}"
            return {"an": name, "An": _upper(name)}
        return known


def _wordings(fact: Fact) -> tuple[str, ...]:
    by_kind = {"size": words.SIZE, "extreme": words.NEAREST, "between": words.BETWEEN, "inside": words.INSIDE}
    by_kind |= {"count": words.COUNT, "exists": words.EXISTS}
    if fact.kind == "side":
        return words.HORIZONTAL if fact.relation in ("left", "right") else words.VERTICAL
    return by_kind[fact.kind]


def _clause(fact: Fact) -> str:
    """The fact in the world's own words, as part of a sentence: 'the red circle is left of the blue square'."""
    if fact.kind == "count":
        return f"there {'is' if fact.number == 1 else 'are'} {fact.number} " + (
            plural(fact.names[0]) if fact.number != 1 else _singular(fact.names[0])
        )
    first, *others = (f"the {name}" for name in fact.names)
    return (
        f"{first} is {'not ' if fact.negated else ''}{PHRASES.get(fact.relation, fact.relation)} {' and '.join(others)}"
    )


def _singular(kind: str) -> str:
    return kind if kind in SHAPES else f"{kind} object"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# -------------------------------------------------------------------------------------------------------------- files
def as_row(one: Labelled) -> dict[str, Any]:
    """One line of a labelled JSONL file, as docs/signals.md describes it."""
    return {
        "id": one.id,
        "part": one.part,
        "kind": one.kind,
        "example": one.example.id,
        "question": one.example.question,
        "options": list(one.example.options),
        "answer": one.example.answer,
        "response": one.response,
        "consistency": one.consistency.value,
        "sentences": [{"text": s.text, "verdict": s.verdict.value, "wording": s.wording} for s in one.sentences],
    }


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows beside the file and renames."""
    beside = path.with_name(path.name + ".part")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.rename(path)
