"""What a compiled program moves and runs: a token of the sampler's decode loop, a step of the learner."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from programs.devices import Chip
from programs.hlo import FREE, Array, Computation, Instruction, Program

KINDS = ("weights", "prefix", "suffix", "vocabulary", "rest")
"""What bytes are of: weights with the embedding table, keys and values of prompts and of completions, logits and noise
(numbers by the vocabulary), all else."""

SMALL = 1 << 16
"""Numbers of a weight below which it counts as 'rest': biases and scales are as large as activations are."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What tells arrays of a program apart: sizes on one device.

    Attributes:
      weights: numbers in each weight, and in one layer of a stacked one; `SMALL` ones are left out.
      prompts, group, prompt, vocabulary, kv, layers: M, G, S, V, (K, H), L.
    """

    weights: frozenset[int]
    prompts: int
    group: int
    prompt: int
    vocabulary: int
    kv: tuple[int, int]
    layers: int

    @classmethod
    def of(cls, model: Any, shardings: Any, *, prompts: int, group: int, prompt: int, parts: int = 1) -> Sizes:
        """Of a model whose weights lie as `shardings` say, prompts being split over `parts`."""
        import jax  # the parser alone needs none

        text, weights = model.config.text, set()
        specs, placed = jax.tree.leaves(model.specs["text"]), jax.tree.leaves(shardings["text"])
        for spec, sharding in zip(specs, placed, strict=True):
            stacked = int(spec.axes[0] == "layers")
            local = sharding.shard_shape(spec.shape)
            if math.prod(local[stacked:]) >= SMALL:  # the last is what a gather would make of it
                weights |= {math.prod(shape) for shape in (local, local[stacked:], spec.shape[stacked:])}
        kernel, home = (tree["text"]["layers"]["attn"]["k"]["kernel"] for tree in (model.specs, shardings))
        kv = home.shard_shape(kernel.shape)[2:]
        return cls(frozenset(weights), prompts // parts, group, prompt, text.vocab_size, kv, text.num_layers)

    def kind(self, array: Array) -> str:
        """One of KINDS."""
        dims, size = [n for n in array.dims if n > 1], array.size
        rows, (heads, width) = self.prompts * self.group, self.kv
        activations = dims[:1] == [rows] or dims[:2] == [self.prompts, self.group]
        prefix = self.prompts * self.prompt * heads * width
        if (
            width in dims
            and size in (prefix, prefix * self.layers)
            and (self.prompt in dims or size not in self.weights)
        ):
            return "prefix"
        if size in self.weights and not activations:
            return "weights"
        if size >= self.vocabulary and size % self.vocabulary == 0:
            return "vocabulary"
        # Of any window; queries and hidden states are a few heads wide.
        if width in dims and size % (rows * heads * width * 32) == 0:
            return "suffix"
        return "rest"


@dataclasses.dataclass
class Counts:
    """Of one run of a computation, loops within it included.

    Attributes:
      bytes: read and written, by kind (a collections.Counter, as `scopes` is).
      kernels: launched, copies among them.
      copies: kernels that write an array of a weight's size.
      conversions: of arrays of a weight's size to another dtype, inside fusions or not.
      checks: loops whose number of rounds is not known when compiled: their end is looked at.
      branches: of which the one that moves most is taken, or the two by shares.
      operations: of matrix products.
      seconds: of kernels one after another, each as long as its bytes or its operations take (`Chip.reached`).
      scopes: bytes by where in the source a kernel comes from.
    """

    bytes: Any = dataclasses.field(default_factory=collections.Counter)
    kernels: float = 0
    copies: float = 0
    conversions: float = 0
    checks: float = 0
    branches: float = 0
    operations: float = 0
    seconds: float = 0
    scopes: Any = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: Counts, times: float = 1) -> None:
        """Adds what another does so many times."""
        for name, value in vars(other).items():
            if isinstance(value, dict):
                for key, part in value.items():
                    getattr(self, name)[key] += times * part
            else:
                setattr(self, name, getattr(self, name) + times * value)

    @property
    def total(self) -> float:
        return sum(self.bytes.values())

    def row(self, kinds: Iterable[str]) -> dict[str, Any]:
        """As JSON types, bytes in GB."""
        names = ("kernels", "copies", "conversions", "checks", "branches")
        numbers = {name: round(getattr(self, name), 1) for name in names}
        by_kind = {kind: round(self.bytes[kind] / 1e9, 3) for kind in kinds}
        return {"gb": round(self.total / 1e9, 3), "gb_by_kind": by_kind, **numbers}


def mean_rounds(window: int, block: int = 256) -> float:
    """Rounds that a loop over the written columns of a suffix cache makes, on average over a window of tokens."""
    return sum(t // block + 1 for t in range(window)) / window


def counts(text: str, sizes: Sizes, *, unknown: float = 1.5) -> Counts:
    """Of one token of the decode loop of a compiled sampler; the mean of its loops where it has several (windows).

    Args:
      text: `compiled.as_text()`.
      sizes: `Sizes.of` the model and batch.
      unknown: rounds of a loop inside a token whose number the compiler does not know. Attention over a suffix cache of
        512 in blocks of 256 goes once for the first half of the tokens and twice for the second.

    Raises:
      ValueError: a program without a loop that draws.
    """
    program = Program(text)
    counter = Counter(program, lambda _, array: sizes.kind(array), unknown=unknown)
    bodies = [counter.of(program.computations[name]) for name in token_loops(program)]
    if not bodies:
        raise ValueError("no loop of this program draws tokens: none of their bodies has an instruction of /draw/")
    out = Counts()
    for body in bodies:
        out.add(body, 1 / len(bodies))
    return out


STEP_KINDS = {name: name for name in ("optimizer", "vision", "vocabulary")}
STEP_KINDS |= {"attend": "attention", "attention": "layers", "mlp": "layers"}
"""Named scope of the code → what bytes of a learner step are of; the first that stands in a kernel's scope."""


def step_kind(kernel: Instruction, array: Array) -> str:
    """A value of STEP_KINDS, or 'rest'."""
    parts = set(re.split(r"[/()]", kernel.scope))
    return next((kind for name, kind in STEP_KINDS.items() if name in parts), "rest")


def step_counts(text: str, chip: Chip, *, full: float = 1, pieces: float = 1, chunks: float = 1) -> Counts:
    """Of a compiled learner step on one device, completions being of full length.

    Args:
      full: share of the tower's layers that attend to whole images, which is the heavier branch of each.
      pieces: of an update, and
      chunks: of the vocabulary's rows in a piece, which a program learns from the lengths at run time.
    """

    def rounds(loop: Instruction) -> float:
        return chunks if "vocabulary" in re.split(r"[/()]", loop.scope) else pieces

    program = Program(text)
    return Counter(program, step_kind, chip=chip, heavy=full, unknown=rounds).of(program.computations[program.entry])


def attention_bytes(found: Counts, *, layers: int, rounds: float) -> dict[str, float]:
    """Bytes that attention moves in a layer and piece, of prompts and completions: in a pass 'forward' without a
    gradient, where there is a reference, and in 'both', forward and backward; what remat does once more is not in it.

    Args:
      rounds: pieces of a step.
    """
    total = dict.fromkeys(("forward", "both"), 0.0)
    for scope, moved in found.scopes.items():
        parts = set(re.split(r"[/()]", scope))
        if "attend" in parts and "rematted_computation" not in parts:
            total["forward"] += moved * ("reference" in parts)
            total["both"] += moved * ("gradient" in parts)
    return {name: value / layers / rounds for name, value in total.items()}


def gathers(text: str, sizes: Sizes) -> list[str]:
    """All-gathers of the decode loop whose result is as large as a weight, or as one layer of a stacked one."""
    found = set()
    for inside in Program(text).computations.values():
        for one in inside.instructions:
            if one.opcode in ("all-gather", "all-gather-start") and "/decode/while" in one.scope:
                # One that is started apart gives its operand and its result; the result is the larger.
                made = max(one.results, key=lambda array: array.size)
                found |= {f"{made.dtype}{list(made.dims)}"} if sizes.kind(made) == "weights" else set()
    return sorted(found)


def token_loops(program: Program) -> list[str]:
    """Bodies of the loops whose every round draws a token.

    A loop around such a one may hold parts of drawing too, which a TPU's compiler moves out of it.
    """
    found = {}
    loops = (i for inside in program.computations.values() for i in inside.instructions if i.opcode == "while")
    for body in (program.computations[loop.called("body")[0]] for loop in loops):
        kernels = list(_directly(program, body))
        if any("/draw/" in kernel.scope for kernel in kernels):
            found[body.name] = {one.called("body")[0] for one in kernels if one.opcode == "while"}
    return [name for name, inner in found.items() if not inner & found.keys()]


def _directly(program: Program, inside: Computation) -> Iterator[Instruction]:
    """Kernels of a computation, and of those it calls, but not of loops in it."""
    for kernel in inside.instructions:
        yield kernel
        if kernel.opcode == "call":
            for name in kernel.called("to_apply", "calls"):
                yield from _directly(program, program.computations[name])


class Counter:
    """Counts computations of a program, each once.

    Args:
      kind: what bytes are of, by the kernel and the array that it reads or writes.
      unknown: rounds of loops whose number the compiler does not know, or what gives those of one.
      chip: on which a kernel takes as long as its bytes or its operations, whichever takes longer.
      heavy: share of the times that a branch takes its heavier way.
    """

    def __init__(
        self,
        program: Program,
        kind: Callable[[Instruction, Array], str],
        *,
        unknown: float | Callable[[Instruction], float] = 1,
        chip: Chip | None = None,
        heavy: float = 1,
    ) -> None:
        self.program, self.kind, self.unknown, self.chip, self.heavy = program, kind, unknown, chip, heavy
        self.known: dict[str, Counts] = {}
        self.inner: dict[str, int] = {}

    def of(self, inside: Computation) -> Counts:
        """What one run of it does."""
        if inside.name in self.known:
            return self.known[inside.name]
        out = self.known[inside.name] = Counts()
        for kernel in inside.instructions:
            if kernel.opcode in ("while", "conditional", "call", "async-start"):
                self._control(kernel, out)
            elif not FREE.fullmatch(kernel.opcode):
                self._kernel(kernel, inside, out)
        return out

    def _control(self, kernel: Instruction, out: Counts) -> None:
        """Adds what a loop, branch or call runs."""
        run = lambda *roles: [self.of(self.program.computations[name]) for name in kernel.called(*roles)]  # noqa: E731
        if kernel.opcode == "while":
            trips = self.program.trips(kernel)
            out.checks += trips is None
            if trips is None:
                trips = self.unknown(kernel) if callable(self.unknown) else self.unknown
            for part in run("body", "condition"):
                out.add(part, trips)
        elif kernel.opcode == "conditional":
            out.branches += 1
            branches = run("branch_computations", "true_computation", "false_computation")
            branches.sort(key=lambda branch: branch.total)
            out.add(branches[-1], self.heavy)
            out.add(branches[0], 1 - self.heavy)
        else:
            for part in run("to_apply", "calls", "called_computations"):
                out.add(part)

    def _kernel(self, kernel: Instruction, inside: Computation, out: Counts) -> None:
        moved, copies = 0.0, False
        for access in self.program.accesses(kernel, inside):
            kind = self.kind(kernel, access.array)
            out.bytes[kind] += access.bytes
            moved += access.bytes
            copies |= access.written and kind == "weights" and not access.array.near
        done = self.program.operations(kernel, inside)
        out.kernels += 1
        out.scopes[kernel.scope] += moved
        out.copies += copies
        out.conversions += self._conversions(kernel)
        out.operations += done
        if self.chip is not None:
            out.seconds += max(moved / self.chip.bandwidth, done / self.chip.operations / self.chip.reached)

    def _conversions(self, kernel: Instruction) -> int:
        """Conversions of arrays of a weight's size in a kernel."""
        if kernel.opcode == "convert":
            return int(self.kind(kernel, kernel.results[0]) == "weights")
        if kernel.opcode != "fusion":
            return 0
        name = kernel.called("calls")[0]
        if name not in self.inner:
            self.inner[name] = sum(self._conversions(one) for one in self.program.computations[name].instructions)
        return self.inner[name]
