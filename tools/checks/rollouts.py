"""The rollout engine: exactness, reproducibility, memory, and what it does against a peer."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator

from checks import nlvr, runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check, at_least, same, skipped

PROMPTS, TOKENS = 50, 64

NOISE = Nodes(
    "noise",
    {
        "the same bits in every layout": "test_sampler.py::test_noise_is_bit_equal_for_every_layout",
        "other noise for another step, seed, token, prompt or member": "test_sampler.py::test_noise_depends_on",
    },
)
LAYOUTS = Nodes(
    "layouts",
    {
        "another order, smaller batches and groups": (
            "test_sampler.py::test_batch_order_batch_size_and_group_size_do_not_matter "
            "test_sampler_model.py::test_rows_do_not_depend_on_their_batch"
        ),
        "after another step, by a new sampler": "test_sampler.py::test_a_resumed_step_repeats_exactly",
        "compacted": "test_compaction.py::test_fewer_places_a_prompt_change_nothing",
        "layers unrolled, cache in windows": (
            "test_sampler_model.py::test_unrolled_layers_compact_alike "
            "test_sampler_model.py::test_layers_one_by_one_and_windows_of_the_cache_draw_the_same"
        ),
        "eight devices, no weight gathered while decoding": (
            "test_sampler_model.py::test_eight_devices_draw_the_same_tokens_and_gather_no_weight_while_decoding "
            "test_sampler_model.py::test_eight_devices_compact_without_gathering_weights_or_changing_tokens"
        ),
    },
)
SHARED_PREFIX = Nodes(
    "shared_prefix",
    {
        "log-probs of the learner, mixed images": "test_sampler_model.py::test_log_probs_equal_those_of_the_learner",
        "prompt and completion as one sequence": (
            "test_model.py::test_shared_prefix_equals_the_repeated_prompt "
            "test_sampler_model.py::test_replay_draws_the_same_tokens_and_knows_their_margins"
        ),
        "padding on the left": "test_sampler.py::test_left_and_right_padding_agree",
    },
)
MEMORY = Nodes(
    "memory",
    {
        "a growing cache": "test_rollout_memory.py::test_a_growing_cache_costs_the_decode_program_nothing_else",
        "more rollouts a prompt": "test_rollout_memory.py::test_more_rollouts_do_not_multiply_the_prefix",
        "no buffer of a length squared": "test_rollout_memory.py::test_no_buffer_grows_as_the_square_of_a_length",
    },
)
FREQUENCIES = Nodes(
    "frequencies",
    {
        "two tokens of the whole distribution": "test_sampler.py::test_frequencies_pass_a_chi_square_test",
        "top-k, top-p, min-p": "test_sampler.py::test_truncated_frequencies_pass_it_too",
    },
)
SHAPES = Nodes(
    "shapes",
    {
        "a run over mixed images compiles before its first step alone": (
            "test_small_runs.py::test_chosen_shapes_are_all_compiled_before_the_first_step"
        )
    },
)


def peer_greedy(context: runs.Context) -> Iterator[Check]:
    """Greedy tokens on real images equal those of `generate` of transformers."""
    name = f"peer/NLVR prompts of {PROMPTS} whose {TOKENS} greedy tokens differ"
    if why := nlvr.untried(context, torch=True):
        yield skipped(name, why, "== 0")
    else:
        found = nlvr.compare(context.policy, context.nlvr, prompts=PROMPTS, tokens=TOKENS)
        yield same(name, found.differing, 0)


def throughput(_: runs.Context) -> Iterator[Check]:
    """tools/bench_rollout.py: tokens/s against transformers on torch, and what compaction saves on a long tail."""
    tool = runs.ROOT / "tools" / "bench_rollout.py"
    if importlib.util.find_spec("torch") is None:
        yield skipped("throughput/ratio to torch", nlvr.NO_TORCH, ">= 3")
    else:
        found = json.loads(runs.python(tool).require().out.splitlines()[-1])
        yield at_least("throughput/ratio to transformers on torch, CPU", found["ratio"], 3.0)
    found = json.loads(runs.python(tool, "--tail").require().out.splitlines()[-1])
    yield at_least("throughput/decode time without over with compaction, long tail", found["ratio"], 1.3)
    yield same("throughput/rollouts that compaction changed", found["differing"], 0)


GROUPS: Groups = {
    "noise": (NOISE,),
    "layouts": (LAYOUTS,),
    "shared_prefix": (SHARED_PREFIX,),
    "memory": (MEMORY,),
    "peer_greedy": (peer_greedy,),
    "frequencies": (FREQUENCIES,),
    "shapes": (SHAPES,),
    "throughput": (throughput,),
}
