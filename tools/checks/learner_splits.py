"""The learner step under every split and layout of its work, and its functions in float64."""

from __future__ import annotations

import json
from collections.abc import Iterator

from checks import runs
from checks.record import Check, at_least, at_most

BOUNDS = {"loss": 1e-6, "gradient": 1e-5, "lambda": 1e-6, "parameters": 5e-6}
"""Absolute, but for the gradient (of its norm); parameters after one update at a learning rate of 1e-5."""

CASES = 20


def checks(context: runs.Context) -> Iterator[Check]:
    """tools/compare_splits.py: micro-batches, devices, padding, order and split groups, alone and in pairs."""
    tool = runs.ROOT / "tools" / "compare_splits.py"
    done = runs.python(tool, f"--hf={context.policy}", devices=8).require()
    found = json.loads(done.out.splitlines()[-1])
    yield at_least("splits/cases tried against the plain one", found["cases"], CASES)
    for name, worst in found["worst"].items():
        yield at_most(f"splits/{name}, worst difference", worst, BOUNDS[name])
    for name, worst in found["float64"].items():
        yield at_most(f"splits/{name} in float64, worst difference", worst, 1e-10)
