"""What a program must do at least, counted by hand from the config: bytes of a token, operations of a step.

A roofline time is operations or bytes over a chip's published peaks, whichever takes longer, with everything else free.
Nothing here is measured.
"""

from __future__ import annotations

import math
from typing import Any

import jax

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from programs.devices import Chip


def numbers(model: Model) -> dict[str, int]:
    """Weights of the 'tower', its 'blocks', the 'layers' of the language model, its 'table', and its 'body': all of
    it but the table."""
    size = lambda tree: sum(math.prod(spec.shape) for spec in jax.tree.leaves(tree))  # noqa: E731
    specs, text = model.specs, model.config.text
    table = text.vocab_size * text.hidden_size
    blocks, layers = size(specs["visual"]["blocks"]), size(specs["text"]["layers"])
    return {
        "tower": size(specs["visual"]), "blocks": blocks, "layers": layers, "table": table,
        "body": size(specs["text"]) - table,
    }  # fmt: skip


def token_bytes(config: Config, model: Model, mesh: Any, shape: Shape) -> dict[str, float]:
    """Bytes a device must read for one token of the decode loop, by kind; suffixes half full, as on average."""
    text, weights = model.config.text, numbers(model)
    parts, tensor = meshes.batch_size(mesh), mesh.shape["tensor"]
    prompts = config.rollout.batch_prompts / parts
    width = model.compute_dtype.itemsize
    heads = text.num_kv_heads / tensor if text.num_kv_heads % tensor == 0 else text.num_kv_heads
    row = 2 * text.num_layers * heads * text.head_dim * width  # keys and values of a token
    suffix = prompts * config.rollout.group_size * row * config.rollout.max_new_tokens / 2
    read = (weights["body"] + weights["table"]) * width / tensor
    return {"weights": read, "prefix": prompts * row * shape.prompt, "suffix": suffix}


def sampler_seconds(config: Config, model: Model, mesh: Any, shape: Shape, chip: Chip) -> dict[str, float]:
    """Of a batch of rollouts by phase: operations are 2 a weight and token, attention's 4·width a query and key."""
    text, count, prompts = model.config.text, numbers(model), config.rollout.batch_prompts
    width, tensor, new = model.compute_dtype.itemsize, mesh.shape["tensor"], config.rollout.max_new_tokens

    def floor(operations: float, moved: float) -> float:
        return max(operations / mesh.size / chip.operations, moved / chip.bandwidth)

    attention = 4 * text.num_layers * text.hidden_size
    tower = floor(2 * count["tower"] * prompts * shape.patches, count["tower"] * width / tensor)
    work = prompts * shape.prompt * (2 * count["body"] + attention * shape.prompt / 2)
    prefill = floor(work, count["body"] * width / tensor)
    rows = prompts * config.rollout.group_size
    step = rows * (2 * (count["body"] + count["table"]) + attention * (shape.prompt + new / 2))
    decode = new * floor(step, sum(token_bytes(config, model, mesh, shape).values()))
    return {"vision": tower, "prefill": prefill, "decode": decode}


def forward_operations(
    config: ModelConfig, *, prompts: int, group: int, prompt_tokens: int, new_tokens: float
) -> dict[str, float]:
    """Operations of one pass of the language model over prompts and their completions, a multiply-add being two.

    'layers' and 'vocabulary' are 2 a weight and token, 'attention' 4 · heads · head_dim a layer, query and key: all
    keys of a causal block are computed and some are masked, so every key counts.
    """
    text, count = config.text, numbers(Model.create(config))
    completion = group * new_tokens
    keys = prompt_tokens**2 + completion * (prompt_tokens + new_tokens)
    return {
        "layers": 2.0 * count["layers"] * prompts * (prompt_tokens + completion),
        "attention": 4.0 * text.num_layers * text.num_heads * text.head_dim * prompts * keys,
        "vocabulary": 2.0 * text.vocab_size * text.hidden_size * prompts * completion,
    }


def passes(config: Config) -> float:
    """Passes forward without a gradient: the reference's, and the old policy's of all updates but the first."""
    updates = config.algorithm.updates_per_batch
    return float(config.algorithm.kl_coef != 0) + (updates - 1) / updates


def step_operations(config: Config, shape: Shape, model: ModelConfig, *, remat: str = "none") -> dict[str, float]:
    """Operations of one learner step, by part.

    The backward pass is twice the forward one in products with weights, 2.5 times in attention, which computes its
    scores again; the vocabulary is projected again and then has its two products. `remat` adds passes forward, which a
    step does not need.
    """
    prompts = config.data.prompts_per_step
    sizes: dict[str, Any] = {"group": config.rollout.group_size, "new_tokens": config.rollout.max_new_tokens}
    once = forward_operations(model, prompts=prompts, prompt_tokens=shape.prompt, **sizes)
    again = {"none": (0, 0), "dots": (0, 1), "full": (1, 1)}[remat]
    return {
        "vision": 2.0 * numbers(Model.create(model))["blocks"] * prompts * shape.patches,
        "layers": once["layers"] * (passes(config) + 3 + again[0]),
        "attention": once["attention"] * (passes(config) + 3.5 + again[1]),
        "vocabulary": once["vocabulary"] * (passes(config) + 4),
    }


def step_seconds(config: Config, model: Model, mesh: Any, shape: Shape, chip: Chip) -> dict[str, float]:
    """Of a learner step. Bytes: every pass over a micro-batch reads all weights on every chip, and an update reads and
    writes masters and moments and reads gradients once."""
    algorithm, weights = config.algorithm, numbers(model)["body"] + numbers(model)["table"]
    rounds = config.data.prompts_per_step / algorithm.micro_batch_prompts
    moved = model.compute_dtype.itemsize * weights * rounds * (passes(config) + 3 + (config.model.remat == "full"))
    moved += algorithm.updates_per_batch * 28.0 * weights / mesh.size
    total = sum(step_operations(config, shape, model.config, remat=config.model.remat).values())
    return {"operations": total / mesh.size / chip.operations, "bytes": moved / chip.bandwidth}
