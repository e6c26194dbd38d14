"""A stream of prompts through a fixed number of slots: what has ended makes room for the next (continuous batching).

For evaluation, judging and data synthesis, where prompts keep coming and a batch would wait for its longest rollout. A
slot holds a prompt with its G rollouts. Slots are refilled as soon as the next prompts have room, one program does all
decoding, and only flags and ended rollouts come to the host.

Rows that began at different times share one write position: the suffix cache is a ring of T columns, written at the
stream's step modulo T, and a row reads the columns since its own beginning. So the write stays one slice, in place.

Tokens are those of `Sampler.sample` on the same prompts, keys and settings, but for ties: the noise is bit-equal, and
logits differ by rounding alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from fgrpo_jax import mesh as meshes
from fgrpo_jax.records import PromptBatch, Rollouts
from fgrpo_jax.rollout.loop import Rows, Shared
from fgrpo_jax.rollout.noise import key_words
from fgrpo_jax.rollout.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Ended:
    """The rollouts of one prompt.

    Attributes:
      number: place of the prompt in the stream, rows of filling not counted.
      rollouts: numpy leaves as in `Rollouts`, without the prompt axis: tokens, mask and logps [G, T], finished [G].
    """

    number: int
    rollouts: Rollouts


@struct.dataclass
class _Slots:
    """The device's side: rows [P, G] of P slots, and the prompts they belong to."""

    rows: Rows
    shared: Shared


class Stream:
    """Runs streams of prompts with the settings of one sampler.

    Args:
      sampler: what is drawn, and how; its mesh may not split the batch.
      slots: P, prompts at a time. As many as a batch would have is a good number.
      prompt_length: S, prompt tokens a slot has room for.

    Raises:
      ValueError: a size below 1, or a mesh that splits the batch.
    """

    def __init__(self, sampler: Sampler, *, slots: int, prompt_length: int) -> None:
        for name, value in (("slots", slots), ("prompt_length", prompt_length)):
            if value < 1:
                raise ValueError(f"stream {name} is {value}; it must be at least 1")
        if sampler.mesh is not None and meshes.batch_size(sampler.mesh) > 1:
            raise ValueError(
                f"a stream fills single slots, which a mesh of {dict(sampler.mesh.shape)} would split over devices; "
                "sample in batches there, or use mesh.data=1 and mesh.fsdp=1"
            )
        self.sampler = sampler
        self.slots, self.prompt_length = slots, prompt_length
        options = sampler.compiler_options
        self._admit = jax.jit(self._admitted, donate_argnums=0, compiler_options=options)
        self._run = jax.jit(self._decoded, donate_argnums=1, compiler_options=options)
        self._empty = jax.jit(self._emptied, compiler_options=options)

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one for decoding, one that makes the slots, one a shape of prompts."""
        return sum(program._cache_size() for program in (self._admit, self._run, self._empty))

    def __call__(
        self,
        params: Any,
        prompts: Iterable[PromptBatch],
        *,
        seed: int,
        purpose: int | str,
        step: int,
        ordered: bool = False,
    ) -> Iterator[Ended]:
        """Yields each prompt's rollouts when all of them have ended.

        Args:
          prompts: batches of prompts, each let in whole as soon as it finds room; the fewer prompts in each, the less
            a slot waits. Every shape of batch compiles once. Rows without a real token are filling.
          seed, purpose, step: as in `Sampler.sample`.
          ordered: in the order of the stream, and not as they end.

        Raises:
          ValueError: a batch of more prompts than there are slots, or prompts longer than `prompt_length`.
        """
        ended = self._ended(params, iter(prompts), key_words(seed, purpose=purpose, step=step))
        return _in_order(ended) if ordered else ended

    def _ended(self, params: Any, prompts: Iterator[PromptBatch], words: np.ndarray) -> Iterator[Ended]:
        if self.sampler.param_shardings is not None:
            params = jax.device_put(params, self.sampler.param_shardings)
        free, holds, count = list(range(self.slots)), {}, 0
        slots, batch = None, next(prompts, None)
        while batch is not None or holds:
            while batch is not None and len(free) >= (size := self._size(batch)):
                if slots is None:
                    slots = self._empty(params, batch, words)
                into = np.full(len(batch.mask), self.slots, np.int32)  # where filling goes: beyond the end, nowhere
                into[np.asarray(batch.mask).any(axis=1)] = taken = free[:size]
                del free[:size]
                holds |= {slot: count + i for i, slot in enumerate(taken)}
                count += size
                slots = self._admit(slots, params, batch, words, into)
                batch = next(prompts, None)
            wanted = min(len(holds), len(holds) if batch is None else self._size(batch) - len(free))
            occupied = np.isin(np.arange(self.slots), list(holds))
            slots, done = self._run(params, slots, occupied, max(wanted, 1)) if holds else (slots, [])
            for slot, rollouts in self._harvest(slots, [slot for slot in holds if done[slot]]):
                yield Ended(holds.pop(slot), rollouts)
                free.append(slot)

    def _size(self, batch: PromptBatch) -> int:
        """Real prompts of a batch, if it fits."""
        count, length = int(np.asarray(batch.mask).any(axis=1).sum()), batch.mask.shape[1]
        if count > self.slots:
            raise ValueError(f"a batch of {count} prompts does not fit {self.slots} slots; make batches smaller")
        if length > self.prompt_length:
            raise ValueError(
                f"prompts padded to {length} tokens do not fit prompt_length {self.prompt_length}; raise it"
            )
        return count

    def _harvest(self, slots: Any, which: list[int]) -> Iterator[tuple[int, Rollouts]]:
        """(slot, its rollouts) with the ring's columns in the order they were drawn."""
        if not which:
            return
        rows = slots.rows
        begun, finished, *drawn = (
            np.asarray(x)[which] for x in (rows.begun, rows.finished, rows.tokens, rows.mask, rows.logps)
        )
        window = drawn[0].shape[-1]
        columns = (begun[..., None] + np.arange(window)) % window
        drawn = [np.take_along_axis(x, columns, axis=-1) for x in drawn]
        for i, slot in enumerate(which):
            tokens, mask, logps = (x[i] for x in drawn)
            yield slot, Rollouts(tokens=tokens, mask=mask, logps=logps, finished=finished[i])

    # ------------------------------------------------------------------------------------------------ traced from here
    def _emptied(self, params: Any, like: PromptBatch, words: jax.Array) -> _Slots:
        """Slots without a prompt, in the shapes that `like` leads to."""
        shared, rows = self.sampler.prefill(params, like, None, words, group_size=self.sampler.group_size)
        count = self.slots
        widen = lambda x, axis: jnp.zeros((*x.shape[:axis], count, *x.shape[axis + 1 :]), x.dtype)  # noqa: E731
        prefix = jax.tree.map(
            lambda x: jnp.zeros((x.shape[0], count, self.prompt_length, *x.shape[3:]), x.dtype), shared.prefix
        )
        keys = jnp.broadcast_to(rows.keys[:1], (count, rows.keys.shape[1]))
        cache = jax.tree.map(lambda x: widen(x, 1), rows.cache)
        others = jax.tree.map(lambda x: widen(x, 0), rows.replace(t=None, keys=None, cache=None))
        rows = others.replace(
            t=jnp.zeros((), jnp.int32),
            keys=keys,
            cache=cache,
            done=jnp.ones(others.done.shape, bool),
            begun=jnp.zeros(others.done.shape, jnp.int32),
        )
        return _Slots(rows, Shared(prefix, jnp.zeros((count, self.prompt_length), bool)))

    def _admitted(self, slots: _Slots, params: Any, prompts: PromptBatch, words: jax.Array, into: jax.Array) -> _Slots:
        """The slots with new prompts in `into`, int32 [m]."""
        old, shared = slots.rows, slots.shared
        new, rows = self.sampler.prefill(params, prompts, None, words, group_size=self.sampler.group_size)
        rows = rows.replace(begun=jnp.broadcast_to(old.t, rows.done.shape))
        put = lambda old, new: old.at[into].set(new, mode="drop")  # noqa: E731
        bare = {"t": None, "cache": None}  # nothing of the cache is read before it is written
        merged = jax.tree.map(put, old.replace(**bare), rows.replace(**bare)).replace(t=old.t, cache=old.cache)
        length = prompts.mask.shape[1]
        prefix = jax.tree.map(
            lambda old, new: old.at[:, into, :length].set(new, mode="drop"), shared.prefix, new.prefix
        )
        mask = put(shared.mask, jnp.pad(new.mask, ((0, 0), (0, self.prompt_length - length))))
        return _Slots(merged, Shared(prefix, mask))

    def _decoded(self, params: Any, slots: _Slots, occupied: jax.Array, wanted: jax.Array) -> tuple[_Slots, jax.Array]:
        """Until `wanted` of the occupied slots [P] have ended: (slots, which have, bool [P])."""
        decoder = self.sampler.decoder
        ended = lambda rows: occupied & rows.done.all(axis=1)  # noqa: E731
        rows = decoder.run(
            params,
            slots.shared,
            slots.rows,
            until=lambda rows: jnp.sum(ended(rows)) >= wanted,
            steps=decoder.window,
        )
        return slots.replace(rows=rows), ended(rows)


def _in_order(ended: Iterator[Ended]) -> Iterator[Ended]:
    """The same by number; what ends early waits."""
    waiting: dict[int, Ended] = {}
    following = 0
    for one in ended:
        waiting[one.number] = one
        while following in waiting:
            yield waiting.pop(following)
            following += 1
