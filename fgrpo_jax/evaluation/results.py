"""The results of an evaluation: figures of each set with intervals, both variants of accuracy, breakdowns, averages."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgrpo_jax.evaluation import benchmarks, figures
from fgrpo_jax.evaluation.benchmarks import SEVEN
from fgrpo_jax.evaluation.figures import FIGURES, RESAMPLES, Answer, Estimate

VARIANTS = ("accuracy_paper", "accuracy_official")


@dataclasses.dataclass(frozen=True)
class SetResult:
    """What one set, by the name of its file, came to.

    Attributes:
      questions: answers.
      figures: of VARIANTS and FIGURES.
      groups: {tag: {value: (right answers, answers)}}.
      counts: answers that could not be read, were cut off, whose judge failed, and units that are not whole.
      drawn: bootstrap values of each figure, for averages over sets.
    """

    name: str
    questions: int
    figures: Mapping[str, Estimate]
    groups: Mapping[str, Mapping[str, tuple[int, int]]]
    counts: Mapping[str, int]
    drawn: Mapping[str, np.ndarray]

    @property
    def base(self) -> str:
        """Name of the set without its split."""
        return self.name.partition("-")[0]

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in results.json."""
        how = benchmarks.find(self.name)
        return {
            "questions": self.questions,
            "questions_published": how.questions,
            "accuracy_paper": {"about": how.paper.about, **dataclasses.asdict(self.figures["accuracy_paper"])},
            "accuracy_official": {"about": how.official.about, **dataclasses.asdict(self.figures["accuracy_official"])},
            "figures": {name: dataclasses.asdict(self.figures[name]) for name in FIGURES},
            "groups": {
                tag: {value: {"right": right, "questions": count} for value, (right, count) in found.items()}
                for tag, found in self.groups.items()
            },
            "counts": dict(self.counts),
        }


def of_set(name: str, answers: Sequence[Answer], *, resamples: int = RESAMPLES) -> SetResult:
    """The results of one set from all of its answers; intervals are from so many bootstrap samples."""
    if not answers:
        raise ValueError(f"set '{name}' has no answers")
    how = benchmarks.find(name)
    units = figures.group(answers, how.unit_of)
    measured = {"accuracy_paper": how.paper, "accuracy_official": how.official, **FIGURES}
    sums = figures.Sums.of(units, measured)
    drawn = figures.draws(sums, resamples=resamples, seed=figures.seed_of(name))
    values = figures.point(sums)
    estimates = {key: figures.estimate(values[key], drawn[key], sums.count(key)) for key in measured}
    counts = {
        "unparsed": sum(not answer["answered"] for answer in answers),
        "truncated": int(sum(answer["truncated"] for answer in answers)),
        "judge_failed": sum(answer["judge_failed"] for answer in answers),
        "judge_abstained": sum(answer.get("judge_abstained", 0) for answer in answers),
        "extractor_failed": sum(answer.get("extractor_failed", 0) for answer in answers),
        "units_not_whole": sum(len(unit) != how.size for unit in units),
    }
    groups = {tag: _by(answers, tag) for tag in how.groups}
    return SetResult(name, len(answers), estimates, groups, counts, drawn)


def _by(answers: Sequence[Answer], tag: str) -> dict[str, tuple[int, int]]:
    count = Counter(answer["tags"].get(tag, "") for answer in answers)
    right = Counter(answer["tags"].get(tag, "") for answer in answers if answer["accuracy"] > 0)
    return {value: (right[value], count[value]) for value in sorted(count)}


def average(results: Sequence[SetResult]) -> dict[str, Estimate]:
    """Unweighted means over those of the seven benchmarks that are there, each figure over the sets that have it.

    `count` is the number of sets. An interval is of the mean of independent bootstrap values of the sets.
    """
    seven = [result for result in results if result.base in SEVEN]
    out = {}
    for name in (*VARIANTS, *FIGURES):
        found = [(value, r.drawn[name]) for r in seven if (value := r.figures[name].value) is not None]
        if not found:
            out[name] = Estimate(None, None, None, 0)
            continue
        values, drawn = zip(*found, strict=True)
        out[name] = figures.estimate(float(np.mean(values)), np.mean(drawn, axis=0), len(found))
    return out


def is_whole(results: Sequence[SetResult]) -> bool:
    """Whether the average is the paper's: all seven benchmarks with all their questions."""
    whole = {r.base for r in results if r.questions == benchmarks.find(r.name).questions}
    return whole.issuperset(SEVEN)


def to_json(results: Sequence[SetResult], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """results.json: what was done, sets by name, and averages where any of the seven is there. Holds no times."""
    out: dict[str, Any] = {"protocol": dict(protocol), "sets": {result.name: result.json for result in results}}
    if any(result.base in SEVEN for result in results):
        means = {name: dataclasses.asdict(estimate) for name, estimate in average(results).items()}
        out["average"] = {"is_the_papers": is_whole(results), "figures": means}
    return out
