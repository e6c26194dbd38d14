"""A frozen Qwen2.5-VL as judge, in the process and on the devices of training: one pass a batch, nothing is decoded.

The verdict is the word whose first token the model would most likely begin its answer with. A judge sees
the very pixels the policy saw, cut into the same patches, so boxes in pixels of the processed image are right for both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.data.styles import BARE
from fgrpo_jax.rewards.judges import prompts
from fgrpo_jax.rewards.judges.protocol import VERDICTS, Done, Judgement, Kind, Request
from fgrpo_jax.rewards.judges.scorer import LENGTHS, VerdictScorer


class LocalJudge:
    """See the module.

    Args:
      scorer: the model, its weights and its processor.
      name: of the model, for people; what tells it from others is a fingerprint of weights, tokenizer and template.
      frame: in which it reads boxes, see `prompts.UNITS`.
      wording: what it is told.
      min_pixels, max_pixels: of the policy's images, for requests that come without their patches.

    Raises:
      ValueError: two verdicts begin with the same token of its tokenizer.
    """

    overlaps = False  # it runs on the devices that the sampler needs

    def __init__(
        self,
        scorer: VerdictScorer,
        *,
        name: str,
        frame: str = "processed",
        wording: prompts.Wording = prompts.OURS,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        for verdicts in VERDICTS.values():
            try:
                scorer.first_tokens([verdict.name for verdict in verdicts])
            except ValueError as error:
                raise ValueError(f"{name} can't be a judge: {error}") from error
        self.scorer, self.frame, self.wording = scorer, frame, wording
        self._limits: dict[str, Any] = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        # All that its verdicts depend on, but for the last bits: padding may turn a tie.
        self.identity: Mapping[str, str] = {
            "backend": "local",
            "model": name,
            "frame": frame,
            "weights": fingerprint(scorer.params),
            "computation": str(scorer.model.compute_dtype),
            "words": _words(scorer.processor),
            **wording.identity,
        }

    def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
        """A judgement for each request, in order; see `Judge`.

        Confidence is by how much of its probability the best verdict leads the second, 1 − exp(−margin).
        """
        began = time.perf_counter()
        out: list[Judgement | None] = [None] * len(requests)
        asked: dict[Kind, list[tuple[int, EncodedPrompt]]] = {kind: [] for kind in VERDICTS}
        shown: dict[int, EncodedPrompt] = {}
        for index, request in enumerate(requests):
            try:
                asked[request.kind].append((index, self._prompt(request, shown)))
            except ValueError as error:
                out[index] = Judgement(None, error=str(error), seconds=time.perf_counter() - began)
        for kind, found in asked.items():
            if not found:
                continue
            among = self.wording.verdicts(kind)
            choices = self.scorer.choose([prompt for _, prompt in found], [verdict.name for verdict in among])
            seconds = time.perf_counter() - began
            for row, (index, prompt) in enumerate(found):
                out[index] = Judgement(
                    among[int(choices.index[row])],
                    confidence=-math.expm1(-float(choices.margin[row])),
                    tokens_in=len(prompt.tokens),
                    seconds=seconds,
                )
        judgements = [judgement for judgement in out if judgement is not None]
        for index, judgement in enumerate(judgements):
            if done is not None:
                done(index, judgement)
        return judgements

    def close(self) -> None:
        """Forgets the weights."""
        self.scorer.params = None

    def _prompt(self, request: Request, shown: dict[int, EncodedPrompt]) -> EncodedPrompt:
        """The chat of a request; `shown` keeps the images of examples that come without their patches."""
        words = prompts.render(request, frame=self.frame, wording=self.wording)
        base, processor, example = request.encoded, self.scorer.processor, request.example
        if base is None and id(example) not in shown:
            # Any words will do, as they are put in afterwards; those of the example may hold what a chat may not.
            bare = dataclasses.replace(example, question="", options=())
            shown[id(example)] = processor.encode(bare, style=BARE, **self._limits)
        base = shown[id(example)] if base is None else base
        prompt = processor.reworded(base, system=words.system, user=words.text, blind=not words.images)
        if len(prompt.tokens) > LENGTHS[-1]:
            raise ValueError(f"a request of {len(prompt.tokens):,} tokens is longer than the judge's {LENGTHS[-1]:,}")
        return prompt


def fingerprint(params: Any) -> str:
    """Equal for equal weights (dtype, shapes and every bit), on whatever mesh they lie."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    facts = [f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}" for path, leaf in leaves]
    sums = jax.device_get([_checksum(leaf) for _, leaf in leaves])
    described = ";".join(f"{fact} {[int(x) for x in found]}" for fact, found in zip(facts, sums, strict=True))
    return hashlib.sha256(described.encode()).hexdigest()[:16]


@jax.jit
def _checksum(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two sums of the bits of an array modulo 2**32, one of them weighted by place: integers, so order is no matter."""
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        place = place * np.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = (place ^ (place >> 15)) * np.uint32(0x85EBCA6B) | np.uint32(1)
    return jnp.sum(bits, dtype=jnp.uint32), jnp.sum(bits * place, dtype=jnp.uint32)


def _words(processor: Processor) -> str:
    """Fingerprint of how text becomes tokens."""
    tokenizer = processor.tokenizer
    parts = (tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
