"""Bad input: each ends in a message that names the thing and the remedy, exit code not 0, nothing half-written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from checks import runs
from checks.record import Check, holds


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Attributes:
      name: what is wrong.
      argv: door and arguments.
      words: what the message must hold: the thing, then the remedy.
      leaves: the folder the command would have written.
      begins: whether the run may have begun (the fault lies in an example it meets later): then every file that is
        there must be whole. Otherwise nothing at all may be written.
    """

    name: str
    argv: tuple[str, ...]
    words: tuple[str, ...]
    leaves: Path
    begins: bool = False


def checks(context: runs.Context) -> Iterator[Check]:
    """Every case of the list, two at a time."""
    cases = [*_configs(context), *_folders(context), *_examples(context)]
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(_tried, cases)


def _tried(case: Case) -> Check:
    before = _contents(case.leaves)
    done = runs.door(*case.argv)
    message = next((line for line in reversed(done.err.splitlines()) if line.startswith("error: ")), "")
    at = done.err.rfind(message) if message else len(done.err)
    message = done.err[at:].strip()  # an error may go on over several lines
    after = _contents(case.leaves)
    whole = not _broken(case.leaves) if case.begins else before == after
    missing = [word for word in case.words if word not in message]
    shown = {"exit code": done.code, "message": message[:300] or done.err[-300:], "nothing half-written": whole}
    if missing:
        shown["not in the message"] = missing
    bound = f"exit code not 0, a message with {', '.join(map(repr, case.words))}, nothing half-written"
    return holds(f"refusals/{case.name}", bool(done.code) and bool(message) and not missing and whole, shown, bound)


# ------------------------------------------------------------------------------------------------------------ cases
def _train(context: runs.Context, name: str, **more: object) -> tuple[tuple[str, ...], Path]:
    work = context.scratch / "refused" / name
    return ("train", *runs.tiny(context.policy, work, num_steps=2, **more)), work


def _configs(context: runs.Context) -> Iterator[Case]:
    argv, work = _train(context, "key", optim__learning_rat=1e-4)
    yield Case("unknown config key", argv, ("optim.learning_rat'", "did you mean 'learning_rate'"), work)
    argv, work = _train(context, "mesh", mesh__data=3)
    yield Case("mesh that does not divide the devices", argv, ("mesh.data=3", "choose sizes"), work)
    argv, work = _train(context, "another")
    work.mkdir(parents=True)
    (work / "config.json").write_text(json.dumps({"seed": 7}))
    yield Case("workdir that holds another run", argv, (str(work), "another run", "--overwrite"), work)
    argv, work = _train(context, "long", data__max_prompt_tokens=16)
    yield Case("prompt longer than the limit", argv, ("max_prompt_tokens 16", "raise it"), work, begins=True)


def _folders(context: runs.Context) -> Iterator[Case]:
    from safetensors.numpy import load_file, save_file

    def broken(name: str) -> tuple[Path, Path]:
        folder = context.scratch / "broken" / name
        shutil.copytree(context.policy, folder)
        return folder, folder / "model.safetensors"

    def case(name: str, folder: Path, *words: str) -> Case:
        out = context.scratch / "refused" / folder.name
        return Case(name, ("convert", f"--hf={folder}", f"--out={out}"), words, out)

    folder, file = broken("missing")
    file.unlink()
    yield case("missing safetensors", folder, str(folder), "folder")
    folder, file = broken("truncated")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    yield case("truncated safetensors", folder, str(file), "again")
    tensors = load_file(context.policy / "model.safetensors")
    first = min(tensors)
    folder, file = broken("shape")
    save_file({**tensors, first: np.zeros((3, 5), tensors[first].dtype)}, file)
    yield case("tensor of the wrong shape", folder, first, file.name, "(3, 5)", "take both")
    folder, file = broken("extra")
    save_file({**tensors, "visual.odd.weight": np.zeros(3, tensors[first].dtype)}, file)
    yield case("unknown extra tensor", folder, "visual.odd.weight", file.name, "remove")


def _examples(context: runs.Context) -> Iterator[Case]:
    asks = {"question": "Is there a circle?", "options": ["yes", "no"]}
    good = {**asks, "id": "1", "images": ["good.png"], "answer": "A"}
    undecodable = {**good, "id": "2", "images": ["bad.png"]}
    unanswered = {**asks, "id": "2", "images": ["good.png"]}
    yield _example(context, "image that does not decode", [good, undecodable], "bad.png", "decode")
    yield _example(context, "example without an answer", [good, unanswered], "line 2", "'answer'", "add")


def _example(context: runs.Context, name: str, examples: list[dict[str, object]], *words: str) -> Case:
    short = name.split()[0]
    data = context.scratch / "data" / short
    _write_examples(data, examples)
    argv, work = _train(
        context,
        short,
        data__source="jsonl",
        data__path=data,
        data__eval_split="validation",
        data__prompts_per_step=2,
        rollout__batch_prompts=2,
        algorithm__micro_batch_prompts=1,
    )
    return Case(name, argv, words, work, begins=True)


def _write_examples(data: Path, examples: list[dict[str, object]]) -> None:
    from PIL import Image

    data.mkdir(parents=True)
    Image.fromarray(np.full((84, 84, 3), 200, np.uint8)).save(data / "good.png")
    (data / "bad.png").write_bytes((data / "good.png").read_bytes()[:40])
    (data / "train.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))


# -------------------------------------------------------------------------------------------------- what is left there
def _contents(folder: Path) -> dict[str, str]:
    """{relative path: SHA-256} of every file; {} where there is no folder, {'.': ''} for an empty one."""
    if not folder.exists():
        return {}
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {".": "", **{name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}}


def _broken(folder: Path) -> list[str]:
    """Files that were begun and not finished: temporary ones, and JSON that does not parse."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if ".tmp" in path.name or "orbax-checkpoint-tmp" in path.name:
            found.append(name)
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text()
            try:
                for part in [text] if path.suffix == ".json" else text.splitlines():
                    json.loads(part)
            except json.JSONDecodeError:
                found.append(name)
    return found
