"""The reference for parity tests: a tiny random Qwen2.5-VL of `transformers`, and inputs for it and for us.

The reference gets its inputs by hand (token ids, pixel values, grids, token types); ours are built from the same
numbers with window indices and patch positions taken from transformers, so that these tests depend on no data code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.rope import mrope_positions
from fgrpo_jax.records import PromptBatch, VisionInputs

IMAGE, VIDEO, START, END = 290, 291, 292, 293
VOCAB = 300

TEXT = dict(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
    vocab_size=VOCAB,
    rms_norm_eps=1e-6,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    bos_token_id=295,
    eos_token_id=296,
    pad_token_id=297,
)
VISION = dict(
    depth=4,
    hidden_size=32,
    num_heads=2,
    intermediate_size=48,
    out_hidden_size=64,
    fullatt_block_indexes=[1, 3],
    tokens_per_second=2,
)


def reference_config(**changes) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={**TEXT, **changes.pop("text", {})},
        vision_config={**VISION, **changes.pop("vision", {})},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        **{"tie_word_embeddings": False, **changes},
    )


def reference_model(seed: int = 0, **changes) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights large enough that every part matters: biases, norms and all."""
    torch.manual_seed(seed)
    config = reference_config(**changes)
    config._attn_implementation = "eager"
    model = Qwen2_5_VLForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            scale = 0.2 if weight.ndim == 1 else 1.5 * weight[0].numel() ** -0.5
            scale = 0.5 if "embed_tokens" in name else scale
            weight.copy_(noise * scale + (1.0 if "norm" in name or "ln_q" in name else 0.0))
        model.tie_weights()
    return model


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt: token ids, its images in order as (grid, patches float32 [t·h·w, 1176]), seconds of its videos."""

    tokens: np.ndarray
    images: tuple[tuple[tuple[int, int, int], np.ndarray], ...]
    is_video: tuple[bool, ...]
    seconds: tuple[float, ...] = ()

    @property
    def grids(self) -> list[tuple[int, int, int]]:
        return [grid for grid, _ in self.images]


def make_prompt(seed: int, grids: Sequence[tuple[int, int, int]], *, seconds: Sequence[float] = ()) -> Prompt:
    """Random text around images of the given grids; a grid of several frames is a video."""
    rng = np.random.default_rng(seed)
    pieces = [rng.integers(0, 280, rng.integers(3, 8))]
    images = []
    for t, h, w in grids:
        holder = VIDEO if t > 1 else IMAGE
        pieces += [[START], [holder] * (t * h * w // 4), [END], rng.integers(0, 280, rng.integers(1, 6))]
        images.append(((t, h, w), rng.normal(size=(t * h * w, 1176)).astype(np.float32)))
    return Prompt(
        np.concatenate(pieces).astype(np.int64), tuple(images), tuple(t > 1 for t, _, _ in grids), tuple(seconds)
    )


def reference_inputs(prompts: Sequence[Prompt], *, extra: Sequence[np.ndarray] | None = None) -> dict:
    """Left-padded inputs for the reference, `extra` tokens appended to each prompt."""
    rows = [
        p.tokens if extra is None else np.append(p.tokens, e) for p, e in zip(prompts, extra or prompts, strict=True)
    ]
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), 297)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, length - len(row) :] = torch.from_numpy(row)
        mask[i, length - len(row) :] = 1
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": ((ids == IMAGE) * 1 + (ids == VIDEO) * 2).int(),
    }
    for video, pixels, grid_name in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = [im for p in prompts for im, v in zip(p.images, p.is_video, strict=True) if v == video]
        if chosen:
            inputs[pixels] = torch.from_numpy(np.concatenate([patches for _, patches in chosen]))
            inputs[grid_name] = torch.tensor([grid for grid, _ in chosen])
    if seconds := [s for p in prompts for s in p.seconds]:
        inputs["second_per_grid_ts"] = torch.tensor(seconds)
    return inputs


def frame_indices(h: int, w: int, patches: int, windows: int) -> dict[str, np.ndarray]:
    """`VisionInputs` index arrays of one frame, padded to `patches` patches and `windows` windows."""
    grid = torch.tensor([[1, h, w]])
    order, cuts = get_vision_window_index(grid, spatial_merge_size=2, window_size=112, patch_size=14)
    order = (order.numpy()[:, None] * 4 + np.arange(4)).reshape(-1)
    cuts = cuts.numpy()
    table = np.full((windows, 64), patches, np.int32)
    slots = np.zeros(patches, np.int32)
    for window in range(len(cuts) - 1):
        members = order[cuts[window] : cuts[window + 1]]
        table[window, : len(members)] = members
        slots[members] = window * 64 + np.arange(len(members))
    positions = np.zeros((patches, 2), np.int32)
    positions[: h * w] = get_vision_position_ids(grid, 2).numpy()
    return dict(windows=table, slots=slots, positions=positions, valid=np.arange(patches) < h * w)


def batch(
    prompts: Sequence[Prompt],
    config: ModelConfig,
    *,
    pad_tokens: int = 0,
    pad_patches: int = 0,
    junk: int = 0,
    left: bool = False,
) -> PromptBatch:
    """Our batch of the same prompts, padded by some more, the padding filled with content drawn from seed `junk`."""
    rng = np.random.default_rng(junk)
    frames = [[(g[1], g[2], x) for g, patches in p.images for x in np.split(patches, g[0])] for p in prompts]
    length = max(len(p.tokens) for p in prompts) + pad_tokens
    slots = max(1, max(map(len, frames))) + (pad_patches > 0)
    width = max([h * w for row in frames for h, w, _ in row], default=4) + pad_patches
    windows = max([-(-h // 8) * -(-w // 8) for row in frames for h, w, _ in row], default=1) + (pad_patches > 0)
    m = len(prompts)
    vision = dict(
        patches=rng.normal(size=(m, slots, width, 1176)).astype(np.float32) * (junk > 0),
        positions=np.zeros((m, slots, width, 2), np.int32),
        windows=np.full((m, slots, windows, 64), width, np.int32),
        slots=np.zeros((m, slots, width), np.int32),
        valid=np.zeros((m, slots, width), bool),
    )
    text = dict(
        tokens=rng.integers(0, 280, (m, length)).astype(np.int32),
        mask=np.zeros((m, length), bool),
        positions=rng.integers(0, 9, (m, length, 3)).astype(np.int32),
        next_position=np.zeros(m, np.int32),
        image_slot=np.full((m, length), -1, np.int32),
    )
    for i, prompt in enumerate(prompts):
        fed = []
        for j, (h, w, patches) in enumerate(frames[i]):
            vision["patches"][i, j, : h * w] = patches
            for name, value in frame_indices(h, w, width, windows).items():
                vision[name][i, j] = value
            fed.append(j * (width // 4) + np.arange(h * w // 4))
        n = len(prompt.tokens)
        at = slice(length - n, length) if left else slice(0, n)
        positions, following = mrope_positions(
            prompt.tokens, prompt.grids, config, video_seconds=prompt.seconds or None
        )
        text["tokens"][i, at], text["mask"][i, at], text["positions"][i, at] = prompt.tokens, True, positions
        text["next_position"][i] = following
        if fed:
            where = np.flatnonzero(np.isin(prompt.tokens, (IMAGE, VIDEO))) + at.start
            text["image_slot"][i, where] = np.concatenate(fed)
    ids = np.arange(m, dtype=np.uint32)
    vision = VisionInputs(**{k: jnp.asarray(v) for k, v in vision.items()})
    text = {k: jnp.asarray(v) for k, v in text.items()}
    return PromptBatch(**text, prompt_id=jnp.asarray(ids), occurrence=jnp.zeros(m, jnp.uint32), vision=vision)
