"""The main job: the shipped policy, the README's run, NLVR, conversion, resuming, devices, the equations, bad input."""

from __future__ import annotations

from collections.abc import Iterator

from checks import heldout, nlvr, readme_run, resume, runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check, below
from fgrpo_jax.rows import read_rows

ALGEBRA = Nodes(
    "algebra",
    {
        "Eq. 5: means of the constraints, by hand": "test_multipliers.py::test_multipliers",
        "Eq. 4: multipliers, by hand and in the compiled step": (
            "test_multiplier_rules.py::test_the_papers_rule_is_update_bit_for_bit_and_remembers_nothing "
            "test_learner.py::test_multipliers_means_and_shares_are_those_of_the_equations"
        ),
        "Eq. 6: advantages, by hand": "test_advantages.py::test_advantages",
        "lambda 0 is GRPO-T in bits": (
            "test_baselines.py::test_fgrpo_at_lambda_zero_is_grpo_t_bit_for_bit "
            "test_learner.py::test_without_constraints_in_force_the_step_is_grpos"
        ),
        "constant groups": (
            "test_dead_groups.py::test_constant_is_a_range_test test_learner.py::test_a_dead_group_gives_no_gradient"
        ),
    },
)
CONVERT_EXPORT = Nodes(
    "convert_export",
    {
        "round trip, bytes": "test_convert.py::test_round_trip_is_byte_identical_and_needs_only_the_checkpoint",
        "checkpoint argument": "test_checkpoint.py::test_resolve_takes_workdir_folder_or_one_checkpoint",
    },
)
REFUSALS = Nodes(
    "refusals",
    {
        "unknown config key": "test_train.py::test_unknown_config_key",
        "mesh that does not divide the devices": "test_train.py::test_a_mesh_that_does_not_divide_the_devices",
        "workdir that holds another run": "test_train.py::test_a_workdir_that_holds_another_run",
        "prompt longer than the limit": "test_train.py::test_a_prompt_longer_than_the_limit",
        "missing or truncated safetensors": (
            "test_train.py::test_missing_and_truncated_safetensors "
            "test_convert.py::test_bad_folders_are_named_and_leave_nothing"
        ),
        "tensor that is missing, unknown or of the wrong shape": "test_train.py::test_wrong_tensors",
        "image that does not decode": (
            "test_train.py::test_an_image_that_does_not_decode_is_known_before_the_run_when_it_comes_first "
            "test_train.py::test_an_image_that_does_not_decode_stops_a_run_between_steps"
        ),
        "example without an answer": "test_train.py::test_an_example_without_an_answer",
    },
)
DEVICES = Nodes(
    "devices",
    {
        "five steps on the same rollouts": "test_multidevice.py::test_five_steps_on_the_same_rollouts_agree",
        "tokens of a learned policy": "test_multidevice.py::test_a_learned_policy_draws_the_same_tokens_on_both",
    },
)


def sampler_checks(context: runs.Context) -> Iterator[Check]:
    """Sampler and learner run the same model: every step of every run that was made, and of those on file."""
    found = readme_run.logp_differences(context.results)
    for file in sorted(context.scratch.rglob("metrics.jsonl")):
        steps = [row["sampler/logp_diff_mean"] for row in read_rows(file)]
        if steps:
            found[str(file.parent.relative_to(context.scratch))] = max(steps)
    worst = max(found, key=lambda name: found[name], default=None)
    name = f"sampler/logp_diff_mean, worst step of {len(found)} runs"
    yield below(name, None if worst is None else found[worst], 1e-4)


GROUPS: Groups = {
    "algebra": (ALGEBRA,),
    "readme_run": (readme_run.checks,),
    "convert_export": (CONVERT_EXPORT,),
    "refusals": (REFUSALS,),
    "warmstart": (heldout.checks,),
    "resume": (resume.checks,),
    "devices": (DEVICES,),
    "nlvr": (nlvr.checks,),
    "sampler": (sampler_checks,),  # last: it reads what the runs of the others left
}
