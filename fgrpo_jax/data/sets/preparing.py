"""A published set from its files to a TFDS data set in ArrayRecord with a data card."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgrpo_jax import __version__
from fgrpo_jax.data.sets import card as cards
from fgrpo_jax.data.sets import choices, fetch, prepared, shards
from fgrpo_jax.data.sets.catalogue import SetSpec, find_set
from fgrpo_jax.data.sets.doubts import doubts
from fgrpo_jax.data.sets.published import gather
from fgrpo_jax.data.sets.readers.files import Reading

WORK = ".work"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split on its way.

    Attributes:
      skipped: {place, reason, kind, count} of rows left out before their images were looked at.
      settled: what became of open questions.
      doubts: what looks wrong about all of its rows.
    """

    jobs: Sequence[shards.Job]
    skipped: Sequence[Mapping[str, Any]]
    settled: choices.Settled
    doubts: Sequence[str]


def prepare(args: argparse.Namespace) -> None:
    """Prepares one set, or says that it is prepared already."""
    spec, out, work = find_set(args.set), args.out, args.out / WORK
    if args.overwrite:
        shutil.rmtree(out, ignore_errors=True)
    files = fetch.find(spec, args.src, revision=args.revision)
    folder = fetch.unpack(spec, files, work / "source")
    splits = {name: _split(args, spec, folder, name) for name in args.split or _usual(spec, folder)}
    digest = _digest(splits)
    if prepared.is_prepared(out):
        if prepared.read_card(out).get("digest") != digest:
            raise ValueError(
                f"{out} holds a set that was prepared from other files or with other settings; choose a new folder, or "
                "--overwrite it"
            )
        shutil.rmtree(work, ignore_errors=True)
        print(f"{out} is prepared already", file=sys.stderr)
        return
    work.mkdir(parents=True, exist_ok=True)
    notes = shards.write_missing([job for split in splits.values() for job in split.jobs], workers=args.workers)
    written = {name: {job.file: notes[job.file] for job in split.jobs} for name, split in splits.items()}
    card = _card(args, spec, files=files, splits=splits, written=written, digest=digest)
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
    reading = Reading(
        {field: column for field, _, column in (text.partition("=") for text in args.column)}, args.images
    )
    rows, left_out = gather(spec.read(folder, name, reading), bad=args.bad, what=f"{folder} ({name})")
    settled = choices.settle([row.entry for row in rows], args.open_answers)
    kept = [
        dataclasses.replace(rows[place], example=settled.apply(rows[place].example, place)) for place in settled.places
    ]
    doubtful = list(doubts(kept, boxes=spec.boxes and spec.kind != "format"))
    kept = kept[: args.limit] if args.limit else kept
    places: dict[str, Any] = {"folder": args.out, "work": args.out / WORK, "name": spec.name, "split": name}
    jobs = shards.plan(kept, **places, size=args.shard, skip=args.bad == "skip")
    return Split(jobs, [shards.noted(bad) for bad in left_out.rows], settled, doubtful)


def _digest(splits: Mapping[str, Split]) -> str:
    """Of all rows and settings: the same for the same command on the same files."""
    seen = hashlib.sha256()
    for name, split in splits.items():
        seen.update(f"{name} {split.settled.counts} {len(split.skipped)}\n".encode())
        for job in split.jobs:
            seen.update(f"{job.file.name} {job.digest}\n".encode())
    return seen.hexdigest()


def _card(
    args: argparse.Namespace,
    spec: SetSpec,
    *,
    files: fetch.Files,
    splits: Mapping[str, Split],
    written: Mapping[str, prepared.Notes],
    digest: str,
) -> dict[str, Any]:
    made = {}
    for name, split in splits.items():
        notes = written[name].values()
        skipped = [*split.skipped, *(bad for note in notes for bad in note["skipped"])]
        rows = [row for note in notes for row in note["examples"]]
        if not rows:
            raise ValueError(f"no row of {name} can be used; the first: {skipped[0]['place']}: {skipped[0]['reason']}")
        expected = None if args.limit or args.open_answers == "drop" else spec.counts.get(name)
        made[name] = {**cards.split_card(rows, skipped, published=expected), "open": split.settled.counts}
        made[name]["doubts"] = list(split.doubts)
    return {
        "set": spec.name,
        **{name: getattr(spec, name) for name in ("kind", "licence", "redistributable", "note")},
        "boxes_for_grounding": spec.boxes,
        "source": {"src": files.name, "revision": files.revision},
        "settings": {name: vars(args)[name] for name in ("bad", "open_answers", "limit")},
        "package": __version__,
        "digest": digest,
        "splits": made,
        "warnings": cards.warnings(spec, made),
    }
