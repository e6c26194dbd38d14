"""What commands leave on disk: whole or absent, going on after a kill, and nobody else's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fgrpo_jax import rows
from fgrpo_jax.rows import NumberedRows, append_rows, claim_workdir, read_rows, resume_rows

CONFIG = {"seed": 1, "optim": {"learning_rate": 1e-6}, "data": {"path": ""}}


def test_it_stands_on_the_ground() -> None:
    """Whoever writes a file with it has not imported jax, nor any other room."""
    code = "import sys, fgrpo_jax.rows; print(*(name for name in sys.modules if name.startswith(('jax', 'fgrpo'))))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["fgrpo_jax", "fgrpo_jax.rows"]


# ------------------------------------------------------------------------------------------------------ whole or absent
def test_what_stands_under_the_name_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    rows.write_json(file, {"x": "é"})
    with pytest.raises(KeyboardInterrupt), rows.beside(file) as place:
        place.write_text("half")
        raise KeyboardInterrupt
    assert json.loads(file.read_text()) == {"x": "é"}
    rows.write_atomically(file, "[]")  # over what was left beside
    assert file.read_text() == "[]" and [path.name for path in file.parent.iterdir()] == ["a.json"]


def test_a_folder_appears_whole_without_what_a_kill_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), rows.beside(tmp_path / "f") as place:
        place.mkdir()
        (place / "stale").touch()
        raise KeyboardInterrupt
    assert not (tmp_path / "f").exists()
    for name in ("fresh", "newer"):
        with rows.beside(tmp_path / "f") as place:
            place.mkdir()
            (place / name).touch()
        assert [path.name for path in (tmp_path / "f").iterdir()] == [name]


# --------------------------------------------------------------------------------------------------------- rows of JSON
def test_rows_beyond_a_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    assert resume_rows(path) == [] and path.read_bytes() == b""
    for step in range(1, 6):
        append_rows(path, [{"step": step, "x": "é"}])
    assert len(read_rows(path)) == 5
    kept = resume_rows(path, keep=lambda found: [row for row in found if row["step"] <= 3])
    append_rows(path, [{"step": 4, "x": "again"}])
    assert [row["step"] for row in kept] == [1, 2, 3]
    assert [(r["step"], r["x"]) for r in read_rows(path)] == [(1, "é"), (2, "é"), (3, "é"), (4, "again")]
    assert [found.name for found in path.parent.iterdir()] == ["metrics.jsonl"]


WHOLE = '{"x": "a"}\n{"x": "é"}\n'.encode()


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_a_kill_at_any_byte_costs_the_last_row_at_most(tmp_path: Path, cut: int) -> None:
    """A last row without its line break counts when it is all there; a half letter is no error."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE[:cut])
    kept = resume_rows(path)
    assert kept == read_rows(path) == [{"x": "a"}, {"x": "é"}][: WHOLE[: cut + 1].count(b"}\n")]
    append_rows(path, [{"x": "b"}])
    assert read_rows(path) == [*kept, {"x": "b"}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"index": 0}\nnonsense\n{"index": 2}\n')
    for read in (read_rows, resume_rows):
        with pytest.raises(ValueError, match=r"s\.jsonl:2 is not JSON"):
            read(path)


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    for write in (append_rows, rows.write_rows):
        with pytest.raises(ValueError, match="JSON compliant"):
            write(path, [{"step": 1}, {"step": float("nan")}])
    assert not path.exists()


def test_a_text_may_hold_any_line_separator_but_the_newline(tmp_path: Path) -> None:
    file, texts = tmp_path / "rows.jsonl", ["a\u2028b", "c\x85d", "e\u2029f\n"]
    for text in texts:
        append_rows(file, [{"text": text}])
    assert [row["text"] for row in resume_rows(file)] == [row["text"] for row in read_rows(file)] == texts


# ------------------------------------------------------------------------------------------------------- numbered rows
def test_parts_of_several_processes_are_merged_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "barrier", lambda name, process: None)
    row = lambda index: {"index": index, "text": f"answer {index}\u2028"}  # noqa: E731
    parts = [NumberedRows(tmp_path / "s.jsonl", {"a": 1}, process=(i, 2)) for i in range(2)]
    for part in parts:
        assert part.begin() == {}
    parts[1].append([row(2), row(3)])
    parts[0].append([row(0), row(1)])
    with parts[0].part.open("a") as file:
        file.write('{"index": 4, "te')
    assert sorted(parts[0].begin()) == sorted(parts[1].begin()) == [0, 1, 2, 3]
    parts[0].append([row(4)])
    message = r"holds 5 rows of 's', and 6 are asked for here; the first that does not fit is number 5\. .*\(limit\)"
    with pytest.raises(ValueError, match=message):
        parts[1].finish(6, asked_by="limit")
    for part in (parts[1], parts[0]):
        assert part.finish(5, asked_by="limit") == [row(index) for index in range(5)]
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["s.jsonl"]
    assert read_rows(tmp_path / "s.jsonl") == [row(index) for index in range(5)]
    alone = NumberedRows(tmp_path / "s.jsonl", {"a": 1})
    assert sorted(alone.begin()) == [0, 1, 2, 3, 4], "fewer processes go on with what more have answered"


def test_rows_of_other_settings_are_refused_and_free_ones_may_change(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    begun = NumberedRows(path, {"a": 1, "who": {"name": "x"}})
    begun.begin()
    begun.append([{"index": 0}])
    with pytest.raises(ValueError, match=r"was begun under other settings:\n  a: 1 → 2\nuse another --workdir"):
        NumberedRows(path, {"a": 2, "who": {"name": "x"}}).begin()
    moved = NumberedRows(path, {"a": 1, "who": {"name": "y"}}, free=rows.matching("who.*"))
    assert moved.begin() == {0: {"index": 0}}
    assert json.loads((tmp_path / "s.settings.json").read_text()) == moved.settings
    (tmp_path / "s.settings.json").unlink()
    with pytest.raises(ValueError, match=r"holds rows without s\.settings\.json"):
        moved.begin()


# -------------------------------------------------------------------------------------------------------- whose workdir
def test_a_new_workdir_is_claimed_and_the_same_run_resumes(tmp_path: Path) -> None:
    workdir = tmp_path / "runs" / "a"
    assert claim_workdir(workdir, CONFIG) is False
    assert json.loads((workdir / "config.json").read_text()) == CONFIG
    assert claim_workdir(workdir, CONFIG) is True
    moved = {**CONFIG, "data": {"path": "elsewhere"}}
    assert claim_workdir(workdir, moved, free=rows.matching("data.*")) is True
    assert json.loads((workdir / "config.json").read_text()) == moved


def test_a_workdir_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    claim_workdir(tmp_path / "w", CONFIG)
    other = {**CONFIG, "optim": {"learning_rate": 2e-6}, "extra": 1}
    with pytest.raises(ValueError) as caught:
        claim_workdir(tmp_path / "w", other, free=rows.matching("data.*"))
    message = str(caught.value)
    assert "optim.learning_rate: 1e-06 → 2e-06" in message and "extra: absent → 1" in message
    assert "--overwrite" in message and "another --workdir" in message
    assert json.loads((tmp_path / "w" / "config.json").read_text()) == CONFIG


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    claim_workdir(workdir, CONFIG)
    (workdir / "checkpoints" / "3").mkdir(parents=True)
    for name in ("metrics.jsonl", "metrics.1.jsonl", "notes.txt"):
        (workdir / name).write_text("{}\n")
    assert claim_workdir(workdir, {"seed": 2}, overwrite=True) is False
    assert sorted(p.name for p in workdir.iterdir()) == ["config.json", "notes.txt"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=re.escape("is not empty (thesis.tex) and holds no run")):
            claim_workdir(tmp_path, CONFIG, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").exists() and not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_processes_decide_alike_and_the_first_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """The second looks while the first waits for it: before the run that is there is removed, or one is written."""
    workdir, seen = tmp_path / "w", []
    if overwrite:
        claim_workdir(workdir, {"seed": 3})
    there = workdir.exists() and (workdir / "config.json").read_text()

    def second(name: str, process: rows.Process) -> None:
        if process == (0, 2) and name == "workdir looked at":
            seen.append(claim_workdir(workdir, CONFIG, overwrite=overwrite, process=(1, 2)))
            assert (workdir.exists() and (workdir / "config.json").read_text()) == there

    monkeypatch.setattr(rows, "barrier", second)
    assert [claim_workdir(workdir, CONFIG, overwrite=overwrite, process=(0, 2)), *seen] == [False, False]
    assert json.loads((workdir / "config.json").read_text()) == CONFIG
