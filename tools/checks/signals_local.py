"""The judge in the process of training: its choices against transformers, and what they cost against decoding them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checks import nlvr, runs
from checks.record import Check, above, at_least, at_most, same, skipped

CASES = 100
VERDICTS = ("CORRECT", "INCORRECT", "SKIP")
DECODED = 16
"""Tokens of an answer that is decoded instead; a chatty judge says more."""

MIXED = (((56, 84),), ((112, 112),), ((70, 200),), ((140, 90), (84, 84)), ((100, 100),), (), ((196, 168),), ())
"""(height, width) of the images of each example: one, two, or none."""

LARGE = (((336, 448),), ((392, 392),), ((448, 280),), ((308, 420),))
"""About 170 tokens each, which a served judge reads anew with every sentence."""

SENTENCES = (
    "The red circle is at <bbox>[0,14,42,56]</bbox>.",
    "The blue square is left of the red circle.",
    "There are 3 objects.",
    "So the answer is A.",
    "The green triangle is above the blue square, and the red circle is below it.",
)


def cases(processor: Any, *, pictures: Any = MIXED, count: int = CASES) -> tuple[list[Any], list[Any]]:
    """(`count` prompts as a judge gets them, the images of each): reasonings of many lengths about few examples."""
    from fgrpo_jax.records import Example

    rng = np.random.default_rng(0)
    examples = []
    for number, sizes in enumerate(pictures):
        images = tuple(rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes)
        question = f"Where is the {'red circle' if number % 2 else 'blue square'}?"
        examples.append(
            Example(id=f"e{number}", images=images, question=question, options=("left", "right"), answer="")
        )
    encoded = [processor.encode(example, style="tiny") for example in examples]
    prompts, shown = [], []
    for number in range(count):
        at = number % len(examples)
        said = " ".join(rng.choice(SENTENCES, rng.integers(0, 5)))
        user = f"{examples[at].question}\nSo far: {said}\nNow: {rng.choice(SENTENCES)}\nCORRECT, INCORRECT or SKIP?"
        prompts.append(processor.reworded(encoded[at], system="Judge.", user=user))
        shown.append(examples[at].images)
    return prompts, shown


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

    from fgrpo_jax.data.processor import Processor
    from fgrpo_jax.model.qwen2_5_vl import Model
    from fgrpo_jax.rewards.judges.scorer import VerdictScorer
    from fgrpo_jax.weights import importer

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
    import jax

    from fgrpo_jax.data.processor import Processor
    from fgrpo_jax.model.qwen2_5_vl import Model
    from fgrpo_jax.weights import exporter

    if not out.exists():
        model = Model.create(Processor.load(policy).config)
        params = model.init(jax.random.key(0))
        text = params["text"]
        for part in (text["embed"], text["layers"]["attn"]["q"], text["layers"]["attn"]["v"]):
            name = "table" if "table" in part else "kernel"
            part[name] = part[name] * 4
        exporter.save_hf(out, params, model, source=policy)
    return out


def parity(context: runs.Context) -> Iterator[Check]:
    """Images of mixed sizes, several, and none; a tiny checkpoint with random weights, and the policy itself."""
    name = f"local/choices of {CASES} that differ from transformers' argmax over the verdict tokens"
    if importlib.util.find_spec("torch") is None:
        yield skipped(name, "torch is not installed; pip install '.[test]'", "== 0")
        return
    random = random_weights(context.policy, context.scratch / "random-judge")
    for label, folder in (("random weights", random), ("the policy", context.policy)):
        found = compare(folder)
        yield same(f"{name}, {label}", found.differing, 0)
        yield at_most(f"local/largest difference of a verdict's log-prob, {label}", found.error, 1e-3)
        yield at_most(
            f"local/compiled programs for {CASES} prompts of {len(MIXED)} examples, {label}", found.programs, 12
        )
        if label == "random weights":
            yield at_least("local/cases of the rarest verdict", min(found.counts), 5)


def throughput(context: runs.Context) -> Iterator[Check]:
    """Seconds of 100 judgements, and of the same prompts answered by the sampler in 16 tokens; both are compiled."""
    scored, decoded = seconds(context.policy)
    yield above(f"local/judgements a second, {CASES} prompts on CPU", CASES / scored, 0)
    yield above(f"local/the same, {DECODED} tokens decoded for each", CASES / decoded, 0)
    yield above("local/times faster than decoding", decoded / scored, 2.0)


def seconds(folder: Path) -> tuple[float, float]:
    """(of scoring, of decoding DECODED tokens each), the best of three, compilation apart."""
    import jax

    from fgrpo_jax.data.buckets import Buckets
    from fgrpo_jax.data.processor import Processor
    from fgrpo_jax.data.prompts import collate
    from fgrpo_jax.model.qwen2_5_vl import Model
    from fgrpo_jax.rewards.judges.scorer import VerdictScorer
    from fgrpo_jax.rollout.sampler import Sampler
    from fgrpo_jax.weights import importer

    processor = Processor.load(folder)
    model = Model.create(processor.config, unrolled=jax.default_backend() == "cpu")
    params = importer.load_hf(folder, model, dtype="float32")
    prompts, _ = cases(processor, pictures=LARGE)
    scorer = VerdictScorer(model, params, processor)
    sampler = Sampler(
        model,
        group_size=1,
        max_new_tokens=DECODED,
        eos_ids=(),
        pad_id=processor.pad_id,
        banned=processor.banned,
        temperature=0.0,
    )

    def decode() -> None:
        # As a served judge is asked: every prompt by itself, in batches of the same length.
        order = sorted(prompts, key=lambda prompt: len(prompt.tokens))
        for start in range(0, len(order), 20):
            batch = collate(order[start : start + 20], buckets=Buckets(), pad_id=processor.pad_id)
            jax.block_until_ready(sampler.sample(params, batch, seed=0, purpose="check", step=0).tokens)

    return _best(lambda: scorer.choose(prompts, VERDICTS)), _best(decode)


def _best(run: Any) -> float:
    run()  # compiles
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def training(context: runs.Context) -> Iterator[Check]:
    """Steps with the policy's own warm start as judge, by the command; stopped, gone on, and judged by the same."""
    cache, flags = context.scratch / "programs", {"judge.backend": "local", "judge.local.hf": context.policy}
    flags |= {"judge.local.dtype": "float32", "optim.schedule": "constant", "checkpoint.every": 1}
    work, steps = context.scratch / "local", 2

    def run(folder: Path, count: int, **more: Any) -> list[dict[str, Any]]:
        given = {name.replace(".", "__"): value for name, value in {**flags, "num_steps": count, **more}.items()}
        runs.door("train", *runs.tiny(context.policy, folder, **given), cache=cache).require()
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    found = run(work, steps)
    asked = sum(row["judge/requests"] for row in found)
    yield above(f"local_run/requests to the model in {steps} steps", asked, 0)
    yield same("local_run/of them failed", sum(row["judge/failed"] for row in found), 0)
    applicable = [row["constraint/semantic_grounding/applicable"] for row in found]
    yield above("local_run/rollouts of a step that the model judged by their sentences, fewest", min(applicable), 0)
    later = found[-1]["compile/count"] - found[0]["compile/count"]
    yield at_most("local_run/programs compiled after the first step", later, 6)
    kept = [name for name in found[0] if name.startswith(("constraint/", "reward/", "loss/"))]
    parts = context.scratch / "local-parts"
    run(parts, steps // 2)
    resumed = run(parts, steps)
    differing = sum(a[name] != b[name] for a, b in zip(found, resumed, strict=True) for name in kept)
    yield same("local_run/figures of a run stopped half-way that differ from the whole run's", differing, 0)
    again = run(context.scratch / "local-again", steps, **{"judge.cache": work / "judge.sqlite"})
    asked = sum(row["judge/requests"] for row in again)
    yield same("local_run/requests to the model where the verdicts are on file", asked, 0)
