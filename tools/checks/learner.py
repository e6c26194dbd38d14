"""The learner: one compiled step that gives the same numbers however its work is split, and what it is made of."""

from __future__ import annotations

from checks.areas import Groups
from checks.nodes import Nodes

BASELINES = Nodes(
    "baselines",
    {
        "fields that each changes": "test_baselines.py::test_it_differs_from_what_it_builds_on_only_where_it_must",
        "advantages of each against numpy": "test_baselines.py::test_its_advantages_are_those_worked_out_by_hand",
        "lambda 0 is GRPO-T in bits": "test_baselines.py::test_fgrpo_at_lambda_zero_is_grpo_t_bit_for_bit",
    },
)
DUAL = Nodes(
    "dual_dynamics",
    {
        "multipliers and policy against the saddle": "test_dual_toy.py::test_every_rule_reaches_the_saddle",
        "an infeasible constraint": "test_dual_toy.py::test_an_infeasible_constraint_saturates_and_is_reported",
        "Eq. 6 as published circles": "test_dual_toy.py::test_eq_6_as_published_is_another_dynamic",
    },
)
PREFIX = Nodes(
    "prefix",
    {
        "log-probs and gradients against rows of their own": (
            "test_learner_prefix.py::test_shared_prefix_is_the_repeated_computation_on_mixed_images"
        )
    },
)
MEMORY = Nodes(
    "memory",
    {
        "no buffer of V, none of S × S": (
            "test_learner_memory.py::test_no_wide_buffer_and_no_growth_with_the_vocabulary"
        ),
        "what each remat policy keeps": "test_learner_memory.py::test_each_remat_policy_keeps_less_than_the_one_before",
    },
)
SPLITS = Nodes(
    "splits",
    {
        "step under every split and layout": "test_splits.py::test_no_split_or_layout_changes_the_step",
        "its functions in float64": "test_splits.py::test_its_functions_agree_in_float64",
    },
)

GROUPS: Groups = {
    "baselines": (BASELINES,),
    "dual_dynamics": (DUAL,),
    "prefix": (PREFIX,),
    "memory": (MEMORY,),
    "splits": (SPLITS,),
}
