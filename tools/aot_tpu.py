"""Compiles the sampler at a real model's shape for a TPU slice that is not there, and prints what it needs of a chip.

    pip install 'libtpu==0.0.42.*'       # the release that goes with jaxlib 0.10.2; an ordinary CPU machine will do
    python tools/aot_tpu.py --model=3b --topology=v5e:2x4 --mesh=2,1,4 --prompts=32

The program is the one that `Sampler` runs: vision tower, prefill and the decode loop of 8 rollouts a prompt, in
bfloat16, on shapes alone. Prints bytes a chip as the TPU compiler counts them, whether the decode loop gathers a
parameter, and a roofline time: operations and bytes counted by hand (`roofline`), not a measurement. Several
--mesh=DATA,FSDP,TENSOR or --prompts=N make a row each; every row is compiled in a process of its own, because the
compiler needs more stack than a process has by default.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}  # before jax is imported below

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import PromptBatch, VisionInputs
from fgrpo_jax.rollout.sampler import Sampler


def _shape(*, width: int, layers: int, heads: int, kv_heads: int, mlp: int, vocab: int, tied: bool) -> ModelConfig:
    text = TextConfig(
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        intermediate_size=mlp,
        vocab_size=vocab,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
    )
    vision = VisionConfig(hidden_size=1280, out_hidden_size=width, tokens_per_second=2)
    return ModelConfig(text=text, vision=vision)


MODELS: Mapping[str, ModelConfig] = {
    "3b": _shape(width=2048, layers=36, heads=16, kv_heads=2, mlp=11008, vocab=151936, tied=True),
    "7b": _shape(width=3584, layers=28, heads=28, kv_heads=4, mlp=18944, vocab=152064, tied=False),
}
"""The released shapes."""


SHAPE = r"(\w+)\[([\d,]*)\]"
"""A shape in the text of a program: bf16[2048,11008]."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a chip: bytes of memory, bytes/s of its bandwidth, bfloat16 operations/s."""

    memory: float
    bandwidth: float
    operations: float


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(16e9, 819e9, 197e12),
    "v5p": Chip(95e9, 2765e9, 459e12),
    "v6e": Chip(32e9, 1640e9, 918e12),
}


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--model", choices=MODELS, default="3b", help="shape (default 3b)")
    out.add_argument("--topology", default="v5e:2x4", help="TPU slice (default v5e:2x4)")
    out.add_argument("--mesh", action="append", default=[], metavar="DATA,FSDP,TENSOR", help="repeat for several rows")
    out.add_argument("--prompts", type=int, action="append", default=[], help="prompts a batch (default 32); repeat")
    out.add_argument("--rollouts", type=int, default=8, help="rollouts a prompt (default 8)")
    out.add_argument("--prompt_tokens", type=int, default=1024, help="prompt length, padded (default 1024)")
    out.add_argument("--patches", type=int, default=4096, help="patches of the one image a prompt (default 4096: 896²)")
    out.add_argument("--new_tokens", type=int, default=1024, help="completion tokens (default 1024)")
    out.add_argument("--row", help=argparse.SUPPRESS)  # what a child process is told: one row, as JSON
    return out


def main(args: argparse.Namespace) -> int:
    """A row a combination, each in a child process; exit code 1 when one of them does not compile."""
    if args.row is not None:
        print(json.dumps(compile_row(args, **json.loads(args.row))))
        return 0
    rows, failed = [], 0
    for mesh in args.mesh or ["2,1,4"]:
        for prompts in args.prompts or [32]:
            row = in_child(__file__, {"mesh": [int(n) for n in mesh.split(",")], "prompts": prompts})
            failed += row is None
            if row is not None:
                print(json.dumps(row), flush=True)
                rows.append(row)
    print(table(rows), file=sys.stderr)
    return int(failed > 0)


def in_child(tool: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """The row as `tool` found it in a process with an unlimited stack; or None, with its complaint on stderr."""
    given = [argument for argument in sys.argv[1:] if not argument.startswith("--row")]
    command = [sys.executable, tool, *given, f"--row={json.dumps(row)}"]
    limited = ["bash", "-c", 'ulimit -s unlimited; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{row}: exit code {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compile_row(args: argparse.Namespace, *, mesh: list[int], prompts: int) -> dict[str, Any]:
    """Compiles one combination: bytes a chip, gathers of the decode loop, seconds of compilation, roofline."""
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    layout = meshes.make_mesh(*mesh, devices=slice_.devices)
    model = Model.create(MODELS[args.model], compute_dtype=jnp.bfloat16)
    shardings = meshes.shardings(model.specs, layout, rules=meshes.SAMPLE_RULES)
    sampler = Sampler(
        model,
        group_size=args.rollouts,
        max_new_tokens=args.new_tokens,
        eos_ids=(151645, 151643),
        pad_id=151643,
        banned=np.zeros(model.config.text.vocab_size, bool),
        mesh=layout,
        param_shardings=shardings,
    )
    params = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), model.abstract(jnp.bfloat16), shardings
    )
    batch = abstract_prompts(prompts, length=args.prompt_tokens, patches=args.patches)
    split = meshes.batch_sharding(layout)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch)
    began = time.perf_counter()
    compiled = sampler.compile(params, batch)
    memory: Any = compiled.memory_analysis()
    gathered = gathers(compiled.as_text() or "", model)
    return {
        "model": args.model,
        "topology": args.topology,
        "mesh": dict(zip(meshes.MESH_AXES, mesh, strict=True)),
        "prompts": prompts,
        "rollouts": args.rollouts,
        "prompt_tokens": args.prompt_tokens,
        "patches": args.patches,
        "new_tokens": args.new_tokens,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "fits": _total(memory) <= CHIPS[args.topology.split(":")[0]].memory,
        "gathered_parameters": gathered,
        "compile_seconds": round(time.perf_counter() - began, 1),
        "roofline_seconds": roofline(model, args, mesh=mesh, prompts=prompts),
    }


def _total(memory: Any) -> int:
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def abstract_prompts(prompts: int, *, length: int, patches: int) -> PromptBatch:
    """Shapes of a batch of prompts with one square-ish image each."""

    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((prompts, *shape), dtype)

    windows = patches // 64 + (patches % 64 > 0)
    vision = VisionInputs(
        patches=of(jnp.float32, 1, patches, 1176),
        positions=of(jnp.int32, 1, patches, 2),
        windows=of(jnp.int32, 1, windows, 64),
        slots=of(jnp.int32, 1, patches),
        valid=of(jnp.bool_, 1, patches),
    )
    return PromptBatch(
        tokens=of(jnp.int32, length),
        mask=of(jnp.bool_, length),
        positions=of(jnp.int32, length, 3),
        next_position=of(jnp.int32),
        image_slot=of(jnp.int32, length),
        prompt_id=of(jnp.uint32),
        occurrence=of(jnp.uint32),
        vision=vision,
    )


def gathers(text: str, model: Model) -> list[str]:
    """All-gathers of the decode loop whose result is as large as a weight, or as one layer of a stacked one.

    Args:
      text: of the compiled program.
    """
    sizes = set()
    for spec in jax.tree.leaves(model.specs):
        if len(spec.shape) > 1:  # norms and biases are whole everywhere
            layer = spec.shape[1:] if spec.axes[0] == "layers" else spec.shape
            sizes |= {math.prod(spec.shape), math.prod(layer)}
    found = []
    for line in text.splitlines():
        made = re.search(r"= (.*?) all-gather(?:-start)?\(", line)
        if made and "/decode/while" in line:
            # One that is started apart gives its operand and its result; the result is the larger.
            shapes = [(kind, [int(n) for n in dims.split(",") if n]) for kind, dims in re.findall(SHAPE, made[1])]
            kind, shape = max(shapes, key=lambda pair: math.prod(pair[1]))
            if math.prod(shape) in sizes:
                found.append(f"{kind}{shape}")
    return sorted(set(found))


def roofline(model: Model, args: argparse.Namespace, *, mesh: list[int], prompts: int) -> dict[str, float]:
    """Seconds a batch would take at the chip's published peaks: the larger of operations and bytes, phase by phase.

    Operations are 2 a weight and token, attention's 4·width a query and key; bytes are those of weights and KV cache,
    bfloat16, the suffix half full on average. Interconnect and everything else is free. Nothing here is measured.
    """
    chip, text = CHIPS[args.topology.split(":")[0]], model.config.text
    chips, tensor = math.prod(mesh), mesh[2]
    count = {name: sum(math.prod(s.shape) for s in jax.tree.leaves(model.specs[name])) for name in model.specs}
    table_ = text.vocab_size * text.hidden_size
    body = count["text"] - table_
    rows = prompts * args.rollouts
    kv_row = 2 * text.num_layers * text.num_kv_heads * text.head_dim * 2  # bytes of a token's keys and values
    shared = chips / tensor * min(tensor, text.num_kv_heads)  # kv heads beyond their number are copies

    def floor(operations: float, weights: float, cache: float = 0.0) -> float:
        return max(operations / chips / chip.operations, (weights / tensor + cache / shared) / chip.bandwidth)

    attention = 4 * text.num_layers * text.hidden_size
    vision = floor(2 * count["visual"] * prompts * args.patches, 2 * count["visual"])
    tokens = prompts * args.prompt_tokens
    prefill = floor(tokens * (2 * body + attention * args.prompt_tokens / 2), 2 * body)
    context = args.prompt_tokens + args.new_tokens / 2
    cache = kv_row * (prompts * args.prompt_tokens + rows * args.new_tokens / 2)
    step = floor(rows * (2 * (body + table_) + attention * context), 2 * (body + table_), cache)
    return {"vision": vision, "prefill": prefill, "decode": step * args.new_tokens}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, in GB a chip and seconds."""
    sums = "arguments | outputs | temporary | sum"
    head = f"| data × fsdp × tensor | prompts × rollouts | {sums} | gathered in decode | roofline |"
    lines = [head, "|" + "---|" * 8]
    for row in rows:
        sizes = [row[f"{name}_bytes"] / 1e9 for name in ("argument", "output", "temp")]
        cells = [" × ".join(str(n) for n in row["mesh"].values()), f"{row['prompts']} × {row['rollouts']}"]
        cells += [f"{size:.2f}" for size in (*sizes, sum(sizes))]
        cells += [", ".join(row["gathered_parameters"]) or "none", f"{sum(row['roofline_seconds'].values()):.1f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
