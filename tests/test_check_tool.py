"""tools/check.py: its lines, its exit code, its fingerprint. What it checks is tested elsewhere, on small things."""

import json
import math
from pathlib import Path

import check
import pytest
from checks import algebra, readme_run, refusals, runs
from checks.fingerprint import ROOT, files, fingerprint
from checks.record import Check, above, at_least, at_most, between, exit_code, holds, same, skipped

from fgrpo_jax.training import setup

GOOD, BAD, UNTRIED = holds("a", True, 1, "b"), holds("a", False, 1, "b"), skipped("a", "no data", "b")


def report(capsys: pytest.CaptureFixture[str], **groups) -> tuple[int, list[dict], str]:
    """(exit code, the lines of stdout, stderr) of groups given as lists of checks or as functions."""
    code = check.report((name, group if callable(group) else lambda g=group: iter(g)) for name, group in groups.items())
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_line_has_four_keys_and_is_json(capsys):
    code, lines, _ = report(capsys, one=[GOOD, same("same", [1, "ä"], [1, "ä"])], two=[at_most("x", 0.25, 1)])
    assert code == 0 and all(list(line) == ["check", "value", "bound", "ok"] for line in lines)
    assert lines[2] == {"check": "x", "value": 0.25, "bound": "<= 1", "ok": True}


@pytest.mark.parametrize(
    ("checks", "code"),
    [([GOOD], 0), ([GOOD, BAD], 1), ([BAD], 1), ([GOOD, UNTRIED], 1), ([UNTRIED], 1), ([], 1), ([GOOD, GOOD], 0)],
)
def test_exit_code(checks: list[Check], code: int):
    assert exit_code(checks) == code


def test_what_could_not_be_tried_is_said(capsys):
    code, lines, err = report(capsys, one=[UNTRIED, GOOD])
    assert code == 1 and lines[0]["ok"] is None and lines[0]["value"] == "skipped: no data"
    assert "skipped: {" in err and "1 of 2 checks hold" in err


def test_an_error_in_one_group_does_not_hide_the_others(capsys):
    def broken():
        yield GOOD
        raise RuntimeError("exit code 1 of: a command")

    code, lines, err = report(capsys, one=broken, two=[GOOD])
    assert code == 1 and [line["ok"] for line in lines] == [True, False, True]
    assert lines[1]["check"] == "one/ran to its end" and "a command" in lines[1]["value"] and "Traceback" in err


def test_bounds():
    assert at_least("x", 0.95, 0.95).ok and not at_least("x", 0.949, 0.95).ok
    assert at_most("x", 600, 600).ok and not at_most("x", 600.1, 600).ok
    assert above("x", 1e-9, 0).ok and not above("x", 0.0, 0).ok
    assert between("x", 0.1, 0.1, 0.35).ok and not between("x", 0.36, 0.1, 0.35).ok
    for undefined in (None, math.nan, math.inf):
        wrong = at_most("x", undefined, 1)
        assert wrong.ok is False and json.loads(wrong.line)["ok"] is False


def test_fingerprint_follows_what_the_run_imports_and_nothing_else(tmp_path: Path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return fingerprint(tmp_path)

    with pytest.raises(FileNotFoundError, match=r"\.py"):
        fingerprint(tmp_path)
    for name, text in {
        "configs/default.py": "x = 1",
        "configs/tiny.py": "from configs import default",
        "fgrpo_jax/data/__init__.py": "",
        "fgrpo_jax/data/far.py": "x = 1",
        "fgrpo_jax/near.py": "def late():\n    import fgrpo_jax.data.far",
        "fgrpo_jax/train.py": "import os\nfrom fgrpo_jax import near",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seen = {fingerprint(tmp_path)}
    followed = ("configs/default.py", "fgrpo_jax/data/far.py", "fgrpo_jax/data/__init__.py")
    followed += ("fgrpo_jax/assets/w/a.json",)
    for name in followed:
        seen.add(write(name, "x = 2"))
    (tmp_path / "fgrpo_jax/data/far.py").rename(tmp_path / "fgrpo_jax/data/gone.py")
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 6
    for name in ("README.md", "fgrpo_jax/other.py", "configs/nlvr.py", "fgrpo_jax/assets/w/README.md"):
        assert write(name, "else") == fingerprint(tmp_path) and fingerprint(tmp_path) in seen


def test_fingerprint_reaches_every_part_of_a_run():
    names = {file.relative_to(ROOT).as_posix() for file in files()}
    for name in ("train", "config", "model/text", "data/world_scenes", "rollout/sampler", "rewards/score"):
        assert f"fgrpo_jax/{name}.py" in names
    assert {"configs/tiny.py", "configs/default.py", "fgrpo_jax/assets/warmstart/model.safetensors"} <= names
    assert not names & {"fgrpo_jax/sft.py", "fgrpo_jax/export.py", "configs/nlvr.py"}


# --------------------------------------------------------------------------------------------------- figures on file
def on_file(**changes) -> dict:
    figure = {"change": 0.2, "low": 0.1, "high": 0.3, "count": 500}
    names = ("accuracy", "consistency", "semantic_grounding", "spatial_grounding")
    seeds = [
        {"seconds": 500.0, "questions": 500, "logp_diff_mean": 1e-7, "figures": dict.fromkeys(names, figure)}
        | {"seed": seed}
        | changes
        for seed in readme_run.SEEDS
    ]
    return {"fingerprint": fingerprint(), "seeds": seeds}


def read_back(tmp_path: Path, content: dict | None) -> list[Check]:
    results = tmp_path / "main.json"
    if content is not None:
        results.write_text(json.dumps(content))
    return list(readme_run.checks(runs.Context(tmp_path, tmp_path, tmp_path, results)))


def test_figures_on_file_are_held_against_the_bounds(tmp_path: Path):
    assert exit_code(read_back(tmp_path, on_file())) == 0
    assert exit_code(read_back(tmp_path, on_file(seconds=601))) == 1
    assert exit_code(read_back(tmp_path, on_file(figures={"accuracy": {"change": 0.2}}))) == 1


def test_figures_of_other_code_and_missing_seeds_do_not_pass(tmp_path: Path):
    assert exit_code(read_back(tmp_path, None)) == 1
    assert exit_code(read_back(tmp_path, on_file() | {"fingerprint": "0" * 64})) == 1
    content = on_file()
    assert exit_code(read_back(tmp_path, content | {"seeds": content["seeds"][:2]})) == 1


# -------------------------------------------------------------------------------------------- the groups' own pieces
def test_the_hand_computed_batch_agrees_and_a_wrong_formula_would_not(tmp_path: Path, monkeypatch):
    context = runs.Context(tmp_path, tmp_path, tmp_path, tmp_path)
    assert exit_code(algebra.checks(context)) == 0
    monkeypatch.setattr(algebra, "LAMBDA", [2.0, 0.6])
    assert exit_code(algebra.checks(context)) == 1


def test_half_written_files_are_seen(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert refusals._broken(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    (tmp_path / "config.json.tmp").write_text("{}")
    assert sorted(refusals._broken(tmp_path)) == ["config.json.tmp", "metrics.jsonl"]


@pytest.mark.parametrize("area", check.AREAS)
def test_every_area_runs_the_groups_it_names(area: str, tmp_path: Path, monkeypatch):
    module = check.AREAS[area]
    monkeypatch.setattr(setup, "model_folder", lambda name: tmp_path)

    def names(*argv: str) -> list[str]:
        return [name for name, _ in module.groups(check.parser().parse_args([area, *argv]), tmp_path)]

    first, *others = module.GROUPS
    assert names() == [first, *others] and names(f"--only={first}") == [first] and names(f"--skip={first}") == others


def test_groups_can_be_chosen(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(setup, "model_folder", lambda name: tmp_path)

    def names(*argv: str) -> list[str]:
        args = check.parser().parse_args(["main", *argv])
        return [name for name, _ in check.main_area.groups(args, tmp_path)]

    assert names() == list(check.main_area.GROUPS) and names("--only=nlvr", "--only=resume") == ["resume", "nlvr"]
    assert "nlvr" not in names("--skip=nlvr") and names("--full") == ["readme_run"]


def test_the_docs_hold_the_figures_on_file():
    results = ROOT / "docs/checks/main.json"
    if not results.is_file():
        pytest.skip(f"no figures on file; make them with: {readme_run.COMMAND}")
    lines = readme_run.table(json.loads(results.read_text()))
    readme, docs = ((ROOT / name).read_text(encoding="utf8") for name in ("README.md", "docs/results.md"))
    assert [line for line in lines[:6] if line not in readme] == []
    assert [line for line in lines if line not in docs] == []
