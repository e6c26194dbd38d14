"""One of two processes that train together on CPU (tests/test_two_processes.py); not a test.

    python two_processes.py INDEX PORT HF WORKDIR STEPS

Groups of the questions that `is_dead` names earn the same whatever they say, and are filtered.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

import jax
import policies
import runs

STEPS = 2
FIELDS: dict[str, Any] = {
    "eval__examples": 0,
    "log__tensorboard": False,
    "algorithm__filter_dead": True,
    "data__workers": 0,
}


def is_dead(example: Any) -> bool:
    return zlib.crc32(example.id.encode()) % 2 == 0


def half_dead(score: Any) -> Any:
    """Rewards drawn from what was said (runs.earning), but for the questions that `is_dead` names."""
    earning = runs.earning(score)

    def rewarded(examples: Any, texts: Any, **settings: Any) -> Any:
        signals, seen = earning(examples, texts, **settings)
        rows = [row for row, example in enumerate(examples) if is_dead(example)]
        signals.task[rows], signals.values[:, rows], signals.mask[:, rows] = 0.7, 0.1, True
        return signals, seen

    return rewarded


def main(index: int, port: str, hf: str, workdir: str, steps: str) -> int:
    from fgrpo_jax import doors, train

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
    train.score = half_dead(train.score)
    flags = policies.overrides(hf, num_steps=int(steps), **FIELDS)  # type: ignore[arg-type]
    return doors.run(train.main, train.parser(), [f"--config={policies.BASE}", f"--workdir={workdir}", *flags])


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), *sys.argv[2:6]))
