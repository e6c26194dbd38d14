"""Prompts: an example becomes chat text, tokens, positions and patches; encoded prompts become one static batch.

    example ──Processor.encode──▶ EncodedPrompt (ragged, patches still 8-bit) ──collate──▶ PromptBatch (padded)
    trace ──Processor.encode_response──▶ completion ids, boxes moved into the processed frame

The policy speaks of boxes in pixels of the processed first image; whatever is published is rewritten here, once.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets, Shape, rung
from fgrpo_jax.data.limits import PixelLimits, read_json
from fgrpo_jax.data.styles import PromptStyle, find_style
from fgrpo_jax.model import rope
from fgrpo_jax.model.config import ModelConfig
from fgrpo_jax.reading.frames import convert_boxes_in_text
from fgrpo_jax.records import Example, ImageSize, PromptBatch, Video, VisionInputs


# ------------------------------------------------------------------------------------------------------------ records
@dataclasses.dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, ready to be padded. s = its tokens, n = patches of an image.

    An image takes one slot; a video takes a slot for each pair of its frames, since pairs never see each other.
    """

    id: str
    prompt_id: int  # uint32, the same for the same example in every run
    text: str  # the chat text, one placeholder an image or video
    tokens: np.ndarray  # int32 [s]
    positions: np.ndarray  # int32 [s, 3]    M-RoPE
    next_position: int
    image_index: np.ndarray  # int32 [s]     which slot feeds this token; -1 for text
    feature_index: np.ndarray  # int32 [s]   which merged token of that slot; 0 for text
    patches: tuple[np.ndarray, ...]  # uint8 a slot, merge-block order, not normalised: [n, 3, 14, 14] an image,
    #                                  [n, 3, 2, 14, 14] a pair of frames
    grids: tuple[tuple[int, int, int], ...]  # (t, h, w) in patches, of each image and then of each video
    sizes: tuple[ImageSize, ...]  # of each image and then of the frames of each video
    seconds: tuple[float, ...] = ()  # of each video, from one pair of frames to the next

    @property
    def first_size(self) -> ImageSize:
        """Sizes of the first image (or video), whose processed frame the policy speaks; all 0 when there is none."""
        return self.sizes[0] if self.sizes else ImageSize(0, 0, 0, 0)

    @property
    def need(self) -> Shape:
        """The shape that holds this prompt and no more."""
        return needed(len(self.tokens), self.grids)

    @property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(h, w) in patches of each slot."""
        return tuple((h, w) for t, h, w in self.grids for _ in range(t))

    def image_slot(self, features: int) -> np.ndarray:
        """int32 [s]: index into the prompt's image features laid out with F = `features` an image; -1 for text."""
        return np.where(self.image_index < 0, -1, self.image_index * features + self.feature_index).astype(np.int32)


def needed(tokens: int, grids: Sequence[tuple[int, int, int]]) -> Shape:
    """The shape that holds a prompt of so many tokens, and images and videos of these patch grids (t, h, w)."""
    return Shape(
        prompt=tokens,
        patches=max((h * w for _, h, w in grids), default=0),
        images=sum(t for t, _, _ in grids),
        windows=max((images.count_windows(h, w) for _, h, w in grids), default=0),
    )


def stable_id(example: Example) -> int:
    """uint32 that names a prompt in sampling keys, whatever the order or the process."""
    return zlib.crc32(f"{example.source}/{example.id}".encode())


# ---------------------------------------------------------------------------------------------------------- processor
@dataclasses.dataclass(frozen=True)
class Processor:
    """Tokenizer, chat template and image limits of one checkpoint folder.

    Attributes:
      tokenizer: a fast tokenizer of `transformers`.
      config: the model's config, for placeholder ids, vocabulary and M-RoPE.
      eos_ids: any of them ends a completion; the first is the turn's end.
      pad_id: fills completions after their end; never used to find the end.
      min_pixels, max_pixels: limits of the processed image area, from the folder.
      video_pixels: (min, max) of the processed area of a video frame, from the folder; None is that of an image.
      repetition_penalty: always 1.0, though released folders say 1.05: the learner's log-probs know of no penalty.
      banned: bool [V], ids that can never be sampled.
    """

    tokenizer: Any
    config: ModelConfig
    eos_ids: tuple[int, ...]
    pad_id: int
    min_pixels: int
    max_pixels: int
    banned: np.ndarray
    repetition_penalty: float = 1.0
    video_pixels: tuple[int, int] | None = None

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Processor:
        """Reads a checkpoint folder in HF format. Needs neither torch nor torchvision.

        Raises:
          ValueError: a file is missing, or holds settings this package does not follow.
        """
        import transformers  # takes seconds, and only folders need it

        folder = pathlib.Path(folder)
        _need(folder, "tokenizer.json", "tokenizer_config.json", "config.json")
        limits = PixelLimits.load(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        if tokenizer.chat_template is None and (folder / "chat_template.json").is_file():
            tokenizer.chat_template = read_json(folder / "chat_template.json").get("chat_template")
        if tokenizer.chat_template is None:
            raise ValueError(f"{folder} has no chat template; copy tokenizer_config.json or chat_template.jinja to it")
        config = ModelConfig.load(folder)
        eos_ids = _eos_ids(folder, tokenizer)
        pad_id = tokenizer.pad_token_id
        return cls(
            tokenizer=tokenizer,
            config=config,
            eos_ids=eos_ids,
            pad_id=eos_ids[-1] if pad_id is None else pad_id,
            min_pixels=limits.image[0],
            max_pixels=limits.image[1],
            banned=_banned(tokenizer, config, eos_ids),
            video_pixels=limits.video,
        )

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
        style = find_style(style) if isinstance(style, str) else style
        system = style.system if system is None else system
        low = self.min_pixels if min_pixels is None else min_pixels
        high = self.max_pixels if max_pixels is None else max_pixels
        self._refuse_reserved(example)
        cut = [images.pixel_patches(image, min_pixels=low, max_pixels=high) for image in example.images]
        patches, grids, sizes = [part for part, _, _ in cut], [grid for _, grid, _ in cut], [size for _, _, size in cut]
        for video in example.videos:
            low, high = self._video_limits(min_pixels, max_pixels)
            pairs, grid, size = images.video_patches(video.frames, min_pixels=low, max_pixels=high)
            patches += pairs
            grids.append(grid)
            sizes.append(size)
        seconds = [_seconds_a_pair(video, name=example.id) for video in example.videos]
        content = ["image"] * len(example.images) + ["video"] * len(example.videos)
        text = self._chat_text(system, style.user_text(example.question, example.options), content=content)
        tokens, image_index, feature_index = self._expand(text, grids, content=content, name=example.id)
        if prefill:
            # By itself, as a reference response is: the two then begin with the same tokens.
            given = self._response_ids(prefill, "a prefill")
            text, tokens = text + prefill, np.concatenate([tokens, given])
            image_index = np.pad(image_index, (0, len(given)), constant_values=-1)
            feature_index = np.pad(feature_index, (0, len(given)))
        if len(tokens) > max_prompt_tokens:
            raise ValueError(
                f"example {example.id!r}: a prompt of {len(tokens)} tokens ({int((image_index >= 0).sum())} of images) "
                f"exceeds max_prompt_tokens {max_prompt_tokens}; raise it, lower max_pixels (now {high}) "
                "or remove the example"
            )
        positions, next_position = rope.mrope_positions(tokens, grids, self.config, video_seconds=seconds)
        return EncodedPrompt(
            id=example.id,
            prompt_id=stable_id(example),
            text=text,
            tokens=tokens,
            positions=np.asarray(positions, np.int32),
            next_position=int(next_position),
            image_index=image_index,
            feature_index=feature_index,
            patches=tuple(patches),
            grids=tuple(grids),
            sizes=tuple(sizes),
            seconds=tuple(seconds),
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
        content = ["image"] * (len(prompt.grids) - len(prompt.seconds)) + ["video"] * len(prompt.seconds)
        text = self._chat_text(system, user, content=content)
        tokens, image_index, feature_index = self._expand(text, prompt.grids, content=content, name=prompt.id)
        seconds = list(prompt.seconds)
        positions, following = rope.mrope_positions(tokens, prompt.grids, self.config, video_seconds=seconds)
        return dataclasses.replace(
            prompt,
            text=text,
            tokens=tokens,
            positions=np.asarray(positions, np.int32),
            next_position=int(following),
            image_index=image_index,
            feature_index=feature_index,
        )

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
        style = find_style(style) if isinstance(style, str) else style
        system = style.system if system is None else system
        low = self.min_pixels if min_pixels is None else min_pixels
        high = self.max_pixels if max_pixels is None else max_pixels
        self._refuse_reserved(example)
        sides = [images.smart_resize(*i.shape[:2], min_pixels=low, max_pixels=high) for i in example.images]
        grids = [(1, height // images.PATCH, width // images.PATCH) for height, width in sides]
        low, high = self._video_limits(min_pixels, max_pixels)
        for video in example.videos:
            height, width = images.smart_resize(*video.frames.shape[1:3], min_pixels=low, max_pixels=high)
            pairs = -(-len(video.frames) // images.FRAMES)
            grids.append((pairs, height // images.PATCH, width // images.PATCH))
        content = ["image"] * len(example.images) + ["video"] * len(example.videos)
        text = self._chat_text(system, style.user_text(example.question, example.options), content=content)
        tokens, _, _ = self._expand(text, grids, content=content, name=example.id)
        given = len(self._response_ids(prefill, "a prefill"))
        return needed(len(tokens) + given, grids)

    def encode_response(self, trace: str, size: ImageSize | None) -> np.ndarray:
        """int32 [t]: a reference response in the published frame as completion ids, the turn's end included.

        Args:
          size: sizes of the first image, into whose processed frame boxes are moved; None without images.
        """
        if size is not None:
            trace = convert_boxes_in_text(trace, size, src="original", dst="processed")
        return np.append(self._response_ids(trace, "a response"), np.int32(self.eos_ids[0]))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of completion ids, without special tokens."""
        ids = [int(index) for index in ids]
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def decode_rollouts(self, tokens: np.ndarray, mask: np.ndarray) -> list[list[str]]:
        """Texts [M][G] of completions [M, G, T]; only masked-in tokens count."""
        tokens, mask = np.asarray(tokens), np.asarray(mask)
        return [
            [self.decode(row[keep]) for row, keep in zip(*pair, strict=True)] for pair in zip(tokens, mask, strict=True)
        ]

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """What each id of the model's vocabulary says, for stop sequences; b'' where it says nothing."""
        return _token_bytes(self.tokenizer, vocab=self.config.text.vocab_size)

    def _response_ids(self, text: str, what: str) -> np.ndarray:
        if reserved := self._reserved.search(text):
            raise ValueError(f"{what} holds the reserved token {reserved.group()!r}; remove it from {text[:80]!r}")
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    @functools.cached_property
    def _reserved(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, _special_tokens(self.tokenizer).values())))

    def _refuse_reserved(self, example: Example) -> None:
        for text in (example.question, *example.options):
            if reserved := self._reserved.search(text):
                raise ValueError(
                    f"example {example.id!r}: its text holds the reserved token {reserved.group()!r}, which the chat "
                    "layout would take for its own; remove it"
                )

    def _video_limits(self, min_pixels: int | None, max_pixels: int | None) -> tuple[int, int]:
        low, high = self.video_pixels or (self.min_pixels, self.max_pixels)
        return low if min_pixels is None else min_pixels, high if max_pixels is None else max_pixels

    def _chat_text(self, system: str, user: str, *, content: Sequence[str]) -> str:
        parts = [*({"type": kind} for kind in content), {"type": "text", "text": user}]
        messages = [{"role": "user", "content": parts}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _expand(
        self, text: str, grids: Sequence[tuple[int, int, int]], *, content: Sequence[str], name: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens with each placeholder repeated to its merged tokens, and which slot and feature feed each."""
        ids = np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
        holders = {"image": self.config.image_token_id, "video": self.config.video_token_id}
        places = np.flatnonzero(np.isin(ids, list(holders.values())))
        wanted = [holders[kind] for kind in content]
        if ids[places].tolist() != wanted:
            kind = next(
                (kind for kind, holder in holders.items() if (ids == holder).sum() != wanted.count(holder)), "image"
            )
            found = f"{(ids == holders[kind]).sum()} {kind} placeholders for {content.count(kind)} {kind}s"
            raise ValueError(f"example {name!r}: {found}; check the chat template")
        features = np.array([t * h * w // images.MERGE**2 for t, h, w in grids], np.int32)
        repeats, visual = np.ones(len(ids), np.int32), np.full(len(ids), -1, np.int32)
        repeats[places], visual[places] = features, np.arange(len(grids))
        starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
        running, visual = np.arange(len(starts)) - starts, np.repeat(visual, repeats)
        # Of each image or video its first slot and the features of a slot; text, at -1, reads the last entry.
        first = np.cumsum([0, *(t for t, _, _ in grids)])[[*range(len(grids)), 0]]
        a_slot = np.array([*(h * w // images.MERGE**2 for _, h, w in grids), 1])
        slot = np.where(visual < 0, -1, first[visual] + running // a_slot[visual])
        return np.repeat(ids, repeats), slot.astype(np.int32), (running % a_slot[visual]).astype(np.int32)


def _seconds_a_pair(video: Video, *, name: str) -> float:
    """Seconds from one pair of frames to the next, which is what the model's clock counts."""
    if not video.fps > 0:
        raise ValueError(f"example {name!r}: a video of {video.fps} frames a second; give the rate of its frames")
    return images.FRAMES / video.fps


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    return {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def _banned(tokenizer: Any, config: ModelConfig, eos_ids: tuple[int, ...]) -> np.ndarray:
    """bool [V]: special tokens that end nothing, placeholders, and ids that the tokenizer does not know."""
    vocab = config.text.vocab_size
    if len(tokenizer) > vocab:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens but the model {vocab}; they are not of one checkpoint"
        )
    banned = np.arange(vocab) >= len(tokenizer)
    vision = (config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id)
    banned[[index for index in (*_special_tokens(tokenizer), *vision) if index is not None and index < vocab]] = True
    banned[list(eos_ids)] = False
    return banned


def _need(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} does not exist; a checkpoint folder in HF format has {', '.join(names)}")


def _eos_ids(folder: pathlib.Path, tokenizer: Any) -> tuple[int, ...]:
    """EOS ids, the end of a turn first. The released config.json names one, generation_config.json both."""
    for name in ("generation_config.json", "config.json"):
        found = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if found is not None:
            ids = [int(index) for index in (found if isinstance(found, list) else [found])]
            return tuple(sorted(dict.fromkeys(ids), key=lambda index: index != tokenizer.eos_token_id))
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{folder} names no eos_token_id; add it to generation_config.json")
    return (int(tokenizer.eos_token_id),)


# ------------------------------------------------------------------------------------------------------------ batches
def collate(
    prompts: Sequence[EncodedPrompt],
    *,
    buckets: Buckets,
    pad_id: int = 0,
    occurrence: np.ndarray | None = None,
    need: Shape | None = None,
) -> PromptBatch:
    """Pads prompts to one batch of numpy leaves, in the smallest buckets that hold them.

    Args:
      pad_id: stands in unused places of `tokens`; only `mask` says which those are.
      occurrence: uint32 [M], how often each prompt stood in its step before; counted within `prompts` when None.
      need: what the batch must hold at least, where these prompts are a part of it.

    Raises:
      ValueError: no prompts, or a length that no bucket holds.
    """
    if not prompts:
        raise ValueError("a batch needs at least one prompt")
    need = prompts[0].need if need is None else need
    for prompt in prompts:
        need = need.join(prompt.need)
    shape = buckets.fit(need)
    batch, length = len(prompts), shape.prompt
    vision = _collate_vision(prompts, shape)
    features = vision.patches.shape[2] // images.MERGE**2
    tokens, mask = np.full((batch, length), pad_id, np.int32), np.zeros((batch, length), bool)
    positions, slots = np.zeros((batch, length, 3), np.int32), np.full((batch, length), -1, np.int32)
    for row, prompt in enumerate(prompts):
        n = len(prompt.tokens)
        tokens[row, :n], mask[row, :n], positions[row, :n] = prompt.tokens, True, prompt.positions
        slots[row, :n] = prompt.image_slot(features)
    fields: dict[str, Any] = {  # numpy where the record says jax: the trainer places them on devices
        "tokens": tokens,
        "mask": mask,
        "positions": positions,
        "next_position": np.array([prompt.next_position for prompt in prompts], np.int32),
        "image_slot": slots,
        "prompt_id": np.array([prompt.prompt_id for prompt in prompts], np.uint32),
        "occurrence": count_occurrences([p.prompt_id for p in prompts]) if occurrence is None else occurrence,
        "vision": vision,
    }
    return PromptBatch(**fields)


def count_occurrences(ids: Sequence[int]) -> np.ndarray:
    """uint32 [M]: how often each id stood earlier in the sequence."""
    seen: Counter[int] = Counter()
    counts = np.zeros(len(ids), np.uint32)
    for row, index in enumerate(ids):
        counts[row] = seen[index]
        seen[index] += 1
    return counts


def _collate_vision(prompts: Sequence[EncodedPrompt], shape: Shape) -> VisionInputs:
    lead, room, windows_room = (len(prompts), shape.images), shape.patches, shape.windows
    patches, valid = np.zeros((*lead, room, images.PATCH_VALUES), np.float32), np.zeros((*lead, room), bool)
    positions, slots = np.zeros((*lead, room, 2), np.int32), np.zeros((*lead, room), np.int32)
    windows = np.full((*lead, windows_room, images.WINDOW_PATCHES), room, np.int32)
    for row, prompt in enumerate(prompts):
        for i, (h, w) in enumerate(prompt.slots):
            n = h * w
            index, slot = images.window_index(h, w, empty=room)
            images.normalise_patches(prompt.patches[i], out=patches[row, i, :n])
            positions[row, i, :n], slots[row, i, :n], valid[row, i, :n] = images.patch_positions(h, w), slot, True
            windows[row, i, : len(index)] = index
    fields: dict[str, Any] = {
        "patches": patches,
        "positions": positions,
        "windows": windows,
        "slots": slots,
        "valid": valid,
    }
    return VisionInputs(**fields)


def collate_supervised(
    pairs: Sequence[tuple[EncodedPrompt, np.ndarray]], *, buckets: Buckets, pad_id: int, need: Shape | None = None
) -> tuple[PromptBatch, np.ndarray, np.ndarray]:
    """Prompts with one reference completion each: (PromptBatch, tokens int32 [M, 1, T], mask bool [M, 1, T]).

    Args:
      need: see `collate`.
    """
    room = rung(max(len(ids) for _, ids in pairs), buckets.completion, "completion tokens")
    tokens, mask = np.full((len(pairs), 1, room), pad_id, np.int32), np.zeros((len(pairs), 1, room), bool)
    for row, (_, ids) in enumerate(pairs):
        tokens[row, 0, : len(ids)], mask[row, 0, : len(ids)] = ids, True
    return collate([prompt for prompt, _ in pairs], buckets=buckets, pad_id=pad_id, need=need), tokens, mask


def _token_bytes(tokenizer: Any, *, vocab: int) -> tuple[bytes, ...]:
    """What each of `vocab` ids of a byte-level tokenizer says; b'' for special tokens and ids that it does not know.

    Such a tokenizer spells bytes as printable characters: those that are printable in Latin-1 as themselves, the others
    as the characters from 256 on, in order (Radford et al. 2019).

    Args:
      tokenizer: a fast tokenizer of `transformers`.

    Raises:
      ValueError: a token that is no spelling of bytes.
    """
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in plain]
    spelled = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    added = tokenizer.added_tokens_decoder
    out = [b""] * vocab
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if index in added:
            out[index] = b"" if added[index].special else str(added[index]).encode()
        elif token is not None:
            try:
                out[index] = bytes(spelled[char] for char in token)
            except KeyError:
                raise ValueError(
                    f"token {index} {token!r} is no spelling of bytes: the tokenizer is not byte-level, as Qwen's are"
                ) from None
    return tuple(out)
