"""A table-driven bigram model, whose every probability is known exactly, and samplers on it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from fgrpo_jax.records import PromptBatch, VisionInputs
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling

V, S, T = 67, 5, 6
PAD, EOS, EOS2, PLACEHOLDER = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Bigram:
    """A mock with the methods of the real model: logits of the next token are a row of params['table'] [V, V].

    Decoding reads the row through the cache (a running sum of tokens), so that a cache that is not carried shows.
    """

    vocab: int = V
    compute_dtype: type = jnp.float32

    def encode(self, params, vision):
        return jnp.zeros((vision.patches.shape[0], 0, self.vocab))

    def prefix(self, params, prompts, features):
        hidden = params["table"][prompts.tokens]
        return hidden, (jnp.zeros((1, *prompts.tokens.shape, 1, 1)),)

    def decode(self, params, tokens, t, next_position, *, prefix, prefix_mask, cache, window=None, places=None):
        column = tokens[None, :, :, None, None, None] + 0.0
        cache = jax.lax.dynamic_update_slice_in_dim(cache, column, t, axis=3)
        seen = jnp.arange(cache.shape[3]) <= t
        total = (cache[0, :, :, :, 0, 0] * seen).sum(-1).astype(jnp.int32)
        return params["table"][tokens] + params["drift"][total % self.vocab], cache

    def reads(self, params):
        return jax.tree.map(lambda _: True, params)

    def apart(self, params):
        return None

    def enter(self, params, prefix, cache, *, apart=None):
        return prefix, cache

    def leave(self, cache, *, rows):
        return cache

    def empty_cache(self, m, g, t, dtype):
        return jnp.zeros((1, m, g, t, 1, 1), dtype)

    def logits(self, params, hidden):
        return hidden.astype(jnp.float32)

    def exact(
        self, params, first: int, completion: np.ndarray, *, temperature: float, banned: np.ndarray
    ) -> np.ndarray:
        """Log-probs [t] of a completion after a prompt ending in `first`, in float64 numpy."""
        table, drift = (np.asarray(params[k], np.float64) for k in ("table", "drift"))
        out, total, last = [], 0, first
        for i, token in enumerate(completion):
            logits = table[last] + (drift[total % self.vocab] if i else 0)
            logits = np.where(banned, -np.inf, logits) / temperature
            out.append(logits[token] - np.log(np.exp(logits).sum()))
            total, last = total + int(token), int(token)
        return np.array(out)


def batch(firsts, *, ids=None, occurrence=None, length=S, left=False) -> PromptBatch:
    """Prompts of different lengths whose last real token is `firsts[i]`; padding holds a loud wrong token."""
    m = len(firsts)
    tokens, mask = np.full((m, length), V - 1, np.int32), np.zeros((m, length), bool)
    for i, first in enumerate(firsts):
        n = 2 + i % (length - 2)
        where = slice(length - n, length) if left else slice(0, n)
        tokens[i, where], mask[i, where] = 5, True
        tokens[i, where.stop - 1] = first
    vision = VisionInputs(
        patches=np.zeros((m, 0, 4, 1176), np.float32),
        positions=np.zeros((m, 0, 4, 2), np.int32),
        windows=np.zeros((m, 0, 1, 64), np.int32),
        slots=np.zeros((m, 0, 4), np.int32),
        valid=np.zeros((m, 0, 4), bool),
    )
    return PromptBatch(
        tokens=tokens,
        mask=mask,
        positions=np.zeros((m, length, 3), np.int32),
        next_position=mask.sum(1).astype(np.int32),
        image_slot=np.full((m, length), -1, np.int32),
        prompt_id=np.asarray(range(100, 100 + m) if ids is None else ids, np.uint32),
        occurrence=np.asarray([0] * m if occurrence is None else occurrence, np.uint32),
        vision=vision,
    )


BANNED = np.arange(V) == PLACEHOLDER
BANNED[PAD] = True


QUICK = {"xla_backend_optimization_level": 0}  # these programs are compiled for longer than they run


def make(**kwargs) -> Sampler:
    defaults = {"eos_ids": (EOS, EOS2), "pad_id": PAD, "banned": BANNED}
    settings = sampling({"group_size": 8, "max_new_tokens": T}, kwargs)
    return Sampler(Bigram(), settings, **(defaults | {"compiler_options": QUICK} | kwargs))


def sampling(defaults: dict, kwargs: dict) -> Sampling:
    """Takes the sampler's settings out of keywords."""
    own = {field.name for field in dataclasses.fields(Sampling)} & set(kwargs)
    return Sampling(**{**defaults, **{name: kwargs.pop(name) for name in own}})


FIRSTS = [5, 6, 7, 8]
SAMPLER = make()


def table(seed: int = 0, eos: float = 0.0) -> dict:
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(V, V)).astype(np.float32)
    out[:, [EOS, EOS2]] += eos
    out[:, [PLACEHOLDER, PAD]] += 9.0  # what is banned is what the model would like best
    return {"table": jnp.asarray(out), "drift": jnp.asarray(rng.normal(size=(V, V)).astype(np.float32) * 0.5)}


def draw(sampler, params, prompts, *, seed=0, purpose="train", step=0):
    return jax.device_get(sampler.sample(params, prompts, seed=seed, purpose=purpose, step=step))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def pick(prompts, rows):
    return jax.tree.map(lambda x: x[rows], prompts)


# --------------------------------------------------------------------------------------------------- frequencies
def exact_probabilities(
    logits: np.ndarray,
    banned: np.ndarray,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> np.ndarray:
    """Probabilities float64 [V] of the distribution drawn from, written down once more and otherwise: by ranks."""
    scores = np.where(banned, -np.inf, logits.astype(np.float64) / temperature)
    order = np.argsort(-scores, kind="stable")
    kept = order[: top_k or len(order)]
    p = np.exp(scores[kept] - scores[kept[0]])
    p /= p.sum()
    kept = kept[: int(np.searchsorted(np.cumsum(p), top_p)) + 1] if top_p < 1 else kept
    kept = kept[: int((p[: len(kept)] >= min_p * p[0]).sum())]
    out = np.zeros(len(scores))
    out[kept] = p[: len(kept)] / p[: len(kept)].sum()
    return out


def chi_square(counts: np.ndarray, exact: np.ndarray) -> float:
    """p-value of the counts; tokens expected fewer than 5 times are one cell, and one that cannot come makes it 0."""
    if counts[exact == 0].any():
        return 0.0
    expected = exact * counts.sum()
    large = expected >= 5
    pooled = [counts[~large].sum()], [expected[~large].sum()]
    observed, wanted = (np.concatenate([a[large], rest]) for a, rest in zip((counts, expected), pooled, strict=True))
    if wanted[-1] < 5:  # too few even together: with the smallest of the others
        smallest = int(np.argmin(wanted[:-1]))
        observed[smallest], wanted[smallest] = observed[smallest] + observed[-1], wanted[smallest] + wanted[-1]
        observed, wanted = observed[:-1], wanted[:-1]
    return float(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)
