"""`convert --verify`: the table of parts, and that it notices a model that is off."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jax
import pytest

from fgrpo_jax import command, convert
from fgrpo_jax.weights import importer

pytest.importorskip("torch", reason="--verify compares with transformers, which needs torch (the 'test' extra)")

PARTS = (
    *("image patches", "positions", "patch embed", "vision rotary", "window block", "full block", "merger"),
    *("text rotary", "decoder layer", "logits"),
)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = command.run(convert.main, convert.parser(), argv)
    said = capsys.readouterr()
    return code, said.out, said.err


def off(table: str) -> list[str]:
    return [part for part in PARTS if re.search(rf"^{part} .* NO$", table, re.MULTILINE)]


def test_a_checkpoint_agrees_part_by_part(tiny_hf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, f"--hf={tiny_hf}", "--verify")
    print(out)
    assert code == 0, out + err
    assert [part for part in PARTS if re.search(rf"^{part} .* yes$", out, re.MULTILINE)] == list(PARTS)
    assert "all parts agree" in out and "max abs" in out and "tolerance" in out


def test_a_model_that_is_off_is_noticed_and_not_converted(
    tiny_hf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two weights a thousandth off: their parts, and the logits behind them, and nothing else."""
    load = importer.load_hf

    def spoilt(*args: object, **settings: object) -> dict:
        params = jax.tree.map(lambda x: x, load(*args, **settings))
        for part in (params["visual"]["merger"]["fc2"], params["text"]["layers"]["mlp"]["down"]):
            part["kernel"] = part["kernel"] * 1.001
        return params

    monkeypatch.setattr(importer, "load_hf", spoilt)
    code, out, err = run(capsys, f"--hf={tiny_hf}", "--verify", f"--out={tmp_path / 'c'}")
    assert code == 1 and not err.startswith("error") and not (tmp_path / "c").exists()
    assert off(out) == ["merger", "decoder layer", "logits"]
    assert "beyond tolerance: merger, decoder layer, logits" in out


def test_without_torch_the_remedy_is_told(
    tiny_hf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(capsys, f"--hf={tiny_hf}", "--verify")
    assert code == 1 and "needs torch: pip install torch" in err and "Traceback" not in err


def test_there_must_be_something_to_do(tiny_hf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, f"--hf={tiny_hf}")
    assert code == 1 and "give --out=CHECKPOINTS, --verify or both" in err
