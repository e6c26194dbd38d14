"""Times the client of a judge behind an endpoint: requests a second, against httpx and against what is possible.

    python tools/bench_judge.py --requests=500 --concurrency=32 --concurrency=256

A server in a process of its own answers every request after `--latency` seconds, whatever it is. So the least time for
n requests, c of them under way, is n / c · latency: `of_ideal` is that, over ours. The client's own cost is `cpu_ms`,
the processor time of this process a request: training runs beside it in the same process, and what the client takes,
the sampler's host side waits for. `httpx` sends the same bodies, made beforehand, through one `AsyncClient`.

Rounds alternate; a ratio is the median over rounds of the ratio within a round. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported below

import httpx
import numpy as np
import scripted_judge
from bench_rollout import summary, timed

from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.judges.protocol import Request
from fgrpo_jax.rewards.judges.server import ServerJudge
from fgrpo_jax.rewards.judges.settings import Server

TOOLS = Path(__file__).resolve().parent
SENTENCES = 8
"""Requests an example: all of them show the same image."""


@contextlib.contextmanager
def served(latency: float) -> Iterator[str]:
    """The address of a scripted judge in a process of its own."""
    command = [sys.executable, str(TOOLS / "scripted_judge.py"), f"--latency={latency}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def questions(count: int, *, side: int) -> list[Request]:
    """Requests about images of `side` x `side` pixels, each sentence another one."""
    size = ImageSize(side, side, side, side)
    parsed = parse("<think>The red circle is left of the blue square.</think><answer>yes</answer>")
    out = []
    for at in range(0, count, SENTENCES):
        image = np.random.default_rng(at).integers(0, 4, (side, side, 3), np.uint8)
        example = Example(id=f"bench:{at}", question="Is it?", options=(), answer="yes", images=(image,))
        for number in range(at, min(at + SENTENCES, count)):
            out.append(Request("semantic", example, parsed, size, sentence=f"Sentence {number} of a circle."))
    return out


def bodies_of(requests: list[Request]) -> list[bytes]:
    """What is sent for them."""
    with scripted_judge.serve(scripted_judge.Judge()) as server:
        with ours(server.url, requests, 32) as run:
            run()
        return [json.dumps(body).encode() for body in server.bodies]


@contextlib.contextmanager
def ours(url: str, requests: list[Request], concurrency: int) -> Iterator[Callable[[], None]]:
    """Sends all of them; connections are kept between calls."""
    judge = ServerJudge(Server(url=url, model="scripted"), concurrency=concurrency)

    def run() -> None:
        failed = [judgement.error for judgement in judge.judge(requests) if judgement.failed]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(requests)} requests failed: {failed[0]}")

    with contextlib.closing(judge):
        yield run


@contextlib.contextmanager
def theirs(url: str, bodies: list[bytes], concurrency: int) -> Iterator[Callable[[], None]]:
    """The same with one `httpx.AsyncClient`, nothing but sent and read."""
    loop = asyncio.new_event_loop()
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    client = httpx.AsyncClient(limits=limits, timeout=120)
    free = asyncio.Semaphore(concurrency)

    async def one(body: bytes) -> None:
        async with free:
            headers = {"Content-Type": "application/json"}
            response = await client.post(f"{url}/chat/completions", content=body, headers=headers)
            json.loads(response.content)

    async def every() -> None:
        await asyncio.gather(*(one(body) for body in bodies))

    yield lambda: loop.run_until_complete(every())
    loop.run_until_complete(client.aclose())
    loop.close()


def compare(args: argparse.Namespace, concurrency: int) -> dict[str, Any]:
    """A row of the table."""
    requests = questions(args.requests, side=args.side)
    bodies = bodies_of(requests)
    with (
        served(args.latency) as url,
        ours(url, requests, concurrency) as own,
        theirs(url, bodies, concurrency) as other,
    ):
        own()  # connections are opened
        other()
        rounds = [(timed(own), timed(other)) for _ in range(args.rounds)]
    mine, httpx_seconds, ratios = summary(rounds)
    cpu_ms = [1000 * statistics.median(one.cpu for one in side) / args.requests for side in zip(*rounds, strict=True)]
    return {
        "concurrency": concurrency,
        "requests_s": args.requests / mine,
        "of_ideal": -(-args.requests // concurrency) * args.latency / mine,
        "cpu_ms": cpu_ms[0],
        "httpx_requests_s": args.requests / httpx_seconds,
        "httpx_cpu_ms": cpu_ms[1],
        "times_as_fast": ratios["ratio"],
    }


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--requests", type=int, default=512, help="a round (%(default)s)")
    out.add_argument("--concurrency", type=int, action="append", help="under way at once; may be repeated (32, 256)")
    out.add_argument("--latency", type=float, default=0.2, help="seconds of the server (%(default)s)")
    out.add_argument("--side", type=int, default=112, help="pixels of a side of the images (%(default)s)")
    out.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    return out


def main() -> None:
    args = parser().parse_args()
    rows = [compare(args, concurrency) for concurrency in args.concurrency or (32, 256)]
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value:>{len(name)}.3g}" for name, value in row.items()))
    print(json.dumps({"bench": "judge", **vars(args), "rows": rows}))


if __name__ == "__main__":
    main()
