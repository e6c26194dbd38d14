"""What docs/architecture.md promises: rooms small enough to read, a walk that is true, commands that need no torch.

(Floors: test_floors.py.)
"""

from __future__ import annotations

import ast
import dataclasses
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, PAGE = ROOT / "fgrpo_jax", ROOT / "docs" / "architecture.md"
COMMANDS = ("train", "sft", "evaluate", "generate", "convert", "export")
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FUNCTION = 450, 70, 12  # lines
MOST_FILES = 12  # of the walk


# ---------------------------------------------------------------------------------------------------------------- sizes
def functions(source: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module by its qualified name, those inside classes and functions too."""

    def below(node: ast.AST, within: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            name = f"{within}{child.name}" if isinstance(child, ast.ClassDef | ast.FunctionDef) else within
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, child
            yield from below(child, f"{name}." if isinstance(child, ast.ClassDef | ast.FunctionDef) else within)

    yield from below(ast.parse(source), "")


def size(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring among them."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def too_long(source: str, where: str) -> list[str]:
    """A file or functions of it that are longer than they may be."""
    count = source.count("\n")
    found = [f"{where}: {count} lines"] if count > LONGEST_FILE else []
    long = [(name, node) for name, node in functions(source) if size(node) > LONGEST_FUNCTION]
    return found + [f"{where}:{node.lineno} {name}: {size(node)} lines" for name, node in long]


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    assert len(files) > 30
    long = [line for file in files for line in too_long(file.read_text(encoding="utf8"), str(file.relative_to(ROOT)))]
    assert not long, long
    assert too_long("def f():\n" + "    pass\n" * 70, "x") == ["x:1 f: 71 lines"]
    assert too_long("x = 1\n" * 451, "x") == ["x: 451 lines"]


def test_most_functions_are_short() -> None:
    sizes = [size(node) for file in PACKAGE.rglob("*.py") for _, node in functions(file.read_text(encoding="utf8"))]
    assert statistics.median(sizes) <= MEDIAN_FUNCTION


# ----------------------------------------------------------------------------------------------------------------- walk
@dataclasses.dataclass(frozen=True)
class Hop:
    """A row of the walk.

    Attributes:
      number: from 1.
      caller: number of the hop that calls it; 0 for the first.
      file: below the package.
      functions: qualified names; each after the first is called by one before it.
    """

    number: int
    caller: int
    file: str
    functions: tuple[str, ...]


def read_walk(page: str) -> list[Hop]:
    """The table of the section 'A walk'."""
    section = page.partition("\n## A walk")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if re.match(r"\|\s*\d", line)]
    quoted = [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in rows]
    return [
        Hop(int(row[0]), int(row[1].strip().strip("–") or 0), cells[2][0], tuple(cells[3]))
        for row, cells in zip(rows, quoted, strict=True)
    ]


def plain(name: str) -> str:
    """A name as it is compared: `self._pad` may hold a `_Pad`, and `next(x)` calls `x.__next__`."""
    return name.strip("_").lower()


def names_in(node: ast.AST) -> set[str]:
    """The names and attributes that a function's body holds."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return {plain(name) for name in found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}}


def calls(node: ast.AST, called: str) -> bool:
    """Whether a function names another: by its own name, or by its class where calling an object runs it."""
    *classes, name = called.split(".")
    return bool(names_in(node) & {plain(name), *(map(plain, classes) if name.startswith("__") else ())})


def wrong_turns(hops: Sequence[Hop], package: Path) -> list[str]:
    """Everything about a walk that is not so, one sentence each."""
    known: dict[int, list[ast.AST]] = {}
    out = []
    for at, hop in enumerate(hops, start=1):
        if hop.number != at or not (hop.caller < at and (hop.caller > 0) == (at > 1)):
            out.append(f"hop {hop.number}: hops are numbered from 1, and each is called by one above it")
        file = package / hop.file
        there = dict(functions(file.read_text(encoding="utf8"))) if file.is_file() else {}
        callers = known.get(hop.caller, [])
        known[hop.number] = []
        for name in hop.functions:
            if name not in there:
                out.append(f"hop {hop.number}: {hop.file} has no {name}")
                continue
            if callers and not any(calls(caller, name) for caller in callers):
                out.append(f"hop {hop.number}: {name} is not called by what stands before it")
            known[hop.number].append(there[name])
            callers = known[hop.number]
    return out


def test_the_walk_is_true_and_short() -> None:
    hops = read_walk(PAGE.read_text(encoding="utf8"))
    assert not (wrong := wrong_turns(hops, PACKAGE)), "\n" + "\n".join(wrong)
    assert len({hop.file for hop in hops}) <= MOST_FILES
    assert hops[0].functions == ("main",) and hops[-1].file == "training/checkpoint.py"


WALK = """
## A walk

| hop | from | file | functions | takes | gives |
|---|---|---|---|---|---|
| 1 | – | `a.py` | `main` | flags | a row |
| 2 | 1 | `b.py` | `Data.__next__` › `Data._start` › `_Pad.__call__` | places | a batch |
| 3 | 1 | `a.py` | `step` | a batch | a row |

## Rooms
"""
SOURCES = {
    "a.py": "def main(data):\n    for one in data:\n        run(step, next(data))\n\ndef step(batch): pass\n",
    "b.py": "class Data:\n    def __next__(self): self._start()\n    def _start(self): return self._pad(1)\n"
    "class _Pad:\n    def __call__(self, x): pass\n",
}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ("`step`", "`stop`", "hop 3: a.py has no stop"),
        ("`b.py`", "`c.py`", "hop 2: c.py has no Data.__next__"),
        ("| 3 | 1 |", "| 3 | 2 |", "hop 3: step is not called by what stands before it"),
        ("| 3 | 1 |", "| 4 | 1 |", "hop 4: hops are numbered from 1"),
        ("`Data._start` › ", "", "hop 2: _Pad.__call__ is not called by what stands before it"),
    ],
)
def test_a_wrong_turn_is_seen(old, new, message, tmp_path):
    for name, source in SOURCES.items():
        (tmp_path / name).write_text(source)
    found = wrong_turns(read_walk(WALK.replace(old, new)), tmp_path)
    assert (not found) if message is None else found and found[0].startswith(message), found


# ------------------------------------------------------------------------------------------------------------- commands
def test_commands_start_without_torch_and_tensorflow() -> None:
    # transformers imports torch when it finds it, so what is tested is that nothing is missed when it is not there.
    code = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
    code += "".join(f"import fgrpo_jax.{name}\n" for name in COMMANDS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
