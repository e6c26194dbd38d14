"""Rows that cannot be used: an error that names file and row, or a counted skip, wherever they are met."""

import contextlib
import io
import json
import pickle
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests import layouts
from tests.folders import write_folder

from fgrpo_jax import command, prepare
from fgrpo_jax.data import images
from fgrpo_jax.data.pipeline import Encoder, PromptIterator
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.data.sets.readers.records import BadRow

GOOD = {"question": "Where is it?", "options": ["left", "right"], "answer": "A"}


def lines(folder, **change):
    """Three rows of our own format, the second changed."""
    rows = [{**GOOD, "id": str(number), "images": [f"{number}.png"]} for number in range(3)]
    rows[1] |= change
    for number in range(3):
        if not (folder / f"{number}.png").exists():
            layouts.save_picture(folder / f"{number}.png")
    layouts.save_lines(folder / "train.jsonl", rows)


def truncated(folder):
    lines(folder)
    data = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(data[: len(data) // 2])


def bomb(folder):
    """100 megapixels in some kilobytes."""
    lines(folder)
    Image.new("1", (10_000, 10_000)).save(folder / "1.png")
    assert (folder / "1.png").stat().st_size < 20_000


def not_json(folder):
    lines(folder)
    text = (folder / "train.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text("\n".join([text[0], text[1][:-9], text[2]]) + "\n")


LINE = r"train\.jsonl, line 2: "
CASES = {  # name → (writes, what the error says, how it is counted, seen when the set is opened)
    "missing image": (
        lambda f: lines(f, images=["gone.png"]),
        LINE + r"'images' names 'gone\.png'",
        "missing image",
        True,
    ),
    "path that climbs out": (
        lambda f: lines(f, images=["../1.png"]),
        LINE + r"'images' names '\.\./1\.png', which leaves",
        "image path outside the root",
        True,
    ),
    "absolute path": (
        lambda f: lines(f, images=["/elsewhere/1.png"]),
        LINE + r"'images' names .* which leaves",
        "image path outside the root",
        True,
    ),
    "repeated id": (lambda f: lines(f, id="0"), LINE + "id '0' already stands in .*line 1", "repeated id", True),
    "answer that is no option": (
        lambda f: lines(f, answer="up"),
        LINE + "answer 'up' is none of the options",
        "answer not among the options",
        True,
    ),
    "inverted box": (lambda f: lines(f, boxes=[[30, 0, 10, 9]]), LINE + "'boxes' has .* x1 < x2", "bad box", True),
    "box outside": (
        lambda f: lines(f, boxes=[[0, 0, 300, 9]]),
        LINE + "'boxes' has .*, outside the image of 96x84",
        "bad box",
        False,
    ),
    "truncated image": (truncated, LINE + r"image .*1\.png does not decode", "image that does not decode", False),
    "100 megapixels": (bomb, LINE + r"image .* 10000x10000 = 100,000,000 pixels", "image that does not decode", False),
    "broken JSON": (not_json, LINE + "not JSON", "not JSON", True),
    "unknown field": (
        lambda f: lines(f, images=None, imagse=["1.png"]),
        LINE + "unknown key 'imagse'",
        "unknown field",
        True,
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("case", CASES)
def test_error_names_file_and_row(case, tmp_path):
    write, message, kind, at_once = CASES[case]
    write(tmp_path)
    if not at_once:
        source = open_set("jsonl", tmp_path, split="train")
        assert source[0].id == "0" and source[2].id == "2"
    with pytest.raises(BadRow, match=message) as caught:
        open_set("jsonl", tmp_path, split="train")[1]
    assert caught.value.kind == kind


@pytest.mark.parametrize("case", CASES)
def test_skip_counts(case, tmp_path):
    write, message, kind, _ = CASES[case]
    write(tmp_path)
    with pytest.warns(UserWarning, match=rf"1 rows skipped \(1 {kind}\); the first: .*{message}"):
        source = open_set("jsonl", tmp_path, split="train", bad="skip")
    assert [source[index].id for index in range(len(source))] == ["0", "2"]
    assert source.skipped.kinds == {kind: 1} and [entry.id for entry in source.entries] == ["0", "2"]


@pytest.mark.parametrize("case", CASES)
def test_prepare_stops_or_counts(case, tmp_path):
    write, message, kind, _ = CASES[case]
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write(source)
    code, err = _prepare(source, out, "--bad=error")
    assert code == 1 and not (out / "dataset_info.json").exists()
    with pytest.raises(ValueError, match=message):
        raise ValueError(err)
    assert _prepare(source, out, "--bad=skip")[0] == 0
    (card,) = json.loads((out / "card.json").read_text())["splits"].values()
    assert (card["rows"], card["examples"], card["skipped"]["kinds"]) == (3, 2, {kind: 1})
    assert card["skipped"]["rows"][0]["place"] == "train.jsonl, line 2"
    assert "train.jsonl, line 2" in (out / "README.md").read_text()
    assert len(open_set("jsonl", out)) == 2


def _prepare(source, out, *flags):
    err = io.StringIO()
    argv = ["jsonl", f"--src={source}", f"--out={out}", "--split=train", "--workers=0", "--shard=2", *flags]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = command.run(prepare.main, prepare.parser(), argv)
    return code, err.getvalue()


def test_prepare_in_processes_names_the_row_too(tmp_path, capfd):
    truncated(tmp_path)
    argv = ["jsonl", f"--src={tmp_path}", f"--out={tmp_path / 'out'}", "--split=train", "--workers=2", "--shard=1"]
    assert command.run(prepare.main, prepare.parser(), argv) == 1
    said = capfd.readouterr().err
    assert "error: " in said and "train.jsonl, line 2: image" in said and "Traceback" not in said


def test_nothing_left_is_an_error(tmp_path):
    lines(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"holds no examples: 3 rows skipped \(3 image that does not decode\)"):
        open_set("jsonl", tmp_path, split="train", bad="skip")
    with pytest.raises(ValueError, match="data.bad='ignore'; use one of 'error', 'skip'"):
        open_set("jsonl", tmp_path, split="train", bad="ignore")


# -------------------------------------------------------------------------------------------------------------- Parquet
def cut(file: Path):
    file.write_bytes(file.read_bytes()[:-20])


def scribble(file: Path, column: str):
    """Noise over the second row group of a column."""
    about = pq.read_metadata(file).row_group(1)
    at = [about.column(k).path_in_schema.split(".")[0] for k in range(about.num_columns)].index(column)
    chunk, data = about.column(at), bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(bytes(data))


def test_a_parquet_file_without_its_end(tmp_path):
    folder = layouts.write("realworldqa", tmp_path)
    cut(folder / "data" / "test-00001-of-00002.parquet")
    with pytest.raises(BadRow, match=r"test-00001-of-00002\.parquet: not a whole Parquet file"):
        open_set("realworldqa", folder)
    with pytest.warns(UserWarning, match="1 corrupt Parquet"):
        source = open_set("realworldqa", folder, bad="skip")
    assert [source[k].id for k in range(len(source))] == ["realworldqa-1", "realworldqa-2"]


@pytest.mark.parametrize("column", ["question", "image"])
def test_a_parquet_row_group_that_does_not_read(tmp_path, column):
    folder = layouts.write("cv_bench_2d", tmp_path)
    scribble(folder / "test_2d.parquet", column)
    where = "rows 4 to 6:" if column == "question" else "row 4: of rows 4 to 6"
    with pytest.raises(BadRow, match=rf"test_2d\.parquet, {where} the row group does not read"):
        open_set("cv_bench_2d", folder)[3]
    with pytest.warns(UserWarning, match="corrupt Parquet"):
        source = open_set("cv_bench_2d", folder, bad="skip")
    assert [source[k].id for k in range(len(source))] == [f"cv_bench-{k}" for k in range(3)]
    assert source.skipped.count == 3


# ------------------------------------------------------------------------------------------------------- published sets
@pytest.mark.parametrize(
    ("name", "rewrite", "message"),
    [
        ("mindcube", lambda rows: rows[1].update(gt_answer="D"), r"line 2: answer 'D' is none"),
        (
            "mindcube",
            lambda rows: rows[1]["images"].append("../../x.jpg"),
            r"line 2: image path '\.\./\.\./x\.jpg' leaves",
        ),
        ("viscot", lambda rows: rows[0].update(dataset="coco"), r"line 1: image '17\.jpg' is not in .* folder 'coco'"),
        ("vigorl", lambda rows: rows[1].update(answer="flew"), r"line 2: answer 'flew' is none, or fits several"),
        ("vigorl", lambda rows: rows[1].pop("answer"), r"line 2: no 'answer'"),
    ],
)
def test_published_lines(name, rewrite, message, tmp_path):
    folder = layouts.write(name, tmp_path)
    file = sorted(folder.rglob("*.jsonl"))[0]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rewrite(rows)
    layouts.save_lines(file, rows)
    with pytest.raises(BadRow, match=message):
        open_set(name, folder, split=layouts.LAYOUTS[name].split)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("cv_bench_2d", "answer", "(E)", r"row 2: answer '\(E\)' is none"),
        ("cv_bench_2d", "type", "3D", "row 2: type '3D' among the 2D questions"),
        ("sat", "correct_answer", "nowhere", "row 2: answer 'nowhere' is none"),
        ("sat", "answers", ["left", "left"], "row 2: answer 'left' is none, or the only one"),
        ("treevgr_rl", "target_instances", [{"bbox": [5.0, 5.0, 2.0, 9.0]}], r"row 2: 'boxes' has \[5\.0, 5\.0, 2\.0"),
        ("treevgr_rl", "target_instances", [{"bbox": [0.0, 0.0, 200.0, 9.0]}], "row 2: .* outside the image of 96x84"),
        ("vgr", "image", "/etc/1.jpg", "row 2: image path '/etc/1.jpg' leaves"),
    ],
)
def test_published_rows(name, column, value, message, tmp_path):
    folder = layouts.write(name, tmp_path)
    (file,) = folder.rglob("*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1][column] = value
    layouts.save_table(file, rows, {field.name: field.type for field in table.schema})
    with pytest.raises(BadRow, match=message):
        open_set(name, folder, split=layouts.LAYOUTS[name].split)[1]


def test_vgr_boxes_beyond_the_image(tmp_path):
    folder = layouts.write("vgr", tmp_path)
    table = pq.read_table(folder / "vgr.parquet")
    rows = table.to_pylist()
    for value, said in (("1.005", None), ("1.5", "row 1: 'boxes' has .* in 0..1 are expected")):
        turns = rows[0]["conversations"]
        turns[1]["value"] = f"<think>The cup <sot>[0.1, 0.25, {value}, 0.75]<eot>.</think>\ncup"
        layouts.save_table(folder / "vgr.parquet", rows, {field.name: field.type for field in table.schema})
        if said is None:  # a model's rounding: cut to the image
            assert open_set("vgr", folder)[0].boxes == ((10.0, 20.0, 100.0, 60.0),)
        else:
            with pytest.raises(BadRow, match=said):
                open_set("vgr", folder)


def test_omnispatial_answers_beyond_the_options(tmp_path):
    folder = layouts.write("omnispatial", tmp_path)
    file = folder / "OmniSpatial-test" / "data.json"
    rows = json.loads(file.read_text())
    rows[0]["answer"] = len(rows[0]["options"])  # as if counted from 1
    file.write_text(json.dumps(rows))
    with pytest.raises(BadRow, match=r"data\.json, row 1: answer 2 of 2 options, counted from 0"):
        open_set("omnispatial", folder)


def test_vlmevalkit_cells(tmp_path):
    folder = layouts.write("vlmevalkit", tmp_path)
    text = (folder / "Spatial.tsv").read_text()
    (folder / "Spatial.tsv").write_text(text.replace("\tA\trelation\t0\t", "\tA\trelation\t9\t"))
    with pytest.raises(BadRow, match="row 2: image '9'… is neither base64 nor the index of an earlier row"):
        open_set("vlmevalkit", folder, split="Spatial")


# ------------------------------------------------------------------------------------------------------------- training
@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(Processor.load(write_folder(tmp_path_factory.mktemp("folder"))), style="tiny")


@pytest.mark.parametrize(("form", "workers"), [("published", 0), ("prepared", 0), ("prepared", 1)])
def test_whoever_reads_names_file_and_row(encoder, tmp_path, form, workers):
    """A thread or a process; a prepared set is opened anew in the process."""
    lines(tmp_path)
    if form == "prepared":
        name, folder, said = "prepared", tmp_path / "out", r"out \(train\), record 2: does not read .*hash mismatch"
        assert _prepare(tmp_path, folder, "--shard=1")[0] == 0
        file = folder / "jsonl-train.array_record-00001-of-00003"
        data = file.read_bytes()
        file.write_bytes(data[:300] + bytes(40) + data[340:])  # a bad block on the disk
    else:
        name, folder, said = "jsonl", tmp_path, LINE + "image"
        truncated(tmp_path)
    iterator = PromptIterator(open_set(name, folder, split="train"), encoder, batch_size=3, workers=workers)
    with pytest.raises(BadRow, match=said):
        next(iterator)
    iterator.close()


def test_an_image_that_broke_after_preparing_names_where_it_came_from(tmp_path, monkeypatch):
    lines(tmp_path)
    assert _prepare(tmp_path, tmp_path / "out")[0] == 0
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 100)  # as with an image library that reads less
    with pytest.raises(BadRow, match=r"out \(train\), record 2, made of train\.jsonl, line 2: image images\[0\] has"):
        open_set("prepared", tmp_path / "out")[1]


@pytest.mark.parametrize("name", list(layouts.LAYOUTS))
def test_sources_travel(name, tmp_path):
    """To worker processes: files are opened anew there."""
    source = open_set(name, layouts.write(name, tmp_path), split=layouts.LAYOUTS[name].split)
    first = source[0]
    again = pickle.loads(pickle.dumps(source))
    assert len(again) == len(source) and (again[0].images[0] == first.images[0]).all() and again[0].id == first.id


def test_limits_are_where_pil_warns():
    assert images.MAX_DECODED_PIXELS == Image.MAX_IMAGE_PIXELS < 100_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.decode_image(layouts.picture("a")).shape == (84, 96, 3)
