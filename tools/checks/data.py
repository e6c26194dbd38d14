"""Data and evaluation: readers of published layouts, the pipeline, metrics, and bad data."""

from __future__ import annotations

import json
from collections.abc import Iterator

from checks import data_killed, runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check, at_least, at_most

ROUNDS = 3

SETS = Nodes(
    "sets",
    {
        "read in their published layouts": "test_sets.py::test_every_set_has_a_layout test_sets.py::test_a_set_is_read",
        "prepared, the examples of the published files": "test_prepare.py::test_a_prepared_set_gives_the_same_examples",
        "trained on for two steps, each and mixed": (
            "test_small_runs.py::test_two_steps_on_every_set test_mix.py::test_two_steps_on_the_mix"
        ),
        "evaluated": "test_evaluate_sets.py::test_every_question_is_answered_and_scored",
    },
)
BAD_DATA = Nodes(
    "bad_data",
    {
        "refused, with file and row": "test_bad_data.py::test_error_names_file_and_row",
        "left out and counted": "test_bad_data.py::test_skip_counts",
        "by prepare": (
            "test_bad_data.py::test_prepare_stops_or_counts "
            "test_bad_data.py::test_prepare_in_processes_names_the_row_too"
        ),
        "corrupt Parquet": (
            "test_bad_data.py::test_a_parquet_file_without_its_end "
            "test_bad_data.py::test_a_parquet_row_group_that_does_not_read"
        ),
        "met by a worker": "test_pipeline.py::test_a_bad_row_is_named_whoever_read_it",
    },
)
PIPELINE = Nodes(
    "pipeline",
    {
        "every example once an epoch, wherever two processes were stopped": (
            "test_steps.py::test_two_processes_stopped_anywhere_see_every_example_once "
            "test_steps.py::test_worker_processes_go_on_where_a_thread_stopped"
        ),
        "grouping pads less": "test_pipeline.py::test_grouping_pads_less",
    },
)
METRICS = Nodes(
    "metrics",
    {
        "mmvp: question by question, by pair": "test_figures.py::test_mmvp_by_question_and_by_pair",
        "sat: over rotations, strict": "test_figures.py::test_sat_over_rotations_and_strict",
        "cv_bench: micro, mean of sources": "test_figures.py::test_cv_bench_micro_and_mean_of_sources",
        "a table by hand, with empties": "test_figures.py::test_a_table_made_by_hand",
        "a guesser has chance in it": "test_figures.py::test_a_random_policy_scores_chance_within_its_interval",
        "interval against the binomial's": "test_figures.py::test_the_interval_is_that_of_the_binomial",
        "McNemar, Holm": (
            "test_significance.py::test_mcnemar_is_the_sign_test_of_what_changed "
            "test_significance.py::test_holm_on_the_textbook_example"
        ),
    },
)


def throughput(_: runs.Context) -> Iterator[Check]:
    """tools/bench_data.py: images a second against the plain processor, and what runs wait for their data."""
    done = runs.python(runs.ROOT / "tools/bench_data.py", f"--rounds={ROUNDS}", "--waiting").require()
    found = json.loads(done.out.splitlines()[-1])
    for row in found["images"]:
        rates = {name: round(row[name], 1) for name in ("ours", "theirs")}
        yield at_least(f"pipeline/images of {row['size']} a second, {rates}: ratio", round(row["ratio"], 2), 1.0)
    for name, share in found["waiting"].items():
        yield at_most(f"pipeline/share of the time that {name} waits for data", round(share, 4), 0.2)


GROUPS: Groups = {
    "sets": (SETS,),
    "bad_data": (BAD_DATA,),
    "prepare_killed": (data_killed.prepare,),
    "pipeline": (PIPELINE, data_killed.filter_prompts, throughput),
    "evaluate": (data_killed.evaluate,),
    "metrics": (METRICS,),
}
