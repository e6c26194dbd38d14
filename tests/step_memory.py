"""What a compiled learner step of a small model holds, read from the compiled object."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import policies

from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.fgrpo.learner import Constraint, Learner, LearnerConfig
from fgrpo_jax.fgrpo.settings import Algorithm
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import precompile

SMALL, LARGE = 32_003, 152_003
"""Two vocabularies: one such as Llama 2 has, and Qwen's."""

PROMPTS, MICRO, GROUP = 12, 3, 2
PROMPT, COMPLETION, PATCHES = 1031, 541, 1076  # longer than a block of attention; PATCHES is a multiple of 4
PATCH_VALUES = 1176  # numbers of a patch: a width, though it is longer than COMPLETION
TOKENS = MICRO * GROUP * COMPLETION


def model(vocab: int) -> Any:
    """A small model of which no two sizes are equal."""
    text = TextConfig(
        hidden_size=96,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=136,
        vocab_size=vocab,
        mrope_section=(2, 3, 3),
        tie_word_embeddings=True,
    )
    vision = VisionConfig(
        depth=2, hidden_size=40, num_heads=2, intermediate_size=52, out_hidden_size=96, fullatt_block_indexes=(1,)
    )
    return Model.create(ModelConfig(text=text, vision=vision), remat="full")


def compiled(vocab: int, *, updates: int, **settings: Any) -> Any:
    """The step for this vocabulary, from shapes alone; the tower is trained too."""
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    split, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    config = LearnerConfig(
        tuple(Constraint(name, 0.9) for name in "abc"),
        Algorithm(updates_per_batch=updates, micro_batch_prompts=MICRO, **settings),
        freeze=("visual/patch_embed/**",),
    )
    options = {"xla_backend_optimization_level": 0}  # of the machine code; what buffers there are is decided before
    learner = Learner(model(vocab), config, jnp.zeros(vocab, bool), compiler_options=options)
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)  # noqa: E731
    params = jax.tree.map(place, learner.model.abstract())
    state = jax.tree.map(place, jax.eval_shape(learner.fresh, params))
    windows = PATCHES // 64 + 1
    shape = Shape(prompt=PROMPT, images=1, patches=PATCHES, windows=windows)
    prompts = precompile.abstract_prompts(PROMPTS, shape, split)
    rollouts = precompile.abstract_rollouts(PROMPTS, GROUP, COMPLETION, split)
    signals = precompile.abstract_signals(3, PROMPTS, GROUP, mesh)
    reference = jax.eval_shape(learner.reference, params)
    lowered = learner.step.lower(state, jax.tree.map(place, reference), prompts, rollouts, signals)
    return lowered.compile(compiler_options=policies.USERS)


# --------------------------------------------------------------------------------------------------- shapes in the text
def float32_shapes(text: str) -> set[tuple[int, ...]]:
    """Every float32 shape that the program mentions."""
    return {tuple(int(n) for n in dims.split(",")) for dims in re.findall(r"\bf32\[([\d,]+)\]", text)}


def tokens_by_vocabulary(shapes: set[tuple[int, ...]], vocab: int) -> list[str]:
    """Those that hold a number for each word at each token of a micro-batch, or more."""
    return _shown(shape for shape in shapes if vocab in shape and math.prod(shape) // vocab >= TOKENS)


def length_by_length(shapes: set[tuple[int, ...]]) -> list[str]:
    """Those with two sides as long as a sequence."""
    shortest = min(PROMPT, COMPLETION, PATCHES)
    long = lambda shape: [n for n in shape if n >= shortest and n not in (PATCH_VALUES, SMALL, LARGE)]  # noqa: E731
    return _shown(shape for shape in shapes if len(long(shape)) > 1)


def _shown(shapes: Any) -> list[str]:
    return sorted(str(list(shape)) for shape in shapes)


# -------------------------------------------------------------------------------------------------- temporary memory
@dataclasses.dataclass(frozen=True)
class Buffer:
    """A value in temporary memory: `size` bytes at `offset` of allocation `home`."""

    home: int
    offset: int
    size: int


def besides_parameters(program: Any, vocab: int) -> int:
    """Bytes of the temporary memory that ever hold anything but a value as large as a parameter or a stack of one."""
    sizes = {4 * math.prod(spec.shape) for spec in jax.tree.leaves(model(vocab).specs) if len(spec.shape) > 1}
    spans: dict[int, list[tuple[int, int]]] = {}
    for buffer in temporaries(program.memory_analysis().serialized_buffer_assignment_proto):
        if buffer.size not in sizes:
            spans.setdefault(buffer.home, []).append((buffer.offset, buffer.offset + buffer.size))
    return sum(_covered(parts) for parts in spans.values())


def _covered(spans: list[tuple[int, int]]) -> int:
    total = end = 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def temporaries(assignment: bytes) -> list[Buffer]:
    """The values in temporary memory, of XLA's BufferAssignmentProto (xla/service/hlo.proto).

    Its buffer allocations are field 3: index 1, thread-local 3, of a parameter 5, constant 12, live out 7, and the
    values put there 9, with number 1, offset 2 and size 3.
    """
    found = []
    for allocation in (_fields(value) for number, value in _pairs(assignment) if number == 3):
        if any(allocation.get(number, [0])[0] for number in (3, 5, 7, 12)):
            continue
        for value in (_fields(piece) for piece in allocation.get(9, [])):
            home, offset, size = allocation.get(1, [0])[0], value.get(2, [0])[0], value.get(3, [0])[0]
            found.append(Buffer(home, offset, size))
    return found


def _fields(message: bytes) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    for number, value in _pairs(message):
        out.setdefault(number, []).append(value)
    return out


def _pairs(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message in protobuf's wire format: integers, and bytes."""
    at = 0

    def integer() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = integer()
        kind, width = key & 7, {1: 8, 5: 4}.get(key & 7)
        if kind == 0:
            yield key >> 3, integer()
            continue
        width = integer() if width is None else width
        yield key >> 3, message[at : at + width]
        at += width
