"""From prompts and completions to log-probs: the one path of learner, reference and supervised training.

The prompt (with its images) runs once, its G completions attend to it; nothing is repeated G times, and padding is
not computed (`model/packing.py`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model import packing
from fgrpo_jax.model.packing import Packing
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
    parts: int | None = None,
    room: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy of every completion token.

    Args:
      features: [M, I*F, D] merged image tokens of the prompts.
      tokens: int32 [M, G, T] completions.
      mask: bool [M, G, T] True on tokens that count.
      temperature: divides the logits before log-softmax, as the sampler does.
      banned: bool [V], ids that cannot be sampled; their logits are masked here as they are in the sampler.
      parts: equal parts of M that are packed each for itself; None for as many as devices share M.
      room: tokens that are computed for each part, at least those that it has; None for all of them, padding too.

    Returns:
      (logps, entropy), float32 [M, G, T]; 0 where masked.
    """
    parts = meshes.parts(model.mesh, len(mask)) if parts is None else parts
    packed = packing.pack(prompts.mask, mask, parts=parts, room=room)
    hidden = model.packed(params, prompts, features, tokens, packed)
    with jax.named_scope("vocabulary"):
        # The completion's first token is predicted by the last prompt token, token t by completion token t-1.
        final = prompts.mask.shape[1] - 1 - jnp.argmax(prompts.mask[:, ::-1], axis=1)  # wherever the padding is
        m, group, _ = tokens.shape
        place = packed.place.reshape(m, -1)
        last = jnp.take_along_axis(place, final[:, None], axis=1).reshape(parts, -1)  # none of an empty prompt
        first = jax.vmap(lambda x, i: jnp.take(x, i, axis=0, mode="fill", fill_value=0))(hidden, last)
        first = jnp.repeat(first, group, axis=1)  # [p, R·G, D]
        hidden = jnp.concatenate([hidden, first], axis=1)
        target, row, order, back = _predictions(packed, mask)
        ids = packing.pick(tokens.reshape(parts, -1), target)
        count = jnp.sum(mask.reshape(parts, -1), axis=1, dtype=jnp.int32)
        settings: dict[str, Any] = {"temperature": temperature, "banned": banned, "count": count}
        found = model.token_logps(params, packing.rows(hidden, order, back), ids, **settings)
        logps, entropy = (packing.rows(x, row, target).reshape(mask.shape) for x in found)
    return logps, entropy


def _predictions(packed: Packing, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Which of E = N + R·G hidden states, those of the stream and each prompt's last G times, predict which token.

    Args:
      mask: bool [M, G, T] of the tokens that are to be predicted.

    Returns:
      Of E rows, as many as there are such tokens of which count: the token (a number of R·G·T), the row of each token,
      the hidden state of each row and the row of each hidden state; the size of what they number where there is none.
    """
    parts, places, cells = packed.mask.shape
    stream, (group, length) = packed.cell.shape[1], mask.shape[1:]
    size, whole = stream + places * group, group * length
    target, row = packing.compact(mask.reshape(parts, -1), size)
    first = stream + jnp.arange(places * group).reshape(places, group, 1)
    before = packed.place.reshape(parts, places, cells)[..., packed.prompt :].reshape(parts, places, group, length)
    source = jnp.concatenate([jnp.broadcast_to(first, (parts, *first.shape)), before[..., :-1]], axis=-1)
    order = jnp.where(target < places * whole, packing.pick(source.reshape(parts, -1), target), size)
    column = packed.cell % cells - packed.prompt  # of the completions of its prompt
    follows = packed.cell // cells * whole + column + 1
    follows = jnp.where((column >= 0) & (packed.cell < places * cells), follows, places * whole)
    starts = jnp.broadcast_to(jnp.arange(places * group) * length, (parts, places * group))
    follows, row_or_none = (
        jnp.concatenate([follows, starts], axis=1),
        jnp.pad(row, ((0, 0), (0, 1)), constant_values=size),
    )
    back = packing.pick(row_or_none, follows)
    return target, row, order, back
