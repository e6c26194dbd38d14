"""Compiles the learner step at a real model's shape for a TPU slice that is not there; prints what it needs of a chip.

    pip install 'libtpu==0.0.42.*'       # the release that goes with jaxlib 0.10.2; an ordinary CPU machine will do
    python tools/aot_learner.py --model=3b --topology=v5e:4x4 --mesh=1,16,1 --micro=16
    python tools/aot_learner.py --model=7b --topology=v5p:2x2x2 --mesh=1,8,1 --micro=8

The program is the one that `train` runs on the paper's batch, 128 prompts × 5 rollouts in two updates: frozen tower
once, reference and old log-probs, gradients micro-batch by micro-batch, AdamW on float32 masters (or bfloat16 halves,
--compensated), activations in bfloat16. Prints bytes a chip as the TPU compiler counts them, operations counted by hand
(`operations`) and a roofline time from them: no measurement. Each --micro=N makes a row, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

import aot_tpu
import jax
import jax.numpy as jnp
from jax.experimental import topologies

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.fgrpo import optimizer
from fgrpo_jax.fgrpo.learner import Learner, LearnerConfig
from fgrpo_jax.fgrpo.settings import Algorithm, Constraint, Optimizer
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import precompile

PROMPTS, ROLLOUTS, UPDATES = 128, 5, 2
"""The paper's rollout batch."""


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--model", choices=aot_tpu.MODELS, default="3b", help="shape (default 3b)")
    out.add_argument("--topology", default="v5e:4x4", help="TPU slice (default v5e:4x4)")
    out.add_argument("--mesh", default="1,16,1", metavar="DATA,FSDP,TENSOR", help="(default 1,16,1)")
    out.add_argument("--micro", type=int, action="append", default=[], help="prompts a micro-batch, over all chips")
    out.add_argument("--prompt_tokens", type=int, default=1024, help="prompt length, padded (default 1024)")
    out.add_argument("--patches", type=int, default=2048, help="patches of the one image a prompt (default 2048)")
    out.add_argument("--new_tokens", type=int, default=1024, help="completion tokens (default 1024)")
    out.add_argument("--remat", choices=("none", "dots", "full"), default="full", help="(default full)")
    out.add_argument("--compensated", action="store_true", help="bfloat16 weights and mean, lost bits beside them")
    out.add_argument("--row", help=argparse.SUPPRESS)  # what a child process is told: one row, as JSON
    return out


def main(args: argparse.Namespace) -> int:
    """A row a micro-batch, each in a child process; exit code 1 when one of them does not compile."""
    if args.row is not None:
        print(json.dumps(compile_row(args, **json.loads(args.row))))
        return 0
    rows = [aot_tpu.in_child(__file__, {"micro": micro}) for micro in args.micro or [16]]
    made = [row for row in rows if row is not None]
    for row in made:
        print(json.dumps(row))
    print(table(made), file=sys.stderr)
    return int(len(made) < len(rows))


def compile_row(args: argparse.Namespace, *, micro: int) -> dict[str, Any]:
    """Compiles the step with this micro-batch: bytes a chip, seconds of compilation, operations, roofline."""
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    sizes = [int(n) for n in args.mesh.split(",")]
    mesh = meshes.make_mesh(*sizes, devices=slice_.devices)
    model = Model.create(aot_tpu.MODELS[args.model], compute_dtype=jnp.bfloat16, remat=args.remat, mesh=mesh)
    began = time.perf_counter()
    compiled = lower(model, mesh, args, micro=micro).compile()
    held = aot_tpu.bytes_of(compiled) | {"donated_bytes": compiled.memory_analysis().alias_size_in_bytes}
    total = sum(held.values()) - 2 * held["donated_bytes"]
    chip = aot_tpu.chip_of(args)
    done = operations(model.config, args, remat=args.remat)
    return {
        "model": args.model,
        "topology": args.topology,
        "mesh": dict(zip(meshes.MESH_AXES, sizes, strict=True)),
        "micro": micro,
        "masters": "bfloat16 halves" if args.compensated else "float32",
        "remat": args.remat,
        **held,
        "sum_bytes": total,
        "fits": total <= chip.memory,
        "compile_seconds": round(time.perf_counter() - began, 1),
        "operations": done,
        "roofline_seconds": roofline(model, args, micro=micro, chip=chip, chips=math.prod(sizes)),
    }


def lower(model: Model, mesh: Any, args: argparse.Namespace, *, micro: int) -> Any:
    """The step on shapes alone, placed as a run places them."""
    settings = Optimizer(compensated=args.compensated, mean_dtype="bfloat16" if args.compensated else "float32")
    config = LearnerConfig(
        tuple(Constraint(name, threshold=0.95) for name in ("consistency", "grounding", "boxes")),
        Algorithm(updates_per_batch=UPDATES, micro_batch_prompts=micro),
        optimizer.Rule(settings),
    )
    learner = Learner(model, config, jnp.zeros(model.config.text.vocab_size, bool))
    dtype = jnp.bfloat16 if args.compensated else jnp.float32
    place = lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to)  # noqa: E731
    params = jax.tree.map(place, model.abstract(dtype), meshes.shardings(model.specs, mesh))
    homes = {path: x.sharding for path, x in optimizer.flatten(params).items()}

    def placed(path: Any, x: Any) -> Any:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return place(x, next((homes[name] for name in names if name in homes), meshes.replicated(mesh)))

    fresh = jax.eval_shape(learner.fresh, params)
    state = jax.tree_util.tree_map_with_path(placed, fresh).replace(params=params)
    reference = jax.tree_util.tree_map_with_path(placed, jax.eval_shape(learner.reference, params))
    split = meshes.batch_sharding(mesh)
    prompts = precompile.abstract_prompts(PROMPTS, aot_tpu.prompt_shape(args), split)
    rollouts = precompile.abstract_rollouts(PROMPTS, ROLLOUTS, args.new_tokens, split)
    signals = precompile.abstract_signals(len(config.constraints), PROMPTS, ROLLOUTS, mesh)
    return learner.step.lower(state, reference, prompts, rollouts, signals)


# ------------------------------------------------------------------------------------------------------ counted by hand
def forward_operations(
    config: ModelConfig, *, prompts: int, group: int, prompt_tokens: int, new_tokens: int
) -> dict[str, float]:
    """Operations of one pass of the language model over prompts and their completions, a multiply-add being two.

    'layers' and 'vocabulary' are 2 a weight and token, 'attention' 4 · heads · head_dim a layer, query and key: all
    keys of a causal block are computed and some are masked, so every key counts.
    """
    text = config.text
    model = Model.create(config)
    body = sum(math.prod(spec.shape) for spec in jax.tree.leaves(model.specs["text"]["layers"]))
    completion = group * new_tokens
    keys = prompt_tokens**2 + completion * (prompt_tokens + new_tokens)
    return {
        "layers": 2.0 * body * prompts * (prompt_tokens + completion),
        "attention": 4.0 * text.num_layers * text.num_heads * text.head_dim * prompts * keys,
        "vocabulary": 2.0 * text.vocab_size * text.hidden_size * prompts * completion,
    }


def operations(config: ModelConfig, args: argparse.Namespace, *, remat: str) -> dict[str, float]:
    """Operations of one step, by part.

    Passes forward: the reference's, the old policy's (all updates but the first), the gradient's own, and that of
    rematerialisation. The backward pass is twice the forward one in products with weights, 2.5 times in attention,
    which computes its scores again; the vocabulary is projected again and then has its two products.
    """
    sizes = {"prompts": PROMPTS, "group": ROLLOUTS}
    once = forward_operations(config, **sizes, prompt_tokens=args.prompt_tokens, new_tokens=args.new_tokens)
    without = 1 + (UPDATES - 1) / UPDATES
    again = {"none": (0, 0), "dots": (0, 1), "full": (1, 1)}[remat]
    tower = sum(math.prod(spec.shape) for spec in jax.tree.leaves(Model.create(config).specs["visual"]["blocks"]))
    return {
        "vision": 2.0 * tower * PROMPTS * args.patches,
        "layers": once["layers"] * (without + 3 + again[0]),
        "attention": once["attention"] * (without + 3.5 + again[1]),
        "vocabulary": once["vocabulary"] * (without + 4),
    }


def roofline(model: Model, args: argparse.Namespace, *, micro: int, chip: aot_tpu.Chip, chips: int) -> dict[str, float]:
    """Seconds at the chip's published peaks, interconnect free: the larger of the two is a floor, not a measurement.

    Bytes: every pass over a micro-batch reads all weights on every chip (bfloat16, gathered), and an update reads and
    writes masters and moments and reads gradients once.
    """
    weights = sum(math.prod(spec.shape) for spec in jax.tree.leaves(model.specs["text"]))
    passes = (PROMPTS / micro) * (1 + (UPDATES - 1) / UPDATES + 3 + (args.remat == "full"))
    moved = 2.0 * weights * passes + UPDATES * 28.0 * weights / chips
    total = sum(operations(model.config, args, remat=args.remat).values())
    return {"operations": total / chips / chip.operations, "bytes": moved / chip.bandwidth}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, in GB a chip."""
    lines = []
    for row in rows:
        names = ("argument", "temp", "output", "donated", "sum")
        cells = [f"{row['model']}, {row['topology']}, {' × '.join(str(n) for n in row['mesh'].values())}"]
        cells += [str(row["micro"]), row["masters"], *(f"{row[f'{name}_bytes'] / 1e9:.2f}" for name in names)]
        cells += [f"{sum(row['operations'].values()):.2e}", f"{max(row['roofline_seconds'].values()):.1f} s"]
        lines.append(cells)
    kinds = ("arguments", "temporary", "outputs", "of them donated", "sum")
    head = ("model, slice, data × fsdp × tensor", "micro-batch", "masters", *kinds, "operations", "roofline")
    return aot_tpu.markdown(head, lines)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
