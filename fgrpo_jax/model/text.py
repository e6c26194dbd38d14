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
from flax import nnx, struct
from jax.sharding import Mesh

from fgrpo_jax.model import layers
from fgrpo_jax.model.attention import (
    Keys,
    Part,
    attend,
    attend_blocks,
    attend_shared,
    attend_turned,
    attend_whole,
    merge,
)
from fgrpo_jax.model.config import TextConfig
from fgrpo_jax.model.layers import Axes, GatedMLP, HFTensor, Init, Linear, Remat, RMSNorm
from fgrpo_jax.model.rope import Rotation, rotate, text_rotation

Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(q [..., T, N, H], k and v [..., T, K, H], all rotated) -> (mixed [..., T, N, H], whatever the caller keeps)."""

CACHE_BLOCK = 256
"""Columns of the suffix cache read at a time; a cache that fits is read whole."""


@struct.dataclass
class KV:
    """Rotated keys and values of every layer: [L, M, S, K, H] for prompts, [L, M, G, K, T, H] for completions.

    Completions have their columns beside the head's width, which is how a step's product wants to read them; where
    layers run one by one keys are turned besides, [1, M, G, K, H, T] (`attend_turned`).
    """

    k: jax.Array
    v: jax.Array


@struct.dataclass
class Unrolled:
    """What a decode step reads over and over, taken apart by layer before the loop (`TextModel.unroll`).

    A scan hands each layer its weights and prefix as slices of stacked arrays. TPU and GPU read a slice where it lies;
    XLA on CPU copies it out first, at every token: of a step's time that was 17% for weights and 19% for keys and
    values that had to be turned besides (25M parameters, 64 rows). Taken apart they are copied once a call.
    """

    layers: tuple[Any, ...]  # L states of a Layer
    prefix: tuple[KV, ...]  # L times k [M, K, H, S], v [M, K, S, H]


@struct.dataclass
class Places:
    """Which rollouts the rows [R] of a decode step are, when they are no longer M·G in order.

    A place is a number m·G + g. Rows and prompts come in as many equal parts as the batch is split into over devices,
    and both numbers count within a part, so that a row is never away from its prompt's prefix.
    """

    place: jax.Array  # int32 [parts, R/parts]    place of each row; some place or other for a row that has ended
    row: jax.Array  # int32 [parts, M·G/parts]  row at each place; R/parts where there is none
    breadth: jax.Array  # int32 []                  rows of the prompt that has most; they take its first places


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

    def __call__(self, x: jax.Array, rotation: Rotation, attention: Attend) -> tuple[jax.Array, Any]:
        """x [..., T, D] with tables [..., T, H/2] -> (x after the layer, what `attention` keeps)."""
        with jax.named_scope("attention"):
            normed = self.input_norm(x)
            q, k = rotate(self.attn.q(normed), rotation), rotate(self.attn.k(normed), rotation)
            v = self.attn.v(normed)
            with jax.named_scope("attend"):
                mixed, kept = attention(q, k, v)
            x = layers.keep(x + self.attn.o(mixed))
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
        layer and head; an optimization barrier does not hold there.
        """
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(self.rotation, positions))
        return jax.lax.cond(column >= 0, self.rotation, lambda _: none, positions)

    def _groups(self, q: jax.Array) -> jax.Array:
        """[..., N, H] -> [..., K, Q, H]."""
        config = self.config
        return q.reshape(*q.shape[:-2], config.num_kv_heads, -1, config.head_dim)

    def prefix(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, *, remat: Remat, mesh: Mesh | None = None
    ) -> tuple[jax.Array, KV]:
        """Prompts: x [M, S, D], positions [M, S, 3], mask [M, S] -> (hidden [M, S, D] after the final norm, KV)."""
        rotation = self.rotation(positions)

        def causal(q, k, v):
            return attend(self._groups(q), k, v, key_mask=mask, causal=True).out.reshape(q.shape), KV(k, v)

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
        remat: Remat,
        mesh: Mesh | None = None,
    ) -> jax.Array:
        """Completions x [M, G, T, D] that share the prefix of their prompt -> hidden [M, G, T, D]."""
        rotation = self.rotation(positions)

        def body(layer, x, shared):
            def both(q, k, v):
                theirs = Keys(shared.k, shared.v, prefix_mask)
                return attend_shared(self._groups(q), Keys(k, v, mask), theirs).reshape(q.shape), None

            return layer(x, rotation, both)

        with jax.named_scope("suffix"):
            x, _ = layers.scan_layers(self.layers, body, x, xs=prefix, remat=remat, mesh=mesh)
            return self.norm(x)

    def unroll(self, prefix: KV) -> Unrolled:
        """Weights and prefix [L, M, S, K, H] taken apart by layer, for `decode`."""
        _, stacked = nnx.split(self.layers)
        numbers = range(self.config.num_layers)
        return Unrolled(
            layers=tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in numbers),
            prefix=tuple(KV(jnp.moveaxis(prefix.k[i], 1, 3), jnp.swapaxes(prefix.v[i], 1, 2)) for i in numbers),
        )

    def decode(
        self,
        x: jax.Array,
        column: jax.Array,
        positions: jax.Array,
        *,
        written: jax.Array,
        prefix: KV | Unrolled,
        prefix_mask: jax.Array,
        cache: Any,
        places: Places | None = None,
    ) -> tuple[jax.Array, Any]:
        """One token a rollout: x [M, G, D] into column `column` of the cache -> (hidden [M, G, D], cache).

        The cache is the carry of the layer scan and is written in place: as scanned input and output it was copied,
        at 3x the time (measured on CPU). It is read up to `column` when longer than a block, a block at a time: a
        layer's keys are then never copied out whole, and columns not yet written cost nothing.

        Args:
          positions: int32 [M, G, 3].
          written: bool [M·G, T], columns of the cache that hold a token of the row.
          prefix: KV [L, M, S, K, H], or what `unroll` made of it.
          cache: KV [L, M, G, K, T, H]; where `prefix` is unrolled, L times k [M·G, K, H, T] and v [M·G, K, T, H].
          places: where the rows stand when they are not those of [M, G] in order.
        """
        rotation = self._once(positions, column) if isinstance(prefix, Unrolled) else self.rotation(positions)

        def over_prefix(q: jax.Array, shared: KV) -> Part:
            """Queries [M, T, K, Q, H] over the prefixes of a layer."""
            if isinstance(prefix, Unrolled):
                return attend_turned(q, shared.k, shared.v, key_mask=prefix_mask)
            return attend(q, shared.k, shared.v, key_mask=prefix_mask, block=shared.k.shape[1])

        def attention(cache: KV, index: jax.Array | None, shared: KV) -> Attend:
            """Over layer `index` of the cache (None: of one layer) and its prefix; keeps the cache."""

            def both(q, k, v):
                new = KV(_write(cache.k, k, index, column, axis=3), _write(cache.v, v, index, column, axis=2))
                q = self._groups(q)
                ours = _attend_cache(q.reshape(-1, 1, *q.shape[2:]), new, index, written=written)
                if places is None:
                    mixed = _merge_groups(over_prefix(q, shared), ours, groups=q.shape[1])
                else:
                    # XLA on CPU pays for each place, the others for each prefix read; and a GPU would ask the host.
                    narrow = isinstance(prefix, Unrolled)
                    over = functools.partial(over_prefix, shared=shared)
                    theirs = _at_places(over, q, places, prompts=len(prefix_mask), narrow=narrow)
                    mixed = merge(theirs, ours)
                return mixed.reshape(*q.shape[:2], -1, q.shape[-1]), new

            return both

        def body(layer, carry, scanned):
            x, cache = carry
            return layer(x, rotation, attention(cache, *scanned)), None

        with jax.named_scope("decode"):
            if isinstance(prefix, Unrolled):
                graph, _ = nnx.split(self.layers)
                caches = []
                for state, shared, one in zip(prefix.layers, prefix.prefix, cache, strict=True):
                    x, one = nnx.merge(graph, state)(x, rotation, attention(one, None, shared))
                    caches.append(one)
                return self.norm(x), tuple(caches)
            numbers = jnp.arange(self.config.num_layers)
            (x, cache), _ = layers.scan_layers(self.layers, body, (x, cache), xs=(numbers, prefix))
            return self.norm(x), cache


def _attend_cache(q: jax.Array, cache: KV, layer: jax.Array | None, *, written: jax.Array) -> Part:
    """Attention of q [B, 1, K, Q, H], B = M·G, over layer `layer` of the cache, or a cache of one layer (None)."""
    length = cache.v.shape[-2]

    def columns(cache: jax.Array, start: jax.Array | int, size: int, *, axis: int) -> jax.Array:
        """[B, K, size, H], or [B, K, H, size] where `axis` of one layer's columns is 3."""
        if layer is None:
            return jax.lax.dynamic_slice_in_dim(cache, start, size, axis=axis) if size < length else cache
        at, sizes = (layer, 0, 0, 0, start, 0), (1, *cache.shape[1:4], size, cache.shape[5])
        return jax.lax.dynamic_slice(cache, at, sizes).reshape(q.shape[0], cache.shape[3], size, -1)

    def both(start: jax.Array | int, size: int) -> tuple[jax.Array, jax.Array]:
        return columns(cache.k, start, size, axis=3), columns(cache.v, start, size, axis=2)

    if length <= CACHE_BLOCK:
        whole = attend_turned if layer is None else attend_whole
        return whole(q, *both(0, length), key_mask=written)

    def read(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The last block is moved back to end with the cache; what it repeats of the one before is masked.
        start = jnp.minimum(number * CACHE_BLOCK, length - CACHE_BLOCK)
        k, v = both(start, CACHE_BLOCK)
        k, v = jnp.moveaxis(k, 3, 1) if layer is None else jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
        mask = jax.lax.dynamic_slice_in_dim(written, start, CACHE_BLOCK, axis=1)
        return k, v, mask & (start + jnp.arange(CACHE_BLOCK) >= number * CACHE_BLOCK)

    last = jnp.max(jnp.where(written.any(axis=0), jnp.arange(length), 0))
    return attend_blocks(q, read, blocks=last // CACHE_BLOCK + 1)


def _at_places(
    attention: Callable[[jax.Array], Part], q: jax.Array, places: Places, *, prompts: int, narrow: bool
) -> Part:
    """Attention of rows q [R, 1, K, Q, H] over the prefixes of their prompts.

    The rows are laid out a prompt at a time, so that a prefix is read once for all of them and never copied.

    Args:
      narrow: lay out only as many places a prompt as the fullest one has rows, in quarters of G.
    """
    parts = places.row.shape[0]
    row = places.row.reshape(parts, prompts // parts, -1)
    group = row.shape[-1]

    def over(width: int) -> tuple[jax.Array, jax.Array]:
        laid = row[..., :width].reshape(parts, -1)
        part = attention(_pick(q.reshape(parts, -1, *q.shape[2:]), laid).reshape(prompts, -1, *q.shape[2:]))
        place = places.place // group * width + places.place % group
        out = _pick(part.out.reshape(parts, -1, *q.shape[2:]), place)
        lse = _pick(jnp.moveaxis(part.lse, 3, 1).reshape(parts, -1, *q.shape[2:4]), place)
        return out, lse

    widths = sorted({-(-group * quarters // 4) for quarters in range(1, 5)}, reverse=True) if narrow else [group]
    fits = sum(places.breadth <= width for width in widths[1:])
    out, lse = jax.lax.switch(fits, [functools.partial(over, width) for width in widths]) if narrow else over(group)
    return Part(out.reshape(q.shape), lse.reshape(*q.shape[:1], *q.shape[2:4], 1))


def _pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [parts, n, ...] at index [parts, k] -> [parts, k, ...]; an index beyond the end takes some row or other."""
    return jax.vmap(lambda x, index: jnp.take(x, index, axis=0, mode="clip"))(x, index)


def _write(cache: jax.Array, row: jax.Array, layer: jax.Array | None, t: jax.Array, *, axis: int) -> jax.Array:
    """Put row [M, G, K, H] at (layer, :, :, :, t) of cache [L, M, G, K, T, H]; or at t of `axis` of one layer's."""
    zero, t = jnp.zeros((), jnp.int32), jnp.asarray(t, jnp.int32)
    if layer is None:
        row = jnp.expand_dims(row.reshape(cache.shape[0], *row.shape[2:]), axis)
        return jax.lax.dynamic_update_slice_in_dim(cache, row.astype(cache.dtype), t, axis)
    start = (layer.astype(jnp.int32), zero, zero, zero, t, zero)
    return jax.lax.dynamic_update_slice(cache, row[None, :, :, :, None].astype(cache.dtype), start)


def _merge_groups(theirs: Part, ours: Part, *, groups: int) -> jax.Array:
    """Merge the prefix part [M, G·T, K, Q, H] with the own part [M·G, T, K, Q, H] -> [M·G, T, K, Q, H]."""
    b, t = ours.out.shape[:2]
    m = b // groups
    lse = theirs.lse.reshape(m, *theirs.lse.shape[1:3], groups, t)
    lse = jnp.moveaxis(lse, 3, 1).reshape(b, *lse.shape[1:3], t)
    return merge(Part(theirs.out.reshape(ours.out.shape), lse), ours)
