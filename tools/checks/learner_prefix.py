"""The shared prefix against what it replaces: every rollout in a row of its own, prompt and all, plain attention."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from checks import runs
from checks.record import Check, at_least, at_most
from checks.rollout_exactness import QUICK, Policy

PROMPTS, GROUP, WINDOW = 4, 3, 24
BLOCK = 16
"""Keys attended to at a time in the shared pass: every prompt, and every completion, is several blocks long."""


def checks(context: runs.Context) -> Iterator[Check]:
    """Log-probs and the gradient of every weight, tower included; images of mixed sizes, two of them, and none."""
    import jax
    import jax.numpy as jnp

    policy = Policy.load(context)
    rows = np.array([0, 2, 3, 5])  # one image, two, one of another size, none
    prompts = jax.tree.map(lambda x: np.asarray(x)[rows], policy.prompts)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 200, (PROMPTS, GROUP, WINDOW), dtype=np.int32)
    mask = np.arange(WINDOW) < rng.integers(2, WINDOW + 1, (PROMPTS, GROUP))[..., None]
    weight = jnp.asarray(rng.normal(size=mask.shape) * mask, jnp.float32)
    banned = jnp.asarray(policy.processor.banned)

    def loss(params: Any, logps_of: Any) -> Any:
        logps, entropy = logps_of(policy.model, params, prompts, tokens, mask, banned)
        return jnp.sum(weight * (logps + 0.1 * entropy)), logps

    found = []
    for logps_of, patches in ((shared, _blocks()), (repeated, {"attend": plain})):
        with _attending(patches):
            run = jax.jit(
                jax.value_and_grad(functools.partial(loss, logps_of=logps_of), has_aux=True), compiler_options=QUICK
            )
            found.append(jax.device_get(run(policy.params)))
    ((_, ours), our_grads), ((_, theirs), their_grads) = found
    scale = np.abs(theirs[mask]).mean()
    lengths = np.asarray(prompts.mask).sum(-1)
    yield at_least("prefix/blocks that the shortest prompt is long", float(lengths.min() / BLOCK), 2)
    apart = float(np.abs(ours - theirs)[mask].max() / scale)
    yield at_most("prefix/log-probs, worst difference over their mean size", apart, 1e-5)
    for part in ("text", "visual"):
        norm = lambda tree: float(np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(tree))))  # noqa: E731
        difference = norm(jax.tree.map(np.subtract, our_grads[part], their_grads[part])) / norm(their_grads[part])
        yield at_most(f"prefix/gradient of {part}, norm of the difference over its norm", difference, 1e-5)


def shared(model: Any, params: Any, prompts: Any, tokens: Any, mask: Any, banned: Any) -> Any:
    """(log-probs, entropies) [M, G, T] by the learner's own pass."""
    from fgrpo_jax.fgrpo import forward

    features = model.encode(params, prompts.vision)
    return forward.completion_logps(model, params, prompts, features, tokens, mask, temperature=0.9, banned=banned)


def repeated(model: Any, params: Any, prompts: Any, tokens: Any, mask: Any, banned: Any) -> Any:
    """The same with the prompt and its images once a rollout, and the whole of both in one row."""
    import jax
    import jax.numpy as jnp

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
    import jax
    import jax.numpy as jnp

    from fgrpo_jax.model.attention import Part

    seen = key_mask[:, None, None, None, :]
    if causal:
        seen = seen & jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    scores = jnp.where(seen, jnp.einsum("btkqh,bskh->bkqts", q, k) * q.shape[-1] ** -0.5, -1e30)
    weights = jnp.where(seen, jax.nn.softmax(scores), 0.0)
    return Part(jnp.einsum("bkqts,bskh->btkqh", weights, v), jax.nn.logsumexp(scores, axis=-1))


def _blocks() -> dict[str, Any]:
    from fgrpo_jax.model import attention

    return {name: functools.partial(getattr(attention, name), block=BLOCK) for name in ("attend", "attend_shared")}


def _attending(patches: dict[str, Any]) -> Any:
    """The model attends by these functions, while it is traced."""
    from fgrpo_jax.model import text

    return mock.patch.multiple(text, **patches)
