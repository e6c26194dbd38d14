"""From prompts and completions to log-probs: the one path of learner, reference and supervised training.

The prompt (with its images) runs once, its G completions attend to it; nothing is repeated G times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import PromptBatch


def completion_logps(
    model: Model,
    params: Any,
    prompts: PromptBatch,
    features: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    temperature: float,
    banned: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy of every completion token.

    Args:
      features: [M, I*F, D] merged image tokens of the prompts.
      tokens: int32 [M, G, T] completions.
      mask: bool [M, G, T] True on tokens that count.
      temperature: divides the logits before log-softmax, as the sampler does.
      banned: bool [V], ids that cannot be sampled; their logits are masked here as they are in the sampler.

    Returns:
      (logps, entropy), float32 [M, G, T]; 0 where masked.
    """
    hidden, prefix = model.prefix(params, prompts, features)
    # The completion's first token is predicted by the last prompt token, token t by completion token t-1.
    final = prompts.mask.shape[1] - 1 - jnp.argmax(prompts.mask[:, ::-1], axis=1)  # wherever the padding is
    last = jnp.take_along_axis(hidden, final[:, None, None], axis=1)  # [M, 1, D]
    first = jnp.broadcast_to(last[:, :, None], (*tokens.shape[:2], 1, last.shape[-1]))
    hidden = model.suffix(
        params, tokens[..., :-1], mask[..., :-1], prompts.next_position, prefix=prefix, prefix_mask=prompts.mask
    )
    hidden = jnp.concatenate([first, hidden], axis=2)  # [M, G, T, D]
    with jax.named_scope("vocabulary"):
        logps, entropy = model.token_logps(params, hidden, tokens, temperature=temperature, banned=banned)
    return jnp.where(mask, logps, 0.0), jnp.where(mask, entropy, 0.0)


def split(tree: Any, *, updates: int, micro_batches: int) -> Any:
    """[M, ...] leaves → [U, n, M/(U·n), ...], for a scan over updates and one over micro-batches.

    Row r goes to update r mod U, whatever the number of micro-batches, so the split of the work never changes what an
    update sees. Rows are dealt out, not cut, so that each micro-batch has rows on every device of the batch axes.
    """

    def one(x: jax.Array) -> jax.Array:
        rows = x.shape[0] // (updates * micro_batches)
        x = x.reshape(rows, micro_batches, updates, *x.shape[1:])
        return jnp.moveaxis(x, (2, 1, 0), (0, 1, 2))

    return jax.tree.map(one, tree)


def unsplit(x: jax.Array) -> jax.Array:
    """The inverse of `split` for one array: [U, n, rows, ...] → [M, ...]."""
    x = jnp.moveaxis(x, (0, 1, 2), (2, 1, 0))
    return x.reshape(-1, *x.shape[3:])


def accumulate(loss: Callable[..., tuple[jax.Array, Any]], params: Any, batches: Any) -> tuple[Any, jax.Array, Any]:
    """Sums loss and gradient over micro-batches by a scan.

    Args:
      loss: (params, batch) → (scalar already divided by the global normaliser, aux).
      batches: leaves [n, ...].

    Returns:
      (gradients, loss, aux stacked on axis 0).
    """
    # bfloat16 parameters have bfloat16 gradients, whose sum needs more than 8 bits.
    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)

    def body(carry: tuple[Any, jax.Array], batch: Any) -> tuple[tuple[Any, jax.Array], Any]:
        grads, total = carry
        (value, aux), new = jax.value_and_grad(loss, has_aux=True)(params, batch)
        return (jax.tree.map(jnp.add, grads, new), total + value), aux

    (grads, total), aux = jax.lax.scan(body, (zero, jnp.float32(0)), batches)
    return grads, total, aux
