"""Answers in LaTeX, compared as mathematics by math-verify, in a process of its own.

What a policy writes can take for ever to evaluate ('9^{9^{9^9}}'), which neither a thread nor a signal ends: the
process is killed instead, and the answer is wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import re
import subprocess
import sys
import threading

SECONDS = 5.0  # of one comparison
_LONGEST = 300  # characters of an answer
_LATEX = re.compile(r"\\[A-Za-z]{2,}|\^\s?(?:[^\W_]|[{(])|\$\S[^$]{0,200}\$(?!\d)")


def is_latex(text: str) -> bool:
    """Whether a text is written as mathematics: a command, a power, or a formula between dollars."""
    return _LATEX.search(text) is not None


def require_math() -> None:
    """Raises a ValueError where math-verify, which grades answers in LaTeX, is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ValueError(
            "gold answers in LaTeX are graded by math-verify, which is not installed; pip install 'fgrpo-jax[math]'"
        )


@functools.lru_cache(maxsize=1 << 12)
def same_formula(given: str, gold: str) -> bool:
    """Whether two answers are equal as mathematics; errors as of `require_math`."""
    require_math()
    return len(given) <= _LONGEST and _GRADER.same(given, gold)


class _Grader:
    """The process, started when first asked and again after it was killed. Callers of all threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def same(self, given: str, gold: str) -> bool:
        """Whether two formulas are equal; one that takes longer than SECONDS is not."""
        with self._lock:
            if self._process is None:
                command = [sys.executable, "-P", __file__]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                self._ask(self._process, "", "", seconds=120.0)  # until sympy is imported
                if self._process is None:
                    raise RuntimeError("math-verify does not start; see what `python -c 'import math_verify'` says")
            return self._ask(self._process, given, gold, seconds=SECONDS)

    def _ask(self, process: subprocess.Popen[str], given: str, gold: str, *, seconds: float) -> bool:
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([given, gold]) + "\n")
                process.stdin.flush()
            said = process.stdout.readline()
        finally:
            timer.cancel()
        if not said:
            self.close()
        return said.strip() == "true"

    def close(self) -> None:
        """Ends the process, which may be gone already."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_GRADER = _Grader()
atexit.register(_GRADER.close)


def _serve() -> None:
    """Answers each line, a JSON list of a given and a gold formula, with true or false."""
    from math_verify import parse, verify  # pyright: ignore[reportMissingImports]

    for line in sys.stdin:
        given, gold = ([*parse(f"${text.strip(' $')}$")] for text in json.loads(line))
        print(json.dumps(bool(verify(gold, given))), flush=True)


if __name__ == "__main__":
    _serve()
