"""Breaks the code on purpose, one known failure of trainers and readers at a time, and sees whether its test goes red.

    python tools/mutations.py                  all, an hour on two cores; --only=NAME for one, repeat for several
    python tools/mutations.py --list

Each row of mutations.toml replaces one piece of one file in a copy of the project and runs one test there, which passes
on the code as it is. Prints a JSON line a mutation: {"mutation", "test", "red"}. The exit code is 0 when all are red.
A mutation whose piece no longer stands in its file, once, is an error: tests/test_mutations.py sees that at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from fgrpo_jax import command

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("fgrpo_jax", "configs", "tests", "tools", "pyproject.toml", "README.md", "docs")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One way to be wrong without noticing.

    Attributes:
      name: the failure.
      file: what is changed, from the project's root.
      old, new: the piece and what takes its place.
      test: pytest's name of the test that must see it.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


TABLE = Path(__file__).with_suffix(".toml")
MUTATIONS = tuple(Mutation(**row) for row in tomllib.loads(TABLE.read_text(encoding="utf8"))["mutation"])


def problem(mutation: Mutation) -> str | None:
    """Why a mutation cannot be made, or None."""
    path, (file, _, test) = ROOT / mutation.file, mutation.test.partition("::")
    count = path.read_text().count(mutation.old) if mutation.old and path.exists() else 0
    if count != 1:
        return f"its piece stands {count} times in {mutation.file}"
    if f"def {test}(" not in (ROOT / file).read_text():
        return f"there is no test {mutation.test}"
    return None


def turns_red(mutation: Mutation) -> bool:
    """Whether the test fails in a copy of the project with the mutation.

    Raises:
      ValueError: the mutation cannot be made.
      RuntimeError: pytest neither passed nor failed.
    """
    if why := problem(mutation):
        raise ValueError(f"mutation '{mutation.name}': {why}; bring tools/mutations.toml up to date")
    with tempfile.TemporaryDirectory(prefix="fgrpo-mutation-") as scratch:
        for name in COPIED:
            source, target = ROOT / name, Path(scratch) / name
            leave = shutil.ignore_patterns("__pycache__", ".pytest_cache")
            shutil.copytree(source, target, ignore=leave) if source.is_dir() else shutil.copy(source, target)
        file = Path(scratch) / mutation.file
        file.write_text(file.read_text().replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", mutation.test]
        environment = os.environ | {"PYTHONPATH": scratch}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode}: {' '.join(command)}\n{done.stdout[-2000:]}")
    return done.returncode == 1


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--only", action="append", metavar="NAME", help="this mutation; repeat for several")
    out.add_argument("--list", action="store_true", help="print the names and run nothing")
    return out


def main(args: argparse.Namespace) -> int:
    """Tries them; 1 when any stayed green."""
    known = {mutation.name: mutation for mutation in MUTATIONS}
    for name in args.only or ():
        if name not in known:
            raise ValueError(f"no mutation '{name}'; there are: {'; '.join(known)}")
    green = 0
    for mutation in [known[name] for name in args.only] if args.only else MUTATIONS:
        if args.list:
            print(f"{mutation.name}  ({mutation.file} → {mutation.test})")
            continue
        began = time.perf_counter()
        red = turns_red(mutation)
        green += not red
        print(json.dumps({"mutation": mutation.name, "test": mutation.test, "red": red}), flush=True)
        print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return int(green > 0)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
