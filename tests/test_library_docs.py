"""The lines of docs/library.md, run as they stand inside a trainer that shares nothing else with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
TASK = np.array([0.0, 1.0, 1.0, 1.0])  # of four answers three are right,
CONSISTENT = np.array([1.0, 0.0, 0.0, 1.0])  # and of these one follows from its reasoning


def lines() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), flags=re.DOTALL)
    return block


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The page's step on a policy of four answers of one token: its last parameters and every λ."""
    optimizer = optax.adam(0.05)
    names = {"optimizer": optimizer, "log_probs": lambda p, b: jax.nn.log_softmax(p)[b["answers"]][..., None]}
    exec(compile(lines(), str(PAGE), "exec"), names)
    step, rng = jax.jit(names["fgrpo_step"]), np.random.default_rng(0)
    params, lam, history = jnp.zeros(4), jnp.ones(1), []
    opt_state = optimizer.init(params)
    for _ in range(150):
        weights = np.exp(np.asarray(params, np.float64))
        answers = rng.choice(4, size=(16, 8), p=weights / weights.sum())
        right = TASK[answers] > 0
        values = np.where(right, CONSISTENT[answers], np.nan)[None]
        batch = {"answers": answers, "task": TASK[answers], "values": values, "applicable": right[None]}
        batch |= {"mask": np.ones((16, 8, 1), bool), "old_logp": names["log_probs"](params, batch)}
        params, opt_state, lam = step(params, opt_state, lam, batch)
        history.append(float(lam[0]))
    return {"policy": np.asarray(jax.nn.softmax(params)), "history": history}


def test_the_policy_learns_the_answer_that_is_right_and_consistent(trained: dict[str, Any]) -> None:
    assert trained["policy"].argmax() == 3 and trained["policy"][3] > 0.9


def test_the_multiplier_rises_while_violated_and_falls_once_met(trained: dict[str, Any]) -> None:
    history = trained["history"]
    assert history[0] > 1 and max(history) > history[-1] and np.isfinite(history).all()


def test_the_page_keeps_its_promise_of_brevity() -> None:
    body = lines().split("def fgrpo_step")[1]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 15
