"""Accelerators: what two layers of the 3B width move and launch on a GPU that is not there, against budgets."""

from __future__ import annotations

from checks.areas import Groups
from checks.nodes import Nodes

HAND = Nodes(
    "by_hand",
    {
        "bytes, kernels, copies and conversions of a token": "test_programs.py::test_a_token_by_hand",
        "graphs and loops that the host checks": "test_programs.py::test_launches_of_a_token_by_hand",
        "operations against the compiler's": "test_learner_tools.py::test_operations_are_those_of_the_compiled_program",
    },
)
BUDGETS = Nodes(
    "budgets",
    {
        "a token of two layers of the 3B width on an H200": "test_programs.py::test_budgets_of_two_layers",
        "a learner step of them": "test_programs.py::test_budgets_of_two_layers_of_the_learner",
    },
)

GROUPS: Groups = {"by_hand": (HAND,), "budgets": (BUDGETS,)}
