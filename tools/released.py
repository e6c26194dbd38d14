"""The four released sizes of Qwen2.5-VL: config.json as the hub has it, and their published parameter counts.

The counts are those the hub shows for each model (safetensors metadata; tied embeddings count once). What the configs
of 32B and 72B leave out takes the default of the transformers class.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

HUB: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf8"))
PARAMETERS = {"3B": 3_754_622_976, "7B": 8_292_166_656, "32B": 33_452_718_336, "72B": 73_410_777_344}


def flat(size: str) -> dict[str, Any]:
    """A fresh copy of a size's config.json."""
    return copy.deepcopy(HUB[size])


def nested(size: str) -> dict[str, Any]:
    """The same as transformers 5 writes it; needs transformers."""
    import transformers

    return transformers.Qwen2_5_VLConfig(**flat(size)).to_dict()


def both(size: str) -> dict[str, Any]:
    """The same as late releases of transformers 4 wrote it: `text_config`, and its fields at the top once more."""
    whole = flat(size)
    text = {key: value for key, value in whole.items() if key not in ("architectures", "vision_config")}
    return whole | {"text_config": text | {"model_type": "qwen2_5_vl_text"}}
