"""Published files → a TFDS data set in ArrayRecord with a data card.

    python -m fgrpo_jax.prepare cv_bench_2d --src=FOLDER --out=DATA/cv_bench_2d
    python -m fgrpo_jax.prepare cv_bench_2d --src=nyu-visionx/CV-Bench@REVISION --out=DATA/cv_bench_2d
    python -m fgrpo_jax.prepare viscot --out=DATA/viscot --open-answers=choices --bad=skip --workers=8

FOLDER holds the files as published (docs/data.md); without --src they are fetched from the set's place on the hub.
Every image is decoded once, and kept as the bytes it came in. The same command goes on where a killed one stopped,
shard by shard. `data.source=SET` or `prepared` with `data.path=OUT` trains on the result; README.md in OUT says what is
in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgrpo_jax import __version__, command
from fgrpo_jax.data.sets import card as cards
from fgrpo_jax.data.sets import choices, fetch, prepared, shards
from fgrpo_jax.data.sets.catalogue import SETS, SetSpec, find_set
from fgrpo_jax.data.sets.published import POLICIES, gather

WORK = ".work"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split on its way.

    Attributes:
      jobs: its shards.
      skipped: {place, reason, kind, count} of rows left out before their images were looked at.
      settled: what became of open questions.
      notes: of its shards, once they are written.
    """

    jobs: Sequence[shards.Job]
    skipped: Sequence[Mapping[str, Any]]
    settled: choices.Settled
    notes: Sequence[Mapping[str, Any]] = ()

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """What is noted of each example, in order."""
        return [row for note in self.notes for row in note["examples"]]


def main(args: argparse.Namespace) -> None:
    """Prepares one set, or says that it is prepared already."""
    spec, out, work = find_set(args.set), args.out, args.out / WORK
    if args.overwrite:
        shutil.rmtree(out, ignore_errors=True)
    files = fetch.find(spec, args.src, revision=args.revision)
    folder = fetch.unpack(spec, files, work / "source")
    splits = {name: _split(args, spec, folder, name) for name in args.split or _usual(spec, folder)}
    digest = _digest(splits)
    if prepared.is_prepared(out):
        _require_same(out, digest)
        shutil.rmtree(work, ignore_errors=True)
        print(f"{out} is prepared already", file=sys.stderr)
        return
    work.mkdir(parents=True, exist_ok=True)
    notes = shards.write_missing([job for split in splits.values() for job in split.jobs], workers=args.workers)
    splits = {
        name: dataclasses.replace(split, notes=[notes[job.file] for job in split.jobs])
        for name, split in splits.items()
    }
    card = _card(args, spec, files=files, splits=splits, digest=digest)
    written = {name: prepared.Written([job.file for job in split.jobs], split.notes) for name, split in splits.items()}
    prepared.finish(out, card, written, readme=cards.render(card), work=work)
    for warning in card["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{out}: " + ", ".join(f"{c['examples']} examples in {name}" for name, c in card["splits"].items()))


def _usual(spec: SetSpec, folder: Path) -> Sequence[str]:
    if spec.splits:
        return spec.splits[:1]
    if folder.is_file():
        return (folder.stem,)
    raise ValueError(f"{spec.name} needs --split: the files in {folder} are named after it")


def _split(args: argparse.Namespace, spec: SetSpec, folder: Path, name: str) -> Split:
    """Reads the rows of a split and cuts them into shards."""
    rows, left_out = gather(spec.read(folder, name), bad=args.bad, what=f"{folder} ({name})")
    settled = choices.settle([row.entry for row in rows], args.open_answers)
    kept = [
        dataclasses.replace(rows[place], example=settled.apply(rows[place].example, place)) for place in settled.places
    ]
    jobs = shards.plan(
        kept[: args.limit] if args.limit else kept,
        folder=args.out,
        work=args.out / WORK,
        name=spec.name,
        split=name,
        size=args.shard,
        skip=args.bad == "skip",
    )
    return Split(jobs, [shards.noted(bad) for bad in left_out.rows], settled)


def _digest(splits: Mapping[str, Split]) -> str:
    """Of all rows and settings: the same for the same command on the same files."""
    seen = hashlib.sha256()
    for name, split in splits.items():
        seen.update(f"{name} {split.settled.counts} {len(split.skipped)}\n".encode())
        for job in split.jobs:
            seen.update(f"{job.file.name} {job.digest}\n".encode())
    return seen.hexdigest()


def _require_same(out: Path, digest: str) -> None:
    if prepared.read_card(out).get("digest") != digest:
        raise ValueError(
            f"{out} holds a set that was prepared from other files or with other settings; choose a new folder, or "
            "--overwrite it"
        )


def _card(
    args: argparse.Namespace, spec: SetSpec, *, files: fetch.Files, splits: Mapping[str, Split], digest: str
) -> dict[str, Any]:
    made = {}
    for name, split in splits.items():
        skipped = [*split.skipped, *(bad for note in split.notes for bad in note["skipped"])]
        if not split.rows:
            raise ValueError(f"no row of {name} can be used; the first: {skipped[0]['place']}: {skipped[0]['reason']}")
        expected = None if args.limit or args.open_answers == "drop" else spec.counts.get(name)
        made[name] = cards.split_card(split.rows, skipped, published=expected)
        made[name]["open"] = split.settled.counts
    return {
        "set": spec.name,
        "kind": spec.kind,
        "licence": spec.licence,
        "redistributable": spec.redistributable,
        "note": spec.note,
        "boxes_for_grounding": spec.boxes,
        "source": {"src": files.name, "revision": files.revision},
        "settings": {"bad": args.bad, "open_answers": args.open_answers, "limit": args.limit},
        "package": __version__,
        "digest": digest,
        "splits": made,
        "warnings": cards.warnings(spec, made),
    }


def parser() -> argparse.ArgumentParser:
    """Flags of this door."""
    out = command.parser(__doc__)
    out.add_argument("set", metavar="SET", help=f"one of {', '.join(SETS)}")
    out.add_argument("--src", default="", help="folder (or file), or dataset id OWNER/NAME[@REVISION] of the hub")
    out.add_argument("--revision", default="", help="branch, tag or commit of an id; the commit goes into the card")
    out.add_argument("--out", required=True, type=Path, help="folder of the prepared set")
    out.add_argument("--split", action="append", default=[], help="a split; may be given several times (default: one)")
    out.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes; 0 works in this one")
    out.add_argument("--bad", choices=POLICIES, default="error", help="rows that cannot be used (default: %(default)s)")
    out.add_argument("--open-answers", choices=choices.MODES, default="keep", help="questions without options")
    out.add_argument("--limit", type=int, default=0, help="first so many rows of each split; 0 is all")
    out.add_argument("--shard", type=int, default=256, metavar="ROWS", help="rows a shard (default: %(default)s)")
    out.add_argument("--overwrite", action="store_true", help="delete what is in the folder first")
    return out


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
