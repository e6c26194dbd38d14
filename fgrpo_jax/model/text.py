"""The language model: one decoder layer, run three ways (prompt, shared-prefix completions, one token at a time).

Letters: M prompts, G rollouts a prompt, T completion tokens, S prompt tokens, L layers, D width, N heads, K kv heads,
Q = N/K, H head_dim, V vocabulary. The layer does not know which way it runs: it is handed the attention to use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from fgrpo_jax.model import layers
from fgrpo_jax.model.attention import Keys, Part, attend, attend_turned, merge
from fgrpo_jax.model.cache import (
    KV,
    Places,
    Turned,
    Unrolled,
    at_places,
    by_rows,
    over_chunks,
    over_layer,
    written_once,
)
from fgrpo_jax.model.config import TextConfig
from fgrpo_jax.model.kernels import Forms
from fgrpo_jax.model.layers import Axes, GatedMLP, HFTensor, Init, Linear, Remat, RMSNorm
from fgrpo_jax.model.packing import Packing
from fgrpo_jax.model.rope import Rotation, rotate, text_rotation

Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(q [..., T, N, H], k and v [..., T, K, H], all rotated) -> (mixed [..., T, N, H], whatever the caller keeps)."""


class Attention(nnx.Module):
    def __init__(self, config: TextConfig, *, gain: float):
        hf = "model.layers.{}.self_attn"
        width = Axes((config.hidden_size,), ("embed",))
        heads = Axes((config.num_heads, config.head_dim), ("heads", "head_dim"))
        kv_heads = Axes((config.num_kv_heads, config.head_dim), ("kv_heads", "head_dim"))
        self.q = Linear(width, heads, hf=hf + ".q_proj", bias=True)
        self.k = Linear(width, kv_heads, hf=hf + ".k_proj", bias=True)
        self.v = Linear(width, kv_heads, hf=hf + ".v_proj", bias=True)
        self.o = Linear(heads, width, hf=hf + ".o_proj", bias=False, gain=gain)


class Layer(nnx.Module):
    def __init__(self, config: TextConfig):
        gain = (2 * config.num_layers) ** -0.5
        hf = "model.layers.{}"
        eps = config.rms_norm_eps
        self.input_norm = RMSNorm(config.hidden_size, eps=eps, hf=hf + ".input_layernorm")
        self.attn = Attention(config, gain=gain)
        self.post_norm = RMSNorm(config.hidden_size, eps=eps, hf=hf + ".post_attention_layernorm")
        width = Axes((config.hidden_size,), ("embed",))
        hidden = Axes((config.intermediate_size,), ("mlp",))
        self.mlp = GatedMLP(width, hidden, hf=hf + ".mlp", bias=False, gain=gain)

    def __call__(
        self,
        x: jax.Array,
        rotation: Rotation,
        attention: Attend,
        *,
        between: Callable[[jax.Array], jax.Array] = lambda x: x,
    ) -> tuple[jax.Array, Any]:
        """x [..., T, D] with tables [..., T, H/2] -> (x after the layer, what `attention` keeps).

        `between` is done to x when attention is over and the MLP still to come.
        """
        with jax.named_scope("attention"):
            normed = self.input_norm(x)
            q, k = rotate(self.attn.q(normed), rotation), rotate(self.attn.k(normed), rotation)
            v = self.attn.v(normed)
            with jax.named_scope("attend"):
                mixed, kept = attention(q, k, v)
            x = between(layers.keep(x + self.attn.o(mixed)))
        with jax.named_scope("mlp"):
            return x + self.mlp(self.post_norm(x)), kept


class Embedding(nnx.Module):
    """A table [V, D]: token embeddings, or the output projection."""

    def __init__(self, config: TextConfig, *, hf: str):
        shape = (config.vocab_size, config.hidden_size)
        home = HFTensor(hf + ".weight", shape, transposed=False)
        self.table = layers.weight(shape, axes=("vocab", "embed"), hf=home, init=Init(std=0.02))

    def __call__(self, tokens: jax.Array, *, dtype: jnp.dtype) -> jax.Array:
        table = self.table[...]
        return (_rows(table, tokens) if table.dtype == jnp.bfloat16 else table[tokens]).astype(dtype)


@jax.custom_vjp
def _rows(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """table[tokens], whose gradient is summed in float32: bfloat16 would lose most of a frequent token's sum."""
    return table[tokens]


def _rows_fwd(table, tokens):
    return table[tokens], (table, tokens)


def _rows_bwd(saved, gradient):
    table, tokens = saved
    total = jnp.zeros(table.shape, jnp.float32).at[tokens].add(gradient.astype(jnp.float32))
    return total.astype(table.dtype), None


_rows.defvjp(_rows_fwd, _rows_bwd)


class TextModel(nnx.Module):
    def __init__(self, config: TextConfig):
        self.config = config
        self.embed = Embedding(config, hf="model.embed_tokens")
        self.layers = layers.stack(functools.partial(Layer, config), config.num_layers)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, hf="model.norm")

    def rotation(self, positions: jax.Array) -> Rotation:
        config = self.config
        sections = config.mrope_section
        return text_rotation(positions, head_dim=config.head_dim, theta=config.rope_theta, sections=sections)

    def _once(self, positions: jax.Array, column: jax.Array) -> Rotation:
        """`rotation` as a result that stands in memory: behind a branch, which is taken always.

        XLA on CPU would fuse sines and cosines into all layers that are not a loop, and compute them anew for each
        layer and head; an optimization barrier does not hold there. A GPU would ask the host about the branch.
        """

        def taken(positions: jax.Array) -> Rotation:
            none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(self.rotation, positions))
            return jax.lax.cond(column >= 0, self.rotation, lambda _: none, positions)

        return jax.lax.platform_dependent(positions, cpu=taken, default=self.rotation)

    def _groups(self, q: jax.Array) -> jax.Array:
        """[..., N, H] -> [..., K, Q, H]."""
        config = self.config
        return q.reshape(*q.shape[:-2], config.num_kv_heads, -1, config.head_dim)

    def prefix(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        *,
        attention: Forms,
        remat: Remat,
        mesh: Mesh | None = None,
    ) -> tuple[jax.Array, KV]:
        """Prompts: x [M, S, D], positions [M, S, 3], mask [M, S] -> (hidden [M, S, D] after the final norm, KV)."""
        rotation = self.rotation(positions)

        def causal(q, k, v):
            return attention.causal(q, Keys(k, v, mask), mesh=mesh), KV(k, v)

        def body(layer, x, _):
            return layer(x, rotation, causal)

        with jax.named_scope("prefix"):
            x, kv = layers.scan_layers(self.layers, body, x, remat=remat, mesh=mesh)
            return self.norm(x), kv

    def suffix(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        *,
        prefix: KV,
        prefix_mask: jax.Array,
        attention: Forms,
        remat: Remat,
        mesh: Mesh | None = None,
    ) -> jax.Array:
        """Completions x [M, G, T, D] that share the prefix of their prompt -> hidden [M, G, T, D]."""
        rotation = self.rotation(positions)

        def body(layer, x, shared):
            def both(q, k, v):
                theirs = Keys(shared.k, shared.v, prefix_mask)
                return attention.shared(q, Keys(k, v, mask), theirs, mesh=mesh), None

            return layer(x, rotation, both)

        with jax.named_scope("suffix"):
            x, _ = layers.scan_layers(self.layers, body, x, xs=prefix, remat=remat, mesh=mesh)
            return self.norm(x)

    def packed(
        self,
        x: jax.Array,
        positions: jax.Array,
        packing: Packing,
        *,
        attention: Forms,
        remat: Remat,
        mesh: Mesh | None = None,
    ) -> jax.Array:
        """Prompts and their completions as a stream: x [p, N, D], positions [p, N, 3] -> hidden [p, N, D]."""
        rotation, prompt = self.rotation(positions), packing.prompt

        def of_prompt(q, k, v, mask):
            """Of cells [p, S + G·T]: the prompt over itself, its completions over it and themselves."""
            theirs = Keys(k[:, :prompt], v[:, :prompt], mask[:, :prompt])
            first = attention.causal(q[:, :prompt], theirs, mesh=mesh)
            rest = (x[:, prompt:].reshape(len(x), packing.group, -1, *x.shape[2:]) for x in (q, k, v, mask))
            q_own, *own = rest
            out = attention.shared(q_own, Keys(*own), theirs, mesh=mesh)
            return jnp.concatenate([x.reshape(len(x), -1, *q.shape[2:]) for x in (first, out)], axis=1)

        def body(layer, x, _):
            return layer(x, rotation, lambda q, k, v: (packing.attend(of_prompt, q, k, v), None))

        with jax.named_scope("packed"):
            x, _ = layers.scan_layers(self.layers, body, x, remat=remat, mesh=mesh)
            return self.norm(x)

    def apart(self, dtype: Any) -> tuple[Any, ...]:
        """The weights of each layer by themselves, in this dtype."""
        stacked = nnx.traversals.unflatten_mapping(
            {path: weight.get_value() for path, weight in nnx.to_flat_state(nnx.split(self.layers)[1])}
        )
        return tuple(jax.tree.map(lambda x, i=i: x[i].astype(dtype), stacked) for i in range(self.config.num_layers))

    def unroll(self, prefix: KV, apart: tuple[Any, ...]) -> Unrolled:
        """Weights that `apart` took apart and the prefix [L, M, S, K, H], by layer, for `decode`."""
        return Unrolled(
            layers=apart,
            prefix=tuple(
                KV(jnp.moveaxis(prefix.k[i], 1, 3), jnp.swapaxes(prefix.v[i], 1, 2))
                for i in range(self.config.num_layers)
            ),
        )

    def decode(
        self,
        x: jax.Array,
        column: jax.Array,
        positions: jax.Array,
        *,
        prefix: KV | Unrolled,
        prefix_mask: jax.Array,
        cache: Any,
        window: int,
        places: Places | None = None,
        turned: Turned = attend_turned,
    ) -> tuple[jax.Array, Any]:
        """One token a rollout: x [M, G, D] into column `column` of the cache -> (hidden [M, G, D], cache).

        The cache is the carry of the layer scan and is written in place: as scanned input and output it was copied,
        at 3x the time (measured on CPU).

        Args:
          positions: int32 [M, G, 3].
          prefix: KV [L, M, S, K, H], or what `unroll` made of it.
          cache: KV [L, M, G, K, T, H]; where `prefix` is unrolled, for each layer the chunks of `windows`, k
            [M·G, K, H, T] and v [M·G, K, T, H]. Columns 0 to `column` hold tokens, this one's included.
          window: columns to read, one of `windows`; `column` is one of those by which it is longer than the one before.
          places: where the rows stand when they are not those of [M, G] in order.
          turned: how an unrolled layer attends.
        """
        rotation = self._once(positions, column) if isinstance(prefix, Unrolled) else self.rotation(positions)

        def over_prefix(q: jax.Array, shared: KV) -> Part:
            """Queries [M, T, K, Q, H] over the prefixes of a layer."""
            if isinstance(prefix, Unrolled):
                return turned(q, shared.k, shared.v, key_mask=prefix_mask)
            return attend(q, shared.k, shared.v, key_mask=prefix_mask, block=shared.k.shape[1])

        def attention(cache: Any, index: jax.Array | None, shared: KV) -> Attend:
            """Over layer `index` of the cache (None: over the chunks of one layer) and its prefix; keeps the cache."""

            def both(q, k, v):
                q, k, v = written_once((self._groups(q), k, v)) if index is None else (self._groups(q), k, v)
                rows = q.reshape(-1, 1, *q.shape[2:])
                if index is None:
                    ours, new = over_chunks(rows, cache, k, v, column=column, window=window, turned=turned)
                else:
                    ours, new = over_layer(rows, cache, k, v, layer=index, column=column, window=window)
                if places is None:
                    theirs = by_rows(over_prefix(q, shared), groups=q.shape[1])
                else:
                    over = functools.partial(over_prefix, shared=shared)
                    theirs = at_places(over, q, places, prompts=len(prefix_mask))
                return merge(theirs, *ours).reshape(*q.shape[:2], -1, q.shape[-1]), new

            return both

        def body(layer, carry, scanned):
            x, cache = carry
            return layer(x, rotation, attention(cache, *scanned)), None

        with jax.named_scope("decode"):
            if isinstance(prefix, Unrolled):
                graph, state = nnx.split(self.layers)
                caches = []
                for weights, shared, one in zip(prefix.layers, prefix.prefix, cache, strict=True):
                    layer = nnx.merge(graph, layers.fill(state, weights))
                    x, one = layer(x, rotation, attention(one, None, shared), between=written_once)
                    caches.append(one)
                return self.norm(x), tuple(caches)
            numbers = jnp.arange(self.config.num_layers)
            (x, cache), _ = layers.scan_layers(self.layers, body, (x, cache), xs=(numbers, prefix))
            return self.norm(x), cache
