"""The numbers the FGRPO paper prints, shipped as data (`fgrpo_jax/assets/paper`), so that a run stands beside them.

Only what the paper states is there; what it leaves out is null. They were judged by another judge, and answers were
extracted by another model, than a run's own may be: the files name both.
"""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from typing import Any

FILES = ("table1", "ablations")


@dataclasses.dataclass(frozen=True)
class Row:
    """One policy of the paper: averages over the seven benchmarks in percent, None where the paper gives none.

    `sets` holds its accuracy on each of the seven; {} where only the average is printed.
    """

    name: str
    size: str
    accuracy: float
    inconsistency: float | None
    semantic: float | None
    sets: dict[str, float]


def load(name: str) -> dict[str, Any]:
    """One of FILES as it is."""
    return json.loads((resources.files("fgrpo_jax") / "assets" / "paper" / f"{name}.json").read_text(encoding="utf-8"))


def rows(*names: str) -> list[Row]:
    """The rows of FILES, or of some of them."""
    return [Row(**row) for name in names or FILES for row in load(name)["rows"]]


def about() -> str:
    """Where the numbers come from, in one sentence."""
    table = load("table1")
    return (
        f"paper: {table['source']} ({table['unit']}; judge {table['judge']}, answers extracted by {table['extractor']})"
    )
