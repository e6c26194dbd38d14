"""Metrics: the names of the interface, null for what is undefined, TensorBoard events."""

import json
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax.config.sections import CONSTRAINT_NAMES
from fgrpo_jax.training import metrics

NAMES = metrics.train_names(CONSTRAINT_NAMES)


def test_names_are_those_of_the_architecture() -> None:
    sampler = [f"sampler/{what}" for what in ("logp_diff_max", "logp_diff_mean", "tokens", "tokens_per_second")]
    required = ["step", "reward/task", "reward/accuracy", "reward/format", "loss/policy", "loss/kl", *sampler]
    required += ["judge/failed", "optim/grad_norm", "optim/skipped", "compile/count"]
    required += ["time/rollout", "time/reward", "time/learner", "time/data"]
    for name in ("consistency", "semantic_grounding", "spatial_grounding"):
        required += [f"constraint/{name}/{what}" for what in ("mean", "applicable", "lambda", "violation")]
        required += [f"advantage/share/{name}"]
    assert set(required) <= set(NAMES)
    assert len(NAMES) == len(set(NAMES)) and NAMES[0] == "step"
    assert metrics.train_names(CONSTRAINT_NAMES, extra=["policy/entropy", "step"])[-1] == "policy/entropy"


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


def test_crc32c_of_the_standard_check_value() -> None:
    assert metrics.crc32c(b"123456789") == 0xE3069283


def read_events(path: Path) -> list[bytes]:
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert data[8:12] == metrics._masked_crc(data[:8])
        body = data[12 : 12 + length]
        assert data[12 + length : 16 + length] == metrics._masked_crc(body)
        records.append(body)
        data = data[16 + length :]
    return records


def test_tensorboard_events_hold_the_scalars(tmp_path: Path) -> None:
    writer = metrics.TensorBoardWriter(tmp_path / "tb")
    writer.write(300, {"step": 300, "loss/kl": 0.5, "reward/task": None})
    writer.close()
    (file,) = (tmp_path / "tb").iterdir()
    version, event = read_events(file)
    assert version[9:] == b"\x1a\x0dbrain.Event:2"
    # step 300 as a varint, then one Summary.Value: tag and a float 0.5
    value = b"\x0a\x07loss/kl\x15" + struct.pack("<f", 0.5)
    assert event[9:] == b"\x10\xac\x02" + b"\x2a" + bytes([len(value) + 2]) + b"\x0a" + bytes([len(value)]) + value
