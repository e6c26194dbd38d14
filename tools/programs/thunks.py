"""What a GPU is handed: reads the sequence of thunks that XLA dumps of a compiled program.

Kernels in a command buffer are one CUDA graph, launched at once. A loop outside of a graph is run by the host; where
its number of rounds is not known when compiled, the host waits for the device at the end of every round.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from programs.counting import token_loops
from programs.hlo import Program


def flags(folder: Path) -> str:
    """XLA_FLAGS that write the sequence into a folder; to be set before jax is imported."""
    return f"--xla_dump_to={folder} --xla_dump_hlo_as_text"


@dataclasses.dataclass
class Thunk:
    """kind: kCommandBuffer, kWhile, …; name: of its instruction; parts: of a graph or a loop, condition and body."""

    kind: str
    name: str
    parts: list[Thunk] = dataclasses.field(default_factory=list)

    def walk(self) -> Iterator[Thunk]:
        """Itself and all below."""
        yield self
        for part in self.parts:
            yield from part.walk()


def read(folder: Path) -> list[Thunk]:
    """The largest program that was dumped into the folder.

    Raises:
      FileNotFoundError: none was.
    """
    found = sorted(folder.glob("*.thunk_sequence_after_thunk_passes.txt"), key=lambda file: file.stat().st_size)
    if not found:
        raise FileNotFoundError(f"no thunk sequence in {folder}: XLA wrote none for this device")
    facts = found[-1].with_name(found[-1].name.replace("sequence_after_thunk_passes", "metadata"))
    named = re.findall(r'profile_annotation: "([^"]*)"\s+thunk_id: (\d+)', facts.read_text(encoding="utf-8"))
    return parse(found[-1].read_text(encoding="utf-8"), {int(number): name for name, number in named})


def parse(text: str, names: Mapping[int, str]) -> list[Thunk]:
    """The outermost thunks of a sequence, by its indentation.

    Args:
      names: the instruction of each number.
    """
    top: list[Thunk] = []
    around: list[tuple[int, list[Thunk]]] = [(-1, top)]
    for indent, number, kind in re.findall(r"^( *)(\d+): (k\w+)", text, re.M):
        made = Thunk(kind, names.get(int(number), ""))
        while around[-1][0] >= len(indent):
            around.pop()
        around[-1][1].append(made)
        around.append((len(indent), made.parts))
    return top


def launches(top: list[Thunk], text: str, *, unknown: float = 1.5) -> dict[str, Any]:
    """Of one token of the decode loop: 'graphs' launched, kernels and copies launched 'alone', loops 'checked' by the
    host; all are 0 where the loop itself is within a graph. The mean over the loops, where there are several.

    Args:
      text: of the compiled program.
      unknown: rounds of a loop inside a token whose number the compiler does not know.
    """
    program = Program(text)
    instructions = [i for inside in program.computations.values() for i in inside.instructions]
    trips = {i.name: program.trips(i) for i in instructions if i.opcode == "while"}
    bodies = set(token_loops(program))
    drawing = {i.name for i in instructions if i.opcode == "while" and set(i.called("body")) & bodies}
    out = {"graphs": 0.0, "alone": 0.0, "checked": 0.0}

    def add(parts: list[Thunk], times: float) -> None:
        for part in parts:
            if part.kind == "kCommandBuffer":
                out["graphs"] += times
            elif part.kind == "kWhile":
                known = trips.get(part.name)
                out["checked"] += times * (known is None)
                add(part.parts, times * (unknown if known is None else known))
            elif part.kind in ("kSequential", "kConditional"):
                out["checked"] += times * (part.kind == "kConditional")
                add(part.parts, times)
            else:
                out["alone"] += times

    def find(parts: list[Thunk]) -> Iterator[Thunk]:
        """Loops over tokens that the host runs."""
        for part in parts:
            if part.kind == "kWhile" and part.name in drawing:
                yield part
            elif part.kind != "kCommandBuffer":
                yield from find(part.parts)

    for loop in find(top):
        add(loop.parts, 1 / len(drawing))
    return {name: round(value, 2) for name, value in out.items()}
