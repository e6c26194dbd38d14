"""The config as one frozen record. Every field stands here or in the room that reads it, once.

A field has its type, default, range and meaning in its declaration; `config.schema` checks values against them,
`config.reference` writes docs/config.md from them, and `configs/default.py` is made of the defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from fgrpo_jax.fgrpo.settings import Algorithm, Constraint, Dtype, Lora, Optimizer
from fgrpo_jax.fields import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, AtLeast, field
from fgrpo_jax.rewards.judges.settings import Server
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.world.settings import FlawMix

CONSTRAINT_NAMES = ("consistency", "semantic_grounding", "spatial_grounding")
"""The paper's constraints, R_C, R_S and R_G. Their names are an interface: metrics and checkpoints have them."""

WORKDIR = "WORKDIR"
"""First part of a path that stands in the workdir of the run."""


@dataclasses.dataclass(frozen=True)
class ModelSection:
    """The policy."""

    hf: str = field("shipped", "Starting policy: an HF folder, a hub id, or 'shipped', the warm start of the package.")
    revision: str = field("", "Of a hub id: branch, tag or commit. A run stores the commit it began with.")
    param_dtype: Dtype = field("float32", "Masters. Training takes bfloat16 only with optim.compensated or adapters.")
    compute_dtype: Dtype = field("float32", "Activations and matrix products.")
    remat: Literal["none", "dots", "full"] = field("none", "What the backward pass computes again: nothing, all but products with weights (dots), or all.")
    attention: Literal["auto", "xla", "cudnn", "splash"] = field("auto", "Of prompts, completions and images: a kernel of the GPU (cudnn) or TPU (splash), the form that runs everywhere (xla, in decoding too), or what the device has; docs/training.md.")
    freeze: tuple[str, ...] = field(("visual/**",), "Parameters that FGRPO leaves alone. The paper freezes the tower, merger included.")
    lora: Lora = field(Lora, "Adapters; docs/training.md.")


@dataclasses.dataclass(frozen=True)
class WorldSection:
    """The built-in world."""

    difficulty: Literal["tiny", "easy", "hard"] = field("tiny", "How large, crowded and varied the scenes are.")
    families: Mapping[str, float] = field(dict, "Weight of each question family. Empty is the world's own mix.", NOT_NEGATIVE)
    flawed: float = field(0.28, "Share of reference traces that are flawed on purpose, in supervised training.", FRACTION)
    flaws: FlawMix = field(FlawMix, "Weights of the kinds of flaw.")
    yes_no: float = field(0.5, "Share of yes/no questions. The others are multiple choice.", FRACTION)
    seed: int = field(0, "Of the world itself: runs with another `seed` are tried on the same questions.", AtLeast(0))


@dataclasses.dataclass(frozen=True)
class BucketsSection:
    """Padded lengths that batches may have. Each combination is compiled once. () is a ladder of lengths."""

    prompt: tuple[int, ...] = field((), "Prompt tokens.", COUNT)
    completion: tuple[int, ...] = field((), "Response tokens in supervised training. A trace beyond the largest is an error.", COUNT)
    patches: tuple[int, ...] = field((), "14-pixel patches an image, multiples of 4.", COUNT)
    choose: int = field(0, "Instead of lists: at most so many joint shapes, those that pad the run's batches least.", AtLeast(0))
    group: int = field(0, "Batches in a row whose prompts are shared out by size, for less padding. 0 leaves them as shuffled.", AtLeast(0))
    measure: int = field(512, "First batches of the run that are measured to choose lengths and to compile ahead.", COUNT)
    precompile: bool = field(True, "Compile every shape those batches have before the first step.")


@dataclasses.dataclass(frozen=True)
class DifficultySection:
    """How fgrpo_jax.filter chooses prompts; docs/data.md."""

    rollouts: int = field(4, "Completions a prompt. It is kept where some are right and some wrong.", AtLeast(2))
    keep: float = field(0.1, "Share of the others that is kept too, chosen by id.", FRACTION)
    examples: int = field(0, "First examples of the training source that are tried. 0 is all.", AtLeast(0))
    batch_prompts: int = field(32, "Prompts a sampler call.", COUNT)


@dataclasses.dataclass(frozen=True)
class MixSection:
    """One set of a mix; see configs/paper_mix.py."""

    set: str = field("", "Name of the set, or 'prepared'.")
    path: str = field("", "Its folder, below data.path unless absolute. Empty is the member's name.")
    split: str = field("train", "Also a part such as train[500:].")
    columns: Mapping[str, str] = field(dict, "As data.columns.")
    images: str = field("", "As data.images.")
    count: int = field(0, "Examples drawn, without replacement. 0 is all.", AtLeast(0))
    boxes: bool = field(True, "False: its boxes are no gold boxes, and R_G is masked.")


@dataclasses.dataclass(frozen=True)
class DataSection:
    """What is asked."""

    source: str = field("world", "world (built in), mix, prepared, or a set's name such as sat, nlvr, or files for your own; docs/data.md.")
    path: str = field("", "Its folder, as published or as `prepare` made it; of your own files also a file or a hub id. The built-in world has none.")
    columns: Mapping[str, str] = field(dict, "Of your own files, which column is which field, {question: problem}; '' is none. docs/data.md names those that are found without it.")
    images: str = field("", "Of your own files, the folder that image paths are below. Empty is the file's own.")
    bad: Literal["error", "skip"] = field("error", "Rows that cannot be used: stop, naming file and row (error), or leave out and count (skip).")
    train_split: str = field("train", "World: train, heldout or validation. Else a split of the source, also a part such as train[500:].")
    eval_split: str = field("heldout", "It shares no examples with train_split; train[:500] beside train[500:] will do.")
    open_answers: Literal["keep", "drop", "choices"] = field("keep", "Questions without options: keep, drop, or make choices of the set's other answers.")
    mix: Mapping[str, MixSection] = field(dict, "The members of source = 'mix', by name; see configs/paper_mix.py.")
    mix_seed: int = field(0, "Which examples of each member are drawn. It is not `seed`, so that runs share their data.", AtLeast(0))
    prompts_per_step: int = field(128, "M of a rollout batch, over all devices.", COUNT)
    max_prompt_tokens: int = field(8192, "A prompt is never cut. What becomes of a longer one is `overlong`.", COUNT)
    overlong: Literal["error", "drop"] = field("error", "drop: all training prompts are measured before the run, and longer ones left out.")
    length_cache: str = field("", "Folder that keeps what was measured. Empty is ~/.cache/fgrpo_jax.")
    filter: str = field("", "List of training examples to keep, or the workdir of fgrpo_jax.filter. Empty keeps all.")
    difficulty: DifficultySection = field(DifficultySection, "How fgrpo_jax.filter makes that list.")
    min_pixels: int = field(262_144, "Images are enlarged to this. The paper does not state it; EasyR1's value.", COUNT)
    max_pixels: int = field(4_194_304, "Images are shrunk to this. The paper does not state it; EasyR1's value.", COUNT)
    prompt: str = field("paper", "paper, tiny, direct, cot, vigorl, treevgr, vlm_r1 (data/styles.py), or a file FILE.json of your own.")
    workers: int = field(0, "Grain worker processes that read images and tokenise. 0 works in the main process.", AtLeast(0))
    buckets: BucketsSection = field(BucketsSection, "Padded lengths of batches.")
    world: WorldSection = field(WorldSection, "The built-in world.")


@dataclasses.dataclass(frozen=True)
class RewardsSection:
    """R_task, and how signals are measured."""

    answer: Literal["reader", "strict"] = field("reader", "R_acc. reader: the option that the answer commits to. strict: the gold letter or text alone between answer tags.")
    accuracy_weight: float = field(0.5, "Weight of R_acc in R_task.", NOT_NEGATIVE)
    format_weight: float = field(0.5, "Weight of R_fmt in R_task.", NOT_NEGATIVE)
    weights: Mapping[str, float] = field(dict, "Further signals in R_task, {name: weight}. A signal adds 0 where it does not apply.")
    custom: Mapping[str, str] = field(dict, "Signals of your own, {name: 'package.module:function'}; docs/rewards.md.")
    custom_concurrency: int = field(8, "Calls of asynchronous functions of your own under way at once.", COUNT)
    custom_timeout: float = field(600.0, "Seconds that such a call may take before the run stops.", POSITIVE)
    overlong_cache: int = field(0, "Tokens before the end of the window over which the signal `overlong` falls to -1.", AtLeast(0))
    ciou_mapping: Literal["clamp", "shift"] = field("clamp", "clamp: max(CIoU, 0). shift: (CIoU + 1)/2. The paper states no map to [0, 1].")
    dedupe_boxes: bool = field(False, "True: a box predicted twice counts once in N of Eq. 1.")
    no_claim: Literal["masked", "zero"] = field("masked", "R_S of a reasoning without any visual claim.")
    box_iou_correct: float = field(0.5, "IoU with the named object from which the rules judge calls a box correct.", FRACTION)


@dataclasses.dataclass(frozen=True)
class LocalSection:
    """A frozen Qwen2.5-VL in this process, on the mesh of the policy."""

    hf: str = field("", "HF folder or hub id.")
    revision: str = field("", "Of a hub id: branch, tag or commit.")
    dtype: Dtype = field("bfloat16", "Of its weights and activations.")


@dataclasses.dataclass(frozen=True)
class JudgeSection:
    """Who says whether a reasoning is consistent (R_C) and grounded (R_S); docs/judges.md."""

    backend: Literal["rules", "none", "local", "server"] = field("rules", "rules: exact where the scene is known. none: R_S is masked, R_C is by rules. local, server: a model.")
    precheck: bool = field(True, "Rules decide the clear cases of consistency before a model is asked.")
    unread: Literal["incorrect", "abstain"] = field("incorrect", "Sentences that rules can't read: INCORRECT, so that gibberish gains nothing, or masked (abstain).")
    frame: Literal["processed", "original", "unit", "thousand"] = field("processed", "Boxes as the judge speaks them: processed or original pixels, 0..1 (unit), 0..1000 (thousand).")
    consistency_prompt: str = field("", "File with the prompt of consistency in the place of ours, such as the paper's Figure 6; docs/judges.md.")
    semantic_prompt: str = field("", "The same of semantic grounding, such as the paper's Figure 7.")
    max_failure_rate: float = field(0.2, "The run saves a checkpoint and stops when more of its requests to a model fail.", FRACTION)
    min_failures: int = field(20, "It only stops when no fewer requests than these failed.", COUNT)
    window: int = field(10, "Both are counted over the last so many steps.", COUNT)
    concurrency: int = field(32, "Requests under way at once.", COUNT)
    cache: str = field("WORKDIR/judge.sqlite", "Verdicts of a model, each asked for once. WORKDIR is the run's. Empty keeps none.")
    trivial_prefixes: tuple[str, ...] = field((), "Beginnings of sentences a model is not asked about. () is the list of reading/sentences.py.")
    visual_words: tuple[str, ...] = field((), "Words without which a model is not asked about a sentence. () is the list of reading/words.py.")
    local: LocalSection = field(LocalSection, "The model of backend = 'local'.")
    server: Server = field(Server, "The endpoint of backend = 'server'.")

    @property
    def asks_a_model(self) -> bool:
        """Whether a model answers what rules leave open."""
        return self.backend not in ("rules", "none")


@dataclasses.dataclass(frozen=True)
class EvalJudgeSection(JudgeSection):
    """The judge of evaluations."""

    backend: Literal["same", "rules", "none", "local", "server"] = field("same", "same: the judge of training. The others as in config.judge.")


@dataclasses.dataclass(frozen=True)
class MeshSection:
    """Devices. The product of the sizes is their number; -1 on one axis takes the rest."""

    data: int = field(-1, "Copies of the model, each on its share of the prompts.")
    fsdp: int = field(1, "Shards of parameters and optimiser state. Prompts are split over it too.")
    tensor: int = field(1, "Shards of heads and of the hidden width of the MLPs.")


@dataclasses.dataclass(frozen=True)
class ExtractorSection:
    """Who reads the answer in a response; docs/evaluation.md."""

    backend: Literal["rules", "server"] = field("rules", "server: a language model, as in the paper's evaluation.")
    concurrency: int = field(32, "Requests under way at once.", COUNT)
    server: Server = field(Server, "Its endpoint. Images are not sent.")


@dataclasses.dataclass(frozen=True)
class EvalSection:
    """Held-out figures, and `evaluate`."""

    judge: EvalJudgeSection = field(EvalJudgeSection, "The judge of evaluations.")
    extractor: ExtractorSection = field(ExtractorSection, "Who reads the answer in a response.")
    examples: int = field(500, "Held-out questions, tried before and after training. 0 skips it.", AtLeast(0))
    sets: tuple[str, ...] = field((), "Of `evaluate`, such as ('mmvp', 'nlvr:hidden'). () is data.source with data.eval_split.")
    root: str = field("", "Folder that holds one folder a set, by its name.")
    paths: Mapping[str, str] = field(dict, "Folders of single sets, {name: folder}, where they are not in root.")
    limit: int = field(0, "Of each of these sets the first so many questions. 0 takes all.", AtLeast(0))
    max_new_tokens: int = field(0, "Tokens of an answer at most. 0 is rollout.max_new_tokens.", AtLeast(0))
    resamples: int = field(10_000, "Bootstrap samples of the intervals.", COUNT)
    temperature: float = field(1.0, "0 is greedy.", NOT_NEGATIVE)
    batch_prompts: int = field(16, "Prompts a sampler call.", COUNT)
    every: int = field(0, "Also every so many steps of training. 0: only before and after.", AtLeast(0))
    seed: int = field(0, "Of the sampling in evaluation. It is the same for every run, so that differences are paired.", AtLeast(0))


@dataclasses.dataclass(frozen=True)
class CheckpointSection:
    """When the state is saved."""

    every: int = field(50, "Steps. The last step is always saved; 0 saves only that.", AtLeast(0))
    keep: int = field(2, "Newest checkpoints kept.", COUNT)
    wait: bool = field(False, "True: the run waits for the disk, which spares host memory for a copy of the state.")


@dataclasses.dataclass(frozen=True)
class LogSection:
    """What is written beside metrics.jsonl."""

    tensorboard: bool = field(True, "TensorBoard events.")
    rollouts: bool = field(True, "Every rollout with its rewards, in rollouts/STEP.jsonl.")


@dataclasses.dataclass(frozen=True)
class SftSection:
    """The supervised warm start (python -m fgrpo_jax.sft). What is not here is as in `optim`."""

    steps: int = field(4200, "3 epochs of the paper's 45K traces at 32.", COUNT)
    batch: int = field(32, "Traces an update.", COUNT)
    micro_batch: int = field(8, "Traces a gradient is computed on at once.", COUNT)
    optimizer: Literal["adamw", "muon"] = field("adamw", "As optim.name.")
    learning_rate: float = field(1e-6, "The peak.", POSITIVE)
    schedule: Literal["constant", "cosine", "linear"] = field("cosine", "As optim.schedule.")
    warmup_ratio: float = field(0.03, "Share of the steps.", FRACTION)
    weight_decay: float = field(0.01, "As optim.weight_decay.", NOT_NEGATIVE)
    clip_norm: float = field(1.0, "As optim.clip_norm.", POSITIVE)
    eval_split: str = field("validation", "Traces that choose the best checkpoint, apart from data.eval_split.")
    eval_every: int = field(200, "Steps between two validation losses. The best checkpoint is kept.", COUNT)
    target_loss: float = field(0.0, "The run ends once the validation loss, in nats a token, is this low.", NOT_NEGATIVE)
    eval_examples: int = field(256, "Traces of the validation loss.", COUNT)
    freeze: tuple[str, ...] = field(("visual/blocks/**", "visual/patch_embed/**"), "The encoder. Projector and language model are trained.")
    describe: float = field(0.0, "Share of tasks that ask to list the scene's objects instead of answering: learning to see.", FRACTION)


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = field(0, "Of sampling, shuffling and initialisation, and not of the built-in world; see data.world.seed.", AtLeast(0))
    num_steps: int = field(1140, "Rollout steps: 3 epochs of the paper's 48.7K prompts at 128 a step.", COUNT)
    model: ModelSection = field(ModelSection, "The policy.")
    data: DataSection = field(DataSection, "What is asked.")
    rollout: Sampling = field(Sampling, "How completions are drawn.")
    rewards: RewardsSection = field(RewardsSection, "R_task, and how signals are measured.")
    judge: JudgeSection = field(JudgeSection, "Who judges the reasoning.")
    constraints: tuple[Constraint, ...] = field(
        (
            Constraint("consistency", 0.95),
            Constraint("semantic_grounding", 0.95),
            Constraint("spatial_grounding", 0.65),  # 0.7 in the paper's text, 0.65 in its table
        ),
        "Bounds on the means of signals, by name: the paper's three, then others in the order of their names.",
    )
    algorithm: Algorithm = field(Algorithm, "How signals become advantages, and advantages a loss.")
    optim: Optimizer = field(Optimizer, "The optimiser.")
    mesh: MeshSection = field(MeshSection, "Devices.")
    eval: EvalSection = field(EvalSection, "Held-out figures, and `evaluate`.")
    checkpoint: CheckpointSection = field(CheckpointSection, "When the state is saved.")
    log: LogSection = field(LogSection, "What is written beside metrics.jsonl.")
    sft: SftSection = field(SftSection, "The supervised warm start.")

    @property
    def active_constraints(self) -> tuple[Constraint, ...]:
        """The constraints in force, in the order of every [C] array."""
        return tuple(c for c in self.constraints if c.enabled)

    @property
    def eval_judge(self) -> JudgeSection:
        """The judge of evaluations: `eval.judge`, or the training judge where that says 'same'."""
        return self.judge if self.eval.judge.backend == "same" else self.eval.judge
