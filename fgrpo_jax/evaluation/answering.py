"""Questions of a set answered by a policy and judged, an answer a line, so that a killed evaluation goes on.

    W/eval/SET.jsonl            one answer a line, appended batch by batch; in the order of the set
    W/eval/SET.settings.json    what the answers depend on; another policy, protocol or judge is refused by name
    W/eval/parts/               the answers of each process, until process 0 has merged them

Batches are those of the whole set, whatever is answered already: a question meets the same padding and the same noise
in every run, so that what a resumed evaluation says is what an unbroken one would have said.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from fgrpo_jax.config import sections as configs
from fgrpo_jax.config.sections_judge import FREE as JUDGE_FREE
from fgrpo_jax.config.sections_judge import eval_judge
from fgrpo_jax.data import buckets as padded
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.pipeline import Batch, PromptIterator
from fgrpo_jax.data.sources import Source, outline
from fgrpo_jax.data.styles import LETTERS, find_style
from fgrpo_jax.reading.answers import same_answer
from fgrpo_jax.reading.dialects import find_dialect
from fgrpo_jax.reading.parsing import Parsed, answer_index, answer_text, parse
from fgrpo_jax.records import Example, Signals
from fgrpo_jax.rewards.judges.extraction import Extracted, Extractor
from fgrpo_jax.rewards.score import score
from fgrpo_jax.rewards.task import gold_index
from fgrpo_jax.rollout.generate import Generation, generate
from fgrpo_jax.rollout.sampler import Sampler
from fgrpo_jax.training import checkpoint, setup
from fgrpo_jax.training.collect import everywhere
from fgrpo_jax.training.scoring import THREADS, Scored, Scorer

Answer = dict[str, Any]

FREE = (
    *("model.hf", "model.revision", "model.remat", "model.freeze", "model.lora.*"),
    *("data.path", "data.train_split", "data.prompts_per_step", "data.workers", "data.buckets.*"),
    *("data.filter", "data.overlong", "data.length_cache", "data.difficulty.*"),
    *("rollout.group_size", "rollout.temperature", "rollout.batch_prompts", "rollout.compact", "rollout.logp_*"),
    *("eval.examples", "eval.limit", "eval.every", "eval.batch_prompts", "eval.sets", "eval.root", "eval.paths.*"),
    "eval.resamples",
    *(f"eval.{who}.{name}" for who in ("judge", "extractor") for name in JUDGE_FREE),
)
"""Config fields on which no answer and no judgement of it depends, as patterns."""

OF_THE_SET = ("data.source", "data.eval_split", "data.world.*")
"""Fields that say which questions are asked; those of `eval.sets` have their own."""

_PLACES, _PLACE = 64, 1 << 20  # how many places of a large file are read, and how many bytes at each


# --------------------------------------------------------------------------------------------------------- what was set
def settings(config: configs.Config, name: str, *, policy: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers of a set depend on, by the names of the config.

    Args:
      name: of the set, as its file has it.
      policy: its name, revision and fingerprint.
    """
    whole = configs.to_dict(config)
    kept = {section: whole[section] for section in ("model", "data", "rollout", "rewards", "eval")}
    kept["eval"] = kept["eval"] | {"judge": dataclasses.asdict(eval_judge(config))}
    free = (*FREE, *OF_THE_SET) if config.eval.sets else FREE
    fields = {key: value for key, value in checkpoint.leaves(kept).items() if not _matches(key, free)}
    style = dataclasses.asdict(find_style(config.data.prompt))
    return {"set": name, "policy": dict(policy), "wording": _digest(json.dumps(style).encode()), "config": fields}


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def fingerprint(*folders: Path) -> str:
    """Digest of the files below some folders: names and contents; of those beyond 64 MiB, sizes and 64 places of 1 MiB.

    Weights that were trained on differ everywhere, so that the places suffice; all of 7B would take minutes to read.
    """
    out = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            size = file.stat().st_size
            out.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
            with file.open("rb") as handle:
                for i in range(_PLACES):
                    handle.seek(max(0, size - _PLACE) * i // (_PLACES - 1) if size > _PLACE * _PLACES else i * _PLACE)
                    out.update(handle.read(_PLACE))
    return out.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


# ------------------------------------------------------------------------------------------------------ answers on disk
@dataclasses.dataclass(frozen=True)
class AnswerFile:
    """The answers of one set in a workdir.

    Attributes:
      folder: W/eval.
      name: of the set.
      settings: what its answers depend on, see `settings`.
      process_index, process_count: this process among those that answer together; all see the same folder.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    process_index: int = 0
    process_count: int = 1

    @property
    def path(self) -> Path:
        """Where all answers stand in the end."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def part(self) -> Path:
        """Where this process appends: the file itself when it is alone."""
        if self.process_count == 1:
            return self.path
        return self.folder / "parts" / f"{self.name}.{self.process_index}-of-{self.process_count}.jsonl"

    @property
    def _header(self) -> Path:
        return self.folder / f"{self.name}.settings.json"

    def begin(self) -> dict[int, Answer]:
        """Answers that are there already, by index, of all processes; a line cut short is dropped from its file.

        Raises:
          ValueError: they were given by another policy, or under other settings.
        """
        self._require_same()
        answered: dict[int, Answer] = {}
        for file in self._files():
            answered |= {row["index"]: row for row in read_whole(file)}
        _barrier(f"{self.name}: read", self.process_count)
        trim(self.part)
        if self.process_index == 0:
            write_atomically(self._header, json.dumps(self.settings, indent=1) + "\n")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        return answered

    def append(self, rows: Sequence[Answer]) -> None:
        """Adds answers, on the disk when it returns."""
        if not rows:
            return
        with self.part.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, count: int) -> list[Answer]:
        """All `count` answers in the order of the set; process 0 puts them into one file.

        Raises:
          ValueError: some are missing, or there are more.
        """
        _barrier(f"{self.name}: answered", self.process_count)
        answered: dict[int, Answer] = {}
        for file in self._files():
            answered |= {row["index"]: row for row in read_whole(file)}
        if sorted(answered) != list(range(count)):
            odd = sorted(set(range(count)) ^ set(answered))
            raise ValueError(
                f"{self.folder} holds {len(answered)} answers of '{self.name}', which has {count} questions here; the "
                f"first that does not fit is number {odd[0]}. Ask for as many as before (eval.limit, eval.examples), "
                "let all processes see one --workdir, or use another one"
            )
        rows = [answered[index] for index in range(count)]
        _barrier(f"{self.name}: merging", self.process_count)
        if self.process_index == 0:
            write_answers(self.path, rows)
            for file in self._files():
                if file != self.path:
                    file.unlink()
        return rows

    def _files(self) -> list[Path]:
        return [file for file in (self.path, *sorted(self.folder.glob(f"parts/{self.name}.*.jsonl"))) if file.is_file()]

    def _require_same(self) -> None:
        if not self._header.is_file():
            if self._files():
                raise ValueError(
                    f"{self.path} holds answers without {self._header.name}, so nobody knows whose; remove it or use "
                    "another --workdir"
                )
            return
        before = json.loads(self._header.read_text(encoding="utf-8"))
        lines = checkpoint.differences(before, json.loads(json.dumps(self.settings)), ignore=("policy.name",))
        if lines:
            shown = "\n  ".join(lines[:12])
            raise ValueError(
                f"{self.path} was begun under other settings:\n  {shown}\nuse another --workdir, repeat the command it "
                f"was begun with, or remove {self.name}.* to start afresh"
            )


def read_whole(file: Path) -> list[Answer]:
    """The answers of a file; what follows the last line break was cut short by a kill and is left out."""
    lines = file.read_bytes().split(b"\n")[:-1]  # an answer may hold U+2028, at which str.splitlines would break it
    out = []
    for number, line in enumerate(lines, start=1):
        try:
            out.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{file}:{number} is not JSON ({error}); remove the line, and it is answered again"
            ) from error
    return out


def trim(file: Path) -> None:
    """Cuts a file after its last line break."""
    if file.is_file():
        content = file.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """One JSON object a line."""
    write_atomically(path, "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers))


def write_atomically(path: Path, text: str) -> None:
    """Writes beside the place, then renames: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf8")
    beside.replace(path)


def _barrier(name: str, processes: int) -> None:
    if processes > 1:
        multihost_utils.sync_global_devices(name)


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
    began = time.perf_counter()
    scored = score if extractor is None else functools.partial(read_by, extractor)
    waiting: collections.deque[tuple[Batch, Generation, Future[Scored]]] = collections.deque()

    def finished() -> list[Answer]:
        batch, drawn, future = waiting.popleft()
        asked = time.perf_counter()
        rows = _answers(config, batch, drawn, future.result())
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
        drawn = generate(
            sampler,
            params,
            policy.put(batch.prompts),
            decode=setup.decoder(config, policy),
            seed=config.eval.seed,
            purpose="eval",
            step=0,
        )
        spent.sampling += time.perf_counter() - got
        if not spent.first:
            spent.first, spent.first_data = time.perf_counter() - began, spent.data
        # Only so many at once that their images do not fill the memory.
        waiting.append(
            (batch, drawn, scorer.submit(scored, batch.examples, batch.encoded, drawn.texts, drawn.rollouts))
        )
        while waiting and (len(waiting) > THREADS or waiting[0][2].done()):
            yield finished()
    while waiting:
        yield finished()
    spent.wall += time.perf_counter() - began


def _answers(config: configs.Config, batch: Batch, drawn: Generation, scored: Scored) -> list[Answer]:
    """The answers of a batch's real prompts."""
    signals, seen = scored
    style = find_style(config.data.prompt)
    out = []
    for row in range(batch.count):
        example, text = batch.examples[row], drawn.texts[row][0]
        parsed = parse(text, dialect=find_dialect(style.dialect))
        lengths = {
            "tokens": int(drawn.rollouts.mask[row, 0].sum()),
            "truncated": float(not drawn.rollouts.finished[row, 0]),
            "words": len(parsed.think.split()),
        }
        said = {"text": text, **_read(example, parsed)}
        told = _told(example, seen["extracted"][row, 0], said["read"]) if "extracted" in seen else {}
        out.append({**_asked(example), **said, **_judged(signals, seen, row), **lengths, **told})
    return out


def _asked(example: Example) -> Answer:
    return {
        "id": example.id,
        "source": example.source,
        "tags": dict(example.tags),
        "question": example.question,
        "options": list(example.options),
        "gold": example.answer,
    }


def _read(example: Example, parsed: Parsed) -> Answer:
    """What the answer was read as: the letter of an option, or the text of an open answer; null for nothing."""
    if not example.options:
        return {"read": answer_text(parsed)}
    chosen = answer_index(parsed, example.options)
    return {"read": None if chosen is None else LETTERS[chosen]}


def read_by(
    extractor: Extractor, examples: Sequence[Example], texts: Sequence[Sequence[str]], **settings: Any
) -> Scored:
    """`score` with what the extractor read besides, in diagnostics 'extracted', [M, 1] of `Extracted`."""
    signals, seen = score(examples, texts, **settings)
    read = np.empty((len(texts), 1), object)
    read[:, 0] = extractor(examples, [group[0] for group in texts])
    return signals, seen | {"extracted": read}


def _told(example: Example, extracted: Extracted, by_rules: str | None) -> Answer:
    """What the extractor changes of an answer; where it failed, rules have read it, and that is counted."""
    if extracted.error:
        return {"read_by_rules": by_rules, "extractor_failed": 1}
    read = extracted.read
    if example.options:
        right = read == LETTERS[gold_index(example)]
    else:
        right = read is not None and same_answer(read, example.answer)
    told = {"read": read, "answered": read is not None, "accuracy": float(right)}
    return {**told, "read_by_rules": by_rules, "extractor_failed": 0}


def _judged(signals: Signals, seen: Mapping[str, np.ndarray], row: int) -> Answer:
    def defined(name: str, mask: str) -> float | None:
        return float(seen[name][row, 0]) if seen[mask][row, 0] else None

    return {
        "answered": bool(seen["answered"][row, 0]),
        "accuracy": float(signals.accuracy[row, 0]),
        "format": float(signals.format[row, 0]),
        "consistency": defined("consistent", "consistent_mask"),
        "semantic_grounding": defined("semantic", "semantic_mask"),
        "spatial_grounding": defined("spatial", "spatial_mask"),
        "box_iou": defined("iou", "spatial_mask"),
        "judge_failed": int(seen["judge_failed"][row, 0]),
        "judge_abstained": int(seen["judge_abstained"][row, 0]),
    }


def answer_set(
    config: configs.Config,
    policy: setup.Policy,
    params: Any,
    sampler: Sampler,
    source: Source,
    file: AnswerFile,
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

    Raises:
      ValueError: the answers on file are of other questions, or of another policy or protocol.
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
        loop = answer_batches(
            config, policy, params(), sampler, batches, scorer=scorer, spent=spent, extractor=extractor
        )
        with tqdm(total=len(source), initial=int(known.sum()), desc=file.name, unit="answer", leave=False) as bar:
            for answers in loop:
                whole = slice(number * size, (number + 1) * size)
                start = whole.start + file.process_index * (size // file.process_count)
                numbered = [{"index": start + row, **answer} for row, answer in enumerate(answers)]
                file.append([answer for answer in numbered if not known[answer["index"]]])
                bar.update(int((~known[whole]).sum()))
                number += 1
        batches.close()
    return file.finish(len(source))


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
