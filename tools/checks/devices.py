"""Eight devices against one: the same rollouts, the same loss, gradient norm and multipliers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from checks import runs
from checks.record import Check, at_most, same

STEPS = 5


def checks(context: runs.Context) -> Iterator[Check]:
    """Steps on a mesh 2×2×2 fed the rollouts of one device, and the tokens both would have drawn."""
    tool = runs.ROOT / "tools" / "compare_devices.py"
    done = runs.python(tool, f"--hf={context.policy}", f"--steps={STEPS}", devices=8).require()
    found = json.loads(done.out.splitlines()[-1])
    for name, worst in found["worst"].items():
        yield at_most(f"devices/{name}: 8 against 1 device, worst of {STEPS} steps", worst, 1e-5)
    name = f"devices/rollouts of {found['rollouts']} that differ, but for {found['ties']} ties"
    yield same(name, found["differing"] - found["ties"], 0)
