"""A small byte-level tokenizer with Qwen's special tokens and chat layout, trained in seconds, for small policies.

Any text can be written in it (its alphabet is the 256 bytes), and what a small spatial policy says most often costs one
token: a whole number of up to four digits, the tags of the paper's format, a common word with its leading space.
"""

from __future__ import annotations

import collections
import functools
import json
import pathlib
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from fgrpo_jax.data import images
from fgrpo_jax.model import pixels

# Qwen2.5's added tokens in the order of the released tokenizer; those of the second tuple are ordinary text to its
# decoder ("special" false), as published.
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
# One piece is: a closing tag with the bracket before it and the tag or full stop after it; an opening tag with its
# bracket and the words that lead up to a box; a word with its leading space; an option's letter with its line break; up
# to four digits with their comma; one mark; one blank. Fewer and surer steps for a small policy: a box is five tokens.
PIECES = (
    r"\]?</\p{L}+>(?:<\p{L}+>|\.)?|(?: is at)? ?<\p{L}+>\[?|\n[A-Z]\.(?= )| ?\p{L}+|\p{N}{1,4},?|[^\s\p{L}\p{N}]|\s"
)

CELL_NUMBERS = tuple(str(number) for number in range(0, 141, 7))  # coordinates on the built-in world's grid of cells
TAGS = (
    *("system", "user", "assistant"),  # the roles of every prompt
    *("<think>", "</think>", "</think><answer>", "<answer>", "</answer>"),
    *("<bbox>[", " is at <bbox>[", "]</bbox>", "]</bbox>."),
    *(f"{number}," for number in CELL_NUMBERS),
)

# Our wording of Qwen2.5-VL's chat layout: turns between im_start and im_end, a default system turn, one placeholder an
# image or video, to be repeated to its number of merged tokens.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def train(
    corpus: Iterable[str], *, vocab_size: int = 640, atoms: Iterable[str] = (*TAGS, *CELL_NUMBERS)
) -> tokenizers.Tokenizer:
    """Trains the tokenizer on texts: atoms first, then whole pieces by what they save, then byte-pair merges.

    A whole piece needs no merges of its own (`ignore_merges`), so that no place of a small vocabulary goes to halves of
    words; the merges serve the words that the corpus does not have.

    Args:
      corpus: texts like those the policy will read and write.
      vocab_size: all tokens: 256 bytes, 22 added tokens, the rest learnt. A poor corpus may fill fewer.
      atoms: texts that must each become one token, whatever their frequency.

    Raises:
      ValueError: an atom is not one piece, or the vocabulary is too small for the atoms.
    """
    texts, atoms = list(corpus), tuple(dict.fromkeys(atoms))
    pieces = collections.Counter(piece for text in texts for piece in _pieces(text))
    room = vocab_size - len(SPECIAL) - len(ADDED)
    vocab = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab += [atom for atom in map(_one_piece, atoms) if len(atom) > 1]
    if room < len(vocab):
        raise ValueError(
            f"vocab_size {vocab_size} is below {vocab_size - room + len(vocab)}: bytes, atoms, added tokens"
        )
    known = set(vocab)
    whole = [piece for piece, count in pieces.items() if len(piece) > 1 and count > 1 and piece not in known]
    whole.sort(key=lambda piece: (-pieces[piece] * (len(piece) - 1), piece))
    vocab += whole[: room - len(vocab)]
    merges = _learn_merges(texts, vocab, room=room)
    model = models.BPE({token: index for index, token in enumerate(vocab)}, merges, ignore_merges=True)
    return _assemble(model)


def _learn_merges(texts: list[str], vocab: list[str], *, room: int) -> list[tuple[str, str]]:
    """Byte-pair merges whose results fit into the room left; extends `vocab` by those results."""
    tokenizer = _assemble(models.BPE(), added=False)
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    known, merges = set(vocab), []
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        if left + right not in known:
            if len(vocab) == room:
                break
            vocab.append(left + right)
            known.add(left + right)
        merges.append((left, right))
    return merges


@functools.cache
def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pieces(text: str) -> list[str]:
    """The pieces of a text in the byte alphabet (one character a byte)."""
    return [piece for piece, _ in _pre_tokenizer().pre_tokenize_str(text)]


def _one_piece(atom: str) -> str:
    pieces = _pieces(atom)
    if len(pieces) != 1:
        raise ValueError(f"the atom {atom!r} is {len(pieces)} pieces ({', '.join(pieces)}); it can't become one token")
    return pieces[0]


def _assemble(model: models.Model, *, added: bool = True) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    if added:
        tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in SPECIAL])
        tokenizer.add_tokens([tokenizers.AddedToken(text, special=False, normalized=False) for text in ADDED])
    return tokenizer


# ------------------------------------------------------------------------------------------------------------- files
def save(folder: str | pathlib.Path, tokenizer: tokenizers.Tokenizer, *, min_pixels: int, max_pixels: int) -> None:
    """Writes the tokenizer and the files that travel with it in HF format.

    `tokenizer.json`, `tokenizer_config.json` (chat template in it), `preprocessor_config.json` with the pixel limits,
    and `generation_config.json` with two EOS ids and the released repetition penalty.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
    _write(folder / "preprocessor_config.json", _preprocessor_config(min_pixels=min_pixels, max_pixels=max_pixels))
    _write(folder / "generation_config.json", _generation_config(tokenizer))


def token_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """The ids a model config needs, by the names it has for them."""
    names = {
        "bos_token_id": "<|endoftext|>",
        "eos_token_id": "<|im_end|>",
        "pad_token_id": "<|endoftext|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "vision_token_id": "<|vision_pad|>",
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
    }
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    if missing := [token for token in names.values() if token not in vocab]:
        raise ValueError(f"the tokenizer lacks Qwen's tokens {', '.join(missing)}; train it with tokenizer.train")
    return {name: vocab[token] for name, token in names.items()}


def _tokenizer_config(tokenizer: tokenizers.Tokenizer) -> dict:
    decoder = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in SPECIAL,
        }
        for token in (*SPECIAL, *ADDED)
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [token for token in SPECIAL if token != "<|endoftext|>"],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "unk_token": None,
    }


def _preprocessor_config(*, min_pixels: int, max_pixels: int) -> dict:
    return {
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "patch_size": images.PATCH,
        "temporal_patch_size": images.FRAMES,
        "merge_size": images.MERGE,
        "image_mean": list(pixels.MEAN),
        "image_std": list(pixels.STD),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }


def _generation_config(tokenizer: tokenizers.Tokenizer) -> dict:
    ids = token_ids(tokenizer)
    return {
        "bos_token_id": ids["bos_token_id"],
        "pad_token_id": ids["pad_token_id"],
        "do_sample": True,
        "eos_token_id": [ids["eos_token_id"], ids["pad_token_id"]],
        "repetition_penalty": 1.05,
        "temperature": 0.000001,
    }


def _write(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
