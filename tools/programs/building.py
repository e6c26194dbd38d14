"""Sampler and learner of a run's config as `train` builds them, on shapes alone, for devices that are not there."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import released

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data.buckets import PATCH_STEP, Shape
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.fgrpo import optimizer
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.training import precompile, setup


def policy(config: Config, devices: Any, *, model: str = "", layers: int = 0) -> setup.Policy:
    """The policy on these devices.

    Args:
      model: a released size, 3b or 7b; '' reads the folder of config.model.hf.
      layers: of the language model and of the tower at most; 0 for all of them.
    """
    if model:
        shape, folder = ModelConfig.from_hf(released.HUB[model.upper()]), Path()
        # What the programs depend on of a tokenizer: how many ids there are, and the ends.
        size, ends = shape.text.vocab_size, {"eos_ids": (151645, 151643), "pad_id": 151643}
        said = tuple(bytes([number % 256]) for number in range(size))
        processor: Any = types.SimpleNamespace(banned=np.zeros(size, bool), token_bytes=said, **ends)
    else:
        folder = setup.model_folder(config.model.hf, config.model.revision)
        shape, processor = ModelConfig.load(folder), Processor.load(folder)
    if layers:
        text = dataclasses.replace(shape.text, num_layers=min(layers, shape.text.num_layers))
        vision = dataclasses.replace(shape.vision, depth=min(layers, shape.vision.depth))
        shape = dataclasses.replace(shape, text=text, vision=vision)
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices=devices)
    micro, batch = config.algorithm.micro_batch_prompts, config.rollout.batch_prompts
    meshes.require_divisible(mesh, config__algorithm__micro_batch_prompts=micro, config__rollout__batch_prompts=batch)
    return setup.Policy(folder, setup.model(config, shape, mesh), processor, mesh)


def bucket(prompt_tokens: int, patches: int) -> Shape:
    """Of prompts with one square-ish image each."""
    return Shape(prompt=prompt_tokens, patches=patches, images=1, windows=-(-patches // PATCH_STEP))


def sampler(config: Config, policy: setup.Policy, shape: Shape) -> Any:
    """The compiled program of a call of the sampler in training, images encoded in it."""
    made = setup.sampler(config, policy, purpose="train")
    params = policy.abstract(config.model.param_dtype)
    prompts = precompile.abstract_prompts(config.rollout.batch_prompts, shape, meshes.batch_sharding(policy.mesh))
    return made.compile(params, prompts)


def learner(config: Config, policy: setup.Policy, shape: Shape) -> Any:
    """The compiled learner step of a batch of full lengths, its state placed as a run's is, images encoded in it.

    A run encodes them in a program of its own, once for sampler and learner, where no step changes the tower.
    """
    made = setup.learner(config, policy)
    params = policy.abstract(config.model.param_dtype)
    homes = {path: x.sharding for path, x in optimizer.flatten(params).items()}

    def placed(path: Any, x: Any) -> Any:
        """On the devices of the parameter whose name stands in the path; else on all."""
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        home = next((homes[name] for name in names if name in homes), meshes.replicated(policy.mesh))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=home)

    place = lambda tree: jax.tree_util.tree_map_with_path(placed, tree)  # noqa: E731
    state = place(jax.eval_shape(made.fresh, params)).replace(params=params)
    reference = place(jax.eval_shape(made.reference, params))
    return made.steps[1].lower(state, reference, *precompile.learner_inputs(config, shape, policy.mesh)).compile()
