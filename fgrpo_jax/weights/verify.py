"""A checkpoint in this package against the same checkpoint in `transformers`, part by part, in float32.

    python -m fgrpo_jax.convert --hf=DIR --verify

The one module that needs torch; nothing of a run imports it. Both models see one prompt with one image that the windows
do not divide. The reference runs first and is let go before ours is loaded, so that one model is in memory at a time.
Each part of ours is then given the reference's own input to that part; the logits are of our whole path.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.data.styles import BARE
from fgrpo_jax.model.attention import attend
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model, Params, Qwen2_5VL
from fgrpo_jax.model.rope import vision_rotation
from fgrpo_jax.records import Example, PromptBatch
from fgrpo_jax.weights import importer

PART = 1e-5
"""Tolerance of a part: of its largest value, or absolute where that is below 1."""
LOGITS = 1e-4
"""Tolerance of the logits, of the largest of them."""

HEIGHT, WIDTH = 168, 280
"""Pixels of the image: 12 x 20 patches, whose windows of 8 x 8 are cut off on both sides."""


@dataclasses.dataclass(frozen=True)
class Row:
    """How far one part is from the reference."""

    part: str
    error: float  # largest absolute difference
    size: float  # largest absolute value of the reference
    bound: float  # what `error` may be

    @property
    def ok(self) -> bool:
        return self.error <= self.bound  # NaN is not


def compare(folder: Path) -> list[Row]:
    """Every part of the checkpoint in `folder`.

    Raises:
      ValueError: torch is not installed, or the folder is not whole.
    """
    _require_torch()
    processor = Processor.load(folder)
    prompt = _prompt(processor)
    theirs = _Reference.run(folder, prompt, processor.config)
    model = Model.create(processor.config)
    params = importer.load_hf(folder, model, dtype=jnp.float32)
    batch = jax.tree.map(jnp.asarray, collate([prompt], buckets=Buckets(), pad_id=processor.pad_id))
    rows = _compare_inputs(folder, prompt, theirs)
    with jax.default_matmul_precision("highest"):
        ours = _parts(model, params, batch, theirs)
        rows += [_row(name, ours[name], theirs.out[name], PART) for name in ours]
        hidden, _ = jax.jit(lambda p, b: model.prefix(p, b, model.encode(p, b.vision)))(params, batch)
        logits = jax.jit(model.logits)(params, hidden[0, : len(prompt.tokens)])
    return [*rows, _row("logits", logits, theirs.logits, LOGITS, relative=True)]


def needed_bytes(config: ModelConfig) -> int:
    """Host memory of one model in float32, the activations of the short prompt left out."""
    return 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(Model.create(config).abstract()))


def table(rows: list[Row]) -> str:
    """The rows for a person."""
    lines = [f"{'part':<24}{'max abs':>10}{'relative':>10}{'tolerance':>11}  ok"]
    for row in rows:
        relative = row.error / row.size if row.size else row.error
        ok = "yes" if row.ok else "NO"
        lines.append(f"{row.part:<24}{row.error:>10.1e}{relative:>10.1e}{row.bound:>11.1e}  {ok}")
    return "\n".join(lines)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "--verify compares with the model of transformers, which needs torch: pip install torch (or this package "
            "with its 'test' extra); nothing else does"
        ) from error


def _row(part: str, ours: Any, theirs: np.ndarray, tolerance: float, *, relative: bool = False) -> Row:
    size = float(np.max(np.abs(theirs)))
    ours = np.asarray(ours)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"{part}: ours has shape {ours.shape}, the reference {theirs.shape}; are these one checkpoint?"
        )
    error = float(np.max(np.abs(ours.astype(np.float64) - theirs)))
    return Row(part, error, size, tolerance * (size if relative else max(1.0, size)))


# ------------------------------------------------------------------------------------------------------------- prompt
def _picture() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3] with structure at every scale: a smooth field and noise upon it."""
    rng = np.random.default_rng(0)
    y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    smooth = 128 + 90 * np.sin(x / 23 + c) * np.cos(y / 17 - c)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def _prompt(processor: Processor) -> EncodedPrompt:
    example = Example("verify", (_picture(),), "What is in this image?", (), "", source="verify")
    return processor.encode(example, style=BARE, min_pixels=HEIGHT * WIDTH, max_pixels=HEIGHT * WIDTH)


# ---------------------------------------------------------------------------------------------------------- reference
@dataclasses.dataclass(frozen=True)
class _Reference:
    """What transformers computed. Arrays of the tower are in our natural order, not in its window order."""

    given: Mapping[str, np.ndarray]  # input of each part
    out: Mapping[str, np.ndarray]  # output of each part
    layers: Mapping[str, int]  # which layer stands behind 'window block', 'full block' and 'decoder layer'
    positions: np.ndarray  # int [S, 3]
    logits: np.ndarray  # float32 [S, V]

    @classmethod
    def run(cls, folder: Path, prompt: EncodedPrompt, config: ModelConfig) -> _Reference:
        """Loads the reference, runs the prompt, and lets the model go."""
        import torch
        import transformers

        model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
            str(folder), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        ids = torch.from_numpy(prompt.tokens.astype(np.int64))[None]
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        # Without token types the reference takes text positions for the image, silently.
        inputs |= {"mm_token_type_ids": (ids == config.image_token_id).int()}
        inputs |= {"image_grid_thw": torch.tensor(prompt.grids)}
        positions, _ = model.model.get_rope_index(**inputs)
        pixels = torch.from_numpy(np.concatenate([images.normalise_patches(p) for p in prompt.patches]))
        layers = _layers(config)
        modules = _modules(model, layers)
        given: dict[str, Any] = {}
        out: dict[str, Any] = {}
        for name, module in modules.items():
            module.register_forward_hook(_keep(name, given, out), with_kwargs=True)
        with torch.no_grad():
            logits = model(**inputs, pixel_values=pixels).logits[0].numpy()
        del model, modules
        gc.collect()
        _to_natural(prompt.grids[0], given, out, merge=config.vision.merge_unit)
        return cls(given, out, layers, positions[:, 0].T.numpy(), logits)


def _layers(config: ModelConfig) -> dict[str, int]:
    """One layer of each kind; a small tower may have a single kind of block."""
    full = set(config.vision.fullatt_block_indexes)
    out = {"decoder layer": config.text.num_layers // 2}
    for name, kind in (("window block", False), ("full block", True)):
        found = [index for index in range(config.vision.depth) if (index in full) == kind]
        if found:
            out[name] = found[0]
    return out


def _modules(model: Any, layers: Mapping[str, int]) -> dict[str, Any]:
    tower, text = model.model.visual, model.model.language_model
    out = {"patch embed": tower.patch_embed, "vision rotary": tower.rotary_pos_emb}
    out |= {name: tower.blocks[layers[name]] for name in ("window block", "full block") if name in layers}
    decoder = text.layers[layers["decoder layer"]]
    return out | {"merger": tower.merger, "text rotary": text.rotary_emb, "decoder layer": decoder}


def _keep(name: str, given: dict[str, Any], out: dict[str, Any]) -> Callable[..., None]:
    def hook(_: Any, args: Any, kwargs: Any, result: Any) -> None:
        given[name] = (args[0] if args else kwargs["hidden_states"]).numpy()
        if "rotary" in name:  # cos and sin [..., H], the two halves of H alike
            half = [part.reshape(-1, part.shape[-1])[:, : part.shape[-1] // 2] for part in result]
            out[name] = np.stack([part.numpy() for part in half])
        else:
            out[name] = (result[0] if isinstance(result, tuple) else result).numpy()

    return hook


def _to_natural(grid: tuple[int, int, int], given: dict[str, Any], out: dict[str, Any], *, merge: int) -> None:
    """From the reference's window order to the order of the patches, in place."""
    windows, _ = images.window_index(*grid[1:])
    order = windows[windows < grid[1] * grid[2]]
    back = np.argsort(order)
    cells = np.argsort(order[::merge])
    for name in ("window block", "full block"):
        if name in out:
            given[name], out[name] = given[name][back], out[name][back]
    given["merger"], out["merger"] = given["merger"][back], out["merger"][cells]


# --------------------------------------------------------------------------------------------------------------- ours
def _compare_inputs(folder: Path, prompt: EncodedPrompt, theirs: _Reference) -> list[Row]:
    """What goes into the models: patches as the reference's processor cuts them, and positions."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    area = HEIGHT * WIDTH
    reference = Qwen2VLImageProcessorPil.from_pretrained(str(folder), min_pixels=area, max_pixels=area)
    cut = reference(images=[_picture()], return_tensors="np", input_data_format="channels_last")
    patches = images.normalise_patches(prompt.patches[0])
    return [
        _row("image patches", patches, np.asarray(cut["pixel_values"]), PART),
        _row("positions", prompt.positions, theirs.positions, 0.0),
    ]


def _parts(model: Model, params: Params, batch: PromptBatch, theirs: _Reference) -> dict[str, np.ndarray]:
    """Our output of each part, from the reference's input to it; padding of the batch cut off."""
    count, length = theirs.given["patch embed"].shape[0], theirs.positions.shape[0]
    flat = jax.tree.map(lambda x: x[:, 0], batch.vision)
    room = flat.valid.shape[1]

    @jax.jit
    def run(params: Params, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
        modules = model.modules(params)
        tower, text = modules.visual, modules.text
        turn = vision_rotation(flat.positions, head_dim=tower.config.head_dim, theta=tower.config.rope_theta)
        out = {"patch embed": tower.patch_embed(given["patch embed"])[0, :count]}
        out["vision rotary"] = jnp.stack(turn)[:, 0, :count]
        for name in ("window block", "full block"):
            if name in given:
                block = _one(tower.blocks, theirs.layers[name])
                out[name] = block(given[name], turn, flat, jnp.bool_(name == "full block"))[0, :count]
        out["merger"] = tower.merger(given["merger"])[0, : count // tower.config.merge_unit]
        out["text rotary"] = jnp.stack(text.rotation(batch.positions))[:, 0, :length]
        out["decoder layer"] = _decoder_layer(modules, theirs.layers["decoder layer"], given["decoder layer"], batch)
        return out

    rows = {"patch embed": room, "window block": room, "full block": room, "merger": room, "decoder layer": length}
    given = {}
    for name in rows.keys() & theirs.given.keys():
        value = theirs.given[name].reshape(-1, theirs.given[name].shape[-1])
        given[name] = np.pad(value, ((0, rows[name] - len(value)), (0, 0)))[None]
    out = jax.tree.map(np.asarray, run(params, given))
    return {name: out[name].reshape(theirs.out[name].shape) for name in theirs.out}


def _decoder_layer(modules: Qwen2_5VL, index: int, x: jax.Array, batch: PromptBatch) -> jax.Array:
    """x [1, S, D] after layer `index`; S without padding."""
    length = x.shape[1]

    def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
        return attend(grouped, k, v, key_mask=batch.mask[:, :length], causal=True).out.reshape(q.shape), None

    rotation = modules.text.rotation(batch.positions[:, :length])
    return _one(modules.text.layers, index)(x, rotation, causal)[0]


def _one(stacked: nnx.Module, index: int) -> Any:
    """Layer `index` of stacked layers."""
    graph, state = nnx.split(stacked)
    return nnx.merge(graph, jax.tree.map(lambda x: x[index], state))
