"""Examples of the built-in world: spatial questions about drawn scenes, made on the fly, with their whole ground truth.

An example is a function of (difficulty, split, index, seed) and of nothing else. A scene belongs to one split by its
content (a checksum of what it shows), so that no scene of one split can turn up in another.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping

import numpy as np

from fgrpo_jax.records import Example, Scene
from fgrpo_jax.world.drawing import blank, draw
from fgrpo_jax.world.questions import FAMILIES, Asked, Plan
from fgrpo_jax.world.scenes import DIFFICULTIES, Difficulty, make_scene
from fgrpo_jax.world.settings import FlawMix
from fgrpo_jax.world.traces import DONE, NO_FLAW, letter, write_trace

SOURCE = "world"
SPLITS = ("train", "heldout", "validation")
_FOLDS = 5  # of 5 checksums, 0 is heldout, 1 validation and the others train
_ATTEMPTS = 20_000


@dataclasses.dataclass(frozen=True)
class World:
    """Every example of every split, by its number.

    Raises:
      ValueError: an unknown difficulty or family, weights that are negative or all 0, or a share outside [0, 1], for
        `captions` outside [0, 1).
    """

    difficulty: str = "tiny"  # a key of DIFFICULTIES
    families: Mapping[str, float] | None = None  # weight of each question family; None takes the difficulty's own mix
    flawed: float = 0.28  # share of the traces (captions apart) that get a flaw
    split_seed: int = 0  # of everything random
    flaws: FlawMix = FlawMix()
    yes_no: float = 0.5  # share of yes/no questions, the others being multiple choice
    captions: float = 0.0  # share of tasks that ask to list the objects; supervised training learns to see by them

    def __post_init__(self) -> None:
        spec = _difficulty(self.difficulty)
        families = dict(spec.families) if self.families is None else dict(self.families)
        unknown = sorted(set(families) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown question families {unknown}; known: {sorted(FAMILIES)}")
        if spec.cell and families.get("inside", 0):
            raise ValueError(f"difficulty {self.difficulty!r} has one object a cell: give family 'inside' weight 0")
        if not families or min(families.values()) < 0 or sum(families.values()) <= 0:
            raise ValueError(f"family weights {families}: need none negative and one above 0")
        for name in ("flawed", "yes_no"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: need a share in [0, 1]")
        if not 0 <= self.captions < 1:
            raise ValueError(f"captions={self.captions}: need a share in [0, 1)")
        if self.captions:
            families["describe"] = sum(families.values()) * self.captions / (1 - self.captions)
        object.__setattr__(self, "families", families)

    def example(self, index: int, *, split: str = "train", with_trace: bool = True, drawn: bool = True) -> Example:
        """Example `index` of a split, the same at every call.

        The image and the question do not depend on `flawed`, `flaws` and `with_trace`. If not `drawn`, the image
        is black and has nothing but its size.

        Raises:
          ValueError: unknown split or negative index.
        """
        if split not in SPLITS or index < 0:
            raise ValueError(f"split={split!r}, index={index}: need a split of {SPLITS} and an index >= 0")
        spec, rng = _difficulty(self.difficulty), self._generator(split, index, stream=0)
        scene, asked = _find(spec, self._plan(rng), split, rng)
        shown = tuple(rng.permutation(len(asked.options)).tolist())
        rng.random()  # decides nothing; it keeps the clutter and noise that are drawn next as in recorded runs
        trace_rng = self._generator(split, index, stream=1)
        trace, flaw = self._trace(asked, shown, scene, trace_rng) if with_trace else (None, NO_FLAW)
        return Example(
            id=f"{SOURCE}-{self.difficulty}-{self.split_seed}-{split}-{index}",
            images=(draw(scene, spec, rng=rng) if drawn else blank(scene.height, scene.width),),
            question=asked.text,
            options=tuple(asked.options[i] for i in shown),
            answer=letter(shown.index(asked.right)) if shown else DONE,
            boxes=tuple(thing.box for thing in asked.located[asked.right]),
            source=SOURCE,
            scene=scene,
            query=asked.query,
            trace=trace,
            flaw=flaw,
        )

    def _generator(self, split: str, index: int, *, stream: int) -> np.random.Generator:
        key = (self.split_seed, zlib.crc32(self.difficulty.encode()), SPLITS.index(split), index, stream)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def _plan(self, rng: np.random.Generator) -> Plan:
        assert self.families is not None
        names, weights = list(self.families), np.array(list(self.families.values()), dtype=np.float64)
        family = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        return Plan(family=family, yes_no=rng.random() < self.yes_no, truth=int(rng.integers(5040)))

    def _trace(self, asked: Asked, shown: tuple[int, ...], scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
        flaw = self.flaws.draw(rng) if asked.options and rng.random() < self.flawed else NO_FLAW
        answers = _difficulty(self.difficulty).answers
        return write_trace(asked, shown, scene, flaw=flaw, rng=rng, answers=answers), flaw


@dataclasses.dataclass(frozen=True)
class WorldSource:
    """The first `size` examples of one split of a world, by index (a `data.sources.Source`)."""

    world: World
    split: str
    with_trace: bool = False  # whether examples carry reference responses
    size: int = 1_000_000

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        return self._example(index, drawn=True)

    def outline(self, index: int) -> Example:
        """The example with an image that has nothing but its size."""
        return self._example(index, drawn=False)

    def _example(self, index: int, *, drawn: bool) -> Example:
        if not 0 <= index < self.size:
            raise IndexError(f"example {index} of a source of {self.size}")
        return self.world.example(int(index), split=self.split, with_trace=self.with_trace, drawn=drawn)


def find_example(id: str) -> Example:
    """The example of an id, 'world-DIFFICULTY-SEED-SPLIT-INDEX', as the default world of that seed has it (no trace).

    Raises:
      ValueError: no such id.
    """
    parts = re.fullmatch(rf"{SOURCE}-([^-]*)-(\d+)-([^-]*)-(\d+)", id)
    if parts is None:
        raise ValueError(f"{id!r} is no example of the built-in world: need 'world-DIFFICULTY-SEED-SPLIT-INDEX'")
    return World(parts[1], split_seed=int(parts[2])).example(int(parts[4]), split=parts[3], with_trace=False)


def _difficulty(name: str) -> Difficulty:
    if name not in DIFFICULTIES:
        raise ValueError(f"unknown difficulty {name!r}; known: {sorted(DIFFICULTIES)}")
    return DIFFICULTIES[name]


def _find(spec: Difficulty, plan: Plan, split: str, rng: np.random.Generator) -> tuple[Scene, Asked]:
    """Scenes at random until one is of this split and has a clear case for the plan."""
    for _ in range(_ATTEMPTS):
        scene = make_scene(rng, spec)
        if len(scene.objects) < 3 or split_of(scene) != split:
            continue
        asked = FAMILIES[plan.family](scene, plan, rng, spec)
        if asked is not None:
            return scene, asked
    raise RuntimeError(f"no {spec.name} scene for {plan} in {_ATTEMPTS} tries")


def split_of(scene: Scene) -> str:
    """The split that a scene belongs to, by a checksum of its content."""
    content = sorted((thing.color, thing.shape, thing.box) for thing in scene.objects)
    fold = zlib.crc32(repr((scene.width, scene.height, content)).encode()) % _FOLDS
    return {0: "heldout", 1: "validation"}.get(fold, "train")
