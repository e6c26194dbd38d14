"""The FGRPO step: rollouts and signals in, new policy and new multipliers out, one compiled program.

    signals ──► advantages with λ(t)  (Eq. 6) ──┐
    prompts ──► frozen vision, once ────────────┤
    reference and old log-probs (no gradient) ──┴─► scan over updates ─► loop over pieces ─► AdamW
    signals ──► constraint means ──► λ(t+1)  (Eq. 5, then 4)

Order matters and is the paper's: advantages use λ(t), the same step returns λ(t+1). Every sum is normalised by global
counts, so neither how prompts are put together (`pieces`) nor the number of devices changes loss, gradient or λ.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax import mesh as meshes
from fgrpo_jax.fgrpo import advantages, forward, losses, multipliers, optimizer, pieces
from fgrpo_jax.fgrpo.pieces import Pieces
from fgrpo_jax.fgrpo.settings import Algorithm, Constraint, Lora
from fgrpo_jax.fgrpo.trained import Adapters, Leaves, Split, Trained
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.model.vision import STAGES
from fgrpo_jax.records import PromptBatch, Rollouts, Signals, TrainState


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Everything the compiled step depends on but the model; see docs/method.md for each choice."""

    constraints: tuple[Constraint, ...]  # in the order of every [C] array; λ = 0 of one that is out of force
    algorithm: Algorithm = dataclasses.field(default_factory=Algorithm)
    rule: optimizer.Rule = dataclasses.field(default_factory=optimizer.Rule)
    freeze: tuple[str, ...] = ("visual/**",)  # patterns of parameters that are not trained
    lora: Lora | None = None  # adapters that are trained, and nothing else; None trains the weights
    seed: int = 0  # of the adapters' initial values
    temperature: float = 1.0  # that completions were drawn at; it divides the learner's logits too


@struct.dataclass
class _Batch:
    """Prompts with their rollouts; leaves lead with [U, p, c], in a piece with [p·R]."""

    prompts: PromptBatch
    rollouts: Rollouts
    advantages: jax.Array | None = None  # float32 [..., G], None until they are known
    features: jax.Array | None = None  # of the frozen stages of the tower; None when the first of them is trained


@struct.dataclass
class _Known:
    """Log-probs that take no gradient, by piece: float32 [U, n, p·R, G, T]; None where no update needs them."""

    ref: jax.Array | None = None
    old: jax.Array | None = None


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
        params, opt_state = self.trained.begin(params, self.config.rule)
        return TrainState(jnp.int32(0), params, opt_state, lam, jnp.int32(0), dual)

    def reference(self, params: Any) -> optimizer.Flat:
        """What the step needs of the policy to stay near: a copy of the trainable leaves, {} when the KL term is off.

        With adapters it is their kernels as they are in `params`, not copied; make it before `init`.
        """
        return self.trained.reference(params, needed=self.config.algorithm.kl_coef != 0)

    @property
    def step(self) -> optimizer.Stepper:
        """Compiled (state, reference, prompts, rollouts, signals) → (state, metrics, learner log-probs [M, G, T]).

        The state is donated. Log-probs are those under the policy that entered the step, for comparison with the
        sampler's. M must be a multiple of updates_per_batch × the number of devices that share it.
        """
        return self.steps[max(self.steps)]

    @functools.cached_property
    def steps(self) -> dict[int, optimizer.Stepper]:
        """The step for each of `pieces.PLACES`; all give the same, the one that `pieces.places` names soonest."""

        options = {"compiler_options": self.compiler_options}
        every = pieces.PLACES if self.model.packs else (1,)
        return {times: optimizer.Stepper(functools.partial(self._step, times), **options) for times in every}

    def mix(
        self, signals: Signals, lam: jax.Array, *, penalty: jax.Array | None = None, tokens: jax.Array | None = None
    ) -> advantages.Advantages:
        """The advantages of a whole rollout batch by the config's aggregation.

        Args:
          lam: float32 [C], λ(t).
          penalty: float32 [M, G], taken off the task reward before it is normalised in its group (KL in the reward).
          tokens: int32 [M, G], those of each rollout that count; for whiten='tokens'.

        Raises:
          ValueError: a baseline that needs a signal no constraint measures.
        """
        constraints, algorithm = self.config.constraints, self.config.algorithm
        task = self.reward(signals)
        task = task if penalty is None else task - penalty
        # A bound from above is one from below on the negated signal; negation is exact.
        sign = multipliers.column(constraints, "sign")[:, None, None]
        rules: dict[str, Any] = {name: getattr(algorithm, name) for name in ("ddof", "eps", "masked", "std")}
        whitened = algorithm.whiten_baselines or algorithm.aggregation in ("fgrpo", "gdpo")
        by_tokens = whitened and algorithm.whiten == "tokens"
        rules["whiten"] = algorithm.whiten if whitened and not by_tokens else "none"
        values, mask = signals.values * sign, signals.mask
        if algorithm.aggregation == "gdpo":
            first = jnp.asarray([algorithm.task_weight], jnp.float32)
            weights = jnp.concatenate([first, multipliers.column(constraints, "weight")])
            out = advantages.gdpo(task, values, mask, weights, **rules)
        else:
            out = advantages.combine(task, values, mask, lam, normalise_lambda=algorithm.normalise_lambda, **rules)
        if not by_tokens:
            return out
        assert tokens is not None, "whitening over tokens needs their number"
        return out.replace(total=advantages.whiten_tokens(out.total, tokens))

    def reward(self, signals: Signals) -> jax.Array:
        """[M, G], what the task advantage is made of: R_task, or a baseline's reward that holds the signals."""
        if self.config.algorithm.aggregation not in ("additive", "multiplicative"):
            return signals.task
        mix = advantages.additive if self.config.algorithm.aggregation == "additive" else advantages.multiplicative
        consistency, spatial = (signals.values[self._row(name)] for name in ("consistency", "spatial_grounding"))
        return mix(signals.accuracy, signals.format, consistency=consistency, spatial=spatial)  # 0 where masked

    # ------------------------------------------------------------------------------------------------ pieces
    @functools.cached_property
    def trained(self) -> Trained:
        """What a step trains. Raises ValueError on rules that do not fit the model."""
        freeze, lora = self.config.freeze, self.config.lora
        if lora is None:
            return Leaves(freeze)
        return Adapters.of(lora, self.model.specs, freeze=freeze, seed=self.config.seed)

    @functools.cached_property
    def _frozen_stages(self) -> int:
        """How many stages of the tower, from the first on, no step changes: they run once for all passes."""
        moving = {path.split("/")[1] for path in self.trained.paths(self.model.specs) if path.startswith("visual/")}
        return next((number for number, stage in enumerate(STAGES) if stage in moving), len(STAGES))

    @property
    def _parts(self) -> int:
        """Parts that every update is split into over devices: batches are multiples of them."""
        return 1 if self.model.mesh is None else meshes.batch_size(self.model.mesh)

    def _row(self, signal: str) -> int:
        names = [c.measured for c in self.config.constraints]
        if signal not in names:
            raise ValueError(
                f"aggregation '{self.config.algorithm.aggregation}' needs the signal '{signal}', which no constraint "
                "measures; add one (enabled or not)"
            )
        return names.index(signal)

    def _logps(self, params: Any, batch: _Batch, *, room: int | None) -> tuple[jax.Array, jax.Array]:
        """(log-probs, entropies) [p·R, G, T] of a piece."""
        features, prompts = batch.features, batch.prompts
        if features is None or self._frozen_stages < len(STAGES):
            with jax.named_scope("vision"):
                first = 0 if features is None else self._frozen_stages
                done = {"done": features, "first": first}
                features = pieces.encode(self.model, params, prompts, parts=self._parts, **done)
        rules: dict[str, Any] = {"temperature": self.config.temperature, "banned": self.banned, "room": room}
        rules["parts"] = self._parts
        tokens, mask = batch.rollouts.tokens, batch.rollouts.mask
        return forward.completion_logps(self.model, params, prompts, features, tokens, mask, **rules)

    def _scan_logps(self, params: Any, batches: _Batch, cut: Pieces) -> jax.Array:
        """Log-probs without gradient, piece by piece: [U, n, p·R, G, T]."""

        def of_update(item: tuple[_Batch, Pieces]) -> jax.Array:
            update, cut = item
            return pieces.stack(cut, lambda number: self._logps(params, _piece(update, cut, number), room=cut.room)[0])

        return jax.lax.stop_gradient(jax.lax.map(of_update, (batches, cut)))

    def _features(self, params: Any, prompts: PromptBatch) -> jax.Array:
        """What the frozen stages of the tower give for all prompts [M, ...], some at a time."""
        m = len(prompts.tokens)
        least = -(-m // max(self.config.algorithm.micro_batch_prompts, self._parts))
        times = next(n for n in range(least, m + 1) if m % (n * self._parts) == 0)
        vision = jax.tree.map(lambda x: x[:, 0], pieces.deal(prompts.vision, updates=times, parts=1))
        out = jax.lax.map(lambda v: self.model.encode(params, v, stop=self._frozen_stages), vision)
        return jax.lax.stop_gradient(pieces.gather(out[:, None]))

    def _normaliser(self, rollouts: Rollouts) -> jax.Array:
        """Global count that the loss of one update is divided by; `rollouts` leaves are [p, c, G, T]."""
        aggregation = self.config.algorithm.loss_aggregation
        length = float(rollouts.mask.shape[-1]) if aggregation == "constant" else None
        return losses.count(self._counting(rollouts), aggregation=aggregation, length=length)

    def _counting(self, rollouts: Rollouts) -> jax.Array:
        """bool [..., G, T], the tokens that take part in the loss."""
        if self.config.algorithm.overlong == "mask":
            return rollouts.mask & rollouts.finished[..., None]
        return rollouts.mask

    def _loss(
        self,
        weights: optimizer.Flat,
        batch: _Batch,
        known: _Known,
        *,
        frozen: optimizer.Flat,
        first: jax.Array,
        normaliser: jax.Array,
        room: int | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Loss of one piece, already divided by the update's global normaliser, and its metric sums."""
        config, mask = self.config.algorithm, self._counting(batch.rollouts)
        logps, entropy = self._logps(self.trained.join(weights, frozen), batch, room=room)
        # The first update of a rollout batch is on-policy: its ratio is exactly 1, its gradient the policy gradient.
        old = jax.lax.stop_gradient(logps)
        if known.old is not None:
            old = jnp.where(first, old, known.old)
        weight, importance = self._importance(old, batch.rollouts, mask)
        policy, counts = losses.policy_loss(
            logps,
            old,
            advantages=batch.advantages,  # type: ignore[arg-type]  # known by now
            mask=mask,
            normaliser=normaliser,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            aggregation=config.loss_aggregation,
            ratio_of=config.ratio,
            weight=weight,
        )
        sums = {
            "policy": policy,
            "kl": jnp.float32(0),
            "clipped": counts.clipped_low + counts.clipped_high + counts.dual_clipped,
            "entropy": jnp.where(mask, entropy, 0).sum(),
            "tokens": counts.tokens,
        }
        total = policy
        mean = functools.partial(losses.aggregate, aggregation=config.loss_aggregation, normaliser=normaliser)
        if known.ref is not None:
            bounds: dict[str, Any] = {"clamp": config.kl_clamp, "most": config.kl_max}
            kl = losses.kl(logps, known.ref, mask=mask, estimator=config.kl_estimator, **bounds)
            sums["kl"] = mean(kl, mask)
            total = total + config.kl_coef * sums["kl"] if config.kl_in == "loss" else total
        if config.entropy_coef:
            total = total - config.entropy_coef * mean(entropy, mask)
        return total, {**sums, **importance, "logps": jax.lax.stop_gradient(logps)}

    def _importance(
        self, old: jax.Array, rollouts: Rollouts, mask: jax.Array
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """(weight of each token for the sampler's mismatch, sums for metrics); (None, {}) when it is off."""
        cap = self.config.algorithm.importance_cap
        if cap is None:
            return None, {}
        return losses.importance_correction(old, rollouts.logps, mask=mask, cap=cap)

    # -------------------------------------------------------------------------------------------------- step
    @functools.cached_property
    def encode(self) -> Any:
        """jitted (params, prompts) → prompts with image tokens in the place of images, for sampler and `step` alike.

        None where a step changes the tower: each of them then encodes for itself.
        """
        if self._frozen_stages < len(STAGES):
            return None

        def encoded(params: Any, prompts: PromptBatch) -> PromptBatch:
            with jax.named_scope("vision"):
                return prompts.replace(vision=None, features=self._features(params, prompts))

        mesh = self.model.mesh
        split = {} if mesh is None else {"out_shardings": meshes.batch_sharding(mesh)}
        return jax.jit(encoded, compiler_options=self.compiler_options, **split)  # type: ignore[arg-type]

    def _batches(self, params: Any, prompts: PromptBatch, rollouts: Rollouts, times: int) -> tuple[_Batch, Pieces]:
        """The prompts dealt out to updates, with frozen features, and how each update is cut."""
        algorithm, batch = self.config.algorithm, _Batch(prompts, rollouts)
        if prompts.features is not None:
            batch = _Batch(prompts.replace(features=None), rollouts, features=prompts.features)
        elif self._frozen_stages:
            with jax.named_scope("vision"):
                batch = batch.replace(features=self._features(params, prompts))
        if self._frozen_stages == len(STAGES):
            batch = batch.replace(prompts=batch.prompts.replace(vision=None))
        batches = pieces.deal(batch, updates=algorithm.updates_per_batch, parts=self._parts)
        sizes = pieces.tokens(batches.prompts.mask, batches.rollouts.mask)
        group, length = rollouts.mask.shape[1:]
        full = prompts.tokens.shape[1] + group * length
        micro = algorithm.micro_batch_prompts
        return batches, pieces.cut(sizes, micro=micro, full=full, packs=self.model.packs, times=times)

    def _prepare(
        self, state: TrainState, reference: optimizer.Flat, batches: _Batch, cut: Pieces, frozen: optimizer.Flat
    ) -> _Known:
        """What needs no gradient: log-probs under the reference and under the old policy."""
        ref = old = None
        if self.config.algorithm.kl_coef != 0:
            with jax.named_scope("reference"):
                ref = self._scan_logps(optimizer.merge(reference, frozen), batches, cut)
        if self._penalised:
            with jax.named_scope("old_policy"):
                old = self._scan_logps(state.params, batches, cut)  # rewards need them before the first update
        elif self.config.algorithm.updates_per_batch > 1:
            with jax.named_scope("old_policy"):
                old = self._scan_logps(state.params, *jax.tree.map(lambda x: x[1:], (batches, cut)))
                old = jnp.concatenate([jnp.zeros_like(old[:1]), old])  # update 0 uses its own
        return _Known(ref, old)

    @property
    def in_force(self) -> tuple[bool, ...]:
        """C times, whether the constraint takes part in the advantage."""
        constraints, aggregation = self.config.constraints, self.config.algorithm.aggregation
        if aggregation not in ("fgrpo", "gdpo"):
            return (False,) * len(constraints)
        return tuple(c.weight > 0 if aggregation == "gdpo" else c.enabled for c in constraints)

    @property
    def _penalised(self) -> bool:
        return self.config.algorithm.kl_in == "reward" and self.config.algorithm.kl_coef != 0

    def _penalty(self, known: _Known, batches: _Batch, cut: Pieces) -> jax.Array | None:
        """β·Σ_t (log π_old − log π_ref) of each rollout, [M, G]; None unless KL is in the reward."""
        if not self._penalised or known.old is None or known.ref is None:
            return None
        algorithm = self.config.algorithm
        old, ref = (jax.vmap(Pieces.collect)(cut, x) for x in (known.old, known.ref))
        bounds: dict[str, Any] = {"clamp": algorithm.kl_clamp, "most": algorithm.kl_max}
        k1 = losses.kl(old, ref, mask=batches.rollouts.mask, estimator="k1", **bounds)
        return pieces.gather(algorithm.kl_coef * jnp.sum(k1, axis=-1))

    def _updates(
        self, parts: Split, skipped: jax.Array, batches: _Batch, cut: Pieces, known: _Known
    ) -> tuple[tuple[optimizer.Flat, Any, jax.Array], dict[str, jax.Array]]:
        """Scan over the optimiser updates of this rollout batch."""
        tx, frozen = optimizer.make(self.config.rule), parts.frozen

        def body(carry: Any, item: tuple[jax.Array, _Batch, Pieces, _Known]) -> tuple[Any, dict[str, jax.Array]]:
            weights, opt_state, skipped = carry
            index, update, cut, known = item
            settings: dict[str, Any] = {"frozen": frozen, "first": index == 0, "room": cut.room}
            settings["normaliser"] = self._normaliser(update.rollouts)

            def loss(weights: optimizer.Flat, number: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
                own = jax.tree.map(lambda x: x[number], known)
                return self._loss(weights, _piece(update, cut, number), own, **settings)

            with jax.named_scope("gradient"):
                grads, total, aux = pieces.accumulate(loss, weights, cut)
            with jax.named_scope("optimizer"):
                done = optimizer.apply_guarded(tx, grads, opt_state, weights)
            skipped = jnp.where(done.finite, 0, skipped + 1)
            logps = cut.collect(aux.pop("logps"))
            sums = {name: value.max() if name == "largest" else value.sum() for name, value in aux.items()}
            out = {**sums, "loss": total, "grad_norm": done.grad_norm, "finite": done.finite}
            out |= {"moved": done.moved_share, "logps": logps}
            return (done.params, done.opt_state, skipped), out

        index = jnp.arange(self.config.algorithm.updates_per_batch)
        return jax.lax.scan(body, (parts.weights, parts.opt_state, skipped), (index, batches, cut, known))

    def _step(
        self, times: int, state: TrainState, reference: optimizer.Flat, *inputs: Any
    ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
        prompts, rollouts, signals = inputs
        batches, cut = self._batches(state.params, prompts, rollouts, times)
        parts = self.trained.split(state.params, state.opt_state, reference)
        known = self._prepare(state, reference, batches, cut, parts.frozen)
        with jax.named_scope("advantages"):
            counting = jnp.sum(self._counting(rollouts), axis=-1)
            adv = self.mix(signals, state.lam, penalty=self._penalty(known, batches, cut), tokens=counting)
            work = {"updates": self.config.algorithm.updates_per_batch, "parts": self._parts}
            batches = batches.replace(advantages=pieces.deal(adv.total, **work))
        (weights, opt_state, skipped), out = self._updates(parts, state.skipped, batches, cut, known)
        with jax.named_scope("multipliers"):
            dual = multipliers.advance(
                state.lam,
                state.dual,
                signals.values if signals.drawn_values is None else signals.drawn_values,
                signals.mask if signals.drawn_mask is None else signals.drawn_mask,
                constraints=self.config.constraints,
                step=state.step,
            )
        # Log-probs under the policy that entered the step: update 0's own, the old policy's for the rest.
        logps = out["logps"][:1]
        if known.old is not None:
            logps = jnp.concatenate([logps, jax.vmap(Pieces.collect)(cut, known.old)[1:]])
        tokens = jnp.maximum(out["tokens"].sum(), 1)
        metrics = {
            **_importance_metrics(out, tokens),
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
        params, opt_state = self.trained.pack(weights, parts.frozen, opt_state)
        state = TrainState(state.step + 1, params, opt_state, dual.lam, skipped, dual.memory)
        return state, metrics, pieces.gather(logps)


def _piece(update: _Batch, cut: Pieces, number: jax.Array) -> _Batch:
    """A piece of an update; nothing counts where there is no prompt."""
    batch, there = cut.take(number, update)
    prompts = batch.prompts.replace(mask=batch.prompts.mask & there[:, None])
    return batch.replace(
        prompts=prompts, rollouts=batch.rollouts.replace(mask=batch.rollouts.mask & there[:, None, None])
    )


def _importance_metrics(out: dict[str, jax.Array], tokens: jax.Array) -> dict[str, jax.Array]:
    """importance/…; {} when no weights were used. `max` is of the ratios before the cap."""
    if "weight" not in out:
        return {}
    total, squares = out["weight"].sum(), out["weight_squared"].sum()
    return {
        "importance/mean": total / tokens,
        "importance/max": out["largest"].max(),
        "importance/capped_share": out["capped"].sum() / tokens,
        "importance/ess": total * total / jnp.maximum(tokens * squares, jnp.finfo(jnp.float32).tiny),
    }
