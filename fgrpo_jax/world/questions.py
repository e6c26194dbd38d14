"""Question families of the built-in world: what is asked of a scene, its options, and what each option would claim.

A family is a function (scene, plan, rng, difficulty) -> Asked or None; None means that this scene has no clear case
for the plan, and the world then draws another scene under the same plan. Since the plan holds the wanted answer, a
case that is rarer in scenes is not rarer in questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fgrpo_jax.reading.frames import area, intersection
from fgrpo_jax.reading.words import PLURALS
from fgrpo_jax.records import Query, Scene, SceneObject
from fgrpo_jax.world.relations import BETWEEN_WIDTH, OPPOSITE, along, distance, extreme, is_between, is_inside, offset
from fgrpo_jax.world.scenes import Difficulty, name_of, raster

PHRASES = {
    "left": "left of", "right": "right of", "above": "above", "below": "below",
    "larger": "larger than", "smaller": "smaller than", "nearest": "nearest to", "farthest": "farthest from",
}  # fmt: skip
YES_NO = ("yes", "no")
_CLEAR_SIZES = 1.5  # least ratio of areas where sizes are compared
_COUNTS = 4  # counting questions are about 1 .. this many objects


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the world decides before it draws: the family, yes/no or a choice, and a number that picks the answer."""

    family: str
    yes_no: bool
    truth: int


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question on a scene."""

    query: Query  # its structured form
    text: str  # its words
    options: tuple[str, ...]  # option texts, not yet shuffled; () for the captioning family
    right: int  # index of the right option
    claims: tuple[str, ...]  # per option, the sentence that would entail it; `claims[right]` is a fact of the scene
    located: tuple[tuple[SceneObject, ...], ...]  # per option, the objects to point at before that claim


Family = Callable[[Scene, Plan, np.random.Generator, Difficulty], Asked | None]


def sentence(subject: SceneObject, phrase: str, *others: SceneObject) -> str:
    """'The red circle is left of the blue square.'"""
    return f"The {name_of(subject)} is {phrase} {_and(others)}."


def _shuffled(scene: Scene, rng: np.random.Generator) -> list[SceneObject]:
    return [scene.objects[place] for place in rng.permutation(len(scene.objects)).tolist()]


# ------------------------------------------------------------------------------------------------- kinds of questions
def _compare(plan: Plan, fact: str, a: SceneObject, b: SceneObject) -> Asked:
    """Yes/no: does a two-place relation hold of a and b, of which `fact` does?"""
    right = plan.truth % 2
    asked = fact if right == 0 else OPPOSITE[fact]
    text = f"Is the {name_of(a)} {PHRASES[asked]} the {name_of(b)}?"
    claims = tuple(sentence(a, PHRASES[relation], b) for relation in (asked, OPPOSITE[asked]))
    return Asked(Query(plan.family, asked, (name_of(a), name_of(b))), text, YES_NO, right, claims, ((a, b),) * 2)


def _whether(plan: Plan, thing: SceneObject, phrase: str, fixed: Sequence[SceneObject]) -> Asked:
    """Yes/no: is the thing where the phrase says, with regard to the fixed objects?"""
    query = Query(plan.family, plan.family, (*map(name_of, fixed), name_of(thing)))
    claims = (sentence(thing, phrase, *fixed), sentence(thing, f"not {phrase}", *fixed))
    text = f"Is the {name_of(thing)} {phrase} {_and(fixed)}?"
    return Asked(query, text, YES_NO, plan.truth % 2, claims, ((*fixed, thing),) * 2)


def _which(plan: Plan, picks: Sequence[SceneObject], phrase: str, fixed: Sequence[SceneObject]) -> Asked:
    """Choice: which object is where the phrase says? The first of `picks`, and none of the others."""
    query = Query(plan.family, plan.family, tuple(map(name_of, fixed)))
    claims = tuple(sentence(pick, phrase, *fixed) for pick in picks)
    located = tuple((*fixed, pick) for pick in picks)
    return Asked(query, f"Which object is {phrase} {_and(fixed)}?", tuple(map(name_of, picks)), 0, claims, located)


def _and(things: Sequence[SceneObject]) -> str:
    """'the red circle and the blue square'"""
    return " and ".join("the " + name_of(thing) for thing in things)


# ----------------------------------------------------------------------------------------------------------- families
def _ask_side(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    """left_right and above_below: one axis, two objects."""
    relations = ("left", "right") if plan.family == "left_right" else ("above", "below")
    a, b = _shuffled(scene, rng)[:2]
    away = offset(relations[0], a.box, b.box)
    if abs(away) < difficulty.margin:
        return None
    right = 0 if away > 0 else 1
    if plan.yes_no:
        return _compare(plan, relations[right], a, b)
    if right != plan.truth % 2:
        return None
    text = f"Where is the {name_of(a)} relative to the {name_of(b)}?"
    query = Query(plan.family, relations[0], (name_of(a), name_of(b)))
    claims = tuple(sentence(a, PHRASES[relation], b) for relation in relations)
    return Asked(query, text, relations, right, claims, ((a, b),) * 2)


def _ask_extreme(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    """nearest and farthest: one object against all the others."""
    reference, *others = _shuffled(scene, rng)
    first = others.pop(extreme(plan.family, reference.box, [other.box for other in others]))
    gaps = [abs(distance(reference.box, x.box) - distance(reference.box, first.box)) for x in others]
    if min(gaps) < difficulty.margin:
        return None
    phrase = PHRASES[plan.family]
    if not plan.yes_no:
        return _which(plan, (first, *others[: difficulty.options - 1]), phrase, (reference,))
    right = plan.truth % 2
    picks = (first, others[0]) if right == 0 else (others[0], first)
    query = Query(plan.family, plan.family, (name_of(reference), name_of(picks[0])))
    text = f"Is the {name_of(picks[0])} {phrase} the {name_of(reference)}?"
    claims = tuple(sentence(pick, phrase, reference) for pick in picks)
    return Asked(query, text, YES_NO, right, claims, tuple((reference, pick) for pick in picks))


def _ask_between(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    a, b, *others = _shuffled(scene, rng)
    if distance(a.box, b.box) < 2 * difficulty.margin:
        return None
    if not all(_clearly_between_or_not(other, a, b) for other in others):
        return None
    middle = [other for other in others if is_between(other.box, a.box, b.box)]
    rest = [other for other in others if other not in middle]
    if plan.yes_no:
        pool = middle if plan.truth % 2 == 0 else rest
        return _whether(plan, pool[0], "between", (a, b)) if pool else None
    if len(middle) != 1 or len(others) < 2:
        return None
    return _which(plan, [*middle, *rest[: difficulty.options - 1]], "between", (a, b))


def _clearly_between_or_not(other: SceneObject, a: SceneObject, b: SceneObject) -> bool:
    share, away = along(other.box, a.box, b.box)
    inside = 0.2 <= share <= 0.8 and away <= 0.6 * BETWEEN_WIDTH
    return inside or not -0.05 < share < 1.05 or away >= 1.5 * BETWEEN_WIDTH


def _ask_inside(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    objects = _shuffled(scene, rng)
    pairs = [(x, y) for x in objects for y in objects if is_inside(x.box, y.box)]
    if not pairs:
        return None
    inner, outer = pairs[0]
    others = [x for x in objects if x is not outer and not is_inside(x.box, outer.box)]
    others = [x for x in others if intersection(x.box, outer.box) < 0.3 * area(x.box)]
    if not others:
        return None
    if plan.yes_no:
        return _whether(plan, inner if plan.truth % 2 == 0 else others[0], "inside", (outer,))
    return _which(plan, [inner, *others[: difficulty.options - 1]], "inside", (outer,))


def _ask_larger(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    a, b = _shuffled(scene, rng)[:2]
    sizes = sorted((area(a.box), area(b.box)))
    if a.size == b.size or sizes[1] < _CLEAR_SIZES * sizes[0]:
        return None
    fact = "larger" if area(a.box) > area(b.box) else "smaller"
    if plan.yes_no:
        return _compare(plan, fact, a, b)
    names, asked = (name_of(a), name_of(b)), ("larger", "smaller")[plan.truth % 2]
    claims = (sentence(a, PHRASES[asked], b), sentence(b, PHRASES[asked], a))
    text = f"Which is {asked}, the {names[0]} or the {names[1]}?"
    return Asked(Query(plan.family, asked, names), text, names, int(asked != fact), claims, ((a, b),) * 2)


def _ask_counting(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    most = min(_COUNTS, difficulty.options)
    count = 1 + plan.truth % most
    kinds: dict[str, list[SceneObject]] = {}
    for thing in raster(scene.objects):
        kinds.setdefault(thing.shape, []).append(thing)
        kinds.setdefault(thing.color, []).append(thing)
    fitting = [kind for kind, things in kinds.items() if len(things) == count]
    if not fitting:
        return None
    kind = fitting[int(rng.integers(len(fitting)))]
    located, numbers = tuple(kinds[kind]), range(1, most + 1)
    if not plan.yes_no:
        claims = tuple(count_sentence(kind, number) for number in numbers)
        text = f"How many {plural(kind)} are there?"
        query = Query(plan.family, "count", (kind,))
        return Asked(query, text, tuple(map(str, numbers)), count - 1, claims, (located,) * most)
    right = plan.truth // most % 2
    wrong = [number for number in numbers if number != count]
    other = wrong[int(rng.integers(len(wrong)))]
    asked, denied = (count, other) if right == 0 else (other, count)
    query = Query(plan.family, "count", (kind, str(asked)))
    text = count_sentence(kind, asked).replace("There are", "Are there").replace("There is", "Is there")[:-1] + "?"
    claims = (count_sentence(kind, asked), count_sentence(kind, denied))
    return Asked(query, text, YES_NO, right, claims, (located,) * 2)


def plural(kind: str) -> str:
    """'circles', 'crosses', 'red objects'."""
    return PLURALS.get(kind, f"{kind} objects")


def count_sentence(kind: str, number: int) -> str:
    """'There are 2 circles.', 'There is 1 red object.'"""
    if number == 1:
        return f"There is 1 {kind if kind in PLURALS else f'{kind} object'}."
    return f"There are {number} {plural(kind)}."


def _ask_compound(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    """Both axes at once; in rich scenes half of the yes/no questions take the second relation to a third object."""
    a, b, c = _shuffled(scene, rng)[:3]
    c = b if difficulty.cell or not plan.yes_no or plan.truth // 8 % 2 else c
    sides = offset("left", a.box, b.box), offset("above", a.box, c.box)
    if min(abs(side) for side in sides) < difficulty.margin:
        return None
    fact = ("left" if sides[0] > 0 else "right", "above" if sides[1] > 0 else "below")
    corners = tuple((x, y) for x in ("left", "right") for y in ("above", "below"))
    things = (a, b) if c is b else (a, b, c)
    args, located = tuple(map(name_of, things)), (things,) * 4
    if not plan.yes_no:
        if corners.index(fact) != plan.truth % 4:
            return None
        text = f"Where is the {name_of(a)} relative to the {name_of(b)}?"
        options = tuple(f"{x} and {y}" for x, y in corners)
        claims = tuple(_corner_sentence(corner, a, b, c) for corner in corners)
        return Asked(Query(plan.family, "left+above", args), text, options, plan.truth % 4, claims, located)
    right = plan.truth % 2
    others = [corner for corner in corners if corner != fact]
    other = others[int(rng.integers(3))]
    asked, denied = (fact, other) if right == 0 else (other, fact)
    text = "Is" + _corner_sentence(asked, a, b, c)[:-1].replace("The", " the", 1).replace(" is ", " ", 1) + "?"
    claims = (_corner_sentence(asked, a, b, c), _corner_sentence(denied, a, b, c))
    return Asked(Query(plan.family, "+".join(asked), args), text, YES_NO, right, claims, located[:2])


def _corner_sentence(corner: tuple[str, str], a: SceneObject, b: SceneObject, c: SceneObject) -> str:
    first, second = PHRASES[corner[0]], PHRASES[corner[1]]
    if c is b:
        return sentence(a, f"{first} and {second}", b)
    return f"The {name_of(a)} is {first} the {name_of(b)} and {second} the {name_of(c)}."


def _ask_describe(scene: Scene, plan: Plan, rng: np.random.Generator, difficulty: Difficulty) -> Asked | None:
    """Dense captioning, for supervised training only: every object in raster order."""
    query = Query(plan.family, "describe", ())
    return Asked(query, "List the objects.", (), 0, ("",), (raster(scene.objects),))


FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("left_right", "above_below"), _ask_side),
    **dict.fromkeys(("nearest", "farthest"), _ask_extreme),
    "between": _ask_between,
    "inside": _ask_inside,
    "larger": _ask_larger,
    "counting": _ask_counting,
    "compound": _ask_compound,
    "describe": _ask_describe,
}
