"""The pipeline: the stream is a function of seed and position, whatever prepares it; its state resumes exactly."""

import dataclasses
import json
import os
import time

import jax
import numpy as np
import pytest
from tests.folders import write_folder

from fgrpo_jax import command
from fgrpo_jax.data.buckets import Buckets, choose, padding
from fgrpo_jax.data.pipeline import Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sets.readers.layout import Entry
from fgrpo_jax.data.sets.readers.records import BadRow
from fgrpo_jax.records import Example


@dataclasses.dataclass(frozen=True)
class Counting:
    """A source whose example i shows its index."""

    size: int
    bad: int = -1

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        image = np.full((28, 28 + 28 * (index % 3), 3), index, np.uint8)
        trace = None if index == self.bad else f"<think>{index}</think><answer>A</answer>"
        return Example(str(index), (image,), f"Which is {index}?", ("left", "right"), "A", source="count", trace=trace)


class Sized(Counting):
    """Images of 28 to 224 pixels a side, most of them small."""

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        height, width = (28 * int(n) for n in np.minimum(rng.geometric(0.35, 2), 8))
        return dataclasses.replace(super().__getitem__(index), images=(np.zeros((height, width, 3), np.uint8),))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(Processor.load(write_folder(tmp_path_factory.mktemp("folder"))), style="tiny")


def ids(batch):
    return [int(example.id) for example in batch.examples]


def take(iterator, count):
    try:
        return [ids(next(iterator)) for _ in range(count)]
    finally:
        iterator.close()


def same(a, b):
    assert ids(a) == ids(b) and a.count == b.count
    jax.tree.map(np.testing.assert_array_equal, a.prompts, b.prompts)


def test_every_epoch_is_another_permutation(encoder):
    order = np.concatenate(take(PromptIterator(Counting(12), encoder, batch_size=4, seed=1), 6))
    epochs = order.reshape(2, 12)
    assert (np.sort(epochs, axis=1) == np.arange(12)).all()
    assert (epochs[0] != epochs[1]).any() and (epochs[0] != np.arange(12)).any()
    again = np.concatenate(take(PromptIterator(Counting(12), encoder, batch_size=4, seed=1), 6))
    other = np.concatenate(take(PromptIterator(Counting(12), encoder, batch_size=4, seed=2), 6))
    np.testing.assert_array_equal(order, again)
    assert (order != other).any()


def test_a_batch_is_what_collate_makes(encoder):
    iterator = PromptIterator(Counting(9), encoder, batch_size=3)
    batch = next(iterator)
    iterator.close()
    assert ids(batch) == [0, 1, 2] and batch.count == 3 and batch.tokens is None
    assert batch.prompts.mask.sum(1).tolist() == [len(prompt.tokens) for prompt in batch.encoded]
    assert batch.prompts.prompt_id.tolist() == [prompt.prompt_id for prompt in batch.encoded]
    assert batch.encoded[2].sizes[0].processed_width == 84 and len(batch.examples[2].images) == 1


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resuming_is_exact(encoder, stop):
    straight = PromptIterator(Counting(7), encoder, batch_size=3, seed=5)
    want = [next(straight) for _ in range(7)]
    straight.close()
    first = PromptIterator(Counting(7), encoder, batch_size=3, seed=5)
    for _ in range(stop):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    second = PromptIterator(Counting(7), encoder, batch_size=3, seed=5)
    next(second)  # a used iterator may be set back, too
    second.set_state(state)
    for batch in want[stop:]:
        same(next(second), batch)
    second.close()


def test_state_of_another_stream_is_refused(encoder):
    state = PromptIterator(Counting(7), encoder, batch_size=3, seed=5).get_state()
    with pytest.raises(ValueError, match="has seed 5, this run 6"):
        PromptIterator(Counting(7), encoder, batch_size=3, seed=6).set_state(state)
    with pytest.raises(ValueError, match="has source_length 7, this run 8"):
        PromptIterator(Counting(8), encoder, batch_size=3, seed=5).set_state(state)


def test_state_of_other_data_of_the_same_length_is_refused(encoder):
    @dataclasses.dataclass(frozen=True)
    class Listed(Counting):
        answers: str = ""

        @property
        def entries(self):
            return [Entry(str(number), answer, 2) for number, answer in enumerate(self.answers)]

    make = lambda answers: PromptIterator(Listed(2, answers=answers), encoder, batch_size=1)  # noqa: E731
    state = make("AB").get_state()
    make("AB").set_state(state)
    with pytest.raises(ValueError, match=r"has content .*; resume with the data"):
        make("AA").set_state(state)
    del state["content"]  # as states were before
    make("AA").set_state(state)


def test_processes_share_the_batch_of_one(encoder):
    whole = take(PromptIterator(Counting(5), encoder, batch_size=4, seed=3), 4)
    halves = [
        take(PromptIterator(Counting(5), encoder, batch_size=4, seed=3, process_index=p, process_count=2), 4)
        for p in (0, 1)
    ]
    assert whole == [a + b for a, b in zip(*halves, strict=True)]


def test_occurrences_count_over_all_processes(encoder):
    """Three prompts in a step of six: each stands there twice, wherever its second copy is prepared."""
    settings = {"batch_size": 6, "seed": 0}
    whole = next(PromptIterator(Counting(3), encoder, **settings))
    parts = [next(PromptIterator(Counting(3), encoder, **settings, process_index=p, process_count=2)) for p in (0, 1)]
    assert sorted(whole.prompts.occurrence.tolist()) == [0, 0, 0, 1, 1, 1]
    got = np.concatenate([part.prompts.occurrence for part in parts])
    np.testing.assert_array_equal(got, whole.prompts.occurrence)


def test_one_pass_dropped_or_padded(encoder):
    dropped = list(PromptIterator(Counting(7), encoder, batch_size=3, epochs=1))
    padded = list(PromptIterator(Counting(7), encoder, batch_size=3, epochs=1, remainder="pad"))
    assert [ids(batch) for batch in dropped] == [[0, 1, 2], [3, 4, 5]]
    assert [(ids(batch), batch.count) for batch in padded] == [([0, 1, 2], 3), ([3, 4, 5], 3), ([6, 6, 6], 1)]
    assert len(PromptIterator(Counting(7), encoder, batch_size=3, epochs=1, remainder="pad")) == 3
    settings = {"batch_size": 4, "epochs": 1, "remainder": "pad", "process_count": 2}
    counts = [[b.count for b in PromptIterator(Counting(5), encoder, process_index=p, **settings)] for p in (0, 1)]
    assert counts == [[2, 1], [2, 0]]


def test_supervised_batches(encoder):
    iterator = PromptIterator(Counting(4), dataclasses.replace(encoder, responses=True), batch_size=2)
    batch = next(iterator)
    iterator.close()
    rows = zip(batch.tokens[:, 0], batch.mask[:, 0], strict=True)
    assert [encoder.processor.decode(tokens[mask]) for tokens, mask in rows] == [
        example.trace for example in batch.examples
    ]


def test_errors_reach_the_caller(encoder):
    settings = dataclasses.replace(encoder, responses=True)
    iterator = PromptIterator(Counting(6, bad=3), settings, batch_size=2)
    next(iterator)
    with pytest.raises(ValueError, match="example '3' of 'count' has no trace"):
        next(iterator)
    iterator.close()


class Faulty(Counting):
    """Example `bad` cannot be read; with id `-bad` its process dies."""

    def __getitem__(self, index):
        if index == self.bad:
            raise BadRow("train.jsonl, line 4", "image x.png does not decode; replace it", kind="broken image")
        if index == -self.bad:
            time.sleep(1.0)  # a queue whose writer dies within a write is waited on for ever
            os._exit(9)
        return super().__getitem__(index)

    def outline(self, index):
        return Counting.__getitem__(self, index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_row_is_named_whoever_read_it(encoder, workers):
    iterator = PromptIterator(Faulty(6, bad=3), encoder, batch_size=2, workers=workers)
    assert ids(next(iterator)) == [0, 1]
    with pytest.raises(BadRow) as caught:
        next(iterator)
    iterator.close()
    assert str(caught.value) == "train.jsonl, line 4: image x.png does not decode; replace it"
    assert caught.value.kind == "broken image"


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_package_refuses_reads_as_a_persons_mistake(encoder, workers):
    settings = dataclasses.replace(encoder, max_prompt_tokens=8, keep_images=False)
    iterator = PromptIterator(Counting(6), settings, batch_size=2, workers=workers)
    with pytest.raises(ValueError, match="exceeds max_prompt_tokens 8") as caught:
        next(iterator)
    iterator.close()
    assert command._is_users(caught.value), "a traceback would be shown"


def test_a_worker_that_dies_is_reported_with_what_it_was_to_read(encoder):
    iterator = PromptIterator(Faulty(6, bad=-3), encoder, batch_size=2, workers=1)
    with pytest.raises(RuntimeError, match=r"exit code 9.* prepare batch \d of count/\d, count/\d, or one of .*memory"):
        for _ in range(2):  # what it had ready may die with it
            next(iterator)
    iterator.close()


def test_images_can_be_left_behind(encoder):
    batch = next(PromptIterator(Counting(4), dataclasses.replace(encoder, keep_images=False), batch_size=2))
    assert all(example.images == () for example in batch.examples) and batch.prompts.vision.valid.any()


def test_impossible_settings(encoder):
    with pytest.raises(ValueError, match="batch of 3 prompts cannot be shared by 2 processes"):
        PromptIterator(Counting(4), encoder, batch_size=3, process_count=2)
    with pytest.raises(ValueError, match="no examples"):
        PromptIterator(Counting(0), encoder, batch_size=1)
    with pytest.raises(ValueError, match="unknown remainder 'keep'"):
        PromptIterator(Counting(4), encoder, batch_size=1, remainder="keep")


def test_shapes_stay_in_their_buckets(encoder):
    """Mixed image sizes: the shapes that a compiled step meets are bounded by the buckets, not by the images."""
    buckets = Buckets(prompt=(96,), patches=(64,), images=(1,), window_slack=(2.0,))
    iterator = PromptIterator(Counting(30), encoder, batch_size=2, buckets=buckets, seed=0)
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(next(iterator).prompts)) for _ in range(10)}
    iterator.close()
    assert len(shapes) == 1


def test_workers_give_the_same_stream(encoder):
    straight = PromptIterator(Counting(9), encoder, batch_size=3, seed=4)
    want = [next(straight) for _ in range(4)]
    straight.close()
    workers = PromptIterator(Counting(9), encoder, batch_size=3, seed=4, workers=1, prefetch=1)
    workers.set_state(straight.get_state() | {"batches_taken": 1})
    for batch in want[1:]:
        same(next(workers), batch)
    workers.close()


def test_needs_are_those_of_the_batches_that_come(encoder):
    """Measured without cutting an image, and equal to what the encoded batches turn out to need."""
    iterator = PromptIterator(Counting(30), encoder, batch_size=3, seed=2)
    needs = list(iterator.needs(5))
    assert iterator.get_state()["batches_taken"] == 0
    for need in needs:
        encoded = next(iterator).encoded
        found = encoded[0].need
        for prompt in encoded[1:]:
            found = found.join(prompt.need)
        assert need == found
    iterator.close()


def test_no_more_shapes_than_were_chosen(encoder):
    """Two hundred prompts of mixed image sizes: as many programs as buckets at most, padding less than one shape."""
    iterator = PromptIterator(Sized(200), encoder, batch_size=4, seed=0)
    waste = {}
    for count in (1, 3):
        shapes = choose(iterator.needs(50), count=count)
        iterator.use(Buckets(shapes=shapes))
        iterator.set_state(iterator.get_state() | {"batches_taken": 0})
        batches = [next(iterator) for _ in range(50)]
        met = {tuple(leaf.shape for leaf in jax.tree.leaves(batch.prompts)) for batch in batches}
        assert len(met) == len(shapes) <= count
        waste[count] = np.mean([padding(batch.prompts)["patches"] for batch in batches])
    assert waste[3] < waste[1]
    iterator.close()


def test_grouping_pads_less(encoder):
    """The same prompts and number of shapes: where images of one size stand together, fewer patches are computed."""
    computed = {}
    for group in (0, 10):
        iterator = PromptIterator(Sized(200), encoder, batch_size=4, seed=0, group=group)
        iterator.use(Buckets(shapes=choose(iterator.needs(50), count=3)))
        computed[group] = sum(next(iterator).prompts.vision.valid.size for _ in range(50))
        iterator.close()
    assert computed[10] < 0.9 * computed[0]


@pytest.mark.parametrize("group", [0, 5])
def test_processes_find_the_same_shapes(encoder, group):
    """Each pads its rows as the whole step needs it, though it sees no more of the others than their sizes."""
    settings = {"batch_size": 4, "seed": 1, "group": group}
    parts = [PromptIterator(Sized(60), encoder, **settings, process_index=p, process_count=2) for p in (0, 1)]
    whole = PromptIterator(Sized(60), encoder, **settings)
    for _ in range(10):
        shapes = [[leaf.shape[1:] for leaf in jax.tree.leaves(next(it).prompts)] for it in (*parts, whole)]
        assert shapes[0] == shapes[1] == shapes[2]
    needs = [[max(e.need.patches for e in next(it).encoded) for it in parts] for _ in range(5)]
    assert any(a != b for a, b in needs), "the parts never differed: this shows nothing"
    for iterator in (*parts, whole):
        iterator.close()
