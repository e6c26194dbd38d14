"""What a token is drawn from: logits with ids forbidden, repeats penalised, a temperature, and a truncated tail.

Everything here acts on logits, before the softmax, so that log-probs are those of the distribution that was sampled.
The order is that of `generate` in transformers: repetition penalty, forbidden ids, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """How logits become the distribution that is sampled.

    A repetition penalty divides the logits of ids that stand in the prompt or the rollout where they are positive, and
    multiplies them where negative (Keskar et al. 2019).

    Raises:
      ValueError: a setting out of its range, with the range.
    """

    banned: np.ndarray  # bool [V], ids that are never drawn
    eos_ids: tuple[int, ...] = ()  # ids that end a rollout; only `min_new_tokens` needs to know them here
    temperature: float = 1.0  # divides the logits; 0 is greedy, whose log-probs are those at temperature 1
    top_k: int = 0  # only the k likeliest ids; 0 is all
    top_p: float = 1.0  # only the fewest likeliest ids whose probabilities reach p; 1.0 is all
    min_p: float = 0.0  # only ids at least this share as likely as the likeliest; 0.0 is all
    repetition_penalty: float = 1.0  # 1.0 is none
    min_new_tokens: int = 0  # EOS ids are forbidden before this many tokens

    def __post_init__(self) -> None:
        _check_banned(self.banned, self.eos_ids)
        bounds = {
            "temperature": (0 <= self.temperature < float("inf"), "finite and at least 0 (0 is greedy)"),
            "top_k": (self.top_k >= 0, "at least 1, or 0 for the whole vocabulary"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1], 1 for the whole vocabulary"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1], 0 for the whole vocabulary"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "positive, 1 for no penalty"),
            "min_new_tokens": (self.min_new_tokens >= 0, "at least 0"),
        }
        for name, (holds, bound) in bounds.items():
            if not holds:
                raise ValueError(f"sampler {name} is {getattr(self, name)}; it must be {bound}")

    @property
    def greedy(self) -> bool:
        """No noise: the likeliest token each time."""
        return self.temperature == 0

    @property
    def penalises(self) -> bool:
        """Whether ids of prompt and rollout count: `scores` then needs `seen`."""
        return self.repetition_penalty != 1.0

    @property
    def truncated(self) -> bool:
        """Other than softmax(logits / temperature) without banned ids, which is what a learner computes."""
        cut = self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0
        return cut or self.penalises or self.min_new_tokens > 0

    def scores(self, logits: jax.Array, *, index: jax.Array | int = 0, seen: jax.Array | None = None) -> jax.Array:
        """Logits [..., V] → float32 logits of the distribution drawn from, -inf where an id cannot be drawn.

        Args:
          index: int32 [...] or [], how many tokens the rollout already has.
          seen: bool [..., V], ids of prompt and rollout so far (`ids_of`); read when a penalty is set.
        """
        scores = logits.astype(jnp.float32)
        if self.penalises:
            scores = penalise(scores, seen, self.repetition_penalty)
        # Before truncation, so that an id that cannot be drawn never takes one of the k places.
        scores = jnp.where(self.banned, -jnp.inf, scores)
        if self.min_new_tokens:
            early = jnp.asarray(index)[..., None] < self.min_new_tokens
            scores = jnp.where(early & np.isin(np.arange(self.banned.size), self.eos_ids), -jnp.inf, scores)
        scores = scores if self.greedy else scores / self.temperature
        scores = keep_top_k(scores, self.top_k) if self.top_k > 0 else scores
        scores = keep_top_p(scores, self.top_p) if self.top_p < 1.0 else scores
        return keep_min_p(scores, self.min_p) if self.min_p > 0.0 else scores


def penalise(scores: jax.Array, seen: jax.Array | None, penalty: float) -> jax.Array:
    """Scores [..., V] with those of `seen` ids made less likely (more, for a penalty below 1)."""
    if seen is None:
        raise ValueError("a repetition penalty needs the ids of prompt and rollout; pass `seen`")
    return jnp.where(seen, jnp.where(scores > 0, scores / penalty, scores * penalty), scores)


def ids_of(tokens: jax.Array, mask: jax.Array, vocab: int) -> jax.Array:
    """bool [M, V]: which ids stand among tokens [M, S] where mask [M, S]."""
    rows = jnp.arange(tokens.shape[0])[:, None]
    return jnp.zeros((tokens.shape[0], vocab), bool).at[rows, tokens].max(mask)


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


def keep_min_p(scores: jax.Array, p: float) -> jax.Array:
    """Ids less than p times as likely as the likeliest become -inf (Nguyen et al. 2024)."""
    return jnp.where(scores < jnp.max(scores, axis=-1, keepdims=True) + np.log(p), -jnp.inf, scores)


def _check_banned(banned: np.ndarray, eos_ids: tuple[int, ...]) -> None:
    if banned.ndim != 1 or banned.dtype != np.bool_:
        raise ValueError(f"sampler banned is {banned.dtype} {list(banned.shape)}; it must be bool [V]")
    if banned.all():
        raise ValueError(f"sampler banned forbids all {banned.size} ids; at least one must stay")
    for index in eos_ids:
        if not 0 <= index < banned.size:
            raise ValueError(f"sampler eos id {index} is outside the vocabulary of {banned.size}; check the tokenizer")
    if any(banned[index] for index in eos_ids):
        raise ValueError(f"sampler eos ids {eos_ids} include a banned one: a rollout could never end; unban it")
