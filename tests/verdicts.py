"""A judge of random weights, and its choices among verdict tokens against those of transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from checks import nlvr
from checks.signals_local import VERDICTS, cases

from fgrpo_jax.data.processor import Processor
from fgrpo_jax.model.qwen2_5_vl import Model
from fgrpo_jax.rewards.judges.scorer import VerdictScorer
from fgrpo_jax.weights import exporter, importer


@dataclasses.dataclass(frozen=True)
class Compared:
    """Ours and that of transformers on the same cases.

    Attributes:
      differing: cases whose choice differs.
      error: largest difference of a verdict's log-prob.
      least_margin: the narrowest choice, by which `error` is to be measured.
      counts: how often each verdict is chosen.
      programs: compiled for all of them.
    """

    differing: int
    error: float
    least_margin: float
    counts: tuple[int, ...]
    programs: int


def compare(folder: Path, **settings: Any) -> Compared:
    """The choices of `VerdictScorer` against the argmax of transformers over the same tokens, a case at a time.

    Args:
      settings: of the scorer.
    """
    import torch

    processor = Processor.load(folder)
    model = Model.create(processor.config)
    scorer = VerdictScorer(model, importer.load_hf(folder, model, dtype="float32"), processor, **settings)
    prompts, pictures = cases(processor)
    ours = scorer.choose(prompts, VERDICTS)
    theirs, problems = nlvr.load_theirs(folder)
    assert not problems, problems
    ids = list(scorer.first_tokens(VERDICTS))
    expected = []
    for prompt, images in zip(prompts, pictures, strict=True):
        inputs = nlvr.their_inputs(prompt, _pixels(folder, images), theirs.config.image_token_id)
        last = torch.tensor(nlvr.their_logits(theirs, inputs)[-1])
        expected.append(torch.log_softmax(last, dim=-1)[ids].numpy())
    wanted = np.stack(expected)
    return Compared(
        differing=int((ours.index != wanted.argmax(axis=1)).sum()),
        error=float(np.abs(ours.logps - wanted).max()),
        least_margin=float(ours.margin.min()),
        counts=tuple(np.bincount(ours.index, minlength=len(VERDICTS)).tolist()),
        programs=scorer.compilations,
    )


def _pixels(folder: Path, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Pixel values and grids by the image processor of transformers; nothing for no image."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    if not images:
        return {}
    return dict(Qwen2VLImageProcessorPil.from_pretrained(folder)(images=list(images), return_tensors="pt"))


def random_weights(policy: Path, out: Path) -> Path:
    """A folder like the policy's with random weights that look around, so that all verdicts are chosen; made once."""
    if not out.exists():
        model = Model.create(Processor.load(policy).config)
        params = model.init(jax.random.key(0))
        text = params["text"]
        for part in (text["embed"], text["layers"]["attn"]["q"], text["layers"]["attn"]["v"]):
            name = "table" if "table" in part else "kernel"
            part[name] = part[name] * 4
        exporter.save_hf(out, params, model, source=policy)
    return out
