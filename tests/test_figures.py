"""Figures of an evaluation against tables made by hand: ties, empties, unparsed output, units, averages, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fgrpo_jax.evaluation import benchmarks, figures, results
from fgrpo_jax.evaluation.benchmarks import SEVEN
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.score import RewardConfig, score

QUICK = 200


def answer(accuracy: float = 1.0, *, tags: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """One answer as it stands on file; by default right and with nothing judged."""
    row = {
        "accuracy": accuracy,
        "format": 1.0,
        "consistency": None,
        "semantic_grounding": None,
        "spatial_grounding": None,
        "box_iou": None,
        "answered": True,
        "truncated": 0.0,
        "tokens": 10,
        "words": 5,
        "judge_failed": 0,
        "tags": tags or {},
    }
    return row | fields


def values(found: results.SetResult) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in found.figures.items()}


# ------------------------------------------------------------------------------------------------------ tables by hand
def test_a_table_made_by_hand() -> None:
    rows = [
        answer(1, consistency=1.0, semantic_grounding=1.0, spatial_grounding=0.5, tokens=8, words=4),
        answer(1, consistency=0.0, semantic_grounding=0.5, tokens=12, words=6),
        answer(0, consistency=0.0, answered=False, format=0.0, tokens=20, words=0, truncated=1.0),
        answer(0, consistency=1.0, semantic_grounding=0.0, tokens=40, words=10),
        answer(1, consistency=None, judge_failed=1, judge_abstained=2, tokens=20, words=5),
    ]
    found = results.of_set("any", rows, resamples=QUICK)
    assert values(found) == {
        "accuracy_paper": 3 / 5,
        "accuracy_official": 3 / 5,
        "accuracy": 3 / 5,
        "inconsistency": 2 / 4,  # over right and wrong answers; the failed judgement is neither
        "inconsistency_correct": 1 / 2,
        "semantic_grounding": 0.5,  # (1 + 0.5 + 0) / 3
        "spatial_grounding": 0.5,
        "box_iou": None,  # no boxes anywhere: undefined, and not 0
        "unparsed": 1 / 5,
        "format": 4 / 5,
        "truncated": 1 / 5,
        "tokens": 20.0,
        "words": 5.0,
    }
    counts = {name: estimate.count for name, estimate in found.figures.items()}
    assert (counts["inconsistency"], counts["inconsistency_correct"]) == (4, 2)
    assert (counts["semantic_grounding"], counts["spatial_grounding"], counts["box_iou"]) == (3, 1, 0)
    assert found.counts == {
        "unparsed": 1,
        "truncated": 1,
        "judge_failed": 1,
        "judge_abstained": 2,
        "extractor_failed": 0,
        "units_not_whole": 0,
    }
    assert found.json["figures"]["box_iou"] == {"value": None, "low": None, "high": None, "count": 0}


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="set 'any' has no answers"):
        results.of_set("any", [])


def test_mmvp_by_question_and_by_pair() -> None:
    """Pairs: both right, one right, none right, and one whose other half is missing."""
    right = {"1": (1, 1), "2": (1, 0), "3": (0, 0), "4": (1,)}
    rows = [answer(value, tags={"pair": pair}) for pair, pair_values in right.items() for value in pair_values]
    found = results.of_set("mmvp", rows, resamples=QUICK)
    assert found.figures["accuracy_paper"].value == 4 / 7 and found.figures["accuracy_paper"].count == 7
    assert found.figures["accuracy_official"].value == 1 / 3 and found.figures["accuracy_official"].count == 3
    assert found.counts["units_not_whole"] == 1


def test_sat_over_rotations_and_strict() -> None:
    """Whoever always says 'A' is right in one of the two rotations: half by the paper's count, none by the strict."""
    rows = [
        answer(rotation == 0, tags={"unit": str(unit), "rotation": str(rotation)})
        for unit in range(20)
        for rotation in (0, 1)
    ]
    found = results.of_set("sat_real", rows, resamples=QUICK)
    paper, official = found.figures["accuracy_paper"], found.figures["accuracy_official"]
    assert (paper.value, paper.count, official.value, official.count) == (0.5, 40, 0.0, 20)
    assert (paper.low, paper.high) == (0.5, 0.5), "units are drawn, not answers: every unit is half right"


def test_cv_bench_micro_and_mean_of_sources() -> None:
    rows = [answer(1, tags={"source": "COCO", "task": "Count"})] * 6 + [
        answer(1, tags={"source": "ADE20K", "task": "Count"}),
        answer(0, tags={"source": "ADE20K", "task": "Relation"}),
    ]
    found = results.of_set("cv_bench_2d", rows, resamples=QUICK)
    assert found.figures["accuracy_paper"].value == 7 / 8
    assert found.figures["accuracy_official"].value == (1 + 1 / 2) / 2
    assert found.groups["task"] == {"Count": (7, 7), "Relation": (0, 1)}
    assert found.groups["source"] == {"ADE20K": (1, 2), "COCO": (6, 6)}
    alone = results.of_set("cv_bench_2d", rows[:6], resamples=QUICK)
    assert alone.figures["accuracy_official"].value is None, "half of a mean is no mean"


def test_the_average_is_of_sets_and_not_of_questions() -> None:
    sets = {"mindcube": (1, 1, 1, 1, 0, 0, 0, 0, 0, 0), "realworldqa": (1, 1), "world-heldout": (0, 0)}
    found = [results.of_set(name, [answer(v) for v in rows], resamples=QUICK) for name, rows in sets.items()]
    average = results.average(found)
    assert average["accuracy_paper"].value == pytest.approx((0.4 + 1.0) / 2)
    assert average["accuracy_paper"].count == 2, "the built-in world is none of the seven"
    assert average["inconsistency"].value is None
    assert not results.is_whole(found)
    assert results.to_json(found[2:], {}).keys() == {"protocol", "sets"}


def test_only_whole_sets_make_the_papers_average() -> None:
    rows = lambda name: [answer()] * benchmarks.BENCHMARKS[name].questions  # noqa: E731
    found = [results.of_set(name, rows(name), resamples=2) for name in SEVEN]
    assert results.is_whole(found)
    assert not results.is_whole(found[1:])
    cut = results.of_set("mmvp", rows("mmvp")[1:], resamples=2)
    assert not results.is_whole([result if result.name != "mmvp" else cut for result in found])


# ------------------------------------------------------------------------------------------------------------ intervals
def test_the_interval_is_that_of_the_binomial() -> None:
    n, k = 100, 30
    found = results.of_set("any", [answer(index < k) for index in range(n)], resamples=20_000).figures["accuracy"]
    want = stats.binom.ppf([0.025, 0.975], n, k / n) / n
    np.testing.assert_allclose([found.low, found.high], want, atol=0.01 + 1e-9)


def test_units_widen_the_interval_of_answers_that_fall_together() -> None:
    """100 units of two equal answers hold as much as 100 answers, not as 200."""
    rng = np.random.default_rng(0)
    rows = [answer(value, tags={"pair": str(i)}) for i, value in enumerate(rng.integers(2, size=100)) for _ in "ab"]
    width = lambda name: (lambda e: e.high - e.low)(results.of_set(name, rows).figures["accuracy"])  # noqa: E731
    assert width("mmvp") / width("other") == pytest.approx(2**0.5, rel=0.06)


def test_intervals_are_the_same_again_and_differ_between_sets() -> None:
    rows = [answer(index % 3 == 0) for index in range(50)]
    one, two = (results.of_set("any", rows, resamples=QUICK).json for _ in range(2))
    assert one == two
    other = results.of_set("other", rows, resamples=QUICK)
    assert not np.array_equal(other.drawn["accuracy"], results.of_set("any", rows, resamples=QUICK).drawn["accuracy"])


def test_pieces_of_resampling_do_not_matter_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = list(figures.resampled(7, resamples=10, seed=1))
    monkeypatch.setattr(figures, "_CELLS", 21)
    cut = list(figures.resampled(7, resamples=10, seed=1))
    assert [len(piece) for piece in pieces] == [10] and [len(piece) for piece in cut] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(cut), pieces[0])
    np.testing.assert_array_equal(pieces[0].sum(axis=1), 7)


# ------------------------------------------------------------------------------------------------------ random policies
def said(rng: np.random.Generator, options: int, *, silent: float) -> str:
    """A response that names an option at random, or none."""
    if rng.random() < silent:
        return "<think>I cannot tell.</think><answer></answer>"
    return f"<think>Chance.</think><answer>{'ABCDEF'[rng.integers(options)]}</answer>"


def guesses(seed: int, *, count: int, silent: float) -> tuple[list[dict[str, Any]], float]:
    """(answers of a policy that guesses, its expected accuracy)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, size=count)
    examples = [
        Example(str(i), (), "Which?", tuple(f"thing {k}" for k in range(n)), "ABCDEF"[rng.integers(n)])
        for i, n in enumerate(sizes)
    ]
    texts: Sequence[Sequence[str]] = [[said(rng, int(n), silent=silent)] for n in sizes]
    signals, seen = score(examples, texts, sizes=[ImageSize(0, 0, 0, 0)] * count, config=RewardConfig())
    rows = [
        answer(float(right), answered=bool(read))
        for right, read in zip(signals.accuracy[:, 0], seen["answered"][:, 0], strict=True)
    ]
    return rows, float((1 - silent) * np.mean(1 / sizes))


@pytest.mark.parametrize("silent", [0.0, 0.5])
def test_a_random_policy_scores_chance_within_its_interval(silent: float) -> None:
    """In 19 of 20 evaluations; and saying nothing earns nothing, instead of the 'A' of a careless reader."""
    inside = 0
    for seed in range(100):
        rows, chance = guesses(seed, count=150, silent=silent)
        found = results.of_set("any", rows, resamples=400).figures
        inside += found["accuracy"].low <= chance <= found["accuracy"].high
        assert found["unparsed"].value == pytest.approx(silent, abs=0.15)
    assert inside >= 88
