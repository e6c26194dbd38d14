"""The floors of the house (docs/architecture.md): imports go down or stay level, and some rooms keep things out.

Read from the source by `ast`, so imports inside functions and under TYPE_CHECKING count too. Importing a module runs
the `__init__` of its package too; those stand on the lowest floor of their room and are listed like any module.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fgrpo_jax"

FLOORS = {
    0: "fgrpo_jax fgrpo_jax.records fgrpo_jax.mesh fgrpo_jax.model fgrpo_jax.model.config",
    1: """fgrpo_jax.model.* fgrpo_jax.rewards fgrpo_jax.reading.parsing fgrpo_jax.rewards.task
          fgrpo_jax.rewards.custom fgrpo_jax.world.entails fgrpo_jax.rewards.grounding fgrpo_jax.world.grammar
          fgrpo_jax.rewards.groups fgrpo_jax.world.relations fgrpo_jax.rewards.signals
          fgrpo_jax.reading.verdict fgrpo_jax.reading.words fgrpo_jax.reading.dialects fgrpo_jax.reading.answers
          fgrpo_jax.reading.sentences fgrpo_jax.rewards.wide fgrpo_jax.rewards.phrases
          fgrpo_jax.rewards.constructions fgrpo_jax.rewards.openings fgrpo_jax.rewards.marks
          fgrpo_jax.rewards.idioms fgrpo_jax.rewards.turns fgrpo_jax.rewards.travel
          fgrpo_jax.rewards.measures fgrpo_jax.rewards.tallies fgrpo_jax.rewards.reports fgrpo_jax.rewards.silence
          fgrpo_jax.reading.commitments fgrpo_jax.rewards.stances fgrpo_jax.data fgrpo_jax.reading.frames
          fgrpo_jax.fgrpo fgrpo_jax.fgrpo.advantages fgrpo_jax.fgrpo.losses fgrpo_jax.fgrpo.multipliers""",
    2: """fgrpo_jax.data.* fgrpo_jax.data.readers.* fgrpo_jax.weights.importer fgrpo_jax.weights.exporter
          fgrpo_jax.weights.streams
          fgrpo_jax.rollout fgrpo_jax.rollout.*
          fgrpo_jax.rewards.judges fgrpo_jax.rewards.judges.* fgrpo_jax.rewards.score fgrpo_jax.fgrpo.learner
          fgrpo_jax.fgrpo.forward fgrpo_jax.fgrpo.optimizer fgrpo_jax.fgrpo.supervised fgrpo_jax.fgrpo.trained
          fgrpo_jax.training.checkpoint
          fgrpo_jax.training.metrics fgrpo_jax.reporting fgrpo_jax.reporting.*""",
    3: """fgrpo_jax.config.sections fgrpo_jax.config.checks_data fgrpo_jax.config.sections_judge fgrpo_jax.config.checks
          fgrpo_jax.config.schema""",
    4: """fgrpo_jax.train fgrpo_jax.sft fgrpo_jax.evaluate fgrpo_jax.generate fgrpo_jax.convert fgrpo_jax.export
          fgrpo_jax.prepare fgrpo_jax.training.precompile fgrpo_jax.evaluation.prompts_file fgrpo_jax.preflight fgrpo_jax.report
          fgrpo_jax.filter fgrpo_jax.training.selection fgrpo_jax.evaluation.answering fgrpo_jax.evaluation.comparing fgrpo_jax.training.datasets
          fgrpo_jax.training.collect fgrpo_jax.command fgrpo_jax.weights.host_memory fgrpo_jax.training.judges fgrpo_jax.training.scoring
          fgrpo_jax.training.setup""",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}

KEPT_OUT = {  # library → (floors or modules that may not import it, why)
    "ml_collections": (lambda name: floor(name) < 3, "only floors 3 and 4 see a ConfigDict"),
    "jax": (
        lambda name: name.startswith("fgrpo_jax.rewards") and floor(name) == 1,
        "reading and scoring text is host work without jax",
    ),
    "torch": (
        lambda name: name != "fgrpo_jax.weights.verify",
        "run time needs no torch; it is for parity tests and `convert --verify`",
    ),
}


def floor(name: str) -> int | None:
    """Floor of a module: its own entry, else that of its package with a star, else None."""
    return FLOOR_OF.get(name, FLOOR_OF.get(f"{name.rpartition('.')[0]}.*"))


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's `__init__` has the name of the package."""
    out = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return out


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


def faults(package: Path) -> list[str]:
    """Everything wrong with the imports of a package, one sentence each."""
    found = modules(package)
    out = [
        f"{name} stands on no floor: list it in FLOORS of tests/test_floors.py (docs/architecture.md says how)"
        for name in found
        if floor(name) is None
    ]
    for name, file in found.items():
        for target in sorted(imports(name, file, set(found))):
            here, there = floor(name), floor(target)
            if here is not None and there is not None and there > here:
                out.append(f"{name} (floor {here}) imports {target} (floor {there}): imports only go down")
            library = target.partition(".")[0]
            if library in KEPT_OUT and here is not None and KEPT_OUT[library][0](name):
                out.append(f"{name} imports {target}: {KEPT_OUT[library][1]}")
    return out


def test_imports_only_go_down():
    found = faults(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_every_room_was_looked_at():
    names = modules(PACKAGE)
    assert {"fgrpo_jax.records", "fgrpo_jax.fgrpo.advantages", "fgrpo_jax.reading.parsing"} <= set(names)
    targets = imports("fgrpo_jax.fgrpo", PACKAGE / "fgrpo" / "__init__.py", set(names))
    assert "fgrpo_jax.fgrpo.losses" in targets


BROKEN = {
    "upward": ("records.py", "from fgrpo_jax.training.metrics import write", "imports only go down"),
    "upward, by package": ("mesh.py", "from fgrpo_jax import config", "imports only go down"),
    "upward, relative": ("fgrpo/losses.py", "from . import learner", "imports only go down"),
    "upward, relative above": ("fgrpo/losses.py", "from ..config import load", "imports only go down"),
    "upward, inside a function": ("records.py", "def f():\n    import fgrpo_jax.train", "imports only go down"),
    "unknown": ("novelty.py", "x = 1", "stands on no floor"),
    "unknown in a room": ("rewards/novelty.py", "x = 1", "stands on no floor"),
    "ConfigDict below": ("metrics.py", "from ml_collections import ConfigDict", "only floors 3 and 4"),
    "jax in rewards": ("reading/parsing.py", "import jax.numpy as jnp", "without jax"),
    "torch": ("weights/importer.py", "from torch import nn", "no torch"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_seen(case, tmp_path):
    package = tmp_path / "fgrpo_jax"
    for name in ("records", "mesh", "metrics", "config", "train", "fgrpo/losses", "fgrpo/learner", "rewards/parsing"):
        file = package / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("import math\n")
    assert faults(package) == []
    path, source, message = BROKEN[case]
    (package / path).parent.mkdir(parents=True, exist_ok=True)
    (package / path).write_text(source + "\n")
    found = faults(package)
    assert len(found) == 1 and message in found[0], found
