"""The faithfulness signals: parsing, judges, their reliability, and what becomes of a judge that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator

from checks import runs, signals_local, signals_runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check, at_most
from fgrpo_jax.records import ImageSize
from fgrpo_jax.rewards.score import RewardConfig, score
from fgrpo_jax.world.examples import World

PARSING = Nodes(
    "parsing",
    {
        "answers, options and open": (
            "test_parsing.py::test_choice_of_an_option test_parsing.py::test_the_last_commitment_wins "
            "test_parsing.py::test_open_answers_are_compared_by_what_they_mean"
        ),
        "forms": "test_parsing.py::test_form_is_right test_parsing.py::test_form_is_wrong",
        "random texts in every dialect": (
            "test_parsing.py::test_nothing_raises test_rewards_dialects.py::test_any_text_in_any_dialect "
            "test_sentences.py::test_reading_is_total"
        ),
        "boxes through every pair of frames and back": (
            "test_frames.py::test_boxes_come_back_to_the_pixel "
            "test_frames.py::test_texts_come_back_to_half_a_pixel_of_the_coarser_frame"
        ),
        "100,000 characters": (
            "test_parsing.py::test_a_hundred_thousand_characters_are_read_at_once "
            "test_rewards_dialects.py::test_a_hundred_thousand_characters_in_every_dialect"
        ),
    },
)
LABELLED = Nodes(
    "labelled",
    {
        "pre-check without the structured question": ("test_labelled.py::test_the_pre_check_is_right_where_it_decides"),
        "the audit's command": "test_audit.py::test_the_built_in_set_reaches_the_bound",
    },
)
INJECTION = Nodes(
    "injection",
    {
        "no verdict of the rules turns": (
            "test_rewards_oracle.py::test_an_injected_instruction_changes_no_verdict "
            "test_rewards_oracle.py::test_what_is_put_into_a_trace_gains_it_nothing "
            "test_rewards_oracle.py::test_fake_tags_end_the_reasoning_where_they_stand "
            "test_commitments.py::test_an_instruction_to_the_judge_turns_no_verdict"
        ),
        "a model's judge gets it as data": (
            "test_judge_prompts.py::test_a_rollout_cannot_break_out_of_its_block "
            "test_judge_local.py::test_text_that_looks_like_a_chat_is_shown_and_not_obeyed"
        ),
        "page of disagreements": "test_audit.py::test_nothing_a_model_wrote_becomes_markup",
    },
)
LOCAL = Nodes(
    "local",
    {
        "choices against transformers": "test_judge_scorer.py::test_choices_equal_those_of_transformers",
        "shared beginnings, few programs": "test_judge_scorer.py::test_shared_beginnings_give_what_plain_rows_do",
    },
)
LOCAL_RUN = Nodes(
    "local_run",
    {"a run judged by its own policy, stopped and resumed": ("test_small_runs.py::test_a_policy_that_judges_itself")},
)
SERVER = Nodes(
    "server",
    {
        "every kind of trouble is no verdict": (
            "test_judge_server.py::test_what_may_pass_is_tried_again "
            "test_judge_server.py::test_what_does_not_pass_has_no_verdict "
            "test_judge_server.py::test_what_another_attempt_would_repeat_is_asked_once_and_has_no_verdict"
        ),
        "a failed verdict is a mask and never a 0": (
            "test_judge_dispatch.py::test_a_failed_verdict_is_a_mask_and_never_a_zero "
            "test_judge_runs.py::test_failures_are_masks_and_too_many_stop_the_run"
        ),
    },
)
GONE = Nodes(
    "gone",
    {
        "a run stops and goes on": "test_judge_runs.py::test_failures_are_masks_and_too_many_stop_the_run",
        "not there at the start": "test_judge_runs.py::test_a_judge_that_is_not_there_leaves_nothing_behind",
    },
)


def scoring(_: runs.Context) -> Iterator[Check]:
    """Milliseconds a response by the rules, every text new to the readers' memory."""
    world = World("easy", flawed=0.5)
    examples = [world.example(50_000 + index) for index in range(128)]
    sizes = [ImageSize(*(2 * (e.scene.width, e.scene.height))) for e in examples if e.scene is not None]
    began = time.process_time()
    score(examples, [[str(e.trace)] for e in examples], sizes=sizes, config=RewardConfig())
    spent = 1000 * (time.process_time() - began) / len(examples)
    yield at_most("parsing/scoring of a response by the rules, ms", spent, 5.0)


GROUPS: Groups = {
    "parsing": (PARSING, scoring),
    "labelled": (LABELLED,),
    "injection": (INJECTION,),
    "local": (LOCAL,),
    "local_speed": (signals_local.throughput,),
    "local_run": (LOCAL_RUN,),
    "server": (SERVER,),
    "gone": (GONE,),
    "overlap": (signals_runs.overlap,),
    "restart": (signals_runs.restart,),
}
