"""One of the processes that train or evaluate together on CPU (tests/test_two_processes.py); not a test.

    python two_processes.py INDEX COUNT PORT train HF WORKDIR STEPS
    python two_processes.py INDEX COUNT PORT evaluate FOLDER NAME...

Training: groups of the questions that `runs.is_dead` names earn the same whatever they say, and are filtered.
Evaluation: of the shipped policy, in FOLDER/NAME, with the fields of `EVALUATIONS[NAME]`; what this process writes and
removes there is listed in FOLDER/INDEX.wrote.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
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

QUESTIONS = 11
"""Two batches of eight: of the last, the second of two processes has filling alone."""

EVALUATIONS: dict[str, dict[str, Any]] = {
    "greedy": {"eval.temperature": 0.0},
    "sampled": {},
    "killed": {},  # pauses where it is to be killed
    "resumed": {},
    "shared": {"mesh.data": 1, "mesh.tensor": 2},
}


def train(together: list[str], hf: str, workdir: str, steps: str) -> int:
    from fgrpo_jax import command, train
    from fgrpo_jax.training import stages

    stages.score = runs.half_dead(stages.score)
    flags = policies.overrides(Path(hf), num_steps=int(steps), **FIELDS)
    argv = [f"--config={policies.BASE}", f"--workdir={workdir}", *flags]
    return command.run(train.main, train.parser(), [*argv, *together])


def evaluate(together: list[str], folder: str, *names: str) -> int:
    from fgrpo_jax import evaluate
    from fgrpo_jax.rows import NumberedRows

    append, wrote = NumberedRows.append, watch(Path(folder))

    def slowly(file: NumberedRows, rows: Any) -> None:
        append(file, rows)
        time.sleep(60 if "killed" in file.path.parts else 0)

    NumberedRows.append = slowly  # type: ignore[method-assign]
    codes = []
    for name in names:
        fields = {"eval.examples": QUESTIONS, "eval.batch_prompts": 8, **EVALUATIONS[name]}
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        command = [f"--config={policies.ROOT}/configs/tiny.py", f"--workdir={folder}/{name}", *flags]
        codes.append(evaluate.run([*command, *together]))
        together = []  # they are, from then on
    Path(folder, f"{jax.process_index()}.wrote").write_text("\n".join(wrote))
    return max(codes)


def watch(folder: Path) -> list[str]:
    """Grows by a line for every file below the folder that is opened for writing or removed: what, and its name."""
    seen: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[1], str) and set("wax+") & set(args[1])
        if (writes or event == "os.remove") and Path(args[0]).is_relative_to(folder):
            seen.append(f"{event} {Path(args[0]).relative_to(folder)}".removesuffix(".tmp"))

    sys.addaudithook(hook)
    return seen


def main(index: int, count: int, port: str, door: str, *args: str) -> int:
    together = [f"--distributed=127.0.0.1:{port},{count},{index}"] if count > 1 else []
    return {"train": train, "evaluate": evaluate}[door](together, *args)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
