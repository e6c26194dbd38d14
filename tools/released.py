"""The four released sizes of Qwen2.5-VL: config.json as the hub has it, and their published parameter counts.

The counts are those the hub shows for each model (safetensors metadata; tied embeddings count once).
"""

from __future__ import annotations

import copy
from typing import Any

_COMMON: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 128000,
    "model_type": "qwen2_5_vl",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
_VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
# What 32B and 72B leave out takes the default of the transformers class.
_VISION_BRIEF: dict[str, Any] = {
    "hidden_size": 1280,
    "in_chans": 3,
    "intermediate_size": 3456,
    "model_type": "qwen2_5_vl",
    "spatial_patch_size": 14,
    "tokens_per_second": 2,
    "torch_dtype": "bfloat16",
}


def _size(vision: dict[str, Any], *, width: int, layers: int, heads: int, kv: int, mlp: int, **more: Any) -> dict:
    text = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
    }
    more = {"vocab_size": 152064, "max_window_layers": layers, "tie_word_embeddings": False, **more}
    return _COMMON | text | more | {"vision_config": vision | {"out_hidden_size": width}}


HUB: dict[str, dict[str, Any]] = {
    "3B": _size(
        _VISION,
        width=2048,
        layers=36,
        heads=16,
        kv=2,
        mlp=11008,
        vocab_size=151936,
        max_window_layers=70,
        tie_word_embeddings=True,
    ),
    "7B": _size(_VISION, width=3584, layers=28, heads=28, kv=4, mlp=18944),
    "32B": _size(_VISION_BRIEF, width=5120, layers=64, heads=40, kv=8, mlp=27648, pad_token_id=151643),
    "72B": _size(_VISION_BRIEF, width=8192, layers=80, heads=64, kv=8, mlp=29568),
}
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
