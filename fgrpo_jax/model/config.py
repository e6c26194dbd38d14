"""The shape of a Qwen2.5-VL model, read from and written to a Hugging Face `config.json`.

Two dialects exist: hub checkpoints are flat (`hidden_size` at the top, `rope_scaling`), transformers 5 nests
`text_config` with `rope_parameters`. A field that is absent takes the default of the transformers config class, because
that is what the reference reads; those differ from the released checkpoints (text eps 1e-5, tokens_per_second 4).
It imports nothing of the package, and no jax.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HUB_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}
_VISION_ALIASES = {"num_heads": "num_attention_heads", "depth": "num_hidden_layers"}
"""Other names that transformers takes for fields of the vision config."""
_FOREIGN = {
    "qwen2": "a text-only Qwen2.5 checkpoint",
    "qwen3": "a text-only Qwen3 checkpoint",
    "qwen2_vl": "a Qwen2-VL checkpoint",
    "qwen2_5_omni": "a Qwen2.5-Omni checkpoint",
    "qwen3_vl": "a Qwen3-VL checkpoint",
    "qwen3_vl_moe": "a Qwen3-VL mixture-of-experts checkpoint",
}
"""model_type of a config.json -> what the checkpoint is; of those that people may take for Qwen2.5-VL."""


def require_supported(config: Mapping[str, Any], name: str | Path) -> None:
    """Raises a ValueError, which says what the checkpoint `name` is, unless `config.json` is of plain Qwen2.5-VL."""
    kind = config.get("model_type", "qwen2_5_vl")
    if kind != "qwen2_5_vl":
        raise ValueError(
            f"{name} is {_FOREIGN.get(kind, 'another kind of model')} (model_type {kind!r}); only Qwen2.5-VL "
            "checkpoints (model_type 'qwen2_5_vl': 3B, 7B, 32B, 72B and fine-tunes of them) are supported"
        )
    if (how := config.get("quantization_config")) is not None:
        what = f"quantization_config in config.json, quant_method {how.get('quant_method')!r}"
        raise ValueError(f"{name} is quantised ({what}); only float weights are read: give what it was made of")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower; lengths in pixels where they say so, otherwise widths and counts."""

    depth: int = 32
    hidden_size: int = 3584
    num_heads: int = 16
    intermediate_size: int = 3420
    patch_size: int = 14  # pixels
    temporal_patch_size: int = 2  # frames
    spatial_merge_size: int = 2  # patches a side
    window_size: int = 112  # pixels
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    out_hidden_size: int = 3584
    tokens_per_second: int = 4
    in_channels: int = 3
    rope_theta: float = 10000.0

    def __post_init__(self):
        _divides("vision", "num_heads", self.num_heads, "hidden_size", self.hidden_size)
        if self.head_dim % 4:
            raise ValueError(f"vision head_dim is {self.head_dim}; 2-D rotary needs a multiple of 4")
        _divides("vision", "patch_size * spatial_merge_size", self.merge_pixels, "window_size", self.window_size)
        # The released configs name 7..31 whatever the depth; transformers ignores what is outside, and so do we.
        kept = tuple(i for i in self.fullatt_block_indexes if 0 <= i < self.depth)
        object.__setattr__(self, "fullatt_block_indexes", kept)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_width(self) -> int:
        """Numbers in one flattened patch: channels · frames · side²."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_pixels(self) -> int:
        return self.patch_size * self.spatial_merge_size

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The language model."""

    hidden_size: int = 8192
    num_layers: int = 80
    num_heads: int = 64
    num_kv_heads: int = 8
    head_dim: int = 128
    intermediate_size: int = 29568
    vocab_size: int = 152064
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-5
    mrope_section: tuple[int, ...] = (16, 24, 24)
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32768

    def __post_init__(self):
        _divides("text", "num_heads", self.num_heads, "hidden_size", self.hidden_size)
        _divides("text", "num_kv_heads", self.num_kv_heads, "num_heads", self.num_heads)
        if self.head_dim * self.num_heads != self.hidden_size:
            raise ValueError(
                f"text head_dim {self.head_dim} x num_heads {self.num_heads} must equal hidden_size {self.hidden_size}"
            )
        if 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(
                f"mrope_section {list(self.mrope_section)} sums to {sum(self.mrope_section)}, but half of head_dim "
                f"{self.head_dim} is {self.head_dim // 2}: give sections that sum to {self.head_dim // 2}"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Text, vision and the token ids that tie them together (read from the checkpoint, never assumed)."""

    text: TextConfig
    vision: VisionConfig
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    bos_token_id: int | None = 151643
    eos_token_id: int | tuple[int, ...] | None = 151645
    pad_token_id: int | None = None

    def __post_init__(self):
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise ValueError(
                f"vision out_hidden_size {self.vision.out_hidden_size} must equal text hidden_size "
                f"{self.text.hidden_size}: image tokens replace text embeddings"
            )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], name: str | Path = "this config") -> ModelConfig:
        """Parse a `config.json` mapping of either dialect; ValueError on what the model does not implement.

        Args:
          name: of the checkpoint, for the error where it is another model's.
        """
        require_supported(config, name)
        nested = config.get("text_config")
        source = config if nested is None else nested
        tied = bool(config.get("tie_word_embeddings", False)) or bool(source.get("tie_word_embeddings", False))
        ids = {name: config[name] for name in _TOKEN_IDS if name in config}
        ids |= {name: _frozen(source[name]) for name in _SPECIAL_IDS if name in source}
        return cls(_text_from_hf(source, tied=tied), _vision_from_hf(config.get("vision_config") or {}), **ids)

    def to_hf(self) -> dict[str, Any]:
        """The hub's flat dialect, complete: no field is left to a reader's default."""
        text = dataclasses.asdict(self.text)
        sections = list(text.pop("mrope_section"))
        text.pop("head_dim")
        eos = self.eos_token_id
        return {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            **{_HUB_NAMES.get(name, name): value for name, value in text.items()},
            "rope_scaling": {"type": "mrope", "mrope_section": sections},
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "use_sliding_window": False,
            **{name: getattr(self, name) for name in _TOKEN_IDS},
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
            "pad_token_id": self.pad_token_id,
            "vision_config": self._vision_to_hf(),
        }

    def _vision_to_hf(self) -> dict[str, Any]:
        vision = dataclasses.asdict(self.vision)
        theta = vision.pop("rope_theta")
        vision["fullatt_block_indexes"] = list(vision["fullatt_block_indexes"])
        if theta != VisionConfig.rope_theta:
            vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": theta}
        return {"model_type": "qwen2_5_vl", "hidden_act": "silu", **vision}

    @classmethod
    def load(cls, folder: str | Path) -> ModelConfig:
        """Read `folder/config.json`; FileNotFoundError names the file."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"no config.json in {folder}: expected a Hugging Face model folder")
        return cls.from_hf(json.loads(path.read_text(encoding="utf-8")), folder)


_TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_TEXT_PLAIN = (
    *("hidden_size", "num_layers", "num_heads", "intermediate_size", "vocab_size", "rms_norm_eps"),
    "max_position_embeddings",
)


def _text_from_hf(source: Mapping[str, Any], *, tied: bool) -> TextConfig:
    if source.get("use_sliding_window"):
        raise ValueError("use_sliding_window is true; sliding-window attention is not implemented (no release uses it)")
    if odd := sorted(set(source.get("layer_types") or ()) - {"full_attention"}):
        raise ValueError(f"layer_types name {', '.join(odd)}; only full attention is implemented, and released")
    _require_silu("text", source)
    base = {name: source.get(_HUB_NAMES.get(name, name), getattr(TextConfig, name)) for name in _TEXT_PLAIN}
    kv_heads = source.get("num_key_value_heads", TextConfig.num_kv_heads)
    rope = dict(source.get("rope_scaling") or source.get("rope_parameters") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise ValueError(f"rope type is {kind!r}; only 'default' / 'mrope' is implemented")
    head_dim = source.get("head_dim")
    return TextConfig(
        **base,
        num_kv_heads=base["num_heads"] if kv_heads is None else kv_heads,
        head_dim=base["hidden_size"] // base["num_heads"] if head_dim is None else head_dim,
        rope_theta=float(rope.get("rope_theta", source.get("rope_theta", TextConfig.rope_theta))),
        mrope_section=tuple(rope.get("mrope_section", TextConfig.mrope_section)),
        tie_word_embeddings=tied,
    )


def _vision_from_hf(source: Mapping[str, Any]) -> VisionConfig:
    _require_silu("vision", source)
    names = {field.name for field in dataclasses.fields(VisionConfig)} - {"rope_theta"}
    aliased = {name: source[alias] for name, alias in _VISION_ALIASES.items() if alias in source}
    fields = aliased | {name: _frozen(source[name]) for name in names if name in source}
    for name in ("patch_size", "temporal_patch_size"):
        if isinstance(fields.get(name), tuple):
            raise ValueError(f"vision {name} is {list(fields[name])}; only one number is supported")
    rope = source.get("rope_parameters") or {}
    theta = rope.get("rope_theta", source.get("rope_theta", VisionConfig.rope_theta))
    return VisionConfig(**fields, rope_theta=float(theta))


def _require_silu(part: str, source: Mapping[str, Any]) -> None:
    if source.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{part} hidden_act is {source['hidden_act']!r}; only 'silu' is implemented")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _divides(part: str, small_name: str, small: int, big_name: str, big: int) -> None:
    if small <= 0 or big % small:
        raise ValueError(f"{part} {big_name} {big} must be a multiple of {small_name} {small}")
