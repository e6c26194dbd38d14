"""Drawing the same tokens again, all at once: what each was worth, and by how much it won.

Noise is bit-equal in every batch layout, but logits are not: rows of a matmul differ by some 1e-6 between batch sizes
and device counts. Two runs may therefore part where the two best perturbed scores lie closer than that. A comparison
of tokens counts such ties with the margins of this module.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.records import PromptBatch, Rollouts
from fgrpo_jax.rollout.distribution import ids_of
from fgrpo_jax.rollout.loop import last_real
from fgrpo_jax.rollout.noise import gumbel, key_words, noise_keys
from fgrpo_jax.rollout.sampler import Sampler

TIE = 1e-4
"""A margin below this is a tie: a hundred times the difference that another batch size makes."""


@struct.dataclass
class Replayed:
    """Rollouts recomputed from their tokens in one pass over the completions."""

    logps: jax.Array  # float32 [M, G, T]  log-prob of each token under the sampled distribution; 0 where masked
    margins: jax.Array  # float32 [M, G, T]  best perturbed score minus the second; inf where masked
    same: jax.Array  # bool [M, G, T]      the best perturbed score is that of the token drawn; True where masked


class Replay:
    """Recomputes rollouts of one sampler; compiled once a batch shape."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._jitted = jax.jit(self._run, compiler_options=sampler.compiler_options)

    def __call__(
        self, params: Any, prompts: PromptBatch, rollouts: Rollouts, *, seed: int, purpose: int | str, step: int
    ) -> Replayed:
        """Arguments as in `Sampler.sample`; `rollouts` are what it returned."""
        return self._jitted(params, prompts, rollouts, key_words(seed, purpose=purpose, step=step))

    def _run(self, params: Any, prompts: PromptBatch, rollouts: Rollouts, words: jax.Array) -> Replayed:
        sampler, tokens = self.sampler, rollouts.tokens
        hidden = self._hidden(params, prompts, rollouts)
        keys = noise_keys(words, prompt_id=prompts.prompt_id, occurrence=prompts.occurrence, group_size=tokens.shape[1])

        distribution, vocab = sampler.distribution, sampler.distribution.banned.size
        seen = None
        if distribution.penalises:
            seen = jnp.broadcast_to(ids_of(prompts.tokens, prompts.mask, vocab)[:, None], (*tokens.shape[:2], vocab))

        def column(seen: Any, t: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array, jax.Array]]:
            """One token of every rollout at a time: [M, G, V], as in the sampler, is the largest array."""
            scores = distribution.scores(sampler.model.logits(params, hidden[:, :, t]), index=t, seen=seen)
            noisy = scores if distribution.greedy else scores + gumbel(keys, t, vocab)
            best, index = jax.lax.top_k(noisy, 2)
            token = tokens[:, :, t]
            logp = jnp.take_along_axis(jax.nn.log_softmax(scores), token[..., None], axis=-1)[..., 0]
            seen = None if seen is None else seen | (token[..., None] == jnp.arange(vocab))
            return seen, (logp, best[..., 0] - best[..., 1], index[..., 0] == token)

        _, columns = jax.lax.scan(column, seen, jnp.arange(tokens.shape[2]))
        logps, margins, same = (jnp.moveaxis(x, 0, 2) for x in columns)
        mask = rollouts.mask
        return Replayed(logps=jnp.where(mask, logps, 0.0), margins=jnp.where(mask, margins, jnp.inf), same=same | ~mask)

    def _hidden(self, params: Any, prompts: PromptBatch, rollouts: Rollouts) -> jax.Array:
        """Hidden states [M, G, T, D] from which each token was drawn: the prompt's last, then those of the tokens."""
        model = self.sampler.model
        hidden, prefix = model.prefix(params, prompts, model.encode(params, prompts.vision))
        suffix = model.suffix(
            params, rollouts.tokens, rollouts.mask, prompts.next_position, prefix=prefix, prefix_mask=prompts.mask
        )
        first = jnp.broadcast_to(last_real(hidden, prompts.mask)[:, None, None], suffix[:, :, :1].shape)
        return jnp.concatenate([first, suffix[:, :, :-1]], axis=2)
