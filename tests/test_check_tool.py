"""tools/check.py: its lines, its exit code, its tables of tests, its fingerprint, and what it sees of the house."""

import json
import math
from pathlib import Path

import check
import pytest
from checks import areas, house, nodes, readme_run, runs
from checks.fingerprint import ROOT, files, fingerprint, of_code
from checks.record import Check, above, at_least, at_most, between, exit_code, holds, same, skipped

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
        assert write(name, "y = 3") == fingerprint(tmp_path) and fingerprint(tmp_path) in seen


CODE = '''
"""What it is."""
RATE = 0.05  # of the paper
"""A rate."""


class Rule:
    """One rule."""

    def step(self, x):
        """One step."""
        return x + RATE
'''


@pytest.mark.parametrize(
    ("old", "new", "same_code"),
    [
        ("What it is.", "What it is, said better.", True),
        ("# of the paper", "", True),
        ('"""A rate."""', "", True),
        ('"""One rule."""', '"""A rule\n\n    on two lines."""', True),
        ('        """One step."""\n', "", True),
        ("\n\n\nclass", "\n\nclass", True),
        ("0.05", "0.06", False),
        ("x + RATE", "x - RATE", False),
        ("return x", "return 'x'", False),
    ],
)
def test_words_change_no_fingerprint_and_numbers_do(old: str, new: str, same_code: bool):
    assert old in CODE
    assert (of_code(CODE.replace(old, new)) == of_code(CODE)) == same_code


def test_fingerprint_reaches_every_part_of_a_run():
    names = {file.relative_to(ROOT).as_posix() for file in files()}
    for name in ("train", "config/sections", "model/text", "world/scenes", "rollout/sampler", "rewards/score"):
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


# ------------------------------------------------------------------------------------------------------------- groups
def chosen(tmp_path: Path, *argv: str) -> list[str]:
    """The names of the groups that would run."""
    args = check.parser().parse_args(argv)
    context = runs.Context(tmp_path, tmp_path, tmp_path, tmp_path)
    return [name for name, _ in areas.chosen(args, check.AREAS[args.area].GROUPS, context)]


@pytest.mark.parametrize("area", check.AREAS)
def test_every_area_runs_the_groups_it_names(area: str, tmp_path: Path):
    first, *others = check.AREAS[area].GROUPS
    assert chosen(tmp_path, area) == [first, *others]
    assert chosen(tmp_path, area, f"--only={first}") == [first] and chosen(tmp_path, area, f"--skip={first}") == others


def test_groups_can_be_chosen(tmp_path: Path):
    assert chosen(tmp_path, "main", "--only=nlvr", "--only=resume") == ["resume", "nlvr"]
    assert "nlvr" not in chosen(tmp_path, "main", "--skip=nlvr")


def test_full_makes_the_runs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    seen = []
    monkeypatch.setattr(readme_run, "full", lambda context: seen.append(context.results) or iter([GOOD]))
    assert check.main(check.parser().parse_args(["main", "--full", f"--out={tmp_path / 'x.json'}"])) == 0
    assert seen == [tmp_path / "x.json"] and capsys.readouterr().out.count("\n") == 1


def test_every_part_of_a_group_gives_its_checks(tmp_path: Path):
    args = check.parser().parse_args(["main"])
    groups: areas.Groups = {"one": (lambda _: iter([GOOD]), lambda _: iter([BAD, UNTRIED]))}
    ((_, run),) = areas.chosen(args, groups, runs.Context(tmp_path, tmp_path, tmp_path, tmp_path))
    assert list(run()) == [GOOD, BAD, UNTRIED]


# ------------------------------------------------------------------------------------------------------ tables of tests
TABLES = {
    f"{area}/{part.group}": part
    for area, module in check.AREAS.items()
    for parts in module.GROUPS.values()
    for part in parts
    if isinstance(part, nodes.Nodes)
}


@pytest.mark.parametrize("table", TABLES)
def test_every_test_of_a_table_is_there(table: str):
    names = [node for row in TABLES[table].rows.values() for node in row.split()]
    assert names and [node for node in names if not nodes.exists(node)] == []
    assert TABLES[table].group in check.AREAS[table.partition("/")[0]].GROUPS


def test_what_is_not_there_is_seen():
    here = "test_check_tool.py"
    assert nodes.exists(here) and nodes.exists(f"{here}::test_bounds")
    for gone in ("test_nothing.py", f"{here}::test_nothing", f"{here}::report", f"{here}::test_bounds[1]"):
        assert not nodes.exists(gone), gone


def test_outcomes_of_a_row(tmp_path: Path):
    """Right, wrong, skipped, deselected as it stands, with cases and with a figure: as pytest itself reports them."""
    settings = ("[tool.pytest.ini_options]", """addopts = "-m 'not slow'\"""", 'markers = ["slow"]')
    (tmp_path / "pyproject.toml").write_text("\n".join(settings))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n"
        "def test_right(record_property): record_property('worst', '1e-7')\n"
        "def test_wrong(): assert 1 == 2\n"
        "def test_skipped(): pytest.skip('no data')\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_cases(n): assert n == 1\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "ROOT", tmp_path)
        rows = {"good": "test_right test_slow", "bad": "test_right test_wrong", "cases": "test_cases"}
        rows |= {"untried": "test_right test_skipped", "gone": "test_right test_gone"}
        rows = {claim: " ".join(f"test_it.py::{name}" for name in row.split()) for claim, row in rows.items()}
        table = nodes.Nodes("table", {**rows, "file": "test_it.py"})
        found = {c.name: c for c in table(runs.Context(tmp_path, tmp_path, tmp_path, tmp_path))}
    assert {name: c.ok for name, c in found.items()} == {
        "table/good": True,
        "table/bad": False,
        "table/cases": False,
        "table/untried": None,
        "table/gone": False,
        "table/file": False,
    }
    assert found["table/good"].value == {"passed": 2, "worst": "1e-7"}
    assert found["table/untried"].value == "skipped: test_skipped: no data"
    assert "test_wrong: assert 1 == 2" in found["table/bad"].value[0]
    assert "test_cases[2]" in found["table/cases"].value[0]
    assert found["table/gone"].value == ["test_it.py::test_gone did not run"]


def test_a_pytest_that_does_not_come_to_its_end_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_right(): pass\n}")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match=r"pytest ended with 2"):
        nodes.run(["test_it.py"], tmp_path / "report.xml")


# ----------------------------------------------------------------------------------------------------------- the house
def test_circles_of_modules_and_rooms():
    """For types, inside functions, by relative names, over several steps, and between rooms alone."""
    files = {
        "fgrpo_jax/__init__.py": "",
        "fgrpo_jax/a/__init__.py": "",
        "fgrpo_jax/a/one.py": "if TYPE_CHECKING:\n    from ..b import two",
        "fgrpo_jax/a/low.py": "import json",
        "fgrpo_jax/b/__init__.py": "",
        "fgrpo_jax/b/two.py": "def f():\n    from fgrpo_jax import c",
        "fgrpo_jax/c.py": "import fgrpo_jax.a.one",
        "fgrpo_jax/d.py": "from fgrpo_jax.c import x",
        "fgrpo_jax/e/up.py": "from fgrpo_jax.f.low import x",
        "fgrpo_jax/e/low.py": "",
        "fgrpo_jax/f/up.py": "from fgrpo_jax.e import low",
        "fgrpo_jax/f/low.py": "",
    }
    graph = house.imports(files)
    assert house.circles(graph) == ["fgrpo_jax.a.one", "fgrpo_jax.b.two", "fgrpo_jax.c"]
    assert house.circles(house.rooms(graph)) == [f"fgrpo_jax.{room}" for room in "abcef"]


def test_sizes_are_measured(monkeypatch: pytest.MonkeyPatch):
    long = "def f():\n" + "    pass\n" * 70
    rooms = {"fgrpo_jax": {"fgrpo_jax/x.py": long + "\n" * 400, "fgrpo_jax/room/y.py": "@cache\ndef g():\n    pass\n"}}
    monkeypatch.setattr(house, "tracked", lambda room: rooms.get(room, {"tools/z.py": "def h(): pass\n"}))
    found = {c.name.partition("/")[2]: c for c in house.sizes(runs.Context(ROOT, ROOT, ROOT, ROOT))}
    assert found["lines of fgrpo_jax"].value == 474 and found["modules on the package's top level"].value == 1
    assert found["files of fgrpo_jax over 450 lines"].value == ["fgrpo_jax/x.py: 471"]
    assert found["functions of fgrpo_jax over 70 lines"].value == ["fgrpo_jax/x.py:1 f: 71"]
    assert found["median function of fgrpo_jax, lines"].value == 36.5
    assert found["files of tools over 450 lines"].ok and found["functions of tools over 70 lines"].ok


def test_the_docs_hold_the_figures_on_file():
    results = ROOT / "docs/checks/main.json"
    if not results.is_file():
        pytest.skip(f"no figures on file; make them with: {readme_run.COMMAND}")
    lines = readme_run.table(json.loads(results.read_text()))
    readme, docs = ((ROOT / name).read_text(encoding="utf8") for name in ("README.md", "docs/results.md"))
    assert [line for line in lines[:6] if line not in readme] == []
    assert [line for line in lines if line not in docs] == []
