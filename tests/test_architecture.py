"""The house: imports only go down, upper floors keep their things to themselves, rooms stay small enough to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fgrpo_jax"

FLOORS = {
    "": 0,  # the package itself: a docstring and a version
    "records": 0,
    "mesh": 0,
    "model.config": 0,
    "model.weights": 2,
    "model": 1,
    "rewards.judges": 2,
    "rewards.score": 2,
    "rewards": 1,
    "fgrpo.advantages": 1,
    "fgrpo.losses": 1,
    "fgrpo.multipliers": 1,
    "fgrpo": 2,
    "data": 2,
    "rollout": 2,
    "reporting": 2,
    "checkpoint": 2,
    "metrics": 2,
    "config": 3,
    "config_schema": 3,
}
"""Module or folder → floor; the longest name that fits counts, and what is not here is a door: floor 4."""

NO_JAX = ("rewards",)
"""Folders of floor 1 that must run where jax does not (judges in a thread pool, checks of data)."""


def modules() -> dict[str, ast.Module]:
    """{'fgrpo.learner': its syntax tree}, the package's own __init__ as ''."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = ast.parse(file.read_text(encoding="utf8"))
    return found


MODULES = modules()


def floor(name: str) -> int:
    fitting = [key for key in FLOORS if key and (name == key or name.startswith(f"{key}."))]
    return FLOORS[max(fitting, key=len)] if fitting else (0 if name == "" else 4)


def imports(tree: ast.AST) -> set[str]:
    """Dotted names a module imports; 'from a import b' counts as a.b as well when that is a module of the package."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {full for full in inside if full.removeprefix("fgrpo_jax.") in MODULES}
            names |= known or {node.module}
    return names


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_go_down(name: str) -> None:
    for imported in imports(MODULES[name]):
        if imported == "fgrpo_jax" or imported.startswith("fgrpo_jax."):
            below = imported.removeprefix("fgrpo_jax").lstrip(".")
            assert floor(below) <= floor(name), f"{name} (floor {floor(name)}) imports {below} (floor {floor(below)})"


@pytest.mark.parametrize("name", MODULES)
def test_only_the_upper_floors_see_a_config_dict_and_rewards_see_no_jax(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    if floor(name) < 3:
        assert "ml_collections" not in tops
    if name.split(".")[0] in NO_JAX and floor(name) == 1:
        assert not tops & {"jax", "flax", "optax"}


def test_the_floor_test_sees_an_import_that_goes_up() -> None:
    tree = ast.parse(
        "from fgrpo_jax import config\nfrom fgrpo_jax.fgrpo.learner import Learner\nimport jax.numpy as jnp"
    )
    assert imports(tree) == {"fgrpo_jax.config", "fgrpo_jax.fgrpo.learner", "jax.numpy"}
    assert [floor(n) for n in ("config", "fgrpo.learner", "fgrpo.losses", "model.config", "train")] == [3, 2, 1, 0, 4]


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    long = []
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]:
        source = file.read_text(encoding="utf8")
        if source.count("\n") > 500:
            long.append(f"{file.relative_to(ROOT)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > 90:
                    long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {size} lines")
    assert not long, long


def test_doors_open_without_torch_and_tensorflow() -> None:
    # transformers imports torch when it finds it, so what is tested is that nothing is missed when it is not there.
    doors = [name for name in ("train", "sft", "convert", "export", "generate") if name in MODULES]
    code = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
    code += "".join(f"import fgrpo_jax.{name}\n" for name in doors)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
