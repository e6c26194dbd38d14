"""Names and numbers of what a run reports, and the writer of TensorBoard events.

One row a rollout step. Every name is in every row; a value that is undefined (no applicable rollout, a constraint
switched off) is None and becomes JSON null, never NaN and never left out.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, float | int | None]

PER_CONSTRAINT = ("mean", "applicable", "lambda", "violation", "saturated")

_COMMON = (
    "reward/task",
    "reward/accuracy",
    "reward/format",
    "loss/policy",
    "loss/kl",
    "sampler/logp_diff_max",
    "sampler/logp_diff_mean",
    "sampler/tokens",
    "sampler/tokens_per_second",
    "judge/failed",
    "optim/grad_norm",
    "optim/skipped",
    "optim/moved_share",
    "compile/count",
    "time/rollout",
    "time/reward",
    "time/learner",
    "time/data",
)

VOLATILE = (
    *("time/*", "*tokens_per_second", "compile/count"),
    *("judge/share_cache", "judge/share_model", "judge/requests", "judge/failure_rate"),  # what the cache held before
    *("judge/latency_*", "judge/tokens_*"),
)
"""Names, as patterns, that differ between two runs of the same seed on the same machine."""


def train_names(constraints: Sequence[str], *, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """The keys of a row of metrics.jsonl, in order.

    Args:
      constraints: names of all constraints, in force or not.
      extra: further names a door reports; declared once here so that no row lacks them.
    """
    per_constraint = [f"constraint/{name}/{what}" for name in constraints for what in PER_CONSTRAINT]
    shares = [f"advantage/share/{name}" for name in ("task", *constraints)]
    names = ("step", *_COMMON[:3], *per_constraint, *shares, *_COMMON[3:], *extra)
    return tuple(dict.fromkeys(names))


def number(value: Any) -> float | int | None:
    """A Python number of a scalar (numpy, jax or Python); None for None, NaN and infinities."""
    if value is None:
        return None
    value = value.item() if not isinstance(value, bool | int | float) else value
    if isinstance(value, bool):
        return int(value)
    return value if math.isfinite(value) else None


def violation(mean: float | None, threshold: float, *, direction: str) -> float | None:
    """How far a constraint is from being met, positive = violated: τ − mean for '>=', mean − τ for '<='."""
    if mean is None:
        return None
    return threshold - mean if direction == ">=" else mean - threshold


def row(names: Sequence[str], values: Mapping[str, Any]) -> Row:
    """All `names` in order, those without a value as None.

    Raises:
      ValueError: a value under a name that is not declared.
    """
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"metric '{unknown[0]}' is not declared; pass it as an extra name to train_names")
    return {name: number(values.get(name)) for name in names}


def up_to(step: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Keeps the rows of the steps that a checkpoint holds; a run that goes on from it writes the later ones again."""
    return lambda rows: [row for row in rows if row["step"] <= step]


def postfix(current: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, str]:
    """Figures for the progress bar: {label: metric name} → {label: text}; '–' where undefined."""
    texts = {}
    for label, name in shown.items():
        value = current.get(name)
        texts[label] = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return texts


# -------------------------------------------------------------------------------------------------------------- writers
class TensorBoardWriter:
    """Scalars as a TensorBoard event file, written by hand so that no TensorBoard is needed to run.

    The format is a sequence of TFRecords (length, crc, data, crc) of `Event` protocol buffers; a scalar needs four
    fields of it: wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5 (Summary.value = 1
    with tag = 1 and simple_value = 2).
    """

    def __init__(self, folder: str | os.PathLike[str]):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The time orders the files of a resumed run; TensorBoard reads them all and lets the later one win.
        self._file = (folder / f"events.out.tfevents.{time.time_ns() // 1000:d}.{os.getpid()}").open("wb")
        self._record(_field(3, b"brain.Event:2"))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the finite scalars of `values` at `step`."""
        present = {tag: number(value) for tag, value in values.items() if tag != "step"}
        body = b"".join(
            _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
            for tag, value in present.items()
            if value is not None
        )
        self._record(b"\x10" + _varint(step) + _field(5, body))

    def _record(self, event: bytes) -> None:
        data = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_crc(length) + data + _masked_crc(data))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(index: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return _varint(index << 3 | 2) + _varint(len(payload)) + payload


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # CRC-32C (Castagnoli), reflected
        table.append(byte)
    return tuple(table)


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`, as TFRecord files carry it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
