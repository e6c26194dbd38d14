"""The processor of a checkpoint folder: its tokenizer, chat template and pixel limits turn examples into prompts.

The policy speaks of boxes in pixels of the processed first image; whatever is published is rewritten here, once.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Shape
from fgrpo_jax.data.chat import Chat
from fgrpo_jax.data.limits import PixelLimits, read_json
from fgrpo_jax.data.marks import MARK
from fgrpo_jax.data.prompts import EncodedPrompt, needed, stable_id
from fgrpo_jax.data.styles import PromptStyle, find_style
from fgrpo_jax.model import rope
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.reading.dialects import PAPER, Dialect
from fgrpo_jax.reading.parsing import moved
from fgrpo_jax.records import Example, ImageSize, Video

Grid = tuple[int, int, int]
"""(t, h, w) in patches of an image or a video; t counts pairs of frames."""


@dataclasses.dataclass(frozen=True)
class Processor:
    """Tokenizer, chat template and image limits of one checkpoint folder."""

    tokenizer: Any  # a fast tokenizer of `transformers`
    chat: Chat  # the folder's template
    config: ModelConfig  # the model's config, for placeholder ids, vocabulary and M-RoPE
    eos_ids: tuple[int, ...]  # any of them ends a completion; the first is the turn's end
    pad_id: int  # fills completions after their end; never used to find the end
    min_pixels: int  # limits of the processed image area, from the folder
    max_pixels: int
    banned: np.ndarray  # bool [V], ids that can never be sampled
    video_pixels: tuple[int, int] | None = None  # (min, max) of a processed video frame; None is that of an image

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Processor:
        """Reads a checkpoint folder in HF format. Needs neither torch nor torchvision.

        Raises:
          ValueError: a file is missing, or holds settings this package does not follow.
        """
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing: none is needed
        import transformers  # takes seconds, and only folders need it

        folder = pathlib.Path(folder)
        names = ("tokenizer.json", "tokenizer_config.json", "config.json")
        if missing := [folder / name for name in names if not (folder / name).is_file()]:
            raise ValueError(f"{missing[0]} does not exist; a checkpoint folder in HF format has {', '.join(names)}")
        limits = PixelLimits.load(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        config = ModelConfig.load(folder)
        banned = _banned(tokenizer, config)
        chat = Chat.load(folder, tokenizer, image_id=config.image_token_id)
        eos_ids = _eos_ids(folder, tokenizer, chat)
        pad_id = eos_ids[-1] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(tokenizer, chat, config, eos_ids, pad_id, *limits.image, banned, limits.video)

    def encode(
        self,
        example: Example,
        *,
        style: PromptStyle | str = "paper",
        system: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_prompt_tokens: int = 32768,
        prefill: str = "",
    ) -> EncodedPrompt:
        """Chat text, tokens and patches of one question: images, then videos, then the text.

        Where the question has marks (`data.marks`), its images stand there.

        Args:
          style: a `PromptStyle` or the name of a preset.
          system: another system turn than the style's.
          min_pixels, max_pixels: other limits than the folder's, of images and video frames.
          prefill: beginning of the answer, such as '<think>'. It is given, not drawn: it ends the prompt, and no
            rollout repeats it, so put it before a completion's text where the whole answer is wanted.

        Raises:
          ValueError: the example's text or the prefill holds reserved tokens, placeholders and images differ in number,
            the prompt is too long, or a video has no frames or no rate.
        """
        turns = self._turns(example, style, system)
        still, moving = self._limits(min_pixels, max_pixels)
        cut = [images.pixel_patches(image, **still) for image in example.images]
        cut += [images.video_patches(video.frames, **moving) for video in example.videos]
        seconds = tuple(_seconds_a_pair(video, name=example.id) for video in example.videos)
        grids = tuple(grid for _, grid, _ in cut)
        laid = self._laid_out(*turns, grids, seconds=seconds, prefill=prefill, name=example.id)
        if len(laid["tokens"]) > max_prompt_tokens:
            seen = int((laid["image_index"] >= 0).sum())
            limit = (moving if example.videos else still)["max_pixels"]
            raise ValueError(
                f"example {example.id!r}: a prompt of {len(laid['tokens'])} tokens ({seen} of images) exceeds "
                f"max_prompt_tokens {max_prompt_tokens}; raise it, lower max_pixels (now {limit}) or remove the example"
            )
        return EncodedPrompt(
            id=example.id,
            prompt_id=stable_id(example),
            patches=tuple(patches for slots, _, _ in cut for patches in slots),
            grids=grids,
            sizes=tuple(size for _, _, size in cut),
            seconds=seconds,
            **laid,
        )

    def reworded(self, prompt: EncodedPrompt, *, system: str, user: str, blind: bool = False) -> EncodedPrompt:
        """Another text about the same images and videos, whose patches are taken over, not cut anew.

        Args:
          prompt: what `encode` made of an example, maybe with another processor.
          user: the whole user turn after the images.
          blind: leave the images out.

        Raises:
          ValueError: the text holds reserved tokens.
        """
        if reserved := self._reserved.search(system + user):
            raise ValueError(f"example {prompt.id!r}: a turn holds the reserved token {reserved.group()!r}; remove it")
        if blind:
            prompt = dataclasses.replace(prompt, patches=(), grids=(), sizes=(), seconds=())
        laid = self._laid_out(system, (user,), prompt.grids, seconds=prompt.seconds, name=prompt.id)
        return dataclasses.replace(prompt, **laid)

    def measure(
        self,
        example: Example,
        *,
        style: PromptStyle | str = "paper",
        system: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        prefill: str = "",
    ) -> Shape:
        """What `encode` with these arguments would need of a batch, without resizing or cutting an image."""
        turns = self._turns(example, style, system)
        still, moving = self._limits(min_pixels, max_pixels)
        sides = [(1, *images.smart_resize(*image.shape[:2], **still)) for image in example.images]
        sides += [
            (-(-len(video.frames) // images.FRAMES), *images.smart_resize(*video.frames.shape[1:3], **moving))
            for video in example.videos
        ]
        grids = [(pairs, height // images.PATCH, width // images.PATCH) for pairs, height, width in sides]
        _, tokens, _, _ = self._tokens(*turns, grids, videos=len(example.videos), name=example.id)
        return needed(len(tokens) + len(self._response_ids(prefill, "a prefill")), grids)

    def encode_response(self, trace: str, size: ImageSize | None, *, dialect: Dialect = PAPER) -> np.ndarray:
        """int32 [t]: a reference response in pixels of the published image as completion ids, the turn's end included.

        Args:
          size: sizes of the first image; None without images.
          dialect: in whose notation boxes and points are found, and into whose frame they are moved.
        """
        if size is not None:
            trace = moved(trace, size, dialect=dialect, src="original", dst=dialect.frame)
        return np.append(self._response_ids(trace, "a response"), np.int32(self.eos_ids[0]))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of completion ids without those that end them; what else can be drawn is content, special or not."""
        ids = [int(index) for index in ids if index not in self.eos_ids]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of each id of the model's vocabulary, for stop sequences; b'' of those that end or are banned.

        Raises:
          ValueError: a token that is no spelling of bytes.
        """
        from transformers.convert_slow_tokenizer import bytes_to_unicode  # takes seconds, and few callers ask

        spelled = {char: byte for byte, char in bytes_to_unicode().items()}
        added = self.tokenizer.added_tokens_decoder
        out = [b""] * self.config.text.vocab_size
        for index, token in enumerate(self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))):
            if index in self.eos_ids or self.banned[index]:
                continue
            if index in added:
                out[index] = str(added[index]).encode()
            elif token is not None:
                if not spelled.keys() >= set(token):
                    why = "the tokenizer is not byte-level, as Qwen's are"
                    raise ValueError(f"token {index} {token!r} is no spelling of bytes: {why}")
                out[index] = bytes(spelled[char] for char in token)
        return tuple(out)

    def _response_ids(self, text: str, what: str) -> np.ndarray:
        if reserved := self._reserved.search(text):
            raise ValueError(f"{what} holds the reserved token {reserved.group()!r}; remove it from {text[:80]!r}")
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    @functools.cached_property
    def _reserved(self) -> re.Pattern[str]:
        """Tokens of the chat's layout. Others that are marked special, such as <|box_start|>, may stand in a text."""
        ids = {*self.chat.marks, *self.eos_ids, self.pad_id, self.config.image_token_id, self.config.video_token_id}
        added = self.tokenizer.added_tokens_decoder
        return re.compile("|".join(re.escape(str(added[index])) for index in sorted(ids) if index in added))

    def _turns(self, example: Example, style: PromptStyle | str, system: str | None) -> tuple[str, Sequence[str]]:
        """(system turn, user turn) of an example; the user turn in the pieces between which its images stand."""
        style = find_style(style)
        for text in (example.question, *example.options):
            if reserved := self._reserved.search(text):
                raise ValueError(
                    f"example {example.id!r}: its text holds the reserved token {reserved.group()!r}, which the chat "
                    "layout would take for its own; remove it"
                )
        user = style.user_text(example.question, example.options).split(MARK)
        if len(user) - 1 not in (0, len(example.images)):
            why = f"{len(user) - 1} {MARK} marks for {len(example.images)} images; give each image a mark, or none"
            raise ValueError(f"example {example.id!r}: {why}")
        return style.system if system is None else system, user

    def _limits(self, min_pixels: int | None, max_pixels: int | None) -> list[dict[str, int]]:
        """{min_pixels, max_pixels} of images and of video frames: those given, else the folder's."""
        own = (self.min_pixels, self.max_pixels)
        given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        given = {name: limit for name, limit in given.items() if limit is not None}
        return [{"min_pixels": low, "max_pixels": high, **given} for low, high in (own, self.video_pixels or own)]

    def _laid_out(
        self,
        system: str,
        user: Sequence[str],
        grids: Sequence[Grid],
        *,
        seconds: Sequence[float],
        name: str,
        prefill: str = "",
    ) -> dict[str, Any]:
        """The fields of an `EncodedPrompt` that follow from its two turns and the grids of its images and videos."""
        text, tokens, image_index, feature_index = self._tokens(system, user, grids, videos=len(seconds), name=name)
        if prefill:
            # It is tokenised by itself, as a reference response is, so that the two begin with the same tokens.
            given = self._response_ids(prefill, "a prefill")
            text, tokens = text + prefill, np.concatenate([tokens, given])
            image_index = np.pad(image_index, (0, len(given)), constant_values=-1)
            feature_index = np.pad(feature_index, (0, len(given)))
        positions, following = rope.mrope_positions(tokens, grids, self.config, video_seconds=list(seconds))
        laid = {"text": text, "tokens": tokens, "image_index": image_index, "feature_index": feature_index}
        return laid | {"positions": np.asarray(positions, np.int32), "next_position": int(following)}

    def _tokens(
        self, system: str, user: Sequence[str], grids: Sequence[Grid], *, videos: int, name: str
    ) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
        """(chat text, its tokens with each placeholder repeated to its merged tokens, the slot and feature of each)."""
        content = ["image"] * (len(grids) - videos) + ["video"] * videos
        # One piece stands after all images, more of them have an image in between; videos come after the last image.
        before = user[:-1] if len(user) > 1 else [""] * (len(grids) - videos)
        parts = [part for text in before for part in ({"type": "text", "text": text}, {"type": "image"})]
        parts += [*([{"type": "video"}] * videos), {"type": "text", "text": user[-1]}]
        parts = [part for part in parts if part.get("text") != ""]
        messages = [{"role": "user", "content": parts}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text = self.chat.render(messages)
        ids = np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
        holders = {"image": self.config.image_token_id, "video": self.config.video_token_id}
        places = np.flatnonzero(np.isin(ids, list(holders.values())))
        wanted = [holders[kind] for kind in content]
        if ids[places].tolist() != wanted:
            kind = next(
                (kind for kind, holder in holders.items() if (ids == holder).sum() != wanted.count(holder)), "image"
            )
            found = f"{(ids == holders[kind]).sum()} {kind} placeholders for {content.count(kind)} {kind}s"
            raise ValueError(f"example {name!r}: {found}; check the chat template in {self.chat.file}")
        features = np.array([t * h * w // images.MERGE**2 for t, h, w in grids], np.int32)
        repeats, visual = np.ones(len(ids), np.int32), np.full(len(ids), -1, np.int32)
        repeats[places], visual[places] = features, np.arange(len(grids))
        starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
        running, visual = np.arange(len(starts)) - starts, np.repeat(visual, repeats)
        # These are the first slot of each image or video and the features of a slot; text, at -1, reads the last entry.
        first = np.cumsum([0, *(t for t, _, _ in grids)])[[*range(len(grids)), 0]]
        a_slot = np.array([*(h * w // images.MERGE**2 for _, h, w in grids), 1])
        slot = np.where(visual < 0, -1, first[visual] + running // a_slot[visual])
        return text, np.repeat(ids, repeats), slot.astype(np.int32), (running % a_slot[visual]).astype(np.int32)


def _seconds_a_pair(video: Video, *, name: str) -> float:
    """Seconds from one pair of frames to the next, which is what the model's clock counts."""
    if not video.fps > 0:
        raise ValueError(f"example {name!r}: a video of {video.fps} frames a second; give the rate of its frames")
    return images.FRAMES / video.fps


def _banned(tokenizer: Any, config: ModelConfig) -> np.ndarray:
    """bool [V]: the placeholders of images and videos, and ids that the tokenizer does not know."""
    vocab = config.text.vocab_size
    if len(tokenizer) > vocab:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens but the model {vocab}; take both from one checkpoint"
        )
    placeholders = (config.image_token_id, config.video_token_id)
    return (np.arange(vocab) >= len(tokenizer)) | np.isin(np.arange(vocab), placeholders)


def _eos_ids(folder: pathlib.Path, tokenizer: Any, chat: Chat) -> tuple[int, ...]:
    """Every id that the folder's files call an end, the end of a turn first, which some of them do not name."""
    found = [chat.end, tokenizer.eos_token_id]
    for name in ("generation_config.json", "config.json"):
        content = read_json(folder / name) if (folder / name).is_file() else {}
        for section in (content, content.get("text_config") or {}):
            ids = section.get("eos_token_id")
            found += ids if isinstance(ids, list) else [ids]
    ends = tuple(dict.fromkeys(int(index) for index in found if index is not None))
    if not ends:
        raise ValueError(f"{folder} names no eos_token_id; add it to generation_config.json")
    return ends
