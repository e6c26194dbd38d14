"""The records that travel between the rooms of the house, with dtype and shape on every field.

Letters (used in every module of the package):

    B batch rollouts (= M·G)   M prompts      G rollouts a prompt   T query / completion tokens
    S prompt (key) tokens      D model width  N heads               K kv heads    Q = N/K heads a kv head
    H head_dim                 V vocabulary   P patches an image    I images a prompt (video frames count as images)
    L layers                   C constraints  W windows             F = P/4 merged image tokens

Every array record leads with the prompt axis M, so that one `PartitionSpec(("data", "fsdp"))` shards them all and the
rollouts of a prompt never part. This module imports nothing of the package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import struct

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2), pixels, x2 and y2 exclusive. Which image's frame it is in is said where it is used."""


# ------------------------------------------------------------------------------------------------- host-side records
@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One drawn object. `box` is in pixels of the scene's image."""

    color: str
    shape: str
    size: str  # 'small' | 'medium' | 'large'
    box: Box


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a synthetic image shows, exactly: the ground truth of the built-in world's oracle."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]


@dataclasses.dataclass(frozen=True)
class Query:
    """The structured form of a built-in world question; `args` are object names such as 'red circle'."""

    family: str
    relation: str
    args: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Video:
    """A video as the frames that were sampled of it."""

    frames: np.ndarray  # uint8 [n, height, width, 3], RGB, in order
    fps: float  # frames a second of these frames, not of the file they come from


@dataclasses.dataclass(frozen=True)
class Example:
    """One question. The same record for every source."""

    id: str  # unique within its source
    images: tuple[np.ndarray, ...]  # uint8 [height, width, 3], RGB, as published (before any resize)
    question: str  # alone, without options or instructions
    options: tuple[str, ...]  # their texts in the order shown, () for an open question
    answer: str  # gold answer; with options, the letter 'A'.. of the right one
    boxes: tuple[Box, ...] | None = None  # gold, pixels of `images[0]` as published; None: not usable for R_G
    source: str = ""  # name of the data source ('world', 'nlvr', ...)
    scene: Scene | None = None  # what the image shows, when known exactly
    query: Query | None = None  # the structured question, for the rules judge of the built-in world
    trace: str | None = None  # reference response '<think>..</think><answer>..</answer>' in the *published* frame
    flaw: str = "none"  # how `trace` is flawed on purpose ('none' when it is sound)
    videos: tuple[Video, ...] = ()  # shown after the images, before the question
    licence: str = ""  # of the data it comes from, as an SPDX id where there is one; '' when unknown
    # Published facts that metrics group by, such as {'task': 'Count'}; the reader of a set says which.
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """Sizes of one image or of a video's frames in pixels: as published and as the model sees it (multiples of 28).

    Between the two an image may have been made smaller beforehand; 0 where it was not.
    """

    width: int
    height: int
    processed_width: int
    processed_height: int
    resized_width: int = 0
    resized_height: int = 0


# ---------------------------------------------------------------------------------------------------- device records
@struct.dataclass
class VisionInputs:
    """Images of M prompts, I image slots each, padded to one patch bucket P (a multiple of 4).

    Patches are in the merge-block order of Qwen2.5-VL (each run of 4 patches is one merged token). A video frame pair
    takes one image slot, because frames never see each other in the tower. Unused slots have `valid` False throughout.
    """

    patches: jax.Array  # uint8 [M, I, P, 1176]     3 channels · 2 frames · 14 · 14; float32 when normalised already
    positions: jax.Array  # int32 [M, I, P, 2]      (row, column) of the patch in its image's patch grid
    windows: jax.Array  # int32 [M, I, W, 64]       patch index of each window slot; P where the slot is empty
    slots: jax.Array  # int32 [M, I, P]             inverse of `windows`: flat slot (w·64 + j) of each patch; 0 for pads
    valid: jax.Array  # bool [M, I, P]


@struct.dataclass
class PromptBatch:
    """M prompts, right-padded to one length S."""

    tokens: jax.Array  # int32 [M, S]
    mask: jax.Array  # bool [M, S]           True on real tokens; never inferred from token ids
    positions: jax.Array  # int32 [M, S, 3]     M-RoPE (temporal, height, width)
    next_position: jax.Array  # int32 [M]           M-RoPE position of the first completion token, on all three axes
    image_slot: jax.Array  # int32 [M, S]        merged-token index (i·F + f) feeding this token; -1 for text tokens
    prompt_id: jax.Array  # uint32 [M]          stable id of the prompt, part of the sampling key
    occurrence: jax.Array  # uint32 [M]          how often this prompt stood in this step before (0 first), likewise
    vision: VisionInputs
    features: jax.Array | None = None  # [M, I·F, D] merged image tokens where they are known; `vision` is then not read


@struct.dataclass
class Rollouts:
    """G completions of each of M prompts."""

    tokens: jax.Array  # int32 [M, G, T]    pad id after the end
    mask: jax.Array  # bool [M, G, T]     True up to and including the first EOS (or the end of a stop sequence)
    logps: jax.Array  # float32 [M, G, T]  log-prob of each token under the sampled distribution; 0 where masked
    finished: jax.Array  # bool [M, G]        ended by an EOS or a stop sequence (False = cut off by the window)


@struct.dataclass
class Signals:
    """What the rewards say of the rollouts. Masked entries never enter a mean."""

    task: jax.Array  # float32 [M, G]     R_task
    accuracy: jax.Array  # float32 [M, G]     R_acc
    format: jax.Array  # float32 [M, G]     R_fmt
    values: jax.Array  # float32 [C, M, G]  constraint signals R_k in the config's order; 0 where masked
    mask: jax.Array  # bool [C, M, G]     m_k: the signal is applicable
    # The same of the batch as first drawn, where dead groups were replaced in it; None where none are. The multipliers
    # answer to these: what is left after a filter is no sample of what the policy does.
    drawn_values: jax.Array | None = None  # float32 [C, M, G]
    drawn_mask: jax.Array | None = None  # bool [C, M, G]


@struct.dataclass
class DualMemory:
    """What the multiplier rules remember from step to step; None where no rule in force needs it.

    So a run with the paper's rule alone keeps nothing but its multipliers.
    """

    integral: jax.Array | None = None  # float32 [C]         PID: what the sum of violations has come to, in units of λ
    previous: jax.Array | None = None  # float32 [C]         PID: violation of the step before; +inf before the first
    sums: jax.Array | None = None  # float32 [C, W-1]    windows: Σ m_k R_k of the steps before, the newest last
    counts: jax.Array | None = None  # int32 [C, W-1]      windows: Σ m_k of those steps


@struct.dataclass
class TrainState:
    """All that a run must remember to continue bit for bit (the data position travels beside it)."""

    step: jax.Array  # int32 []            rollout steps done
    params: Any  # pytree of parameters (masters)
    opt_state: Any  # optax state
    lam: jax.Array  # float32 [C]         Lagrange multipliers λ(t)
    skipped: jax.Array  # int32 []            updates in a row skipped for non-finite gradients
    dual: DualMemory = struct.field(default_factory=DualMemory)  # beside λ: what its rules remember
