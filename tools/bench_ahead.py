"""Wall time of training steps with a slow judge: `rollout.ahead=1` against 0, on the built-in world.

    python tools/bench_ahead.py --steps=6 --latency=2 [--config.FIELD=VALUE ...]

A scripted judge in a process of its own answers every request after so many seconds, however many are under way. Both
settings correct for their sampler, so that they differ in nothing but what is drawn when. Steps are timed from the
start of the second on: the first compiles what is not kept, and draws two batches where it draws ahead.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_judge import served

from fgrpo_jax import command, train
from fgrpo_jax.rows import read_rows

FIELDS: dict[str, Any] = {
    "judge.backend": "server",
    "judge.server.model": "scripted",
    "judge.precheck": False,
    "judge.cache": "",
    "judge.concurrency": 1024,
    "algorithm.importance_cap": 2.0,
    "eval.examples": 0,
    "log.tensorboard": False,
    "checkpoint.every": 0,
}


@dataclasses.dataclass
class Timed:
    """Steps of a run, and when each began and the last ended."""

    step: Any
    at: list[float] = dataclasses.field(default_factory=list)

    def __call__(self, *args: Any) -> Any:
        self.at.append(time.perf_counter())
        state, row = self.step(*args)
        return state, row


def seconds(ahead: int, url: str, *, steps: int, flags: list[str]) -> float:
    """Seconds of a step, on average over all but the first."""
    values = {**FIELDS, "judge.server.url": url, "num_steps": steps, "rollout.ahead": ahead}
    timed, step = Timed(train.step), train.step
    with tempfile.TemporaryDirectory() as folder:
        argv = [*flags, f"--workdir={folder}/run", *(f"--config.{name}={value}" for name, value in values.items())]
        train.step = timed  # what `train.main` hands to the run
        try:
            code = command.run(train.main, train.parser(), argv)
        finally:
            train.step = step
        ended = time.perf_counter()
        if code:
            raise RuntimeError(f"exit code {code} of: {argv}")
        rows = read_rows(Path(folder) / "run" / "metrics.jsonl")
    asked = sum(row["judge/requests"] for row in rows) / steps
    times = {
        name: sum(row[f"time/{name}"] for row in rows[1:]) / (steps - 1) for name in ("rollout", "reward", "learner")
    }
    print(f"ahead={ahead}: {asked:.0f} requests a step; " + ", ".join(f"{n} {s:.2f} s" for n, s in times.items()))
    return (ended - timed.at[1]) / (steps - 1)


def main() -> None:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--steps", type=int, default=6, help="of each run (default %(default)s)")
    out.add_argument("--latency", type=float, default=2.0, help="seconds of a judge's answer (default %(default)s)")
    args, flags = out.parse_known_args()
    with served(args.latency) as url:
        flags = ["--config=tiny", *flags]
        found = {ahead: seconds(ahead, url, steps=args.steps, flags=flags) for ahead in (0, 1)}
    for ahead, taken in found.items():
        print(f"ahead={ahead}: {taken:.2f} s a step")
    print(f"ratio {found[1] / found[0]:.2f}")


if __name__ == "__main__":
    main()
