"""Which of a few verdicts a model would begin its answer with: one pass over the prompts, nothing is decoded.

Prompts about the same images begin alike: images, question, often the first sentences of a reasoning. What they share
is computed once and attended to by all of them, as the completions of a prompt are in learner and sampler
(`Model.prefix` and `Model.suffix`); each goes on with tokens of its own, and its last position is asked for the
log-probs of the first tokens of the verdicts. Letters: M prompts (shared beginnings), G members of each, T tokens of a
member, S tokens of a beginning, K verdicts.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fgrpo_jax import mesh as meshes
from fgrpo_jax.data.buckets import Buckets, Shape, rung
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.records import PromptBatch

LENGTHS = tuple(sorted({(2 + half) << power for power in range(3, 15) for half in (0, 1)}))
"""16, 24, 32, 48, 64, ...: padded lengths of beginnings and members. At worst a third is padding, often a sixth."""

PATCHES = tuple(64 << power for power in range(11))
MEMBERS = (1, 4, 16)
"""Members of a shared beginning that are computed together; a family is cut into such parts where that costs least."""

COUNTS = (1, 4, 16, 64, 256)
"""Families of a batch on each device: few, since each number is a program of its own."""

AHEAD = 2
"""Batches that are prepared while devices are still at one: no more, since their images lie there already."""

TOKENS = 8192
"""Tokens of a batch on each device, images as the tokens they become."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a model would say to n prompts, by log-probs of the first tokens of the verdicts among all tokens there are.

    Their probabilities sum to less than 1: the rest is what the model would rather say.
    """

    index: np.ndarray  # int32 [n], the likeliest verdict
    logps: np.ndarray  # float32 [n, K]
    margin: np.ndarray  # float32 [n], difference between the two best


@dataclasses.dataclass(frozen=True)
class _Family:
    """Prompts that begin alike."""

    members: tuple[int, ...]  # the numbers of the prompts
    shared: int  # tokens that they begin with in common
    longest: int  # tokens of a member beyond the shared ones, at most
    shape: Shape  # of the beginning, its images included

    @property
    def sees(self) -> bool:
        """Whether there are images; a batch holds families with images or families without."""
        return self.shape.images > 0

    @property
    def order(self) -> tuple[Any, ...]:
        """Families next to each other in this order waste little."""
        return self.sees, _members([self]), self.shape.patches, self.shape.prompt, self.longest


class VerdictScorer:
    """Compares the first tokens of verdicts. One instance holds the weights, and compiles once a padded shape.

    Args:
      model, params, processor: the judge; its weights are already laid out on the mesh.
      mesh: over whose batch axes prompts are split.
      tokens: of a batch on each device.
      compiler_options: XLA options of this program alone.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        processor: Processor,
        *,
        mesh: Mesh | None = None,
        tokens: int = TOKENS,
        compiler_options: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.params, self.processor = model, params, processor
        self.mesh, self.tokens = mesh, tokens
        self._traces = 0
        self._program = jax.jit(self._score, compiler_options=compiler_options)

    @property
    def compilations(self) -> int:
        """Programs compiled so far: one a padded shape."""
        return max(self._traces, self._program._cache_size())  # type: ignore[attr-defined]

    def first_tokens(self, verdicts: Sequence[str]) -> tuple[int, ...]:
        """The id each verdict begins with, as an answer is tokenised.

        Raises:
          ValueError: an empty verdict, or two that begin with the same token.
        """
        ids = [self.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in verdicts]
        if empty := [text for text, found in zip(verdicts, ids, strict=True) if not found]:
            raise ValueError(f"verdict {empty[0]!r} has no tokens; give it a word")
        first = [int(found[0]) for found in ids]
        for (one, a), (other, b) in itertools.combinations(zip(verdicts, first, strict=True), 2):
            if a == b:
                raise ValueError(
                    f"verdicts {one!r} and {other!r} both begin with the token "
                    f"{self.processor.tokenizer.decode([a])!r} ({a}) of this tokenizer, so one token does not tell "
                    "them apart; word them differently, or use another judge"
                )
        return tuple(first)

    def choose(self, prompts: Sequence[EncodedPrompt], verdicts: Sequence[str]) -> Choices:
        """The verdict that each prompt would most likely be answered with.

        Prompts of the same example (`prompt_id`) and images share what they begin with; their order is free.

        Raises:
          ValueError: verdicts that cannot be told apart (`first_tokens`), or a prompt beyond the longest bucket.
          FloatingPointError: log-probs that are not finite, which means that the weights are not.
        """
        ids = np.array(self.first_tokens(verdicts), np.int32)
        logps = np.zeros((len(prompts), len(ids)), np.float32)
        running: collections.deque[tuple[list[_Family], jax.Array]] = collections.deque()
        for families, arguments in self._batches(prompts):
            running.append((families, self._program(self.params, *arguments, ids)))
            if len(running) > AHEAD:
                _fill(logps, *running.popleft())
        for families, found in running:
            _fill(logps, families, found)
        if not np.isfinite(logps).all():
            raise FloatingPointError("the judge's log-probs are not finite: check its weights for NaN")
        best = np.sort(logps, axis=1)
        return Choices(np.argmax(logps, axis=1).astype(np.int32), logps, best[:, -1] - best[:, -2])

    # -------------------------------------------------------------------------------------------------- what is shared
    def _families(self, prompts: Sequence[EncodedPrompt]) -> list[_Family]:
        """The prompts in families of at most MEMBERS[-1], largest first."""
        groups: dict[Any, list[int]] = {}
        for number, prompt in enumerate(prompts):
            # Through the last image token all members must be one: a member's own tokens are text.
            pictures = np.flatnonzero(prompt.image_index >= 0)
            until = int(pictures[-1]) + 1 if len(pictures) else 0
            arrays = tuple(
                map(id, prompt.patches)
            )  # the very arrays: prompts about the same images have them in common
            key = (prompt.prompt_id, arrays, prompt.tokens[:until].tobytes())
            groups.setdefault(key, []).append(number)
        found = []
        for numbers in groups.values():
            # By what they say after their length: the order in which prompts come then changes no bit of a result.
            numbers.sort(key=lambda number: (len(prompts[number].tokens), prompts[number].tokens.tobytes()))
            whole = self._family(prompts, numbers)
            own = [len(prompts[number].tokens) - whole.shared for number in numbers]
            # A part may have more in common, but beginnings of one length fit one batch better.
            for start, stop in _cuts(own, whole.shape.work):
                part = tuple(numbers[start:stop])
                found.append(dataclasses.replace(whole, members=part, longest=own[stop - 1]))
        return sorted(
            found, key=lambda family: (family.order, prompts[family.members[0]].tokens.tobytes()), reverse=True
        )

    def _family(self, prompts: Sequence[EncodedPrompt], numbers: Sequence[int]) -> _Family:
        rows = [prompts[number].tokens for number in numbers]
        shared = min(map(len, rows)) - 1  # each has a token of its own: the one whose successor is asked for
        for row in rows[1:]:
            apart = np.flatnonzero(row[:shared] != rows[0][:shared])
            shared = int(apart[0]) if len(apart) else shared
        shape = dataclasses.replace(prompts[numbers[0]].need, prompt=shared)
        return _Family(tuple(numbers), shared, max(map(len, rows)) - shared, shape)

    # ----------------------------------------------------------------------------------------------------- as arrays
    def _batches(self, prompts: Sequence[EncodedPrompt]) -> Iterator[tuple[list[_Family], tuple[Any, ...]]]:
        """(families, arguments of the program) of a batch each; either all families of a batch have images, or none."""
        left = self._families(prompts)
        while left:
            same = [family for family in left if family.sees == left[0].sees]
            count = self._count(same[:1], available=len(same))
            count = self._count(same[:count], available=len(same))  # those after the first may be longer
            batch, left = same[:count], left[len(same[:count]) :]
            yield batch, self._arguments(prompts, batch, rows=count)

    def _count(self, families: Sequence[_Family], *, available: int) -> int:
        """Families of a batch of such: as many as the tokens allow, or as are left, by few steps."""
        shape, longest = _joint(families)
        parts = 1 if self.mesh is None else meshes.batch_size(self.mesh)
        room = int(self.tokens / (shape.work + _members(families) * longest))
        counts = [count for count in COUNTS if count <= max(room, 1)]
        return parts * next((count for count in counts if count * parts >= available), counts[-1])

    def _arguments(self, prompts: Sequence[EncodedPrompt], batch: Sequence[_Family], *, rows: int) -> tuple[Any, ...]:
        """(beginnings, tokens [M, G, T], mask [M, G, T]), `rows` families of them."""
        shape, longest = _joint(batch)
        beginnings = [_beginning(prompts[family.members[0]], family) for family in batch]
        beginnings += [beginnings[0]] * (rows - len(batch))
        buckets = Buckets(prompt=LENGTHS, patches=PATCHES)
        shared = collate(beginnings, buckets=buckets, pad_id=self.processor.pad_id)
        real = np.arange(rows) < len(batch)
        shared = shared.replace(mask=shared.mask & real[:, None])  # type: ignore[attr-defined]
        if not shape.images:  # nothing to encode: no slot instead of an empty one
            shared = shared.replace(vision=jax.tree.map(lambda x: x[:, :0], shared.vision))
        sizes = (rows, _members(batch), rung(longest, LENGTHS, "tokens of a judge's prompt"))
        tokens, mask = np.full(sizes, self.processor.pad_id, np.int32), np.zeros(sizes, bool)
        for row, family in enumerate(batch):
            for column, number in enumerate(family.members):
                own = prompts[number].tokens[family.shared :]
                tokens[row, column, : len(own)], mask[row, column, : len(own)] = own, True
        arrays = shared, tokens, mask
        return arrays if self.mesh is None else jax.device_put(arrays, meshes.batch_sharding(self.mesh))

    # ------------------------------------------------------------------------------------------------ traced from here
    def _score(
        self, params: Any, shared: PromptBatch, tokens: jax.Array, mask: jax.Array, verdicts: jax.Array
    ) -> jax.Array:
        """float32 [M, G, K]: log-probs of the verdict tokens [K] after each member."""
        self._traces += 1
        model = self.model
        with jax.named_scope("judge"):
            _, prefix = model.prefix(params, shared, model.encode(params, shared.vision))
            hidden = model.suffix(
                params, tokens, mask, shared.next_position, prefix=prefix, prefix_mask=shared.mask
            )  # [M, G, T, D]
            last = jnp.maximum(mask.sum(axis=-1) - 1, 0)
            hidden = jnp.take_along_axis(hidden, last[..., None, None], axis=2)  # [M, G, 1, D]
            shape = (*tokens.shape[:2], verdicts.shape[0])
            hidden = jnp.broadcast_to(hidden, (*shape, hidden.shape[-1]))
            logps, _ = model.token_logps(params, hidden, jnp.broadcast_to(verdicts, shape))
        return logps


def _cuts(lengths: Sequence[int], beginning: float) -> list[tuple[int, int]]:
    """Where to cut a family so that the padded tokens of all parts are fewest, by dynamic programming.

    Args:
      lengths: tokens of each member beyond the shared ones, rising.
      beginning: what the shared part costs, in tokens; every part computes it.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n members: (cost, where their last part begins)
    for stop in range(1, len(lengths) + 1):
        longest = rung(lengths[stop - 1], LENGTHS, "tokens of a judge's prompt")
        starts = range(max(0, stop - MEMBERS[-1]), stop)
        best.append(min((best[n][0] + beginning + rung(stop - n, MEMBERS, "members") * longest, n) for n in starts))
    found, stop = [], len(lengths)
    while stop:
        found.append((best[stop][1], stop))
        stop = best[stop][1]
    return found[::-1]


def _members(families: Sequence[_Family]) -> int:
    """Padded members of the families."""
    return rung(max(len(family.members) for family in families), MEMBERS, "members")


def _fill(logps: np.ndarray, families: Sequence[_Family], found: jax.Array) -> None:
    """Writes log-probs [M, G, K] of a batch to where its members stand in [n, K]."""
    rows = np.asarray(found)
    for row, family in enumerate(families):
        logps[list(family.members)] = rows[row, : len(family.members)]


def _joint(families: Sequence[_Family]) -> tuple[Shape, int]:
    """(what holds all beginnings, the longest member)."""
    shape = families[0].shape
    for family in families[1:]:
        shape = shape.join(family.shape)
    return shape, max(family.longest for family in families)


def _beginning(prompt: EncodedPrompt, family: _Family) -> EncodedPrompt:
    """The shared tokens of a family as a prompt of its own."""
    n = family.shared
    following = prompt.positions[n:]
    assert (following == following[:1] + np.arange(len(following))[:, None]).all(), "a member's tokens are text"
    return dataclasses.replace(
        prompt,
        tokens=prompt.tokens[:n],
        positions=prompt.positions[:n],
        next_position=int(prompt.positions[n, 0]),
        image_index=prompt.image_index[:n],
        feature_index=prompt.feature_index[:n],
    )
