"""Shapes chosen from what batches need: the best cut, what does not fit, and padding counted by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from fgrpo_jax.data.buckets import Buckets, Shape, choose, padding


def needs(seed: int, *, count: int = 9) -> list[Shape]:
    rng = np.random.default_rng(seed)
    return [
        Shape(int(p), int(n) * 64, int(i), int(n) + 1)
        for p, n, i in zip(
            rng.integers(40, 900, count), rng.integers(1, 30, count), rng.integers(1, 3, count), strict=True
        )
    ]


def work(shapes, needed) -> float:
    return sum(Buckets(shapes=shapes).fit(need).work for need in needed)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_cut_wastes_less(seed, count):
    """Against every way to cut the needs, in the order of their work, into at most `count` runs."""
    needed = needs(seed)
    chosen = choose(needed, count=count)
    assert len(chosen) <= count and all(any(shape.holds(need) for shape in chosen) for need in needed)
    order = sorted((need.rounded for need in needed), key=lambda shape: (shape.work, shape))
    best = float("inf")
    for cuts in itertools.combinations(range(1, len(order)), min(count, len(order)) - 1):
        total = 0.0
        for start, end in itertools.pairwise((0, *cuts, len(order))):
            joint = order[start]
            for shape in order[start + 1 : end]:
                joint = joint.join(shape)
            total += (end - start) * joint.work
        best = min(best, total)
    assert work(chosen, needed) <= best + 1e-9


def test_one_shape_holds_all_and_more_waste_less():
    needed = needs(7, count=30)
    totals = [work(choose(needed, count=count), needed) for count in (1, 2, 4, 8, 16)]
    assert totals == sorted(totals, reverse=True) and totals[-1] < 0.8 * totals[0]
    (single,) = choose(needed, count=1)
    assert single.prompt == max(need.rounded.prompt for need in needed)


def test_equal_needs_make_one_shape_however_many_are_asked():
    assert choose([Shape(50, 60, 1, 1)] * 5, count=3) == (Shape(64, 64, 1, 1),)
    assert choose([Shape(50, 0, 0, 0)], count=3) == (Shape(64, 64, 1, 1),)  # text alone: one empty slot


def test_what_no_chosen_shape_holds_goes_to_the_ladders():
    buckets = Buckets(shapes=(Shape(64, 64, 1, 1), Shape(256, 128, 1, 2)))
    assert buckets.fit(Shape(60, 64, 1, 1)) == Shape(64, 64, 1, 1)
    assert buckets.fit(Shape(60, 64, 1, 2)) == Shape(256, 128, 1, 2)  # an image one cell high needs more windows
    assert buckets.fit(Shape(300, 64, 1, 1)).prompt == next(rung for rung in Buckets().prompt if rung >= 300)
    assert buckets.fit(Shape(60, 64, 2, 1)).images == 2


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="choosing 2 shapes for 0 needs"):
        choose([], count=2)
    with pytest.raises(ValueError, match="choosing 0 shapes"):
        choose([Shape(1, 4, 1, 1)], count=0)
    with pytest.raises(ValueError, match="multiples of 4"):
        Buckets(shapes=(Shape(32, 6, 1, 1),))


def test_padding_by_hand():
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    valid = np.zeros((2, 1, 8), bool)
    batch = SimpleNamespace(mask=mask, vision=SimpleNamespace(valid=valid))
    assert padding(batch) == {"tokens": 0.5, "patches": 0.0}
    valid[0, 0, :4] = True
    assert padding(batch) == {"tokens": 0.5, "patches": 0.75}
