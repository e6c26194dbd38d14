"""Sources: the built-in world, NLVR's layout and the real files where they are, JSONL and what can be wrong with it."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from fgrpo_jax.data.sets.catalogue import open_set
from fgrpo_jax.world.examples import World, WorldSource

NLVR = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "nlvr"
with_nlvr = pytest.mark.skipif(not NLVR.is_dir(), reason="the NLVR files are not beside the project")


# -------------------------------------------------------------------------------------------------------------- world
def test_world_by_index():
    source = WorldSource(World(flawed=0.0), "train", with_trace=True, size=5)
    one, two = source[3], source[3]
    assert len(source) == 5 and one.id == two.id and one.trace == two.trace and one.source == "world"
    np.testing.assert_array_equal(one.images[0], two.images[0])
    assert WorldSource(World(), "train", size=5)[3].trace is None
    with pytest.raises(IndexError, match="example 5 of a source of 5"):
        source[5]


# --------------------------------------------------------------------------------------------------------------- NLVR
def write_nlvr(root, split, *, directories):
    """Two sentences in the published layout; one split of the corpus has no `directory`."""
    lines = []
    for number, (label, place) in enumerate([("true", 3), ("false", 5)]):
        folder = root / split / "images" / str(place)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((100, 400, 4), 255, np.uint8)
        pixels[80:100, 190:210] = (255, 255, 0, 255)
        Image.fromarray(pixels).save(folder / f"{split}-{number}-0-0.png")
        item = {"x_loc": 40, "y_loc": 80, "size": 20, "type": "square", "color": "Yellow"}
        line = {"sentence": "There is a block.", "identifier": f"{number}-0", "label": label}
        line["structured_rep"] = [[], [item], []]
        lines.append(line | ({"directory": str(place)} if directories else {}))
    rewrite(root, split, lines)
    return lines


def rewrite(root, split, lines):
    (root / split / f"{split}.json").write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.mark.parametrize("directories", [True, False])
def test_nlvr_layout(tmp_path, directories):
    write_nlvr(tmp_path, "dev", directories=directories)
    source = open_set("nlvr", tmp_path, split="dev")
    assert len(source) == 2
    for index, label in enumerate(("true", "false")):
        example = source[index]
        assert example.options["AB".index(example.answer)] == label and set(example.options) == {"true", "false"}
        assert example.boxes == ((190.0, 80.0, 210.0, 100.0),)
        assert example.images[0].shape == (100, 400, 3) and example.id == f"dev-{index}-0" and example.source == "nlvr"
        assert "There is a block." in example.question


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.pop("label"), r"dev\.json, line 2: no 'label'"),
        (lambda line: line.update(label="maybe"), r"line 2: label 'maybe' is neither"),
        (lambda line: line.update(identifier="0-0", directory="3"), r"line 2: id 'dev-0-0' already stands in .*line 1"),
        (lambda line: line.update(directory="9"), r"line 2: image '9/dev-1-0-0\.png' is not in .*images"),
        (lambda line: line.update(identifier="7-7", directory=None), r"image .dev-7-7-0\.png. is not in .*images"),
        (lambda line: line.update(sentence=3), r"'sentence' must be the sentence, got 3"),
    ],
)
def test_nlvr_errors(tmp_path, change, message):
    lines = write_nlvr(tmp_path, "dev", directories=True)
    change(lines[1])
    rewrite(tmp_path, "dev", lines)
    with pytest.raises(ValueError, match=message):
        open_set("nlvr", tmp_path, split="dev")


def test_nlvr_item_without_a_place(tmp_path):
    lines = write_nlvr(tmp_path, "dev", directories=True)
    del lines[1]["structured_rep"][1][0]["size"]
    rewrite(tmp_path, "dev", lines)
    with pytest.raises(ValueError, match="line 2: structured_rep holds"):
        open_set("nlvr", tmp_path, split="dev")


def test_nlvr_image_of_one_name_in_two_folders(tmp_path):
    write_nlvr(tmp_path, "dev", directories=False)
    images = tmp_path / "dev" / "images"
    (images / "5" / "dev-0-0-0.png").write_bytes((images / "3" / "dev-0-0-0.png").read_bytes())
    with pytest.raises(ValueError, match=r"line 1: image 'dev-0-0-0\.png' may be 3/.* and 5/.*name its folder"):
        open_set("nlvr", tmp_path, split="dev")


def test_nlvr_split_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"train\.json does not exist; check"):
        open_set("nlvr", tmp_path, split="train")


@with_nlvr
@pytest.mark.parametrize("split", ["test", "hidden"])
def test_real_nlvr_boxes_lie_on_the_drawn_items(split):
    """Inside each gold box stands the item's colour; the boxes were published for just this image."""
    colors = {"yellow": (255, 255, 0), "black": (0, 0, 0), "#0099ff": (0, 153, 255)}
    source = open_set("nlvr", NLVR, split=split)
    assert len(source) > 900
    lines = (NLVR / split / f"{split}.json").read_text().splitlines()
    answers = []
    for index in range(0, len(source), 40):
        example = source[index]
        items = [item for box in json.loads(lines[index])["structured_rep"] for item in box]
        answers.append(example.answer)
        for item, (x1, y1, x2, y2) in zip(items, example.boxes, strict=True):
            centre = example.images[0][int(y1 + y2) // 2, int(x1 + x2) // 2].astype(int)
            assert np.abs(centre - colors[item["color"].lower()]).max() < 12, (example.id, item)
    assert {"A", "B"} == set(answers)


# -------------------------------------------------------------------------------------------------------------- JSONL
def write_jsonl(tmp_path, *changes):
    """Three good lines, the second with changes; None removes a key."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / name)
    lines = [
        {"id": "1", "images": ["a.png"], "question": "Which?", "options": ["cat", "dog"], "answer": "B"},
        {"id": "2", "images": ["a.png", "b.png"], "question": "Which?", "options": ["cat", "dog"], "answer": "dog"},
        {"id": "3", "question": "How many?", "answer": "two", "source": "mine", "trace": "<think>2</think>"},
    ]
    lines[1]["boxes"] = [[0, 0, 10, 30.5]]
    for change in changes:
        lines[1] |= change
    lines[1] = {key: value for key, value in lines[1].items() if value != "REMOVE"}
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def test_jsonl(tmp_path):
    first, second, third = (
        open_set("jsonl", write_jsonl(tmp_path))[0],
        *(open_set("jsonl", write_jsonl(tmp_path))[i] for i in (1, 2)),
    )
    assert (first.answer, second.answer, third.answer) == ("B", "B", "two")
    assert len(second.images) == 2 and second.images[0].shape == (30, 40, 3)
    assert first.boxes is None and second.boxes == ((0.0, 0.0, 10.0, 30.5),)
    assert (first.source, third.source) == ("mine", "mine") and third.trace == "<think>2</think>"
    assert third.options == () and third.images == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "REMOVE"}, "no 'answer'; add the right answer"),
        ({"answer": None}, "'answer' is null"),
        ({"answer": "  "}, "'answer' is empty"),
        ({"answer": True}, "'answer' must be the right answer, got true"),
        ({"answer": 2}, "answer '2' is none of the options"),
        ({"answer": 1, "options": ["1", "2"]}, "answer '1' fits several"),  # the text of A, and the place of B
        ({"answer": "bird"}, r"answer 'bird' is none of the options \['cat', 'dog'\]; give the letter A..B"),
        ({"answer": "C"}, "answer 'C' is none of the options"),
        ({"options": ["B", "A"], "answer": "A"}, "answer 'A' fits several"),
        ({"options": ["dog", "dog"], "answer": "dog"}, "answer 'dog' fits several"),
        ({"options": [["cat"], ["dog"]]}, "'options' must be a list of texts"),
        ({"id": "1"}, "id '1' already stands in .*line 1"),
        ({"id": ["2"]}, "'id' must be a text or number"),
        ({"question": "REMOVE"}, "no 'question'"),
        ({"images": ["c.png"]}, r"'images' names 'c\.png', which is not in"),
        ({"images": 5}, "'images' must be a path, or a list of paths"),
        ({"images": ["https://x.org/a.png"]}, "'images' names 'https.*fetch it"),
        ({"images": [None]}, "'images' names None"),
        ({"images": "REMOVE", "imagse": ["a.png"], "boxes": None}, "unknown key 'imagse'; did you mean 'images'"),
        ({"videos": ["a.mp4"]}, "'videos' has .*only images are read"),
        ({"boxes": [[1, 2, 3]]}, r"'boxes' has \[1, 2, 3\]; four numbers"),
        ({"boxes": [[5, 2, 3, 4]]}, "x1 < x2"),
        ({"boxes": [[0, 0, 1, True]]}, "four numbers"),
        ({"images": []}, "'boxes' without 'images'"),
        ({"trace": 5}, "'trace' must be"),
    ],
)
def test_jsonl_errors_name_file_line_and_key(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line 2: .*{message}"):
        open_set("jsonl", write_jsonl(tmp_path, change))


def test_jsonl_image_that_does_not_decode(tmp_path):
    path = write_jsonl(tmp_path)
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 2: image .*b\.png does not decode"):
        open_set("jsonl", path)[1]


def test_jsonl_boxes_outside_the_image(tmp_path):
    source = open_set("jsonl", write_jsonl(tmp_path, {"boxes": [[0, 0, 400, 30]]}))
    with pytest.raises(ValueError, match="line 2: 'boxes' has .*outside the image of 40x30 pixels"):
        source[1]


@pytest.mark.parametrize(("text", "message"), [("{", "line 1: not JSON"), ("[1]", "JSON object"), ("", "no examples")])
def test_jsonl_that_is_none(tmp_path, text, message):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        open_set("jsonl", path)
