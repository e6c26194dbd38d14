"""Weights that stream: a process touches its part only, a full disk leaves nothing, what is off is named."""

import concurrent.futures
import contextlib
import errno
import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_weights import CONFIG, MODEL, assert_same, random_params

from fgrpo_jax import mesh as meshes
from fgrpo_jax.training import checkpoint, conversion
from fgrpo_jax.weights import exporter, hub_folder, importer, mapping, page_cache, shards, streams
from fgrpo_jax.weights.leaves import leaves
from fgrpo_jax.weights.shards import Shards

NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "hf"
    exporter.save_hf(folder, random_params(), MODEL, shard_bytes=2e4)
    return folder


@pytest.fixture(scope="module")
def converted(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "c"
    conversion.convert(saved, out)
    return out


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "hf"))


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / shards.INDEX).read_text())["weight_map"][name]


# --------------------------------------------------------------------------------------------------- a process's part
@pytest.mark.parametrize("sizes", [(1, 4, 2), (2, 2, 2), (8, 1, 1)], ids=str)
def test_a_mesh_gets_the_same_numbers(saved: Path, sizes: tuple[int, int, int]):
    shardings = meshes.shardings(MODEL.specs, meshes.make_mesh(*sizes))
    loaded = importer.load_hf(saved, MODEL, dtype=jnp.float32, shardings=shardings)
    assert_same(loaded, random_params())
    assert all(a.sharding == s for a, s in zip(jax.tree.leaves(loaded), jax.tree.leaves(shardings), strict=True))


def test_a_process_reads_the_slices_of_its_own_devices_and_nothing_else(saved: Path):
    """Two processes of four devices each, on a mesh where the first half of the devices holds one half of fsdp."""
    shardings = meshes.shardings(MODEL.specs, meshes.make_mesh(1, 4, 2))
    expected = dict(zip((leaf.path for leaf in leaves(MODEL)), jax.tree.leaves(random_params()), strict=True))
    devices = jax.devices()
    read = []
    for own in (devices[:4], devices[4:]):
        source = importer.Source(saved, MODEL)
        with ThreadPoolExecutor(2) as pool:
            for leaf, sharding in zip(source.leaves, jax.tree.leaves(shardings), strict=True):
                where = sharding.devices_indices_map(leaf.spec.shape)
                mine = {device: where[device] for device in own}
                parts = importer.read_parts(source, leaf, np.dtype("float32"), mine, pool)
                for device, part in parts.items():
                    assert part.tobytes() == expected[leaf.path][where[device]].tobytes(), leaf.path
        read.append(source.bytes_read)
    whole = sum(x.nbytes for x in expected.values())
    split = sum(
        expected[leaf.path].nbytes
        for leaf, sharding in zip(leaves(MODEL), jax.tree.leaves(shardings), strict=True)
        if "fsdp" in sharding.spec
    )
    # What fsdp splits is read half by each, what it does not split whole by both.
    assert split > 0.5 * whole
    assert read[0] == read[1] == whole - split // 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_write_one_folder_together(converted: Path, saved: Path, tmp_path: Path, count: int):
    out = tmp_path / "together"
    for number in range(count):
        assert not out.exists()
        conversion.export(converted, out, shard_bytes=2e4, process=(number, count))
        if number < count - 1:
            own = {path.name for path in (tmp_path / ".together.partial").glob("*.safetensors")}
            assert len(own) == sum(len(sorted(saved.glob("*.safetensors"))[k::count]) for k in range(number + 1))
    for file in saved.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    assert {path.name for path in out.iterdir()} == {path.name for path in saved.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["together"]


def test_a_process_that_fails_takes_the_folder_with_it(tmp_path: Path):
    def fail() -> None:
        with hub_folder.appearing(tmp_path / "out", (1, 2)):
            raise RuntimeError("killed")

    def meanwhile() -> None:
        with hub_folder.appearing(tmp_path / "out", (0, 2)), pytest.raises(RuntimeError):
            fail()

    with pytest.raises(OSError, match="another process of the 2"):
        meanwhile()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- a checkpoint
def test_a_converted_checkpoint_is_an_ordinary_one(converted: Path):
    shardings = meshes.shardings(MODEL.specs, meshes.make_mesh(1, 4, 2))
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), MODEL.abstract(jnp.float32), shardings
    )
    assert_same(checkpoint.load_params(converted, abstract), random_params())
    assert checkpoint.stored_dtype(converted) == jnp.float32


def test_convert_reads_a_layer_at_a_time(saved: Path, tmp_path: Path, monkeypatch):
    held: list[int] = []
    several: list[str] = []
    read_rows = importer.Source.read_rows

    def watched(self, leaf, start, out):
        held.append(out.nbytes)
        if leaf.stacked and len(out) > 1:
            several.append(leaf.path)
        read_rows(self, leaf, start, out)

    monkeypatch.setattr(importer.Source, "read_rows", watched)
    conversion.convert(saved, tmp_path / "c")
    assert not several and max(held) == max(4 * int(np.prod(leaf.piece)) for leaf in leaves(MODEL))
    assert sum(held) == sum(x.nbytes for x in jax.tree.leaves(random_params()))


def test_rows_in_memory_are_bounded(saved: Path, tmp_path: Path, monkeypatch):
    """Rows that are read and not yet written take no more than they are allowed, and all of them arrive."""
    most = max(4 * int(np.prod(leaf.piece)) for leaf in leaves(MODEL))
    monkeypatch.setattr(streams, "_IN_FLIGHT", 2 * most)
    held, peak, of = [0], [0], streams._Room.of

    @contextlib.contextmanager
    def watched(self, nbytes):
        with of(self, nbytes):
            with self._changed:
                held[0] += nbytes
                peak[0] = max(peak[0], held[0])
            yield
            with self._changed:
                held[0] -= nbytes

    monkeypatch.setattr(streams._Room, "of", watched)
    conversion.convert(saved, tmp_path / "c")
    assert most <= peak[0] <= 2 * most
    assert_same(checkpoint.load_params(tmp_path / "c", MODEL.abstract(jnp.float32)), random_params())


def test_what_is_larger_than_the_room_goes_alone():
    room = streams._Room(10)
    with room.of(25), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(room.of(1).__enter__)
        assert not concurrent.futures.wait([waiting], timeout=0.05).done
        room._free += 10  # as when the large one leaves
        with room._changed:
            room._changed.notify_all()
        waiting.result(timeout=10)


def test_an_export_is_on_the_disk_before_it_has_its_name(converted: Path, tmp_path: Path, monkeypatch):
    """Every shard is sent on while it is written, and a last time when it is whole."""
    sizes: dict[str, list[int]] = {}
    monkeypatch.setattr(page_cache, "_EVERY", 4000)
    fsync = os.fsync

    def watched(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.suffix == ".safetensors":
            assert not (tmp_path / "hf").exists()
            sizes.setdefault(path.name, []).append(os.fstat(handle).st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    conversion.export(converted, tmp_path / "hf", shard_bytes=2e4)
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 1 and {file.name: sizes[file.name][-1] for file in files} == {
        file.name: file.stat().st_size for file in files
    }
    assert max(map(len, sizes.values())) > 1


def test_a_checkpoint_does_not_stay_in_the_page_cache(saved: Path, tmp_path: Path, monkeypatch):
    """The files are let go of while they are written and in the end; nothing else is."""
    let_go: list[Path] = []
    monkeypatch.setattr(page_cache, "_EVERY", 4000)
    monkeypatch.setattr(
        page_cache, "_let_go", lambda handle: let_go.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
    )
    conversion.convert(saved, tmp_path / "c")
    data = [path.name for path in let_go if path.parent.name == "d"]
    stored = {path.name for path in (tmp_path / "c").glob("0/params/ocdbt.process_0/d/*")}
    assert stored and stored <= set(data) and len(data) > 2 * len(stored)
    assert all("params" in str(path) for path in let_go)


@pytest.mark.slow
def test_arrays_of_a_training_run_are_read_in_parts(tmp_path: Path):
    """A checkpoint in whole, compressed chunks, saved from a mesh: what `train` leaves."""
    shardings = meshes.shardings(MODEL.specs, meshes.make_mesh(2, 2, 2))
    params = jax.device_put(random_params(), shardings)
    checkpoints = checkpoint.Checkpoints(tmp_path / "run")
    step = checkpoints.save(conversion.Policy(jnp.int32(0), params), config={}, data={}, hf=tmp_path)
    checkpoints.close()
    stored = streams.Stored(step / "params", [leaf.path for leaf in leaves(MODEL)])
    exporter.write_hf(tmp_path / "out", stored, MODEL, dtype=np.float32)
    assert_same(importer.load_hf(tmp_path / "out", MODEL, dtype=jnp.float32), random_params())


# ---------------------------------------------------------------------------------------------------------- what is off
def test_a_truncated_shard_names_the_tensors_it_cuts(folder: Path):
    file = shard_of(folder, NORM)
    tensors = Shards(folder).tensors
    last = max((t for t in tensors.values() if t.file == file), key=lambda t: t.start)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=rf"{file.name} is not a whole .*'{last.name}' ends at .*\(1 of \d+ tensors"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)


def test_a_shard_that_the_index_names_and_nobody_has(folder: Path):
    file = shard_of(folder, NORM)
    first = min(t.name for t in Shards(folder).tensors.values() if t.file == file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file.name} is named in .*first '{first}'"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)


def test_a_tensor_in_two_shards(folder: Path):
    home = shard_of(folder, NORM)
    other = next(path for path in sorted(folder.glob("*.safetensors")) if path != home)
    save_file(load_file(other) | {NORM: load_file(home)[NORM]}, other)
    with pytest.raises(ValueError, match=rf"duplicate tensor: '{NORM}' is in .*{other.name} and in {home.name}"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)


def edit_header(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_headers_that_do_not_add_up(folder: Path, tmp_path: Path):
    file = shard_of(folder, NORM)
    entry = f'"{NORM}":{{"dtype":"F32"'.encode()
    edit_header(file, entry, entry.replace(b"F32", b"F23"))
    with pytest.raises(ValueError, match=rf"'{NORM}' in {file.name} has dtype F23; readable are"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)
    with pytest.raises(ValueError, match=rf"'{NORM}' in {file.name} has dtype F23"):
        conversion.convert(folder, tmp_path / "c")
    edit_header(file, entry.replace(b"F32", b"F23"), entry.replace(b"F32", b"F64"))
    with pytest.raises(ValueError, match=rf"'{NORM}' in .*{file.name} has 128 bytes, its dtype F64 .* need 256"):
        importer.load_hf(folder, MODEL, dtype=jnp.float32)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64], ids=lambda d: np.dtype(d).name
)
def test_values_that_are_not_finite_are_counted(tmp_path: Path, dtype):
    params = random_params(dtype=dtype if dtype is not np.float64 else np.float32)
    exporter.save_hf(tmp_path / "hf", params, MODEL)
    file = tmp_path / "hf" / shards.SINGLE
    tensors = {name: value.astype(dtype) for name, value in load_file(file).items()}
    kernel = "model.layers.0.mlp.up_proj.weight"
    # Each kind alone in a tensor too: the sign decides which of the two looks at the bits finds it.
    spoiled = {NORM: {3: -np.inf}, kernel: {0: np.nan, 700: -np.nan, 1535: np.inf}, "lm_head.weight": {5: -np.nan}}
    for name, values in spoiled.items():
        for place, value in values.items():
            tensors[name].reshape(-1)[place] = value
    save_file(tensors, file)
    with pytest.warns(UserWarning, match=r"3 tensors of .*hf hold 5 values .* first 'lm_head.weight' in model.safet"):
        importer.load_hf(tmp_path / "hf", MODEL, dtype=jnp.float32)
    with pytest.warns(UserWarning, match="3 tensors of .* hold 5 values"):
        conversion.convert(tmp_path / "hf", tmp_path / "c", dtype="float32")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("qwen2", "a text-only Qwen2.5 checkpoint"),
        ("qwen2_vl", "a Qwen2-VL checkpoint"),
        ("qwen3_vl", "a Qwen3-VL checkpoint"),
        ("llama", "another kind of model"),
    ],
)
def test_another_model_is_told_what_it_is(tmp_path: Path, kind: str, words: str):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ValueError, match=rf"is {words} \(model_type '{kind}'\); only Qwen2.5-VL"):
        conversion.convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------- a full disk
def test_too_little_room_is_noticed_before_anything_is_written(converted: Path, saved: Path, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_folder.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10**5))
    for run in (lambda out: conversion.convert(saved, out), lambda out: conversion.export(converted, out)):
        with pytest.raises(OSError, match=r"out needs 0.00 GB, the disk has 0.00 GB left"):
            run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_names_the_tensor_and_keeps_nothing(converted, saved, tmp_path, monkeypatch):
    """The limit on the size of a file stands for the disk: the kernel refuses the bytes beyond it."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"tensor '.*' could not be written into model.safetensors: File too large"):
            conversion.export(converted, tmp_path / "out")
        with pytest.raises(
            OSError, match=r"c could not be written, nothing of it is kept: tensor '(.*)' could"
        ) as caught:
            conversion.convert(saved, tmp_path / "c")
        assert str(caught.value).split("'")[1] in Shards(saved).tensors
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_end_names_the_file_and_keeps_nothing(converted, tmp_path, monkeypatch):
    """Some file systems find room for what was written only when it is to be on the disk."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"model.safetensors could not be written: No space .* Free some room"):
        conversion.export(converted, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- the rest
def test_files_have_the_permissions_of_the_umask(saved: Path, tmp_path: Path):
    before = os.umask(0o027)
    try:
        exporter.save_hf(tmp_path / "out", random_params(), MODEL, shard_bytes=2e4)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o640} and stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_the_dry_run_adds_up(saved: Path, tmp_path: Path):
    rows = mapping.rows(MODEL, dtype="bfloat16", fsdp=4, tensor=2)
    shardings = meshes.shardings(MODEL.specs, meshes.make_mesh(1, 4, 2))
    for row, leaf, sharding in zip(rows, leaves(MODEL), jax.tree.leaves(shardings), strict=True):
        assert row.path == leaf.path and row.sharding == tuple(sharding.spec)
        assert row.nbytes == 2 * np.prod(sharding.shard_shape(leaf.spec.shape))
    lines = list(conversion.dry_run(saved, dtype=None, mesh={"data": 1, "fsdp": 4, "tensor": 2}))
    assert any("model.layers.{0-1}.self_attn.q_proj.weight" in line and "-, fsdp, tensor" in line for line in lines)
    total = sum(x.size for x in jax.tree.leaves(random_params()))
    assert f"{total:,} parameters in {len(rows)} arrays" in lines[-2] and "as float32 on 8 devices" in lines[-1]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_hf()))  # config.json is enough to plan with
    assert "as bfloat16 on 2 devices" in list(conversion.dry_run(tmp_path, dtype=None, mesh={"data": 2}))[-1]
    with pytest.raises(ValueError, match=r"mesh.fsdp=3 does not divide axis 'embed'"):
        list(conversion.dry_run(saved, dtype=None, mesh={"fsdp": 3}))
