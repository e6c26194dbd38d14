"""What every command needs before its work starts, built from the config: model, data, sampler, learner."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import checks
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import hub
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.pipeline import Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sources import Source
from fgrpo_jax.data.styles import find_style
from fgrpo_jax.fgrpo.learner import Learner, LearnerConfig
from fgrpo_jax.fgrpo.optimizer import Rule, partition
from fgrpo_jax.fgrpo.settings import Constraint
from fgrpo_jax.fgrpo.supervised import SupervisedLearner
from fgrpo_jax.model import decode_kernel, kernel_trial, kernels
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model, unrolls
from fgrpo_jax.reading.dialects import find_dialect
from fgrpo_jax.rewards.custom import CustomRewards
from fgrpo_jax.rewards.score import RewardConfig
from fgrpo_jax.rewards.signals import Measure
from fgrpo_jax.rollout.generate import Decode
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.stopping import StopTable
from fgrpo_jax.training import selection
from fgrpo_jax.training.collect import anywhere
from fgrpo_jax.training.datasets import heldout, source
from fgrpo_jax.weights import importer

SHIPPED = hub.SHIPPED


def model_folder(hf: str, revision: str = "") -> Path:
    """The HF folder of a policy, see `hub.find`: a folder, a hub id (fetched if need be) or 'shipped'."""
    return hub.find(hf, revision=revision).folder


def pinned(config: Config, workdir: Path, *, overwrite: bool = False) -> Config:
    """The config of a run with the commits of its hub ids in it, so that the run can go on with the same weights.

    A run in `workdir` that began from the same id, asked for without a revision, keeps the commit it began with: the
    hub's main branch may have moved since.
    """
    stored = workdir / "config.json"
    before = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() and not overwrite else {}

    def pin(section: Any, *at: str) -> Any:
        """The section with its `hf` and `revision` as they are to be stored."""
        if not hub.is_id(section.hf):
            return section
        name, asked = hub.split(section.hf)
        asked = section.revision or asked
        old = functools.reduce(lambda tree, key: tree.get(key, {}), at, before)
        if not asked and old.get("hf") == name:
            asked = old.get("revision", "")
        return dataclasses.replace(section, hf=name, revision=hub.find(section.hf, revision=asked).revision)

    def pin_judge(judge: Any, *at: str) -> Any:
        used = judge.backend == "local"
        return dataclasses.replace(judge, local=pin(judge.local, *at, "local")) if used else judge

    return dataclasses.replace(
        config,
        model=pin(config.model, "model"),
        judge=pin_judge(config.judge, "judge"),
        eval=dataclasses.replace(config.eval, judge=pin_judge(config.eval.judge, "eval", "judge")),
    )


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

    def abstract(self, dtype: str) -> Any:
        """ShapeDtypeStruct of every parameter with its sharding."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            self.model.abstract(jnp.dtype(dtype)),
            self.shardings,
        )

    def load(self, dtype: str) -> Any:
        """Parameters of the folder on the mesh."""
        return importer.load_hf(self.folder, self.model, dtype=jnp.dtype(dtype), shardings=self.shardings)

    def put(self, batch: Any) -> Any:
        """Host arrays of this process → global arrays with the prompt axis over the batch axes of the mesh."""
        sharding = meshes.batch_sharding(self.mesh)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def policy(config: Config) -> Policy:
    """Reads config and processor of the starting policy and builds mesh and model; no weights yet."""
    folder = model_folder(config.model.hf, config.model.revision)
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    meshes.require_own_prompts(mesh)
    made = model(config, ModelConfig.load(folder), mesh)
    attention = kernel_trial.tried(made.attention, made.config, dtype=made.compute_dtype, device=mesh.local_devices[0])
    return Policy(folder, dataclasses.replace(made, attention=attention), Processor.load(folder), mesh)


def model(config: Config, shape: ModelConfig, mesh: jax.sharding.Mesh) -> Model:
    """A model of this shape as the config runs it on the devices of the mesh, which need not be there."""
    dtype, device = jnp.dtype(config.model.compute_dtype), mesh.devices.flat[0]
    return Model.create(
        shape,
        compute_dtype=dtype,
        remat=config.model.remat,
        unrolled=unrolls(mesh),
        decode_kernel=config.model.attention != "xla" and _with_decode_kernel(shape, mesh, dtype),
        attention=kernels.for_device(config.model.attention, device=device, dtype=dtype),
        mesh=mesh,
    )


def _with_decode_kernel(shape: ModelConfig, mesh: jax.sharding.Mesh, dtype: Any) -> bool:
    """Whether to decode with the kernel: where it is made for the devices, and right on those that are here."""
    known: dict[str, Any] = {"dtype": dtype}
    if not decode_kernel.able(shape.text, device=mesh.devices.flat[0], **known):
        return False
    here = [device for device in mesh.devices.flat if device in jax.local_devices()]
    wrong = bool(here) and not decode_kernel.right(shape.text, device=here[0], **known)
    return not anywhere(np.array(wrong))  # all processes must run one program


def encoder(config: Config, policy: Policy, *, responses: bool = False) -> Encoder:
    """How the config's examples become prompts."""
    data = config.data
    return Encoder(
        policy.processor,
        style=find_style(data.prompt),
        min_pixels=data.min_pixels,
        max_pixels=data.max_pixels,
        max_prompt_tokens=data.max_prompt_tokens,
        responses=responses,
        # Others see what the policy saw: its patches, which always travel.
        keep_images=bool(config.rewards.custom) or "server" in (config.judge.backend, config.eval_judge.backend),
    )


def decoder(config: Config, policy: Policy) -> Decode:
    """Completion ids → the whole response, what the prompt gave of it included."""
    prefill = find_style(config.data.prompt).prefill
    return lambda ids: prefill + policy.processor.decode(ids)


def buckets(config: Config) -> Buckets:
    """The padded lengths of the config; an empty list leaves the built-in ladder."""
    given = config.data.buckets
    fields: dict[str, Any] = {"prompt": given.prompt, "completion": given.completion, "patches": given.patches}
    return Buckets(**{name: tuple(rungs) for name, rungs in fields.items() if rungs})


def batches(config: Config, source: Source, encoder: Encoder, **settings: Any) -> PromptIterator:
    """Batches of this process, in the padded lengths of the config."""
    mine: dict[str, Any] = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    return PromptIterator(source, encoder, buckets=buckets(config), **mine, **settings)


def training_batches(config: Config, policy: Policy) -> PromptIterator:
    """Prompts for rollouts: what the filters leave, shuffled by the run's seed, without end."""
    made, data = encoder(config, policy), config.data
    chosen = selection.select(config, source(config, data.train_split), made)
    order: dict[str, Any] = {"seed": config.seed, "group": data.buckets.group}
    order |= {"known": chosen.known, "selection": chosen.digest}
    return batches(config, chosen.source, made, batch_size=data.prompts_per_step, workers=data.workers, **order)


def heldout_batches(
    config: Config, policy: Policy, *, source: Source | None = None, workers: int = 0
) -> PromptIterator:
    """Held-out questions (those of `heldout` without a source), in order, once; the last batch is filled up."""
    asked = heldout(config) if source is None else source
    once: dict[str, Any] = {"batch_size": config.eval.batch_prompts, "epochs": 1, "remainder": "pad"}
    return batches(config, asked, encoder(config, policy), workers=workers, **once)


def supervised_batches(
    config: Config, policy: Policy, *, split: str, repeat: bool, limit: int | None = None
) -> PromptIterator:
    """Prompts with reference responses: shuffled without end (`repeat`), or the first `limit` once, filled up."""
    endless, once = {"seed": config.seed, "workers": config.data.workers}, {"epochs": 1, "remainder": "pad"}
    order: dict[str, Any] = endless if repeat else once
    traces, made = source(config, split, traces=True, size=limit), encoder(config, policy, responses=True)
    return batches(config, traces, made, batch_size=config.sft.batch, **order)


def eval_window(config: Config) -> int:
    """Tokens of an answer at most, in evaluation."""
    return config.eval.max_new_tokens or config.rollout.max_new_tokens


def sampler(config: Config, policy: Policy, *, purpose: str) -> Sampler:
    """The sampler for 'train' (group_size rollouts a prompt), 'filter' (the same, data.difficulty.rollouts of them) or
    'eval' (one, at the evaluation temperature)."""
    processor, settings = policy.processor, config.rollout
    if purpose == "filter":
        settings = dataclasses.replace(settings, group_size=config.data.difficulty.rollouts)
    if purpose == "eval":
        window, temperature = eval_window(config), config.eval.temperature
        settings = dataclasses.replace(settings, group_size=1, max_new_tokens=window, temperature=temperature)
    return Sampler(
        policy.model,
        settings,
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        banned=processor.banned,
        stops=StopTable.build(settings.stop, processor.token_bytes) if settings.stop else None,
        mesh=policy.mesh,
        # Laid out for decoding once a rollout batch, so that no token waits for a weight to be gathered.
        param_shardings=meshes.shardings(policy.model.specs, policy.mesh, rules=meshes.SAMPLE_RULES),
    )


def constraints(config: Config) -> tuple[Constraint, ...]:
    """The constraints as the learner takes them. Those out of force keep λ = 0, which is GRPO bit for bit."""
    in_force = config.algorithm.aggregation == "fgrpo"
    return tuple(c if c.enabled and in_force else c.out_of_force for c in config.constraints)


def measures(config: Config) -> tuple[Measure, ...]:
    """What the rows of the constraint arrays hold."""
    return tuple(Measure(c.measured, c.mask) for c in config.constraints)


def learner(config: Config, policy: Policy) -> Learner:
    """The compiled FGRPO step of the config."""
    lora = config.model.lora
    settings = LearnerConfig(
        constraints=constraints(config),
        algorithm=config.algorithm,
        rule=Rule(config.optim, config.num_steps * config.algorithm.updates_per_batch),
        freeze=config.model.freeze,
        lora=lora if lora.rank else None,
        seed=config.seed,
        temperature=config.rollout.temperature,
    )
    partition(policy.model.specs, settings.freeze)  # a rule that matches nothing is refused now, not in the first step
    made = Learner(policy.model, settings, jnp.asarray(policy.processor.banned))
    made.trained.paths(policy.model.specs)
    return made


def supervised_learner(config: Config, policy: Policy) -> SupervisedLearner:
    """The compiled supervised step of the config."""
    sft = config.sft
    settings = dataclasses.replace(
        config.optim,
        name=sft.optimizer,
        learning_rate=sft.learning_rate,
        schedule=sft.schedule,
        warmup_updates=round(sft.warmup_ratio * sft.steps),
        weight_decay=sft.weight_decay,
        clip_norm=sft.clip_norm,
    )
    partition(policy.model.specs, sft.freeze)
    return SupervisedLearner(
        policy.model,
        Rule(settings, sft.steps),
        sft.freeze,
        jnp.asarray(policy.processor.banned),
        micro_batches=sft.batch // sft.micro_batch,
    )


def rewards(config: Config) -> RewardConfig:
    """The reward settings in the form the scorer takes, with the functions of the user's own."""
    section, style = config.rewards, find_style(config.data.prompt)
    return RewardConfig(
        dialect=find_dialect(style.dialect),  # of whole responses: `decoder` puts before them what the prompt gave
        answer=section.answer,
        accuracy_weight=section.accuracy_weight,
        format_weight=section.format_weight,
        ciou_mapping=section.ciou_mapping,
        dedupe_boxes=section.dedupe_boxes,
        no_claim=section.no_claim,
        weights=dict(section.weights),
        window=config.rollout.max_new_tokens,
        overlong_cache=section.overlong_cache,
        custom=CustomRewards(
            checks.custom(config), concurrency=section.custom_concurrency, timeout=section.custom_timeout
        ),
    )
