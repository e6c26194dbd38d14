"""Attention of the prompts, of the completions and of the tower, by one of three means behind one interface.

`Xla` is the reference: the block-wise form of `model.attention`, which runs everywhere. `Cudnn` and `Splash` are the
kernels of a GPU and of a TPU. They never write a score to memory, and they compute no block of keys that a pattern
rules out (splash; cuDNN where the pattern is plainly causal). `for_device` says which of them a run takes, and
`model.kernel_trial` whether the one it takes is right on the device at hand.

Letters: B rows of a batch, T queries, S keys, N heads, K kv heads, H head_dim; M prompts of G completions; W windows.

What kernels want is done here. Lengths are filled up to multiples of 128, which is also what keeps a run clear of known
faults of cuDNN (a gradient that is not a number at some other lengths, or at a single query). A completion's keys stand
before its prompt's in one row of keys, so no parts are merged: of the prompt, keys and values are repeated for each of
its G completions, which for a layer is a small part of what the queries take. A query that may see no key yields any
finite number; the reference yields 0. Kernels are not split by the compiler, so every device is handed its own prompts
and heads.

This is the one module that reaches into parts of jax that may change: the bound of jax in pyproject.toml holds them.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.attention import BLOCK, Keys, attend, attend_shared
from fgrpo_jax.model.layers import KEPT, keep

Name = Literal["xla", "cudnn", "splash"]

LANES = 128
"""Lengths are filled up to a multiple of this."""

_BLOCKS = (512, 256, 128)
"""Lengths that splash may take at a time; the first that divides the whole length is taken."""

_RELEASE = 91100
"""Of cuDNN, as its checks in jax want it: for every GPU that they know."""

_XLA_BLOCKS = {"tpu": 128}
"""Keys at a time by backend. At 512 a v5e writes the scores of a block to memory, at 128 it keeps them by itself."""


class Forms(Protocol):
    """What the model asks for; all results have the shape of q."""

    def causal(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None) -> jax.Array:
        """Prompts: q [B, T, N, H] and keys [B, T, K, H], of which query i sees those j <= i that are real."""
        ...

    def shared(self, q: jax.Array, own: Keys, shared: Keys, *, mesh: Mesh | None) -> jax.Array:
        """Completions q [M, G, T, N, H], causally over their own keys [M, G, T, K, H] and over all of [M, S, K, H]."""
        ...

    def full(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None) -> jax.Array:
        """Images: q [B, T, N, H] over all real keys [B, S, K, H]."""
        ...

    def windows(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None) -> jax.Array:
        """Windows of images: q and keys [B, W, s, N, H], each window for itself."""
        ...


@dataclasses.dataclass(frozen=True)
class Xla:
    """The reference; the compiler splits it over devices."""

    block: int = BLOCK  # keys at a time

    def causal(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        part = attend(_groups(q, keys.k), keys.k, keys.v, key_mask=keys.mask, causal=True, block=self.block)
        return part.out.reshape(q.shape)

    def shared(self, q: jax.Array, own: Keys, shared: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        return attend_shared(_groups(q, own.k), own, shared, block=self.block).reshape(q.shape)

    def full(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        part = attend(_groups(q, keys.k), keys.k, keys.v, key_mask=keys.mask, block=self.block)
        return part.out.reshape(q.shape)

    def windows(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        rows, *others = (x.reshape(-1, *x.shape[2:]) for x in (q, *keys))
        return self.full(rows, Keys(*others)).reshape(q.shape)


XLA = Xla()


class Pattern(NamedTuple):
    """Which keys a query may see by their places: causally the first `own` of them, and all the others.

    With `window`, instead, those of its own run of so many places.
    """

    own: int = 0
    window: int = 0

    def seen(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """bool [rows, columns] of some places."""
        if self.window:
            return rows[:, None] // self.window == columns[None] // self.window
        return (columns[None] >= self.own) | (columns[None] <= rows[:, None])


class _Kernel(abc.ABC):
    """A kernel brought to the interface: `run` is all that differs."""

    @abc.abstractmethod
    def run(self, q: jax.Array, keys: Keys, pattern: Pattern) -> jax.Array:
        """q [B, T, N, H] over keys [B, S, K, H] that are real and in the pattern; T and S are multiples of LANES."""

    def causal(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        def local(q: jax.Array, keys: Keys) -> jax.Array:
            filled = _fill(keys)
            return self.run(_whole(q), filled, Pattern(own=filled.k.shape[1]))[:, : q.shape[1]]

        return _on_devices(local, q, keys, mesh=mesh)

    def full(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        def local(q: jax.Array, keys: Keys) -> jax.Array:
            return self.run(_whole(q), _fill(keys), Pattern())[:, : q.shape[1]]

        return _on_devices(local, q, keys, mesh=mesh)

    def shared(self, q: jax.Array, own: Keys, shared: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        def local(q: jax.Array, own: Keys, shared: Keys) -> jax.Array:
            near = _fill(Keys(*(x.reshape(-1, *x.shape[2:]) for x in own)))
            far = (jnp.repeat(x, q.shape[1], axis=0) for x in _fill(shared))
            keys = Keys(*(jnp.concatenate(both, axis=1) for both in zip(near, far, strict=True)))
            rows = q.reshape(-1, *q.shape[2:])
            out = self.run(_whole(rows), keys, Pattern(own=near.k.shape[1]))
            return out[:, : q.shape[2]].reshape(q.shape)

        return _on_devices(local, q, own, shared, mesh=mesh)

    def windows(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        def local(q: jax.Array, keys: Keys) -> jax.Array:
            rows, *others = (x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (q, *keys))
            out = self.run(_whole(rows), _fill(Keys(*others)), Pattern(window=q.shape[2]))
            return out[:, : rows.shape[1]].reshape(q.shape)

        return _on_devices(local, q, keys, mesh=mesh)


@dataclasses.dataclass(frozen=True)
class Cudnn(_Kernel):
    """Flash attention of cuDNN, for bfloat16 and float16 on NVIDIA GPUs from Ampere on.

    It is told how many keys are real, not which: real keys stand before the others, as in every record of this package.
    A row of keys with a hole in it makes its results NaN, since a wrong number would pass unseen. Windows have holes at
    the edges of an image: there the keys of a query are told one by one, which of two windows in a row of LANES is
    a 40th of what queries, keys and values take.
    """

    def run(self, q: jax.Array, keys: Keys, pattern: Pattern) -> jax.Array:
        t, s, own = q.shape[1], keys.k.shape[1], pattern.own
        near, far = keys.mask[:, :own], keys.mask[:, own:]
        real = jnp.sum(near, axis=1) if own == s else own + jnp.sum(far, axis=1)
        lengths = jnp.maximum(real, 1).astype(jnp.int32)
        whole = _is_prefix(near) & _is_prefix(far)
        v = jnp.where(whole[:, None, None, None], keys.v, jnp.nan)
        bias = _bias(pattern.seen(np.arange(t), np.arange(s))[None], q.dtype) if 0 < own < s else None
        return _cudnn(q, keys.k, v, bias, lengths, own == s)

    def windows(self, q: jax.Array, keys: Keys, *, mesh: Mesh | None = None) -> jax.Array:
        if LANES % q.shape[2]:
            return XLA.windows(q, keys, mesh=mesh)
        places = np.arange(LANES)
        beside, itself = Pattern(window=q.shape[2]).seen(places, places), np.eye(LANES, dtype=bool)

        def local(q: jax.Array, keys: Keys) -> jax.Array:
            flat: list[Any] = [_whole(x.reshape(x.shape[0], -1, *x.shape[3:])) for x in (q, *keys)]
            rows, k, v, mask = (x.reshape(-1, LANES, *x.shape[2:]) for x in flat)
            bias = _bias(beside & (mask[:, None] | itself), q.dtype)  # an empty slot sees itself: its result is finite
            lengths = jnp.full(len(rows), LANES, jnp.int32)
            out: Any = _cudnn(rows, k, v, bias, lengths, False)
            return out.reshape(flat[0].shape)[:, : q.shape[1] * q.shape[2]].reshape(q.shape)

        return _on_devices(local, q, keys, mesh=mesh)


@dataclasses.dataclass(frozen=True)
class Splash(_Kernel):
    """Splash attention, the Pallas kernel of jax for TPUs. It skips the blocks of keys that the pattern rules out."""

    interpret: bool = False  # run it as jax operations, anywhere and slowly: for tests

    def run(self, q: jax.Array, keys: Keys, pattern: Pattern) -> jax.Array:
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        lengths = q.shape[1], keys.k.shape[1]

        class Seen(masks.Mask):
            """The pattern as blocks of it are asked for; the whole of a long one would be gigabytes."""

            @property
            def shape(self) -> tuple[int, int]:
                return lengths

            def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
                rows, columns = (np.arange(*one.indices(size)) for one, size in zip(index, lengths, strict=True))
                return np.broadcast_to(pattern.seen(rows, columns), (rows.size, columns.size))

        rows, columns = (next(block for block in _BLOCKS if length % block == 0) for length in lengths)
        sizes: dict[str, Any] = {"block_q": rows, "block_q_dkv": rows, "block_q_dq": rows}
        sizes |= dict.fromkeys(("block_kv", "block_kv_compute", "block_kv_dkv", "block_kv_dq"), columns)
        kernel: Any = splash.make_splash_mha(
            masks.MultiHeadMask([Seen()] * q.shape[2]),
            block_sizes=splash.BlockSizes(**sizes, block_kv_dkv_compute=columns),
            head_shards=1,
            q_seq_shards=1,
            residual_checkpoint_name=KEPT,
            interpret=self.interpret,
        )

        def one(row: tuple[jax.Array, Keys]) -> jax.Array:
            q, (k, v, mask) = row
            ids = splash.SegmentIds(jnp.ones(len(q), jnp.int32), mask.astype(jnp.int32))
            turned = (jnp.swapaxes(x, 0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
            return jnp.swapaxes(kernel(*turned, segment_ids=ids), 0, 1)

        # Row by row: what the kernel writes of one (a log-sum-exp 128 times over) then stays near the core on a v5e.
        return jax.lax.map(one, (q, keys))


NAMED: dict[str, Forms] = {"xla": XLA, "cudnn": Cudnn(), "splash": Splash()}


def reference(backend: str) -> Xla:
    """The XLA form with as many keys at a time as suit a backend."""
    return Xla(_XLA_BLOCKS.get(backend, BLOCK))


def for_device(setting: Name | Literal["auto"], *, device: Any, dtype: Any) -> Forms:
    """The attention that a setting means on a device, for activations of a dtype.

    Raises:
      ValueError: a kernel by name that the device or the dtype cannot have.
    """
    platform, narrow = device.platform, jnp.dtype(dtype).itemsize == 2
    cuda = platform == "gpu" and "NVIDIA" in device.device_kind.upper()
    able = {"xla": True, "cudnn": cuda and narrow, "splash": platform == "tpu"}
    chosen = next(name for name in ("cudnn", "splash", "xla") if able[name]) if setting == "auto" else setting
    if not able[chosen]:
        needs = {"cudnn": "an NVIDIA GPU and model.compute_dtype='bfloat16'", "splash": "a TPU"}
        raise ValueError(
            f"config.model.attention='{chosen}' needs {needs[chosen]}, but this is {device.device_kind} ({platform}) "
            f"and model.compute_dtype='{jnp.dtype(dtype).name}'; choose 'auto'"
        )
    return reference(platform) if chosen == "xla" else NAMED[chosen]


# ---------------------------------------------------------------------------------------------------------- to a kernel
def _groups(q: jax.Array, k: jax.Array) -> jax.Array:
    """q [..., N, H] -> [..., K, Q, H]."""
    return q.reshape(*q.shape[:-2], k.shape[-2], -1, q.shape[-1])


def _whole(x: jax.Array) -> jax.Array:
    """x [B, T, ...] with zeros after it up to a multiple of LANES."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % LANES), *[(0, 0)] * (x.ndim - 2)))


def _fill(keys: Keys) -> Keys:
    return Keys(*(_whole(x) for x in keys))


def _is_prefix(mask: jax.Array) -> jax.Array:
    """bool [B]: mask [B, S] has no True after a False."""
    return jnp.all(mask[:, 1:] <= mask[:, :-1], axis=1)


def _on_devices(f: Callable[..., jax.Array], q: jax.Array, *sets: Keys, mesh: Mesh | None) -> jax.Array:
    """f(q, *sets) with the batch, and the heads where they divide, split over the devices of the mesh.

    Where a device has some of the heads of several kv heads, it takes for each head the keys that belong to it.
    """
    # Kept as they come, keys of prompts not yet repeated, so that no product is made twice for what a kernel is given.
    q, sets = keep(q), tuple(Keys(keep(keys.k), keep(keys.v), keys.mask) for keys in sets)
    if mesh is None or mesh.size == 1:
        return f(q, *sets)
    batch = meshes.BATCH_AXES if q.shape[0] % meshes.batch_size(mesh) == 0 else None
    parts, heads, kv_heads = mesh.shape[meshes.HEAD_AXIS], q.shape[-2], sets[0].k.shape[-2]
    split = parts > 1 and heads % parts == 0
    both = split and kv_heads % parts == 0

    def local(q: jax.Array, *sets: Keys) -> jax.Array:
        if split and not both:
            mine = jax.lax.axis_index(meshes.HEAD_AXIS) * q.shape[-2] + jnp.arange(q.shape[-2])
            take = functools.partial(jnp.take, indices=mine * kv_heads // heads, axis=-2)
            sets = tuple(Keys(take(keys.k), take(keys.v), keys.mask) for keys in sets)
        return f(q, *sets)

    def spec(x: jax.Array, by_heads: bool) -> PartitionSpec:
        return PartitionSpec(batch, *[None] * (x.ndim - 3), meshes.HEAD_AXIS if by_heads else None)

    of_sets = [Keys(spec(keys.k, both), spec(keys.v, both), PartitionSpec(batch)) for keys in sets]  # type: ignore[arg-type]
    out = spec(q, split)
    return jax.shard_map(local, mesh=mesh, in_specs=(out, *of_sets), out_specs=out, check_vma=False)(q, *sets)


# ---------------------------------------------------------------------------------------------------------------- cuDNN
def _bias(seen: Any, dtype: Any) -> jax.Array:
    """[B, 1, T, S] to add to scores, of bool [B, T, S]. cuDNN subtracts from it: no infinity, nor the least number."""
    return jnp.where(seen, jnp.zeros((), dtype), jnp.asarray(-(2.0**40), dtype))[:, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _cudnn(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None, lengths: jax.Array, causal: bool
) -> jax.Array:
    """cuDNN's softmax of q [B, T, N, H] over the first `lengths` [B] keys [B, S, K, H], `bias` [B or 1, 1, T, S] added.

    jax has a gradient of its own for it, but it computes one for the bias too, and its results bear no name by which
    `layers.Remat` could keep them.
    """
    return _cudnn_fwd(q, k, v, bias, lengths, causal)[0]


def _call(q: jax.Array, k: jax.Array, v: jax.Array, bias: Any, lengths: jax.Array, causal: bool) -> tuple[Any, ...]:
    """(jax's module for cuDNN, the arrays that its rules take, their settings)."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    none, has_bias, bias_gradient = jnp.zeros(0, q.dtype), bias is not None, False
    rows = jnp.full_like(lengths, q.shape[1])
    arrays = (q, k, v, none if bias is None else bias, rows, lengths, none, none, none, none)
    kind = fused.MaskType.PADDING_CAUSAL if causal else fused.MaskType.PADDING
    layout, seed, dropout, window = fused.AttentionLayout.BTNH.value, 0, 0.0, None
    return fused, arrays, (q.shape[-1] ** -0.5, seed, dropout, (has_bias, bias_gradient), kind, layout, window)


def _cudnn_fwd(q, k, v, bias, lengths, causal):
    # No library is asked for its release: programs are compiled where there is none, and the trial looks at the rest.
    fused, arrays, settings = _call(q, k, v, bias, lengths, causal)
    (out, lse), _ = fused._dot_product_attention_fwd_rule(*arrays, *settings, _RELEASE, True)
    out, lse = keep(out), keep(lse)
    return out, (q, k, v, bias, lengths, out, lse)


def _cudnn_bwd(causal, saved, gradient):
    q, k, v, bias, lengths, out, lse = saved
    fused, arrays, settings = _call(q, k, v, bias, lengths, causal)
    known = (*arrays, lse, out)
    g_q, g_k, g_v, *_ = fused._dot_product_attention_bwd_rule(*settings, False, True, known, (gradient,))
    return g_q, g_k, g_v, None, None


_cudnn.defvjp(_cudnn_fwd, _cudnn_bwd)
