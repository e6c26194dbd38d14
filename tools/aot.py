"""Compiles the sampler and the learner of a run's config for a GPU or TPU that is not there, and prints what they need.

    pip install -e '.[aot]'                                     # compilers of both; an ordinary CPU machine will do
    python tools/aot.py --config=qwen3b --gpu=h200 --model=3b --config.rollout.max_new_tokens=512
    python tools/aot.py --config=qwen3b --topology=v5e:4x4 --model=3b --part=learner

The programs are those that `train` would run with this config, built by the same functions, on shapes alone. Bytes are
counted from the text of the compiled program, a kernel's operands and results once each; memory is the compiler's own
count, and roofline times are operations or bytes over published peaks. Nothing is measured: there is no time among the
figures but of compilation. A JSON line a row goes to stdout, tables to stderr. docs/benchmarks.md says what is what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before jax is imported below. Compiling takes no chip, so that several may do it at once.
os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

from programs import building, counting, devices, roofline, thunks
from programs.counting import Sizes, counts

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.training.setup import Policy

__all__ = ["Sizes", "counts"]  # for other tools that look at a sampler they compiled themselves


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__, config=True)
    out.add_argument("--gpu", default="", metavar="NAME[xN]", help="h200, h100 or a100; h200x8 for eight of them")
    out.add_argument("--topology", default="", help="TPU slice, such as v5e:4x4")
    out.add_argument("--part", choices=("sampler", "learner", "both"), default="both", help="(default both)")
    out.add_argument("--model", choices=("3b", "7b"), default="", help="a released shape in the place of model.hf")
    out.add_argument("--layers", type=int, default=0, help="so many layers of that width, for a quick look; 0 is all")
    out.add_argument("--prompt_tokens", type=int, default=1024, help="prompt length, padded (default 1024)")
    out.add_argument("--patches", type=int, default=4096, help="patches of the one image a prompt (default 4096: 896²)")
    out.add_argument("--keep", type=Path, help="folder for what XLA writes of the programs; a temporary one by default")
    out.add_argument("--row", help=argparse.SUPPRESS)  # what a child process is told: the part that is its own
    return out


def main(args: argparse.Namespace) -> int:
    """A row a part, each in a child process; exit code 1 when one of them does not compile."""
    if bool(args.gpu) == bool(args.topology):
        raise ValueError("give one of --gpu=h200 and --topology=v5e:4x4")
    if args.row is not None:
        print(json.dumps(compile_row(args, part=args.row)))
        return 0
    rows = []
    for part in ("sampler", "learner") if args.part == "both" else (args.part,):
        row = in_child(sys.argv[1:], part=part, keep=args.keep)
        if row is not None:
            print(json.dumps(row), flush=True)
        rows.append(row)
    print("\n\n".join(table(row) for row in rows if row is not None), file=sys.stderr)
    return int(None in rows)


def in_child(given: Sequence[str], *, part: str, keep: Path | None = None) -> dict[str, Any] | None:
    """The row of a command line as a process of its own found it; or None, with its complaint on stderr.

    The compilers need more stack than a process has by default, and what they write is asked for before jax is there.
    """
    with tempfile.TemporaryDirectory(prefix="fgrpo-aot-") as temporary:
        folder = (Path(temporary) if keep is None else keep.absolute()) / part
        folder.mkdir(parents=True, exist_ok=True)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {thunks.flags(folder)}"
        limited = ["bash", "-c", 'ulimit -s unlimited; exec "$@"', "bash", sys.executable, __file__]
        child = [*limited, *(one for one in given if not one.startswith("--keep")), f"--row={part}", f"--keep={folder}"]
        places = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])])
        env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": places}
        done = subprocess.run(child, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        print(f"{part}: exit code {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compile_row(args: argparse.Namespace, *, part: str) -> dict[str, Any]:
    """Compiles one part for the devices and counts."""
    args.config.data.path = args.config.data.path or "."  # shapes are given: no data is read
    config, shape = configs.load(args.config), building.bucket(args.prompt_tokens, args.patches)
    chip, found = devices.topology(gpu=args.gpu, tpu=args.topology)
    policy = building.policy(config, found, model=args.model, layers=args.layers)
    began = time.perf_counter()
    compiled = getattr(building, part)(config, policy, shape)
    seconds = round(time.perf_counter() - began, 1)
    text = compiled.as_text() or ""
    if args.keep is not None:
        (args.keep / "program.txt").write_text(text, encoding="utf-8")
    of_part = of_sampler if part == "sampler" else of_learner
    return {
        "part": part,
        "model": args.model or config.model.hf,
        "layers": policy.model.config.text.num_layers,
        "device": args.gpu or args.topology,
        "mesh": dict(policy.mesh.shape),
        "rollouts": [config.rollout.group_size, config.rollout.max_new_tokens],
        "prompt": [args.prompt_tokens, args.patches],
        **memory(compiled, chip),
        **of_part(text, config, policy, shape, chip=chip, dumped=args.keep if args.gpu else None),
        "compile_seconds": seconds,
    }


def memory(compiled: Any, chip: devices.Chip) -> dict[str, Any]:
    """GB a device as the compiler counts them: arguments, temporary values and outputs, of which some are donated."""
    analysis = compiled.memory_analysis()
    names = {"arguments": "argument", "temporary": "temp", "outputs": "output", "donated": "alias"}
    held = {name: getattr(analysis, f"{field}_size_in_bytes") / 1e9 for name, field in names.items()}
    total = held["arguments"] + held["temporary"] + held["outputs"] - held["donated"]
    gb = {name: round(value, 3) for name, value in (held | {"sum": total}).items()}
    return {"memory_gb": gb, "fits": total * 1e9 <= chip.memory}


def of_sampler(
    text: str, config: Config, policy: Policy, shape: Shape, *, chip: devices.Chip, dumped: Path | None
) -> dict[str, Any]:
    """What a token of the decode loop moves and launches, and what it must read at least."""
    model, mesh = policy.model, policy.mesh
    prompts, group = config.rollout.batch_prompts, config.rollout.group_size
    shardings = meshes.shardings(model.specs, mesh, rules=meshes.SAMPLE_RULES)
    batch = {"prompts": prompts, "group": group, "prompt": shape.prompt, "parts": meshes.batch_size(mesh)}
    sizes = Sizes.of(model, shardings, **batch)
    unknown = counting.mean_rounds(config.rollout.max_new_tokens)
    found, floor = counts(text, sizes, unknown=unknown), roofline.token_bytes(config, model, mesh, shape)
    return {
        "prompts": prompts,
        "token": found.row(counting.KINDS),
        "launched": None if dumped is None else thunks.launches(thunks.read(dumped), text, unknown=unknown),
        "gathered": counting.gathers(text, sizes),
        "floor_gb": {name: round(moved / 1e9, 3) for name, moved in floor.items()},
        "floor_share": round(sum(floor.values()) / found.total, 3),
        "token_ms": {"moved": 1e3 * found.total / chip.bandwidth, "floor": 1e3 * sum(floor.values()) / chip.bandwidth},
        "roofline_seconds": roofline.sampler_seconds(config, model, mesh, shape, chip),
    }


def of_learner(
    text: str, config: Config, policy: Policy, shape: Shape, *, chip: devices.Chip, dumped: Path | None
) -> dict[str, Any]:
    """What a step moves and computes, and which share of its kernels' time the operations that it needs would take."""
    model, mesh, algorithm = policy.model, policy.mesh, config.algorithm
    tower = model.config.vision
    found = counting.step_counts(text, chip, full=len(tower.fullatt_block_indexes) / tower.depth)
    needed = roofline.step_operations(config, shape, model.config)
    useful = sum(needed.values()) / mesh.size / chip.operations
    seconds = roofline.step_seconds(config, model, mesh, shape, chip)
    rounds = config.data.prompts_per_step // algorithm.micro_batch_prompts
    attention = counting.attention_bytes(found, layers=model.config.text.num_layers, rounds=rounds)
    return {
        "prompts": [config.data.prompts_per_step, algorithm.micro_batch_prompts],
        "masters": config.model.param_dtype,
        "remat": config.model.remat,
        "step": found.row([*dict.fromkeys(counting.STEP_KINDS.values()), "rest"]),
        "attention_gb": {name: round(moved / 1e9, 3) for name, moved in attention.items()},
        "operations": {**needed, "compiled": found.operations * mesh.size},
        "roofline_seconds": seconds | {"kernels": found.seconds},
        "roofline_share": round(useful / found.seconds, 3),
    }


def table(row: dict[str, Any]) -> str:
    """A row as a Markdown table of names and figures."""
    flat = {}
    for name, value in row.items():
        for key, one in value.items() if isinstance(value, dict) else [("", value)]:
            inner = one.items() if isinstance(one, dict) else [("", one)]
            flat |= {" ".join(filter(None, (name, key, last))): figure for last, figure in inner}
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in flat.items()}
    lines = [(name.replace("_", " "), value) for name, value in shown.items()]
    return "\n".join(f"| {name} | {value} |" for name, value in [("", ""), ("---", "---"), *lines])


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
