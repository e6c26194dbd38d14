"""The compiled sampler: one vision encoding and one prefill a prompt, then one decode loop for its G rollouts.

All of it is a single jitted function made once a `Sampler`. The G rollouts of a prompt attend to one shared prefix KV
and to their own suffix cache, which lives in the loop's carry and is written in place. Nothing returns to the host
before the last token.

Every token can be reproduced: its noise is a function of (seed, purpose, step, prompt id, occurrence, group index,
token index) alone, so batch order, batch size, device count and restarts do not change it (`noise_keys`).
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fgrpo_jax.mesh import BATCH_AXES
from fgrpo_jax.records import PromptBatch, Rollouts

IMPL = "threefry2x32"
"""The only generator whose bits under vmap do not depend on the layout; 'rbg' and 'unsafe_rbg' do, and are refused."""


@struct.dataclass
class _Loop:
    """What the decode loop carries from token to token."""

    t: jax.Array  # int32 []            tokens drawn so far
    hidden: jax.Array  # [M, G, D]        what the next token is drawn from
    last: jax.Array  # int32 [M, G]        the token drawn last
    done: jax.Array  # bool [M, G]         an EOS was drawn (or the row holds no prompt)
    finished: jax.Array  # bool [M, G]         an EOS was drawn
    tokens: jax.Array  # int32 [M, G, T]
    mask: jax.Array  # bool [M, G, T]
    logps: jax.Array  # float32 [M, G, T]
    cache: Any  # KV [L, M, G, T, K, H]


class Sampler:
    """Draws G completions of each prompt of a batch.

    One instance compiles once a batch shape (the caller buckets shapes); `compilations` counts them.

    Args:
      model: object with `encode`, `prefix`, `decode`, `logits` and `empty_cache` (model.qwen2_5_vl.Model).
      group_size: G, rollouts a prompt.
      max_new_tokens: T, completion tokens at most, the EOS included.
      eos_ids: ids that end a rollout; () runs every rollout to `max_new_tokens`.
      pad_id: id written after the end. It may equal an EOS id: the mask, not the id, says what is content.
      banned: bool [V], ids that must never be drawn (image placeholders, ids beyond the tokenizer).
      temperature: divides the logits before the softmax; 0 is greedy, whose log-probs are those at temperature 1.
      top_k, top_p: truncation, for evaluation only; 0 and 1.0 leave the distribution whole. Log-probs are of the
        truncated distribution, the one drawn from, so a learner without an importance correction must refuse them
        (`truncated`).
      check_every: tokens between two checks whether all rollouts have ended; no effect on the output.
      cache_dtype: dtype of the suffix cache; None is the model's compute dtype.
      mesh: when given, prefix, cache and rollouts are split over its batch axes by prompt.
      param_shardings: layout of the parameters while sampling (mesh.SAMPLE_RULES), in their structure. They are brought
        into it once a call, so that no decode step gathers a weight; None leaves them as they come.
      impl: random generator; anything but threefry2x32 is refused.
      compiler_options: XLA options of this program alone.
    Raises:
      ValueError: a setting out of its range, with the range.
    """

    def __init__(
        self,
        model: Any,
        *,
        group_size: int,
        max_new_tokens: int,
        eos_ids: tuple[int, ...],
        pad_id: int,
        banned: np.ndarray,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        check_every: int = 8,
        cache_dtype: Any = None,
        mesh: Mesh | None = None,
        param_shardings: Any = None,
        impl: str = IMPL,
        compiler_options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.group_size = group_size
        self.max_new_tokens = max_new_tokens
        self.eos_ids = tuple(int(i) for i in eos_ids)
        self.pad_id = int(pad_id)
        self.banned = np.asarray(banned)
        self.temperature = float(temperature)
        self.top_k, self.top_p = top_k, top_p
        self.check_every = check_every
        self.cache_dtype = model.compute_dtype if cache_dtype is None else cache_dtype
        self.mesh = mesh
        self.param_shardings = param_shardings
        _check_sizes(group_size=group_size, max_new_tokens=max_new_tokens, check_every=check_every)
        _check_distribution(self.temperature, top_k=top_k, top_p=top_p)
        _check_ids(self.banned, eos_ids=self.eos_ids, pad_id=self.pad_id)
        _check_generator(impl)
        self.compiler_options = compiler_options
        self._traces = 0
        self._jitted = jax.jit(self._run, compiler_options=compiler_options)

    @property
    def greedy(self) -> bool:
        """No noise: the likeliest token each time."""
        return self.temperature == 0

    @property
    def truncated(self) -> bool:
        """Top-k or top-p cut the distribution: log-probs are not the policy's own, and training must refuse them."""
        return self.top_k > 0 or self.top_p < 1.0

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one a combination of batch shapes, dtypes and shardings."""
        # The traces count what `compile` did ahead of a call, the cache what a change of sharding alone compiled.
        return max(self._traces, self._jitted._cache_size())

    def sample(
        self, params: Any, prompts: PromptBatch, *, seed: int, purpose: int | str, step: int, features: Any = None
    ) -> Rollouts:
        """Draws the rollouts of one batch, on the device; returns before they are ready (asynchronous dispatch).

        Args:
          params: parameters of the model.
          prompts: M prompts. A row whose mask is False throughout is filling: it emits nothing and is never waited for.
          seed: of the run, 0 <= seed < 2**32.
          purpose: what the rollouts are for ('train', 'eval', ...): other purposes, other noise.
          step: rollout step, 0 <= step < 2**32.
          features: merged image features [M, I·F, D], when already encoded; None encodes `prompts.vision` here.
        Raises:
          ValueError: a seed or step out of range.
        """
        return self._jitted(params, prompts, features, key_words(seed, purpose=purpose, step=step))

    def compile(self, params: Any, prompts: PromptBatch, *, features: Any = None) -> jax.stages.Compiled:
        """Compiles for these shapes (arrays or ShapeDtypeStructs) ahead of the first call, which then finds it done.

        What it returns knows its memory (`memory_analysis()`) and its text.
        """
        return self._jitted.lower(params, prompts, features, key_words(0, purpose=0, step=0)).compile()

    # ------------------------------------------------------------------------------------------------ traced from here
    def _run(self, params: Any, prompts: PromptBatch, features: Any, words: jax.Array) -> Rollouts:
        """Prefill, then the decode loop. words: uint32 [3] of `key_words`."""
        self._traces += 1
        if self.param_shardings is not None:
            params = jax.lax.with_sharding_constraint(params, self.param_shardings)
        with jax.named_scope("vision"):
            if features is None:
                features = self.model.encode(params, prompts.vision)
        with jax.named_scope("prefill"):
            hidden, prefix = self.model.prefix(params, prompts, features)
            prefix = self._constrain(prefix, axis=1)
            first = last_real(hidden, prompts.mask)
        keys = noise_keys(words, prompt_id=prompts.prompt_id, occurrence=prompts.occurrence, group_size=self.group_size)

        def body(_: Any, state: _Loop) -> _Loop:
            state = self._draw(state, self.model.logits(params, state.hidden), keys)
            hidden, cache = self.model.decode(
                params, state.last, state.t - 1, prompts.next_position,
                prefix=prefix, prefix_mask=prompts.mask, cache=state.cache,
            )  # fmt: skip
            return state.replace(hidden=hidden, cache=cache)

        def several(state: _Loop) -> _Loop:
            return jax.lax.fori_loop(0, jnp.minimum(self.check_every, self.max_new_tokens - state.t), body, state)

        with jax.named_scope("decode"):
            state = self._empty(first, prompts.mask.any(axis=1))
            state = jax.lax.while_loop(lambda s: (s.t < self.max_new_tokens) & ~s.done.all(), several, state)
        rollouts = Rollouts(tokens=state.tokens, mask=state.mask, logps=state.logps, finished=state.finished)
        return self._constrain(rollouts, axis=0)

    def _empty(self, first: jax.Array, real: jax.Array) -> _Loop:
        """State before the first token.

        Args:
          first: [M, D], the hidden state of each prompt's last token, from which all of its rollouts draw their first.
          real: bool [M], the row holds a prompt.
        """
        shape = (real.shape[0], self.group_size)
        full = (*shape, self.max_new_tokens)
        cache = self.model.empty_cache(*full, self.cache_dtype)
        return _Loop(
            t=jnp.zeros((), jnp.int32),
            hidden=self._constrain(jnp.broadcast_to(first[:, None], (*shape, first.shape[-1])), axis=0),
            last=jnp.full(shape, self.pad_id, jnp.int32),
            done=jnp.broadcast_to(~real[:, None], shape),
            finished=jnp.zeros(shape, bool),
            tokens=self._constrain(jnp.full(full, self.pad_id, jnp.int32), axis=0),
            mask=self._constrain(jnp.zeros(full, bool), axis=0),
            logps=self._constrain(jnp.zeros(full, jnp.float32), axis=0),
            cache=self._constrain(cache, axis=1),
        )

    def _draw(self, state: _Loop, logits: jax.Array, keys: jax.Array) -> _Loop:
        """Draws token `state.t` of every living row from logits [M, G, V] and writes it down."""
        with jax.named_scope("draw"):
            scores = self.scores(logits)
            noise = 0.0 if self.greedy else gumbel(keys, state.t, scores.shape[-1])
            token = jnp.argmax(scores + noise, axis=-1).astype(jnp.int32)
            logp = jnp.take_along_axis(jax.nn.log_softmax(scores), token[..., None], axis=-1)
        alive = ~state.done
        token = jnp.where(alive, token, self.pad_id)
        ends = alive & jnp.isin(token, jnp.asarray(self.eos_ids, jnp.int32))
        return state.replace(
            t=state.t + 1,
            last=token,
            done=state.done | ends,
            finished=state.finished | ends,
            tokens=_write(state.tokens, token, state.t),
            mask=_write(state.mask, alive, state.t),
            logps=_write(state.logps, jnp.where(alive, logp[..., 0], 0.0), state.t),
        )

    def scores(self, logits: jax.Array) -> jax.Array:
        """Logits [..., V] → those of the distribution drawn from: float32, banned ids at -inf, temperature, truncation.

        Masking comes before truncation, so that a banned id never takes one of the k places.
        """
        scores = jnp.where(self.banned, -jnp.inf, logits.astype(jnp.float32))
        scores = scores if self.greedy else scores / self.temperature
        scores = keep_top_k(scores, self.top_k) if self.top_k > 0 else scores
        return keep_top_p(scores, self.top_p) if self.top_p < 1.0 else scores

    def _constrain(self, tree: Any, *, axis: int) -> Any:
        """Splits `axis` (the prompt axis) of every leaf over the batch axes of the mesh; other axes stay free."""
        mesh = self.mesh
        if mesh is None:
            return tree
        free = PartitionSpec.UNCONSTRAINED

        def hold(x: jax.Array) -> jax.Array:
            spec = PartitionSpec(*(BATCH_AXES if i == axis else free for i in range(x.ndim)))
            return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

        return jax.tree.map(hold, tree)


# ------------------------------------------------------------------------------------------------------- randomness
def key_words(seed: int, *, purpose: int | str, step: int) -> np.ndarray:
    """(seed, purpose, step) as uint32 [3]: an array, so that a new step is no new program.

    A purpose given by name is its CRC-32, which, unlike `hash`, is the same in every process.
    """
    number = zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose
    for name, value in (("seed", seed), ("purpose", number), ("step", step)):
        if not 0 <= int(value) < 2**32:
            raise ValueError(f"sampler {name} is {value}, outside [0, 2**32): pass a value that fits 32 bits unsigned")
    return np.array([seed, number, step], np.uint32)


def noise_keys(words: jax.Array, *, prompt_id: jax.Array, occurrence: jax.Array, group_size: int) -> jax.Array:
    """Keys [M, G], one a rollout: fold-in of seed, purpose, step, prompt id, occurrence, group index, in this order.

    Args:
      words: uint32 [3] of `key_words`.
      prompt_id, occurrence: uint32 [M] of the batch.
    """
    shape = (prompt_id.shape[0], group_size)
    rows = jnp.stack([prompt_id, occurrence], axis=1)[:, None]
    members = jnp.arange(group_size, dtype=jnp.uint32)[None, :, None]
    parts = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (words[1:], rows, members)]

    def chain(parts: jax.Array) -> jax.Array:
        # A scan and not five calls: one threefry in the program, a third of its compile time.
        fold = lambda key, part: (jax.random.fold_in(key, part), None)  # noqa: E731
        return jax.lax.scan(fold, jax.random.key(words[0], impl=IMPL), parts)[0]

    return jax.vmap(jax.vmap(chain))(jnp.concatenate(parts, axis=-1))


def gumbel(keys: jax.Array, t: jax.Array, vocab: int) -> jax.Array:
    """Gumbel noise float32 [M, G, V] of completion token t for rollout keys [M, G]; bit-equal for any M and G."""
    draw = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), (vocab,), jnp.float32)))
    return draw(keys)


# ------------------------------------------------------------------------------------------------------- truncation
def keep_top_k(scores: jax.Array, k: int) -> jax.Array:
    """Scores [..., V] below the k-th largest become -inf; equals of the k-th stay."""
    kth = jax.lax.top_k(scores, min(k, scores.shape[-1]))[0][..., -1:]
    return jnp.where(scores < kth, -jnp.inf, scores)


def keep_top_p(scores: jax.Array, p: float) -> jax.Array:
    """Keeps the fewest likeliest ids whose probabilities reach p (Holtzman et al. 2020); the others become -inf."""
    ordered = jnp.sort(scores, axis=-1, descending=True)
    probs = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs  # mass of the likelier ones; 0 for the first, so one always stays
    smallest = jnp.min(jnp.where(before < p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scores < smallest, -jnp.inf, scores)


# ------------------------------------------------------------------------------------------------------- small parts
def last_real(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """Hidden state [M, D] of each prompt's last real token, of [M, S, D]; by the mask, wherever the padding is."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def _write(buffer: jax.Array, column: jax.Array, t: jax.Array) -> jax.Array:
    """buffer [M, G, T] with column t set; a slice update, which stays in place inside a loop's carry."""
    return jax.lax.dynamic_update_slice_in_dim(buffer, column[..., None].astype(buffer.dtype), t, axis=2)


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"sampler {name} is {value}; it must be at least 1")


def _check_distribution(temperature: float, *, top_k: int, top_p: float) -> None:
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"sampler temperature is {temperature}; it must be finite and at least 0 (0 is greedy)")
    if top_k < 0:
        raise ValueError(f"sampler top_k is {top_k}; it must be at least 1, or 0 for the whole vocabulary")
    if not 0 < top_p <= 1:
        raise ValueError(f"sampler top_p is {top_p}; it must be in (0, 1], 1 for the whole vocabulary")


def _check_ids(banned: np.ndarray, *, eos_ids: tuple[int, ...], pad_id: int) -> None:
    if banned.ndim != 1 or banned.dtype != np.bool_:
        raise ValueError(f"sampler banned is {banned.dtype} {list(banned.shape)}; it must be bool [V]")
    if banned.all():
        raise ValueError(f"sampler banned forbids all {banned.size} ids; at least one must stay")
    for name, value in (("pad_id", pad_id), *(("eos id", i) for i in eos_ids)):
        if not 0 <= value < banned.size:
            raise ValueError(f"sampler {name} {value} is outside the vocabulary of {banned.size}; check the tokenizer")
    if any(banned[i] for i in eos_ids):
        raise ValueError(f"sampler eos ids {eos_ids} include a banned one: a rollout could never end; unban it")


def _check_generator(impl: str) -> None:
    if impl != IMPL:
        raise ValueError(f"random generator {impl!r} draws other bits in another batch layout; use {IMPL!r}")
    if not jax.config.jax_threefry_partitionable:
        raise ValueError("jax_threefry_partitionable is off, which changes every draw; leave it at its default (on)")
