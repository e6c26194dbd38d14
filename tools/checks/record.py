"""One check: what was measured, against which bound, and whether it holds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """A line of output.

    Attributes:
      name: 'group/what'.
      value: what was measured, JSON types; for a check that could not be tried, 'skipped: ' and the reason.
      bound: what the value must satisfy, for people.
      ok: whether it does; None when it could not be tried here.
    """

    name: str
    value: Any
    bound: str
    ok: bool | None

    @property
    def line(self) -> str:
        """{"check": …, "value": …, "bound": …, "ok": …}"""
        fields = {"check": self.name, "value": self.value, "bound": self.bound, "ok": self.ok}
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)


def at_least(name: str, value: float | None, bound: float) -> Check:
    """value ≥ bound; a value that is undefined or not finite does not hold."""
    return _compared(name, value, f">= {bound:g}", lambda x: x >= bound)


def at_most(name: str, value: float | None, bound: float) -> Check:
    """value ≤ bound."""
    return _compared(name, value, f"<= {bound:g}", lambda x: x <= bound)


def above(name: str, value: float | None, bound: float) -> Check:
    """value > bound."""
    return _compared(name, value, f"> {bound:g}", lambda x: x > bound)


def below(name: str, value: float | None, bound: float) -> Check:
    """value < bound."""
    return _compared(name, value, f"< {bound:g}", lambda x: x < bound)


def between(name: str, value: float | None, low: float, high: float) -> Check:
    """low ≤ value ≤ high."""
    return _compared(name, value, f"between {low:g} and {high:g}", lambda x: low <= x <= high)


def same(name: str, value: Any, expected: Any) -> Check:
    """value == expected."""
    return Check(name, value, f"== {json.dumps(expected, ensure_ascii=False)}", value == expected)


def holds(name: str, ok: bool, value: Any, bound: str) -> Check:
    """A bound that is no comparison of numbers, put in words."""
    return Check(name, value, bound, bool(ok))


def skipped(name: str, reason: str, bound: str) -> Check:
    """A check that could not be tried here."""
    return Check(name, f"skipped: {reason}", bound, None)


def printed(checks: Iterable[Check]) -> int:
    """Prints a line a check as it comes; returns the exit code."""
    found = []
    for check in checks:
        print(check.line, flush=True)
        found.append(check)
    return exit_code(found)


def exit_code(checks: Iterable[Check]) -> int:
    """0 when there was something to check and all of it holds; what could not be tried does not hold."""
    found = [check.ok is True for check in checks]
    return 0 if found and all(found) else 1


def _compared(name: str, value: float | None, bound: str, test: Any) -> Check:
    if value is None or not math.isfinite(value):
        return Check(name, None if value is None else str(value), bound, False)
    return Check(name, float(value) if isinstance(value, float) else value, bound, bool(test(value)))
