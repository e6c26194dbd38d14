"""ConfigDict → validated frozen dataclasses, once, at the door.

`configs/default.py` says what every field means; here stand its type, its range and what must not be combined. `load`
is the only way in: an unknown key fails with the nearest name, a wrong value with the rule and the remedy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

from fgrpo_jax.config import checks, sections_judge
from fgrpo_jax.config.checks_data import check_source
from fgrpo_jax.config.schema import AtLeast, Between, MoreThan, build, nearest, plain
from fgrpo_jax.config.sections_judge import EvalJudgeSection, ExtractorSection, JudgeSection
from fgrpo_jax.data.styles import find_style

CONSTRAINT_NAMES = ("consistency", "semantic_grounding", "spatial_grounding")
"""The paper's constraints, R_C, R_S and R_G; their names are an interface (metrics, checkpoints)."""

Door = Literal["train", "sft", "evaluate"]

Fraction = Annotated[float, Between(0.0, 1.0)]
Positive = Annotated[float, MoreThan(0.0)]
NonNegative = Annotated[float, AtLeast(0.0)]
Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class LoraSection:
    rank: CountOrZero
    alpha: Positive
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ModelSection:
    hf: str
    revision: str
    param_dtype: Dtype
    compute_dtype: Dtype
    remat: Literal["none", "full", "dots"]
    freeze: tuple[str, ...]
    lora: LoraSection


@dataclasses.dataclass(frozen=True)
class FlawsSection:
    contradicts_right: NonNegative
    lucky: NonNegative
    wrong_box: NonNegative
    false_claim: NonNegative


@dataclasses.dataclass(frozen=True)
class WorldSection:
    difficulty: str
    families: Mapping[str, NonNegative]
    flawed: Fraction
    flaws: FlawsSection
    yes_no: Fraction
    seed: CountOrZero


@dataclasses.dataclass(frozen=True)
class BucketsSection:
    prompt: tuple[Count, ...]
    completion: tuple[Count, ...]
    patches: tuple[Count, ...]
    choose: CountOrZero
    group: CountOrZero
    measure: Count
    precompile: bool


@dataclasses.dataclass(frozen=True)
class DifficultySection:
    rollouts: Annotated[int, AtLeast(2)]
    keep: Fraction
    examples: CountOrZero
    batch_prompts: Count


@dataclasses.dataclass(frozen=True)
class MixSection:
    set: str
    path: str
    split: str
    count: CountOrZero
    boxes: bool


@dataclasses.dataclass(frozen=True)
class DataSection:
    source: str
    path: str
    bad: Literal["error", "skip"]
    open_answers: Literal["keep", "drop", "choices"]
    mix: Mapping[str, MixSection]
    mix_seed: CountOrZero
    train_split: str
    eval_split: str
    prompts_per_step: Count
    max_prompt_tokens: Count
    overlong: Literal["error", "drop"]
    length_cache: str
    filter: str
    difficulty: DifficultySection
    min_pixels: Count
    max_pixels: Count
    prompt: str
    workers: CountOrZero
    buckets: BucketsSection
    world: WorldSection


@dataclasses.dataclass(frozen=True)
class RolloutSection:
    group_size: Annotated[int, AtLeast(2)]
    max_new_tokens: Annotated[int, AtLeast(2)]
    temperature: Positive
    top_p: Annotated[float, MoreThan(0.0), Between(0.0, 1.0)]
    top_k: CountOrZero
    min_p: Fraction
    repetition_penalty: Positive
    min_new_tokens: CountOrZero
    stop: tuple[str, ...]
    compact: bool
    batch_prompts: Count
    logp_max_warn: Positive
    logp_max_stop: Positive
    logp_mean_warn: Positive
    logp_mean_stop: Positive
    logp_patience: Count


@dataclasses.dataclass(frozen=True)
class RewardsSection:
    accuracy_weight: NonNegative
    format_weight: NonNegative
    weights: Mapping[str, float]
    custom: Mapping[str, str]
    custom_concurrency: Count
    custom_timeout: Positive
    overlong_cache: CountOrZero
    ciou_mapping: Literal["clamp", "shift"]
    dedupe_boxes: bool
    no_claim: Literal["masked", "zero"]
    box_iou_correct: Fraction


@dataclasses.dataclass(frozen=True)
class ConstraintSection:
    name: str
    enabled: bool
    signal: str
    weight: NonNegative
    threshold: float
    direction: Literal[">=", "<="]
    mask: Literal["own", "correct", "all"]
    rule: Literal["linear", "exponential", "pid"]
    lr: NonNegative
    kp: NonNegative
    kd: NonNegative
    init: NonNegative
    min: NonNegative
    max: Positive
    min_applicable: CountOrZero
    window: Count
    delay: CountOrZero

    @property
    def sign(self) -> int:
        """+1 where the mean must reach the threshold, -1 where it must stay below it."""
        return 1 if self.direction == ">=" else -1


@dataclasses.dataclass(frozen=True)
class AlgorithmSection:
    aggregation: Literal["fgrpo", "grpo", "gdpo", "additive", "multiplicative"]
    task_weight: NonNegative
    normalise_lambda: bool
    filter_dead: bool
    max_resample: CountOrZero
    masked: Literal["masked", "zero_fill"]
    ddof: Annotated[int, Between(0, 1)]
    eps: Positive
    std: bool
    whiten: Literal["live", "all", "none"]
    ratio: Literal["token", "sequence"]
    clip_low: Annotated[float, MoreThan(0.0), Between(0.0, 1.0)]
    clip_high: Positive
    dual_clip: Annotated[float | None, MoreThan(1.0)]
    kl_coef: NonNegative
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_clamp: Positive
    kl_in: Literal["loss", "reward"]
    entropy_coef: NonNegative
    overlong: Literal["keep", "mask"]
    importance_cap: Annotated[float | None, AtLeast(1.0)]
    loss_aggregation: Literal["token_mean", "sequence_mean", "constant"]
    updates_per_batch: Count
    micro_batch_prompts: Count
    reference_every: CountOrZero


@dataclasses.dataclass(frozen=True)
class OptimSection:
    learning_rate: Positive
    schedule: Literal["constant", "cosine", "linear"]
    warmup_updates: CountOrZero
    b1: Fraction
    b2: Fraction
    eps: Positive
    weight_decay: NonNegative
    clip_norm: Positive
    compensated: bool
    mean_dtype: Dtype
    max_skipped: Count


@dataclasses.dataclass(frozen=True)
class MeshSection:
    data: int
    fsdp: int
    tensor: int


@dataclasses.dataclass(frozen=True)
class EvalSection:
    judge: EvalJudgeSection
    extractor: ExtractorSection
    examples: CountOrZero
    sets: tuple[str, ...]
    root: str
    paths: Mapping[str, str]
    limit: CountOrZero
    max_new_tokens: CountOrZero
    resamples: Count
    temperature: NonNegative
    batch_prompts: Count
    every: CountOrZero
    seed: CountOrZero


@dataclasses.dataclass(frozen=True)
class CheckpointSection:
    every: CountOrZero
    keep: Count


@dataclasses.dataclass(frozen=True)
class LogSection:
    tensorboard: bool
    rollouts: bool


@dataclasses.dataclass(frozen=True)
class SftSection:
    steps: Count
    batch: Count
    micro_batch: Count
    optimizer: Literal["adamw", "muon"]
    learning_rate: Positive
    schedule: Literal["constant", "cosine", "linear"]
    warmup_ratio: Fraction
    weight_decay: NonNegative
    clip_norm: Positive
    eval_split: str
    eval_every: Count
    target_loss: NonNegative
    eval_examples: Count
    freeze: tuple[str, ...]
    describe: Fraction


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. See configs/default.py for the meaning of every field."""

    seed: CountOrZero
    num_steps: Count
    model: ModelSection
    data: DataSection
    rollout: RolloutSection
    rewards: RewardsSection
    judge: JudgeSection
    constraints: tuple[ConstraintSection, ...]
    algorithm: AlgorithmSection
    optim: OptimSection
    mesh: MeshSection
    eval: EvalSection
    checkpoint: CheckpointSection
    log: LogSection
    sft: SftSection

    @property
    def active_constraints(self) -> tuple[ConstraintSection, ...]:
        """The constraints in force, in the order of every [C] array; none under plain GRPO."""
        return tuple(c for c in self.constraints if c.enabled)

    @property
    def micro_batches(self) -> int:
        """Micro-batches an optimiser update is accumulated over."""
        algorithm = self.algorithm
        return self.data.prompts_per_step // (algorithm.updates_per_batch * algorithm.micro_batch_prompts)


def load(config: Mapping[str, Any], *, door: Door = "train") -> Config:
    """Checks a ConfigDict (or plain nested dict) and freezes it.

    Args:
      config: all sections and fields of configs/default.py, no more and no less.
      door: what the run does; some settings are refused in training only.

    Raises:
      ValueError: unknown or missing field, wrong type, value out of range, contradiction; names field and remedy.
    """
    raw = plain(config)
    sections_judge.refuse_moved(raw)
    named = raw.get("constraints")
    if not isinstance(named, Mapping):
        raise ValueError(
            "config.constraints must map constraint names to their settings; start from configs/default.py"
        )
    raw["constraints"] = [_constraint(name, named[name], checks.signal_names(raw)) for name in _ordered(named)]
    checked = build(Config, raw, path="config")
    _check_data(checked)
    _check_batches(checked)
    _check_guards(checked)
    sections_judge.check_judges(checked)
    if door != "evaluate":
        _check_training(checked, door)
    return checked


def _ordered(names: Iterable[str]) -> list[str]:
    """The order of every [C] array: the paper's constraints, then the others by name."""
    names = set(names)
    return [*(n for n in CONSTRAINT_NAMES if n in names), *sorted(names - set(CONSTRAINT_NAMES))]


def _constraint(name: str, fields: Any, signals: Collection[str]) -> dict[str, Any]:
    """The section of one constraint with its name and, where it names none, its signal."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"config.constraints.{name} must be a section with fields, got {fields!r}")
    named = fields.get("signal", name) or name
    if named not in signals:
        own = f"unknown constraint 'config.constraints.{name}': there is no signal of that name"
        what = own if named == name else f"config.constraints.{name}.signal='{named}' is no signal"
        raise ValueError(f"{what}; {nearest(str(named), signals)} (fgrpo_jax/rewards/signals.py lists them)")
    return {**fields, "name": name, **({"signal": named} if "signal" in fields else {})}


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved config as plain JSON types; `load` takes it back."""
    out = plain(dataclasses.asdict(config))
    out["constraints"] = {c.pop("name"): c for c in out["constraints"]}
    for name, section in out["constraints"].items():
        section["signal"] = "" if section["signal"] == name else section["signal"]
    return out


def resume_free(config: Config) -> tuple[str, ...]:
    """Fields that may differ when a run is resumed, as patterns: they do not change what a step computes.

    `num_steps` is among them only when the learning rate does not depend on it.
    """
    free = ("checkpoint.*", "log.*", "eval.every", "data.path", "data.workers", "data.buckets.precompile", "mesh.*")
    free += ("rollout.compact", *(f"{at}.{name}" for at in ("judge", "eval.judge") for name in sections_judge.FREE))
    free += ("data.filter", "data.length_cache", "data.difficulty.*", "data.mix.*.path")
    free += ("eval.sets", "eval.root", "eval.paths.*", "eval.limit", "eval.resamples")
    free += ("rewards.custom_concurrency", "rewards.custom_timeout")
    return (*free, "num_steps") if config.optim.schedule == "constant" else free


# ----------------------------------------------------------------------------------------------- what must not combine
def _check_data(config: Config) -> None:
    data = config.data
    find_style(data.prompt)
    check_source(data)
    if data.min_pixels > data.max_pixels:
        raise ValueError(f"config.data.min_pixels={data.min_pixels} exceeds max_pixels={data.max_pixels}; swap them")
    lists = [name for name in ("prompt", "patches") if getattr(data.buckets, name)]
    if data.buckets.choose and lists:
        raise ValueError(
            f"config.data.buckets.choose={data.buckets.choose} chooses lengths from the data, but buckets.{lists[0]} "
            "gives them; drop one of the two"
        )
    checks.check_selection(config)
    if data.source == "world" and config.data.world.families and not any(data.world.families.values()):
        raise ValueError("config.data.world.families gives every family weight 0; give one a positive weight")


def _divides(small: int, large: int, what: str, whole: str, remedy: str) -> None:
    if large % small:
        raise ValueError(f"{what}={small} does not divide {whole}={large}; {remedy}")


def _check_batches(config: Config) -> None:
    prompts, algorithm = config.data.prompts_per_step, config.algorithm
    whole = "config.data.prompts_per_step"
    updates, micro = algorithm.updates_per_batch, algorithm.micro_batch_prompts
    _divides(config.rollout.batch_prompts, prompts, "config.rollout.batch_prompts", whole, "use one of its divisors")
    _divides(updates, prompts, "config.algorithm.updates_per_batch", whole, "every update takes an equal share")
    _divides(
        micro,
        prompts // updates,
        "config.algorithm.micro_batch_prompts",
        f"{whole}/updates_per_batch",
        "use a divisor of the prompts of one update",
    )
    _divides(config.sft.micro_batch, config.sft.batch, "config.sft.micro_batch", "config.sft.batch", "use a divisor")


def _check_guards(config: Config) -> None:
    rollout = config.rollout
    for kind, warn, stop in (
        ("max", rollout.logp_max_warn, rollout.logp_max_stop),
        ("mean", rollout.logp_mean_warn, rollout.logp_mean_stop),
    ):
        if warn > stop:
            raise ValueError(f"config.rollout.logp_{kind}_warn={warn} exceeds logp_{kind}_stop={stop}; lower it")
    if rollout.min_new_tokens > rollout.max_new_tokens:
        raise ValueError(
            f"config.rollout.min_new_tokens={rollout.min_new_tokens} exceeds max_new_tokens={rollout.max_new_tokens}; "
            "lower it"
        )
    if not all(rollout.stop):
        raise ValueError(f"config.rollout.stop={list(rollout.stop)} holds an empty text; drop it")
    for name in ("data", "fsdp", "tensor"):
        size = getattr(config.mesh, name)
        if size < 1 and size != -1:
            raise ValueError(f"config.mesh.{name}={size}; use a positive size, or -1 on one axis for the rest")


def _check_training(config: Config, door: Door) -> None:
    freeze = config.model.freeze if door == "train" else config.sft.freeze
    _check_masters(config, door)
    if any(rule in ("*", "**") for rule in freeze):
        raise ValueError(f"freeze rules {list(freeze)} leave nothing to train; remove '*' or '**'")
    if door == "train":
        _check_learning(config)


def _check_masters(config: Config, door: Door) -> None:
    """That no update is lost in the rounding of what holds the weights, and what adapters go with."""
    model, optim, adapters = config.model, config.optim, config.model.lora.rank > 0
    if model.param_dtype != "float32" and not (optim.compensated or adapters):
        # Measured: 20 AdamW steps at lr 1e-6 change 2% of N(0, 0.02) bfloat16 weights; the others round back.
        raise ValueError(
            "config.model.param_dtype='bfloat16' loses small updates (it keeps 8 bits); set optim.compensated=True, or "
            "train with float32 masters (param_dtype='float32') and compute_dtype='bfloat16' for speed"
        )
    if optim.compensated and (model.param_dtype == "float32" or adapters):
        what = "adapters" if adapters else "weights"
        raise ValueError(f"config.optim.compensated=True is for bfloat16 weights, these {what} are float32; drop it")
    if adapters and door == "sft":
        raise ValueError(f"config.model.lora.rank={model.lora.rank}: supervised training trains weights; set rank=0")
    every = config.algorithm.reference_every
    if every and (adapters or not config.algorithm.kl_coef):
        why = "adapters stay near their base" if adapters else "kl_coef=0 has no reference"
        raise ValueError(f"config.algorithm.reference_every={every}, but {why}; set reference_every=0")


def _check_learning(config: Config) -> None:
    rewards, optim = config.rewards, config.optim
    checks.check_sampling(config)
    checks.check_algorithm(config)
    if rewards.accuracy_weight + rewards.format_weight == 0:
        raise ValueError(
            "config.rewards.accuracy_weight and format_weight are both 0: there is no task reward; set one"
        )
    checks.check_signals(config)
    sections_judge.check_constraints(config)
    signals = checks.signals(config)
    for constraint in config.constraints:
        checks.check_constraint(constraint, signals)
    total = config.num_steps * config.algorithm.updates_per_batch
    if optim.schedule != "constant" and optim.warmup_updates >= total:
        raise ValueError(
            f"config.optim.warmup_updates={optim.warmup_updates} leaves nothing of the {total} updates to a "
            f"'{optim.schedule}' schedule; lower it or use schedule='constant'"
        )
