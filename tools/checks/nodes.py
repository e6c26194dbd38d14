"""Checks that a test makes already: a table of rows, each a few tests by their pytest names, run once a group."""

from __future__ import annotations

import ast
import collections
import dataclasses
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from checks import runs
from checks.record import Check

TESTS = "tests"
BOUND = "every test passes"


@dataclasses.dataclass(frozen=True)
class Case:
    """What became of one case of a test: 'passed', 'failed' or 'skipped', why, and the figures it recorded."""

    outcome: str
    why: str
    figures: Mapping[str, str]


Outcomes = Mapping[str, list[Case]]
"""Cases by file and function."""


@dataclasses.dataclass(frozen=True)
class Nodes:
    """A group's table.

    Attributes:
      group: name of the group.
      rows: what is claimed → the tests that show it, by their pytest names from the folder tests/ on, with blanks
        between: a test, or all of a file. Every case of them must pass.
    """

    group: str
    rows: Mapping[str, str]

    def __call__(self, context: runs.Context) -> Iterator[Check]:
        """Runs the tests of all rows in one process of pytest, those marked slow included; a check a row."""
        there = sorted({node for names in self.rows.values() for node in names.split() if exists(node)})
        outcomes = run(there, context.scratch / f"{self.group}.xml") if there else {}
        for claim, names in self.rows.items():
            yield verdict(f"{self.group}/{claim}", names.split(), outcomes)


def tables(area: str) -> Mapping[str, tuple[Nodes]]:
    """The groups of an area that tables.toml describes."""
    described = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))[area]
    return {group: (Nodes(group, rows),) for group, rows in described.items()}


def exists(node: str) -> bool:
    """Whether a file of tests is there, or a test of this name in its file."""
    name, _, function = node.partition("::")
    file = runs.ROOT / TESTS / name
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
    tests = {item.name for item in tree.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")}
    return function in tests if function else bool(tests)


def covers(node: str, test: str) -> bool:
    """Whether a row's name, of a file or of one test, means this test."""
    return node in (test, test.partition("::")[0])


def run(nodes: Iterable[str], report: Path) -> Outcomes:
    """What became of each test.

    Raises:
      RuntimeError: pytest came to no report, with the end of what it said.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    flags = ["-q", "-m", "", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    done = runs.python("-m", "pytest", *flags, *(runs.ROOT / TESTS / node for node in nodes))
    if not report.is_file() or done.code not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.code}: {done.command}\n{(done.out + done.err)[-3000:]}")
    return read(report)


def read(report: Path) -> Outcomes:
    """The outcomes of a JUnit report of the family xunit1, whose cases name their file."""
    found = collections.defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        outcome, why, name = "passed", "", case.get("name", "")
        file = case.get("file", "").removeprefix(f"{TESTS}/")
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                why = f"{name}: {child.get('message', '')}"[:300]
        figures = {figure.get("name", ""): figure.get("value", "") for figure in case.iter("property")}
        found[f"{file}::{name.partition('[')[0]}"].append(Case(outcome, why, figures))
    return found


def verdict(name: str, nodes: Iterable[str], outcomes: Outcomes) -> Check:
    """A row's check: not ok with a test that failed or did not run, untried with one that was skipped."""
    cases = {node: [c for key, found in outcomes.items() if covers(node, key) for c in found] for node in nodes}
    every = [case for found in cases.values() for case in found]
    failed = [f"{node} did not run" for node, found in cases.items() if not found]
    failed += [case.why for case in every if case.outcome == "failed"]
    if failed:
        return Check(name, failed[:5], BOUND, False)
    if skips := [case.why for case in every if case.outcome == "skipped"]:
        return Check(name, f"skipped: {skips[0]}", BOUND, None)
    figures = {key: value for case in every for key, value in case.figures.items()}
    return Check(name, {"passed": len(every), **figures}, BOUND, True)
