"""Seconds that a run's programs take before its first step: in its first start, and in one that finds them on the disk.

    python tools/bench_start.py --config=tiny --config.eval.examples=0

A run of one step is started in a folder of its own, then started again for a second step, as a run that goes on is. Of
each start it prints what tracing, lowering and compiling took (JAX's own events, programs read from the disk among
compiling), and the share of the second in the first.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

EVENTS = {
    "trace": "/jax/core/compile/jaxpr_trace_duration",
    "lower": "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "compile": "/jax/core/compile/backend_compile_duration",
}
MARK = "seconds by event: "


def child(argv: list[str]) -> int:
    """One start of `train`, whose seconds are printed."""
    import jax

    from fgrpo_jax import command, train

    seconds: collections.Counter[str] = collections.Counter()

    def heard(event: str, duration: float, **_: object) -> None:
        seconds[event] += duration  # type: ignore[assignment]

    jax.monitoring.register_event_duration_secs_listener(heard)
    code = command.run(train.main, train.parser(), argv)
    print(MARK + json.dumps({name: round(seconds[event], 2) for name, event in EVENTS.items()}))
    return code


def start(steps: int, folder: Path, flags: list[str]) -> dict[str, float]:
    """Seconds by phase of a start of the run in `folder`, until so many steps are done."""
    argv = [*flags, f"--workdir={folder / 'run'}", f"--config.num_steps={steps}", "--config.optim.schedule=constant"]
    environment = {**os.environ, "FGRPO_PROGRAMS": str(folder / "programs")}
    command = [sys.executable, __file__, "--child", *argv]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not said:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(said[-1].removeprefix(MARK))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, rest = flags.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [start(steps, Path(folder), rest or ["--config=tiny", "--config.eval.examples=0"]) for steps in (1, 2)]
    for name, seconds in zip(("first start", "second start"), found, strict=True):
        print(f"{name}: {sum(seconds.values()):.1f} s  {seconds}")
    print(f"second / first: {sum(found[1].values()) / sum(found[0].values()):.2f}")


if __name__ == "__main__":
    raise SystemExit(child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
