"""Shards of a prepared folder: each written beside and renamed, with a note of what it was made of.

A shard counts when its note is there and was made of the same rows under the same settings. So a preparation that was
killed anywhere goes on with the shards that are missing, and one whose source changed redoes those that it touches.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from fgrpo_jax.data.sets import prepared
from fgrpo_jax.data.sets.readers.layout import Published
from fgrpo_jax.data.sets.readers.records import BadRow, HeldImages
from fgrpo_jax.data.sets.readers.tables import CellImages
from fgrpo_jax.rows import beside, write_atomically

FORMAT = 1  # of records, notes and index: another number makes all shards anew


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to write. Travels to workers."""

    rows: Sequence[Published]  # what it holds, in order
    file: pathlib.Path  # where its records go
    note: pathlib.Path  # where is written what came out
    skip: bool  # whether rows that do not decode are left out rather than an error
    digest: str  # of rows and settings


def plan(
    rows: Sequence[Published], *, folder: pathlib.Path, work: pathlib.Path, name: str, split: str, size: int, skip: bool
) -> list[Job]:
    """The shards of a split, `size` rows each."""
    count = max(1, -(-len(rows) // size))
    jobs = []
    for at in range(count):
        part = rows[at * size : (at + 1) * size]
        file = folder / f"{name}-{split}.{prepared.SUFFIX}-{at:05d}-of-{count:05d}"
        jobs.append(Job(part, file, work / f"{file.name}.json", skip, _digest(part, skip)))
    return jobs


def _digest(rows: Sequence[Published], skip: bool) -> str:
    seen = hashlib.sha256(f"{FORMAT} {skip}".encode())
    for row in rows:
        shown = json.dumps(dataclasses.asdict(row.example), ensure_ascii=False, sort_keys=True, default=str)
        seen.update(f"{shown}\n{row.place}\n{row.frame}\n{row.images.stamp()}\n".encode())
    return seen.hexdigest()


def done(job: Job) -> Mapping[str, Any] | None:
    """The note of a shard that is there and whole; None where it must be written."""
    try:
        note = json.loads(job.note.read_text(encoding="utf-8"))
        whole = note["digest"] == job.digest and job.file.stat().st_size == note["size"]
    except (OSError, ValueError, KeyError):
        return None
    return note if whole else None


def with_images(job: Job) -> Job:
    """The job with those images in memory that only a reader in order has at a fair price: not a worker."""
    rows = []
    for row in job.rows:
        if isinstance(row.images, CellImages) and row.images.in_order:
            with contextlib.suppress(BadRow):  # which the worker meets again, and knows what to do with
                row = dataclasses.replace(row, images=HeldImages(row.encoded()))
        rows.append(row)
    return dataclasses.replace(job, rows=rows)


def write(job: Job) -> Mapping[str, Any]:
    """Writes a shard and its note, and returns the note.

    Raises:
      BadRow: a row whose images do not decode, unless such rows are skipped.
    """
    from array_record.python import array_record_module

    examples: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    with beside(job.file) as place:
        with contextlib.closing(array_record_module.ArrayRecordWriter(str(place), prepared.OPTIONS)) as writer:
            for row in job.rows:
                try:
                    record, about = _record(row)
                except BadRow as bad:
                    if not job.skip:
                        raise
                    skipped.append(noted(bad))
                    continue
                writer.write(record)
                examples.append(about)
        size = place.stat().st_size
    note = {"digest": job.digest, "size": size, "examples": examples, "skipped": skipped}
    write_atomically(job.note, json.dumps(note, ensure_ascii=False))
    return note


def write_missing(jobs: Sequence[Job], *, workers: int) -> dict[pathlib.Path, Mapping[str, Any]]:
    """Writes the shards that are not there yet; the notes of all, by their files.

    Args:
      workers: processes; 0 works in this one.
    """
    notes = {job.file: note for job in jobs if (note := done(job)) is not None}
    missing = [job for job in jobs if job.file not in notes]
    total, left = (sum(len(job.rows) for job in some) for some in (jobs, missing))
    with tqdm(total=total, initial=total - left, unit="row", desc="preparing") as bar:
        for job, note in _made(missing, workers=workers):
            notes[job.file] = note
            bar.update(len(job.rows))
    return notes


def _made(jobs: Sequence[Job], *, workers: int) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    """(job, note) as they come, from so many processes; in this one where there is none, or one job."""
    if workers < 1 or len(jobs) < 2:
        yield from ((job, write(job)) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would carry over whatever threads libraries started
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), mp_context=spawn) as pool:
        waiting: dict[concurrent.futures.Future[Mapping[str, Any]], Job] = {}
        try:
            for job in jobs:
                waiting[pool.submit(write, with_images(job))] = job
                if len(waiting) > workers:  # one in hand; with all of them the images would be too
                    yield from _finished(waiting, concurrent.futures.FIRST_COMPLETED)
            yield from _finished(waiting, concurrent.futures.ALL_COMPLETED)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _finished(
    waiting: dict[concurrent.futures.Future[Mapping[str, Any]], Job], when: str
) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    for future in concurrent.futures.wait(waiting, return_when=when).done:
        try:
            note = future.result()
        except BadRow as bad:  # made anew, so that it counts as raised here: a mistake in the data, not in the program
            raise BadRow(bad.place, bad.reason, kind=bad.kind, count=bad.count) from bad
        yield waiting.pop(future), note


def _record(row: Published) -> tuple[bytes, dict[str, Any]]:
    """The record of a row, and what is noted of it."""
    encoded = row.encoded()
    example = dataclasses.replace(row, images=HeldImages(encoded)).decode()
    pairs = zip(example.images, encoded, strict=True)
    images = [{"width": p.shape[1], "height": p.shape[0], "bytes": len(data)} for p, (_, data) in pairs]
    about = {**dataclasses.asdict(row.entry), "images": images}
    about |= {"boxes": None if example.boxes is None else len(example.boxes), "tags": dict(example.tags)}
    place = row.place.rpartition("/")[2]  # without the folder it was read from: prepared folders travel
    return prepared.to_record(example, [data for _, data in encoded], place=place), about


def noted(bad: BadRow) -> dict[str, Any]:
    """A bad row as cards list it: its file by name, for cards travel."""
    place = bad.place.rpartition("/")[2]
    return {"place": place, "reason": bad.reason, "kind": bad.kind, "count": bad.count}
