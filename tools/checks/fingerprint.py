"""A fingerprint of all that the README's run depends on: figures on file can be told from those of other code."""

from __future__ import annotations

import ast
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
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported from a package may be a module of it.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        # In an installation the configs lie inside the package, in a checkout beside it.
        names += [name.removeprefix("fgrpo_jax.") for name in names if name.startswith("fgrpo_jax.configs")]
        for name in names:
            parts = name.split(".")
            ends = [root.joinpath(*parts[:-1], f"{parts[-1]}.py")]
            ends += [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
            yield from (end for end in ends if end.is_file())


def fingerprint(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of `files`, hexadecimal: of code what it does, of everything else its bytes."""
    total = hashlib.sha256()
    for file in files(root):
        content = without_prose(file.read_text(encoding="utf8")) if file.suffix == ".py" else file.read_bytes()
        total.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


def without_prose(source: str) -> bytes:
    """The syntax tree of a module without comments, layout and texts that stand as statements (docstrings).

    Python's own releases write the same tree in other words now and then, so figures belong to a release too.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name, body in ast.iter_fields(node):
            if isinstance(body, list):
                setattr(node, name, [item for item in body if not _is_text(item)])
    return ast.dump(tree).encode()


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
