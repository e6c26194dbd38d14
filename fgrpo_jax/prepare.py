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
import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath
from tqdm import tqdm

from fgrpo_jax import __version__, command
from fgrpo_jax.data.sets import card as cards
from fgrpo_jax.data.sets import choices, fetch, prepared, shards
from fgrpo_jax.data.sets.catalogue import SETS, SetSpec, find_set
from fgrpo_jax.data.sets.published import POLICIES, gather
from fgrpo_jax.data.sets.readers.records import BadRow

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
    splits = _write(splits, workers=args.workers)
    card = _card(args, spec, files=files, splits=splits, digest=digest)
    _finish(out, card, splits=splits)
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


# ---------------------------------------------------------------------------------------------------------------- write
def _write(splits: Mapping[str, Split], *, workers: int) -> dict[str, Split]:
    """Writes the shards that are missing; the splits with the notes of all."""
    notes: dict[Path, Mapping[str, Any]] = {}
    missing: list[shards.Job] = []
    for job in (job for split in splits.values() for job in split.jobs):
        note = shards.done(job)
        if note is None:
            missing.append(job)
        else:
            notes[job.file] = note
    total = sum(len(job.rows) for split in splits.values() for job in split.jobs)
    with tqdm(total=total, initial=total - sum(len(job.rows) for job in missing), unit="row", desc="preparing") as bar:
        for job, note in _made(missing, workers=workers):
            notes[job.file] = note
            bar.update(len(job.rows))
    return {
        name: dataclasses.replace(split, notes=[notes[job.file] for job in split.jobs])
        for name, split in splits.items()
    }


def _made(jobs: Sequence[shards.Job], *, workers: int) -> Iterator[tuple[shards.Job, Mapping[str, Any]]]:
    """(job, note) as they come, from so many processes; in this one where there is none, or one job."""
    if workers < 1 or len(jobs) < 2:
        yield from ((job, shards.write(job)) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would carry over whatever threads libraries started
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), mp_context=spawn) as pool:
        waiting: dict[concurrent.futures.Future[Mapping[str, Any]], shards.Job] = {}
        try:
            for job in jobs:
                waiting[pool.submit(shards.write, shards.with_images(job))] = job
                if len(waiting) > workers:  # one in hand; with all of them the images would be too
                    yield from _finished(waiting, concurrent.futures.FIRST_COMPLETED)
            yield from _finished(waiting, concurrent.futures.ALL_COMPLETED)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _finished(
    waiting: dict[concurrent.futures.Future[Mapping[str, Any]], shards.Job], when: str
) -> Iterator[tuple[shards.Job, Mapping[str, Any]]]:
    done, _ = concurrent.futures.wait(waiting, return_when=when)
    for future in done:
        yield waiting.pop(future), _result(future)


def _result(future: concurrent.futures.Future[Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return future.result()
    except BadRow as bad:  # made anew, so that it counts as raised here: a mistake in the data, not in the program
        raise BadRow(bad.place, bad.reason, kind=bad.kind, count=bad.count) from bad


# --------------------------------------------------------------------------------------------------------------- finish
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
        "source": {"src": files.src, "revision": files.revision},
        "settings": {"bad": args.bad, "open_answers": args.open_answers, "limit": args.limit},
        "package": __version__,
        "digest": digest,
        "splits": made,
        "warnings": cards.warnings(spec, made),
    }


def _finish(out: Path, card: Mapping[str, Any], *, splits: Mapping[str, Split]) -> None:
    """Index, card, and last what TFDS reads; then the folder is whole and nothing but the set is left in it."""
    for name, split in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in split.rows]
        shards.replace_text(out / prepared.index_name(name), "".join(lines))
    shards.replace_text(out / prepared.CARD, json.dumps(card, ensure_ascii=False, indent=1) + "\n")
    shards.replace_text(out / prepared.README, cards.render(card))
    wanted = {job.file for split in splits.values() for job in split.jobs}
    for stray in out.glob(f"*.{prepared.SUFFIX}-*"):
        if stray not in wanted:  # of a run with other shards, or the half-written one of a killed run
            stray.unlink()
    _write_metadata(out, card, splits=splits)
    shutil.rmtree(out / WORK)


def _write_metadata(out: Path, card: Mapping[str, Any], *, splits: Mapping[str, Split]) -> None:
    import tensorflow_datasets as tfds

    beside = out / WORK / "metadata"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    infos = []
    for name, split in splits.items():
        for job in split.jobs:
            (beside / job.file.name).touch()  # TFDS takes names and format from those of the files
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(beside), dataset_name=card["set"], split=name, filetype_suffix=prepared.SUFFIX
        )
        lengths = [len(note["examples"]) for note in split.notes]
        size = sum(note["size"] for note in split.notes)
        infos.append(tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=size, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=beside,
        features=prepared.features(),
        split_infos=infos,
        check_data=False,  # it would read with TensorFlow
        description=f"{card['set']}, prepared by fgrpo_jax. See README.md.",
        license=card["licence"] or None,
    )
    others = [file for file in beside.glob("*.json") if file.name != prepared.INFO]
    for file in (*others, beside / prepared.INFO):  # the one that makes the folder a data set comes last
        file.replace(out / file.name)


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
