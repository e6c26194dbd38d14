"""A tiny random policy for the built-in world as an HF folder, and the config that fits it: what learner and door tests
share. Its logits are far from flat and its tower is wide awake, so that no test passes on a policy that ignores half of
its inputs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import small_tokenizer as tokenizers
from folders import two_templates

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.sections import MeshSection
from fgrpo_jax.data.styles import STYLES
from fgrpo_jax.fgrpo.learner import LearnerConfig
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import setup
from fgrpo_jax.weights import exporter
from fgrpo_jax.world.examples import World

ROOT = Path(__file__).parent.parent
BASE = ROOT / "configs" / "default.py"
VOCAB = 512
SMALL_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "mrope_section": (2, 1, 1),
}
"""Fields of the smallest `TextConfig` that has everything: grouped queries and positions in three parts."""

QUICK = {"xla_backend_optimization_level": 0}
"""Compiler options for programs that are compiled for longer than they run."""

USERS = {"xla_cpu_use_fusion_emitters": True}
"""Compiler options where bits or buffers of users' programs are held: tests are compiled without (conftest.py)."""

SMALL: dict[str, Any] = {
    "num_steps": 4,
    "data.prompts_per_step": 8,
    "data.prompt": "tiny",
    "data.max_prompt_tokens": 96,
    "data.min_pixels": 84 * 84,
    "data.max_pixels": 112 * 112,
    "data.buckets.prompt": (96,),
    "data.buckets.completion": (128,),
    "data.buckets.patches": (64,),
    "rollout.group_size": 4,
    "rollout.max_new_tokens": 8,
    "rollout.batch_prompts": 8,
    "algorithm.micro_batch_prompts": 4,
    "optim.learning_rate": 1e-3,
    "eval.examples": 6,
    "eval.batch_prompts": 4,
    "checkpoint.every": 1,
    "checkpoint.keep": 4,
    "sft.steps": 4,
    "sft.batch": 4,
    "sft.micro_batch": 2,
    "sft.eval_every": 1,
    "sft.eval_examples": 8,
    "sft.learning_rate": 1e-3,
}
"""Overrides of configs/default.py: seconds, not days. One shape of everything, so that nothing is compiled twice."""


def write(folder: Path, *, seed: int = 0) -> Path:
    """The whole folder: tokenizer of the world's texts, processor files and templates as released, random weights."""
    world = World("tiny")
    examples = [world.example(index) for index in range(60)]
    texts = [STYLES["tiny"].user_text(example.question, example.options) for example in examples]
    tokenizer = tokenizers.train([*texts, *(e.trace or "" for e in examples)], vocab_size=VOCAB)
    ids = {name: index for name, index in tokenizers.token_ids(tokenizer).items() if name != "vision_token_id"}
    text = TextConfig(
        **SMALL_TEXT,
        vocab_size=VOCAB,
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=48,
        fullatt_block_indexes=(1,),
        out_hidden_size=32,
        tokens_per_second=2,
    )
    model = Model.create(ModelConfig(text=text, vision=vision, **ids))
    params = model.init(jax.random.key(seed))
    params["text"]["embed"]["table"] = params["text"]["embed"]["table"] * 20
    source = folder.with_name(f"{folder.name}-source")
    tokenizers.save(source, tokenizer, min_pixels=28 * 28, max_pixels=448 * 448)
    two_templates(source)
    (source / "config.json").write_text(json.dumps(model.config.to_hf()))
    exporter.save_hf(folder, params, model, source=source)
    return folder


def overrides(hf: Path, **fields: Any) -> list[str]:
    """--config.a.b=v of SMALL and of `fields`, in whose names '__' stands for '.'."""
    chosen = SMALL | {"model.hf": hf} | {name.replace("__", "."): value for name, value in fields.items()}
    return [f"--config.{name}={value}" for name, value in chosen.items()]


def config(hf: Path, **fields: Any) -> configs.Config:
    """The checked config of those overrides."""
    return configs.load(files.load_config(BASE, overrides(hf, **fields)))


def policy(config: configs.Config, mesh: jax.sharding.Mesh | None = None) -> setup.Policy:
    """`setup.policy` on one device (tests run with eight), or on `mesh`."""
    mesh = meshes.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    on_all = dataclasses.replace(config, mesh=MeshSection(data=-1, fsdp=1, tensor=1))
    policy = setup.policy(on_all)
    return dataclasses.replace(policy, mesh=mesh, model=dataclasses.replace(policy.model, mesh=mesh))


def altered(config: LearnerConfig, *, prompts: int, **fields: Any) -> LearnerConfig:
    """A learner's config with other fields, its own or the algorithm's; `updates` and `micro_batches` are counts."""
    own = {field.name for field in dataclasses.fields(LearnerConfig)}
    rest = {name: value for name, value in fields.items() if name in own}
    algorithm = {name: value for name, value in fields.items() if name not in own}
    updates = algorithm.pop("updates", config.algorithm.updates_per_batch)
    if (count := algorithm.pop("micro_batches", None)) is not None:
        algorithm["micro_batch_prompts"] = prompts // (updates * count)
    changed = dataclasses.replace(config.algorithm, updates_per_batch=updates, **algorithm)
    return dataclasses.replace(config, algorithm=changed, **rest)
