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
from collections.abc import Mapping, Sequence
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}  # before jax is imported below

import jax
import jax.numpy as jnp
import numpy as np
import released
from jax.experimental import topologies

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rollout.settings import Sampling
from fgrpo_jax.training import precompile

MODELS: Mapping[str, ModelConfig] = {size.lower(): ModelConfig.from_hf(released.HUB[size]) for size in ("3B", "7B")}
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


def chip_of(args: argparse.Namespace) -> Chip:
    """The chip of --topology."""
    return CHIPS[args.topology.split(":")[0]]


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
        Sampling(group_size=args.rollouts, max_new_tokens=args.new_tokens),
        eos_ids=(151645, 151643),
        pad_id=151643,
        banned=np.zeros(model.config.text.vocab_size, bool),
        mesh=layout,
        param_shardings=shardings,
    )
    params = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), model.abstract(jnp.bfloat16), shardings
    )
    batch = precompile.abstract_prompts(prompts, prompt_shape(args), meshes.batch_sharding(layout))
    began = time.perf_counter()
    compiled = sampler.compile(params, batch)
    held = bytes_of(compiled)
    return {
        "model": args.model,
        "topology": args.topology,
        "mesh": dict(zip(meshes.MESH_AXES, mesh, strict=True)),
        "prompts": prompts,
        **{name: getattr(args, name) for name in ("rollouts", "prompt_tokens", "patches", "new_tokens")},
        **held,
        "fits": sum(held.values()) <= chip_of(args).memory,
        "gathered_parameters": gathers(compiled.as_text() or "", model),
        "compile_seconds": round(time.perf_counter() - began, 1),
        "roofline_seconds": roofline(model, args, mesh=mesh, prompts=prompts),
    }


def bytes_of(compiled: Any) -> dict[str, int]:
    """Bytes a chip of arguments, temporary values and outputs, as the compiler counts them."""
    memory = compiled.memory_analysis()
    return {f"{name}_bytes": getattr(memory, f"{name}_size_in_bytes") for name in ("argument", "temp", "output")}


def prompt_shape(args: argparse.Namespace) -> Shape:
    """Of prompts with one square-ish image each."""
    windows = args.patches // 64 + (args.patches % 64 > 0)
    return Shape(prompt=args.prompt_tokens, patches=args.patches, images=1, windows=windows)


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
    chip, text = chip_of(args), model.config.text
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
    lines = []
    for row in rows:
        sizes = [row[f"{name}_bytes"] / 1e9 for name in ("argument", "output", "temp")]
        cells = [" × ".join(str(n) for n in row["mesh"].values()), f"{row['prompts']} × {row['rollouts']}"]
        cells += [f"{size:.2f}" for size in (*sizes, sum(sizes))]
        cells += [", ".join(row["gathered_parameters"]) or "none", f"{sum(row['roofline_seconds'].values()):.1f} s"]
        lines.append(cells)
    head = ("data × fsdp × tensor", "prompts × rollouts", "arguments", "outputs", "temporary", "sum")
    return markdown((*head, "gathered in decode", "roofline"), lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
