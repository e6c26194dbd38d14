"""Comparisons of runs, on numbers small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_figures import answer

from fgrpo_jax import evaluate
from fgrpo_jax.evaluation import paper, significance
from fgrpo_jax.evaluation.benchmarks import SEVEN
from fgrpo_jax.evaluation.significance import Difference, compare, holm, mcnemar, paired, table

QUICK = 300


def rows(*values: float, **fields: Any) -> list[dict[str, Any]]:
    return [answer(value, id=f"q{index}", **fields) for index, value in enumerate(values)]


def one(first: Any, other: Any, *, name: str = "any", resamples: int = QUICK) -> significance.SetComparison:
    return compare({name: first}, {"b": {name: other}}, resamples=resamples)["b"][0]


def test_mcnemar_is_the_sign_test_of_what_changed() -> None:
    first = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    other = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 0], bool)
    found = mcnemar(first, other)
    assert (found.gained, found.lost) == (6, 1)
    assert found.p == pytest.approx(2 * (7 + 1) / 2**7)  # 2·P(at most 1 of 7) under even odds
    assert mcnemar(first, first).p == 1.0
    for gained, lost in ((0, 1), (3, 3), (40, 20), (700, 640)):
        changed = np.array([False] * gained + [True] * lost)
        want = stats.binomtest(gained, gained + lost, 0.5).pvalue
        assert mcnemar(changed, ~changed).p == pytest.approx(want), (gained, lost)


def test_holm_on_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_one_run_leaves_undefined_is_out_of_both() -> None:
    first, other = rows(1, 1, 0, 0), rows(1, 0, 1, 1)
    for row, a, b in zip(range(4), (1.0, 0.0, None, 1.0), (0.0, None, 1.0, 1.0), strict=True):
        first[row]["consistency"], other[row]["consistency"] = a, b
    found = one(first, other).differences
    assert (found["accuracy_paper"].before, found["accuracy_paper"].after) == (0.5, 0.75)
    inconsistency = found["inconsistency"]
    assert (inconsistency.before, inconsistency.after, inconsistency.count) == (0.0, 0.5, 2)
    assert "semantic_grounding" not in found and "inconsistency_correct" not in found


def test_questions_pair_by_id_whatever_the_order() -> None:
    first, other = rows(1, 0, 0, 1), rows(1, 1, 0, 1)
    assert one(first, other).differences == one(first, [other[i] for i in (2, 0, 3, 1)]).differences
    with pytest.raises(
        ValueError, match=r"holds different questions in the two runs \(1 ids in one only, such as q3\)"
    ):
        one(first, other[:3])
    with pytest.raises(ValueError, match="b shares no set with the first run: that has x, b has y"):
        compare({"x": first}, {"b": {"y": other}})


def test_the_interval_is_that_of_the_binomial() -> None:
    """Of n questions k become right and none wrong: resampled changes are Binomial(n, k/n)/n."""
    n, k = 100, 30
    found = one(rows(*[0.0] * n), rows(*[1.0] * k, *[0.0] * (n - k)), resamples=20_000)
    want = stats.binom.ppf([0.025, 0.975], n, k / n) / n
    change = found.differences["accuracy_paper"]
    np.testing.assert_allclose([change.low, change.high], want, atol=0.01 + 1e-9)
    assert change.change == pytest.approx(0.3)
    assert found.mcnemar.p == pytest.approx(2 * 0.5**k)


def test_equal_differences_leave_no_doubt() -> None:
    first = rows(*(k / 4 for k in range(4) for _ in range(5)))
    found = one(first, [row | {"accuracy": row["accuracy"] + 0.25} for row in first])
    change = found.differences["accuracy_paper"]
    assert [change.change, change.low, change.high] == pytest.approx([0.25] * 3)


def test_pairs_of_questions_are_tested_as_pairs() -> None:
    """Both questions of ten pairs become right: ten units gained, not twenty answers."""
    tags = [{"pair": str(index // 2)} for index in range(24)]
    first = [row | {"tags": tag} for row, tag in zip(rows(*[0.0] * 20, *[1.0] * 4), tags, strict=True)]
    other = [row | {"tags": tag} for row, tag in zip(rows(*[1.0] * 24), tags, strict=True)]
    found = one(first, other, name="mmvp")
    assert (found.mcnemar.gained, found.mcnemar.lost) == (10, 0)
    assert found.mcnemar.p == pytest.approx(2 * 0.5**10)
    assert found.differences["accuracy_official"].count == 12


def test_tests_of_all_runs_are_adjusted_together() -> None:
    first, better = rows(*[0.0] * 8), rows(*[1.0] * 8)
    found = compare({"s": first}, {"b": {"s": better}, "c": {"s": better}}, resamples=QUICK)
    p = found["b"][0].mcnemar
    assert p.p == pytest.approx(2 * 0.5**8) and p.adjusted == pytest.approx(2 * p.p)


def test_the_average_is_over_the_papers_sets() -> None:
    first = {"mindcube": rows(0, 0), "realworldqa": rows(1, 1, 0, 0), "world-heldout": rows(0)}
    other = {"mindcube": rows(1, 1), "realworldqa": rows(1, 1, 0, 0), "world-heldout": rows(1)}
    mean = significance.average(compare(first, {"b": other}, resamples=QUICK)["b"])["accuracy_paper"]
    assert (mean.before, mean.after, mean.count) == (0.25, 0.75, 2)


# --------------------------------------------------------------------------------------------------------------- door
def write(workdir: Path, sets: dict[str, list[dict[str, Any]]], **settings: Any) -> Path:
    folder = workdir / "eval"
    folder.mkdir(parents=True)
    for name, answers in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
        (folder / f"{name}.settings.json").write_text(json.dumps({"set": name, "policy": {}, "config": settings}))
    (folder / "results.json").write_text("{}")
    return workdir


def test_the_door_compares_and_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = {"realworldqa": rows(1, 0, 0, 0)}, {"realworldqa": rows(1, 1, 1, 0)}
    a = write(tmp_path / "a", sets[0], **{"data.max_pixels": 100})
    b = write(tmp_path / "b", sets[1], **{"data.max_pixels": 200})
    assert evaluate.run(["compare", str(a), str(b), f"--out={tmp_path / 'c'}", "--resamples=100"]) == 0
    said = capsys.readouterr().out
    assert "b differs from a in realworldqa: config.data.max_pixels: 100 → 200" in said
    assert "paper: FGRPO, 7B" in said and "67.2" in said and "average of 1 of the paper's 7 sets" in said
    found = json.loads((tmp_path / "c/comparison.json").read_text())["comparisons"][0]
    assert found["sets"]["realworldqa"]["differences"]["accuracy_paper"]["change"] == 0.5
    assert found["sets"]["realworldqa"]["mcnemar"]["gained"] == 2
    assert found["average"]["accuracy_paper"]["after"] == 0.75
    for name in ("comparison.md", "comparison.tex"):
        assert "realworldqa" in (tmp_path / "c" / name).read_text()


def test_the_door_refuses_what_has_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.run(["compare", str(tmp_path)]) == 1
    assert "no answers in" in capsys.readouterr().err
    a = write(tmp_path / "a", {"s": rows(1)})
    (a / "eval/results.json").unlink()
    assert evaluate.run(["compare", str(a)]) == 1
    assert "has not ended; run its command again" in capsys.readouterr().err


def test_the_papers_numbers_are_those_of_the_specification() -> None:
    """As the paper prints them; nothing where it prints nothing."""
    stated = {row.name: (row.accuracy, row.inconsistency, row.semantic) for row in paper.rows()}
    assert stated["GRPO-T, 7B"] == (65.17, 26.1, 72.7) and stated["FGRPO, 7B"] == (67.16, 1.7, 86.0)
    assert stated["FGRPO, 3B"] == (62.39, None, None) and stated["warm start (SFT), 7B"] == (57.7, 7.4, None)
    assert len(stated) == len(paper.rows()) == 20
    assert all("arXiv 2604.08476" in paper.load(name)["source"] for name in paper.FILES)


def test_the_papers_averages_are_those_of_its_sets() -> None:
    """A slip in one of the 105 accuracies would show: each row's own average, as printed, to the printed digit."""
    whole = [row for row in paper.rows("table1") if row.sets]
    assert len(whole) == 15 and all(tuple(row.sets) == SEVEN for row in whole)
    for row in whole:
        assert abs(sum(row.sets.values()) / 7 - row.accuracy) < 0.02, row.name
    fgrpo = next(row for row in whole if row.name == "FGRPO, 7B")
    assert (fgrpo.sets["cv_bench_2d"], fgrpo.sets["mindcube"], fgrpo.sets["sat_real"]) == (82.38, 49.28, 65.66)


# ------------------------------------------------------------------------------------------------- before and after
def answers(*values: float | None) -> list[dict[str, float | str | None]]:
    return [{"id": f"q{index}", "accuracy": value} for index, value in enumerate(values)]


def test_means_are_over_the_questions_that_both_define() -> None:
    before, after = answers(0, 1, 0, None, 1, 0), answers(1, 1, 0, 1, None, 1)
    row = paired("accuracy", before, after)
    assert (row.before, row.after, row.count) == (0.25, 0.75, 4)
    assert row.change == 0.5 and row.low <= row.change <= row.high


def test_pairs_of_answers_are_found_by_id_whatever_the_order() -> None:
    before, after = answers(0.1, 0.2, 0.9, 0.4), answers(0.3, 0.2, 0.6, 0.8)
    assert paired("accuracy", before, after) == paired("accuracy", before[::-1], [after[i] for i in (2, 0, 3, 1)])


def test_equal_differences_of_answers_leave_no_doubt() -> None:
    """Every question 0.25 better: pairing takes out the spread between questions, however wide."""
    before = answers(*(k / 4 for k in range(4) for _ in range(5)))
    after = [{**row, "accuracy": row["accuracy"] + 0.25} for row in before]
    row = paired("accuracy", before, after)
    assert (row.change, row.low, row.high) == (0.25, 0.25, 0.25)


def test_the_interval_of_answers_is_that_of_the_binomial() -> None:
    """Of n questions k become right and none wrong: resampled means are Binomial(n, k/n)/n, with known quantiles."""
    n, k = 100, 30
    row = paired("accuracy", answers(*[0] * n), answers(*[1] * k, *[0] * (n - k)))
    want = stats.binom.ppf([0.025, 0.975], n, k / n) / n
    np.testing.assert_allclose([row.low, row.high], want, atol=0.01 + 1e-9)
    assert row.change == pytest.approx(0.3)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        difference = rng.normal(0.1, 1.0, size=60)
        row = paired("accuracy", answers(*[0.0] * 60), answers(*difference), resamples=400, seed=trial)
        covered += row.low <= 0.1 <= row.high
    assert 0.89 <= covered / 200 <= 0.99


def test_other_questions_and_undefined_figures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different questions \(1 ids in one only, such as q2\)"):
        paired("accuracy", answers(1, 1), answers(1, 1, 1))
    with pytest.raises(ValueError, match="no question has 'accuracy' in both"):
        paired("accuracy", answers(1, None), answers(None, 1))


def test_table_shows_percent_and_points() -> None:
    text = table([Difference("accuracy", before=0.4, after=0.525, low=-0.01, high=0.26, count=500)])
    head, line = text.splitlines()
    assert head.split()[:3] == ["held-out", "figure", "before"]
    assert line.split() == ["accuracy", "40.0%", "52.5%", "+12.5", "[-1.0,", "+26.0]", "500"]
