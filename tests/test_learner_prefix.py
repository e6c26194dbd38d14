"""The shared prefix against what it replaces: every rollout in a row of its own, prompt and all, plain attention."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest

from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import collate
from fgrpo_jax.fgrpo import forward
from fgrpo_jax.model import attention, text
from fgrpo_jax.model.attention import Part
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import importer
from fgrpo_jax.world.examples import World

GROUP, WINDOW = 3, 24
BLOCK = 16
"""Keys attended to at a time in the shared pass: every prompt, and every completion, is several blocks long."""


def mixed_prompts(processor: Processor) -> Any:
    """Prompts with one image, two, one of another size, and none."""
    world = World("tiny")
    examples = [world.example(index) for index in (0, 2, 3, 5)]
    examples[1] = dataclasses.replace(examples[1], images=examples[1].images + examples[2].images)
    examples[3] = dataclasses.replace(examples[3], images=())
    limits: dict[str, Any] = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    encoded = [processor.encode(example, style="tiny", **limits) for example in examples]
    return collate(encoded, buckets=Buckets(prompt=(96,), patches=(64,)), pad_id=processor.pad_id)


@pytest.mark.slow
def test_shared_prefix_is_the_repeated_computation_on_mixed_images(tiny_hf: Path) -> None:
    """Log-probs and the gradient of every weight, tower included."""
    processor = Processor.load(tiny_hf)
    model = Model.create(processor.config)
    params, prompts = importer.load_hf(tiny_hf, model, dtype=jnp.float32), mixed_prompts(processor)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 200, (4, GROUP, WINDOW), dtype=np.int32)
    mask = np.arange(WINDOW) < rng.integers(2, WINDOW + 1, (4, GROUP))[..., None]
    weight, banned = jnp.asarray(rng.normal(size=mask.shape) * mask, jnp.float32), jnp.asarray(processor.banned)

    def loss(params: Any, logps_of: Any) -> Any:
        logps, entropy = logps_of(model, params, prompts, tokens, mask, banned)
        return jnp.sum(weight * (logps + 0.1 * entropy)), logps

    found = []
    blocks = {name: functools.partial(vars(attention)[name], block=BLOCK) for name in ("attend", "attend_shared")}
    for logps_of, patches in ((shared, blocks), (repeated, {"attend": plain})):
        with mock.patch.multiple(text, **patches):  # the model attends by these functions, while it is traced
            run = jax.value_and_grad(functools.partial(loss, logps_of=logps_of), has_aux=True)
            found.append(jax.device_get(jax.jit(run, compiler_options=policies.QUICK)(params)))
    ((_, ours), our_grads), ((_, theirs), their_grads) = found
    assert np.asarray(prompts.mask).sum(-1).min() >= 2 * BLOCK
    assert np.abs(ours - theirs)[mask].max() <= 1e-5 * np.abs(theirs[mask]).mean()
    for part in ("text", "visual"):
        apart = jax.tree.map(np.subtract, our_grads[part], their_grads[part])
        assert norm(apart) <= 1e-5 * norm(their_grads[part]), part


def norm(tree: Any) -> float:
    return float(np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(tree))))


def shared(model: Any, params: Any, prompts: Any, tokens: Any, mask: Any, banned: Any) -> Any:
    """(log-probs, entropies) [M, G, T] by the learner's own pass."""
    features = model.encode(params, prompts.vision)
    return forward.completion_logps(model, params, prompts, features, tokens, mask, temperature=0.9, banned=banned)


def repeated(model: Any, params: Any, prompts: Any, tokens: Any, mask: Any, banned: Any) -> Any:
    """The same with the prompt and its images once a rollout, and the whole of both in one row."""
    rows = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], axis=0), prompts)
    flat = tokens.reshape(-1, tokens.shape[-1])
    follow = rows.next_position[:, None] + jnp.arange(flat.shape[1])
    length = rows.tokens.shape[1]
    whole = rows.replace(
        tokens=jnp.concatenate([rows.tokens, flat], axis=1),
        mask=jnp.concatenate([rows.mask, mask.reshape(flat.shape)], axis=1),
        positions=jnp.concatenate([rows.positions, jnp.repeat(follow[..., None], 3, axis=-1)], axis=1),
        image_slot=jnp.concatenate([rows.image_slot, jnp.full(flat.shape, -1, jnp.int32)], axis=1),
    )
    hidden, _ = model.prefix(params, whole, model.encode(params, whole.vision))
    last = jnp.take_along_axis(hidden, (rows.mask.sum(-1) - 1)[:, None, None], axis=1)
    before = jnp.concatenate([last, hidden[:, length:-1]], axis=1)
    logits = jnp.where(banned, -1e30, model.logits(params, before) / 0.9)
    logps = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(logps) * jnp.where(banned, 0.0, logps), axis=-1)
    picked = jnp.take_along_axis(logps, flat[..., None], axis=-1)[..., 0]
    return tuple(jnp.where(mask, x.reshape(mask.shape), 0.0) for x in (picked, entropy))


def plain(q: Any, k: Any, v: Any, *, key_mask: Any, causal: bool = False) -> Any:
    """`attention.attend` as one softmax over all keys, differentiated as it stands."""
    seen = key_mask[:, None, None, None, :]
    if causal:
        seen = seen & jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    scores = jnp.where(seen, jnp.einsum("btkqh,bskh->bkqts", q, k) * q.shape[-1] ** -0.5, -1e30)
    weights = jnp.where(seen, jax.nn.softmax(scores), 0.0)
    return Part(jnp.einsum("bkqts,bskh->btkqh", weights, v), jax.nn.logsumexp(scores, axis=-1))
