"""tools/bench_device.py: what is in its file is not measured again, what failed is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench_device
import pytest


def test_a_second_call_runs_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def whole(_: Any) -> dict[str, Any]:
        ran.append("whole")
        return {"ms": 1.0}

    def failing(_: Any) -> dict[str, Any]:
        ran.append("failing")
        if ran.count("failing") == 1:
            raise MemoryError("out of memory")
        return {"ms": 2.0}

    monkeypatch.setattr(bench_device, "PARTS", {"failing": failing, "whole": whole})
    monkeypatch.setattr(bench_device.Bench, "create", lambda *_: None)
    file = tmp_path / "out.json"
    args = bench_device.parser().parse_args([f"--out={file}", "--shape=tiny"])
    assert bench_device.main(args) == 1
    assert json.loads(file.read_text())["tiny failing"]["error"] == "MemoryError: out of memory"
    assert bench_device.main(args) == 0
    assert ran == ["failing", "whole", "failing"]
    found = json.loads(file.read_text())
    assert found["tiny failing"]["ms"] == 2 and found["tiny whole"]["ms"] == 1 and found["device"]
    args.parts = "nothing"
    with pytest.raises(ValueError, match="there is no nothing; there are failing, whole"):
        bench_device.main(args)
