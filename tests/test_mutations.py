"""The mutations of tools/mutations.toml can still be made; the tool that runs them takes an hour."""

from __future__ import annotations

import mutations
import pytest


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda m: m.name)
def test_the_piece_stands_in_its_file_once_and_the_test_exists(mutation: mutations.Mutation) -> None:
    assert mutations.problem(mutation) is None


def test_names_are_their_own() -> None:
    assert len({mutation.name for mutation in mutations.MUTATIONS}) == len(mutations.MUTATIONS) > 60


def test_a_piece_that_is_gone_is_named() -> None:
    gone = mutations.Mutation("x", "fgrpo_jax/records.py", "no such piece", "", "tests/test_mutations.py::test_x")
    assert mutations.problem(gone) == "its piece stands 0 times in fgrpo_jax/records.py"
    with pytest.raises(ValueError, match=r"mutation 'x'.*bring tools/mutations.toml up to date"):
        mutations.turns_red(gone)
