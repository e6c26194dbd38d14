"""Checkpoints: everything comes back bit for bit, on any mesh; half-written ones are never used."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgrpo_jax import mesh
from fgrpo_jax.fgrpo import optimizer
from fgrpo_jax.records import TrainState
from fgrpo_jax.training import checkpoint

ROOT = Path(__file__).parent.parent
CONFIG = {"seed": 1, "optim": {"learning_rate": 1e-6}, "data": {"path": ""}}
DATA = {"next_index": 12}


def make_state(step: int = 3, *, constraints: int = 3, scale: float = 1.0) -> TrainState:
    rng = np.random.default_rng(0)
    params = {
        "visual": {"w": jnp.asarray(rng.normal(size=(8, 4)) * scale, jnp.bfloat16)},
        "text": {"embed": {"table": jnp.asarray(rng.normal(size=(16, 4)) * scale, jnp.float32)}},
    }
    trainable, _ = optimizer.partition(params, ["visual/**"])
    tx = optimizer.make(optimizer.Rule())
    grads = jax.tree.map(lambda x: x * 0.1, trainable)
    _, opt_state = tx.update(grads, tx.init(trainable), trainable)
    lam = jnp.linspace(0.1, 0.7, constraints, dtype=jnp.float32)
    return TrainState(jnp.int32(step), params, opt_state, lam, jnp.int32(1))


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"file": name}))
    (folder / "model.safetensors").write_bytes(b"weights do not travel")
    return folder


def same(a: object, b: object) -> bool:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


@pytest.mark.parametrize("constraints", [3, 0])
def test_state_and_meta_come_back_bit_for_bit(tmp_path: Path, hf: Path, constraints: int) -> None:
    state = make_state(constraints=constraints)
    saved = checkpoint.Checkpoints(tmp_path / "c")
    assert saved.latest is None
    folder = saved.save(state, config=CONFIG, data=DATA, hf=hf)
    assert folder == tmp_path / "c" / "3" and saved.latest == 3
    again, meta = checkpoint.Checkpoints(tmp_path / "c").restore(jax.tree.map(jnp.zeros_like, state))
    assert same(again, state)
    assert (meta.step, meta.config, meta.data) == (3, CONFIG, DATA)


def test_a_checkpoint_alone_holds_what_an_export_needs(tmp_path: Path, hf: Path) -> None:
    state = make_state()
    folder = checkpoint.Checkpoints(tmp_path / "c").save(state, config=CONFIG, data=DATA, hf=hf)
    moved = folder.rename(tmp_path / "alone")
    names = {p.name for p in checkpoint.hf_folder(moved).iterdir()} & {*checkpoint.HF_FILES, "model.safetensors"}
    assert names == {"config.json", "tokenizer.json", "preprocessor_config.json"}
    abstract = jax.eval_shape(lambda: state.params)
    assert same(checkpoint.load_params(moved, abstract), state.params)
    assert checkpoint.read_meta(moved).step == 3
    assert checkpoint.stored_dtype(moved) == jnp.bfloat16


def test_keep_and_saving_a_step_twice(tmp_path: Path, hf: Path) -> None:
    saved = checkpoint.Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3, 3):
        saved.save(make_state(step), config=CONFIG, data=DATA, hf=hf)
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdecimal()) == ["2", "3"]
    assert checkpoint.read_meta(tmp_path / "c" / "2").step == 2
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*1: the path does not exist"):
        checkpoint.read_meta(tmp_path / "c" / "1")


def test_restores_on_another_number_of_devices(tmp_path: Path, hf: Path) -> None:
    if len(jax.devices()) < 8:
        pytest.skip("needs XLA_FLAGS for eight CPU devices")
    wide = mesh.make_mesh(2, 2, 2)
    by_rows = jax.sharding.NamedSharding(wide, jax.sharding.PartitionSpec(("fsdp", "tensor")))
    place = lambda x: jax.device_put(x, by_rows if x.ndim == 2 else mesh.replicated(wide))  # noqa: E731
    state = make_state()
    saved = checkpoint.Checkpoints(tmp_path / "c")
    saved.save(jax.tree.map(place, state), config=CONFIG, data=DATA, hf=hf)
    one, _ = saved.restore(state)
    assert same(one, state) and one.params["text"]["embed"]["table"].sharding.device_set == {jax.devices()[0]}
    saved = checkpoint.Checkpoints(tmp_path / "d")
    saved.save(state, config=CONFIG, data=DATA, hf=hf)
    eight, _ = saved.restore(jax.tree.map(place, jax.tree.map(jnp.zeros_like, state)))
    assert same(eight, state) and eight.params["text"]["embed"]["table"].sharding == by_rows


def test_other_parameters_or_shapes_are_named(tmp_path: Path, hf: Path) -> None:
    folder = checkpoint.Checkpoints(tmp_path / "c").save(make_state(), config=CONFIG, data=DATA, hf=hf)
    params = make_state().params
    with pytest.raises(ValueError, match=r"'visual.w' .* has shape \(8, 4\), expected \(4, 4\)"):
        checkpoint.load_params(folder, {**params, "visual": {"w": jnp.zeros((4, 4))}})
    with pytest.raises(ValueError, match=r"has no array 'lm_head.table'"):
        checkpoint.load_params(folder, {**params, "lm_head": {"table": jnp.zeros(3)}})
    with pytest.raises(ValueError, match=r"has an array 'visual.w' that is not wanted"):
        checkpoint.load_params(folder, {"text": params["text"]})


def test_resolve_takes_workdir_folder_or_one_checkpoint(tmp_path: Path, hf: Path) -> None:
    saved = checkpoint.Checkpoints(tmp_path / "w" / "checkpoints")
    for step in (2, 10):
        saved.save(make_state(step), config=CONFIG, data=DATA, hf=hf)
    newest = tmp_path / "w" / "checkpoints" / "10"
    assert checkpoint.resolve(tmp_path / "w") == newest
    assert checkpoint.resolve(tmp_path / "w" / "checkpoints") == newest
    assert checkpoint.resolve(tmp_path / "w" / "checkpoints" / "2").name == "2"
    for path, error, message in (
        (tmp_path / "none", FileNotFoundError, "does not exist"),
        (tmp_path, FileNotFoundError, "no complete checkpoint"),
        (hf, ValueError, "is an HF folder"),
    ):
        with pytest.raises(error, match=message):
            checkpoint.resolve(path)


KILLED = """
    import os, signal, sys
    sys.path[:0] = [{root!r}, {tests!r}]
    import test_checkpoint as t
    from fgrpo_jax.training import checkpoint
    saved = checkpoint.Checkpoints({folder!r})
    saved.save(t.make_state(1), config=t.CONFIG, data=t.DATA, hf={hf!r})
    # The files are the last item written; die while they are, with the arrays already on disk.
    checkpoint._FilesHandler.save = lambda self, directory, args: os.kill(os.getpid(), signal.SIGKILL)
    saved.save(t.make_state(2, scale=3.0), config=t.CONFIG, data=t.DATA, hf={hf!r})
"""


def test_killed_while_saving_leaves_the_last_complete_checkpoint(tmp_path: Path, hf: Path) -> None:
    folder = tmp_path / "checkpoints"
    code = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(folder), hf=str(hf))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert any(p.name.startswith("2.") for p in folder.iterdir()), "the kill came too early to leave anything"
    assert checkpoint.resolve(tmp_path).name == "1"
    saved = checkpoint.Checkpoints(folder)
    assert saved.latest == 1
    assert same(saved.restore(make_state(1))[0], make_state(1))
    saved.save(make_state(2), config=CONFIG, data=DATA, hf=hf)
    assert checkpoint.resolve(tmp_path).name == "2"
    assert not any(p.name.startswith("2.") for p in folder.iterdir()), "leftovers are removed by the next run"
