"""What one accelerator makes of sampler and learner: the figures that no program tells. Aim: 8 minutes on an H200.

    python tools/bench_device.py --out=h200.json               the 3B; again: the parts that are not in the file yet
    python tools/bench_device.py --shape=7b --layers=8 --parts=learner --out=h200.json
    JAX_PLATFORMS=cpu python tools/bench_device.py --shape=tiny --out=tiny.json      a rehearsal, anywhere

Weights are random, prompts one image each, completions of full length. Every part is written to the file as soon as it
is there; one that fails leaves its error there and the others go on, and it is tried again the next time.

decode    seconds a token from two lengths, by rollouts, over the bandwidth floor (`roofline.token_bytes`); for the
          fewest rollouts also with layers scanned, and without the decode kernel
kernels   the start-up trial's differences, and seconds of attention of completions by kernel and by XLA, with gradients
learner   seconds of a step and its MFU: operations of `roofline.step_operations`, the tower's with them and what remat
          repeats left out, over seconds and the chip's published peak
step      rollouts and learner together in EasyR1's definition: tokens of prompts and responses a second and device
start     seconds of compiling, and of compiling again with the programs kept

Names of hardware and releases stand beside the figures. Rewards take no part in it: they run on the host.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from programs import building, roofline
from programs.devices import CHIPS, Chip

from fgrpo_jax import command
from fgrpo_jax.config import files
from fgrpo_jax.config import load as configs
from fgrpo_jax.config.sections import Config
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.model import kernel_trial
from fgrpo_jax.model.attention import Keys
from fgrpo_jax.model.kernels import XLA
from fgrpo_jax.records import PromptBatch, Signals
from fgrpo_jax.rows import write_atomically
from fgrpo_jax.training import precompile, setup


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Prompt tokens, patches of an image, new tokens; rollouts of a decode call; prompts of a step and a gradient."""

    prompt: int
    patches: int
    new: int
    rollouts: tuple[int, ...]
    prompts: int
    micro: int


SIZES = {
    "3b": Sizes(1024, 4096, 512, (64, 160, 256), 32, 16),
    "7b": Sizes(1024, 4096, 512, (64, 160, 256), 32, 8),
    "tiny": Sizes(64, 64, 16, (16, 32), 4, 2),
}


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--shape", choices=SIZES, default="3b", help="released size, or tiny to rehearse (default 3b)")
    out.add_argument("--layers", type=int, default=0, help="of the model at most; 0 for all of them (default)")
    out.add_argument(
        "--rounds", type=int, default=3, help="rounds of each timing, of which the median counts (default 3)"
    )
    out.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: all)")
    out.add_argument("--out", type=Path, required=True, help="JSON file, read first and added to")
    return out


def main(args: argparse.Namespace) -> int:
    """Runs the parts that are not in the file; exit code 1 when one of them failed."""
    wanted = args.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        raise ValueError(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    known: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    device = jax.devices()[0]
    known |= {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    bench = Bench.create(args, device)
    for part in wanted:
        name = " ".join(filter(None, (args.shape, args.layers and f"{args.layers} layers", part)))
        if "error" not in known.get(name, {"error": ""}):
            continue
        began = time.perf_counter()
        try:
            found = PARTS[part](bench)
        except Exception as error:  # whatever a device does: the other parts go on
            found = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        known[name] = found | {"seconds_of_part": round(time.perf_counter() - began, 1)}
        write_atomically(args.out, json.dumps(known, indent=1) + "\n")
        print(f"{name}: {json.dumps(known[name])}", file=sys.stderr, flush=True)
    return int(any("error" in one for one in known.values() if isinstance(one, dict)))


@dataclasses.dataclass(frozen=True)
class Bench:
    """A policy of random weights on one device, and how it is timed. `chip` is None for a device of no table."""

    config: Config
    policy: setup.Policy
    sizes: Sizes
    chip: Chip | None
    rounds: int

    @classmethod
    def create(cls, args: argparse.Namespace, device: Any) -> Bench:
        sizes, tiny = SIZES[args.shape], args.shape == "tiny"
        raw: Any = files.load_config("tiny" if tiny else "qwen3b")
        raw.data.source = "world"  # no data is read
        raw.model.hf = "shipped"
        raw.mesh.data, raw.mesh.fsdp, raw.mesh.tensor = 1, 1, 1
        raw.data.prompts_per_step = raw.rollout.batch_prompts = sizes.prompts
        raw.rollout.max_new_tokens, raw.algorithm.micro_batch_prompts = sizes.new, sizes.micro
        raw.rollout.compact = False
        config = configs.load(raw, door="train")
        policy = building.policy(config, [device], model="" if tiny else args.shape, layers=args.layers)
        chip = next((chip for name, chip in CHIPS.items() if name in device.device_kind.lower()), None)
        return cls(config, policy, sizes, chip, args.rounds)

    @property
    def shape(self) -> Shape:
        return building.bucket(self.sizes.prompt, self.sizes.patches)

    def but(self, **rollout: Any) -> Config:
        """The config with other fields of the rollout."""
        return dataclasses.replace(self.config, rollout=dataclasses.replace(self.config.rollout, **rollout))

    def params(self) -> Any:
        """Random, in the dtype of masters; made anew, since a learner's step takes them."""
        dtype = jnp.dtype(self.config.model.param_dtype)
        made = functools.partial(self.policy.model.init, dtype=dtype)
        return jax.jit(made, out_shardings=self.policy.shardings)(jax.random.key(0))

    def prompts(self, count: int) -> PromptBatch:
        """Prompts of full length with one image each, on the device."""
        rng, side = np.random.default_rng(0), int(self.sizes.patches**0.5)
        made = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), precompile.abstract_prompts(count, self.shape, sharding=None)
        )
        text, tokens = self.policy.model.config.text, made.tokens.shape
        slot = np.where(np.arange(tokens[1]) < self.sizes.patches // 4, np.arange(tokens[1]), -1)
        places = np.arange(made.vision.windows[0, 0].size).reshape(made.vision.windows.shape[2:])
        grid = np.stack(np.divmod(np.arange(self.sizes.patches, dtype=np.int32), side), -1)
        vision = made.vision.replace(
            patches=rng.integers(0, 256, made.vision.patches.shape, dtype=np.uint8),
            positions=made.vision.positions + grid,
            windows=made.vision.windows + np.minimum(places, self.sizes.patches).astype(np.int32),
            slots=made.vision.slots + np.arange(self.sizes.patches, dtype=np.int32),
            valid=~made.vision.valid,
        )
        return self.policy.put(
            made.replace(
                tokens=rng.integers(0, min(text.vocab_size, 1000), tokens, dtype=np.int32),
                mask=~made.mask,
                positions=made.positions + np.arange(tokens[1], dtype=np.int32)[:, None],
                next_position=made.next_position + np.int32(tokens[1]),
                image_slot=made.image_slot + slot.astype(np.int32),
                prompt_id=np.arange(count, dtype=np.uint32),
                vision=vision,
            )
        )

    def seconds(self, *runs: Callable[[], Any]) -> list[float]:
        """Of each, the median of alternating rounds after one that compiles."""
        for run in runs:
            jax.block_until_ready(run())
        times: list[list[float]] = [[] for _ in runs]
        for _ in range(self.rounds):
            for run, own in zip(runs, times, strict=True):
                began = time.perf_counter()
                jax.block_until_ready(run())
                own.append(time.perf_counter() - began)
        return [statistics.median(own) for own in times]

    def draws(self, rollouts: int, new: int, **model: Any) -> Callable[[], Any]:
        """A call of the sampler for so many rollouts of so many tokens, which none of them ends before."""
        group = self.config.rollout.group_size
        config = self.but(batch_prompts=rollouts // group, max_new_tokens=new, min_new_tokens=new)
        policy = dataclasses.replace(self.policy, model=dataclasses.replace(self.policy.model, **model))
        sampler, prompts = setup.sampler(config, policy, purpose="train"), self.prompts(rollouts // group)
        laid = sampler.lay_out(self.params())
        return lambda: sampler.sample(laid, prompts, seed=0, purpose="bench", step=0)


# -------------------------------------------------------------------------------------------------------------- parts
def decode(bench: Bench) -> dict[str, Any]:
    """Milliseconds a token by rollouts, what the bandwidth needs, and the two changes taken back one at a time."""
    group, new, out = bench.config.rollout.group_size, bench.sizes.new, {}
    plain = {"as it is": {}, "layers scanned": {"unrolled": False, "decode_kernel": False}}
    if bench.policy.model.decode_kernel:
        plain["without the decode kernel"] = {"decode_kernel": False}
    for rollouts in bench.sizes.rollouts:
        count = rollouts // group * group
        hows = plain if rollouts == min(bench.sizes.rollouts) else {"as it is": {}}
        calls = [bench.draws(count, length, **how) for how in hows.values() for length in (new // 2, new)]
        times = bench.seconds(*calls)
        tokens = [(b - a) / (new - new // 2) for a, b in zip(times[::2], times[1::2], strict=True)]
        row: dict[str, Any] = {f"ms a token, {name}": 1e3 * one for name, one in zip(hows, tokens, strict=True)}
        if bench.chip is not None:
            # Tokens of the second half are timed, whose suffix is three quarters of the window on average.
            config = bench.but(batch_prompts=count // group, max_new_tokens=new * 3 // 2)
            moved = roofline.token_bytes(config, bench.policy.model, bench.policy.mesh, bench.shape)
            row["floor ms"] = 1e3 * sum(moved.values()) / bench.chip.bandwidth
            row["share of the floor"] = row["floor ms"] / row["ms a token, as it is"]
        out[f"{count} rollouts"] = row
    return out


def kernels(bench: Bench) -> dict[str, Any]:
    """The chosen attention beside XLA's: differences on the trial's inputs, seconds at the shape of a gradient."""
    model, sizes = bench.policy.model, bench.sizes
    text, dtype, group = model.config.text, model.compute_dtype, bench.config.rollout.group_size
    if model.attention == XLA:
        return {"skipped": f"attention is XLA's own on {jax.devices()[0].device_kind}"}

    def drawn(*shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(sum(shape)), shape, dtype)

    def keys(*lead: int) -> Keys:
        k, v = (drawn(*lead, text.num_kv_heads, text.head_dim) for _ in "kv")
        return Keys(k, v, jnp.ones(lead, bool))

    own, prefix = (sizes.micro, group, sizes.new), (sizes.micro, sizes.prompt)
    inputs = drawn(*own, text.num_heads, text.head_dim), keys(*own), keys(*prefix)
    runs = []
    for form in (model.attention, XLA):
        value = lambda q, own, shared, form=form: form.shared(q, own, shared, mesh=None).astype(jnp.float32).sum()  # noqa: E731
        runs.append(functools.partial(jax.jit(jax.grad(value, argnums=(0, 1, 2), allow_int=True)), *inputs))
    chosen, xla = bench.seconds(*runs)
    apart = kernel_trial.compare(model.attention, model.config, dtype=dtype)
    return {"differences": apart, "ms chosen": 1e3 * chosen, "ms xla": 1e3 * xla}


def learner(bench: Bench) -> dict[str, Any]:
    """Seconds of a step on full lengths, and MFU."""
    made = setup.learner(bench.config, bench.policy)
    prompts, others = bench.prompts(bench.sizes.prompts), _rollouts(bench)
    state = made.init(bench.params())
    reference = made.reference(state.params)
    began = time.perf_counter()
    times = []
    for _ in range(1 + bench.rounds):
        state, _, logps = made.steps[1](state, reference, prompts, *others)
        jax.block_until_ready(logps)
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    out = {"seconds of a step": statistics.median(times[1:]), "seconds of the first": times[0]}
    if bench.chip is not None:
        needed = roofline.step_operations(bench.config, bench.shape, bench.policy.model.config)
        out |= {"operations": sum(needed.values()), "remat": bench.config.model.remat}
        out["mfu"] = out["operations"] / out["seconds of a step"] / bench.chip.operations
    return out


def step(bench: Bench) -> dict[str, Any]:
    """Rollouts and learner one after the other: tokens a second of prompts and responses."""
    group, sizes = bench.config.rollout.group_size, bench.sizes
    (drawn,) = bench.seconds(bench.draws(sizes.prompts * group, sizes.new))
    learnt = learner(bench)["seconds of a step"]
    tokens = sizes.prompts * group * (sizes.prompt + sizes.new)  # a prompt counts once a response
    rate = tokens / (drawn + learnt)
    return {"seconds of rollouts": drawn, "seconds of the learner": learnt, "tokens a second": rate}


def start(bench: Bench) -> dict[str, Any]:
    """Compiling a sampler, then again as a process that finds its programs kept."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="fgrpo-bench-") as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        for name in ("cold", "kept"):
            jax.clear_caches()
            began = time.perf_counter()
            building.sampler(bench.config, bench.policy, bench.shape)
            out[f"seconds of compiling the sampler, {name}"] = time.perf_counter() - began
        jax.config.update("jax_compilation_cache_dir", None)
    return out


def _rollouts(bench: Bench) -> tuple[Any, Any]:
    """(rollouts of full length, signals) on the device."""
    rng, config = np.random.default_rng(1), bench.config
    shape = (bench.sizes.prompts, config.rollout.group_size, bench.sizes.new)
    _, rollouts, _ = precompile.learner_inputs(config, bench.shape, bench.policy.mesh)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), rollouts)
    tokens = rng.integers(0, 1000, shape, dtype=np.int32)
    full = bench.policy.put(zeros.replace(tokens=tokens, mask=~zeros.mask, logps=zeros.logps - 1))
    one = jnp.asarray(rng.random(shape[:2]), jnp.float32)
    values = jnp.asarray(rng.random((len(config.constraints), *shape[:2])), jnp.float32)
    return full, Signals(task=one, accuracy=one, format=one, values=values, mask=values > -1)


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "kernels": kernels,
    "decode": decode,
    "learner": learner,
    "step": step,
    "start": start,
}

if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
