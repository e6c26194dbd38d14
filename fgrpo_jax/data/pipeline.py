"""The Grain pipeline: shuffled indices become batches of prompts, prepared ahead of the step that needs them.

    indices of a step ─▶ rows of this process ─▶ source (decode) ─▶ encoder (resize, tokenise)   a thread, or workers
                                                                 ─▶ padding (collate)             a thread

The stream is a function of (source, seed, batch size, grouping) alone: batch k holds the same prompts whatever the
number of processes, workers or threads, so that the state of an iterator is the number of batches taken, and resuming
is exact.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from fgrpo_jax.data.buckets import Buckets, Shape
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate, collate_supervised, count_occurrences
from fgrpo_jax.data.sources import Source, digest, outline
from fgrpo_jax.data.steps import step_indices
from fgrpo_jax.data.styles import PromptStyle, find_style
from fgrpo_jax.reading.dialects import find_dialect
from fgrpo_jax.records import Example, PromptBatch

REMAINDERS = ("drop", "pad")
_DIED = "the system ends processes when memory runs out: lower data.workers, or set it to 0 to see the example fail"


@dataclasses.dataclass(frozen=True)
class Encoder:
    """How examples become prompts, see `Processor.encode`. Travels to the workers."""

    processor: Processor
    style: PromptStyle | str = "paper"
    system: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_prompt_tokens: int = 32768
    responses: bool = False  # whether reference responses are encoded too (supervised training)
    keep_images: bool = True  # whether examples keep their pixels after encoding; without, less travels from workers

    def __call__(self, example: Example) -> tuple[Example, EncodedPrompt, np.ndarray | None]:
        prompt = self.processor.encode(example, **self._settings, max_prompt_tokens=self.max_prompt_tokens)
        response = self._response(example, prompt) if self.responses else None
        return (example if self.keep_images else dataclasses.replace(example, images=(), videos=())), prompt, response

    def measure(self, example: Example) -> Shape:
        """What this example needs of a batch, for a fraction of the price of encoding it."""
        return self.processor.measure(example, **self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        """What `encode` and `measure` are both given. A reference response holds its beginning itself."""
        style = find_style(self.style)
        pixels = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {"style": style, "system": self.system, **pixels, "prefill": "" if self.responses else style.prefill}

    def _response(self, example: Example, prompt: EncodedPrompt) -> np.ndarray:
        if example.trace is None:
            why = "has no trace; supervised training needs one"
            raise ValueError(f"example {example.id!r} of {example.source!r} {why}")
        dialect = find_dialect(find_style(self.style).dialect)
        return self.processor.encode_response(example.trace, prompt.sizes[0] if prompt.sizes else None, dialect=dialect)


class Needs:
    """What the examples of a source need of a batch, each measured once and from its outline.

    `known` int32 [N, 4] holds the `Shape` of each example where it was measured before; a row of −1 was not.
    """

    def __init__(self, source: Source, encoder: Encoder, *, known: np.ndarray | None = None) -> None:
        self._source, self._encoder, self._known = source, encoder, known
        self._measured: dict[int, Shape] = {}

    def __call__(self, index: int) -> Shape:
        if self._known is not None and self._known[index, 0] >= 0:
            return Shape(*map(int, self._known[index]))
        if index not in self._measured:
            self._measured[index] = self._encoder.measure(outline(self._source, index))
        return self._measured[index]

    def of(self, indices: Iterable[int]) -> Shape:
        """What a batch of these examples needs."""
        return functools.reduce(Shape.join, (self(int(index)) for index in indices))


@dataclasses.dataclass(frozen=True)
class Batch:
    """M prompts of this process. `count` of them are real, the others repeat the last (`remainder='pad'`)."""

    examples: tuple[Example, ...]
    encoded: tuple[EncodedPrompt, ...]
    prompts: PromptBatch  # numpy leaves
    count: int
    indices: np.ndarray  # int64, places in the source of the step's examples, of all processes and without repeats
    tokens: np.ndarray | None = None  # int32 [M, 1, T]   reference completions, in supervised training
    mask: np.ndarray | None = None  # bool [M, 1, T]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """One step as it leaves a worker."""

    items: Sequence[tuple[Example, EncodedPrompt, np.ndarray | None]]
    occurrence: np.ndarray
    count: int
    indices: np.ndarray
    need: Shape | None = None  # of the step over all processes, where they must agree on it


@dataclasses.dataclass(frozen=True)
class _Prepare:
    """From the indices of a step to the encoded rows of one process."""

    source: Source
    encoder: Encoder
    batch_size: int
    process_index: int
    process_count: int
    need: Needs
    agree: bool  # whether batches differ in shape, and processes must find the same one

    def __call__(self, indices: np.ndarray) -> _Rows:
        full = np.concatenate([indices, np.repeat(indices[-1:], self.batch_size - len(indices))])
        rows = self.batch_size // self.process_count
        mine = slice(self.process_index * rows, (self.process_index + 1) * rows)
        return _Rows(
            items=[self.encoder(self.source[int(index)]) for index in full[mine]],
            occurrence=count_occurrences(full.tolist())[mine],
            count=int(np.clip(len(indices) - mine.start, 0, rows)),
            indices=np.asarray(indices, np.int64),
            need=self.need.of(indices) if self.agree else None,
        )


@dataclasses.dataclass(frozen=True)
class _Pad:
    """From encoded rows to arrays."""

    buckets: Buckets
    pad_id: int

    def __call__(self, rows: _Rows) -> Batch:
        examples, encoded, responses = zip(*rows.items, strict=True)
        known = {"examples": examples, "encoded": encoded, "count": rows.count, "indices": rows.indices}
        padding: dict[str, Any] = {"buckets": self.buckets, "pad_id": self.pad_id, "need": rows.need}
        if responses[0] is None:
            return Batch(prompts=collate(encoded, occurrence=rows.occurrence, **padding), **known)
        prompts, tokens, mask = collate_supervised(list(zip(encoded, responses, strict=True)), **padding)
        return Batch(prompts=prompts.replace(occurrence=rows.occurrence), tokens=tokens, mask=mask, **known)


class PromptIterator:
    """Batches of prompts with a state that can be stored and restored.

    Args:
      source: where examples come from.
      encoder: how they become prompts.
      batch_size: prompts of a step, over all processes; each process gets its contiguous share of rows.
      buckets: padded lengths. Several processes find the same shape for a step: each measures the others' rows too.
      seed: of the shuffle; None keeps the source's order. Every epoch is shuffled anew.
      group: batches in a row among which prompts are shared out by what they need, so that less is padding (`steps`);
        0 leaves batches as the shuffle makes them.
      known: what examples need, where that was measured before, see `Needs`.
      selection: names the choice of examples, where some were left out: the state of another choice is refused.
      epochs: passes over the source; None goes on for ever.
      remainder: what becomes of a last incomplete batch: 'drop' it or 'pad' it by repeating its last prompt.
      process_index, process_count: this process among those that share the batch.
      workers: worker processes; 0 prepares in a thread of this process.
      prefetch: batches prepared ahead, by each worker or the thread.

    Raises:
      ValueError: an empty source, a batch that the processes cannot share, or an unknown remainder.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        *,
        batch_size: int,
        buckets: Buckets | None = None,
        seed: int | None = None,
        group: int = 0,
        known: np.ndarray | None = None,
        selection: str = "",
        epochs: int | None = None,
        remainder: str = "drop",
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        if remainder not in REMAINDERS:
            raise ValueError(f"unknown remainder {remainder!r}; one of {', '.join(REMAINDERS)}")
        if batch_size < 1 or batch_size % process_count:
            shares = f"a batch of {batch_size} prompts cannot be shared by {process_count} processes"
            raise ValueError(f"{shares}; use a multiple")
        if not len(source):
            raise ValueError("the source holds no examples; check data.path and the split")
        self.source, self._workers, self._prefetch = source, workers, prefetch
        self._taken = 0
        self._batches: Any = None
        self._identity = {"source_length": len(source), "batch_size": batch_size, "seed": seed}
        self._identity |= {"group": group, "selection": selection, "content": digest(source)}
        self._need = Needs(source, encoder, known=known)
        self._steps: Any = step_indices(
            len(source), batch_size, seed=seed, epochs=epochs, drop=remainder == "drop", group=group, need=self._need
        )
        self._prepare = _Prepare(source, encoder, batch_size, process_index, process_count, self._need, agree=False)
        self._pad = _Pad(Buckets(), encoder.processor.pad_id)
        self.use(Buckets() if buckets is None else buckets)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches of the whole stream; astronomically many when `epochs` is None."""
        return len(self._steps)

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._start()
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if not self._workers:
                raise
            ahead = self._workers * (self._prefetch + 1)
            raise RuntimeError(
                f"{error} It was to prepare {self._names(self._taken)}, or one of the {ahead} batches after it; {_DIED}"
            ) from error
        self._taken += 1
        return batch

    def _names(self, step: int) -> str:
        """The examples of a step, for errors."""
        examples = [outline(self._prepare.source, int(index)) for index in self.indices(step)]
        return f"batch {step} of " + ", ".join(f"{example.source}/{example.id}" for example in examples)

    def get_state(self) -> dict[str, Any]:
        """The position, in JSON types."""
        return {"batches_taken": self._taken, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a stored position, whatever the number of workers or processes was.

        Raises:
          ValueError: the state is of another stream.
        """
        # Those of a state from before there were any.
        state = {"group": 0, "selection": "", "content": self._identity["content"], **state}
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise ValueError(
                    f"the stored data position has {key} {state.get(key)}, this run {value}; resume with the data and "
                    "settings it was stored with, or start a new workdir"
                )
        self.close()
        self._taken = int(state["batches_taken"])

    def try_first(self) -> Batch:
        """Prepares the first batch here and now, without taking it: what is wrong with every example shows at once."""
        return self._pad(self._prepare(self._steps[0]))

    def needs(self, batches: int) -> Iterator[Shape]:
        """What each of the first `batches` whole batches needs, over all processes; touches no state of the iterator.

        Examples that several batches hold are measured once.
        """
        for step in range(min(batches, len(self._steps))):
            yield self._need.of(self._steps[step])

    def indices(self, step: int) -> np.ndarray:
        """int64: where the examples of a step stand in the source, over all processes."""
        return np.asarray(self._steps[step], np.int64)

    def use(self, buckets: Buckets) -> None:
        """Pads to other buckets from the next batch on."""
        self.close()
        self._pad = dataclasses.replace(self._pad, buckets=buckets)
        several = self._prepare.process_count > 1
        self._prepare = dataclasses.replace(self._prepare, agree=several and not buckets.single)

    def join(self, encoded: Sequence[EncodedPrompt], *, occurrence: np.ndarray) -> PromptBatch:
        """Prompts of several batches as one, with `occurrence` uint32 [M], padded by the same buckets; numpy leaves."""
        return collate(encoded, buckets=self._pad.buckets, pad_id=self._pad.pad_id, occurrence=occurrence)

    def close(self) -> None:
        """Ends threads and workers. The iterator starts them again if asked for more."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _start(self) -> Any:
        steps = self._steps[self._taken :].map(self._prepare)
        read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=self._prefetch)
        if not self._workers:
            return iter(steps.map(self._pad).to_iter_dataset(read))
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags; as a library we may run without an absl app
        workers = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=self._prefetch)
        # A padded batch is twice its prompts and more, so padding happens on this side of the border, in a thread.
        batches = steps.to_iter_dataset(read).mp_prefetch(workers).map(self._pad)
        return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))
