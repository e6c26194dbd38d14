"""Compiles the sampler and the learner of a run's config for a GPU or TPU that is not there, and prints what they need.

    pip install -e '.[aot]'                                     # compilers of both; an ordinary CPU machine will do
    python tools/aot.py --config=qwen3b --gpu=h200 --model=3b --config.rollout.max_new_tokens=512
    python tools/aot.py --config=qwen3b --topology=v5e:4x4 --model=3b --part=learner

The programs are those that `train` would run with this config, built by the same functions, on shapes alone. Bytes are
counted from the text of the compiled program, a kernel's operands and results once each; memory is the compiler's own
count. Nothing is measured: there is no time among the figures but of compilation. A row is compiled in a process of its
own, because the compilers need more stack than a process has by default.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}  # before jax is imported below

from programs import building, devices
from programs.counting import Sizes, counts

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.config import load as configs

__all__ = ["Sizes", "counts"]


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
    out.add_argument("--row", help=argparse.SUPPRESS)  # what a child process is told: which part
    return out


def main(args: argparse.Namespace) -> int:
    """A row a part, each in a child process; exit code 1 when one of them does not compile."""
    if bool(args.gpu) == bool(args.topology):
        raise ValueError("give one of --gpu=h200 and --topology=v5e:4x4")
    if args.row is not None:
        print(json.dumps(compile_row(args, part=args.row)))
        return 0
    parts = ["sampler", "learner"] if args.part == "both" else [args.part]
    rows = [in_child(part) for part in parts]
    for row in rows:
        if row is not None:
            print(json.dumps(row), flush=True)
    return int(None in rows)


def in_child(part: str) -> dict[str, Any] | None:
    """The row as a process with an unlimited stack found it; or None, with its complaint on stderr."""
    limited = ["bash", "-c", 'ulimit -s unlimited; exec "$@"', "bash", sys.executable, __file__]
    done = subprocess.run([*limited, *sys.argv[1:], f"--row={part}"], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{part}: exit code {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compile_row(args: argparse.Namespace, *, part: str) -> dict[str, Any]:
    """Compiles one part and counts."""
    args.config.data.path = args.config.data.path or "."  # shapes are given: no data is read
    config = configs.load(args.config)
    chip, found = devices.topology(gpu=args.gpu, tpu=args.topology)
    policy = building.policy(config, found, model=args.model, layers=args.layers)
    shape = building.bucket(args.prompt_tokens, args.patches)
    began = time.perf_counter()
    compiled = (building.sampler if part == "sampler" else building.learner)(config, policy, shape)
    row = {"part": part, "device": args.gpu or args.topology, "mesh": dict(policy.mesh.shape), "layers": args.layers}
    row |= {"compile_seconds": round(time.perf_counter() - began, 1)}
    text = compiled.as_text() or ""
    if os.environ.get("AOT_TEXT"):
        with open(os.environ["AOT_TEXT"], "w") as file:
            file.write(text)
    if part == "sampler":
        shardings = meshes.shardings(policy.model.specs, policy.mesh, rules=meshes.SAMPLE_RULES)
        sizes = Sizes.of(
            policy.model,
            shardings,
            prompts=config.rollout.batch_prompts,
            group=config.rollout.group_size,
            prompt=args.prompt_tokens,
            parts=meshes.batch_size(policy.mesh),
        )
        row["token"] = counts(text, sizes).row()
    return row


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
