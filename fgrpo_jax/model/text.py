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

Turned = Callable[..., Part]
"""`attend_turned`, or a kernel that does the same."""

WINDOW = 256
"""Columns of the suffix cache that a decode step reads at least, or all of a shorter one (`windows`)."""


@struct.dataclass
class KV:
    """Rotated keys and values of every layer: [L, M, S, K, H] for prompts, [L, M, G, K, T, H] for completions.

    Completions have their columns beside the head's width, which is how a step's product wants to read them. Where
    layers run one by one keys are turned besides, [1, M, G, K, H, T] (`attend_turned`), and T is a chunk of columns.
    """

    k: jax.Array
    v: jax.Array


@struct.dataclass
class Unrolled:
    """What a decode step reads over and over, taken apart by layer before the loop (`TextModel.unroll`).

    A scan hands each layer its weights and prefix as slices of stacked arrays. A TPU reads a slice where it lies; XLA
    on CPU and GPU copies it out first, at every token. On CPU that was 17% of a step's time for weights and 19% for
    keys and values that had to be turned besides (25M parameters, 64 rows); on an H200 13 of 34 GB a token were such
    copies (3B, counted from the program). Taken apart they are copied once: prefixes a call, weights a rollout batch.
    """

    layers: tuple[Any, ...]  # L times the weights of a layer, in the structure of the stacked ones
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
            mixed, kept = attention(q, k, self.attn.v(normed))
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
                q, k, v = _written_once((self._groups(q), k, v)) if index is None else (self._groups(q), k, v)
                rows = q.reshape(-1, 1, *q.shape[2:])
                if index is None:
                    ours, new = _over_chunks(rows, cache, k, v, column=column, window=window, turned=turned)
                else:
                    ours, new = _over_layer(rows, cache, k, v, layer=index, column=column, window=window)
                if places is None:
                    theirs = _by_rows(over_prefix(q, shared), groups=q.shape[1])
                else:
                    over = functools.partial(over_prefix, shared=shared)
                    theirs = _at_places(over, q, places, prompts=len(prefix_mask))
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
                    x, one = layer(x, rotation, attention(one, None, shared), between=_written_once)
                    caches.append(one)
                return self.norm(x), tuple(caches)
            numbers = jnp.arange(self.config.num_layers)
            (x, cache), _ = layers.scan_layers(self.layers, body, (x, cache), xs=(numbers, prefix))
            return self.norm(x), cache


def windows(length: int) -> tuple[int, ...]:
    """Columns of a cache of this length that the steps of a decode loop read: WINDOW, then twice as many, at last all.

    Each is a number that the program knows: where it is found out on the way, a GPU asks the host at every token. Each
    is a loop of its own in the program, hence few; the last takes what is less than half of another one.
    """
    ends = [WINDOW]
    while 2 * length >= 3 * ends[-1]:
        ends.append(2 * ends[-1])
    return (*ends[:-1], length)


def _written_once(results: Any) -> Any:
    """What stands in memory before it is used: XLA on GPU would add the parts of a product up anew for each use."""
    return jax.lax.platform_dependent(results, cuda=jax.lax.optimization_barrier, default=lambda results: results)


def _over_chunks(
    q: jax.Array,
    chunks: tuple[KV, ...],
    k: jax.Array,
    v: jax.Array,
    *,
    column: jax.Array,
    window: int,
    turned: Turned,
) -> tuple[list[Part], tuple[KV, ...]]:
    """Attention of q [B, 1, K, Q, H], B = M·G, over the chunks of one layer's cache that lie within the window.

    Each is an array of its own, read whole: a part of a larger one would be copied out at every token. The last is
    written to at `column`, those before are full. Returns the parts, and all chunks.
    """
    ends = [0]
    for chunk in chunks:
        ends.append(ends[-1] + chunk.v.shape[-2])
    last = ends.index(window) - 1
    at = column - ends[last]
    new = KV(_write_row(chunks[last].k, k, at, axis=3), _write_row(chunks[last].v, v, at, axis=2))
    written = jnp.arange(new.v.shape[-2])[None] <= at
    parts = [turned(q, full.k, full.v, key_mask=None) for full in chunks[:last]]
    return [*parts, turned(q, new.k, new.v, key_mask=written)], (*chunks[:last], new, *chunks[last + 1 :])


def _over_layer(
    q: jax.Array, cache: KV, k: jax.Array, v: jax.Array, *, layer: jax.Array, column: jax.Array, window: int
) -> tuple[list[Part], KV]:
    """Attention of q [B, 1, K, Q, H], B = M·G, over layer `layer` of the cache [L, M, G, K, T, H]; and the cache.

    A window longer than WINDOW is read by blocks: a layer's keys are then never copied out whole.
    """
    new = KV(_write(cache.k, k, layer, column), _write(cache.v, v, layer, column))

    def read(start: jax.Array | int, size: int) -> tuple[jax.Array, jax.Array]:
        """Columns of keys and values [B, K, size, H]."""
        at, sizes = (layer, 0, 0, 0, start, 0), (1, *new.k.shape[1:4], size, new.k.shape[5])
        shape = (q.shape[0], new.k.shape[3], size, -1)
        return tuple(jax.lax.dynamic_slice(x, at, sizes).reshape(shape) for x in (new.k, new.v))

    if window <= WINDOW:
        return [attend_whole(q, *read(0, window), key_mask=jnp.arange(window)[None] <= column)], new

    def block(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The last block is moved back to end with the window; what it repeats of the one before is masked.
        start = jnp.minimum(number * WINDOW, window - WINDOW)
        k, v = (jnp.swapaxes(x, 1, 2) for x in read(start, WINDOW))
        at = start + jnp.arange(WINDOW)
        seen = (at <= column) & (at >= number * WINDOW)
        return k, v, jnp.broadcast_to(seen, (q.shape[0], WINDOW))

    return [attend_blocks(q, block, blocks=-(-window // WINDOW))], new


def _at_places(attention: Callable[[jax.Array], Part], q: jax.Array, places: Places, *, prompts: int) -> Part:
    """Attention of rows q [R, 1, K, Q, H] over the prefixes of their prompts.

    The rows are laid out a prompt at a time, so that a prefix is read once for all of them and never copied. XLA on CPU
    pays for each place, so there only as many are laid out a prompt as the fullest one has rows, in quarters of G. The
    others pay for each prefix read, and a GPU would ask the host which way to take.
    """
    group = places.row.size // prompts
    over: Any = functools.partial(_at_first_places, attention, places=places, prompts=prompts)

    def few(q: jax.Array) -> Part:
        widths = sorted({-(-group * quarters // 4) for quarters in range(1, 5)}, reverse=True)
        fits = sum(places.breadth <= width for width in widths[1:])
        return jax.lax.switch(fits, [functools.partial(over, width=width) for width in widths], q)

    return jax.lax.platform_dependent(q, cpu=few, default=functools.partial(over, width=group))


def _at_first_places(
    attention: Callable[[jax.Array], Part], q: jax.Array, *, places: Places, prompts: int, width: int
) -> Part:
    """The same at as many places of each prompt as `width`, in which all living rows are."""
    parts = places.row.shape[0]
    row = places.row.reshape(parts, prompts // parts, -1)
    group = row.shape[-1]
    laid = row[..., :width].reshape(parts, -1)
    part = attention(_pick(q.reshape(parts, -1, *q.shape[2:]), laid).reshape(prompts, -1, *q.shape[2:]))
    place = places.place // group * width + places.place % group
    out = _pick(part.out.reshape(parts, -1, *q.shape[2:]), place)
    lse = _pick(jnp.moveaxis(part.lse, 3, 1).reshape(parts, -1, *q.shape[2:4]), place)
    return Part(out.reshape(q.shape), lse.reshape(*q.shape[:1], *q.shape[2:4], 1))


def _pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x [parts, n, ...] at index [parts, k] -> [parts, k, ...]; an index beyond the end takes some row or other."""
    return jax.vmap(lambda x, index: jnp.take(x, index, axis=0, mode="clip"))(x, index)


def _write(cache: jax.Array, row: jax.Array, layer: jax.Array, t: jax.Array) -> jax.Array:
    """Put row [M, G, K, H] at (layer, :, :, :, t) of cache [L, M, G, K, T, H]."""
    zero = jnp.zeros((), jnp.int32)
    start = (layer.astype(jnp.int32), zero, zero, zero, jnp.asarray(t, jnp.int32), zero)
    return jax.lax.dynamic_update_slice(cache, row[None, :, :, :, None].astype(cache.dtype), start)


def _write_row(chunk: jax.Array, row: jax.Array, t: jax.Array, *, axis: int) -> jax.Array:
    """Put row [M, G, K, H] at column t, which is this axis, of a chunk of one layer [M·G, K, ...]."""
    row = jnp.expand_dims(row.reshape(chunk.shape[0], *row.shape[2:]), axis)
    return jax.lax.dynamic_update_slice_in_dim(chunk, row.astype(chunk.dtype), t, axis)


def _by_rows(theirs: Part, *, groups: int) -> Part:
    """The prefix part [M, G·T, K, Q, H] a row at a time, [M·G, T, K, Q, H]."""
    m, t = theirs.out.shape[0], theirs.out.shape[1] // groups
    lse = theirs.lse.reshape(m, *theirs.lse.shape[1:3], groups, t)
    lse = jnp.moveaxis(lse, 3, 1).reshape(m * groups, *lse.shape[1:3], t)
    return Part(theirs.out.reshape(m * groups, t, *theirs.out.shape[2:]), lse)
