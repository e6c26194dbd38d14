"""The compiled sampler: one vision encoding and one prefill a prompt, then one decode loop for its G rollouts.

The G rollouts of a prompt attend to one shared prefix KV and to their own suffix cache, which lives in the loop's carry
and is written in place. Without compaction all of it is a single jitted function made once a `Sampler`, and nothing
returns to the host before the last token. With it the loop ends when the living rows fit a smaller batch, the host
reads a count, and they go on there (`compaction`).

Every token can be reproduced: its noise is a function of (seed, purpose, step, prompt id, occurrence, group index,
token index) alone, so batch order, batch size, device count, compaction and restarts do not change it (`noise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fgrpo_jax import mesh as meshes
from fgrpo_jax.records import PromptBatch, Rollouts
from fgrpo_jax.rollout import compaction, noise
from fgrpo_jax.rollout.compaction import Batch
from fgrpo_jax.rollout.distribution import Distribution
from fgrpo_jax.rollout.layout import Laid, Layout
from fgrpo_jax.rollout.loop import Decoder, Rows, Shared, last_real
from fgrpo_jax.rollout.noise import key_words
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.rollout.stopping import StopTable

GPU_OPTIONS: dict[str, Any] = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE,CONDITIONAL"
}
"""XLA options for one GPU: what may be in a CUDA graph. XLA by itself leaves loops out, and the host launches a graph
and a kernel for each token; with them the whole decode loop is one graph. Graphs with collectives were seen to hang."""


class Sampler:
    """Draws G completions of each prompt of a batch.

    One instance compiles once a batch shape (the caller buckets shapes); `compilations` counts them.

    Args:
      model: object with the methods of model.qwen2_5_vl.Model that are called here, in `loop` and in `layout`.
      settings: how completions are drawn. Temperature 0 is greedy, whose log-probs are those at temperature 1. With
        truncation (top_k, top_p, min_p) log-probs are of the truncated distribution, the one drawn from, so a learner
        without an importance correction must refuse them (`Distribution.truncated`).
      eos_ids: ids that end a rollout; () runs every rollout to `max_new_tokens`.
      pad_id: id written after the end. It may equal an EOS id: the mask, not the id, says what is content.
      banned: bool [V], ids that must never be drawn (image placeholders, ids beyond the tokenizer).
      stops: stop sequences, each of which ends a rollout as an EOS id does; None for none (`StopTable.build`).
      check_every: tokens between two checks whether all rollouts have ended; no effect on the output.
      cache_dtype: dtype of the suffix cache; None is the model's compute dtype.
      mesh: when given, prefix, cache and rollouts are split over its batch axes by prompt.
      param_shardings: layout of the parameters while sampling (mesh.SAMPLE_RULES), in their structure. They are brought
        into it by `lay_out`, so that no decode step gathers a weight; None leaves them as they come.
      compact: whether living rows move to smaller batches as others end. `sample` then waits for the last token.
      compiler_options: XLA options of this program alone, besides those for GPU (`GPU_OPTIONS`).

    Raises:
      ValueError: a setting out of its range, with the range.
    """

    def __init__(
        self,
        model: Any,
        settings: Sampling,
        *,
        eos_ids: Sequence[int],
        pad_id: int,
        banned: np.ndarray,
        stops: StopTable | None = None,
        check_every: int = 8,
        cache_dtype: Any = None,
        mesh: Mesh | None = None,
        param_shardings: Any = None,
        compiler_options: dict[str, Any] | None = None,
    ) -> None:
        group_size, max_new_tokens = settings.group_size, settings.max_new_tokens
        sizes = {"group_size": group_size, "max_new_tokens": max_new_tokens, "check_every": check_every}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"sampler {name} is {value}; it must be at least 1")
        noise.require_partitionable()
        self.model = model
        self.group_size = group_size
        self.max_new_tokens = max_new_tokens
        self.pad_id = int(pad_id)
        self.cache_dtype = model.compute_dtype if cache_dtype is None else cache_dtype
        self.mesh = mesh
        self.lay_out = Layout(model, param_shardings)
        self.compact = settings.compact
        own = GPU_OPTIONS if meshes.platform(mesh) == "gpu" and (mesh is None or mesh.size == 1) else {}
        self.compiler_options = own | (compiler_options or {}) or None
        self.distribution = Distribution(
            banned=np.asarray(banned),
            eos_ids=tuple(int(i) for i in eos_ids),
            temperature=float(settings.temperature),
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            min_new_tokens=settings.min_new_tokens,
        )
        self._check_vocabulary(stops)
        split = mesh is not None and mesh.size > meshes.batch_size(mesh)
        self.decoder = Decoder(model, self.distribution, max_new_tokens, self.pad_id, check_every, stops, split)
        self._traces = 0
        self._programs = {
            "sample": self._program(self._sample),
            "begin": self._program(self._begin),
            "more": self._program(self._decode, donate_argnums=1),
            "shrink": self._program(self._shrink),
            "collect": self._program(self._collect),
        }

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one a combination of batch shapes, dtypes and shardings; a few with compaction."""
        # The traces count what `compile` did ahead of a call, the cache what a change of sharding alone compiled.
        return max(self._traces, sum(program._cache_size() for program in self._programs.values()))

    def sample(self, params: Any, prompts: PromptBatch, *, seed: int, purpose: int | str, step: int) -> Rollouts:
        """Draws the rollouts of one batch, on the device; returns before they are ready (asynchronous dispatch).

        Args:
          params: of the model, or what `lay_out` made of them once for several batches; else it is done here.
          prompts: M prompts. A row whose mask is False throughout is filling: it emits nothing and is never waited for.
            Images are encoded here where their features are not given.
          seed: of the run, 0 <= seed < 2**32.
          purpose: what the rollouts are for ('train', 'eval', ...): other purposes, other noise.
          step: rollout step, 0 <= step < 2**32.

        Raises:
          ValueError: a seed or step out of range.
        """
        words, params = key_words(seed, purpose=purpose, step=step), self.lay_out(params)
        if not self.compact:
            return self._programs["sample"](params, prompts, words)
        batch, alive = self._programs["begin"](params, prompts, words)
        while self._size(batch) is not None:
            alive = int(alive)  # what the host waits for
            if alive == 0 or int(batch.rows.t) == self.max_new_tokens:
                break
            while (size := self._size(batch)) is not None and alive <= size:
                batch = self._programs["shrink"](batch)
            batch, alive = self._programs["more"](params, batch)
        return self._programs["collect"](batch)

    def compile(self, params: Any, prompts: PromptBatch) -> jax.stages.Compiled:
        """Compiles for these shapes (arrays or ShapeDtypeStructs) ahead of the first call, which then finds it done.

        What it returns knows its memory (`memory_analysis()`) and its text. With compaction it is the first program, up
        to the first compaction; those of the smaller sizes are compiled along.
        """
        params = self.lay_out.abstract(params)
        args = (params, prompts, key_words(0, purpose=0, step=0))
        if not self.compact:
            return self._programs["sample"].lower(*args).compile()
        first, (batch, _) = ahead(self._programs["begin"], *args)
        ahead(self._programs["collect"], batch)
        while self._size(batch) is not None:
            _, batch = ahead(self._programs["shrink"], batch)
            _, (batch, _) = ahead(self._programs["more"], params, batch)
            ahead(self._programs["collect"], batch)
        return first

    def prefill(self, params: Any, prompts: PromptBatch, words: jax.Array) -> tuple[Shared, Rows]:
        """What rollouts of the prompts share, and their rows before the first token. For tracing."""
        with jax.named_scope("vision"):
            features = prompts.features
            if features is None:
                features = self.model.encode(params, prompts.vision)
        with jax.named_scope("prefill"):
            hidden, prefix = self.model.prefix(params, prompts, features)
            prefix = self._constrain(prefix, axis=1)
            first = last_real(hidden, prompts.mask)
        numbers = {"prompt_id": prompts.prompt_id, "occurrence": prompts.occurrence}
        keys = noise.noise_keys(words, **numbers, group_size=self.group_size)
        rows = self.decoder.begin(prompts, first, keys, cache_dtype=self.cache_dtype)
        return Shared(prefix, prompts.mask), self._constrain_rows(rows)

    # ------------------------------------------------------------------------------------------------ traced from here
    def _sample(self, params: Laid, prompts: PromptBatch, words: jax.Array) -> Rollouts:
        """Prefill, then the decode loop. words: uint32 [3] of `key_words`."""
        shared, rows = self.prefill(params.params, prompts, words)
        rows = self.decoder.run(params, shared, rows, until=lambda rows: rows.done.all())
        return self._constrain(compaction.collect(Batch(rows, shared)), axis=0)

    def _begin(self, params: Laid, prompts: PromptBatch, words: jax.Array) -> tuple[Batch, jax.Array]:
        """The same up to the first compaction."""
        shared, rows = self.prefill(params.params, prompts, words)
        return self._decode(params, Batch(rows, shared))

    def _shrink(self, batch: Batch) -> Batch:
        size = self._size(batch)
        assert size is not None
        batch = compaction.shrink(batch, parts=self._parts, size=size)
        shared = batch.shared.replace(prefix=self._constrain(batch.shared.prefix, axis=1))
        return batch.replace(rows=self._constrain_rows(batch.rows), shared=shared)

    def _collect(self, batch: Batch) -> Rollouts:
        return self._constrain(compaction.collect(batch), axis=0)

    def _decode(self, params: Laid, batch: Batch) -> tuple[Batch, jax.Array]:
        """Until so many rows have ended that the others fit the next size: (batch, rows alive in the fullest part)."""
        size = self._size(batch)

        def until(rows: Rows) -> jax.Array:
            if size is None:
                return rows.done.all()
            # Moving costs about as much as drawing a token does: not for the last few.
            few = compaction.living(rows, self._parts) <= size
            return rows.done.all() | (few & (rows.t + self.decoder.check_every < self.max_new_tokens))

        rows = self.decoder.run(params, batch.shared, batch.rows, until=until)
        return batch.replace(rows=self._constrain_rows(rows)), compaction.living(rows, self._parts)

    def _program(self, function: Any, **options: Any) -> Any:
        """`function` jitted, its traces counted."""

        def counted(*args: Any) -> Any:
            self._traces += 1
            return function(*args)

        return jax.jit(counted, compiler_options=self.compiler_options, **options)

    def _size(self, batch: Batch) -> int | None:
        return compaction.smaller(batch.rows.done.size // self._parts)

    @property
    def _parts(self) -> int:
        """How many parts the prompts are split into over devices."""
        return 1 if self.mesh is None else meshes.batch_size(self.mesh)

    def _constrain_rows(self, rows: Rows) -> Rows:
        """Splits rows over the batch axes of the mesh."""
        cache, t = self._constrain(rows.cache, axis=1), rows.t
        return self._constrain(rows.replace(cache=None, t=None), axis=0).replace(cache=cache, t=t)

    def _check_vocabulary(self, stops: StopTable | None) -> None:
        size = self.distribution.banned.size
        if not 0 <= self.pad_id < size:
            raise ValueError(f"sampler pad_id {self.pad_id} is outside the vocabulary of {size}; check the tokenizer")
        if self.distribution.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"sampler min_new_tokens is {self.distribution.min_new_tokens}, more than max_new_tokens "
                f"{self.max_new_tokens}; lower it"
            )
        if stops is not None and stops.table.shape[1] != size:
            raise ValueError(
                f"sampler stops were made for a vocabulary of {stops.table.shape[1]}, not {size}; build them anew"
            )

    def _constrain(self, tree: Any, *, axis: int) -> Any:
        """Splits `axis` (the prompt axis) of every leaf over the batch axes of the mesh; other axes stay free."""
        mesh = self.mesh
        if mesh is None:
            return tree
        free = PartitionSpec.UNCONSTRAINED

        def hold(x: jax.Array) -> jax.Array:
            spec = PartitionSpec(*(meshes.BATCH_AXES if i == axis else free for i in range(x.ndim)))
            return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

        return jax.tree.map(hold, tree)


def ahead(program: Any, *args: Any) -> tuple[jax.stages.Compiled, Any]:
    """(a program compiled for arguments, what it will return as ShapeDtypeStructs with their layout)."""
    lowered = program.lower(*args)
    compiled = lowered.compile()
    return compiled, jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        lowered.out_info,
        compiled.output_shardings,
    )
