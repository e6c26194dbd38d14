"""What the compiled step of a small model holds (step_memory.py reads it): nothing V or a length squared wide."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
import step_memory as memory

from fgrpo_jax.model import vocabulary
from fgrpo_jax.model.qwen2_5_vl import Model

WHOLE = pytest.param({"updates": 2, "kl_coef": 0.01}, id="reference and two updates", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [pytest.param({"updates": 1, "kl_coef": 0.0}, id="smallest"), WHOLE])
def test_no_wide_buffer_and_no_growth_with_the_vocabulary(settings: dict[str, Any]) -> None:
    """Beyond a tenth, and but for buffers that are as large as a parameter."""
    small, large = (memory.compiled(vocab, **settings) for vocab in (memory.SMALL, memory.LARGE))
    shapes = memory.float32_shapes(large.as_text())
    assert memory.tokens_by_vocabulary(shapes, memory.LARGE) == []
    assert memory.length_by_length(shapes) == []
    sizes = [memory.besides_parameters(*pair) for pair in ((small, memory.SMALL), (large, memory.LARGE))]
    assert sizes[1] <= 1.1 * sizes[0]


def test_wide_shapes_are_noticed() -> None:
    shapes = memory.float32_shapes("f32[3,2,541,152003]{3,2,1,0} bf16[1031,1031] f32[3246,1031] f32[1024,152003] f32[]")
    assert memory.tokens_by_vocabulary(shapes, memory.LARGE) == ["[3, 2, 541, 152003]"]
    assert memory.length_by_length(shapes) == ["[3246, 1031]"]


def test_temporary_memory_is_read_as_the_compiler_counts_it() -> None:
    """A program whose temporaries are known: the two products that its sum waits for."""
    shape = jax.ShapeDtypeStruct((100, 300), jnp.float32)
    program = jax.jit(lambda x: jnp.sort(x @ x.T, axis=0) @ jnp.sort(x, axis=1)).lower(shape).compile()
    held = memory.temporaries(program.memory_analysis().serialized_buffer_assignment_proto)
    assert {4 * 100 * 100, 4 * 100 * 300} <= {buffer.size for buffer in held}
    end = max(buffer.offset + buffer.size for buffer in held if buffer.home == max(held, key=_size).home)
    assert end <= program.memory_analysis().temp_size_in_bytes


def _size(buffer: memory.Buffer) -> int:
    return dataclasses.astuple(buffer)[2]


def test_a_chunk_of_logits_has_constant_room() -> None:
    assert vocabulary.rows(640) == 1024
    kinds = {"NVIDIA H200": 1024, "TPU v5": 1024, "TPU v5 lite": 220}
    for kind, rows in kinds.items():
        assert vocabulary.rows(151_936, mock.Mock(platform="gpu", device_kind=kind)) == rows
    for vocab in (64_007, 151_936, 152_064):
        assert vocab * vocabulary.rows(vocab) <= vocabulary.ROOM < vocab * (vocabulary.rows(vocab) + 1)


@pytest.mark.slow
def test_each_remat_policy_keeps_less_than_the_one_before() -> None:
    """Temporary bytes of a backward pass of 8 layers: everything kept, products kept, inputs of layers kept."""
    base = memory.model(vocab=512)
    text = dataclasses.replace(base.config.text, num_layers=8)
    shapes = {
        "tokens": jax.ShapeDtypeStruct((2, 128, text.hidden_size), jnp.float32),
        "positions": jax.ShapeDtypeStruct((2, 128, 3), jnp.int32),
        "mask": jax.ShapeDtypeStruct((2, 128), jnp.bool_),
    }
    held = {}
    for remat in ("none", "dots", "full"):
        model = Model.create(dataclasses.replace(base.config, text=text), remat=remat)

        def loss(params, tokens, positions, mask, model=model):
            hidden, _ = model.modules(params).text.prefix(tokens, positions, mask, remat=model.remat)
            return jnp.sum(hidden**2)

        compiled = jax.jit(jax.grad(loss)).lower(model.abstract(), *shapes.values()).compile()
        held[remat] = compiled.memory_analysis().temp_size_in_bytes
    assert held["none"] > 1.05 * held["dots"] and held["dots"] > 1.5 * held["full"], held
