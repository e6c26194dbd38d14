"""What the sampler's compiled programs hold, read from the compiled objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from checks import runs
from checks.record import Check, below
from checks.rollout_exactness import Policy


def checks(context: runs.Context) -> Iterator[Check]:
    """The decode program at two windows, the whole sampler at two group sizes; float32 cache."""
    import jax

    policy = Policy.load(context)
    small, large = (_decoding(policy, window) for window in (512, 2048))
    share = (large[0] - small[0]) / (large[1] - small[1])
    yield below("memory/growth of the decode step's temporary memory, share of the cache's growth", share, 0.1)
    peaks = {}
    for group in (2, 16):
        compiled = policy.sampler(group_size=group, max_new_tokens=4).compile(policy.params, policy.prompts)
        memory = compiled.memory_analysis()
        peaks[group] = memory.temp_size_in_bytes + memory.output_size_in_bytes
    prefix = _bytes(jax.eval_shape(lambda: policy.model.empty_cache(*_one_row(policy), "float32")))
    name = "memory/growth of the peak from 2 to 16 rollouts a prompt, over what 14 more prefixes a prompt would take"
    yield below(name, (peaks[16] - peaks[2]) / (14 * prefix), 0.5)


def _decoding(policy: Policy, window: int) -> tuple[int, int]:
    """(temporary bytes of the decode program, bytes of its cache)."""
    import jax

    from fgrpo_jax.rollout.noise import key_words

    sampler = policy.sampler(max_new_tokens=window, compact=True)
    words = key_words(0, purpose=0, step=0)
    batch, _ = jax.eval_shape(sampler._begin, policy.params, policy.prompts, None, words)
    compiled = sampler._programs["more"].lower(policy.params, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes, _bytes(batch.rows.cache)


def _one_row(policy: Policy) -> tuple[int, int, int]:
    """(prompts, 1, prompt tokens): a cache of this shape is as large as all prefixes."""
    prompts, length = policy.prompts.mask.shape
    return prompts, 1, length


def _bytes(tree: Any) -> int:
    import jax

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
