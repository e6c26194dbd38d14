"""Every set in its published layout, written by tests/layouts.py: what comes out, and each trap on its own."""

import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import layouts

from fgrpo_jax.data.images import decode_image
from fgrpo_jax.data.sets.catalogue import BENCHMARKS, SETS, SplitPart, open_set, parse_split
from fgrpo_jax.data.sets.readers import tables
from fgrpo_jax.data.sources import outline
from fgrpo_jax.reading.parsing import parse
from fgrpo_jax.rewards.task import accuracy


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of every set's files."""
    top = tmp_path_factory.mktemp("published")
    return {name: layouts.write(name, top / name) for name in layouts.LAYOUTS}


def opened(name, folder, **options):
    return open_set(name, folder, split=layouts.LAYOUTS[name].split, **options)


def every(source):
    return [source[index] for index in range(len(source))]


def test_every_set_has_a_layout():
    assert set(layouts.LAYOUTS) == set(SETS) and set(BENCHMARKS) <= set(SETS)
    assert [name for name in SETS if SETS[name].kind == "benchmark"] == list(BENCHMARKS)


@pytest.mark.parametrize("name", list(SETS))
def test_a_set_is_read(name, written):
    spec, source = SETS[name], opened(name, written[name])
    examples = every(source)
    assert len(source) == layouts.LAYOUTS[name].count and source.skipped.count == 0
    assert len({example.id for example in examples}) == len(examples)
    for index, (example, entry) in enumerate(zip(examples, source.entries, strict=True)):
        assert example.images and all(image.dtype.name == "uint8" and image.ndim == 3 for image in example.images)
        assert example.question and example.question == example.question.strip()
        assert "<image>" not in example.question and "(A)" not in example.question and "nswer" not in example.question
        if example.options:
            assert len(example.options) > 1 and example.answer in "ABCDEFGHIJ"[: len(example.options)]
        assert (entry.id, entry.answer, entry.options) == (example.id, example.answer, len(example.options))
        assert (example.boxes is not None) <= spec.boxes
        if spec.kind != "format":
            assert (example.source, example.licence) == (name, spec.licence)
        blank = outline(source, index)
        assert (blank.id, [i.shape for i in blank.images]) == (example.id, [i.shape for i in example.images])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_usual_split_need_not_be_named(name, written):
    assert open_set(name, written[name])[0].id == opened(name, written[name])[0].id


# ---------------------------------------------------------------------------------------------------------------- traps
def test_cv_bench_answers_in_brackets_and_its_tags(written):
    two, three = (every(opened(name, written[name])) for name in ("cv_bench_2d", "cv_bench_3d"))
    assert [example.answer for example in two] == ["A", "B", "C", "B", "A", "B"]
    assert {example.tags["source"] for example in two} == {"ADE20K", "COCO"} and three[0].tags["type"] == "3D"
    assert three[0].boxes is None and three[0].tags["task"] == "Depth"


def test_mindcube_options_leave_the_question_and_images_keep_their_order(written):
    example = opened("mindcube", written["mindcube"])[1]
    assert example.options == ("Directly left", "Diagonally forward and right", "Directly right")
    assert example.question.endswith("to the second view?") and example.answer == "B" and len(example.images) == 2
    assert example.tags == {"category": "perpendicular, self", "setting": "around"}
    first = layouts.picture("group1/front.jpg")
    assert (example.images[0] == decode_image(first)).all() and (example.images[0] != example.images[1]).any()


def test_mmvp_header_typo_and_corrected_labels(written):
    assert (written["mmvp"] / "Questions.csv").read_text().startswith("lndex,")
    examples = {example.id: example for example in every(opened("mmvp", written["mmvp"]))}
    answers = {name: example.answer for name, example in examples.items()}
    assert answers == {
        "mmvp-1": "A",
        "mmvp-2": "B",
        "mmvp-99": "B",
        "mmvp-100": "A",
        "mmvp-279": "B",
        "mmvp-280": "A",
    }
    assert examples["mmvp-99"].tags == {"pair": "50", "published": "A"} and examples["mmvp-2"].tags == {"pair": "1"}


def test_mmvp_that_is_there_twice_is_no_guess(written, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(written["mmvp"], tmp_path / name)
    with pytest.raises(
        ValueError, match="more than once: .*a/Questions.csv, .*b/Questions.csv; give the folder of one"
    ):
        open_set("mmvp", tmp_path)


def test_mmvp_mirror(written, tmp_path):
    text = pa.string()
    rows = [
        {"Index": index, "Question": "Is it?", "Options": "(a) Yes (b) No", "Correct Answer": right}
        | {"image": layouts.embedded(f"mmvp-{index}")}
        for index, right in ((1, "(a)"), (99, "(b)"))
    ]
    schema = {"Index": pa.int64(), "Question": text, "Options": text, "Correct Answer": text, "image": layouts.IMAGE}
    layouts.save_table(tmp_path / "data" / "train-00000-of-00001.parquet", rows, schema)
    assert [(e.id, e.answer) for e in every(open_set("mmvp", tmp_path))] == [("mmvp-1", "A"), ("mmvp-99", "B")]


def test_omnispatial_answers_count_from_zero_and_names_are_ambiguous(written):
    source = opened("omnispatial", written["omnispatial"])
    examples = {example.id: example for example in every(source)}
    one = examples["omnispatial-Dynamic_Reasoning-Manipulation-0_0"]
    other = examples["omnispatial-Perspective_Taking-Manipulation-0_0"]
    assert (one.answer, examples["omnispatial-Dynamic_Reasoning-Manipulation-1_1"].answer) == ("A", "C")
    assert (one.images[0] != other.images[0]).any()  # both are called 0.png
    assert one.tags == {"task_type": "Dynamic_Reasoning", "sub_task_type": "Manipulation"}
    # An output without an answer must never count as the first option.
    assert accuracy(parse("I cannot tell."), one) == 0.0


def test_realworldqa_options_instruction_and_open_answers(written):
    chosen, opened_one, *_ = every(opened("realworldqa", written["realworldqa"]))
    assert chosen.options == ("Left", "Straight", "Right") and chosen.answer == "C"
    assert chosen.question.endswith("facing?")
    assert opened_one.options == () and opened_one.answer == "2"
    assert opened_one.question == "How many pedestrians are there?"
    assert not SETS["realworldqa"].redistributable


def test_sat_right_answer_is_published_first_and_moved(tmp_path):
    layouts._sat(tmp_path, "train", count=60)
    examples = every(open_set("sat", tmp_path, split="train"))
    published = ("closer", "left", "yes")
    assert all(e.options["AB".index(e.answer)] == published[n % 3] for n, e in enumerate(examples))
    assert 18 <= sum(e.answer == "A" for e in examples) <= 42
    again = every(open_set("sat", tmp_path, split="train"))
    assert [e.options for e in again] == [e.options for e in examples]


def test_sat_real_stands_in_two_rotations(written):
    examples = every(opened("sat_real", written["sat_real"]))
    units = {}
    for example in examples:
        units.setdefault(example.tags["unit"], []).append(example)
    assert len(units) == 4 and all(len(pair) == 2 for pair in units.values())
    for one, two in units.values():
        assert (one.tags["rotation"], two.tags["rotation"]) == ("0", "1") and one.question == two.question
        assert one.options == two.options[::-1] and {one.answer, two.answer} == {"A", "B"}
        assert one.options["AB".index(one.answer)] == two.options["AB".index(two.answer)]
    assert len(examples[2].images) == 2 and examples[0].tags["question_type"] == "obj_movement"


def test_vgr_pseudo_boxes_become_pixels(written):
    opened_one, chosen = every(opened("vgr", written["vgr"]))
    assert opened_one.boxes == ((10.0, 20.0, 50.0, 60.0),)  # of 100x80 pixels
    assert (opened_one.answer, opened_one.options) == ("cup", ()) and chosen.options == ("oak", "wolf")
    assert (opened_one.images[0] != chosen.images[0]).any()  # both are called 1.jpg
    assert (opened_one.id, chosen.id) == ("vgr-vgr-1", "vgr-vgr-2")  # the published ids are of images


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>A <sot>[0.1, 0.1, 0.2, 0.2]<eot>.</think><answer>cup</answer>", "cup"),
        ("<think>A.</think>\ncup <sot>[0.1, 0.1, 0.2, 0.2]<eot>", "cup"),
        ("It stands there, so the answer is cup.", None),
    ],
)
def test_vgr_answers(response, answer, tmp_path):
    folder = layouts.write("vgr", tmp_path)
    rows = pq.read_table(folder / "vgr.parquet").to_pylist()
    rows[0]["conversations"][1]["value"] = response
    layouts.save_table(folder / "vgr.parquet", rows, dict(_fields(folder / "vgr.parquet")))
    if answer is None:
        with pytest.raises(ValueError, match="row 1: no answer: neither tags"):
            open_set("vgr", folder)
    else:
        assert open_set("vgr", folder)[0].answer == answer


def test_viscot_boxes_do_not_count_and_the_folder_decides(written):
    hat, man = every(opened("viscot", written["viscot"]))
    assert hat.boxes is None and man.boxes is None and (hat.images[0] != man.images[0]).any()
    assert (hat.tags["dataset"], man.tags["dataset"]) == ("flickr30k", "gqa")
    assert open_set("viscot", written["viscot"], split="val")[0].id == "viscot-flickr30k_cot_train-2"


def test_treevgr_boxes_are_pixels(written):
    assert [e.boxes for e in every(opened("treevgr_rl", written["treevgr_rl"]))][1] == ((10.0, 20.0, 31.0, 40.0),)


def test_vigorl_answers_are_option_texts(written):
    assert [e.answer for e in every(opened("vigorl", written["vigorl"]))] == ["C", "A", "B"]


def test_vlmevalkit_images_in_three_ways(written):
    one, two, three, four = every(opened("vlmevalkit", written["vlmevalkit"]))
    assert (one.images[0] == two.images[0]).all() and len(three.images) == 2
    assert four.options == () and four.question == "Count with care.\nSay\nhow many."
    assert two.options == ("cup", "pen", "hat") and one.tags == {"category": "relation"}
    assert open_set("vlmevalkit", written["vlmevalkit"] / "Spatial.tsv")[0].id == "Spatial-0"


def test_own_fields_read_the_same_from_lines_and_parquet(written):
    lines, table = (every(opened(name, written[name])) for name in ("jsonl", "parquet"))
    for one, other in zip(lines, table, strict=True):
        assert (one.id, one.question, one.options, one.answer, one.boxes) == (
            other.id,
            other.question,
            other.options,
            other.answer,
            other.boxes,
        )
        assert (one.source, one.licence, one.tags) == (other.source, other.licence, other.tags)
    assert lines[1].tags == {"task": "count"} and lines[1].licence == "CC0-1.0" and lines[2].source == "mine"


def test_labels_in_an_open_question_are_no_options(tmp_path):
    """Geometry names its points A, B, C; a set without options is never searched for them, and a mixed one only as
    far as the answer is one of them."""
    text = "<image>A line meets point A. From there to B. How long is it?"
    schema = {"images": pa.list_(layouts.IMAGE), "problem": pa.string(), "answer": pa.string()}
    row = {"images": [layouts.embedded("g")], "problem": text, "answer": "2 cm"}
    layouts.save_table(tmp_path / "data" / "train-0.parquet", [row], schema)
    example = open_set("geometry3k", tmp_path)[0]
    assert (example.question, example.options, example.answer) == (text.removeprefix("<image>"), (), "2 cm")
    folder = layouts.write("treevgr_rl", tmp_path / "tree")
    (file,) = folder.glob("*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0] |= {"problem": text, "answer": "2 cm"}
    rows[1] |= {"answer": "kevlar"}
    layouts.save_table(file, rows, {field.name: field.type for field in table.schema})
    found = every(open_set("treevgr_rl", folder))
    assert found[0].options == () and found[0].answer == "2 cm" and found[1].answer == "C"


@pytest.mark.parametrize("name", ["cv_bench_2d", "sat", "realworldqa", "geometry3k"])
def test_large_row_groups_are_read_as_a_stream(name, tmp_path, monkeypatch):
    """The same examples; in order the file is read once, and who goes back starts again."""
    folder = layouts.write(name, tmp_path)
    for file in folder.rglob("*.parquet"):
        layouts.save_table(file, pq.read_table(file).to_pylist(), dict(_fields(file)), group=1000)
    whole = every(opened(name, folder))
    monkeypatch.setattr(tables, "WHOLE", 0)
    monkeypatch.setattr(tables, "BATCH", 2)
    started = []
    batches = tables.ParquetTable._batches
    monkeypatch.setattr(tables.ParquetTable, "_batches", lambda *a: started.append(a) or batches(*a))
    source = opened(name, folder)
    streamed = every(source)
    assert len(started) == len(list(folder.rglob("*.parquet")))
    for one, other in zip(whole, streamed, strict=True):
        assert one.id == other.id and all((a == b).all() for a, b in zip(one.images, other.images, strict=True))
    assert (source[0].images[0] == whole[0].images[0]).all() and source.rows[0].images.in_order


def _fields(file):
    return [(field.name, field.type) for field in pq.read_schema(file)]


def test_an_image_lies_deeper_but_never_somewhere_else(tmp_path):
    """The whole published path must be the end of the file's; a base name alone finds nothing."""
    layouts.write("treevgr_rl", tmp_path)
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "images").rename(tmp_path / "unpacked" / "images")
    assert len(every(open_set("treevgr_rl", tmp_path))) == 3
    (tmp_path / "unpacked" / "images").rename(tmp_path / "unpacked" / "pictures")
    with pytest.raises(ValueError, match=r"row 1: image 'images/0\.jpg' is not in"):
        open_set("treevgr_rl", tmp_path)


def test_two_files_that_end_alike_are_refused(tmp_path):
    layouts.write("treevgr_rl", tmp_path)
    (tmp_path / "images").rename(tmp_path / "a")
    for name in ("one", "two"):
        layouts.save_picture(tmp_path / name / "images" / "0.jpg")
    with pytest.raises(ValueError, match=r"image 'images/0\.jpg' may be one/images/0\.jpg and two/images/0\.jpg"):
        open_set("treevgr_rl", tmp_path)


# --------------------------------------------------------------------------------------------------------------- splits
def test_parts_of_a_split(written):
    folder = written["cv_bench_2d"]
    whole = [e.id for e in every(open_set("cv_bench_2d", folder))]
    for part, rows in (("[:2]", whole[:2]), ("[2:]", whole[2:]), ("[-1:]", whole[-1:]), ("[50%:]", whole[3:])):
        found = open_set("cv_bench_2d", folder, split=f"test{part}")
        assert [e.id for e in every(found)] == rows == [entry.id for entry in found.entries]
        assert outline(found, 0).id == rows[0]
    with pytest.raises(ValueError, match=r"split 'test\[9:\]' of 6 examples holds none"):
        open_set("cv_bench_2d", folder, split="test[9:]")


def test_splits_are_parsed_or_refused():
    assert parse_split("train[-500:]") == SplitPart("train", -500.0, None) and str(parse_split("a[:9%]")) == "a[:9%]"
    for text in ("train[", "train[1]", "train[1:2:3]", "train[a:]"):
        with pytest.raises(ValueError, match="reads as none"):
            parse_split(text)
    with pytest.raises(ValueError, match="mixes rows and percent"):
        parse_split("train[1:2%]")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("cv_bnch", "", "unknown data set 'cv_bnch'; one of cv_bench_2d"),
        ("cv_bench_2d", "train", "cv_bench_2d has the splits test, not 'train'"),
        ("mmvp", "", r"holds no Questions\.csv nor"),
        ("jsonl", "", "needs the name of a split"),
        ("prepared", "train", r"holds no dataset_info\.json; make it with python -m fgrpo_jax\.prepare"),
    ],
)
def test_what_is_not_there(name, split, message, tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(ValueError, match=message):
        open_set(name, tmp_path, split=split)
    with pytest.raises(ValueError, match="does not exist"):
        open_set("mmvp", tmp_path / "nowhere")


def test_readers_import_neither_torch_nor_tensorflow():
    """And pyarrow only where a Parquet file is opened."""
    code = "import sys, fgrpo_jax.data.sets; print([m for m in ('torch', 'tensorflow', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
