"""Encoded prompts, and the static batch that several of them become.

    example ──Processor.encode──▶ EncodedPrompt (ragged, patches still 8-bit) ──collate──▶ PromptBatch (padded)
    trace ──Processor.encode_response──▶ completion ids, boxes moved into the processed frame

The first steps are in `data.processor`, the last one is here.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgrpo_jax.data import images
from fgrpo_jax.data.buckets import Buckets, Shape, rung
from fgrpo_jax.records import Example, ImageSize, PromptBatch, VisionInputs


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
    needs = [prompt.need for prompt in prompts]
    shape = buckets.fit(functools.reduce(Shape.join, needs if need is None else [need, *needs]))
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
    patches, valid = np.zeros((*lead, room, images.PATCH_VALUES), np.uint8), np.zeros((*lead, room), bool)
    positions, slots = np.zeros((*lead, room, 2), np.int32), np.zeros((*lead, room), np.int32)
    windows = np.full((*lead, windows_room, images.WINDOW_PATCHES), room, np.int32)
    for row, prompt in enumerate(prompts):
        for i, (h, w) in enumerate(prompt.slots):
            n = h * w
            index, slot = images.window_index(h, w, empty=room)
            patches[row, i, :n] = images.two_frames(prompt.patches[i])
            positions[row, i, :n], slots[row, i, :n], valid[row, i, :n] = images.patch_positions(h, w), slot, True
            windows[row, i, : len(index)] = index
    fields: dict[str, Any] = {"patches": patches, "positions": positions, "windows": windows, "slots": slots}
    fields["valid"] = valid
    return VisionInputs(**fields)


def collate_supervised(
    pairs: Sequence[tuple[EncodedPrompt, np.ndarray]], *, buckets: Buckets, pad_id: int, need: Shape | None = None
) -> tuple[PromptBatch, np.ndarray, np.ndarray]:
    """Prompts with one reference completion each: (PromptBatch, tokens int32 [M, 1, T], mask bool [M, 1, T])."""
    room = rung(max(len(ids) for _, ids in pairs), buckets.completion, "completion tokens")
    tokens, mask = np.full((len(pairs), 1, room), pad_id, np.int32), np.zeros((len(pairs), 1, room), bool)
    for row, (_, ids) in enumerate(pairs):
        tokens[row, 0, : len(ids)], mask[row, 0, : len(ids)] = ids, True
    return collate([prompt for prompt, _ in pairs], buckets=buckets, pad_id=pad_id, need=need), tokens, mask
