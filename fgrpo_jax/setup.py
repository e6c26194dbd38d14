"""What every door needs before its work starts, built from the config in one place: model, data, sampler, learner."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import Config
from fgrpo_jax.data.prompts import Processor
from fgrpo_jax.data.sources import JsonlSource, NlvrSource, Source, WorldSource
from fgrpo_jax.fgrpo.learner import Constraint, Learner, LearnerConfig
from fgrpo_jax.fgrpo.optimizer import OptimizerConfig
from fgrpo_jax.model import weights
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.rewards.score import RewardConfig
from fgrpo_jax.rollout.sampler import Sampler

SHIPPED = "shipped"


def model_folder(hf: str) -> Path:
    """The HF folder a config's `model.hf` names; 'shipped' is the warm start that comes with the package.

    Raises:
      FileNotFoundError: the folder is not there or holds no config.json.
    """
    if hf == SHIPPED:
        return Path(str(resources.files("fgrpo_jax") / "assets" / "warmstart"))
    folder = Path(hf)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"model.hf='{hf}' holds no config.json; give a folder in HF format, or '{SHIPPED}' for the built-in policy"
        )
    return folder


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model with everything that belongs to its checkpoint folder."""

    folder: Path
    model: Model
    processor: Processor
    mesh: jax.sharding.Mesh

    @property
    def shardings(self) -> Any:
        """NamedSharding of every parameter, in the structure of the params."""
        return meshes.shardings(self.model.specs, self.mesh)

    def load(self, dtype: str) -> Any:
        """Parameters of the folder on the mesh."""
        return weights.load_hf(self.folder, self.model, dtype=jnp.dtype(dtype), shardings=self.shardings)

    def put(self, batch: Any) -> Any:
        """Host arrays of this process → global arrays with the prompt axis over the batch axes of the mesh."""
        sharding = meshes.batch_sharding(self.mesh)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def policy(config: Config) -> Policy:
    """Reads config and processor of the starting policy and builds mesh and model; no weights yet."""
    folder = model_folder(config.model.hf)
    model = Model.create(
        ModelConfig.load(folder), compute_dtype=jnp.dtype(config.model.compute_dtype), remat=config.model.remat
    )
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    return Policy(folder, model, Processor.load(folder), mesh)


def source(config: Config, split: str, *, traces: bool = False) -> Source:
    """The data source of one split; `traces` asks for reference responses (supervised training)."""
    data = config.data
    if data.source == "world":
        world = data.world
        return WorldSource(
            difficulty=world.difficulty,
            families=dict(world.families) or None,
            flawed=world.flawed,
            seed=world.seed,
            split=split,
            with_trace=traces,
        )
    if data.source == "nlvr":
        return NlvrSource(data.path, split)
    return JsonlSource(Path(data.path) / f"{split}.jsonl")


def sampler(config: Config, policy: Policy, *, purpose: str) -> Sampler:
    """The sampler for 'train' (group_size rollouts a prompt) or 'eval' (one, at the evaluation temperature)."""
    train = purpose == "train"
    return Sampler(
        policy.model,
        group_size=config.rollout.group_size if train else 1,
        max_new_tokens=config.rollout.max_new_tokens,
        eos_ids=policy.processor.eos_ids,
        pad_id=policy.processor.pad_id,
        banned=policy.processor.banned,
        temperature=config.rollout.temperature if train else config.eval.temperature,
        mesh=policy.mesh,
    )


def learner(config: Config, policy: Policy) -> Learner:
    """The compiled FGRPO step of the config. Constraints out of force keep λ = 0, which is GRPO bit for bit."""
    algorithm, optim = config.algorithm, config.optim
    constraints = []
    for c in config.constraints:
        active = c.enabled and algorithm.aggregation == "fgrpo"
        constraints.append(
            Constraint(
                name=c.name,
                threshold=c.threshold,
                direction=c.sign,
                lr=c.lr if active else 0.0,
                init=c.init if active else 0.0,
                lam_max=c.max,
                min_applicable=c.min_applicable,
            )
        )
    adam = OptimizerConfig(
        learning_rate=optim.learning_rate,
        schedule=optim.schedule,
        warmup_updates=optim.warmup_updates,
        total_updates=config.num_steps * algorithm.updates_per_batch,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        clip_norm=optim.clip_norm,
    )
    settings = LearnerConfig(
        constraints=tuple(constraints),
        optimizer=adam,
        freeze=tuple(config.model.freeze),
        masked=algorithm.masked,
        ddof=algorithm.ddof,
        eps=algorithm.eps,
        whiten=algorithm.whiten,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        dual_clip=algorithm.dual_clip,
        kl_coef=algorithm.kl_coef,
        kl_estimator=algorithm.kl_estimator,
        kl_clamp=algorithm.kl_clamp,
        loss_aggregation=algorithm.loss_aggregation,
        temperature=config.rollout.temperature,
        updates=algorithm.updates_per_batch,
        micro_batches=config.micro_batches,
    )
    return Learner(policy.model, settings, jnp.asarray(policy.processor.banned))


def rewards(config: Config) -> RewardConfig:
    """The reward settings in the form the scorer takes."""
    section = config.rewards
    return RewardConfig(
        accuracy_weight=section.accuracy_weight,
        format_weight=section.format_weight,
        judge=section.judge,
        ciou_mapping=section.ciou_mapping,
        dedupe_boxes=section.dedupe_boxes,
        no_claim=section.no_claim,
        box_iou_correct=section.box_iou_correct,
    )
