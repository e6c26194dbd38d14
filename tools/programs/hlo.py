"""Reads the text of an optimised XLA program: its computations, and the memory that each kernel reads and writes.

A kernel is an instruction of a computation that is run as it stands (the entry, bodies of loops, what `call` names).
Instructions of fused computations are no kernels; they say how much of an operand a fusion reads. Bytes are those of
operands and results, once each: what a cache saves or a kernel reads twice is not known here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

BYTES = {"pred": 1, "s2": 0.25, "u2": 0.25, "s4": 0.5, "u4": 0.5, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {f"{sign}{bits}": bits // 8 for sign in "suf" for bits in (8, 32, 64)} | {"c64": 8, "c128": 16}

SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*S\(1\)[^}]*\})?")
"""An array in the text of a program: bf16[2048,11008], S(1) in its layout where a TPU holds it beside its units."""

FREE = re.compile("parameter|constant|bitcast|tuple|get-tuple-element|after-all|partition-id|replica-id|domain|.*-done")
"""Instructions that are no kernel. The ends of asynchronous ones are none either."""

SLICES = ("dynamic-slice", "slice", "gather")
LAZY = re.compile(
    "convert|bitcast|bitcast-convert|copy|reshape|transpose|tuple|select|compare|add|subtract|multiply|divide|"
    "power|negate|abs|exponential|log|tanh|sqrt|rsqrt|maximum|minimum|and|or|xor"
)
"""What a fusion computes where it is asked for: of their operands it reads what is read of their results."""


@dataclasses.dataclass(frozen=True)
class Array:
    """A dtype and the sizes of the dimensions; `near` where it is not in the memory that bandwidth is of."""

    dtype: str
    dims: tuple[int, ...]
    near: bool = False

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return 0 if self.near else self.size * BYTES.get(self.dtype, 1)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line. `results` are the arrays it gives, `rest` what stands behind its operands."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str
    root: bool

    @property
    def scope(self) -> str:
        """Where in the source it comes from, such as jit(_sample)/decode/while/body/mul."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def called(self, *roles: str) -> list[str]:
        """Names of computations: called("body"), called("branch_computations")."""
        found = re.findall(rf"\b(?:{'|'.join(roles)})=\{{?([^,}}]*(?:, ?%[^,}}]*)*)\}}?", self.rest)
        return [name for names in found for name in re.findall(r"%([\w.\-]+)", names)]


@dataclasses.dataclass(frozen=True)
class Access:
    """So many bytes of an array read, or written; the array as it lies in memory, whole."""

    array: Array
    bytes: float
    written: bool = False


class Computation:
    """Instructions in order, by name."""

    def __init__(self, name: str, instructions: list[Instruction]) -> None:
        self.name, self.instructions = name, instructions
        self.by_name = {instruction.name: instruction for instruction in instructions}

    @functools.cached_property
    def users(self) -> Mapping[str, list[Instruction]]:
        """Instructions that take each one as an operand."""
        out: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for name in dict.fromkeys(instruction.operands):
                out.setdefault(name, []).append(instruction)
        return out

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """In the order of their numbers, which stand in the brackets."""
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.rest.partition(")")[0]))

    @property
    def root(self) -> Instruction:
        return next(i for i in self.instructions if i.root)


class Program:
    """All computations of a program.

    Args:
      text: as `compiled.as_text()` gives it.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        name, lines = "", []
        for line in text.splitlines():
            if line.endswith("{") and (head := re.match(r"(ENTRY )?%?([\w.\-]+) ", line)) and " -> " in line:
                name, lines = head[2], []
                self.entry = name if head[1] else self.entry
            elif line.startswith("}"):
                self.computations[name] = Computation(name, lines)
            elif " = " in line and (made := instruction(line)):
                lines.append(made)

    def trips(self, loop: Instruction) -> int | None:
        """Rounds of a loop, where they are known when it is compiled: as the compiler says, or by its condition."""
        if known := re.search(r'known_trip_count\D*"n":"(\d+)"', loop.rest):
            return int(known[1])
        condition = self.computations[loop.called("condition")[0]]
        if condition.root.opcode != "compare" or "direction=LT" not in condition.root.rest:
            return None
        bound = condition.by_name[condition.root.operands[1]]  # a scan counts from 0
        return int(bound.rest.partition(")")[0]) if bound.opcode == "constant" else None

    def accesses(self, kernel: Instruction, computation: Computation) -> Iterator[Access]:
        """What a kernel reads and writes."""
        operands = [computation.by_name[name] for name in kernel.operands if name in computation.by_name]
        if kernel.opcode == "fusion" and (called := kernel.called("calls")):
            inner = self.computations[called[0]]
            for parameter, operand in zip(inner.parameters, operands, strict=False):
                share = self.share(inner, parameter.name)
                yield from (Access(array, share * array.bytes) for array in operand.results)
            yield from (
                Access(array, part, True) for array, part in zip(kernel.results, self.written(inner), strict=True)
            )
        elif kernel.opcode in SLICES or kernel.opcode == "dynamic-update-slice":
            read = operands[kernel.opcode not in SLICES].results[0]
            size = (kernel.results[0] if kernel.opcode in SLICES else read).size
            yield from (Access(a, size * a.bytes / a.size, w) for a, w in ((read, False), (kernel.results[0], True)))
        else:
            yield from (Access(array, array.bytes) for operand in operands for array in operand.results)
            # A library call has its workspace among its results.
            workspace = kernel.opcode == "custom-call" and len(kernel.results) > 1
            kept = [a for a in kernel.results if not (workspace and a.dtype in ("s8", "u8") and len(a.dims) == 1)]
            if kernel.opcode.endswith("-start"):  # its results name its operands once more
                kept = kept[:1] if kernel.opcode == "copy-start" else [max(kept, key=lambda array: array.size)]
            yield from (Access(array, array.bytes, True) for array in kept)

    def operations(self, kernel: Instruction, computation: Computation) -> float:
        """Of the matrix products in a kernel, a multiply-add being two; those of a kernel of our own are not known."""
        if kernel.opcode == "fusion":
            inner = self.computations[kernel.called("calls")[0]]
            return sum(self.operations(one, inner) for one in inner.instructions)
        if fused := re.search(
            r"__cudnn\$fmha\w*?(Backward)?\"", kernel.rest
        ):  # q [B, T, N, H], k [B, S, K, H]: all keys count
            q, k = (computation.by_name[name].results[0] for name in kernel.operands[:2])
            return (10.0 if fused[1] else 4.0) * q.size * k.dims[1]
        summed = re.search(r'lhs_contracting_dim(?:ensions|s)"?[=:][{\[]([\d,"]+)', kernel.rest)
        if not summed or kernel.opcode not in ("dot", "custom-call"):
            return 0.0
        left = computation.by_name[kernel.operands[0]].results[0]
        return 2.0 * kernel.results[0].size * math.prod(left.dims[int(n)] for n in re.findall(r"\d+", summed[1]))

    def share(self, computation: Computation, name: str) -> float:
        """How much of an operand of a fusion is read, from 0 to 1."""
        node, total = computation.by_name[name], 0.0
        whole = max(sum(array.size for array in node.results), 1)
        for user in computation.users.get(name, ()):
            if total >= 1:
                break
            if user.opcode in SLICES and user.operands[0] == name:
                total += user.results[0].size / whole * (self.share(computation, user.name) if not user.root else 1)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                total += 0 if ends(computation, user) else 1
            elif user.opcode == "fusion":
                inner = self.computations[user.called("calls")[0]]
                spots = [i for i, operand in enumerate(user.operands) if operand == name]
                total += sum(self.share(inner, inner.parameters[i].name) for i in spots)
            elif LAZY.fullmatch(user.opcode) and not user.root:
                total += self.share(computation, user.name)
            else:
                total += 1
        return min(total, 1.0)

    def written(self, computation: Computation) -> list[float]:
        """Bytes that a fusion writes of each of its results: of one that is updated in place, the update."""
        root = computation.root
        ends_ = [computation.by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
        out = []
        for end in ends_:
            made = end
            while made.opcode in ("bitcast", "copy", "convert") and made.operands[0] in computation.by_name:
                made = computation.by_name[made.operands[0]]
            if made.opcode == "dynamic-update-slice":
                part, whole = computation.by_name[made.operands[1]].results[0], end.results[0]
                out.append(part.size / whole.size * whole.bytes)
            elif made.opcode == "fusion" and len(made.results) == 1:
                out += self.written(self.computations[made.called("calls")[0]])
            else:
                out += [array.bytes for array in end.results]
        return out


def ends(computation: Computation, node: Instruction) -> bool:
    """Whether an instruction is a result of the computation, as it stands or renamed."""
    if node.root:
        return True
    users = computation.users.get(node.name, [])
    return bool(users) and all(
        u.opcode in ("bitcast", "tuple", "copy", "convert") and ends(computation, u) for u in users
    )


def instruction(line: str) -> Instruction | None:
    """The instruction of a line; None where there is none."""
    head = re.match(r"\s*(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    kind, after = _bracketed(line, head.end()) if line[head.end()] == "(" else _word(line, head.end())
    named = re.match(r"\s*([\w\-]+)", line[after:])
    if not named:
        return None
    begin = after + named.end()
    inside, end = _bracketed(line, begin)
    shapes = (
        (dtype, tuple(int(n) for n in dims.split(",") if n), bool(near)) for dtype, dims, near in SHAPE.findall(kind)
    )
    results = tuple(Array(*shape) for shape in shapes)
    rest = inside[1:] + line[end:] if named[1] in ("parameter", "constant") else line[end:]
    return Instruction(head[2], named[1], results, tuple(re.findall(r"%([\w.\-]+)", inside)), rest, bool(head[1]))


def _word(line: str, start: int) -> tuple[str, int]:
    """(text up to the next blank, where that is)."""
    end = line.index(" ", start)
    return line[start:end], end


def _bracketed(line: str, start: int) -> tuple[str, int]:
    """(what stands from an opening bracket to its closing one, where that ends)."""
    depth = 0
    for at in range(start, len(line)):
        depth += (line[at] == "(") - (line[at] == ")")
        if depth == 0:
            return line[start : at + 1], at + 1
    return line[start:], len(line)
