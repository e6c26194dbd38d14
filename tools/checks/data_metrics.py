"""Definitions of the evaluation's figures, against tables made by hand and policies whose figures are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, at_most, between, same
from fgrpo_jax.evaluation import results, significance
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.score import RewardConfig, score

NOTHING = {"consistency": None, "semantic_grounding": None, "spatial_grounding": None, "box_iou": None}
EVALUATIONS = 200


def answer(accuracy: float, *, name: str = "", **fields: Any) -> dict[str, Any]:
    """An answer as it stands on file."""
    plain = {"format": 1.0, "answered": True, "truncated": 0.0, "tokens": 1, "words": 1, "judge_failed": 0, "tags": {}}
    return {"id": name, "accuracy": accuracy, **plain, **NOTHING, **fields}


def checks(context: runs.Context) -> Iterator[Check]:
    """Both variants of every benchmark that has two, means with empties, chance, intervals, the paired test."""
    yield from _variants()
    yield from _empties()
    yield from _chance()
    yield from _tests()


def _variants() -> Iterator[Check]:
    """MMVP by question and pair, SAT over rotations and strict, CV-Bench micro and by source."""
    pairs = [
        answer(value, tags={"pair": pair})
        for pair, both in {"1": (1, 1), "2": (1, 0), "3": (0, 0)}.items()
        for value in both
    ]
    yield same("metrics/mmvp: question by question, by pair", _accuracies("mmvp", pairs), [3 / 6, 1 / 3])
    always_a = [answer(turn == 0, tags={"unit": str(unit)}) for unit in range(30) for turn in (0, 1)]
    yield same(
        "metrics/sat of one who always says A: over rotations, strict", _accuracies("sat_real", always_a), [0.5, 0.0]
    )
    sources = [answer(1, tags={"source": "COCO"})] * 6 + [answer(v, tags={"source": "ADE20K"}) for v in (1, 0)]
    yield same("metrics/cv_bench_2d: micro, mean of sources", _accuracies("cv_bench_2d", sources), [7 / 8, 3 / 4])


def _accuracies(name: str, rows: Sequence[dict[str, Any]]) -> list[float | None]:
    found = results.of_set(name, rows, resamples=10).figures
    return [found["accuracy_paper"].value, found["accuracy_official"].value]


def _empties() -> Iterator[Check]:
    """What is undefined is out of the mean, and no 0; the inconsistency rate is over right and wrong answers."""
    rows = [
        answer(1, consistency=1.0, semantic_grounding=0.5),
        answer(1, consistency=0.0),
        answer(0, consistency=0.0, answered=False),
        answer(0, judge_failed=1),
    ]
    found = results.of_set("any", rows, resamples=10)
    shown = ("accuracy", "inconsistency", "inconsistency_correct", "semantic_grounding", "box_iou", "unparsed")
    values = [found.figures[name].value for name in shown]
    yield same("metrics/a table by hand: " + ", ".join(shown), values, [0.5, 2 / 3, 0.5, 0.5, None, 0.25])
    yield same("metrics/failed judgements are counted", found.counts["judge_failed"], 1)


def _chance() -> Iterator[Check]:
    """A policy that guesses scores chance within its interval in 19 of 20 evaluations; one that is silent scores 0."""
    inside = 0
    for seed in range(EVALUATIONS):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(2, 7, size=150)
        said = [f"<think>Chance.</think><answer>{'ABCDEF'[rng.integers(n)]}</answer>" for n in sizes]
        found = results.of_set("any", _scored(sizes, said, gold=rng), resamples=500).figures["accuracy"]
        assert found.low is not None and found.high is not None
        inside += found.low <= float(np.mean(1 / sizes)) <= found.high
    yield between(
        "metrics/share of evaluations of a guesser with chance in the interval", inside / EVALUATIONS, 0.90, 0.99
    )
    sizes = np.full(60, 4)
    for name, text in (
        ("an empty answer", "<think>Hm.</think><answer></answer>"),
        ("no answer at all", "I cannot tell."),
    ):
        silent = results.of_set("any", _scored(sizes, [text] * 60, gold=None), resamples=10)
        values = [silent.figures["accuracy"].value, silent.counts["unparsed"]]
        yield same(f"metrics/{name} is wrong and counted, never 'A': accuracy, unparsed", values, [0.0, 60])


def _scored(sizes: np.ndarray, said: Sequence[str], *, gold: np.random.Generator | None) -> list[dict[str, Any]]:
    """Answers of multiple-choice questions with so many options; without `gold` every right answer is A."""
    letters = ["A" if gold is None else "ABCDEF"[gold.integers(n)] for n in sizes]
    examples = [
        Example(str(i), (), "Which?", tuple(f"thing {k}" for k in range(n)), letter)
        for i, (n, letter) in enumerate(zip(sizes, letters, strict=True))
    ]
    blank = [ImageSize(0, 0, 0, 0)] * len(examples)
    signals, seen = score(examples, [[text] for text in said], sizes=blank, config=RewardConfig())
    pairs = zip(signals.accuracy[:, 0], seen["answered"][:, 0], strict=True)
    return [answer(float(right), answered=bool(read)) for right, read in pairs]


def _tests() -> Iterator[Check]:
    """The interval against the binomial's own quantiles, and McNemar's test against its sum."""
    n, k = 200, 60
    found = results.of_set("any", [answer(index < k) for index in range(n)], resamples=20_000).figures["accuracy"]
    assert found.low is not None and found.high is not None
    want = [_quantile(share, n, k / n) / n for share in (0.025, 0.975)]
    worst = max(abs(found.low - want[0]), abs(found.high - want[1]))
    yield at_most("metrics/interval against the binomial's quantiles", worst, 1 / n + 1e-9)
    first, other = np.arange(10) < 3, np.arange(10) >= 2
    p = sum(math.comb(9, i) for i in range(3)) * 2 / 2**9
    yield same("metrics/McNemar: 7 gained, 2 lost", significance.mcnemar(first, other).p, p)


def _quantile(share: float, n: int, p: float) -> int:
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= share:
            return k
    return n
