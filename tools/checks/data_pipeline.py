"""The pipeline: every example once an epoch, the filters, what grouping saves, and what runs wait for their data."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checks import runs
from checks.record import Check, above, at_least, at_most, same
from fgrpo_jax.data.buckets import Buckets, choose
from fgrpo_jax.data.pipeline import Encoder, Needs, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.records import Example
from fgrpo_jax.world.examples import World, WorldSource

SIZE, BATCH, GROUP, EPOCHS = 37, 4, 3, 2
STOPS = (0, 1, 5, 9, 16)
EXAMPLES, FILTER_BATCH = 64, 8
WASTE_BATCHES, WASTE_SHAPES = 48, 4
UNSHRUNK: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 4_194_304}
ROUNDS = 3


def checks(context: runs.Context) -> Iterator[Check]:
    """In this process: epochs and padding; by commands: filter, training on its list, throughput."""
    encoder = Encoder(Processor.load(context.policy), style="tiny", keep_images=False)
    yield from epochs(encoder)
    yield from padding(dataclasses.replace(encoder, **UNSHRUNK))
    yield from filtered(context)
    yield from throughput()


# ------------------------------------------------------------------------------------------------------------- epochs
def epochs(encoder: Encoder) -> Iterator[Check]:
    """Two processes that stop and go on at several places, with grouping and without, by a thread and by workers."""
    for group, workers in ((0, 0), (GROUP, 0), (GROUP, 2)):
        name = f"pipeline/group {group}, {workers} workers"
        seen = {stop: stopped(encoder, stop, group=group, workers=workers) for stop in (STOPS if not workers else (5,))}
        straight = stopped(encoder, 0, group=group, workers=0)
        counts = {count for order in seen.values() for count in epoch_counts(order)}
        yield same(f"{name}: times an example was seen in an epoch, over all stops", sorted(counts), [1])
        yield same(
            f"{name}: stops after which the stream went on as if nothing had been",
            sum(o == straight for o in seen.values()),
            len(seen),
        )


def stopped(encoder: Encoder, stop: int, *, group: int, workers: int) -> list[list[str]]:
    """Ids of each step, of two processes that were stopped after `stop` steps; whole epochs and some."""
    source = WorldSource(World("easy"), "train", size=SIZE)
    steps, state, out = -(-EPOCHS * SIZE // BATCH), None, []
    for count in (stop, steps - stop):
        pair = [
            PromptIterator(
                source,
                encoder,
                batch_size=BATCH,
                seed=1,
                group=group,
                workers=workers,
                process_index=p,
                process_count=2,
            )
            for p in (0, 1)
        ]
        for iterator in pair:
            if state is not None:
                iterator.set_state(json.loads(json.dumps(state)))
        for _ in range(count):
            out.append([example.id for iterator in pair for example in next(iterator).examples])
        state = pair[0].get_state()
        for iterator in pair:
            iterator.close()
    return out


def epoch_counts(order: list[list[str]]) -> list[int]:
    """How often each example was seen in each epoch."""
    names = list(itertools.chain.from_iterable(order))
    out: list[int] = []
    for epoch in range(EPOCHS):
        part = names[epoch * SIZE : (epoch + 1) * SIZE]
        out += [part.count(name) for name in {*names}]
    return out


# ------------------------------------------------------------------------------------------------------------ padding
class Alternating:
    """Examples of several sources in turn."""

    def __init__(self, *sources: Source) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: int) -> Example:
        return self.sources[index % len(self.sources)][index // len(self.sources)]

    def outline(self, index: int) -> Example:
        return outline(self.sources[index % len(self.sources)], index // len(self.sources))


def padding(encoder: Encoder) -> Iterator[Check]:
    """Padded work of 48 batches of 16 prompts of the easy and the hard world, four shapes, by grouping."""
    source = Alternating(*(WorldSource(World(name), "train", size=1024) for name in ("easy", "hard")))
    waste = {group: padded(source, encoder, group=group) for group in (0, 16)}
    for group, (patches, tokens, _) in waste.items():
        yield at_most(f"pipeline/patches that are padding, group {group}", round(patches, 3), 1.0 if not group else 0.5)
        yield at_most(
            f"pipeline/prompt tokens that are padding, group {group}", round(tokens, 3), 1.0 if not group else 0.5
        )
    yield at_most("pipeline/padded work, grouped against not", round(waste[16][2] / waste[0][2], 3), 0.75)


def padded(source: Source, encoder: Encoder, *, group: int) -> tuple[float, float, float]:
    """(share of patches, share of prompt tokens that are padding, padded work in prompt tokens)."""
    batches = PromptIterator(source, encoder, batch_size=16, seed=0, group=group)
    needs = list(batches.needs(WASTE_BATCHES))
    buckets = Buckets(shapes=choose(needs, count=WASTE_SHAPES))
    one = Needs(source, encoder)
    used, room, work = np.zeros(2), np.zeros(2), 0.0
    for step, need in enumerate(needs):
        shape = buckets.fit(need)
        rows = [one(int(index)) for index in batches.indices(step)]
        used += [sum(row.patches for row in rows), sum(row.prompt for row in rows)]
        room += [len(rows) * shape.patches, len(rows) * shape.prompt]
        work += len(rows) * shape.work
    patches, tokens = (1 - used / room).tolist()
    return patches, tokens, work


# ------------------------------------------------------------------------------------------------------------- filter
def filtered(context: runs.Context) -> Iterator[Check]:
    """The filter in one go, and killed in the middle; then a training run on its list."""
    cache, whole, killed = context.scratch / "compiled", context.scratch / "whole", context.scratch / "killed"
    settings = {
        "model.hf": context.policy,
        "data.difficulty.examples": EXAMPLES,
        "data.difficulty.batch_prompts": FILTER_BATCH,
    }
    given = [f"--config={runs.CONFIGS / 'tiny.py'}", *runs.overrides(settings)]
    runs.door("filter", *given, f"--workdir={whole}", cache=cache).require()
    begun = killed / "filter" / "accuracies.jsonl"
    runs.kill_door("filter", *given, f"--workdir={killed}", when=lambda: _lines(begun) >= 2 * FILTER_BATCH, cache=cache)
    left = _lines(begun)
    runs.door("filter", *given, f"--workdir={killed}", cache=cache).require()
    yield at_least("pipeline/filter: prompts answered when it was killed", left, 2 * FILTER_BATCH)
    yield at_most("pipeline/filter: of so many", left, EXAMPLES - FILTER_BATCH)
    files = ("accuracies.jsonl", "kept.jsonl", "summary.json")
    alike = [(whole / "filter" / name).read_bytes() == (killed / "filter" / name).read_bytes() for name in files]
    yield same(
        "pipeline/filter: killed and gone on, the files are those of a run in one go", alike, [True] * len(files)
    )
    found = json.loads((whole / "filter" / "summary.json").read_text(encoding="utf8"))["all"]
    yield above("pipeline/filter: prompts kept", found["kept"], found["mixed"] - 1)
    yield same("pipeline/filter: prompts tried", found["tried"], EXAMPLES)
    yield from trained(context, whole, cache)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def trained(context: runs.Context, filtered: Path, cache: Path) -> Iterator[Check]:
    """Two steps on the list: no other example is seen."""
    work = context.scratch / "trained"
    more: dict[str, Any] = {"num_steps": 2, "data.filter": filtered}
    runs.door("train", *runs.tiny(context.policy, work), *runs.overrides(more), cache=cache).require()
    kept = {json.loads(line)["id"] for line in (filtered / "filter" / "kept.jsonl").read_text().splitlines()}
    rows = [line for file in sorted((work / "rollouts").glob("*.jsonl")) for line in file.read_text().splitlines()]
    seen = [json.loads(line)["id"] for line in rows]
    yield same("pipeline/filter: prompts of a run on its list that are not on it", len(set(seen) - kept), 0)
    yield same("pipeline/filter: prompts of that run that came twice", len(seen) - len(set(seen)), 0)


# --------------------------------------------------------------------------------------------------------- throughput
def throughput() -> Iterator[Check]:
    """Images a second against the plain processor, and what training and evaluation wait for their data."""
    done = runs.python(runs.ROOT / "tools/bench_data.py", f"--rounds={ROUNDS}", "--waiting").require()
    found = json.loads(done.out.splitlines()[-1])
    for row in found["images"]:
        rates = {name: round(row[name], 1) for name in ("ours", "theirs")}
        yield at_least(f"pipeline/images of {row['size']} a second, {rates}: ratio", round(row["ratio"], 2), 1.0)
    for name, share in found["waiting"].items():
        yield at_most(f"pipeline/share of the time that {name} waits for data", round(share, 4), 0.2)
