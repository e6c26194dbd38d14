"""The decode loop: from rows that have drawn some tokens to rows that have drawn more, on the device alone.

A row is a rollout being drawn. Rows come in two axes [A, W]: prompts × group at first ([M, G]), single rows after
compaction ([R, 1], see `compaction`). The loop does not know which: noise is keyed, caches and places are indexed by
what the row is.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.model.cache import Places, windows
from fgrpo_jax.records import PromptBatch
from fgrpo_jax.rollout import noise
from fgrpo_jax.rollout.distribution import Distribution, ids_of
from fgrpo_jax.rollout.layout import Laid
from fgrpo_jax.rollout.stopping import StopTable


@struct.dataclass
class Rows:
    """What the loop carries from token to token."""

    t: jax.Array  # int32 []               tokens drawn since the beginning
    keys: jax.Array  # key [A, W]             of the noise
    next_position: jax.Array  # int32 [A]              M-RoPE position of the first token
    hidden: jax.Array  # [A, W, D]              what the next token is drawn from
    last: jax.Array  # int32 [A, W]           the token drawn last
    done: jax.Array  # bool [A, W]            nothing more is drawn: it has ended, or there is no prompt
    finished: jax.Array  # bool [A, W]            it has ended by itself: an EOS id or a stop sequence
    tokens: jax.Array  # int32 [A, W, T]
    mask: jax.Array  # bool [A, W, T]
    logps: jax.Array  # float32 [A, W, T]
    cache: Any  # KV [L, A, W, K, T, H], or one a layer (`Model.empty_cache`)
    stop: jax.Array | None = None  # int32 [A, W]           state of the stop sequences (`StopTable`)
    seen: jax.Array | None = None  # bool [A, W, V]         ids of prompt and rollout, for a repetition penalty


@struct.dataclass
class Shared:
    """What the rows of a prompt share."""

    prefix: Any  # KV [L, M, S, K, H]; inside the loop what `Model.enter` made of it
    mask: jax.Array  # bool [M, S]
    places: Places | None = None  # where rows stand among prompts × group; None: in that order


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """Draws tokens for rows of one model."""

    model: Any  # as in `Sampler`
    distribution: Distribution  # what is drawn from
    window: int  # T, completion tokens at most
    pad_id: int  # written after the end
    check_every: int  # tokens between two looks at who is still alive
    stops: StopTable | None  # stop sequences; None for none
    split: bool = False  # the vocabulary is split over devices, which only plain reductions can work on in parts

    def begin(self, prompts: PromptBatch, first: jax.Array, keys: jax.Array, *, cache_dtype: Any) -> Rows:
        """Rows [M, G] before their first token.

        Args:
          first: [M, D], hidden state of each prompt's last token, from which all its rollouts draw their first.
          keys: [M, G] of the noise.
        """
        shape = keys.shape
        full = (*shape, self.window)
        distribution = self.distribution
        seen = None
        if distribution.penalises:
            ids = ids_of(prompts.tokens, prompts.mask, distribution.banned.size)
            seen = jnp.broadcast_to(ids[:, None], (*shape, ids.shape[-1]))
        return Rows(
            t=jnp.zeros((), jnp.int32),
            keys=keys,
            next_position=prompts.next_position,
            hidden=jnp.broadcast_to(first[:, None], (*shape, first.shape[-1])),
            last=jnp.full(shape, self.pad_id, jnp.int32),
            done=jnp.broadcast_to(~prompts.mask.any(axis=1)[:, None], shape),
            finished=jnp.zeros(shape, bool),
            tokens=jnp.full(full, self.pad_id, jnp.int32),
            mask=jnp.zeros(full, bool),
            logps=jnp.zeros(full, jnp.float32),
            cache=self.model.empty_cache(*full, cache_dtype),
            stop=None if self.stops is None else jnp.zeros(shape, jnp.int32),
            seen=seen,
        )

    def run(self, laid: Laid, shared: Shared, rows: Rows, *, until: Any) -> Rows:
        """Draws until `until(rows)`, bool [], holds (looked at every `check_every` tokens) or the window is full.

        There is a loop for each of the cache's `windows`, which goes on where the one before ends.
        """
        prefix, cache = self.model.enter(laid.params, shared.prefix, rows.cache, apart=laid.apart)
        shared, rows = shared.replace(prefix=prefix), rows.replace(cache=cache)
        for start, end in itertools.pairwise((0, *windows(self.window))):
            with jax.named_scope("decode"):
                rows = self._until_column(laid.params, shared, rows, start=start, end=end, until=until)
        return rows.replace(cache=self.model.leave(rows.cache, rows=rows.done.shape))

    def _until_column(self, params: Any, shared: Shared, rows: Rows, *, start: int, end: int, until: Any) -> Rows:
        """The tokens from `start` to `end`, those before which have been drawn."""
        # Rounds of one length, which the program knows; so a GPU is not asked for it.
        length = max(n for n in range(1, self.check_every + 1) if (end - start) % n == 0)

        def several(rows: Rows) -> Rows:
            return jax.lax.fori_loop(0, length, lambda _, rows: self._step(params, shared, rows, window=end), rows)

        return jax.lax.while_loop(lambda rows: (rows.t < end) & ~until(rows), several, rows)

    def _step(self, params: Any, shared: Shared, rows: Rows, *, window: int) -> Rows:
        rows = self._draw(rows, self.model.logits(params, rows.hidden))
        layout = {} if shared.places is None else {"places": shared.places}
        hidden, cache = self.model.decode(
            params, rows.last, rows.t - 1, rows.next_position,
            prefix=shared.prefix, prefix_mask=shared.mask, cache=rows.cache, window=window, **layout,
        )  # fmt: skip
        return rows.replace(hidden=hidden, cache=cache)

    def _draw(self, rows: Rows, logits: jax.Array) -> Rows:
        """Draws one token of every living row from logits [A, W, V] and writes it down."""
        with jax.named_scope("draw"):
            scores = self.distribution.scores(logits, index=rows.t, seen=rows.seen)
            random = 0.0 if self.distribution.greedy else noise.gumbel(rows.keys, rows.t, scores.shape[-1])
            forms = {"default": _in_plain_passes} | ({} if self.split else {"cuda": _in_one_pass})
            token, logp = jax.lax.platform_dependent(scores, scores + random, **forms)
        alive = ~rows.done
        token = jnp.where(alive, token, self.pad_id)
        ends = jnp.isin(token, jnp.asarray(self.distribution.eos_ids, jnp.int32))
        stop = rows.stop
        if self.stops is not None and stop is not None:
            stop, complete = self.stops.read(stop, token)
            ends |= complete & (rows.t + 1 >= self.distribution.min_new_tokens)
        ends &= alive
        seen = rows.seen
        if seen is not None:
            seen = seen | (alive[..., None] & (token[..., None] == jnp.arange(seen.shape[-1])))
        return rows.replace(
            t=rows.t + 1,
            last=token,
            done=rows.done | ends,
            finished=rows.finished | ends,
            tokens=_write(rows.tokens, token, rows.t),
            mask=_write(rows.mask, alive, rows.t),
            logps=_write(rows.logps, jnp.where(alive, logp, 0.0), rows.t),
            stop=stop,
            seen=seen,
        )


def last_real(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """Hidden state [M, D] of each prompt's last real token, of [M, S, D]; by the mask, wherever the padding is."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def _in_plain_passes(scores: jax.Array, noisy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(index int32 [...] of the largest of noisy [..., V], its log-prob under softmax of scores [..., V]).

    The index is as of `argmax`, in two plain reductions: XLA on CPU runs one that carries value and index a number at a
    time, and the logarithms of the noise, which it fuses into it, along: five times as long. V - 1 where one is NaN.
    """
    last = noisy.shape[-1] - 1
    index = jnp.arange(last + 1, dtype=jnp.int32)
    token = jnp.min(jnp.where(noisy == jnp.max(noisy, axis=-1, keepdims=True), index, last), axis=-1)
    top = jnp.max(scores, axis=-1)
    return token, _taken(scores, token) - top - jnp.log(jnp.sum(jnp.exp(scores - top[..., None]), axis=-1))


def _in_one_pass(scores: jax.Array, noisy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same in one reduction, which reads the logits once; the noise is made where it is compared."""
    index = jax.lax.broadcasted_iota(jnp.int32, noisy.shape, noisy.ndim - 1)

    def both(one: Any, other: Any) -> Any:
        (a, i, x, m), (b, j, y, n) = one, other  # best and its index; largest score and sum of exponentials below it
        first = (a > b) | ((a == b) & (i < j))
        top = jnp.maximum(x, y)
        finite = jnp.where(top == -jnp.inf, 0.0, top)
        total = m * jnp.exp(x - finite) + n * jnp.exp(y - finite)
        return jnp.where(first, a, b), jnp.where(first, i, j), top, total

    worst = jnp.asarray(-jnp.inf, scores.dtype)
    start = (worst, jnp.asarray(noisy.shape[-1] - 1, jnp.int32), worst, jnp.zeros((), scores.dtype))
    numbers = (noisy, index, scores, jnp.ones_like(scores))
    _, token, top, total = jax.lax.reduce(numbers, start, both, (noisy.ndim - 1,))
    return token, _taken(scores, token) - top - jnp.log(total)


def _taken(scores: jax.Array, token: jax.Array) -> jax.Array:
    """The scores [..., V] of tokens [...]."""
    return jnp.take_along_axis(scores, token[..., None], axis=-1)[..., 0]


def _write(buffer: jax.Array, column: jax.Array, t: jax.Array) -> jax.Array:
    """buffer [A, W, T] with column t set; a slice update stays in place inside a loop's carry."""
    return jax.lax.dynamic_update_slice_in_dim(buffer, column[..., None].astype(buffer.dtype), t, axis=2)
