"""Attention of a decode step as one kernel for NVIDIA GPUs (Triton, by way of Pallas): `attend_turned` without scores.

As products and a softmax of XLA a layer writes its scores to memory, reads them twice, and writes and reads what comes
of them. Here a block of columns is scored, weighed and added up where it is: keys and values are read, and nothing else
that grows with their number. Blocks before the first and after the last column that is seen are not read.

A kernel is not to be trusted on a device that it was not tried on: `right` compares it there with what it stands for.

Letters: B batch, T queries, S columns, K kv heads, Q = heads per kv head, H head_dim.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.attention import Part, attend_turned, merge
from fgrpo_jax.model.config import TextConfig

COLUMNS = 64
"""Columns a block."""

PROGRAMS = 64
"""Of fewer heads than this two programs share the columns of each. A program has about 96 KB on their way, so that 64
should do for the bandwidth of a GPU (by count, not measured)."""

TOLERANCE = 0.02
"""Largest difference from `attend_turned` that passes, as a share of the largest number: bfloat16 keeps 8 bits."""


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    key_mask: jax.Array | None,
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> Part:
    """As `attend_turned`: q [B, T, K, Q, H] over keys [B, K, H, S] and values [B, K, S, H]; in 16 bits, H a power of 2.

    Args:
      key_mask: bool [B, S], or [1, S] for all; None where all are seen.
      mesh: over which B, and K where it divides it, are split: the compiler does not split a kernel.
      interpret: run it as jax operations, anywhere and slowly: for tests.
    """
    mask = jnp.ones((1, k.shape[-1]), bool) if key_mask is None else key_mask
    local = functools.partial(_attend, interpret=interpret)
    if mesh is None or mesh.size == 1:
        return Part(*local(q, k, v, mask))
    tensor = meshes.MESH_AXES[2]
    if k.shape[1] % mesh.shape[tensor]:
        return attend_turned(q, k, v, key_mask=key_mask)
    rows = PartitionSpec(meshes.BATCH_AXES, tensor)
    of_q = PartitionSpec(meshes.BATCH_AXES, None, tensor)
    of_mask = PartitionSpec(meshes.BATCH_AXES if mask.shape[0] > 1 else None)
    split = jax.shard_map(
        local, mesh=mesh, in_specs=(of_q, rows, rows, of_mask), out_specs=(of_q, rows), check_vma=False
    )
    return Part(*split(q, k, v, mask))


def able(config: TextConfig, *, device: Any, dtype: Any) -> bool:
    """Whether the kernel is made for a device, which need not be there, and for the heads of a model."""
    cuda = device.platform == "gpu" and "NVIDIA" in device.device_kind.upper()
    return cuda and jnp.dtype(dtype).itemsize == 2 and config.head_dim & (config.head_dim - 1) == 0


def right(config: TextConfig, *, device: Any, dtype: Any) -> bool:
    """Whether the kernel is right on a device; a warning where it is not. Compiles and runs small inputs."""
    try:
        with jax.default_device(device):
            worst = max(differences(config, dtype=dtype))
        trouble = "" if worst <= TOLERANCE else f"differs by {worst:.2g} of the largest number, more than {TOLERANCE}"
    except Exception as error:  # a compiler may fail in any way, and XLA's own form does as well
        trouble = f"fails: {type(error).__name__}: {str(error)[:300]}"
    if trouble:
        warnings.warn(f"decode kernel on {device.device_kind} {trouble}; XLA is used instead", stacklevel=2)
    return not trouble


def differences(config: TextConfig, *, dtype: Any, interpret: bool = False) -> list[float]:
    """Largest differences from `attend_turned` in float32 as a share of the largest number, output and log-sum-exp.

    The inputs hold a row that sees nothing, rows with holes, keys that do not fill a block, and columns that two
    programs share; what is masked is larger than what is not.
    """
    heads, width = config.num_kv_heads, config.head_dim
    group, found, rng = config.num_heads // heads, [], np.random.default_rng(0)
    for rows, t, size in ((3, 5, 2 * COLUMNS), (5, 1, COLUMNS + 36)):
        mask = rng.random((rows, size)) < 0.5
        mask[0], mask[1], mask[2, : size // 2] = False, np.arange(size) < COLUMNS // 2, False
        shapes = (rows, t, heads, group, width), (rows, heads, width, size), (rows, heads, size, width)
        q, k, v = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
        real = jnp.asarray(mask)[:, None, :, None]
        k, v = jnp.where(jnp.swapaxes(real, 2, 3), k, 3 * k), jnp.where(real, v, 3 * v)
        for seen in (jnp.asarray(mask), jnp.asarray(mask[1:2]), None):
            ours = jax.jit(functools.partial(attend, interpret=interpret))(q, k, v, key_mask=seen)
            with jax.default_matmul_precision("highest"):
                right = attend_turned(*(x.astype(jnp.float32) for x in (q, k, v)), key_mask=seen)
            for a, b in zip(ours, right, strict=True):
                a, b = (np.nan_to_num(np.asarray(x, np.float32), neginf=-1e6) for x in (a, b))
                found.append(float(np.abs(a - b).max() / max(np.abs(b[b > -1e6]).max(), 1e-6)))
    return [share if np.isfinite(share) else np.inf for share in found]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, *, interpret: bool) -> Any:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    b, t, heads, group, width = q.shape
    size = k.shape[-1]
    splits = 2 if b * heads < PROGRAMS and size % (2 * COLUMNS) == 0 else 1
    # The blocks that hold a column that is seen: [B or 1, 2], first and one behind the last.
    seen = jnp.stack([jnp.argmax(mask, axis=1), size - jnp.argmax(mask[:, ::-1], axis=1)], axis=1)
    seen = jnp.where(mask.any(axis=1, keepdims=True), seen, 0).astype(jnp.int32)
    of: Any = lambda *sizes: pl.BlockSpec((None, None, *sizes), lambda i, j, _: (i, j, 0, 0))  # noqa: E731
    shared: Any = lambda n: pl.BlockSpec((None, n), lambda i, *_: (i if mask.shape[0] > 1 else 0, 0))  # noqa: E731
    out, lse = pl.pallas_call(
        functools.partial(_kernel, scale=width**-0.5, span=size // splits),
        grid=(b, heads, splits),
        in_specs=[
            pl.BlockSpec((None, t, None, group, width), lambda i, j, _: (i, 0, j, 0, 0)),
            *(of(width, size), of(size, width), shared(size), shared(2)),
        ],
        out_specs=[
            pl.BlockSpec((None, None, t, None, group, width), lambda i, j, s: (s, i, 0, j, 0, 0)),
            pl.BlockSpec((None, None, None, group, t), lambda i, j, s: (s, i, j, 0, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((splits, b, t, heads, group, width), q.dtype),
            jax.ShapeDtypeStruct((splits, b, heads, group, t), jnp.float32),
        ],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="decode_attention",
    )(q, k, v, mask, seen)
    return (out[0], lse[0]) if splits == 1 else _whole(out, lse)


def _whole(out: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(out [B, T, K, Q, H], lse [B, K, Q, T]) of parts of the columns, [splits, ...] of each."""
    parts = [Part(*part) for part in zip(out, lse, strict=True)]
    top = jnp.max(lse, axis=0)
    total = jnp.sum(jnp.exp(lse - jnp.where(jnp.isneginf(top), 0.0, top)), axis=0)
    return merge(*parts), jnp.where(total == 0.0, -jnp.inf, top + jnp.log(jnp.where(total == 0.0, 1.0, total)))


def _kernel(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    mask_ref: Any,
    seen_ref: Any,
    out_ref: Any,
    lse_ref: Any,
    *,
    scale: float,
    span: int,
):
    """One head of one batch entry: q [T, Q, H] over columns `span` times the last grid index and on."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    (t, group, width), start = q_ref.shape, pl.program_id(2) * span
    rows = max(16, pl.next_power_of_2(t * group))  # what the tensor cores take
    row, column = jnp.arange(rows), jnp.arange(width)
    real = row < t * group
    at_q = row[:, None] // group, row[:, None] % group, column[None]
    filled = jnp.broadcast_to(real[:, None], (rows, width))
    q = triton.load(q_ref.at[at_q], mask=filled, other=0.0)

    def block(number: jax.Array, state: Any) -> Any:
        out, top, total = state
        at = number * COLUMNS + jnp.arange(COLUMNS)
        inside = (at >= start) & (at < start + span)
        held = jnp.broadcast_to(inside[None], (width, COLUMNS))
        k = triton.load(k_ref.at[column[:, None], at[None]], mask=held, other=0.0)
        v = triton.load(v_ref.at[at[:, None], column[None]], mask=held.T, other=0.0)
        seen = inside & triton.load(mask_ref.at[at], mask=inside, other=False)
        scores = jnp.dot(q, k, preferred_element_type=jnp.float32) * scale
        scores = jnp.where(seen[None, :], scores, -jnp.inf)
        largest = jnp.maximum(top, jnp.max(scores, axis=1))
        finite = jnp.where(largest == -jnp.inf, 0.0, largest)
        p, shrink = jnp.exp(scores - finite[:, None]), jnp.exp(top - finite)
        add = jnp.dot(p.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return out * shrink[:, None] + add, largest, total * shrink + jnp.sum(p, axis=1)

    empty = jnp.full((rows,), -jnp.inf, jnp.float32)
    first, behind = jnp.maximum(seen_ref[0], start), jnp.minimum(seen_ref[1], start + span)
    state = jnp.zeros((rows, width), jnp.float32), empty, jnp.zeros_like(empty)
    out, top, total = jax.lax.fori_loop(first // COLUMNS, (behind + COLUMNS - 1) // COLUMNS, block, state)
    safe = jnp.where(total == 0.0, 1.0, total)
    lse = jnp.where(total == 0.0, -jnp.inf, top + jnp.log(safe))
    triton.store(out_ref.at[at_q], (out / safe[:, None]).astype(out_ref.dtype), mask=filled)
    triton.store(lse_ref.at[row % group, row // group], lse, mask=real)
