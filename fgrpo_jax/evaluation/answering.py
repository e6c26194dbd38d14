"""Questions of a set answered by a policy and judged, an answer a line, so that a killed evaluation goes on.

    W/eval/SET.jsonl            one answer a line, appended batch by batch; in the order of the set
    W/eval/SET.settings.json    what the answers depend on; another policy, protocol or judge is refused by name
    W/eval/parts/               the answers of each process, until process 0 has merged them (`rows.NumberedRows`)

Batches are those of the whole set, whatever is answered already: a question meets the same padding and the same noise
in every run, so that what a resumed evaluation says is what an unbroken one would have said.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fgrpo_jax.config import effects
from fgrpo_jax.config import load as configs
from fgrpo_jax.data import buckets as padded
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.pipeline import Batch, PromptIterator
from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.data.styles import find_style
from fgrpo_jax.evaluation.judged import Answer, judged_answers, read_by
from fgrpo_jax.rewards.judges.extraction import Extractor
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.rows import NumberedRows, matching, this_process
from fgrpo_jax.training import setup
from fgrpo_jax.training.collect import everywhere
from fgrpo_jax.training.scoring import THREADS, Scored, Scorer

OF_THE_SET = matching("data.source", "data.eval_split", "data.world.*")
"""Fields that say which questions are asked; those of `eval.sets` have their own."""


# --------------------------------------------------------------------------------------------------------- what was set
def settings(config: configs.Config, name: str, *, policy: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers of a set depend on, by the names of the config; `policy` is its name, revision, fingerprint."""
    whole = configs.to_dict(config)
    whole["eval"] |= {"judge": dataclasses.asdict(config.eval_judge)}
    fields = effects.depending(whole, "answers")
    if config.eval.sets:
        fields = {key: value for key, value in fields.items() if not OF_THE_SET(key)}
    style = json.dumps(dataclasses.asdict(find_style(config.data.prompt)))
    wording = hashlib.blake2b(style.encode(), digest_size=8).hexdigest()
    return {"set": name, "policy": dict(policy), "wording": wording, "config": fields}


# ------------------------------------------------------------------------------------------------------------ answering
@dataclasses.dataclass
class Spent:
    """Seconds of an evaluation by what they went to, and what was drawn.

    Attributes:
      data: waiting for the next batch.
      sampling: drawing; the first batch of a shape compiles.
      judging: waiting for the judge, which works while further batches are drawn.
      wall: of all.
      first: wall time up to the end of the first batch, `first_data` of it waiting.
      tokens, answers: drawn.
    """

    data: float = 0.0
    sampling: float = 0.0
    judging: float = 0.0
    wall: float = 0.0
    first: float = 0.0
    first_data: float = 0.0
    tokens: int = 0
    answers: int = 0

    @property
    def waiting(self) -> float | None:
        """Share of the time after the first batch, which compiles, that went to waiting for data."""
        rest = self.wall - self.first
        return (self.data - self.first_data) / rest if self.first and rest > 0 and self.answers else None

    def line(self) -> str:
        """For a person."""
        rate = f"{self.tokens / self.sampling:.0f} tokens/s" if self.sampling else "nothing was left to draw"
        waited = "" if self.waiting is None else f", waiting for data {100 * self.waiting:.1f}% after the first batch"
        return (
            f"{self.answers} answers in {self.wall:.1f} s: data {self.data:.1f} s, sampling {self.sampling:.1f} s "
            f"({rate}), judging {self.judging:.1f} s{waited}"
        )


def answer_batches(
    config: configs.Config,
    policy: setup.Policy,
    params: Any,
    sampler: Sampler,
    batches: PromptIterator,
    *,
    scorer: Scorer,
    spent: Spent,
    extractor: Extractor | None = None,
) -> Iterator[list[Answer]]:
    """One judged answer for each real prompt of each batch, in order; judged while the next batches are drawn.

    The noise is keyed by `eval.seed` and the question alone, so two policies are compared on the same questions under
    the same draws, and differences are paired.
    """
    began, params = time.perf_counter(), sampler.lay_out(params)
    scored = score if extractor is None else functools.partial(read_by, extractor)
    waiting: collections.deque[tuple[Batch, Generation, Future[Scored]]] = collections.deque()

    def finished() -> list[Answer]:
        batch, drawn, future = waiting.popleft()
        asked = time.perf_counter()
        rows = judged_answers(config, batch, drawn, future.result())
        spent.judging += time.perf_counter() - asked
        spent.tokens += sum(row["tokens"] for row in rows)
        spent.answers += len(rows)
        return rows

    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        got = time.perf_counter()
        spent.data += got - asked
        if batch is None:
            break
        key: dict[str, Any] = {"seed": config.eval.seed, "purpose": "eval", "step": 0}
        drawn = generate(sampler, params, policy.put(batch.prompts), decode=setup.decoder(config, policy), **key)
        spent.sampling += time.perf_counter() - got
        if not spent.first:
            spent.first, spent.first_data = time.perf_counter() - began, spent.data
        # Only so many at once that their images do not fill the memory.
        future = scorer.submit(scored, batch.examples, batch.encoded, drawn.texts, drawn.rollouts)
        waiting.append((batch, drawn, future))
        while waiting and (len(waiting) > THREADS or waiting[0][2].done()):
            yield finished()
    while waiting:
        yield finished()
    spent.wall += time.perf_counter() - began


def answers_on_file(config: configs.Config, name: str, *, folder: Path, policy: Mapping[str, Any]) -> NumberedRows:
    """Where the answers of a set are kept below W/eval, which another policy, protocol or judge is not let into.

    A policy is its revision and fingerprint: under another name it is the same.
    """
    made_of = settings(config, name, policy=policy)
    return NumberedRows(folder / f"{name}.jsonl", made_of, free=matching("policy.name"), process=this_process())


def answer_set(
    config: configs.Config,
    policy: setup.Policy,
    params: Callable[[], Any],
    sampler: Sampler,
    source: Source,
    file: NumberedRows,
    *,
    scorer: Scorer,
    spent: Spent,
    extractor: Extractor | None = None,
) -> list[Answer]:
    """All answers of a set: those that are on file, and the others, appended as they come.

    Args:
      params: called for the parameters, once, and only when something is left to answer.
      spent: to which times are added.
      extractor: who reads answers; None for the rules.
    """
    answered = file.begin()
    _require_questions(source, answered)
    mine = np.zeros(len(source), bool)
    mine[[index for index in answered if index < len(source)]] = True
    known = np.any(everywhere(mine), axis=0)
    size = config.eval.batch_prompts
    if not known.all():
        batches = setup.heldout_batches(config, policy, source=source, workers=config.data.workers)
        if config.data.buckets.choose:
            batches.use(chosen(config, batches))
        number = int(np.flatnonzero(~known)[0]) // size
        batches.set_state(batches.get_state() | {"batches_taken": number})
        work: dict[str, Any] = {"scorer": scorer, "spent": spent, "extractor": extractor}
        loop = answer_batches(config, policy, params(), sampler, batches, **work)
        with tqdm(total=len(source), initial=int(known.sum()), desc=file.path.stem, unit="answer", leave=False) as bar:
            for answers in loop:
                whole = slice(number * size, (number + 1) * size)
                start = whole.start + file.process[0] * (size // file.process[1])
                numbered = [{"index": start + row, **answer} for row, answer in enumerate(answers)]
                file.append([answer for answer in numbered if not known[answer["index"]]])
                bar.update(int((~known[whole]).sum()))
                number += 1
        batches.close()
    return file.finish(len(source), asked_by="eval.limit, eval.examples")


def chosen(config: configs.Config, batches: PromptIterator) -> Buckets:
    """The shapes that pad the first `buckets.measure` batches least; the same ones when an evaluation goes on."""
    given, count = config.data.buckets, min(config.data.buckets.measure, len(batches))
    steps = tqdm(batches.needs(count), desc="measuring batches", total=count, leave=False)
    return dataclasses.replace(setup.buckets(config), shapes=padded.choose(steps, count=given.choose))


def _require_questions(source: Source, answered: Mapping[int, Answer]) -> None:
    """The last answer on file is of the question that stands there now."""
    inside = [index for index in answered if index < len(source)]
    if inside and (here := outline(source, max(inside)).id) != (there := answered[max(inside)]["id"]):
        raise ValueError(
            f"question {max(inside)} is {here!r}, and the answer on file is of {there!r}: the data changed; use "
            "another --workdir"
        )
