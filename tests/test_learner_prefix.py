"""The shared prefix gives the log-probs and gradients of the repeated computation (tools/checks/learner_prefix.py)."""

from pathlib import Path

from checks import learner_prefix, runs
from checks.record import exit_code


def test_shared_prefix_is_the_repeated_computation_on_mixed_images(tiny_hf: Path) -> None:
    found = list(learner_prefix.checks(runs.Context(tiny_hf, tiny_hf, tiny_hf, tiny_hf)))
    assert len(found) == 4 and exit_code(found) == 0, "\n".join(check.line for check in found)
