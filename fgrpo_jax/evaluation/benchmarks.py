"""How each benchmark is scored: the paper's variant beside the official one, units, and groups of questions.

The tags that are read here are those that the readers of `fgrpo_jax.data.sets.catalogue` give.
"""

from __future__ import annotations

import dataclasses

from fgrpo_jax.evaluation.figures import FIGURES, Answer, Column, Figure, Unit, mean_of

SEVEN = ("cv_bench_2d", "cv_bench_3d", "mindcube", "mmvp", "omnispatial", "realworldqa", "sat_real")
"""The paper's benchmarks; its average is their unweighted mean."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How one set is scored.

    Attributes:
      paper: accuracy as the paper counts it.
      official: accuracy as the benchmark's authors count it.
      unit: tag whose value holds the answers of a unit together; '' makes every answer its own.
      size: answers of a whole unit.
      groups: tags by which accuracy is broken down.
      questions: answers of the whole set as published; 0 where it has no fixed size.
    """

    paper: Figure
    official: Figure
    unit: str = ""
    size: int = 1
    groups: tuple[str, ...] = ()
    questions: int = 0

    def unit_of(self, answer: Answer) -> str | None:
        """The unit of an answer; None where it is one by itself."""
        return answer["tags"].get(self.unit) if self.unit else None


def _where(tag: str, value: str) -> Column:
    """Accuracy over the answers with this tag."""
    return mean_of(lambda answer: answer["accuracy"] if answer["tags"].get(tag) == value else None)


def _all_right(size: int) -> Column:
    """1 for a unit whose `size` answers are all right, 0 else; a unit that is not whole is left out."""

    def column(unit: Unit) -> tuple[float, float]:
        whole = len(unit) == size
        return float(whole and all(answer["accuracy"] > 0 for answer in unit)), float(whole)

    return column


MICRO = Figure("share of right answers", FIGURES["accuracy"].columns)

BENCHMARKS: dict[str, Benchmark] = {
    "cv_bench_2d": Benchmark(
        paper=MICRO,
        official=Figure(
            "mean of the accuracies on ADE20K and on COCO", (_where("source", "ADE20K"), _where("source", "COCO"))
        ),
        groups=("task", "source"),
        questions=1438,
    ),
    "cv_bench_3d": Benchmark(paper=MICRO, official=MICRO, groups=("task",), questions=1200),
    "mindcube": Benchmark(
        paper=MICRO,
        official=Figure(
            "share of right answers, without the setting `translation`",
            (mean_of(lambda a: None if a["tags"].get("setting") == "translation" else a["accuracy"]),),
        ),
        groups=("setting", "category"),
        questions=1050,
    ),
    "mmvp": Benchmark(
        paper=Figure("share of right answers, question by question", MICRO.columns),
        official=Figure("share of pairs with both questions right", (_all_right(2),)),
        unit="pair",
        size=2,
        questions=300,
    ),
    "omnispatial": Benchmark(paper=MICRO, official=MICRO, groups=("task_type", "sub_task_type"), questions=1533),
    "realworldqa": Benchmark(paper=MICRO, official=MICRO, questions=765),
    "sat_real": Benchmark(
        paper=Figure("share of right answers over both rotations of the options", MICRO.columns),
        official=Figure("share of questions right in both rotations (strict circular)", (_all_right(2),)),
        unit="unit",
        size=2,
        groups=("question_type",),
        questions=300,
    ),
}
"""By the name of the set; others are scored as OTHER."""

OTHER = Benchmark(paper=MICRO, official=MICRO)


def find(name: str) -> Benchmark:
    """How the set of this name is scored; 'mmvp' and 'mmvp-test' are the same set."""
    return BENCHMARKS.get(name.partition("-")[0], OTHER)
