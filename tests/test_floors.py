"""The floors of the house: imports go down or stay within their room, as the tables of docs/architecture.md say.

Both tables are read from the page. Imports are read from the source by `ast`, so those inside functions and under
TYPE_CHECKING count too. Since a room imports lower floors only, no circle can run through two rooms; circles among the
modules of a room are looked for.
"""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, PAGE = ROOT / "fgrpo_jax", ROOT / "docs" / "architecture.md"


@dataclasses.dataclass(frozen=True)
class KeptOut:
    """Modules that may not import a library or a part of the package.

    Attributes:
      rooms: the rooms or modules it is about.
      form: 'in' those, 'all but' those, or 'below' the floor of the one.
      names: what they may not import.
      why: the reason, as the page gives it.
    """

    rooms: tuple[str, ...]
    form: str
    names: tuple[str, ...]
    why: str


@dataclasses.dataclass(frozen=True)
class House:
    """What the page says: the floor of each room, and what is kept out of where."""

    floors: Mapping[str, int]
    kept_out: Sequence[KeptOut]


def quoted(cell: str) -> tuple[str, ...]:
    """The names in backticks."""
    return tuple(re.findall(r"`([^`]+)`", cell))


def read_house(page: str) -> House:
    """The two tables of the section 'Floors'."""
    section = page.partition("\n## Floors\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines() if line[:1] == "|"]
    floors: dict[str, int] = {}
    kept_out = []
    for first, *cells in rows:
        if first.isdigit():
            for room in quoted(cells[0]):
                assert room not in floors, f"{room} stands on two floors"
                floors[room] = int(first)
        elif quoted(first):
            form = next((form for form in ("all but", "below") if first.startswith(form)), "in")
            kept_out.append(KeptOut(quoted(first), form, quoted(cells[0]), cells[1]))
    assert floors and kept_out, "docs/architecture.md has no table of floors, or none of what is kept out"
    return House(floors, kept_out)


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's `__init__` has the name of the package."""
    out = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return out


def room(name: str, file: Path) -> str:
    """The folder of a module, 'data/sets'; of a module on the top level its own name."""
    parts = name.split(".")[1:]
    inside = parts if file.name == "__init__.py" or len(parts) == 1 else parts[:-1]
    return "/".join(inside) or "__init__"


def imports(name: str, file: Path, known: set[str]) -> set[str]:
    """Dotted names that a module imports; `from package import module` counts as the module."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    out: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = {f"{base}.{alias.name}" for alias in node.names} & known
            out |= found or {base}
    return out


def faults(package: Path, house: House) -> list[str]:
    """Everything wrong with the imports of a package, one sentence each."""
    found = modules(package)
    rooms = {name: room(name, file) for name, file in found.items()}
    imported = {name: imports(name, file, set(found)) for name, file in found.items()}
    out = [
        f"the page names {one}, and there is no such room" for one in sorted(set(house.floors) - set(rooms.values()))
    ]
    for name, here in rooms.items():
        if here not in house.floors:
            out.append(f"{name} stands on no floor: give `{here}` one in docs/architecture.md")
            continue
        for target in sorted(imported[name]):
            there = rooms.get(target)
            if there in house.floors and there != here and house.floors[there] >= house.floors[here]:
                floors = f"floor {house.floors[here]}) imports {target} (floor {house.floors[there]}"
                out.append(f"{name} ({floors}): imports only go down")
            for rule in house.kept_out:
                if concerns(rule, name, here, house.floors) and within(target, rule.names):
                    out.append(f"{name} imports {target}: {rule.why}")
    round_ = circle(imported)
    return out + ([f"imports go round: {' → '.join(round_)}"] if round_ else [])


def within(target: str, names: Sequence[str]) -> bool:
    """Whether a dotted name is one of `names`, or a part of it."""
    return any(target == name or target.startswith(f"{name}.") for name in names)


def concerns(rule: KeptOut, name: str, here: str, floors: Mapping[str, int]) -> bool:
    """Whether a rule is about a module."""
    if rule.form == "below":
        return floors[here] < floors[rule.rooms[0]]
    named = here in rule.rooms or "/".join(name.split(".")[1:]) in rule.rooms
    return named != (rule.form == "all but")


def circle(imported: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; [] where there is none."""
    try:
        graphlib.TopologicalSorter({name: targets & set(imported) for name, targets in imported.items()}).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return []


# ----------------------------------------------------------------------------------------------------------- the house
def test_imports_only_go_down():
    found = faults(PACKAGE, read_house(PAGE.read_text(encoding="utf-8")))
    assert not found, "\n" + "\n".join(found)


def test_every_room_was_looked_at():
    names = modules(PACKAGE)
    assert {"fgrpo_jax.records", "fgrpo_jax.fgrpo.advantages", "fgrpo_jax.reading.parsing"} <= set(names)
    targets = imports("fgrpo_jax.data.limits", PACKAGE / "data" / "limits.py", set(names))
    assert "fgrpo_jax.data.images" in targets, "`from package import module` counts as the module"
    assert room("fgrpo_jax.data.sets.mix", names["fgrpo_jax.data.sets.mix"]) == "data/sets"


# ------------------------------------------------------------------------------------------------------ a broken one
SMALL = """
## Floors

| floor | rooms |
|---|---|
| 0 | `__init__`, `records` (what travels) |
| 1 | `reading`, `fgrpo` |
| 2 | `data`, `data/sets` |
| 3 | `config` |
| 4 | `train` |

| who | may not import | because |
|---|---|---|
| `reading`, `fgrpo/losses` | `jax` | it is without jax |
| all but `train` | `torch` | run time needs no torch |
| below `config` | `ml_collections` | only config and above see one |

## Decisions
"""
FILES = ("__init__", "records", "reading/parsing", "fgrpo/losses", "fgrpo/learner", "data/images", "data/sets/mix")
BROKEN = {
    "upward": ("records.py", "from fgrpo_jax.reading.parsing import x", "imports only go down"),
    "upward, by package": ("records.py", "from fgrpo_jax import config", "imports only go down"),
    "upward, relative": ("fgrpo/losses.py", "from ..config import load", "imports only go down"),
    "upward, inside a function": ("records.py", "def f():\n    import fgrpo_jax.train", "imports only go down"),
    "sideways": ("fgrpo/losses.py", "from fgrpo_jax.reading import parsing", "imports only go down"),
    "into a folder of its own": ("data/images.py", "from fgrpo_jax.data.sets import mix", "imports only go down"),
    "of itself": ("fgrpo/losses.py", "from fgrpo_jax.fgrpo import losses", "imports go round"),
    "unknown": ("novelty.py", "x = 1", "stands on no floor"),
    "unknown folder": ("novelty/inside.py", "x = 1", "stands on no floor"),
    "ConfigDict below": ("data/images.py", "from ml_collections import ConfigDict", "only config and above"),
    "jax in a room": ("reading/parsing.py", "import jax.numpy as jnp", "without jax"),
    "jax in a module": ("fgrpo/losses.py", "import jax", "without jax"),
    "torch": ("data/images.py", "from torch import nn", "no torch"),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small house in which everything is right."""
    out = tmp_path / "fgrpo_jax"
    for name in (*FILES, "config/__init__", "config/load", "train"):
        file = out / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("import math\n")
    (out / "fgrpo" / "learner.py").write_text("import jax\nfrom . import losses\n")
    (out / "train.py").write_text("import torch\nfrom fgrpo_jax.config import load\n")
    return out


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_seen(case, package):
    assert faults(package, read_house(SMALL)) == []
    path, source, message = BROKEN[case]
    (package / path).parent.mkdir(parents=True, exist_ok=True)
    (package / path).write_text(source + "\n")
    found = faults(package, read_house(SMALL))
    assert len(found) == 1 and message in found[0], found


def test_a_circle_in_a_room_is_seen_even_for_types(package):
    (package / "fgrpo" / "losses.py").write_text("if TYPE_CHECKING:\n    from fgrpo_jax.fgrpo.learner import L\n")
    (found,) = faults(package, read_house(SMALL))
    assert "imports go round" in found and "fgrpo_jax.fgrpo.losses → fgrpo_jax.fgrpo.learner" in found


def test_a_room_that_is_gone_is_named(package):
    house = read_house(SMALL.replace("`reading`, `fgrpo` |", "`reading`, `fgrpo`, `attic` |"))
    assert faults(package, house) == ["the page names attic, and there is no such room"]
    with pytest.raises(AssertionError, match="config stands on two floors"):
        read_house(SMALL.replace("| 4 | `train`", "| 4 | `config`"))
