"""Qwen2.5-VL as pure functions of a params dict.

`Model` is a frozen, hashable description; its methods take the params as an argument, so policy, reference and judge
are one model with different arguments. Letters as in `fgrpo_jax/records.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model import decode_kernel, layers, vocabulary
from fgrpo_jax.model.cache import KV, Places, Unrolled, windows
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.kernels import NAMED, XLA, Forms
from fgrpo_jax.model.layers import ParamSpec
from fgrpo_jax.model.packing import Packing, pick
from fgrpo_jax.model.text import Embedding, TextModel
from fgrpo_jax.model.vision import STAGES, Tower
from fgrpo_jax.records import PromptBatch, VisionInputs

Params = dict[str, Any]
"""Nested dict of arrays with the structure of `Model.specs`."""


class Qwen2_5VL(nnx.Module):
    """The whole model as modules; `Model` runs its parts."""

    def __init__(self, config: ModelConfig):
        self.visual = Tower(config.vision)
        self.text = TextModel(config.text)
        if not config.text.tie_word_embeddings:
            self.lm_head = Embedding(config.text, hf="lm_head")


def unrolls(mesh: Mesh | None) -> bool:
    """Whether the devices of a mesh, or those there are, decode faster with layers one by one (`Model.unrolled`)."""
    return meshes.platform(mesh) != "tpu"


@functools.lru_cache(maxsize=32)
def _declared(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Module structure and abstract weights; nothing is allocated."""
    return nnx.split(nnx.eval_shape(lambda: Qwen2_5VL(config)))


@dataclasses.dataclass(frozen=True)
class Model:
    """What to compute and how.

    Where `unrolled`, `decode` runs the layers one by one instead of scanning them (`cache.Unrolled`): a faster step on
    CPU and GPU (`unrolls`), and a program that compiles longer; on TPU a copy of the weights for nothing.
    """

    config: ModelConfig
    compute_dtype: Any = jnp.float32  # of activations; weights are cast to it where they are used
    remat: layers.Remat = "none"  # what the backward pass recomputes instead of keeping it
    unrolled: bool = False
    decode_kernel: bool = False  # unrolled layers attend by `decode_kernel` while decoding
    attention: Forms = XLA  # of prompts, completions and images; `decode` has its own
    mesh: Mesh | None = None  # over whose batch axes prompts are split; None: one device, or the compiler decides

    @classmethod
    def create(
        cls, config: ModelConfig, *, compute_dtype: Any = jnp.float32, attention: Any = XLA, **settings: Any
    ) -> Model:
        """The model with the dtype by name or type, and attention by name or as an object; other settings as above."""
        attention = NAMED[attention] if isinstance(attention, str) else attention
        return cls(config, jnp.dtype(compute_dtype), attention=attention, **settings)

    @property
    def specs(self) -> dict[str, Any]:
        """`ParamSpec` of every leaf, as a nested dict."""
        return nnx.traversals.unflatten_mapping(
            {
                path: ParamSpec(p.get_value().shape, *(p.get_metadata(name) for name in ("axes", "hf", "init")))
                for path, p in nnx.to_flat_state(_declared(self.config)[1])
            }
        )

    def abstract(self, dtype: Any = jnp.float32) -> Params:
        """`ShapeDtypeStruct` of every leaf."""
        return jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, dtype), self.specs)

    def init(self, key: jax.Array, *, dtype: Any = jnp.float32) -> Params:
        """Random params (projections fan-in normal, embeddings N(0, 0.02), biases 0, scales 1)."""
        leaves, structure = jax.tree.flatten(self.specs)
        return jax.tree.unflatten(structure, [value.astype(dtype) for value in layers.draw(key, leaves)])

    def modules(self, params: Params) -> Qwen2_5VL:
        """The modules with these weights in them, to run a part of the model by itself."""
        graph, state = _declared(self.config)
        return nnx.merge(graph, layers.fill(state, params))

    def encode(
        self,
        params: Params,
        vision: VisionInputs,
        *,
        done: jax.Array | None = None,
        first: int = 0,
        stop: int = len(STAGES),
    ) -> jax.Array:
        """Image tokens [M, I·F, D], F = P/4, in natural order; no token reads the rows of unused patches.

        Args:
          done: what a call with `stop=first` gave.
          first: number of the first of the tower's STAGES that is still to run.
          stop: number of the stage to stop before; the result is then [M, I, P, C], to go on from.
        """
        m, i, p = vision.valid.shape
        if m * i * p == 0:
            return jnp.zeros((m, 0, self.config.text.hidden_size), self.compute_dtype)
        tower = self.modules(params).visual
        return tower(vision, done=done, stages=slice(first, stop), dtype=self.compute_dtype, **self._means)

    def prefix(self, params: Params, prompts: PromptBatch, features: jax.Array) -> tuple[jax.Array, KV]:
        """Run the prompts: (hidden [M, S, D] after the final norm, KV [L, M, S, K, H]).

        `features` [M, I·F, D] feed the tokens whose `image_slot` is not negative.
        """
        text = self.modules(params).text
        x = meshes.looked_up(text.embed(prompts.tokens, dtype=self.compute_dtype), self.mesh)
        if features.shape[1]:
            rows = jnp.take_along_axis(features, jnp.maximum(prompts.image_slot, 0)[..., None], axis=1)
            x = jnp.where((prompts.image_slot >= 0)[..., None], rows.astype(x.dtype), x)
        return text.prefix(x, prompts.positions, prompts.mask, **self._means)

    def suffix(
        self,
        params: Params,
        tokens: jax.Array,
        mask: jax.Array,
        next_position: jax.Array,
        *,
        prefix: KV,
        prefix_mask: jax.Array,
    ) -> jax.Array:
        """Completions after a prefix that is computed and stored once a prompt: hidden [M, G, T, D].

        Args:
          tokens, mask: int32 and bool [M, G, T].
          next_position: int32 [M], M-RoPE position of completion index 0.
          prefix, prefix_mask: KV of `prefix()`, and the prompts' mask, bool [M, S].
        """
        text = self.modules(params).text
        x = meshes.looked_up(text.embed(tokens, dtype=self.compute_dtype), self.mesh)
        positions = next_position[:, None, None] + jnp.arange(tokens.shape[2])
        positions = jnp.broadcast_to(positions[..., None], (*tokens.shape, 3))
        return text.suffix(x, positions, mask, prefix=prefix, prefix_mask=prefix_mask, **self._means)

    def packed(
        self, params: Params, prompts: PromptBatch, features: jax.Array, tokens: jax.Array, packing: Packing
    ) -> jax.Array:
        """Prompts with completions [M, G, T], without padding: hidden [p, N, D] of the tokens of the stream."""
        text, (m, group, length) = self.modules(params).text, tokens.shape
        own = jnp.concatenate([prompts.tokens, tokens.reshape(m, -1)], axis=1)
        x = meshes.looked_up(text.embed(packing.ints(own), dtype=self.compute_dtype), self.mesh)
        if features.shape[1]:
            slots = jnp.pad(prompts.image_slot, ((0, 0), (0, group * length)), constant_values=-1)
            first = features.shape[1] * (jnp.arange(m) % (m // len(x)))  # of the part's features, its prompts' in a row
            slots = packing.ints(jnp.where(slots >= 0, first[:, None] + slots, -1))
            rows = pick(features.reshape(len(x), -1, features.shape[-1]), jnp.maximum(slots, 0))
            x = jnp.where((slots >= 0)[..., None], rows.astype(x.dtype), x)
        following = prompts.next_position[:, None] + jnp.tile(jnp.arange(length), group)
        following = jnp.broadcast_to(following[..., None], (*following.shape, 3))
        positions = packing.ints(jnp.concatenate([prompts.positions, following], axis=1))
        return text.packed(x, positions, packing, **self._means)

    def decode(
        self,
        params: Params,
        tokens: jax.Array,
        t: jax.Array,
        next_position: jax.Array,
        *,
        prefix: KV | Unrolled,
        prefix_mask: jax.Array,
        cache: Any,
        window: int | None = None,
        places: Places | None = None,
    ) -> tuple[jax.Array, Any]:
        """One step: tokens [M, G] at completion index t -> (hidden [M, G, D], cache as of `empty_cache`).

        Args:
          prefix, cache: KV of `prefix()` and what `empty_cache` gave, or both as `enter` made them for a loop of steps.
          window: columns of the cache that are read, one of `cache.windows`: the first that is more than t. None: all.
          places: where rows stand that are not those of [M, G] in order (`Places`); tokens and cache then have the
            shapes [R, 1] and [L, R, 1, K, Tmax, H], next_position [R].
        """
        text = self.modules(params).text
        x = text.embed(tokens, dtype=self.compute_dtype)
        t = jnp.asarray(t, jnp.int32)
        index = jnp.broadcast_to(t, tokens.shape)
        positions = jnp.broadcast_to((next_position[:, None] + index)[..., None], (*tokens.shape, 3))
        if window is None:
            chunks = (cache,) if isinstance(cache, KV) else cache[0]
            window = sum(chunk.v.shape[-2] for chunk in chunks)
        known: dict[str, Any] = {"prefix": prefix, "prefix_mask": prefix_mask, "cache": cache, "places": places}
        if self.decode_kernel:
            known["turned"] = functools.partial(decode_kernel.attend, mesh=self.mesh)
        return text.decode(x, t, positions, window=window, **known)

    def reads(self, params: Params) -> Any:
        """bool of every leaf: whether a decode step reads it as it is, and not by way of `apart`; nor the tower."""

        def read(path: Any, _: Any) -> bool:
            names = [entry.key for entry in path]
            return names[0] != "visual" and names[:2] != ["text", "layers"]

        return jax.tree_util.tree_map_with_path(read if self.unrolled else lambda *_: True, params)

    def apart(self, params: Params) -> tuple[Params, ...] | None:
        """The weights of each layer by themselves, in the compute dtype; None where layers are scanned."""
        return self.modules(params).text.apart(self.compute_dtype) if self.unrolled else None

    def enter(self, params: Params, prefix: KV, cache: Any, *, apart: Any = None) -> tuple[KV | Unrolled, Any]:
        """(prefix, cache) as a loop of `decode` steps takes them best; `leave` undoes it for the cache.

        Args:
          apart: what `apart` gave, once for many loops; None: it is made here.
        """
        if not self.unrolled:
            return prefix, cache
        # A reshape inside the loop would be fused with the write, and the whole cache written twice a step.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), cache)
        return self.modules(params).text.unroll(prefix, self.apart(params) if apart is None else apart), flat

    def leave(self, cache: Any, *, rows: tuple[int, int]) -> Any:
        """The cache of rows [A, W] after the loop in the shape of before."""
        return jax.tree.map(lambda x: x.reshape(1, *rows, *x.shape[1:]), cache) if self.unrolled else cache

    def empty_cache(self, prompts: int, group: int, length: int, dtype: Any) -> Any:
        """Zeros KV [L, M, G, K, Tmax, H] for `decode`; where `unrolled`, for each of L layers the chunks of its columns
        that end with `windows`, keys turned."""
        text = self.config.text
        layers, shape = text.num_layers, (prompts, group, text.num_kv_heads)
        if not self.unrolled:
            return KV(*(jnp.zeros((layers, *shape, length, text.head_dim), dtype) for _ in "kv"))
        ends = (0, *windows(length))
        sizes = [end - start for start, end in itertools.pairwise(ends)]

        def chunk(size: int) -> KV:
            k, v = (1, *shape, text.head_dim, size), (1, *shape, size, text.head_dim)
            return KV(jnp.zeros(k, dtype), jnp.zeros(v, dtype))

        return tuple(tuple(chunk(size) for size in sizes) for _ in range(layers))

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """float32 [..., V] of hidden [..., D]. Use `token_logps` where only some log-probs are needed."""
        table = self._output_table(params).astype(hidden.dtype)
        flat = hidden.reshape(-1, hidden.shape[-1])
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        out = jnp.einsum("nd,vd->nv", flat, table, preferred_element_type=wide)
        return out.reshape(*hidden.shape[:-1], table.shape[0])

    def token_logps(
        self,
        params: Params,
        hidden: jax.Array,
        targets: jax.Array,
        *,
        temperature: float | jax.Array = 1.0,
        banned: jax.Array | None = None,
        count: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probs and entropies of `vocabulary.token_logps`, of hidden [..., D] at the positions before the targets.

        The distribution is softmax(logits / temperature) with banned ids removed. A banned target gets a finite
        log-prob near -1e30: mask it, as any target that is not trained on.
        """
        table = self._output_table(params)
        device = jax.devices()[0] if self.mesh is None else self.mesh.devices.flat[0]
        settings = {"temperature": temperature, "banned": banned, "rows": vocabulary.rows(table.shape[0], device)}
        return vocabulary.token_logps(table, hidden, targets, **settings, count=count, mesh=self.mesh)

    @property
    def _means(self) -> dict[str, Any]:
        """How towers run, whatever they compute."""
        return {"attention": self.attention, "remat": self.remat, "mesh": self.mesh}

    def _output_table(self, params: Params) -> jax.Array:
        owner = params["text"]["embed"] if self.config.text.tie_word_embeddings else params["lm_head"]
        return owner["table"]
