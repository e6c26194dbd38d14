"""What others make of an export: transformers loads it without a word; its layout is that of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_random_checkpoint as random_checkpoint

from checks import runs
from checks.record import Check, same, skipped
from fgrpo_jax import export
from fgrpo_jax.weights.leaves import hub_name
from fgrpo_jax.weights.shards import Shards


def checks(scratch: Path, policy: Path) -> Iterator[Check]:
    """A small export is loaded; of a model of the 3B shape with two layers, every name and shape is compared."""
    try:
        import torch
        import transformers
    except ImportError:
        yield skipped("elsewhere/transformers", "torch is not installed (the 'test' extra)", "no missing keys")
        return
    small, big = scratch / "small", scratch / "3B"
    runs.door("convert", f"--hf={policy}", f"--out={scratch / 'c'}").require()
    export.export(scratch / "c", small, shard_bytes=2e6)
    info = _load(small)
    yield same("elsewhere/a small export: what transformers misses or does not know", _said(info), {})
    config = random_checkpoint.released_config("3B", layers=2)
    random_checkpoint.write(scratch / "hf", config, dtype="bfloat16", shard_bytes=1e9)
    runs.door("convert", f"--hf={scratch / 'hf'}", f"--out={scratch / 'c3B'}").require()
    runs.door("export", f"--checkpoint={scratch / 'c3B'}", f"--out={big}", "--shard_gb=1").require()
    with torch.device("meta"):
        parsed = transformers.Qwen2_5_VLConfig.from_pretrained(big)
        theirs = transformers.Qwen2_5_VLForConditionalGeneration(parsed)
    wanted = {hub_name(name): list(value.shape) for name, value in theirs.named_parameters()}
    found = {name: list(tensor.shape) for name, tensor in Shards(big).tensors.items()}
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    yield same(f"elsewhere/3B shape: names or shapes of {len(found)} that transformers has otherwise", odd, [])
    info = _load(big, dtype=torch.bfloat16)
    yield same("elsewhere/3B shape: what transformers misses or does not know", _said(info), {})
    yield from _layout(big)


def _load(folder: Path, **options: Any) -> dict[str, Any]:
    """What transformers says of the names when it loads a folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration as TheirModel

    loaded: Any = TheirModel.from_pretrained(folder, output_loading_info=True, **options)
    return loaded[1]


def _said(info: dict) -> dict[str, list[str]]:
    return {kind: sorted(map(str, names)) for kind, names in info.items() if names}


def _layout(folder: Path) -> Iterator[Check]:
    """What vLLM and other readers of the hub's layout go by."""
    config = json.loads((folder / "config.json").read_text())
    seen = {name: config.get(name) for name in ("architectures", "model_type", "torch_dtype")}
    hub = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "torch_dtype": "bfloat16",
    }
    yield same("elsewhere/config in the hub's dialect", seen, hub)
    prefixes = sorted({name.split(".")[0] for name in Shards(folder).tensors})
    yield same("elsewhere/first parts of the tensors' names (tied: no lm_head)", prefixes, ["model", "visual"])
