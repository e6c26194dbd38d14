"""Metrics: the names of the interface, null for what is undefined, TensorBoard events."""

import dataclasses
import io
import json
import struct
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fgrpo_jax.config.sections import CONSTRAINT_NAMES
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.reading.dialects import PAPER
from fgrpo_jax.training import metrics, tensorboard
from fgrpo_jax.training.tensorboard import Board
from fgrpo_jax.world.examples import World

NAMES = metrics.train_names(CONSTRAINT_NAMES)


def test_names_are_those_of_the_architecture() -> None:
    sampler = [f"sampler/{what}" for what in ("logp_diff_max", "logp_diff_mean", "tokens", "tokens_per_second")]
    required = ["step", "reward/task", "reward/accuracy", "reward/format", "loss/policy", "loss/kl", *sampler]
    required += ["judge/failed", "judge/abstained", "optim/grad_norm", "optim/skipped", "compile/count"]
    required += ["time/rollout", "time/reward", "time/learner", "time/data"]
    for name in ("consistency", "semantic_grounding", "spatial_grounding"):
        required += [f"constraint/{name}/{what}" for what in ("mean", "applicable", "lambda", "violation")]
        required += [f"advantage/share/{name}"]
    assert set(required) <= set(NAMES)
    assert len(NAMES) == len(set(NAMES)) and NAMES[0] == "step"
    more = metrics.train_names(CONSTRAINT_NAMES, importance=True, custom=["polite"])
    assert more == (*NAMES, *metrics.IMPORTANCE, "reward/custom/polite")


def test_every_key_in_every_row_and_null_for_undefined() -> None:
    values = {
        "step": jnp.int32(3),
        "loss/kl": jnp.float32(np.nan),
        "reward/task": np.float32(0.5),
        "loss/policy": np.inf,
    }
    row = metrics.row(NAMES, values)
    assert tuple(row) == NAMES
    assert (row["step"], row["reward/task"], row["loss/kl"], row["loss/policy"], row["time/data"]) == (
        3,
        0.5,
        None,
        None,
        None,
    )
    assert "NaN" not in json.dumps(row, allow_nan=False)
    with pytest.raises(ValueError, match="metric 'reward/tsk' is not declared"):
        metrics.row(NAMES, {"reward/tsk": 1})


def test_violation_is_positive_when_violated() -> None:
    assert metrics.violation(0.5, 0.75, direction=">=") == 0.25
    assert metrics.violation(0.5, 0.25, direction="<=") == 0.25
    assert metrics.violation(None, 0.25, direction="<=") is None


def test_postfix_shows_figures_and_a_dash() -> None:
    shown = {"acc": "reward/accuracy", "kl": "loss/kl", "step": "step"}
    assert metrics.postfix({"reward/accuracy": 0.51234, "loss/kl": None, "step": 7}, shown) == {
        "acc": "0.512", "kl": "–", "step": "7"}  # fmt: skip


def events(file: Path) -> list[Event]:
    """What a TensorBoard file holds: records of length, checksum, event and checksum."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_tensorboard_has_the_figures_and_a_resumed_run_takes_back_what_it_repeats(tmp_path: Path) -> None:
    for start in (0, 3):
        board = Board(tmp_path, start=start)
        board.figures(start + 1, {"step": start + 1, "loss/kl": 0.5, "reward/task": None})
        board.close()
    first, second = (events(file) for file in sorted(tmp_path.iterdir(), key=lambda file: file.suffix))
    for found, start in ((first, 0), (second, 3)):
        (restart,) = [event for event in found if event.HasField("session_log")]
        assert restart.session_log.status == SessionLog.START and restart.step == start + 1
        values = [(event.step, value.tag, value.simple_value) for event in found for value in event.summary.value]
        assert values == [(start + 1, "loss/kl", 0.5)]


def test_tensorboard_shows_a_prompt_as_the_policy_saw_it(tmp_path: Path, tiny_hf: Path) -> None:
    example = dataclasses.replace(World("tiny").example(0), boxes=((0, 0, 30, 20),))
    limits: dict[str, Any] = {"min_pixels": 84 * 84, "max_pixels": 112 * 112}
    prompt = Processor.load(tiny_hf).encode(example, style="tiny", **limits)
    size = prompt.first_size
    (image,) = example.images
    resized = Image.fromarray(image).resize((size.processed_width, size.processed_height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(tensorboard.pixels(prompt), np.asarray(resized))

    text = "<think>One\n<bbox>[40,40,60,70]</bbox> and <bbox>[9,9,1,1]</bbox></think><answer>A</answer>"
    board = Board(tmp_path, start=0)
    board.example(7, example, prompt, text, dialect=PAPER)
    board.close()
    (file,) = tmp_path.iterdir()
    shown = {value.tag: value for event in events(file) if event.step == 7 for value in event.summary.value}
    assert set(shown) == {"rollout/image", "rollout/text/text_summary"}
    drawn = np.asarray(Image.open(io.BytesIO(shown["rollout/image"].image.encoded_image_string)))
    changed = np.argwhere((drawn != np.asarray(resized)).any(axis=-1))
    assert drawn.shape == (size.processed_height, size.processed_width, 3) and len(changed)
    assert (drawn[40, 50], drawn[70, 50]) == (pytest.approx(tensorboard.PREDICTED),) * 2
    assert drawn[0, 5] == pytest.approx(tensorboard.GOLD)
    written = shown["rollout/text/text_summary"].tensor.string_val[0].decode()
    assert example.question in written and "    <bbox>[40,40,60,70]" in written
