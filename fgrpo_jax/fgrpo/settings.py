"""Settings of the method: the algorithm, a constraint, the optimiser, adapters. They are sections of the config.

The defaults are the paper's (arXiv 2604.08476). Where text and table of the paper differ, or both are silent, the
comment says so; docs/method.md numbers these choices.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from fgrpo_jax.fields import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, AtLeast, Between, MoreThan, field, required

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """How signals become advantages, and advantages a loss."""

    aggregation: Literal["fgrpo", "grpo", "gdpo", "additive", "multiplicative"] = field("fgrpo", "fgrpo: Eq. 6. grpo: the task alone. gdpo: fixed weights. additive, multiplicative: one mixed reward.")
    task_weight: float = field(1.0, "gdpo: weight of the task's advantage. Those of the others are constraints.NAME.weight.", NOT_NEGATIVE)
    normalise_lambda: bool = field(False, "Divide the mix by 1 + Σλ, as Safe-RLHF does. Takes whiten = 'none', since whitening would undo it.")
    filter_dead: bool = field(False, "Replace groups that are constant in the reward and in every constraint in force, as DAPO does.")
    max_resample: int = field(3, "Rounds of further prompts for filter_dead. Groups that are dead after them stay, with advantage 0.", AtLeast(0))
    masked: Literal["masked", "zero_fill"] = field("masked", "masked: a group is normalised over its applicable rollouts. zero_fill: R = 0 for the others.")
    ddof: int = field(1, "1 is the unbiased standard deviation in a group. The paper does not state it.", Between(0, 1))
    eps: float = field(1e-6, "Added to the standard deviation.", POSITIVE)
    std: bool = field(True, "False only centres groups, as Dr. GRPO does.")
    whiten: Literal["live", "all", "tokens", "none"] = field("live", "Divide by the RMS over the groups that carry signal (live), over all groups (all), or not (none). tokens: verl's masked_whiten, centred and weighed by length.")
    whiten_baselines: bool = field(True, "False: grpo, additive and multiplicative are not whitened, as in the paper.")
    ratio: Literal["token", "sequence"] = field("token", "sequence: the geometric mean over a completion is clipped as one, as in GSPO (clip_low 3e-4, clip_high 4e-4).")
    clip_low: float = field(0.2, "The ratio is clipped below at 1 - clip_low. The paper's '0.28' is read as the asymmetric 0.2 and 0.28.", MoreThan(0), Between(0, 1))
    clip_high: float = field(0.28, "The ratio is clipped above at 1 + clip_high.", POSITIVE)
    dual_clip: float | None = field(None, "Lower bound of the surrogate at negative advantages, more than 1. None is off.", MoreThan(1))
    kl_coef: float = field(0.01, "Weight of the KL term: 0.001 in the paper's text, 0.01 in its table. 0 drops the reference.", NOT_NEGATIVE)
    kl_estimator: Literal["k1", "k2", "k3"] = field("k3", "The paper does not state it.")
    kl_clamp: float = field(10.0, "Bound on |log-ratio| inside the estimator. k3 overflows without.", POSITIVE)
    kl_max: float | None = field(None, "Bound on a token's estimate. None is off; verl and EasyR1 have 10 here and kl_clamp = 20.", POSITIVE)
    kl_in: Literal["loss", "reward"] = field("loss", "reward: kl_coef·Σ_t k1 is taken off each task reward before it is normalised in its group.")
    entropy_coef: float = field(0.0, "The mean entropy times this is taken off the loss.", NOT_NEGATIVE)
    overlong: Literal["keep", "mask"] = field("keep", "mask: truncated completions take no part in the loss.")
    importance_cap: float | None = field(None, "Weigh tokens by min(π_old/π_sampler, this), this being at least 1. None is off.", AtLeast(1))
    loss_aggregation: Literal["token_mean", "sequence_mean", "constant"] = field("token_mean", "What the loss is a mean over, always of the global update batch.")
    updates_per_batch: int = field(2, "Optimiser updates a rollout batch. The paper has 128 prompts a batch and 64 an update.", COUNT)
    micro_batch_prompts: int = field(8, "Room of a gradient: that many prompts with completions of full length at once, more where they are shorter. It changes memory and speed, and no result.", COUNT)
    reference_every: int = field(0, "Steps after which the present policy becomes the reference. 0 keeps the first one.", AtLeast(0))


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A bound on the mean of a signal over the applicable rollouts, with its multiplier."""

    name: str = required("The key under config.constraints. It names the constraint in metrics and checkpoints.")
    threshold: float = required("τ, in the unit of the signal.")
    enabled: bool = field(True, "False: measured and logged, but without a multiplier and out of the advantage.")
    signal: str = field("", "What is bounded, a name of fgrpo_jax/rewards/signals.py. Empty is the constraint's own name.")
    weight: float = field(1.0, "gdpo: fixed weight of the signal's advantage, in the place of λ.", NOT_NEGATIVE)
    direction: Literal[">=", "<="] = field(">=", "The mean must reach τ (>=) or stay at or below it (<=).")
    mask: Literal["own", "correct", "all"] = field("own", "Rollouts that count: by the signal's own rule, those with right answers, or all.")
    rule: Literal["linear", "exponential", "pid"] = field("linear", "linear: Eq. 4. exponential: ascent in log λ. pid: Stooke et al. 2020.")
    lr: float = field(0.05, "η_λ: what a unit of violation adds to λ, to log λ, or to the integral, by rule. 0 fixes λ.", NOT_NEGATIVE)
    kp: float = field(0.0, "pid: λ a unit of violation.", NOT_NEGATIVE)
    kd: float = field(0.0, "pid: λ a unit by which the violation has risen since the step before.", NOT_NEGATIVE)
    init: float = field(1.0, "λ of the first step.", NOT_NEGATIVE)
    min: float = field(0.0, "Least λ. exponential keeps at least 1e-6, since no factor leads back from 0.", NOT_NEGATIVE)
    max: float = field(5.0, "Greatest λ.", POSITIVE)
    min_applicable: int = field(8, "λ stands still while fewer rollouts of its window than this are applicable.", AtLeast(0))
    window: int = field(1, "Steps whose sums and counts are pooled for the mean that λ answers to.", COUNT)
    delay: int = field(0, "First steps in which λ stands at its initial value, and takes part, while the mean is measured.", AtLeast(0))

    @property
    def sign(self) -> int:
        """+1 where the mean must reach the threshold, -1 where it must stay at or below it."""
        return 1 if self.direction == ">=" else -1

    @property
    def measured(self) -> str:
        """The name of the signal that is bounded."""
        return self.signal or self.name

    @property
    def out_of_force(self) -> Constraint:
        """The same without a multiplier: λ is 0 and stays 0."""
        weight = self.weight if self.enabled else 0.0
        return Constraint(
            self.name, self.threshold, self.enabled, self.signal, weight, self.direction, self.mask,
            lr=0.0, init=0.0, max=self.max, min_applicable=self.min_applicable,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW, or orthogonalised momentum."""

    name: Literal["adamw", "muon"] = field("adamw", "muon orthogonalises the momentum of every matrix (Jordan et al. 2024), scaled to AdamW's usual step; vectors and embeddings keep AdamW. It is for training from random weights.")
    learning_rate: float = field(1e-6, "The peak, where there is a schedule.", POSITIVE)
    schedule: Literal["constant", "cosine", "linear"] = field("constant", "cosine and linear fall to 0 at the end of the run.")
    warmup_updates: int = field(0, "Optimiser updates of linear warm-up.", AtLeast(0))
    b1: float = field(0.9, "Decay of the mean of gradients.", FRACTION)
    b2: float = field(0.999, "Decay of the mean of their squares.", FRACTION)
    eps: float = field(1e-8, "Added to the root of the mean of squares.", POSITIVE)
    weight_decay: float = field(0.01, "Decoupled, on every trained parameter.", NOT_NEGATIVE)
    clip_norm: float = field(1.0, "Gradients are scaled down to this global norm.", POSITIVE)
    compensated: bool = field(False, "Weights are bfloat16 and the bits they lose are kept beside the moments. Supervised training reads it too.")
    mean_dtype: Dtype = field("float32", "Of AdamW's mean of gradients. bfloat16 saves 2 bytes a weight. Supervised training reads it too.")
    max_skipped: int = field(5, "The run stops after this many updates in a row were skipped for a gradient that is not finite.", COUNT)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters W + alpha/rank · A·B, which are trained instead of the weights."""

    rank: int = field(0, "Rank of A·B. 0 trains the weights themselves.", AtLeast(0))
    alpha: float = field(16.0, "The product is scaled by alpha / rank.", POSITIVE)
    targets: tuple[str, ...] = field(("text/layers/**/kernel",), "Kernels that have adapters, as path patterns. None of them may be frozen.")
