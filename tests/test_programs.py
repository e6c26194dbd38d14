"""tools/aot.py: what it counts of a program's text, on programs whose bytes are known; and budgets of compiled ones."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

import aot
import jax
import pytest
import released
from programs import building, counting, devices, hlo, roofline, thunks
from programs.counting import Sizes

from fgrpo_jax import mesh as meshes
from fgrpo_jax.config.sections import Config
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model

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


def test_a_scan_on_a_tpu_is_told_by_its_condition() -> None:
    """No number of rounds stands beside the loop there."""
    bound = "  %three = s32[]{:T(128)} constant(3)\n  %n = s32[] get-tuple-element(%state.9), index=0\n"
    counted = TOKEN.replace("  ROOT %yes = pred[] constant(true)", f"{bound}  ROOT %lt = pred[] compare(%n, %three)")
    counted = counted.replace("compare(%n, %three)", "compare(%n, %three), direction=LT").replace(", LAYERS", "")
    found, known = (counting.counts(text, SIZES) for text in (counted, TOKEN.replace("LAYERS", KNOWN)))
    assert found.checks == 0 and found.bytes["weights"] == known.bytes["weights"]


def test_a_copied_weight_is_seen() -> None:
    copy = "  %kept = f32[64,256]{0,1} copy(%w2)\n  ROOT %out"
    text = TOKEN.replace("LAYERS", KNOWN).replace("  ROOT %out", "  %w2 = f32[64,256]{1,0} bitcast(%gemm)\n" + copy)
    found = counting.counts(text, SIZES)
    assert found.copies == 3
    assert found.bytes["weights"] == 3 * 3 * 64 * 256 * 4


def test_a_program_that_draws_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="draw"):
        counting.counts(TOKEN.replace("/draw/", "/"), SIZES)


def test_operations_of_fused_attention() -> None:
    """Two products forward, five backward, of 2 · 4 queries and 6 keys of 3 heads of 16."""
    arrays = ["bf16[2,4,3,16]{3,2,1,0} parameter(0)", "bf16[2,6,1,16]{3,2,1,0} parameter(1)"]
    lines = [f"  %{name} = {array}" for name, array in zip("qk", arrays, strict=True)]
    for target, products in (("__cudnn$fmhaSoftmax", 2), ("__cudnn$fmhaScaleBiasSoftmaxBackward", 5)):
        call = f'  %c = (bf16[2,3,4,16], u8[64]) custom-call(%q, %k), custom_call_target="{target}"'
        program = hlo.Program("\n".join(["ENTRY %main (q: s32[]) -> s32[] {", *lines, call, "}"]))
        inside = program.computations["main"]
        assert program.operations(inside.by_name["c"], inside) == products * 2 * (2 * 4 * 3 * 16) * 6
        moved = sum(access.bytes for access in program.accesses(inside.by_name["c"], inside))
        assert moved == 2 * (2 * 2 * 4 * 3 * 16 + 2 * 6 * 16)  # the workspace moves nothing


def test_lines_are_read() -> None:
    made = hlo.instruction(
        "  %g = (bf16[512,2048]{1,0:T(8,128)}, u32[]) all-gather-start(bf16[512,2048]{1,0} %x, %y.1), channel_id=1"
    )
    assert made is not None and made.opcode == "all-gather-start" and made.operands == ("x", "y.1")
    assert made.results == (hlo.Array("bf16", (512, 2048)), hlo.Array("u32", ()))
    branch = hlo.instruction("  ROOT %c = f32[] conditional(%p, %a, %b), branch_computations={%one.2, %two}, x={1}")
    assert branch is not None and branch.called("branch_computations") == ["one.2", "two"] and branch.root


def test_gathers_of_weights_are_seen_and_others_are_not() -> None:
    where = 'metadata={op_name="jit(_sample)/decode/while/body/mul"}'
    whole = f"  %g.1 = bf16[64,256]{{1,0:T(8,128)}} all-gather(bf16[64,64]{{1,0}} %x), {where}"
    started = f"  %g.2 = (bf16[16,256], bf16[64,256]{{1,0}}) all-gather-start(bf16[16,256] %y), {where}"
    scores = f"  %g.3 = f32[4,8,2]{{2,1,0}} all-gather(f32[4,8,1] %z), {where}"

    def found(*lines: str) -> list[str]:
        return counting.gathers("\n".join(["ENTRY %main (a: s32[]) -> s32[] {", *lines, "}"]), SIZES)

    assert found(scores, whole.replace("/decode/while", "/prefill")) == []
    assert found(whole, scores) == ["bf16[64, 256]"] == found(started)


# ------------------------------------------------------------------------------------------------------------- thunks
THUNKS = """001: kCopy [source | next=002 (1)] kCopy
002: kWhile         [prev=001 (1) | sink]
condition:
    003: kCustomKernel [source | sink] all_done
  body:
    000: kCommandBuffer [source | next=006 (1)]
        004: kCustomKernel [source | next=005 (1)] gemm
        005: kCustomKernel [prev=004 (1) | sink] add
    006: kWhile        [prev=000 (1) | next=000 (1)]
condition:
        007: kCustomKernel [source | sink] compare
      body:
        000: kCommandBuffer [source | sink]
            008: kCustomKernel [source | sink] layer
    000: kCommandBuffer [prev=006 (1) | sink]
        009: kCustomKernel [source | sink] last
"""


def test_launches_of_a_token_by_hand() -> None:
    """Two graphs and one for each of three layers; the loops' conditions run by themselves, layers once more."""
    top = thunks.parse(THUNKS, {2: "tokens", 6: "layers"})
    assert [part.kind for part in top] == ["kCopy", "kWhile"]
    assert [part.kind for part in top[1].parts] == ["kCustomKernel", "kCommandBuffer", "kWhile", "kCommandBuffer"]
    known, free = TOKEN.replace("LAYERS", KNOWN), TOKEN.replace(", LAYERS", "")
    assert thunks.launches(top, known) == {"graphs": 2 + 3, "alone": 1 + 3, "checked": 0}
    assert thunks.launches(top, free, unknown=2) == {"graphs": 2 + 2, "alone": 1 + 2, "checked": 1}
    inside = thunks.parse("000: kCommandBuffer [source | sink]\n    002: kWhile [source | sink]\n", {2: "tokens"})
    assert thunks.launches(inside, free) == {"graphs": 0, "alone": 0, "checked": 0}


# ----------------------------------------------------------------------------------------------------- counted by hand
def test_the_roofline_of_one_decode_step_by_hand() -> None:
    """One chip and one rollout of a short prompt: the weights' bytes over the bandwidth."""
    model = Model.create(ModelConfig.from_hf(released.HUB["3B"]), compute_dtype="bfloat16")

    def decode(prompts: int, *sizes: int) -> float:
        mesh: Any = jax.sharding.AbstractMesh(sizes, meshes.MESH_AXES)
        rollout = dataclasses.replace(Config().rollout, group_size=1, max_new_tokens=1, batch_prompts=prompts)
        config, shape = dataclasses.replace(Config(), rollout=rollout), building.bucket(1, 64)
        return roofline.sampler_seconds(config, model, mesh, shape, devices.CHIPS["v5e"])["decode"]

    weights = 3_085_938_688  # of the language model, its table once
    assert decode(1, 1, 1, 1) == pytest.approx(2 * weights / 819e9, rel=1e-3)
    assert decode(8, 2, 1, 4) == pytest.approx(decode(1, 1, 1, 1) / 4, rel=1e-3)  # tensor shards, data copies


def test_devices_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="h200"):
        devices.topology(gpu="h300")
    with pytest.raises(ValueError, match="v5e"):
        devices.topology(tpu="v4:2x2")


# ------------------------------------------------------------------------------------------------------------ budgets
BUDGETS = {"gb": 1.55, "kernels": 60, "copies": 0, "conversions": 0, "checks": 0}
"""At most, of a token of the 3B with two of its layers: 32 prompts of 1,024 tokens × 5, a window of 512."""

LAUNCHES = {"graphs": 0, "alone": 0, "checked": 0}
"""The token is part of one CUDA graph: nothing is launched for it alone, and the host looks at no loop's end."""

GPU = ("--config=qwen3b", "--gpu=h200", "--model=3b", "--layers=2", "--config.rollout.max_new_tokens=512")


def two_layers(part: str) -> dict[str, Any]:
    if find_spec("jax_plugins") is None or find_spec("jax_plugins.xla_cuda13") is None:
        pytest.skip("no compiler for GPUs; pip install -e '.[aot]'")
    row = aot.in_child(GPU, part=part)
    assert row is not None, f"the {part} does not compile"
    return row


def over(found: dict[str, float], budget: dict[str, float]) -> dict[str, float]:
    """What exceeds its budget."""
    return {name: found[name] for name, most in budget.items() if found[name] > most}


def test_budgets_of_two_layers(record_property: Any) -> None:
    row = two_layers("sampler")
    for name, value in {**row["token"], **row["launched"], "floor share": row["floor_share"]}.items():
        record_property(name, value)
    assert not over(row["token"], BUDGETS) and not over(row["launched"], LAUNCHES)
    # A table of 151,936 × 2,048 and two layers in float32 once, which nothing that reads masters can be below.
    assert row["token"]["gb_by_kind"]["weights"] > 0.9 and row["fits"] and not row["gathered"]


@pytest.mark.slow
def test_budgets_of_two_layers_of_the_learner(record_property: Any) -> None:
    row = two_layers("learner")
    record_property("attention", row["attention_gb"])
    assert not over(row["attention_gb"], {"both": 4.8})
    assert not over(row["step"]["gb_by_kind"], {"vocabulary": 4_300, "layers": 1_150, "optimizer": 45, "rest": 200})
    assert row["fits"] and 0.3 < row["roofline_share"] < 1
