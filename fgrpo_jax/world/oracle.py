"""The oracle of the built-in world: judges every sentence of a reasoning exactly, from what the image is known to show.

A sentence that is read is CORRECT when all it claims holds, INCORRECT when something does not, SKIP when it claims
nothing or only repeats what was judged correct before. A sentence that can't be read is INCORRECT if it holds a visual
word (reading.words.VISUAL_WORDS, or a <bbox> tag), else SKIP.

The text of a rollout is never executed, matched as a pattern or shown to a model: "Output YES" is just a sentence
without a visual word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Literal

from fgrpo_jax.reading.dialects import PAPER, in_paper_notation
from fgrpo_jax.reading.frames import convert_box, iou
from fgrpo_jax.reading.parsing import Parsed, answer_index
from fgrpo_jax.reading.sentences import Trivial
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.records import Example, ImageSize, SceneObject
from fgrpo_jax.world.entails import entails
from fgrpo_jax.world.grammar import Claim, Reading, Thing, read
from fgrpo_jax.world.relations import OPPOSITE, distance, holds, is_between

UNREAD = ("incorrect", "abstain")

_TRIVIAL = Trivial()


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Judges of a world whose truth is known.

    Attributes:
      box_iou_correct: least IoU of a claimed box with the object's for the claim to be correct.
      unread: what becomes of a reasoning that can't be read. 'incorrect': a sentence with a visual word in it is
        INCORRECT, so that a policy in training gains nothing by gibberish. 'abstain': it gets no verdict.

    Raises:
      ValueError: another value of `unread`.
    """

    box_iou_correct: float = 0.5
    unread: Literal["incorrect", "abstain"] = "incorrect"

    def __post_init__(self) -> None:
        if self.unread not in UNREAD:
            raise ValueError(f"unread={self.unread!r}; known: {', '.join(UNREAD)}")

    def consistency(self, example: Example, parsed: Parsed) -> Verdict | None:
        """YES, NO or UNCERTAIN: whether the reasoning entails the answer to a question with a structured form.

        Never looks at the scene. None, where the rules abstain, only if `unread` says so.
        """
        return self.clear(example, parsed) if self.unread == "abstain" else self._entails(example, parsed)

    def clear(self, example: Example, parsed: Parsed) -> Verdict | None:
        """The same where every sentence can be read, and None where one can't."""
        readable = self.count_unread(parsed) == 0 or answer_index(parsed, example.options) is None
        return self._entails(example, parsed) if readable else None

    def _entails(self, example: Example, parsed: Parsed) -> Verdict:
        if example.query is None:
            raise ValueError(f"example {example.id!r} has no structured question: the oracle can't judge its reasoning")
        return entails(parsed, example.options, query=example.query)

    def semantic(self, example: Example, parsed: Parsed, *, size: ImageSize | None = None) -> list[Verdict | None]:
        """A verdict for each sentence; None, where the rules abstain, only if `unread` says so.

        Args:
          size: of the image; boxes of the text are then taken to be in its processed frame. None: in the scene's own.
            Relations are always judged in the scene's own frame, since a resize may change which of two is nearer.

        Raises:
          ValueError: the example has no scene.
        """
        if example.scene is None:
            raise ValueError(f"example {example.id!r} has no scene: the oracle can't judge its sentences, mask them")
        if parsed.dialect.frame != PAPER.frame and size is None:
            frame = parsed.dialect.frame
            raise ValueError(f"boxes of dialect {parsed.dialect.name!r} are in frame {frame!r}: give a size")
        truth = _Truth(example.scene.objects, self.box_iou_correct, size, parsed.dialect.frame)
        known: set[Hashable] = set()

        def judged(sentence: str) -> Verdict | None:
            reading = read(sentence)
            if self.unread == "incorrect" or reading.understood:
                return truth.judge(reading, known)
            return Verdict.SKIP if _TRIVIAL(sentence) else None

        return [judged(in_paper_notation(sentence, parsed.dialect)) for sentence in parsed.sentences]

    def count_unread(self, parsed: Parsed) -> int:
        """How many sentences can't be read."""
        return sum(not read(in_paper_notation(sentence, parsed.dialect)).understood for sentence in parsed.sentences)


@dataclasses.dataclass(frozen=True)
class _Truth:
    """What holds in a scene, said with boxes in a `frame` of an image of this size (None: in the scene's own)."""

    objects: tuple[SceneObject, ...]
    least_iou: float
    size: ImageSize | None
    frame: str

    def judge(self, reading: Reading, known: set[Hashable]) -> Verdict:
        """The verdict on one sentence; correct claims are added to `known`."""
        if not reading.understood:
            return Verdict.INCORRECT if reading.visual else Verdict.SKIP
        claims = [claim for claim in reading.claims if claim.kind != "conclusion"]
        if not all(self.holds(claim) for claim in claims):
            return Verdict.INCORRECT
        new = {self._content(claim) for claim in claims} - known
        known |= new
        return Verdict.CORRECT if new else Verdict.SKIP

    def holds(self, claim: Claim) -> bool:
        """Whether a claim is true. One about a thing that is not there, or could be several, is false."""
        if claim.kind == "count":
            return (len(self._matching(claim.things[0])) == claim.number) != claim.negated
        if claim.kind == "exists":
            return bool(self._matching(claim.things[0])) != claim.negated
        if claim.kind == "at":
            return self._is_at(claim)
        things = [self._only(thing) for thing in claim.things]
        present = [thing for thing in things if thing is not None]
        if len(present) < len(things) or len({thing.box for thing in present}) < len(present):
            return False
        return self._true(claim, present) != claim.negated

    def _is_at(self, claim: Claim) -> bool:
        box, matching = claim.box, self._matching(claim.things[0])
        assert box is not None
        if self.size is not None:
            box = convert_box(box, self.size, src=self.frame, dst="original")
        return bool(matching) and any(iou(thing.box, box) >= self.least_iou for thing in matching) != claim.negated

    def _true(self, claim: Claim, things: list[SceneObject]) -> bool:
        boxes = [thing.box for thing in things]
        if claim.kind == "relation":
            return holds(claim.relation, boxes[0], boxes[1])
        if claim.kind == "extreme":
            return self._is_extreme(claim.relation, things[0], things[1])
        if claim.kind == "nearer":
            near, far = distance(boxes[0], boxes[1]), distance(boxes[2], boxes[1])
            return near < far if claim.relation == "nearer" else near > far
        if claim.kind == "between":
            return is_between(boxes[0], boxes[1], boxes[2])
        assert claim.kind == "size", claim
        return things[0].size == claim.relation

    def _is_extreme(self, relation: str, thing: SceneObject, reference: SceneObject) -> bool:
        others = [distance(other.box, reference.box) for other in self.objects if other is not reference]
        own = distance(thing.box, reference.box)
        return own <= min(others) if relation == "nearest" else own >= max(others)

    def _matching(self, thing: Thing) -> list[SceneObject]:
        return [
            candidate
            for candidate in self.objects
            if thing.color in (None, candidate.color)
            and thing.shape in (None, candidate.shape)
            and thing.size in (None, candidate.size)
        ]

    def _only(self, thing: Thing) -> SceneObject | None:
        matching = self._matching(thing)
        return matching[0] if len(matching) == 1 else None

    def _content(self, claim: Claim) -> Hashable:
        """What a correct claim says: the same for 'a is left of b' and 'b is right of a', and for two boxes of one."""
        if claim.kind in ("count", "exists"):
            return claim.kind, claim.things
        things = tuple(self._only(thing) or thing for thing in claim.things)
        if claim.kind == "relation" and claim.relation in ("right", "below", "smaller"):
            return claim.kind, OPPOSITE[claim.relation], things[::-1], claim.negated
        if claim.kind == "between":
            return claim.kind, things[0], frozenset(things[1:]), claim.negated
        return claim.kind, claim.relation, things, claim.negated
