"""Prompts → rollouts on the host: arrays fetched once, texts decoded, tokens and seconds counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fgrpo_jax.records import PromptBatch, Rollouts
from fgrpo_jax.rollout.sampler import Sampler

Decode = Callable[[Sequence[int]], str]


@dataclasses.dataclass(frozen=True)
class Generation:
    """Rollouts on the host."""

    rollouts: Rollouts  # numpy leaves; with several processes, of this one's prompts
    texts: tuple[tuple[str, ...], ...]  # [M][G] decoded completions, without what ends them
    tokens: int  # completion tokens drawn, each rollout's EOS included
    seconds: float  # until the arrays arrived; the first call of a batch shape includes its compilation

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
    """Samples a batch, waits for it and decodes it.

    Args:
      prompts: M prompts (numpy or device leaves); rows of filling (mask False throughout) come back as empty texts.
      decode: ids → text, those that end it skipped (`Processor.decode`).
      seed, purpose, step: as in `Sampler.sample`.

    Raises:
      FloatingPointError: a drawn token's log-prob is not finite, which means the parameters or the inputs are not.
    """
    start = time.perf_counter()
    rollouts = fetched(sampler.sample(params, prompts, seed=seed, purpose=purpose, step=step))
    seconds = time.perf_counter() - start
    bad = ~np.isfinite(rollouts.logps).all(axis=-1)
    if bad.any():
        raise FloatingPointError(
            f"{int(bad.sum())} of {bad.size} rollouts have a log-prob that is not finite: check the weights for NaN"
        )
    return Generation(
        rollouts=rollouts, texts=decode_texts(rollouts, decode), tokens=int(rollouts.mask.sum()), seconds=seconds
    )


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
