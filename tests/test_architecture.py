"""Rooms small enough to read, and doors that open without the libraries only tests need. (Floors: test_floors.py.)"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fgrpo_jax"
DOORS = ("train", "sft", "evaluate", "generate", "convert", "export")


def too_long(source: str, where: str) -> list[str]:
    """Files over 500 lines and functions over 90."""
    found = [f"{where}: {source.count(chr(10))} lines"] if source.count("\n") > 500 else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            size = node.end_lineno - node.lineno + 1
            found += [f"{where}:{node.lineno} {node.name}: {size} lines"] if size > 90 else []
    return found


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    assert len(files) > 30
    long = [line for file in files for line in too_long(file.read_text(encoding="utf8"), str(file.relative_to(ROOT)))]
    assert not long, long
    assert too_long("def f():\n" + "    pass\n" * 91, "x") == ["x:1 f: 92 lines"]


def test_doors_open_without_torch_and_tensorflow() -> None:
    # transformers imports torch when it finds it, so what is tested is that nothing is missed when it is not there.
    code = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
    code += "".join(f"import fgrpo_jax.{name}\n" for name in DOORS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
