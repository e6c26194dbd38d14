"""The vision tower: patches to one merged token for each 2×2 patches.

Letters: B images (prompts times image slots), P patches, W windows, C tower width, N heads, H head_dim.

Patches stay in merge-block order throughout, which attention does not mind. Full-attention layers see all patches of
their own image; window layers gather rows into [B·W, 64] blocks and go back by the inverse index, so no [P, P] array
exists. Each image is a batch row of its own, so that images and video frames never see each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from fgrpo_jax.model import layers
from fgrpo_jax.model.attention import Keys
from fgrpo_jax.model.config import VisionConfig
from fgrpo_jax.model.kernels import Forms
from fgrpo_jax.model.layers import Axes, GatedMLP, Linear, Remat, RMSNorm
from fgrpo_jax.model.pixels import normalise
from fgrpo_jax.model.rope import Rotation, rotate, vision_rotation
from fgrpo_jax.records import VisionInputs

_EPS = 1e-6  # every norm of the tower; not in any config file

STAGES = ("patch_embed", "blocks", "merger")
"""The parts of the tower in the order they run, by the names of their weights."""

Mix = Callable[[jax.Array, Keys], jax.Array]
"""A form of `kernels.Forms` on the devices it runs on."""


class Attention(nnx.Module):
    def __init__(self, config: VisionConfig, *, gain: float):
        width = Axes((config.hidden_size,), ("vision_embed",))
        heads = Axes((config.num_heads, config.head_dim), ("vision_heads", "vision_head_dim"))
        three = Axes((3, *heads.sizes), ("qkv", *heads.names))
        self.qkv = Linear(width, three, hf="visual.blocks.{}.attn.qkv", bias=True)
        self.proj = Linear(heads, width, hf="visual.blocks.{}.attn.proj", bias=True, gain=gain)


class Block(nnx.Module):
    def __init__(self, config: VisionConfig):
        gain = (2 * config.depth) ** -0.5
        hf = "visual.blocks.{}"
        self.norm1 = RMSNorm(config.hidden_size, eps=_EPS, hf=hf + ".norm1")
        self.attn = Attention(config, gain=gain)
        self.norm2 = RMSNorm(config.hidden_size, eps=_EPS, hf=hf + ".norm2")
        width = Axes((config.hidden_size,), ("vision_embed",))
        hidden = Axes((config.intermediate_size,), ("vision_mlp",))
        self.mlp = GatedMLP(width, hidden, hf=hf + ".mlp", bias=True, gain=gain)

    def __call__(
        self,
        x: jax.Array,
        rotation: Rotation,
        inputs: VisionInputs,
        is_full: jax.Array,
        *,
        full: Mix,
        windows: Mix,
    ) -> jax.Array:
        """x [B, P, C]; `inputs` with the image axes merged to B; `is_full` a traced flag of this layer."""
        qkv = self.attn.qkv(self.norm1(x))
        q, k = rotate(qkv[:, :, 0], rotation), rotate(qkv[:, :, 1], rotation)
        # Only one branch runs, so window layers never pay for a full softmax.
        over_all = functools.partial(_full_attention, full)
        over_windows = functools.partial(_window_attention, windows)
        mixed = jax.lax.cond(is_full, over_all, over_windows, q, k, qkv[:, :, 2], inputs)
        x = layers.keep(x + self.attn.proj(mixed))
        return x + self.mlp(self.norm2(x))


class Merger(nnx.Module):
    def __init__(self, config: VisionConfig):
        merged = config.hidden_size * config.merge_unit
        hf = "visual.merger"
        self.norm = RMSNorm(config.hidden_size, eps=_EPS, hf=hf + ".ln_q")
        inner = Axes((merged,), ("merged_mlp",))
        self.fc1 = Linear(Axes((merged,), ("merged",)), inner, hf=hf + ".mlp.0", bias=True)
        out = Axes((config.out_hidden_size,), ("embed",))
        self.fc2 = Linear(inner, out, hf=hf + ".mlp.2", bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, P, C] -> [B, P/4, D]."""
        x = self.norm(x)
        x = x.reshape(x.shape[0], -1, self.fc1.inputs.total)
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Tower(nnx.Module):
    def __init__(self, config: VisionConfig):
        self.config = config
        patch = Axes((config.patch_width,), ("patch",))
        width = Axes((config.hidden_size,), ("vision_embed",))
        side = config.patch_size
        conv = (config.hidden_size, config.in_channels, config.temporal_patch_size, side, side)
        self.patch_embed = Linear(patch, width, hf="visual.patch_embed.proj", bias=False, hf_shape=conv)
        self.blocks = layers.stack(functools.partial(Block, config), config.depth)
        self.merger = Merger(config)

    def __call__(
        self,
        inputs: VisionInputs,
        *,
        dtype: jnp.dtype,
        stages: slice,
        attention: Forms,
        remat: Remat,
        mesh: Mesh | None = None,
        done: jax.Array | None = None,
    ) -> jax.Array:
        """Runs some of STAGES, in order.

        Args:
          dtype: of the activations.
          stages: which to run; the first takes the patches of `inputs`, the others what the one before gave.
          mesh: over whose batch axes M is split.
          done: what the stages before gave; None when there are none.

        Returns:
          After the last stage image tokens [M, I·F, D] in the natural (merge-block) order, before it [M, I, P, C]; rows
          of unused patches are arbitrary.
        """
        m, i, p = inputs.valid.shape
        flat = jax.tree.map(lambda x: x.reshape(m * i, *x.shape[2:]), inputs)
        run = {
            "patch_embed": self.patch_embed,
            "blocks": functools.partial(self._run_blocks, inputs=flat, attention=attention, remat=remat, mesh=mesh),
            "merger": self.merger,
        }
        x = normalise(flat.patches, flat.valid).astype(dtype) if done is None else done.reshape(m * i, p, -1)
        with jax.named_scope("vision"):
            for stage in STAGES[stages]:
                x = run[stage](x)
        merged = STAGES[-1] in STAGES[stages]
        return x.reshape(m, i * p // self.config.merge_unit, -1) if merged else x.reshape(m, i, p, -1)

    def _run_blocks(
        self, x: jax.Array, *, inputs: VisionInputs, attention: Forms, remat: Remat, mesh: Mesh | None
    ) -> jax.Array:
        config = self.config
        rotation = vision_rotation(inputs.positions, head_dim=config.head_dim, theta=config.rope_theta)
        is_full = jnp.asarray(np.isin(np.arange(config.depth), config.fullatt_block_indexes))
        full, windows = (functools.partial(form, mesh=mesh) for form in (attention.full, attention.windows))

        def body(block, x, is_full):
            return block(x, rotation, inputs, is_full, full=full, windows=windows), None

        return layers.scan_layers(self.blocks, body, x, xs=is_full, remat=remat, mesh=mesh)[0]


def _full_attention(mix: Mix, q: jax.Array, k: jax.Array, v: jax.Array, inputs: VisionInputs) -> jax.Array:
    return mix(q, Keys(k, v, inputs.valid))


def _window_attention(mix: Mix, q: jax.Array, k: jax.Array, v: jax.Array, inputs: VisionInputs) -> jax.Array:
    b, p, n, h = q.shape
    windows = inputs.windows
    packed = jnp.concatenate([x.reshape(b, p, n * h) for x in (q, k, v)], axis=-1)
    rows = _to_windows(packed, windows, inputs.slots, inputs.valid).reshape(*windows.shape, 3, n, h)
    q, k, v = (rows[..., i, :, :] for i in range(3))
    out = mix(q, Keys(k, v, windows < p)).reshape(b, -1, n * h)
    return _from_windows(out, windows, inputs.slots, inputs.valid).reshape(b, p, n, h)


def _gather(x: jax.Array, index: jax.Array, keep: jax.Array) -> jax.Array:
    """Rows of x [B, R, C] at index [B, r]; zero where not `keep`."""
    rows = jnp.take_along_axis(x, index[..., None], axis=1, mode="clip")
    return jnp.where(keep[..., None], rows, 0)


# The two moves are each other's transpose; saying so makes the backward pass a gather too (scatters are serial on CPU).
@jax.custom_vjp
def _to_windows(x: jax.Array, windows: jax.Array, slots: jax.Array, valid: jax.Array) -> jax.Array:
    """[B, P, C] -> [B, W·64, C], zero in empty slots."""
    index = windows.reshape(windows.shape[0], -1)
    return _gather(x, index, index < x.shape[1])


@jax.custom_vjp
def _from_windows(x: jax.Array, windows: jax.Array, slots: jax.Array, valid: jax.Array) -> jax.Array:
    """[B, W·64, C] -> [B, P, C], zero on patches that are not valid."""
    return _gather(x, slots, valid)


def _to_windows_fwd(x, windows, slots, valid):
    return _to_windows(x, windows, slots, valid), (windows, slots, valid)


def _to_windows_bwd(saved, gradient):
    return _from_windows(gradient, *saved), None, None, None


def _from_windows_fwd(x, windows, slots, valid):
    return _from_windows(x, windows, slots, valid), (windows, slots, valid)


def _from_windows_bwd(saved, gradient):
    windows, _, valid = saved
    index = windows.reshape(windows.shape[0], -1)
    return _gather(gradient, index, index < valid.shape[1]), None, None, None


_to_windows.defvjp(_to_windows_fwd, _to_windows_bwd)
_from_windows.defvjp(_from_windows_fwd, _from_windows_bwd)
