"""A whole run with adapters: it learns, and stopped and resumed it is the same run, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import policies
import pytest
import runs

from fgrpo_jax import train
from fgrpo_jax.training import setup, stages

STEPS = 2
FIELDS: dict[str, Any] = {"eval__examples": 0, "log__tensorboard": False, "model__lora__rank": 4}


@pytest.mark.slow
def test_a_run_with_adapters_stopped_and_resumed_is_the_same(tiny_hf: Path, tmp_path: Path) -> None:
    with runs.quick() as patch:
        patch.setattr(stages, "score", runs.earning(stages.score))
        for name, stops in (("whole", [STEPS]), ("parts", range(1, STEPS + 1))):
            for steps in stops:
                code, _, err = runs.run(train, tmp_path / name, tiny_hf, num_steps=steps, **FIELDS)
                assert code == 0, err
    rows = runs.rows(tmp_path / "whole")
    assert rows == runs.rows(tmp_path / "parts") and len(rows) == STEPS
    assert all(row["optim/grad_norm"] > 0 and row["optim/moved_share"] > 0.5 for row in rows)
    config = policies.config(tiny_hf, **FIELDS)
    policy = policies.policy(config)
    begun = setup.learner(config, policy).init(policy.load("float32"))
    (whole, meta), (parts, other) = (runs.arrays(tmp_path / name, begun) for name in ("whole", "parts"))
    runs.same(whole, parts)
    assert meta.data == other.data
    before, after = (jax.tree.leaves(jax.device_get(state.params)) for state in (begun, whole))
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert any(moved) and not all(moved), "adapters moved and their kernels did not"
