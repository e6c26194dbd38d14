"""Weights: checkpoints in and out, byte by byte; what is off is named; what transformers says of an export."""

from __future__ import annotations

from collections.abc import Iterator

import bench_weights
import make_random_checkpoint as random_checkpoint

from checks import runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check

LAYERS = 4
"""Of the 36 of a 3B: 2.6 GB of bfloat16, of which no step holds more than a part."""

ROUNDTRIP = Nodes(
    "roundtrip",
    {
        "every tensor there and back": (
            "test_convert.py::test_round_trip_is_byte_identical_and_needs_only_the_checkpoint "
            "test_weights.py::test_round_trip_is_exact "
            "test_weights.py::test_second_export_has_the_same_bytes"
        ),
        "either naming": "test_weights.py::test_both_namings_load_the_same",
        "tokenizer and processor files": "test_weights.py::test_tokenizer_processor_and_generation_files_travel",
    },
)
DIALECTS = Nodes("dialects", {name: f"{name}.py" for name in ("test_dialects", "test_hub_layout")})
HUB = Nodes("hub", {"ids, revisions and offline mode": "test_hub.py"})
VERIFY = Nodes(
    "verify",
    {
        "every part within its tolerance": "test_verify.py::test_a_checkpoint_agrees_part_by_part",
        "a part that is off is named": "test_verify.py::test_a_model_that_is_off_is_noticed_and_not_converted",
    },
)
VIDEO = Nodes("video", {"patches, positions, logits and greedy tokens": "test_video.py"})
SIZES = Nodes("sizes", {"parameters, names, a forward pass, sharding": "test_released_sizes.py"})
REFUSALS = Nodes(
    "refusals",
    {
        "truncated shard": "test_weights_streaming.py::test_a_truncated_shard_names_the_tensors_it_cuts",
        "index naming a missing shard": "test_weights_streaming.py::test_a_shard_that_the_index_names_and_nobody_has",
        "tensor in two shards": "test_weights_streaming.py::test_a_tensor_in_two_shards",
        "wrong headers": "test_weights_streaming.py::test_headers_that_do_not_add_up",
        "another model": "test_weights_streaming.py::test_another_model_is_told_what_it_is",
        "NaN in a tensor": "test_weights_streaming.py::test_values_that_are_not_finite_are_counted",
        "target folder that exists": "test_convert.py::test_existing_targets_are_refused",
        "full disk": (
            "test_weights_streaming.py::test_too_little_room_is_noticed_before_anything_is_written "
            "test_weights_streaming.py::test_a_disk_that_fills_up_names_the_tensor_and_keeps_nothing "
            "test_weights_streaming.py::test_a_disk_that_is_full_at_the_end_names_the_file_and_keeps_nothing"
        ),
    },
)
ELSEWHERE = Nodes(
    "elsewhere",
    {
        "transformers loads an export without a word": "test_weights.py::test_transformers_loads_the_export",
        "its bfloat16 comes back": "test_weights.py::test_bfloat16_of_transformers_comes_back_byte_for_byte",
        "names and shapes of the released sizes": (
            "test_weights.py::test_released_shapes_equal_transformers "
            "test_released_sizes.py::test_names_and_shapes_equal_transformers"
        ),
        "config and names in the hub's dialect": (
            "test_hub_layout.py::test_config_is_flat_and_has_every_field_of_the_hub "
            "test_hub_layout.py::test_names_are_the_hubs_and_every_one_finds_its_place_in_vllm"
        ),
    },
)


def full_size(context: runs.Context) -> Iterator[Check]:
    """The 3B shape with four of its layers there and back: every byte, and the peak of memory (bench_weights.py)."""
    hf, into, out = (context.scratch / "full_size" / name for name in ("hf", "checkpoint", "out"))
    config = random_checkpoint.released_config("3B", layers=LAYERS)
    random_checkpoint.write(hf, config, dtype="bfloat16", shard_bytes=6e8)
    ran = {"convert": bench_weights.converted(hf, into), "export": bench_weights.exported(into, out, 0.6)}
    yield from bench_weights.bytes_and_memory(hf, out, ran)


GROUPS: Groups = {
    "roundtrip": (ROUNDTRIP,),
    "dialects": (DIALECTS,),
    "hub": (HUB,),
    "verify": (VERIFY,),
    "video": (VIDEO,),
    "sizes": (SIZES,),
    "refusals": (REFUSALS,),
    "elsewhere": (ELSEWHERE,),
    "full_size": (full_size,),
}
