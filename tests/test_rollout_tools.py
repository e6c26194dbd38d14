"""What the benchmark and check tools of the sampler compute by themselves, on cases worked out by hand."""

from __future__ import annotations

import bench_rollout
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bigram import chi_square, exact_probabilities

# ------------------------------------------------------------------------------------------------------ probabilities
LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
NONE = np.zeros(4, bool)


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ({"temperature": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.65}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"temperature": 1.0, "top_k": 2, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"temperature": 1.0, "min_p": 0.4}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_exact_probabilities(settings, want):
    np.testing.assert_allclose(exact_probabilities(LOGITS, NONE, **settings), want, atol=1e-12)


def test_banned_tokens_have_no_probability():
    banned = np.array([True, False, False, False])
    np.testing.assert_allclose(exact_probabilities(LOGITS, banned, temperature=1.0), [0, 0.5, 1 / 3, 1 / 6], atol=1e-12)


def test_chi_square_tells_a_right_sampler_from_a_wrong_one():
    exact = np.array([0.5, 0.3, 0.15, 0.0499, 1e-4, 0.0])
    counts = np.random.default_rng(0).multinomial(20_000, exact)
    assert chi_square(counts, exact) > 0.01
    shifted = exact * np.array([0.9, 1, 1, 1, 1, 1])
    assert chi_square(np.random.default_rng(0).multinomial(20_000, shifted / shifted.sum()), exact) < 1e-3
    counts[5] = 1  # a token that cannot come
    assert chi_square(counts, exact) == 0.0


# ----------------------------------------------------------------------------------------------------- the long tail
def test_the_long_tail_ends_where_the_first_token_says():
    """Every other rollout ends at 8 to 31 tokens, the others never."""

    class Flat:
        compute_dtype = jnp.float32

        def decode(self, params, tokens, t, next_position, *, cache):
            return jnp.zeros((*tokens.shape, 3)), cache

        def logits(self, params, hidden):
            return jnp.zeros((*hidden.shape[:-1], 64))

        def empty_cache(self, *sizes):
            return jnp.zeros(())

    model = bench_rollout.LongTail(Flat(), eos=5)
    step = jax.jit(lambda tokens, t, cache: model.decode(None, tokens, t, None, cache=cache))
    cache, lengths = model.empty_cache(2, 3, 40, jnp.float32), np.full((2, 3), 40)
    for t in range(39):
        hidden, cache = step(jnp.full((2, 3), t), t, cache)
        ends = np.asarray(model.logits(None, hidden)[..., 5] > 0)
        lengths = np.where(ends & (lengths == 40), t + 2, lengths)  # the token drawn from this is number t + 2
    assert lengths.tolist() == [[8, 40, 15], [40, 22, 40]]
