"""Prompts → rollouts on the host: arrays fetched once, texts decoded, tokens and seconds counted.

Of several batches the next is under way on the devices before the texts of one are decoded, so that devices never wait
for the host.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from fgrpo_jax.records import PromptBatch, Rollouts
from fgrpo_jax.rollout.sampler import Sampler

Decode = Callable[[Sequence[int]], str]

UNDER_WAY = 2
"""Batches that the devices have before them: the one they draw, and the next."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """Rollouts on the host."""

    rollouts: Rollouts  # numpy leaves; with several processes, of this one's prompts
    texts: tuple[tuple[str, ...], ...]  # [M][G] decoded completions, without what ends them
    tokens: int  # completion tokens drawn, each rollout's EOS included
    seconds: float  # that the devices took for it alone; the first call of a batch shape includes its compilation

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second of wall time."""
        return self.tokens / self.seconds

    def ids(self, prompt: int, member: int) -> list[int]:
        """Token ids of one rollout, by its mask: the EOS included, nothing after."""
        return self.rollouts.tokens[prompt, member][self.rollouts.mask[prompt, member]].tolist()

    def logprob(self, prompt: int, member: int) -> float:
        """Sum of the log-probs of one rollout's tokens, nats; summed in float64, since a rollout has hundreds."""
        return float(self.rollouts.logps[prompt, member].sum(dtype=np.float64))


def generate(
    sampler: Sampler,
    params: Any,
    prompts: PromptBatch,
    *,
    decode: Decode,
    seed: int,
    purpose: int | str,
    step: int,
) -> Generation:
    """Samples a batch, waits for it and decodes it: `generations` of one."""
    return next(generations(sampler, params, [prompts], decode=decode, seed=seed, purpose=purpose, step=step))


def generations(
    sampler: Sampler,
    params: Any,
    batches: Iterable[PromptBatch],
    *,
    decode: Decode,
    seed: int,
    purpose: int | str,
    step: int,
) -> Iterator[Generation]:
    """Samples batches one after the other. The first are under way when this returns; the others are as each is taken.

    Args:
      batches: of M prompts each (numpy or device leaves); rows of filling (mask False throughout) come back as empty
        texts. Taken from as they are needed.
      decode: ids → text, those that end it skipped (`Processor.decode`).
      seed, purpose, step: as in `Sampler.sample`.

    Raises:
      FloatingPointError: a drawn token's log-prob is not finite, which means the parameters or the inputs are not.
    """
    # A thread draws, since a sampler that returns to the host between tokens holds whoever called it; batches are cut
    # there too, so that every process of a run has its programs in one order. Another thread waits for what was drawn,
    # so that seconds are those of the devices, whatever else the caller does between two batches.
    draw, arrive = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("draw", "arrive"))
    left, ready = iter(batches), arrive.submit(_ready, params)

    def drawn() -> Rollouts | None:
        batch = next(left, None)
        return None if batch is None else sampler.sample(params, batch, seed=seed, purpose=purpose, step=step)

    def begin() -> Future[tuple[Rollouts, float] | None]:
        return arrive.submit(_arrived, draw.submit(drawn))

    def arriving(under_way: collections.deque[Future[tuple[Rollouts, float] | None]]) -> Iterator[Generation]:
        try:
            since = ready.result()
            while (found := under_way.popleft().result()) is not None:
                rollouts, now = found
                under_way.append(begin())  # before anything is decoded
                yield _generation(rollouts, decode, seconds=now - since)
                since = now
        finally:
            for pool in (draw, arrive):
                pool.shutdown(cancel_futures=True)

    return arriving(collections.deque(begin() for _ in range(UNDER_WAY)))


def _ready(params: Any) -> float:
    """When the parameters were there: a step of the learner may still be making them."""
    jax.block_until_ready(params)
    return time.perf_counter()


def _arrived(drawn: Future[Rollouts | None]) -> tuple[Rollouts, float] | None:
    """(rollouts on the host, when they came); None where no batch was left."""
    rollouts = drawn.result()
    return None if rollouts is None else (fetched(rollouts), time.perf_counter())


def _generation(rollouts: Rollouts, decode: Decode, *, seconds: float) -> Generation:
    """Rollouts that have arrived (numpy leaves), decoded."""
    bad = ~np.isfinite(rollouts.logps).all(axis=-1)
    if bad.any():
        raise FloatingPointError(
            f"{int(bad.sum())} of {bad.size} rollouts have a log-prob that is not finite: check the weights for NaN"
        )
    texts = decode_texts(rollouts, decode)
    return Generation(rollouts=rollouts, texts=texts, tokens=int(rollouts.mask.sum()), seconds=seconds)


def fetched(tree: Any) -> Any:
    """Arrays by prompt on the host as numpy; with several processes, the prompts of this one."""
    return jax.device_get(tree) if jax.process_count() == 1 else jax.tree.map(own_rows, tree)


def own_rows(array: jax.Array) -> np.ndarray:
    """The prompts of this process, of an array whose leading axis is split over the devices of several processes.

    They stand in the order in which `jax.make_array_from_process_local_data` took them.
    """
    parts = {shard.index[0].start or 0: shard for shard in array.addressable_shards}  # replicas hold the same rows
    return np.concatenate([np.asarray(parts[start].data) for start in sorted(parts)])


def decode_texts(rollouts: Rollouts, decode: Decode) -> tuple[tuple[str, ...], ...]:
    """[M][G] texts of rollouts with numpy leaves; what is decoded is said by the mask, never by an id."""
    return tuple(
        tuple(decode(ids[mask].tolist()) for ids, mask in zip(group, masks, strict=True))
        for group, masks in zip(rollouts.tokens, rollouts.mask, strict=True)
    )
