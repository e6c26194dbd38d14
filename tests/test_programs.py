"""tools/aot.py: what it counts of a program's text, on programs whose bytes are known; and budgets of compiled ones."""

from __future__ import annotations

import pytest
from programs import counting, hlo
from programs.counting import Sizes

SIZES = Sizes(frozenset({64 * 256, 3 * 64 * 256}), prompts=2, group=5, prompt=96, vocabulary=1000, kv=(2, 16), layers=3)
"""Weights of 64 × 256 in three layers, a vocabulary of 1,000, two prompts of 96 tokens × 5."""

DRAW = 'metadata={op_name="jit(_sample)/decode/while/body/draw/add"}'

TOKEN = f"""HloModule jit__sample, is_scheduled=true

%fused_gemm (param_0: f32[3,64,256], param_1: s32[], param_2: bf16[10,64]) -> bf16[10,256] {{
  %param_0 = f32[3,64,256]{{2,1,0}} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %param_2 = bf16[10,64]{{1,0}} parameter(2)
  %narrow = bf16[3,64,256]{{2,1,0}} convert(%param_0)
  %slice = bf16[1,64,256]{{2,1,0}} dynamic-slice(%narrow, %param_1, %zero, %zero), dynamic_slice_sizes={{1,64,256}}
  %flat = bf16[64,256]{{1,0}} bitcast(%slice)
  ROOT %dot = bf16[10,256]{{1,0}} dot(%param_2, %flat), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%fused_write (param_0.1: bf16[10,2,64,16], param_1.1: bf16[10,2,1,16], param_2.1: s32[]) -> bf16[10,2,64,16] {{
  %param_0.1 = bf16[10,2,64,16]{{3,2,1,0}} parameter(0)
  %param_1.1 = bf16[10,2,1,16]{{3,2,1,0}} parameter(1)
  %zero.1 = s32[] constant(0)
  %param_2.1 = s32[] parameter(2)
  ROOT %up = bf16[10,2,64,16]{{3,2,1,0}} dynamic-update-slice(%param_0.1, %param_1.1, %zero.1, %zero.1, %param_2.1)
}}

%layer (state: (s32[], bf16[10,64], f32[3,64,256])) -> (s32[], bf16[10,64], f32[3,64,256]) {{
  %state = (s32[], bf16[10,64]{{1,0}}, f32[3,64,256]{{2,1,0}}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %x = bf16[10,64]{{1,0}} get-tuple-element(%state), index=1
  %stack = f32[3,64,256]{{2,1,0}} get-tuple-element(%state), index=2
  %gemm = bf16[10,256]{{1,0}} fusion(%stack, %number, %x), kind=kCustom, calls=%fused_gemm
  ROOT %out = (s32[], bf16[10,64]{{1,0}}, f32[3,64,256]{{2,1,0}}) tuple(%number, %x, %stack)
}}

%always (state.9: (s32[], bf16[10,64], f32[3,64,256])) -> pred[] {{
  %state.9 = (s32[], bf16[10,64]{{1,0}}, f32[3,64,256]{{2,1,0}}) parameter(0)
  ROOT %yes = pred[] constant(true)
}}

%body (carry: (s32[], bf16[10,64], f32[3,64,256], bf16[10,2,64,16], f32[10,1000])) -> (s32[], bf16[10,64]) {{
  %carry = (s32[], bf16[10,64]{{1,0}}, f32[3,64,256], /*index=3*/bf16[10,2,64,16], f32[10,1000]{{1,0}}) parameter(0)
  %t = s32[] get-tuple-element(%carry), index=0
  %h = bf16[10,64]{{1,0}} get-tuple-element(%carry), index=1
  %w = f32[3,64,256]{{2,1,0}} get-tuple-element(%carry), index=2
  %cache = bf16[10,2,64,16]{{3,2,1,0}} get-tuple-element(%carry), index=3
  %logits = f32[10,1000]{{1,0}} get-tuple-element(%carry), index=4
  %row = bf16[10,2,1,16]{{3,2,1,0}} bitcast(%h)
  %written = bf16[10,2,64,16]{{3,2,1,0}} fusion(%cache, %row, %t), kind=kLoop, calls=%fused_write
  %noise = f32[10,1000]{{1,0}} add(%logits, %logits), {DRAW}
  %start = (s32[], bf16[10,64]{{1,0}}, f32[3,64,256]{{2,1,0}}) tuple(%t, %h, %w)
  %layers = (s32[], bf16[10,64], f32[3,64,256]) while(%start), condition=%always, body=%layer, LAYERS
  ROOT %next = (s32[], bf16[10,64]{{1,0}}) tuple(%t, %h)
}}

ENTRY %main (a: s32[]) -> s32[] {{
  %a = s32[] parameter(0)
  %tokens = (s32[], bf16[10,64]{{1,0}}) while(%a), condition=%always, body=%body
  ROOT %b = s32[] get-tuple-element(%tokens), index=0
}}
"""
KNOWN = 'backend_config={"known_trip_count":{"n":"3"}}'


def test_a_token_by_hand() -> None:
    """Three layers that read a slice of a stacked float32 weight, a cache written in place, logits read twice."""
    found = counting.counts(TOKEN.replace("LAYERS", KNOWN), SIZES)
    assert found.bytes["weights"] == 3 * 64 * 256 * 4
    assert found.bytes["suffix"] == 10 * 2 * 16 * 2  # the column that is written, and nothing of the others
    assert found.bytes["vocabulary"] == 3 * 10 * 1000 * 4
    # Of each layer input and output, and the number of the layer; the row and its place.
    assert found.bytes["rest"] == 3 * (10 * 64 * 2 + 10 * 256 * 2 + 4) + 10 * 2 * 16 * 2 + 4
    assert found.kernels == 2 + 3 and found.copies == 0 and found.checks == 0
    assert found.conversions == 3  # once a layer, of the whole stack inside the fusion


def test_a_loop_of_unknown_length_is_checked_by_the_host() -> None:
    found = counting.counts(TOKEN.replace(", LAYERS", ""), SIZES, unknown=1.5)
    assert found.checks == 1 and found.kernels == 2 + 1.5
    assert found.bytes["weights"] == 1.5 * 64 * 256 * 4


def test_a_copied_weight_is_seen() -> None:
    copy = "  %kept = f32[64,256]{0,1} copy(%w2)\n  ROOT %out"
    text = TOKEN.replace("LAYERS", KNOWN).replace("  ROOT %out", "  %w2 = f32[64,256]{1,0} bitcast(%gemm)\n" + copy)
    found = counting.counts(text, SIZES)
    assert found.copies == 3 and found.copied_bytes == 3 * 64 * 256 * 4
    assert found.bytes["weights"] == 3 * 3 * 64 * 256 * 4


def test_a_program_that_draws_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="draw"):
        counting.counts(TOKEN.replace("/draw/", "/"), SIZES)


def test_lines_are_read() -> None:
    made = hlo.instruction(
        "  %g = (bf16[512,2048]{1,0:T(8,128)}, u32[]) all-gather-start(bf16[512,2048]{1,0} %x, %y.1), channel_id=1"
    )
    assert made is not None and made.opcode == "all-gather-start" and made.operands == ("x", "y.1")
    assert made.results == (hlo.Array("bf16", (512, 2048)), hlo.Array("u32", ()))
    branch = hlo.instruction("  ROOT %c = f32[] conditional(%p, %a, %b), branch_computations={%one.2, %two}, x={1}")
    assert branch is not None and branch.called("branch_computations") == ["one.2", "two"] and branch.root
