"""Which shapes a training run will meet, known before its first step: measured, chosen, and compiled ahead.

A pass over the sizes of the run's own batches (no image is resized or cut) says what each needs. From that the best few
joint shapes are chosen (`config.data.buckets.choose`), and sampler and learner are compiled for every shape that will
come, so that no step waits for a compiler.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data import buckets as padded
from fgrpo_jax.data.buckets import Buckets, Shape
from fgrpo_jax.data.images import PATCH_VALUES, WINDOW_PATCHES
from fgrpo_jax.data.pipeline import PromptIterator
from fgrpo_jax.records import PromptBatch, Rollouts, Signals, VisionInputs
from fgrpo_jax.rollout.sampler import ahead
from fgrpo_jax.rows import write_atomically

CACHE = "shapes.json"
"""File of the workdir that keeps what was measured, so that a resumed run does not measure again."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the first batches of the run need, in order, and how they are padded.

    Attributes:
      key: everything that the needs depend on, JSON types.
      buckets: with the chosen shapes, where some are to be chosen.
    """

    key: dict[str, Any]
    needs: tuple[Shape, ...]
    buckets: Buckets

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes those batches have, each one compile of the sampler and one of the learner."""
        return tuple(sorted({self.buckets.fit(need) for need in self.needs}))

    def write(self, workdir: Path) -> None:
        """Keeps the needs in the workdir, when they took a pass."""
        if len(self.needs) < 2:
            return
        text = json.dumps({"key": self.key, "needs": [dataclasses.astuple(need) for need in self.needs]})
        write_atomically(workdir / CACHE, text + "\n")


def plan(config: Config, data: PromptIterator, buckets: Buckets, *, workdir: Path) -> Plan:
    """Measures the run's batches, or reads what was measured, and chooses shapes if the config asks for it."""
    given = config.data.buckets
    # Where prompt and patches have one length each, the first batch says it all.
    fixed = not given.choose and len(buckets.prompt) == len(buckets.patches) == 1
    if config.algorithm.filter_dead and not (fixed or given.choose == 1) and jax.process_count() > 1:
        raise ValueError(
            f"config.algorithm.filter_dead=True lets each of the {jax.process_count()} processes of this run put other "
            "prompts into its batch, and pad them as no other does; use config.data.buckets.choose=1"
        )
    batches = 1 if fixed else min(config.num_steps, given.measure)
    key = {"data": json.loads(json.dumps(dataclasses.asdict(config.data))), "seed": config.seed, "batches": batches}
    needs = _read(workdir / CACHE, key)
    if needs is None:
        steps = tqdm(data.needs(batches), desc="measuring batches", total=batches, leave=False, disable=batches == 1)
        needs = tuple(steps)
    shapes = padded.choose(needs, count=given.choose) if given.choose else ()
    return Plan(key, needs, dataclasses.replace(buckets, shapes=shapes))


def _read(file: Path, key: dict[str, Any]) -> tuple[Shape, ...] | None:
    """What an earlier start of this run measured; None when there is nothing, or it is of other data."""
    if not file.is_file():
        return None
    stored = json.loads(file.read_text(encoding="utf8"))
    return tuple(Shape(*need) for need in stored["needs"]) if stored["key"] == key else None


# ------------------------------------------------------------------------------------------------------- shapes alone
def abstract_prompts(count: int, shape: Shape, sharding: Any) -> PromptBatch:
    """ShapeDtypeStructs of `count` prompts of this shape."""

    of: Any = lambda dtype, *sizes: jax.ShapeDtypeStruct((count, *sizes), dtype, sharding=sharding)  # noqa: E731
    slots, room = shape.images, shape.patches
    vision = VisionInputs(
        patches=of(jnp.uint8, slots, room, PATCH_VALUES),
        positions=of(jnp.int32, slots, room, 2),
        windows=of(jnp.int32, slots, shape.windows, WINDOW_PATCHES),
        slots=of(jnp.int32, slots, room),
        valid=of(jnp.bool_, slots, room),
    )
    return PromptBatch(
        tokens=of(jnp.int32, shape.prompt),
        mask=of(jnp.bool_, shape.prompt),
        positions=of(jnp.int32, shape.prompt, 3),
        next_position=of(jnp.int32),
        image_slot=of(jnp.int32, shape.prompt),
        prompt_id=of(jnp.uint32),
        occurrence=of(jnp.uint32),
        vision=vision,
    )


def abstract_rollouts(count: int, group: int, tokens: int, sharding: Any) -> Rollouts:
    """ShapeDtypeStructs of `group` completions of `tokens` places for each of `count` prompts."""
    of: Any = lambda dtype, *sizes: jax.ShapeDtypeStruct((count, group, *sizes), dtype, sharding=sharding)  # noqa: E731
    logps = of(jnp.float32, tokens)
    return Rollouts(tokens=of(jnp.int32, tokens), mask=of(jnp.bool_, tokens), logps=logps, finished=of(jnp.bool_))


def abstract_signals(
    constraints: int, count: int, group: int, mesh: jax.sharding.Mesh, *, filtered: bool = False
) -> Signals:
    """ShapeDtypeStructs of the signals of those rollouts; `filtered` where dead groups are replaced among them."""
    lead = meshes.batch_sharding(mesh)
    second = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, meshes.BATCH_AXES))
    one: Any = jax.ShapeDtypeStruct((count, group), jnp.float32, sharding=lead)
    of: Any = lambda dtype: jax.ShapeDtypeStruct((constraints, count, group), dtype, sharding=second)  # noqa: E731
    drawn: Any = {"drawn_values": of(jnp.float32), "drawn_mask": of(jnp.bool_)} if filtered else {}
    return Signals(task=one, accuracy=one, format=one, values=of(jnp.float32), mask=of(jnp.bool_), **drawn)


def learner_inputs(config: Config, shape: Shape, mesh: jax.sharding.Mesh) -> tuple[PromptBatch, Rollouts, Signals]:
    """ShapeDtypeStructs of what a learner step takes beside state and reference, its prompts being of this shape."""
    split = meshes.batch_sharding(mesh)
    count, group = config.data.prompts_per_step, config.rollout.group_size
    rollouts = abstract_rollouts(count, group, config.rollout.max_new_tokens, split)
    filtered = config.algorithm.filter_dead
    signals = abstract_signals(len(config.constraints), count, group, mesh, filtered=filtered)
    return abstract_prompts(count, shape, split), rollouts, signals


def some(prompts: PromptBatch, count: int) -> PromptBatch:
    """`count` of these prompts, as one call of the sampler takes them; all of it ShapeDtypeStructs."""

    def one(x: Any) -> Any:
        return jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype, sharding=x.sharding)

    return jax.tree.map(one, prompts)


def compile_ahead(
    config: Config,
    shapes: Sequence[Shape],
    *,
    mesh: jax.sharding.Mesh,
    sampler: Any,
    learner: Any,
    state: Any,
    reference: Any,
) -> None:
    """Compiles sampler and learner step for every shape, with a progress bar; state and reference are not touched."""
    for shape in tqdm(shapes, desc="compiling", unit="shape", leave=False):
        prompts, *others = learner_inputs(config, shape, mesh)
        if learner.encode is not None:
            _, prompts = ahead(learner.encode, state.params, prompts)
        sampler.compile(state.params, some(prompts, config.rollout.batch_prompts))
        for step in learner.steps.values():
            step.lower(state, reference, prompts, *others).compile()
