"""The FGRPO step: rollouts and signals in, new policy and new multipliers out, one compiled program.

    signals ──► advantages with λ(t)  (Eq. 6) ──┐
    prompts ──► frozen vision, once ────────────┤
    reference and old log-probs (no gradient) ──┴─► scan over updates ─► scan over micro-batches ─► AdamW
    signals ──► constraint means ──► λ(t+1)  (Eq. 4, 5)

Order matters and is the paper's: advantages use λ(t), the same step returns λ(t+1). Every sum is normalised by global
counts, so neither the number of micro-batches nor that of devices changes loss, gradient or λ.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax.fgrpo import advantages, forward, losses, multipliers, optimizer
from fgrpo_jax.fgrpo.multipliers import Constraint
from fgrpo_jax.fgrpo.trained import Adapters, Leaves, LoraConfig, Split, Trained
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.model.vision import STAGES
from fgrpo_jax.records import PromptBatch, Rollouts, Signals, TrainState


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Everything the compiled step depends on but the model; see docs/method.md for each choice."""

    constraints: tuple[Constraint, ...]
    optimizer: optimizer.OptimizerConfig
    freeze: tuple[str, ...] = ("visual/**",)
    lora: LoraConfig | None = None  # adapters are trained, and nothing else
    masked: advantages.Masked = "masked"
    ddof: int = 1
    eps: float = 1e-6
    whiten: advantages.Whiten = "live"
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = None
    kl_coef: float = 0.01
    kl_estimator: losses.Estimator = "k3"
    kl_clamp: float = 10.0
    loss_aggregation: losses.Aggregation = "token_mean"
    temperature: float = 1.0
    updates: int = 2  # optimiser updates a rollout batch
    micro_batches: int = 1  # micro-batches an update


@struct.dataclass
class _Batch:
    """One micro-batch of the learner; leaves lead with prompts."""

    prompts: PromptBatch
    rollouts: Rollouts
    advantages: jax.Array  # float32 [m, G]
    features: jax.Array | None  # what the frozen stages of the tower give; None when the first of them is trained
    ref_logps: jax.Array | None  # float32 [m, G, T]
    old_logps: jax.Array | None  # float32 [m, G, T], None with one update a rollout batch


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: its bound methods are jitted
class Learner:
    """Builds and owns the compiled step. `banned` is bool [V], the ids whose logits are masked."""

    model: Model
    config: LearnerConfig
    banned: jax.Array
    compiler_options: dict[str, Any] | None = None  # XLA options of the step alone

    def init(self, params: Any) -> TrainState:
        """A fresh state around `params` (which the first step donates); moments are sharded as their parameters."""
        return optimizer.on_mesh_of(params, self.fresh(params))

    def fresh(self, params: Any) -> TrainState:
        """`init` without a mesh; of arrays or, under jax.eval_shape, of shapes."""
        lam, dual = multipliers.start(self.config.constraints)
        params, opt_state = self._trained.begin(params, self.config.optimizer)
        return TrainState(jnp.int32(0), params, opt_state, lam, jnp.int32(0), dual)

    def reference(self, params: Any) -> optimizer.Flat:
        """What the step needs of the policy to stay near: a copy of the trainable leaves, {} when the KL term is off.

        With adapters it is their kernels as they are in `params`, not copied; make it before `init`.
        """
        return self._trained.reference(params, needed=self.config.kl_coef != 0)

    @functools.cached_property
    def step(self) -> optimizer.Stepper:
        """Compiled (state, reference, prompts, rollouts, signals) → (state, metrics, learner log-probs [M, G, T]).

        The state is donated. Log-probs are those under the policy that entered the step, for comparison with the
        sampler's. M must be a multiple of updates × micro_batches.
        """
        return optimizer.Stepper(self._step, compiler_options=self.compiler_options)

    # ------------------------------------------------------------------------------------------------ pieces
    @functools.cached_property
    def _trained(self) -> Trained:
        freeze, lora = self.config.freeze, self.config.lora
        return Leaves(freeze) if lora is None else Adapters.of(lora, self.model.specs, freeze=freeze)

    @functools.cached_property
    def _frozen_stages(self) -> int:
        """How many stages of the tower, from the first on, no step changes: they run once for all passes."""
        moving = {path.split("/")[1] for path in self._trained.paths(self.model.specs) if path.startswith("visual/")}
        return next((number for number, stage in enumerate(STAGES) if stage in moving), len(STAGES))

    def _logps(self, params: Any, batch: _Batch) -> tuple[jax.Array, jax.Array]:
        features = batch.features
        if features is None or self._frozen_stages < len(STAGES):
            with jax.named_scope("vision"):
                first = 0 if features is None else self._frozen_stages
                features = self.model.encode(params, batch.prompts.vision, done=features, first=first)
        return forward.completion_logps(
            self.model,
            params,
            batch.prompts,
            features,
            batch.rollouts.tokens,
            batch.rollouts.mask,
            temperature=self.config.temperature,
            banned=self.banned,
        )

    def _scan_logps(self, params: Any, batches: _Batch) -> jax.Array:
        """Log-probs without gradient, micro-batch by micro-batch: leaves [U, n, m, ...] → [U, n, m, G, T]."""
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
        logps = jax.lax.map(lambda batch: self._logps(params, batch)[0], flat)
        return jax.lax.stop_gradient(logps.reshape(*batches.advantages.shape[:2], *logps.shape[1:]))

    def _features(self, params: Any, batches: _Batch) -> jax.Array:
        vision = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches.prompts.vision)
        out = jax.lax.map(lambda v: self.model.encode(params, v, stop=self._frozen_stages), vision)
        return jax.lax.stop_gradient(out.reshape(*batches.advantages.shape[:2], *out.shape[1:]))

    def _normaliser(self, rollouts: Rollouts) -> jax.Array:
        """Global count that the loss of one update is divided by; `rollouts` leaves are [n, m, G, T]."""
        aggregation = self.config.loss_aggregation
        length = float(rollouts.mask.shape[-1]) if aggregation == "constant" else None
        return losses.count(rollouts.mask, aggregation=aggregation, length=length)

    def _loss(
        self, weights: optimizer.Flat, batch: _Batch, *, frozen: optimizer.Flat, first: jax.Array, normaliser: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Loss of one micro-batch, already divided by the update's global normaliser, and its metric sums."""
        config, mask = self.config, batch.rollouts.mask
        logps, entropy = self._logps(self._trained.join(weights, frozen), batch)
        # The first update of a rollout batch is on-policy: its ratio is exactly 1, its gradient the policy gradient.
        old = jax.lax.stop_gradient(logps)
        if batch.old_logps is not None:
            old = jnp.where(first, old, batch.old_logps)
        policy, counts = losses.policy_loss(
            logps,
            old,
            advantages=batch.advantages,
            mask=mask,
            normaliser=normaliser,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            aggregation=config.loss_aggregation,
        )
        sums = {
            "policy": policy,
            "kl": jnp.float32(0),
            "clipped": counts.clipped_low + counts.clipped_high + counts.dual_clipped,
            "entropy": entropy.sum(),
            "tokens": counts.tokens,
        }
        total = policy
        if batch.ref_logps is not None:
            kl = losses.kl(logps, batch.ref_logps, mask=mask, estimator=config.kl_estimator, clamp=config.kl_clamp)
            sums["kl"] = losses.aggregate(kl, mask, aggregation=config.loss_aggregation, normaliser=normaliser)
            total = total + config.kl_coef * sums["kl"]
        return total, {**sums, "logps": jax.lax.stop_gradient(logps)}

    # -------------------------------------------------------------------------------------------------- step
    def _prepare(self, state: TrainState, reference: optimizer.Flat, batches: _Batch, frozen: optimizer.Flat) -> _Batch:
        """Adds what needs no gradient: frozen features, reference log-probs, log-probs under the old policy."""
        if self._frozen_stages:
            with jax.named_scope("vision"):
                batches = batches.replace(features=self._features(state.params, batches))
        ref = old = None
        if self.config.kl_coef != 0:
            with jax.named_scope("reference"):
                ref = self._scan_logps(self._trained.anchor(reference, frozen), batches)
        if self.config.updates > 1:
            with jax.named_scope("old_policy"):
                later = jax.tree.map(lambda x: x[1:], batches)
                old = self._scan_logps(state.params, later)
                old = jnp.concatenate([jnp.zeros_like(old[:1]), old])  # update 0 uses its own
        return batches.replace(ref_logps=ref, old_logps=old)

    def _updates(
        self, parts: Split, skipped: jax.Array, batches: _Batch
    ) -> tuple[tuple[optimizer.Flat, Any, jax.Array], dict[str, jax.Array]]:
        """Scan over the optimiser updates of this rollout batch."""
        tx, frozen = optimizer.make(self.config.optimizer), parts.frozen

        def body(carry: Any, item: tuple[jax.Array, _Batch]) -> tuple[Any, dict[str, jax.Array]]:
            weights, opt_state, skipped = carry
            index, update = item
            loss = functools.partial(
                self._loss, frozen=frozen, first=index == 0, normaliser=self._normaliser(update.rollouts)
            )
            with jax.named_scope("gradient"):
                grads, total, aux = forward.accumulate(loss, weights, update)
            with jax.named_scope("optimizer"):
                done = optimizer.apply_guarded(tx, grads, opt_state, weights)
            skipped = jnp.where(done.finite, 0, skipped + 1)
            logps = aux.pop("logps")
            sums = {name: value.sum() for name, value in aux.items()}
            out = {**sums, "loss": total, "grad_norm": done.grad_norm, "finite": done.finite}
            out |= {"moved": done.moved_share, "logps": logps}
            return (done.params, done.opt_state, skipped), out

        index = jnp.arange(self.config.updates)
        return jax.lax.scan(body, (parts.weights, parts.opt_state, skipped), (index, batches))

    def _step(
        self,
        state: TrainState,
        reference: optimizer.Flat,
        prompts: PromptBatch,
        rollouts: Rollouts,
        signals: Signals,
    ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
        config = self.config
        with jax.named_scope("advantages"):
            # A bound from above is one from below on the negated signal; negation is exact.
            direction = jnp.asarray([c.direction for c in config.constraints], jnp.float32)[:, None, None]
            adv = advantages.combine(
                signals.task,
                signals.values * direction,
                signals.mask,
                state.lam,
                ddof=config.ddof,
                eps=config.eps,
                masked=config.masked,
                whiten=config.whiten,
            )
        batch = _Batch(prompts, rollouts, adv.total, features=None, ref_logps=None, old_logps=None)
        batches = forward.split(batch, updates=config.updates, micro_batches=config.micro_batches)
        parts = self._trained.split(state.params, state.opt_state, reference)
        batches = self._prepare(state, reference, batches, parts.frozen)
        (weights, opt_state, skipped), out = self._updates(parts, state.skipped, batches)
        with jax.named_scope("multipliers"):
            dual = multipliers.advance(
                state.lam,
                state.dual,
                signals.values,
                signals.mask,
                constraints=config.constraints,
                step=state.step,
            )
        # Log-probs under the policy that entered the step: update 0's own, the old policy's for the rest.
        logps = out["logps"][:1]
        if batches.old_logps is not None:
            logps = jnp.concatenate([logps, batches.old_logps[1:]])
        tokens = jnp.maximum(out["tokens"].sum(), 1)
        metrics = {
            "loss/policy": out["policy"].mean(),
            "loss/kl": out["kl"].mean(),
            "loss/total": out["loss"].mean(),
            "policy/entropy": out["entropy"].sum() / tokens,
            "policy/clip_share": out["clipped"].sum() / tokens,
            "optim/grad_norm": out["grad_norm"].mean(),
            "optim/skipped": (~out["finite"]).sum(),
            "optim/moved_share": out["moved"].mean(),
            "constraint/mean": dual.mean,
            "constraint/applicable": dual.applicable,
            "constraint/lambda": state.lam,
            "constraint/saturated": dual.saturated,
            "advantage/share": adv.share,
        }
        params, opt_state = self._trained.pack(weights, parts.frozen, opt_state)
        state = TrainState(state.step + 1, params, opt_state, dual.lam, skipped, dual.memory)
        return state, metrics, forward.unsplit(logps)
