"""Reference traces of the built-in world: sound ones, and ones with a flaw put in on purpose.

A trace points at the objects it speaks of, states the fact that decides the question, and answers:

    <think>The red circle is at <bbox>[28,56,56,84]</bbox>. The blue square is at <bbox>[84,0,112,28]</bbox>. The red
    circle is left of the blue square.</think><answer>A</answer>
"""

from __future__ import annotations

import numpy as np

from fgrpo_jax.reading.frames import iou
from fgrpo_jax.reading.words import COLORS, SHAPES
from fgrpo_jax.records import Box, Scene, SceneObject
from fgrpo_jax.world.questions import PHRASES, Asked, sentence
from fgrpo_jax.world.relations import offset
from fgrpo_jax.world.scenes import name_of

NO_FLAW = "none"
DONE = "done"  # the answer of a captioning trace


def box_text(box: Box) -> str:
    """'<bbox>[28,56,56,84]</bbox>': whole pixels, no spaces."""
    return "<bbox>[" + ",".join(str(round(side)) for side in box) + "]</bbox>"


def location(thing: SceneObject, box: Box | None = None) -> str:
    """'The red circle is at <bbox>[28,56,56,84]</bbox>.'"""
    return f"The {name_of(thing)} is at {box_text(thing.box if box is None else box)}."


def response(sentences: list[str], answer: str) -> str:
    """The sentences and the answer in the paper's format."""
    return f"<think>{' '.join(sentences)}</think><answer>{answer}</answer>"


def write_trace(
    asked: Asked, shown: tuple[int, ...], scene: Scene, *, flaw: str, rng: np.random.Generator, answers: str = "letter"
) -> str:
    """The trace of a question.

    Args:
      shown: `asked` option index of each option in the order shown.
      flaw: 'none' or a field name of FlawMix.
      rng: decides the details of a flaw.
      answers: 'letter' or 'text' of the chosen option.
    """
    if not asked.options:
        return response([location(thing) for thing in asked.located[0]], DONE)
    claimed = answered = asked.right
    if flaw == "contradicts_right":
        answered = _other(rng, len(shown), asked.right)
    elif flaw == "lucky":
        claimed = _other(rng, len(shown), asked.right)
    sentences = [location(thing) for thing in asked.located[claimed]]
    if flaw == "wrong_box":
        which = int(rng.integers(len(sentences)))
        thing = asked.located[claimed][which]
        sentences[which] = location(thing, _wrong_box(thing, scene, rng))
    if flaw == "false_claim":
        sentences.append(_false_claim(asked, scene, rng))
    answer = asked.options[answered] if answers == "text" else letter(shown.index(answered))
    return response([*sentences, asked.claims[claimed]], answer)


def letter(position: int) -> str:
    """'A' for the first option shown."""
    return chr(ord("A") + position)


def _other(rng: np.random.Generator, count: int, avoid: int) -> int:
    """A number below `count` other than `avoid`, uniformly."""
    drawn = int(rng.integers(count - 1))
    return drawn + (drawn >= avoid)


def _wrong_box(thing: SceneObject, scene: Scene, rng: np.random.Generator) -> Box:
    """The box of another object, or (one time in two) the object's own box in another place; IoU below 0.2."""
    x1, y1, x2, y2 = (int(side) for side in thing.box)
    width, height = x2 - x1, y2 - y1
    # Steps of at least a merged token keep the places of the grid world on its grid.
    across, down = max(28, width), max(28, height)
    places = [
        (x, y, x + width, y + height)
        for x in range(x1 % across, scene.width - width + 1, across)
        for y in range(y1 % down, scene.height - height + 1, down)
    ]
    elsewhere = [box for box in places if iou(box, thing.box) < 0.2]
    others = [other.box for other in scene.objects if iou(other.box, thing.box) < 0.2]
    pool = elsewhere if elsewhere and (not others or rng.random() < 0.5) else others
    if not pool:
        raise RuntimeError(f"no other place for {thing} in a {scene.width}x{scene.height} image")
    return pool[int(rng.integers(len(pool)))]


def _false_claim(asked: Asked, scene: Scene, rng: np.random.Generator) -> str:
    """A false sentence about the scene that leaves the conclusion standing: not on a pair that is asked about."""
    about = set(asked.query.args)
    objects = [scene.objects[i] for i in rng.permutation(len(scene.objects)).tolist()]
    pairs = [(a, b) for a in objects for b in objects if a is not b and not {name_of(a), name_of(b)} <= about]
    if not pairs or rng.random() < 0.3:
        present = {(thing.color, thing.shape) for thing in scene.objects}
        # Nothing may be added of the kind that a counting question asks about.
        absent = [(c, s) for c in COLORS[:5] for s in SHAPES[:4] if (c, s) not in present and not about & {c, s}]
        color, shape = absent[int(rng.integers(len(absent)))]
        return f"There is {'an' if color[0] in 'aeiou' else 'a'} {color} {shape}."
    a, b = pairs[int(rng.integers(len(pairs)))]
    false = [side for side in ("left", "right", "above", "below") if offset(side, a.box, b.box) < 0]
    return sentence(a, PHRASES[false[int(rng.integers(len(false)))]], b)
