"""Several evaluated runs side by side: paired differences, intervals, significance, and the paper's numbers beside.

    python -m fgrpo_jax.evaluate compare runs/base runs/fgrpo [runs/other ...] [--out=FOLDER]

Each is the workdir of an evaluation, or of a training run (its answers before and after). The first is what the others
are compared with. With --out, FOLDER gets comparison.json, .md and .tex. docs/evaluation.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgrpo_jax import command
from fgrpo_jax.evaluation import benchmarks, paper, results, significance, tables
from fgrpo_jax.evaluation.figures import RESAMPLES, is_share
from fgrpo_jax.evaluation.judged import Answer
from fgrpo_jax.evaluation.significance import Difference, SetComparison
from fgrpo_jax.evaluation.tables import Grid
from fgrpo_jax.rows import differences, matching, read_rows, write_json

NOTE = (
    "intervals are of the paired difference (bootstrap over questions); p is McNemar's exact test on the accuracy of a "
    "set, by pairs of questions where the set has them, and p (Holm) the same adjusted for all sets and runs of this "
    "table; the intervals are not adjusted"
)

Answers = Mapping[str, Sequence[Answer]]


def main(args: argparse.Namespace) -> None:
    """Compares runs with the first one."""
    names = _names(args.runs)
    runs = {name: read_run(folder) for name, folder in zip(names, args.runs, strict=True)}
    found = {
        name: {key: results.of_set(key, rows, resamples=args.resamples) for key, rows in run.items()}
        for name, run in runs.items()
    }
    grids = [overview(found), *tables.by_set({name: list(run.values()) for name, run in found.items()})]
    out: dict[str, Any] = {"runs": [str(run) for run in args.runs], "comparisons": []}
    whole = any(result.base in benchmarks.SEVEN for run in found.values() for result in run.values())
    notes = [NOTE] * (len(names) > 1) + [paper.about()] * whole
    others = {name: runs[name] for name in names[1:]}
    for name, compared in significance.compare(runs[names[0]], others, resamples=args.resamples).items():
        grids.append(table(compared, head=f"{names[0]} → {name}"))
        out["comparisons"].append({"first": names[0], "other": name, **significance.to_json(compared)})
    for name, folder in zip(names[1:], args.runs[1:], strict=True):
        notes += [f"{name} differs from {names[0]} in {line}" for line in other_settings(args.runs[0], folder)]
    tables.show(grids, notes)
    if args.out is not None:
        write_json(args.out / "comparison.json", out | {"notes": notes})
        tables.write(args.out, "comparison", grids, notes)
        print(f"comparison.json, comparison.md and comparison.tex are in {args.out}")


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where these tell them apart, else their paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def read_run(workdir: Path) -> dict[str, list[Answer]]:
    """The answers of a run by set; an error where there are none, or its evaluation has not ended."""
    folder = workdir / "eval"
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"no answers in {folder}; give the --workdir of an evaluation or of a training run")
    if not (folder / "results.json").is_file() or list(folder.glob("parts/*.jsonl")):
        raise ValueError(
            f"the evaluation in {workdir} has not ended; run its command again, it goes on where it stopped"
        )
    return {file.stem: read_rows(file) for file in files}


def other_settings(first: Path, other: Path) -> list[str]:
    """What two evaluations differ in besides the policy, by set and field."""
    lines = []
    for file in sorted((first / "eval").glob("*.settings.json")):
        there = other / "eval" / file.name
        if there.is_file():
            a, b = (json.loads(path.read_text(encoding="utf-8")) for path in (file, there))
            lines += [f"{a['set']}: {line}" for line in differences(a, b, ignore=matching("policy.*"))]
    return lines


# --------------------------------------------------------------------------------------------------------------- tables
def overview(found: Mapping[str, Mapping[str, results.SetResult]]) -> Grid:
    """Accuracy and inconsistency of each run by set, their averages, and the paper's rows."""
    shown = {"accuracy_paper": "acc.", "inconsistency": "inc.", "semantic_grounding": "sem."}
    head = ["set", *(f"{name} {short}" for name in found for short in shown.values())]
    sets = list(dict.fromkeys(name for run in found.values() for name in run))
    cells = lambda run, name: [  # noqa: E731
        tables.number(run[name].figures[key]) if name in run else tables.NONE for key in shown
    ]
    body = [[name, *(cell for run in found.values() for cell in cells(run, name))] for name in sets]
    rules = []
    averages = [results.average(list(run.values())) for run in found.values()]
    if count := max(mean["accuracy_paper"].count for mean in averages):
        rules = [len(body), len(body) + 1]
        row = [tables.number(mean[key]) for mean in averages for key in shown]
        body.append([f"average of {count} of the paper's {len(benchmarks.SEVEN)} sets", *row])
        for stated in paper.rows():
            known = map(tables.stated, (stated.accuracy, stated.inconsistency, stated.semantic))
            body.append([f"paper: {stated.name}", *known, *[""] * (len(shown) * (len(found) - 1))])
    return Grid(head, body, rules)


def table(compared: Sequence[SetComparison], *, head: str) -> Grid:
    """The differences of two runs."""
    body, rules = [], []
    for one in compared:
        rules.append(len(body))
        for key, difference in one.differences.items():
            tested = key == ("accuracy_official" if benchmarks.find(one.name).size > 1 else "accuracy_paper")
            p = [_p(one.mcnemar.p), _p(one.mcnemar.adjusted)] if tested else ["", ""]
            body.append([f"{one.name}: {key}", *_cells(difference), *p])
    means = significance.average(compared)
    rules.append(len(body))
    body += [[f"average: {key}", *_cells(difference), "", ""] for key, difference in means.items()]
    return Grid((head, "first", "other", "change", "95% interval", "n", "p", "p (Holm)"), body, rules[1:])


def _cells(difference: Difference) -> list[str]:
    d, scale = difference, 100 if is_share(difference.name) else 1
    before, after, change, low, high = (scale * value for value in (d.before, d.after, d.change, d.low, d.high))
    return [f"{before:.1f}", f"{after:.1f}", f"{change:+.1f}", f"[{low:+.1f}, {high:+.1f}]", str(d.count)]


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def parser() -> argparse.ArgumentParser:
    """Flags of `evaluate compare`."""
    out = command.parser(__doc__)
    out.add_argument("runs", nargs="+", type=Path, metavar="WORKDIR", help="evaluated runs; the first is the baseline")
    out.add_argument("--out", type=Path, help="folder for comparison.json, .md and .tex")
    out.add_argument("--resamples", type=int, default=RESAMPLES, help="bootstrap samples (%(default)s)")
    return out
