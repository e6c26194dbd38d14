"""Which examples a step holds: every one once an epoch, grouped or not, from wherever a run goes on."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.folders import write_folder

from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.data.pipeline import Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.steps import step_indices
from fgrpo_jax.records import Example

quick = settings(max_examples=30, deadline=None)


def need(index):
    """Few kinds of needs, without any order in the index."""
    return Shape(32 + index * 7919 % 5 * 32, 64, 1, 1)


def stream(length, batch, *, group, seed=3, epochs=None, drop=True):
    return step_indices(length, batch, seed=seed, epochs=epochs, drop=drop, group=group, need=need)


sizes = {"length": st.integers(1, 60), "batch": st.integers(1, 12), "group": st.integers(0, 7)}


@given(**sizes, seed=st.none() | st.integers(0, 9))
@quick
def test_every_example_once_an_epoch(length, batch, group, seed):
    steps = stream(length, batch, group=group, seed=seed)
    seen = np.concatenate([steps[k] for k in range(-(-3 * length // batch))])[: 3 * length].reshape(3, length)
    assert (np.sort(seen, axis=1) == np.arange(length)).all()


@given(**sizes)
@quick
def test_one_pass_that_keeps_its_rest_is_whole(length, batch, group):
    steps = stream(length, batch, group=group, epochs=1, drop=False)
    seen = [steps[k].tolist() for k in range(len(steps))]
    assert sorted(index for step in seen for index in step) == list(range(length))
    assert all(len(step) == batch for step in seen[:-1])


@given(**sizes, start=st.integers(0, 12))
@quick
def test_any_step_can_come_first(length, batch, group, start):
    straight, jumped = stream(length, batch, group=group), stream(length, batch, group=group)
    want = [straight[k] for k in range(start + 3)][start:]
    np.testing.assert_array_equal([jumped[start + k] for k in range(3)], want)


def test_groups_hold_what_is_alike():
    """Five kinds, evenly mixed: of 40 batches that share their prompts, few hold more than one kind."""
    kinds = lambda group: [len({need(i) for i in stream(1000, 8, group=group)[k]}) for k in range(40)]  # noqa: E731
    assert np.mean(kinds(0)) > 3.5 and sum(kind > 1 for kind in kinds(40)) <= 4


def test_neither_steps_nor_rows_come_in_the_order_of_their_size():
    steps = stream(1000, 8, group=40)
    means = [np.mean([need(i).prompt for i in steps[k]]) for k in range(40)]
    assert abs(np.corrcoef(means, np.arange(40))[0, 1]) < 0.5
    wide = stream(1000, 500, group=2)
    rows = [need(i).prompt for i in wide[0]]
    assert abs(np.corrcoef(rows, np.arange(500))[0, 1]) < 0.2


# ------------------------------------------------------------------------------------------- the same, as batches come
@dataclasses.dataclass(frozen=True)
class Mixed:
    """Example i shows i; images of one to three cells."""

    size: int

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        image = np.full((28, 28 + 28 * (index * 7 % 3), 3), index, np.uint8)
        return Example(str(index), (image,), f"Which is {index}?", ("left", "right"), "A", source="mixed")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(Processor.load(write_folder(tmp_path_factory.mktemp("folder"))), style="tiny")


def ids(batch):
    return [int(example.id) for example in batch.examples]


def of_process(encoder, process, *, group, workers=0, size=11, batch=4):
    return PromptIterator(
        Mixed(size),
        encoder,
        batch_size=batch,
        seed=5,
        group=group,
        workers=workers,
        process_index=process,
        process_count=2,
    )


def interrupted(encoder, stops, *, group, workers=(0, 0, 0), total=11):
    """What two processes see that stop after each of `stops` batches, and go on from what was stored.

    `workers` are those of each stretch.
    """
    seen, state, done = [], None, 0
    for stop, count in zip([*stops, total - sum(stops)], workers, strict=False):
        pair = [of_process(encoder, process, group=group, workers=count) for process in (0, 1)]
        for iterator in pair:
            if state is not None:
                iterator.set_state(state)
        for _ in range(stop):
            seen.append([ids(next(iterator)) for iterator in pair])
        done += stop
        states = [json.dumps(iterator.get_state()) for iterator in pair]
        assert states[0] == states[1] and pair[0].get_state()["batches_taken"] == done
        state = json.loads(states[0])
        for iterator in pair:
            iterator.close()
    return seen


def once_an_epoch(seen, *, size=11):
    order = np.concatenate([row for step in seen for row in step])
    whole = order[: len(order) // size * size].reshape(-1, size)
    assert len(whole) == 4 and (np.sort(whole, axis=1) == np.arange(size)).all()


@pytest.mark.parametrize("group", [0, 2])
@given(stops=st.lists(st.integers(0, 5), max_size=2))
@settings(max_examples=5, deadline=None)
def test_two_processes_stopped_anywhere_see_every_example_once(encoder, group, stops):
    seen = interrupted(encoder, stops, group=group)
    once_an_epoch(seen)
    assert seen == interrupted(encoder, [], group=group)


@pytest.mark.slow
def test_worker_processes_go_on_where_a_thread_stopped(encoder):
    seen = interrupted(encoder, [8], group=2, workers=(0, 2))
    assert seen == interrupted(encoder, [], group=2)
    once_an_epoch(seen)


def test_a_state_without_groups_is_one_of_group_0(encoder):
    state = of_process(encoder, 0, group=0).get_state()
    old = {name: value for name, value in state.items() if name != "group"} | {"batches_taken": 3}
    iterator = of_process(encoder, 0, group=0)
    iterator.set_state(old)
    assert iterator.get_state()["batches_taken"] == 3
    with pytest.raises(ValueError, match="has group 0, this run 2"):
        of_process(encoder, 0, group=2).set_state(old)
