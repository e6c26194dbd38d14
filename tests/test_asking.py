"""A file of prompts through the door: order, batches, going on after a kill, bad rows by their line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgrpo_jax import command
from fgrpo_jax import generate as door
from fgrpo_jax.evaluation import prompts_file

ROWS = [
    {"prompt": "What is it?", "images": ["a.png"], "id": "one"},
    {"prompt": "And now?", "images": ["b.png", "a.png"], "system": "Be brief."},
    {"prompt": "Where?"},
    {"prompt": "Where is the red circle, and where is the blue one?", "images": ["a.png"]},
    {"prompt": "Which?", "images": ["b.png"], "id": "five"},
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images and prompts.jsonl."""
    root = tmp_path_factory.mktemp("asking")
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (84, 112)), ("b.png", (56, 56))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    write(root / "prompts.jsonl", ROWS)
    return root


def write(file: Path, rows: list) -> Path:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def run(hf: Path, prompts: Path, out: Path, *flags: str) -> int:
    fixed = [f"--hf={hf}", f"--prompts={prompts}", f"--out={out}", "--num=2", "--max_new_tokens=4"]
    return command.run(door.main, door.parser(), [*fixed, *flags])


@pytest.fixture(scope="module")
def answered(tiny_hf: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answered") / "out.jsonl"
    assert run(tiny_hf, pictures / "prompts.jsonl", out, "--batch=5") == 0
    return out


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_a_prompt_in_order(answered: Path):
    rows = read(answered)
    assert [row["id"] for row in rows] == ["one", "line 2", "line 3", "line 4", "five"]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in ROWS]
    for row in rows:
        assert len(row["samples"]) == 2 and list(row["samples"][0]) == ["text", "tokens", "logprob", "boxes"]
    assert len({json.dumps(row["samples"]) for row in rows}) == 5
    assert [path.name for path in answered.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.slow
def test_a_killed_run_goes_on_in_other_batches(
    answered: Path, tiny_hf: Path, pictures: Path, tmp_path: Path, monkeypatch
):
    """Stopped after its first batch of two, and started again: the tokens of the run that nothing stopped."""
    out, calls = tmp_path / "out.jsonl", []
    append = prompts_file.Answers.append

    def stop(self, rows):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(rows))
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(prompts_file.Answers, "append", stop)
        assert run(tiny_hf, pictures / "prompts.jsonl", out, "--batch=2") == 130
    part = out.with_name("out.jsonl.part")
    assert calls == [2] and not out.exists() and len(part.read_text().splitlines()) == 2
    part.write_text(part.read_text() + '{"id": "cut sho')  # as a kill leaves it
    seen = []
    monkeypatch.setattr(prompts_file.Answers, "append", lambda self, rows: (seen.append(len(rows)), append(self, rows)))
    assert run(tiny_hf, pictures / "prompts.jsonl", out, "--batch=2") == 0
    assert seen == [2, 1]
    for ours, whole in zip(read(out), read(answered), strict=True):
        assert [s["tokens"] for s in ours["samples"]] == [s["tokens"] for s in whole["samples"]]
        np.testing.assert_allclose(
            [s["logprob"] for s in ours["samples"]], [s["logprob"] for s in whole["samples"]], atol=1e-4
        )


def test_other_settings_do_not_go_on(tiny_hf: Path, pictures: Path, tmp_path: Path, capsys):
    out = tmp_path / "out.jsonl"
    prompts_file.Answers(out, {"seed": 1}).start()
    assert run(tiny_hf, pictures / "prompts.jsonl", out) == 1
    said = capsys.readouterr().err
    assert "begun with other settings" in said and "seed: 1 → 0" in said and not out.exists()
    out.with_name("out.jsonl.settings.json").unlink()
    assert run(tiny_hf, pictures / "prompts.jsonl", out) == 1
    assert "nobody knows how it was drawn" in capsys.readouterr().err
    out.write_text("")
    assert run(tiny_hf, pictures / "prompts.jsonl", out) == 1
    assert "exists; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], "{"], ", line 2: not JSON"),
        (["[1]"], ", line 1: a JSON object is expected"),
        ([{"promt": "x"}], "unknown key 'promt'; did you mean 'prompt'"),
        ([{"images": []}], "no 'prompt'"),
        ([{"prompt": ""}], "'prompt' is empty"),
        ([{"prompt": "x", "id": 3}], "'id' must be a text, got 3"),
        ([{"prompt": "x", "images": "a.png"}], "'images' must be a list of paths"),
        ([{"prompt": "x"}, {"prompt": "y", "images": ["none.png"]}], ", line 2: image 'none.png' does not exist"),
        ([{"prompt": "x", "id": "a"}, "", {"prompt": "y", "id": "a"}], ", line 3: id 'a' is that of"),
        ([], "holds no prompts"),
    ],
)
def test_bad_rows_are_named_by_their_line(pictures: Path, rows: list, message: str):
    file = write(pictures / "bad.jsonl", rows)
    with pytest.raises(ValueError) as error:
        prompts_file.read_questions(file)
    assert message in str(error.value) and "bad.jsonl" in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "images": ["broken.png"]}, "bad.jsonl, line 2: image"),
        ({"prompt": "x <|im_end|>"}, "bad.jsonl, line 2: example 'line 2'"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_drawn(tiny_hf, pictures, tmp_path, capsys, row, message):
    (pictures / "broken.png").write_bytes(b"no image")
    file = write(pictures / "bad.jsonl", [ROWS[2], row])
    assert run(tiny_hf, file, tmp_path / "out.jsonl") == 1
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts=x.jsonl"], "needs --out"),
        (["--prompt=x", "--out=y"], "--out is for --prompts"),
        (["--prompts=x.jsonl", "--out=y", "--image=a.png"], "--image and --json are for a single --prompt"),
        (["--prompts=nowhere.jsonl", "--out=y"], "nowhere.jsonl does not exist"),
    ],
)
def test_flags_that_would_not_be_read_are_refused(tiny_hf, capsys, flags, message):
    assert command.run(door.main, door.parser(), [f"--hf={tiny_hf}", *flags]) == 1
    assert message in capsys.readouterr().err
