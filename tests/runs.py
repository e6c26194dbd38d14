"""Runs of the training doors inside the test process: one device, every program compiled once for all runs."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import policies
import pytest

from fgrpo_jax import command
from fgrpo_jax import mesh as meshes
from fgrpo_jax.records import Signals
from fgrpo_jax.rewards.score import MEASURES
from fgrpo_jax.rows import read_rows
from fgrpo_jax.training import checkpoint, metrics, setup


@contextlib.contextmanager
def quick() -> Iterator[pytest.MonkeyPatch]:
    """One device; learners and samplers of equal settings are one object, compiled without optimisation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "make_mesh", functools.partial(meshes.make_mesh, devices=jax.devices()[:1]))
        for name in ("Sampler", "Learner", "SupervisedLearner"):
            patch.setattr(setup, name, once(functools.partial(vars(setup)[name], compiler_options=policies.QUICK)))
        yield patch


def once(make: Any) -> Any:
    """`make`, giving the same object for the same settings; models and meshes are those of one folder and device.

    How many updates there are in all is no difference: a constant learning rate does not read it.
    """
    made: dict[str, Any] = {}

    def get(*args: Any, **settings: Any) -> Any:
        plain = {k: v for k, v in settings.items() if k not in ("mesh", "param_shardings", "banned")}
        key = re.sub(r"total_updates=\d+", "", repr((args[1:], sorted(plain.items()))))
        return made.setdefault(key, make(*args, **settings))

    return get


def run(door: Any, workdir: Path, hf: Path, *flags: str, **fields: Any) -> tuple[int, str, str]:
    """(exit code, stdout, stderr without the progress bar) of a door with policies.SMALL and `fields`."""
    argv = [f"--config={policies.BASE}", f"--workdir={workdir}", *policies.overrides(hf, **fields), *flags]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.run(door.main, door.parser(), argv)
    said = [line for line in err.getvalue().split("\n") if "\r" not in line]
    return code, out.getvalue(), "\n".join(said).strip()


def rows(workdir: Path, *, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The metrics of a run but for those that differ from run to run."""
    found = read_rows(workdir / file)
    volatile = lambda name: any(fnmatch.fnmatchcase(name, p) for p in metrics.VOLATILE)  # noqa: E731
    return [{name: value for name, value in row.items() if not volatile(name)} for row in found]


def arrays(workdir: Path, target: Any) -> tuple[Any, checkpoint.Meta]:
    """(state on the host, meta) of the newest checkpoint."""
    saved = checkpoint.Checkpoints(workdir / "checkpoints")
    state, meta = saved.restore(target)
    saved.close()
    return jax.device_get(state), meta


def same(a: Any, b: Any) -> None:
    """Bit-equal trees."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def earning(score: Any) -> Any:
    """`score` for policies that earn nothing yet: rewards drawn from what was said, so that every group is live."""

    def level(text: str, salt: int) -> float:
        return zlib.crc32(f"{salt}{text}".encode()) % 5 / 4

    def rewarded(examples: Any, texts: Any, **settings: Any) -> Any:
        _, seen = score(examples, texts, **settings)
        levels = lambda salt: np.array([[level(t, salt) for t in group] for group in texts], np.float32)  # noqa: E731
        count = len(settings.get("measures", MEASURES))
        values = np.stack([levels(k) for k in range(count)])
        mask = np.stack([levels(10 + k) < 0.8 for k in range(count)])
        signals = Signals(task=levels(3), accuracy=levels(4), format=levels(5), values=values * mask, mask=mask)
        return signals, seen

    return rewarded


def is_dead(example: Any) -> bool:
    """Of half the questions: those whose groups `half_dead` rewards alike."""
    return zlib.crc32(example.id.encode()) % 2 == 0


def half_dead(score: Any) -> Any:
    """Rewards drawn from what was said (`earning`), but for the questions that `is_dead` names."""
    drawn = earning(score)

    def rewarded(examples: Any, texts: Any, **settings: Any) -> Any:
        signals, seen = drawn(examples, texts, **settings)
        rows = [row for row, example in enumerate(examples) if is_dead(example)]
        signals.task[rows], signals.values[:, rows], signals.mask[:, rows] = 0.7, 0.1, True
        return signals, seen

    return rewarded


def write_questions(folder: Path, *, count: int, split: str = "train") -> list[dict[str, Any]]:
    """A folder in our JSONL layout, with an image a question; returns its lines."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (84, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{split}-{index}.png")
        line = {"id": f"q{index}", "images": [f"{split}-{index}.png"], "question": "Where is it?"}
        lines.append(line | {"options": ["left", "right"], "answer": "A", "boxes": [[0, 0, 28, 28]]})
    write_lines(folder, lines, split=split)
    return lines


def write_lines(folder: Path, lines: list[dict[str, Any]], *, split: str = "train") -> None:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
