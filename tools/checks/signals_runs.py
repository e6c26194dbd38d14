"""A judge behind HTTP: what waiting for one costs a run, and a run killed in the midst of a step."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scripted_judge

from checks import runs
from checks.record import Check, above, at_least, at_most, holds, same
from fgrpo_jax.rows import read_rows

JUDGE: dict[str, Any] = {
    "judge.backend": "server",
    "judge.precheck": False,  # else the rules decide most of it
    "judge.server.model": scripted_judge.MODEL,
}


def overlap(context: runs.Context) -> Iterator[Check]:
    """Twenty steps with a judge that takes 200 ms a call against one that takes none; each twice, in turns.

    What else the machine does only ever adds time: of each step, whose work is the same in all runs, the faster of its
    two turns counts.
    """
    seconds: dict[float, list[list[float]]] = {0.0: [], 0.2: []}
    trained: list[list[Any]] = []
    rows: list[dict[str, Any]] = []
    for turn, latency in itertools.product(range(2), seconds):
        workdir = context.scratch / f"latency{latency:g}_{turn}"
        with scripted_judge.serve(scripted_judge.Judge(latency=latency)) as judge:
            flags = _flags(context, workdir, judge, num_steps=20, **BIG)
            done = runs.door("train", *flags, cache=context.scratch / "cache").require()
        rows = read_rows(workdir / "metrics.jsonl")[1:]  # the first step compiles
        seconds[latency].append([sum(row[f"time/{part}"] for part in PARTS) for row in rows])
        trained.append([row["loss/total"] for row in rows])
        told = {"all": round(done.seconds, 1), "of 19 steps": round(sum(seconds[latency][-1]), 2)}
        told |= {part: round(_mean(rows, f"time/{part}"), 3) for part in PARTS}
        yield holds(f"overlap/seconds_latency_{latency:g}_{turn}", True, told, "told; parts a step")
    instant, slow = (sum(map(min, *turns)) for turns in seconds.values())
    yield at_most("overlap/wall_time_ratio", round(slow / instant, 3), 1.15)
    yield at_least("overlap/latency_p50", _mean(rows, "judge/latency_p50"), 0.2)
    yield holds("overlap/requests_a_step", True, _mean(rows, "judge/requests"), "told")
    yield holds("overlap/same_training", all(losses == trained[0] for losses in trained), trained[0][-1], "bit-equal")


PARTS = ("data", "rollout", "reward", "learner")

BIG = {
    "data.prompts_per_step": 64,
    "rollout.batch_prompts": 8,
    "rollout.group_size": 8,
    "judge.concurrency": 256,
    "judge.cache": "",
    "judge.server.timeout": 10.0,
}
"""A step of some seconds in eight parts: at its end the last part's judging is left to wait for, some 250 ms."""


def restart(context: runs.Context) -> Iterator[Check]:
    """Killed in the midst of a step and started again: no request is made twice."""
    workdir = context.scratch / "restart"
    judge = scripted_judge.Judge(latency=0.02)
    with scripted_judge.serve(judge):
        flags = _flags(context, workdir, judge, num_steps=6, **{"checkpoint.every": 2, "judge.concurrency": 4})
        cache, log = context.scratch / "cache", workdir / "metrics.jsonl"

        enough: list[int] = []

        def midway() -> bool:
            """Ten requests into step 4."""
            if not enough and log.exists() and len(read_rows(log)) >= 3:
                enough.append(len(judge.bodies) + 10)
            return bool(enough) and len(judge.bodies) >= enough[0]

        runs.kill_door("train", *flags, when=midway, cache=cache)
        first = _asked(judge)
        runs.door("train", *flags, cache=cache).require()
        every = _asked(judge)
        second = every[len(first) :]
        repeated = sorted(set(second) & set(first))
        yield above("restart/requests_before", len(first), 50)
        yield above("restart/requests_after", len(second), 10)
        # The kill may have come between an answer and its arrival: at most so many were under way.
        yield at_most("restart/requests_repeated_but_unanswered", len(repeated), 4)
        yield same("restart/requests_of_the_step_repeated", read_rows(log)[2]["judge/requests"], 0)
        count = len(judge.bodies)
        kept = {"judge.cache": workdir / "judge.sqlite"}
        anew = _flags(context, context.scratch / "anew", judge, num_steps=6, **kept)
        runs.door("train", *anew, cache=cache).require()
        yield same("restart/requests_of_the_same_run_anew", len(judge.bodies) - count, 0)
        both = [_told(context.scratch / name / "metrics.jsonl") for name in ("restart", "anew")]
        yield holds("restart/same_training", both[0] == both[1], both[0][-1], "bit-equal losses")


def _flags(
    context: runs.Context, workdir: Path, judge: scripted_judge.Judge, *, num_steps: int, **more: Any
) -> list[str | Path]:
    fields = {**JUDGE, "judge.server.url": judge.url, "num_steps": num_steps, **more}
    return list(runs.tiny(context.policy, workdir, **fields))


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.fmean(row[name] for row in rows if row[name] is not None)


def _asked(judge: scripted_judge.Judge) -> list[str]:
    return [json.dumps(body["messages"], sort_keys=True) for body in list(judge.bodies)]


def _told(file: Path) -> list[float]:
    return [row["loss/total"] for row in read_rows(file)]
