"""Supervised fine-tuning step: next-token cross-entropy on reference responses, one compiled program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fgrpo_jax import mesh as meshes
from fgrpo_jax.fgrpo import forward, optimizer, pieces
from fgrpo_jax.fgrpo.pieces import Pieces
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import PromptBatch


@struct.dataclass
class SupervisedBatch:
    """M prompts and their reference responses (G = 1)."""

    prompts: PromptBatch
    tokens: jax.Array  # int32 [M, 1, T]
    mask: jax.Array  # bool [M, 1, T]


@struct.dataclass
class SupervisedState:
    """What supervised training must remember."""

    step: jax.Array  # int32 []
    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: its bound methods are jitted
class SupervisedLearner:
    """Cross-entropy on responses; token-mean over the global batch, whatever the number of micro-batches."""

    model: Model
    rule: optimizer.Rule
    freeze: Sequence[str]
    banned: jax.Array  # bool [V]
    micro_batches: int = 1
    compiler_options: dict[str, Any] | None = None  # XLA options of its two programs

    def init(self, params: Any) -> SupervisedState:
        trainable, _ = optimizer.partition(params, self.freeze)
        opt_state = optimizer.init(self.rule, trainable)
        return optimizer.on_mesh_of(params, SupervisedState(jnp.int32(0), params, opt_state))

    @functools.cached_property
    def step(self) -> optimizer.Stepper:
        """Compiled (state, batch) → (state, metrics); the state is donated."""
        return optimizer.Stepper(self._step, compiler_options=self.compiler_options)

    @functools.cached_property
    def evaluate(self) -> Any:
        """jitted (params, batch) → (summed negative log-likelihood, number of tokens)."""
        return jax.jit(self._evaluate, compiler_options=self.compiler_options)

    def _cut(self, batch: SupervisedBatch) -> tuple[SupervisedBatch, Pieces]:
        """The batch as parts [p, c, ...], and how it is cut."""
        m, group, length = batch.mask.shape
        dealt = pieces.deal(batch, updates=1, parts=meshes.parts(self.model.mesh, m))
        full = batch.prompts.tokens.shape[1] + group * length
        sizes = pieces.tokens(dealt.prompts.mask, dealt.mask)
        cut = pieces.cut(sizes, micro=max(1, m // self.micro_batches), full=full)
        return jax.tree.map(lambda x: x[0], (dealt, cut))

    def _nll(self, params: Any, batch: SupervisedBatch, cut: Pieces, number: jax.Array) -> jax.Array:
        """Summed over the tokens of a piece."""
        piece, there = cut.take(number, batch)
        prompts = piece.prompts.replace(mask=piece.prompts.mask & there[:, None])
        mask = piece.mask & there[:, None, None]
        settings: dict[str, Any] = {"temperature": 1.0, "banned": self.banned, "room": cut.room}
        settings["parts"] = cut.home.shape[0]
        features = pieces.encode(self.model, params, prompts, parts=settings["parts"])
        logps, _ = forward.completion_logps(self.model, params, prompts, features, piece.tokens, mask, **settings)
        return -logps.sum()

    def _evaluate(self, params: Any, batch: SupervisedBatch) -> tuple[jax.Array, jax.Array]:
        dealt, cut = self._cut(batch)
        return pieces.stack(cut, lambda number: self._nll(params, dealt, cut, number)).sum(), batch.mask.sum()

    def _step(self, state: SupervisedState, batch: SupervisedBatch) -> tuple[SupervisedState, dict[str, jax.Array]]:
        tx = optimizer.make(self.rule)
        trainable, frozen = optimizer.partition(state.params, self.freeze)
        count = jnp.maximum(batch.mask.sum(), 1)

        dealt, cut = self._cut(batch)

        def loss(weights: optimizer.Flat, number: jax.Array) -> tuple[jax.Array, None]:
            return self._nll(optimizer.merge(weights, frozen), dealt, cut, number) / count, None

        grads, value, _ = pieces.accumulate(loss, trainable, cut)
        done = optimizer.apply_guarded(tx, grads, state.opt_state, trainable)
        state = SupervisedState(state.step + 1, optimizer.merge(done.params, frozen), done.opt_state)
        return state, {
            "loss": value,
            "optim/grad_norm": done.grad_norm,
            "optim/skipped": (~done.finite).astype(jnp.int32),
            "tokens": count,
        }
