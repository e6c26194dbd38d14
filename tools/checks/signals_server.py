"""A judge behind HTTP: training under one that misbehaves, one that is gone, one that is slow, and after a restart."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import scripted_judge

from checks import runs
from checks.record import Check, above, at_least, at_most, holds, same
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import checkpoint

TROUBLE = (
    *(
        "slow",
        "status_429",
        "status_500",
        "drop",
        "truncated",
        "chatty",
        "empty",
        "trickle",
        "drop_midway",
        "ambiguous",
    ),
    *("status_503", "cut_off", "html", "headers_trickle", "status_400", "null", "decorated"),
)
"""Every kind of trouble."""

JUDGE: dict[str, Any] = {
    "judge.backend": "server",
    "judge.precheck": False,  # else the rules decide most of it
    "judge.server.model": scripted_judge.MODEL,
    "judge.server.timeout": 2.5,
    "judge.server.deadline": 30.0,
    "judge.server.backoff": 0.05,
    "judge.server.retries": 2,
}


def agreeable(body: dict[str, Any]) -> str:
    """Whatever was said is fine."""
    return "CORRECT" if "CORRECT" in scripted_judge.words(body).splitlines()[-1] else "YES"


def misbehaving(context: runs.Context) -> Iterator[Check]:
    """Thirty steps under every kind of trouble: the run finishes, and no failure is a score.

    What the server says, when it says something, is that all is well. So a 0 could only be a failure turned into one.
    """
    judge = scripted_judge.Judge(plan=_spread(TROUBLE), pause=4.0, retry_after=1, answer=agreeable)
    workdir = context.scratch / "trouble"
    with scripted_judge.serve(judge):
        flags = _flags(context, workdir, judge, num_steps=30, **{"judge.max_failure_rate": 0.6})
        done = runs.door("train", *flags, cache=context.scratch / "cache").require()
    rows = read_rows(workdir / "metrics.jsonl")
    failed = sum(row["judge/failed"] for row in rows)
    samples = [sample for file in sorted((workdir / "rollouts").iterdir()) for sample in _samples(file)]
    yield same("server/steps", len(rows), 30)
    yield at_least("server/requests_http", len(judge.bodies), 300)
    yield above("server/failed", failed, 30)
    yield holds("server/failure_rate", True, _mean(rows, "judge/failure_rate"), "told")
    right = [s for s in samples if s["accuracy"] == 1 and _reasons(s)]
    masked = sum(s["consistency"] is None for s in right) + sum(s["semantic_grounding"] is None for s in right)
    zeros = [s for s in right if 0 in (s["consistency"], s["semantic_grounding"])]
    yield above("server/masked_of_right_answers", masked, 10)
    yield same("server/failures_that_became_0", len(zeros), 0)
    yield same("server/values", sorted({s[name] for s in right for name in _NAMES} - {None}), [1.0])
    yield at_least("server/judged_all_the_same", sum(s["semantic_grounding"] == 1.0 for s in right), 50)
    yield holds("server/seconds", True, round(done.seconds), "told")


STEPS = 8  # of the run whose judge goes: it is gone after some four


def gone(context: runs.Context) -> Iterator[Check]:
    """A server that fails all the time stops the run with an error and a checkpoint, from which it goes on."""
    workdir = context.scratch / "gone"
    with scripted_judge.serve(scripted_judge.Judge(plan=["good"] * 150 + ["status_500"] * 100_000)) as judge:
        flags = _flags(context, workdir, judge, num_steps=STEPS)
        done = runs.door("train", *flags, cache=context.scratch / "cache")
    stopped = len(read_rows(workdir / "metrics.jsonl"))
    said = done.err.strip().splitlines()[-1]
    yield same("gone/exit_code", done.code, 1)
    yield holds("gone/error", "error: the judge failed on" in said and "Traceback" not in done.err, said, "one line")
    saved = checkpoint.Checkpoints(workdir / "checkpoints")
    yield same("gone/checkpoint_step", saved.latest, stopped)
    saved.close()
    with scripted_judge.serve(scripted_judge.Judge(), port=_port(judge)) as again:
        flags = _flags(context, workdir, again, num_steps=STEPS)
        runs.door("train", *flags, cache=context.scratch / "cache").require()
    yield same("gone/steps_after_it_came_back", len(read_rows(workdir / "metrics.jsonl")), STEPS)
    nowhere = _flags(context, context.scratch / "nowhere", judge, num_steps=1)
    refused = runs.door("train", *nowhere, cache=context.scratch / "cache")
    yield holds(
        "gone/not_there_at_the_start",
        refused.code == 1 and "does not answer" in refused.err and not (context.scratch / "nowhere").exists(),
        refused.err.strip().splitlines()[-1],
        "refused before anything is written",
    )


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


_NAMES = ("consistency", "semantic_grounding")


def _flags(
    context: runs.Context, workdir: Path, judge: scripted_judge.Judge, *, num_steps: int, **more: Any
) -> list[str | Path]:
    fields = {**JUDGE, "judge.server.url": judge.url, "num_steps": num_steps, **more}
    return list(runs.tiny(context.policy, workdir, **fields))


def _spread(plan: Sequence[str], *, good: int = 3) -> list[str]:
    """A plan with so many good answers after each of its steps."""
    return [step for trouble in plan for step in (trouble, *["good"] * good)]


def _port(judge: scripted_judge.Judge) -> int:
    return int(judge.url.removesuffix("/v1").rpartition(":")[2])


def _samples(file: Path) -> Iterator[dict[str, Any]]:
    for line in read_rows(file):
        yield from line["rollouts"]


def _reasons(sample: dict[str, Any]) -> bool:
    """Whether a response has a reasoning; an empty one is inconsistent by rule."""
    return bool(sample["text"].partition("<think>")[2].partition("</think>")[0].strip())


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.fmean(row[name] for row in rows if row[name] is not None)


def _asked(judge: scripted_judge.Judge) -> list[str]:
    return [json.dumps(body["messages"], sort_keys=True) for body in list(judge.bodies)]


def _told(file: Path) -> list[float]:
    return [row["loss/total"] for row in read_rows(file)]
