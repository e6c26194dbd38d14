"""Questions in, samples out: a bare user turn from text and images, and a whole file of them (`generate --prompts`).

A file of prompts is JSONL, one object a line:

    {"prompt": "What is left of the cube?", "images": ["a.png"], "id": "kitchen-1", "system": "Be brief."}

`prompt` is required; `images` are paths relative to the file, before the prompt in the turn or where it has `<image>`
marks (or `<image 2>`, by number); `id` is part of the
sampling key and must be unique (the number of the line stands in for it); `system` adds a system turn. Everything is
read and measured before the first token is drawn, and what is wrong is named by file and line. Answers are written as
they come to OUT.part, from which the same command goes on after a kill (OUT.settings.json says what it must have been
drawn with); OUT appears whole, at the end, and alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fgrpo_jax.data import buckets, marks
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.images import decode_image
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.data.sets.published import Skipped
from fgrpo_jax.data.sets.readers import records
from fgrpo_jax.data.sets.readers.files import numbered
from fgrpo_jax.data.sets.readers.records import BadRow, HeldImages, Record
from fgrpo_jax.data.styles import BARE
from fgrpo_jax.reading.dialects import read_boxes
from fgrpo_jax.records import Example, PromptBatch, Video
from fgrpo_jax.rollout.generate import Generation
from fgrpo_jax.rows import append_rows, require_same, resume_rows, write_json

FIELDS = ("prompt", "images", "id", "system")
SHAPES = 4
"""Padded shapes of a file's batches, each of them one compile."""


@dataclasses.dataclass(frozen=True)
class Question:
    """One user turn. `place` is where it came from, for errors; `images` are files."""

    id: str
    prompt: str
    images: tuple[Path, ...]
    system: str
    place: str

    def example(self) -> Example:
        """With its images read; ValueError names the place when one does not decode."""
        try:
            pictures = tuple(decode_image(file) for file in self.images)
            prompt = marks.settle(self.prompt, (), count=len(pictures))
        except ValueError as error:
            raise self.bad(error) from error
        return Example(id=self.id, images=pictures, question=prompt, options=(), answer="", source="generate")

    def bad(self, error: ValueError) -> ValueError:
        """An error about this question; a bad row where it is one of a file."""
        return BadRow(self.place, str(error)) if self.place else error


def encode(
    processor: Processor,
    text: str,
    *,
    images: Sequence[str],
    system: str,
    prefill: str = "",
    videos: Sequence[Video] = (),
) -> EncodedPrompt:
    """One user turn: images, videos, then the text. Its id is a constant: the seed alone decides the noise."""
    question = Question("--prompt", text, tuple(map(Path, images)), system, place="")
    example = dataclasses.replace(question.example(), videos=tuple(videos))
    return processor.encode(example, style=BARE, system=system, prefill=prefill)


def samples(drawn: Generation, prompt: int = 0) -> list[dict[str, Any]]:
    """The samples of one prompt, ready for JSON. Boxes are as the text says them: pixels of the processed image."""
    ids, logprob = drawn.ids, drawn.logprob
    return [
        {"text": text, "tokens": ids(prompt, g), "logprob": logprob(prompt, g), "boxes": read_boxes(text)[0]}
        for g, text in enumerate(drawn.texts[prompt])
    ]


# ---------------------------------------------------------------------------------------------------- a file of them
def read_questions(
    file: Path, *, system: str = "", skip: Callable[[Question], object] | None = None
) -> tuple[list[Question], Skipped]:
    """The questions of a JSONL file or of a JSON list, and the rows left out.

    Args:
      system: of rows that name none.
      skip: tries a question; where it is given, rows that cannot be used are left out.

    Raises:
      ValueError: no questions.
      BadRow: a row that cannot be used; names file, row and remedy.
    """
    questions: dict[str, Question] = {}
    skipped: list[BadRow] = []
    for record in records.json_file(file):
        try:
            if isinstance(record, BadRow):
                raise record
            question = _question(record, system)
            if (first := questions.get(question.id)) is not None:
                why = f"id {question.id!r} is that of {first.place} too; give another"
                raise record.bad(why, kind="repeated id")
            if skip is not None:
                skip(question)
        except BadRow as bad:
            if skip is None:
                raise
            skipped.append(bad)
        else:
            questions[question.id] = question
    if not questions:
        left = f": {Skipped(tuple(skipped))}" if skipped else "; write one JSON object a line"
        raise ValueError(f"{file} holds no prompts{left}")
    return list(questions.values()), Skipped(tuple(skipped))


def _question(record: Record, system: str) -> Question:
    for key in (key for key in record.fields if key not in FIELDS):
        near = difflib.get_close_matches(key, FIELDS, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"the fields are {', '.join(FIELDS)}"
        raise record.bad(f"unknown key {key!r}; {hint}", kind="unknown field")
    about = {key: record.take(key, str, "a text", default=text) for key, text in (("id", ""), ("system", system))}
    names = record.take("images", list, "a list of paths", default=[])
    folder = record.path.parent
    for name in names:
        if not isinstance(name, str) or not (folder / name).is_file():
            why = f"image {name!r} does not exist in {folder}; correct it or remove the {record.unit}"
            raise record.bad(why, kind="missing image")
    found = HeldImages.of(folder / name for name in names)
    (prompt,), images = numbered(record, [record.text("prompt", strip=False)], found)
    files = tuple(Path(name) for name, _ in images.load())
    return Question(about["id"] or f"line {record.number}", prompt, files, about["system"], record.place)


@dataclasses.dataclass(frozen=True)
class Answers:
    """OUT, and until it is whole OUT.part with the answers so far and OUT.settings.json with what they depend on."""

    out: Path
    settings: Mapping[str, Any]

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")

    @property
    def _header(self) -> Path:
        return self.out.with_name(self.out.name + ".settings.json")

    def start(self) -> int:
        """How many answers are there already; a ValueError where OUT exists, or OUT.part is of other settings."""
        if self.out.exists():
            raise ValueError(f"{self.out} exists; remove it or give another --out")
        if self.part.exists() and self._header.exists():
            what = f"{self.part} was begun with other settings"
            remedy = "remove it to start afresh, or repeat the command it was begun with"
            require_same(self._header, self.settings, what=what, remedy=remedy)
        elif self.part.exists():
            raise ValueError(f"{self.part} has no {self._header.name}, so nobody knows how it was drawn; remove it")
        write_json(self._header, self.settings)
        return len(resume_rows(self.part))

    def finish(self) -> None:
        """OUT.part becomes OUT, at once."""
        self.part.replace(self.out)
        self._header.unlink()


def ask_all(
    questions: Sequence[Question],
    answers: Answers,
    processor: Processor,
    *,
    batch: int,
    prefill: str = "",
    draw: Callable[[PromptBatch], Generation],
) -> tuple[int, float]:
    """Answers what is not answered yet, `batch` prompts a call of `draw`; (tokens drawn, seconds of sampling).

    A question's answers depend on its id, the seed and the settings: not on the batch, its neighbours or a restart.
    An image or a prompt that cannot be used is a ValueError that names its line, before anything is drawn.
    """
    reading = tqdm(questions, desc="reading", unit="prompt", leave=False)
    needs = [measure(processor, question, prefill) for question in reading]
    groups = [needs[start : start + batch] for start in range(0, len(needs), batch)]
    shapes = buckets.choose([functools.reduce(buckets.Shape.join, group) for group in groups], count=SHAPES)
    done = answers.start()
    tokens, seconds = 0, 0.0
    with tqdm(total=len(questions), initial=done, desc="prompts", unit="prompt") as bar:
        for start in range(done, len(questions), batch):
            part = questions[start : start + batch]
            encoded = [processor.encode(q.example(), style=BARE, system=q.system, prefill=prefill) for q in part]
            filled = [*encoded, *[encoded[-1]] * (batch - len(encoded))]  # one shape; the repeats are thrown away
            prompts = collate(filled, buckets=Buckets(shapes=shapes), pad_id=processor.pad_id)
            prompts = prompts.replace(
                mask=prompts.mask & (np.arange(batch) < len(part))[:, None], occurrence=np.zeros(batch, np.uint32)
            )
            drawn = draw(prompts)
            rows = [{"id": q.id, "prompt": q.prompt, "samples": samples(drawn, index)} for index, q in enumerate(part)]
            append_rows(answers.part, rows)
            tokens, seconds = tokens + drawn.tokens, seconds + drawn.seconds
            bar.update(len(part))
            bar.set_postfix({"tokens/s": f"{tokens / seconds:.0f}"})
    answers.finish()
    return tokens, seconds


def measure(processor: Processor, question: Question, prefill: str) -> buckets.Shape:
    """What a question needs of a batch; a `BadRow` where it cannot be asked."""
    example = question.example()
    try:
        return processor.measure(example, style=BARE, system=question.system, prefill=prefill)
    except ValueError as error:
        raise question.bad(error) from error
