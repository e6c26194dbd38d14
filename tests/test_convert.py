"""convert and export: what goes in comes out, byte by byte; what cannot go in leaves nothing behind."""

import json
import shutil
from pathlib import Path

import folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fgrpo_jax import command, convert, export
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.training import checkpoint, conversion
from fgrpo_jax.weights import exporter


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything but weights."""
    return folders.write_folder(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def hf(request: pytest.FixtureRequest, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small HF folder in one of the dtypes, in several shards."""
    folder = tmp_path_factory.mktemp("hf") / request.param
    model = Model.create(ModelConfig.load(shapes))
    params = model.init(jax.random.key(0), dtype=jnp.dtype(request.param))
    exporter.save_hf(folder, params, model, source=shapes, shard_bytes=60_000)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """{name: (dtype, shape, bytes)} of all safetensors files."""
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as handle:
            for name in handle.keys():  # noqa: SIM118 (a handle is no dict)
                value = handle.get_tensor(name)
                found[name] = (str(value.dtype), value.shape, value.tobytes())
    return found


def run(door: object, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = command.run(door.main, door.parser(), argv)  # type: ignore[attr-defined]
    return code, capsys.readouterr().err


def test_round_trip_is_byte_identical_and_needs_only_the_checkpoint(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(hf, source)
    assert run(convert, capsys, f"--hf={source}", f"--out={tmp_path / 'c'}")[0] == 0
    shutil.rmtree(source)
    # Once from the checkpoints folder, once from the checkpoint alone.
    (tmp_path / "elsewhere").mkdir()
    for at, target in (("c", "one"), ("elsewhere/alone", "two")):
        assert run(export, capsys, f"--checkpoint={tmp_path / at}", f"--out={tmp_path / target}")[0] == 0
        assert tensors(tmp_path / target) == tensors(hf)
        for file in hf.iterdir():
            if file.suffix != ".safetensors" and not file.name.endswith("index.json"):
                assert (tmp_path / target / file.name).read_bytes() == file.read_bytes(), file.name
        if at == "c":
            (tmp_path / "c" / "0").rename(tmp_path / "elsewhere" / "alone")


def test_dtype_can_be_chosen(hf: Path, tmp_path: Path) -> None:
    conversion.convert(hf, tmp_path / "c", dtype="float32")
    assert checkpoint.stored_dtype(tmp_path / "c") == jnp.float32
    conversion.export(tmp_path / "c", tmp_path / "out", dtype="bfloat16")
    assert {dtype for dtype, _, _ in tensors(tmp_path / "out").values()} == {"bfloat16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def spoil_shape(folder: Path) -> None:
    file, content, name = first_tensor(folder)
    save_file({**content, name: np.zeros((3, 5), np.float32)}, file)


def spoil_extra(folder: Path) -> None:
    file, content, _ = first_tensor(folder)
    save_file({**content, "model.surprise": np.zeros(3, np.float32)}, file)
    for index in folder.glob("*.index.json"):
        mapping = json.loads(index.read_text())
        mapping["weight_map"]["model.surprise"] = file.name
        index.write_text(json.dumps(mapping))


def spoil_missing(folder: Path) -> None:
    file, content, name = first_tensor(folder)
    save_file({k: v for k, v in content.items() if k != name}, file)


def spoil_truncated(folder: Path) -> None:
    file, _, _ = first_tensor(folder)
    file.write_bytes(file.read_bytes()[:-1000])


def spoil_header(folder: Path) -> None:
    file, _, _ = first_tensor(folder)
    file.write_bytes(file.read_bytes()[:5])


def first_tensor(folder: Path) -> tuple[Path, dict[str, np.ndarray], str]:
    file = sorted(folder.glob("*.safetensors"))[0]
    content = load_file(file)
    return file, content, sorted(content)[0]


def spoil_nothing_there(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()


def spoil_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_shape, ("shape (3, 5)",)),
        (spoil_extra, ("unknown", "model.surprise")),
        (spoil_missing, ("missing",)),
        (spoil_truncated, ("safetensors",)),
        (spoil_header, ("not a whole safetensors file",)),
        (spoil_nothing_there, ("holds neither model.safetensors nor",)),
        (spoil_config, ("no config.json",)),
    ],
)
def test_bad_folders_are_named_and_leave_nothing(
    spoil: object, words: tuple[str, ...], hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(hf, bad)
    spoil(bad)  # type: ignore[operator]
    code, err = run(convert, capsys, f"--hf={bad}", f"--out={tmp_path / 'c'}", "--dtype=float32")
    if spoil is spoil_header:
        code, err = run(convert, capsys, f"--hf={bad}", f"--out={tmp_path / 'c'}")
    assert code == 1 and err.startswith("error: ") and "Traceback" not in err, err
    if spoil is spoil_nothing_there:
        words = ("bad",)  # with --dtype the reader of the weights speaks first
    assert all(word in err for word in words), err
    assert not (tmp_path / "c").exists()


def test_existing_targets_are_refused(hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversion.convert(hf, tmp_path / "c")
    code, err = run(convert, capsys, f"--hf={hf}", f"--out={tmp_path / 'c'}")
    assert code == 1 and "exists and is not empty" in err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    code, err = run(export, capsys, f"--checkpoint={tmp_path / 'c'}", f"--out={tmp_path / 'out'}")
    assert code == 1 and "exists and is not empty" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("hf", "is an HF folder")])
def test_export_says_what_a_checkpoint_is(
    name: str, message: str, hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = hf if name == "hf" else tmp_path / name
    code, err = run(export, capsys, f"--checkpoint={source}", f"--out={tmp_path / 'out'}")
    assert code == 1 and message in err and not (tmp_path / "out").exists()


def test_mixed_dtypes_ask_for_a_choice(hf: Path, tmp_path: Path) -> None:
    bad = tmp_path / "mixed"
    shutil.copytree(hf, bad)
    file, content, name = first_tensor(bad)
    save_file({**content, name: content[name].astype(np.float16)}, file)
    with pytest.raises(ValueError, match=r"are of dtypes .*F16.*; choose one with --dtype"):
        conversion.convert(bad, tmp_path / "c")
    conversion.convert(bad, tmp_path / "c", dtype="float32")
