"""A fingerprint of all that the README's run depends on: figures on file can be told from those of other code."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS = ("fgrpo_jax/train.py", "configs/tiny.py")
"""What the README's run is made of; with all that they import, at whatever depth."""


def files(root: Path = ROOT) -> list[Path]:
    """The modules and configs that `STARTS` reach, and the shipped assets (but for texts about them), in order.

    Raises:
      FileNotFoundError: a start is not there.
    """
    found, open_files = set(), [root / start for start in STARTS]
    while open_files:
        file = open_files.pop()
        if file not in found:
            found.add(file)
            open_files += _imported(file, root)
    assets = (f for f in root.glob("fgrpo_jax/assets/**/*") if f.is_file() and f.suffix not in (".md", ".pyc"))
    return sorted({*found, *assets}, key=lambda f: f.relative_to(root).as_posix())


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Files of this project that a file imports anywhere in it, the packages they lie in included."""
    names = _names(file.read_text(encoding="utf8"))
    # In an installation the configs lie inside the package, in a checkout beside it.
    names |= {name.removeprefix("fgrpo_jax.") for name in names if name.startswith("fgrpo_jax.configs")}
    for name in names:
        parts = name.split(".")
        ends = [root.joinpath(*parts[:-1], f"{parts[-1]}.py")]
        ends += [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
        yield from (end for end in ends if end.is_file())


@functools.cache
def _names(source: str) -> frozenset[str]:
    """What a module imports; what it imports from a package may be a module of it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(out)


def fingerprint(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of `files`, hexadecimal: of code what it does, of everything else its bytes."""
    total = hashlib.sha256()
    for file in files(root):
        code = file.suffix == ".py"
        digest = of_code(file.read_text(encoding="utf8")) if code else hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(root).as_posix()} {digest}\n".encode())
    return total.hexdigest()


@functools.cache
def of_code(source: str) -> str:
    """SHA-256 of a module's syntax tree without comments, layout and texts that stand as statements (docstrings).

    Another minor release of Python may write the same tree in other words: figures belong to one.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name, body in ast.iter_fields(node):
            if isinstance(body, list):
                setattr(node, name, [item for item in body if not _is_text(item)])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
