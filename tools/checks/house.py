"""The house: sizes of rooms, files and functions, import circles, an installation that works, commands that answer."""

from __future__ import annotations

import ast
import importlib.util
import os
import site
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from checks import runs
from checks.areas import Groups
from checks.nodes import Nodes
from checks.record import Check, above, at_most, holds, same, skipped

PACKAGE = "fgrpo_jax"
LINES = {PACKAGE: 24_000, "tools": 6_500}
ADDED: Mapping[str, Mapping[str, int]] = {
    PACKAGE: {
        "published files and formats, answers of every form": 760,
        "kernels, real tokens, the decode loop, work beside a step": 2_010,
    },
    "tools": {"what compiled programs move, and a whole step against torch": 1_160},
}
"""Lines that came with what can be done since; a capability of docs/ for each, and no room in it for anything else."""
TOP, FILE, FUNCTION, MEDIAN = 15, 450, 70, 12
SECONDS = 1.5
MAIN = 'if __name__ == "__main__":'
FLOORS = Nodes(
    "floors",
    {
        "imports only go down": "test_floors.py",
        "rooms small enough, doors without torch": "test_architecture.py",
    },
)


# --------------------------------------------------------------------------------------------------------------- sizes
def tracked(room: str) -> dict[str, str]:
    """{path: text} of the Python files of a room that git knows of and that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", room],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    names = sorted({name for name in listed if name.endswith(".py") and (runs.ROOT / name).is_file()})
    return {name: (runs.ROOT / name).read_text(encoding="utf-8") for name in names}


def functions(source: str) -> dict[str, int]:
    """{'line name': lines from `def` to the end} of every function of a module; decorators do not count."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f"{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1 for node in found}


def sizes(_: runs.Context) -> Iterator[Check]:
    """Lines of package and tools, modules on the top level, the longest files and functions, the median function."""
    rooms = {room: tracked(room) for room in LINES}
    for room, most in LINES.items():
        added, lines = sum(ADDED[room].values()), sum(text.count("\n") for text in rooms[room].values())
        yield at_most(f"sizes/lines of {room}, {most} and {added} added since", lines, most + added)
    top = [name for name in rooms[PACKAGE] if name.count("/") == 1 and not name.endswith("__init__.py")]
    yield at_most("sizes/modules on the package's top level", len(top), TOP)
    for room, files in rooms.items():
        long = [f"{name}: {text.count(chr(10))}" for name, text in files.items() if text.count("\n") > FILE]
        yield same(f"sizes/files of {room} over {FILE} lines", long, [])
        lengths = {f"{name}:{place}": size for name, text in files.items() for place, size in functions(text).items()}
        over = [f"{place}: {size}" for place, size in lengths.items() if size > FUNCTION]
        yield same(f"sizes/functions of {room} over {FUNCTION} lines", over, [])
        yield at_most(f"sizes/median function of {room}, lines", statistics.median(lengths.values()), MEDIAN)


# ------------------------------------------------------------------------------------------------------------- circles
Graph = Mapping[str, set[str]]


def imports(files: Mapping[str, str]) -> Graph:
    """Module → modules of the package that it imports anywhere, in functions and for types too."""
    names = {path: path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in files}
    known, out = set(names.values()), {}
    for path, text in files.items():
        package = names[path] if path.endswith("__init__.py") else names[path].rpartition(".")[0]
        asked: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                asked |= {f"{base}.{alias.name}" for alias in node.names} & known or {base}
        out[names[path]] = asked & known - {names[path]}
    return out


def rooms(graph: Graph) -> Graph:
    """The same between rooms: folders and modules of the package's top level; the package itself is none."""
    room = lambda name: ".".join(name.split(".")[:2])  # noqa: E731
    out: dict[str, set[str]] = {}
    for name, targets in graph.items():
        if name != PACKAGE:
            out.setdefault(room(name), set()).update({room(x) for x in targets if x != PACKAGE} - {room(name)})
    return out


def circles(graph: Graph) -> list[str]:
    """Names that stand in a circle of imports: those that reach themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = set(graph[start])
        while ahead:
            seen |= ahead
            ahead = {target for name in ahead for target in graph.get(name, ())} - seen
        return seen

    return sorted(name for name in graph if name in reached(name))


def no_circles(_: runs.Context) -> Iterator[Check]:
    """Among the modules of the package, types included, and among its rooms."""
    graph = imports(tracked(PACKAGE))
    yield same(f"circles/modules of {len(graph)} in a circle of imports", circles(graph), [])
    between = rooms(graph)
    yield same(f"circles/rooms of {len(between)} in a circle of imports", circles(between), [])


# -------------------------------------------------------------------------------------------------------- installation
OWN = """from fgrpo_jax.configs import default


def get_config():
    config = default.get_config()
    config.model.hf = "shipped"
    config.num_steps = 2
    config.data.prompts_per_step = 4
    config.data.min_pixels, config.data.max_pixels = 84 * 84, 112 * 112
    config.data.max_prompt_tokens = 96
    config.data.buckets.prompt, config.data.buckets.patches = (96,), (64,)
    config.rollout.batch_prompts = 4
    config.rollout.group_size = 2
    config.rollout.max_new_tokens = 8
    config.algorithm.micro_batch_prompts = 2
    config.data.prompt = "tiny"
    config.eval.examples = 0
    return config
"""
FEW = (
    *("--config.num_steps=2", "--config.data.prompts_per_step=4", "--config.rollout.batch_prompts=4"),
    *("--config.rollout.group_size=2", "--config.algorithm.micro_batch_prompts=2", "--config.eval.examples=0"),
)


def installed(context: runs.Context) -> Iterator[Check]:
    """`pip install .` into an environment of its own; then, from an empty folder, each kind of config for two steps."""
    venv, empty = context.scratch / "venv", context.scratch / "empty"
    empty.mkdir()
    python = _environment(venv)
    # What builds the package comes from an index unless it is here. Everything else the new environment has already.
    alone = () if importlib.util.find_spec("hatchling") is None else ("--no-build-isolation",)
    flags = ("--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-installed", *alone)
    done = _run(python, "-m", "pip", "install", *flags, ".", cwd=runs.ROOT)
    name, bound = "installed/pip install .", "the package lies in the new environment"
    if done.code and not alone and "hatchling" in done.err:
        yield skipped(name, f"no index to take hatchling from: {done.err[-300:]}", bound)
        return
    where = _run(python, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", cwd=empty).out.strip() or done.err[-300:]
    yield holds(name, where.startswith(str(venv)), where, bound)
    (empty / "mine.py").write_text(OWN)
    for name, config in (
        ("a config of ours by its name", "tiny"),
        ("a file on top of default", "mine.py"),
        ("a file under a baseline", "baselines/gdpo.py:mine.py"),
    ):
        work = empty / name.replace(" ", "-")
        given = FEW if config == "tiny" else ()
        done = _run(python, "-m", f"{PACKAGE}.train", f"--config={config}", f"--workdir={work}", *given, cwd=empty)
        rows = (work / "metrics.jsonl").read_text().count("\n") if (work / "metrics.jsonl").is_file() else 0
        shown = {"exit code": done.code, "steps": rows} | ({"said": done.err[-300:]} if done.code else {})
        yield holds(f"installed/two steps of {name}", done.code == 0 and rows == 2, shown, "2 steps")


def _environment(venv: Path) -> Path:
    """The interpreter of a new environment that sees all packages of the running one but this project."""
    runs.python("-m", "venv", "--system-site-packages", venv).require()
    folder = next((venv / "lib").glob("python*/site-packages"))
    # A folder that a .pth file names is searched, and .pth files in it, such as that of an editable install, are not.
    (folder / "beside.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return venv / "bin" / "python"


def _run(*command: str | Path, cwd: Path) -> runs.Done:
    """A command in a folder, with no path of this checkout before its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return runs.run(*command, cwd=cwd, environment=environment)


# ------------------------------------------------------------------------------------------------------------- answers
def answers(context: runs.Context) -> Iterator[Check]:
    """How soon every command answers `--help` and a mistyped flag, the better of two tries."""
    doors = [Path(name).stem for name, text in tracked(PACKAGE).items() if MAIN in text and name.count("/") == 1]
    yield above("answers/commands", len(doors), 0)
    for name in doors:
        for flag, code in (("--help", 0), ("--no-such-flag", 2)):
            tries = [runs.door(name, flag) for _ in range(2)]
            found = {"exit code": tries[0].code, "seconds": round(min(done.seconds for done in tries), 2)}
            ok = all(done.code == code for done in tries) and found["seconds"] <= SECONDS
            yield holds(f"answers/{name} {flag}", ok, found, f"exit code {code} within {SECONDS} s")


GROUPS: Groups = {
    "sizes": (sizes,),
    "circles": (no_circles,),
    "floors": (FLOORS,),
    "installed": (installed,),
    "answers": (answers,),
}
