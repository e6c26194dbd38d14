"""What a run does beside its steps: in order, before the next update, and never without a word when it goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax import mesh as meshes
from fgrpo_jax.records import Rollouts
from fgrpo_jax.rollout import generate
from fgrpo_jax.training import checkpoint
from fgrpo_jax.training.beside import Beside, Trouble


@pytest.fixture(params=[True, False], ids=["threads", "at once"])
def beside(request: pytest.FixtureRequest) -> Iterator[Beside]:
    made = Beside(threaded=request.param)
    yield made
    made.close()


def test_jobs_are_done_in_order_and_a_state_is_written_after_its_row(beside: Beside) -> None:
    did: list[Any] = []
    for step in range(3):
        row = beside.begin(lambda step=step: did.append(f"row {step}") or step)
        beside.write(lambda row=row: did.append(f"written {row.result()}"))
        beside.save(lambda step=step: step, lambda step: did.append(f"saved {step}"))
        beside.before_update()
    beside.finish()
    rows = [line for line in did if not line.startswith("saved")]
    assert rows == [line for step in range(3) for line in (f"row {step}", f"written {step}")]
    for step in range(3):
        assert did.index(f"written {step}") < did.index(f"saved {step}")


def test_an_update_waits_for_the_row_before_it_and_for_the_copy_but_not_for_the_disk() -> None:
    beside, row, copied, disk = Beside(threaded=True), threading.Event(), threading.Event(), threading.Event()
    beside.write(row.wait)
    beside.save(copied.wait, lambda _: disk.wait())

    def before_update() -> None:
        with pytest.raises(Trouble):
            beside.before_update()

    update = threading.Thread(target=before_update)
    update.start()
    for event in (row, copied):
        update.join(0.05)
        assert update.is_alive()
        event.set()
    update.join(5)
    assert not update.is_alive() and not disk.is_set()
    disk.set()
    beside.close()


def test_a_row_that_fails_stops_the_run_and_its_state_is_not_saved() -> None:
    def fails() -> None:
        raise OSError("no space left")

    beside, saved = Beside(threaded=True), []
    beside.write(fails)
    beside.save(lambda: 1, saved.append)
    for wait in (beside.settle, beside.before_update, beside.finish, beside.saved):
        with pytest.raises(OSError, match="no space left"):
            wait()
    beside.close()
    assert not saved


def test_a_save_that_fails_stops_the_run() -> None:
    def fails(_: int) -> None:
        raise OSError("no space left")

    beside = Beside(threaded=True)
    beside.save(lambda: 1, fails)
    with pytest.raises(OSError, match="no space left"):
        beside.finish()
    with pytest.raises(OSError, match="no space left"):
        beside.before_update()
    beside.close()


def test_trouble_comes_before_the_next_update(beside: Beside) -> None:
    beside.write(lambda: "the judge fails")
    assert beside.written() == "the judge fails"  # an evaluation that is due is still made
    with pytest.raises(Trouble, match="the judge fails"):
        beside.before_update()


def test_a_copy_on_the_host_stays_when_the_state_is_donated() -> None:
    mesh = meshes.make_mesh(1, 2, 1, devices=jax.devices()[:2])
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    whole = meshes.replicated(mesh)
    make = lambda: {  # noqa: E731
        "split": jax.device_put(jnp.arange(4096.0).reshape(64, 64), split),
        "half": jax.device_put(jnp.arange(64, dtype=jnp.bfloat16), whole),
        "step": jax.device_put(jnp.int32(3), whole),
    }
    state, want = make(), jax.device_get(make())
    copy = checkpoint.on_host(state)
    new = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)(state)
    jax.block_until_ready(new)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    for name, leaf in copy.items():
        assert isinstance(leaf, np.ndarray) and leaf.dtype == want[name].dtype
        np.testing.assert_array_equal(leaf, want[name])


# ------------------------------------------------------------------------------------------------- parts of a batch
class Sampler:
    """Draws what it is given."""

    def __init__(self, under_way: list[threading.Event]) -> None:
        self.under_way = under_way

    def sample(self, params: Any, prompts: Any, **key: Any) -> Rollouts:
        self.under_way.pop(0).set()
        tokens = np.full((1, 1, 2), prompts, np.int32)
        logps = np.full(tokens.shape, np.nan if prompts == 9 else -1.0, np.float32)
        return Rollouts(tokens=tokens, mask=tokens >= 0, logps=logps, finished=np.ones((1, 1), bool))


def draw(parts: list[int]) -> tuple[list[threading.Event], Iterator[generate.Generation]]:
    """(whether each part is under way, the parts); each is only decoded while the one after it is under way."""
    under_way = [threading.Event() for _ in parts]
    after = iter([*under_way[1:], None])

    def decode(ids: Any) -> str:
        following = next(after)
        assert following is None or following.wait(10), "the devices would have nothing to do"
        return str(ids[0])

    key: dict[str, Any] = {"decode": decode, "seed": 0, "purpose": "train", "step": 0}
    sampler: Any = Sampler(list(under_way))
    return under_way, generate.generations(sampler, None, parts, **key)  # type: ignore[arg-type]


def test_the_next_part_is_under_way_before_one_is_decoded() -> None:
    under_way, drawing = draw([0, 1, 2, 3])
    assert [(part.texts[0][0], part.tokens) for part in drawing] == [("0", 2), ("1", 2), ("2", 2), ("3", 2)]
    assert all(event.is_set() for event in under_way)


def test_no_more_than_two_parts_are_under_way_and_a_log_prob_that_is_no_number_ends_it() -> None:
    under_way, drawing = draw([0, 9, 2, 3, 4])
    assert next(drawing).texts == (("0",),)
    with pytest.raises(FloatingPointError, match=r"1 of 1 rollouts .* not finite"):
        next(drawing)
    assert [event.is_set() for event in under_way[:2]] == [True, True] and not under_way[4].is_set()
