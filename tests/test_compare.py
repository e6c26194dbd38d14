"""The paired comparison on numbers small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fgrpo_jax.evaluation.compare import Paired, paired, table


def answers(*values: float | None) -> list[dict[str, float | str | None]]:
    return [{"id": f"q{index}", "accuracy": value} for index, value in enumerate(values)]


def test_means_are_over_the_questions_that_both_define() -> None:
    before, after = answers(0, 1, 0, None, 1, 0), answers(1, 1, 0, 1, None, 1)
    row = paired("accuracy", before, after)
    assert (row.before, row.after, row.count) == (0.25, 0.75, 4)
    assert row.change == 0.5 and row.low <= row.change <= row.high


def test_pairs_are_found_by_id_whatever_the_order() -> None:
    before, after = answers(0.1, 0.2, 0.9, 0.4), answers(0.3, 0.2, 0.6, 0.8)
    assert paired("accuracy", before, after) == paired("accuracy", before[::-1], [after[i] for i in (2, 0, 3, 1)])


def test_equal_differences_leave_no_doubt() -> None:
    """Every question 0.25 better: pairing takes out the spread between questions, however wide."""
    before = answers(*(k / 4 for k in range(4) for _ in range(5)))
    after = [{**row, "accuracy": row["accuracy"] + 0.25} for row in before]
    row = paired("accuracy", before, after)
    assert (row.change, row.low, row.high) == (0.25, 0.25, 0.25)


def test_the_interval_is_that_of_the_binomial() -> None:
    """Of n questions k become right and none wrong: resampled means are Binomial(n, k/n)/n, with known quantiles."""
    from scipy.stats import binom

    n, k = 100, 30
    row = paired("accuracy", answers(*[0] * n), answers(*[1] * k, *[0] * (n - k)))
    want = binom.ppf([0.025, 0.975], n, k / n) / n
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
    text = table([Paired("accuracy", before=0.4, after=0.525, low=-0.01, high=0.26, count=500)])
    head, line = text.splitlines()
    assert head.split()[:3] == ["held-out", "figure", "before"]
    assert line.split() == ["accuracy", "40.0%", "52.5%", "+12.5", "[-1.0,", "+26.0]", "500"]
