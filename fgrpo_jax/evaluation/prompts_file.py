"""Questions in, samples out: a bare user turn from text and images, and a whole file of them (`generate --prompts`).

A file of prompts is JSONL, one object a line:

    {"prompt": "What is left of the cube?", "images": ["a.png"], "id": "kitchen-1", "system": "Be brief."}

`prompt` is required; `images` are paths relative to the file, before the prompt in the turn; `id` is part of the
sampling key and must be unique (the number of the line stands in for it); `system` adds a system turn. Everything is
read and measured before the first token is drawn, and what is wrong is named by file and line. Answers are written as
they come to OUT.part, from which the same command goes on after a kill (OUT.settings.json says what it must have been
drawn with); OUT appears whole, at the end, and alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fgrpo_jax.data import buckets
from fgrpo_jax.data.buckets import Buckets
from fgrpo_jax.data.images import decode_image
from fgrpo_jax.data.processor import Processor
from fgrpo_jax.data.prompts import EncodedPrompt, collate
from fgrpo_jax.data.styles import PromptStyle
from fgrpo_jax.reading.dialects import read_boxes
from fgrpo_jax.records import Example, PromptBatch, Video
from fgrpo_jax.rollout.generate import Generation
from fgrpo_jax.rows import append_rows, require_same, resume_rows, write_json

BARE = PromptStyle(system="", question="{question}", options="", request="", open_request="")
"""The prompt alone."""

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
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}" if self.place else str(error)) from error
        return Example(id=self.id, images=pictures, question=self.prompt, options=(), answer="", source="generate")


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
def read_questions(file: Path, *, system: str = "") -> list[Question]:
    """The questions of a JSONL file; `system` is of rows that name none. A ValueError names file, line and remedy."""
    # Only newlines break lines: splitlines would also split at U+2028 in a text.
    lines = [(n, line) for n, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{file} holds no prompts; write one JSON object a line")
    questions = [_question(line, file, number, system) for number, line in lines]
    seen: dict[str, str] = {}
    for question in questions:
        if question.id in seen:
            raise ValueError(f"{question.place}: id {question.id!r} is that of {seen[question.id]} too; give another")
        seen[question.id] = question.place
    return questions


def _question(line: str, file: Path, number: int, system: str) -> Question:
    place = f"{file}:{number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON ({error.msg}); write one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f'{place} is no JSON object; write {{"prompt": ...}}')
    for key in (key for key in row if key not in FIELDS):
        near = difflib.get_close_matches(key, FIELDS, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"the fields are {', '.join(FIELDS)}"
        raise ValueError(f"{place}: unknown key {key!r}; {hint}")
    texts = {"id": f"line {number}", "system": system, **row}
    for key in ("prompt", "id", "system"):
        if not isinstance(texts.get(key), str) or (key == "prompt" and not texts[key]):
            raise ValueError(f"{place}: {key!r} must be a text, got {row.get(key)!r}")
    names = row.get("images", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place}: 'images' must be a list of paths, got {names!r}")
    for name in names:
        if not (file.parent / name).is_file():
            raise ValueError(f"{place}: image {name!r} does not exist in {file.parent}; correct it or remove the line")
    images = tuple(file.parent / name for name in names)
    return Question(texts["id"], texts["prompt"], images, texts["system"], place)


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

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds answers, on the disk when it returns."""
        append_rows(self.part, rows)

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
    needs = [_measure(processor, question, prefill) for question in reading]
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
            answers.append(rows)
            tokens, seconds = tokens + drawn.tokens, seconds + drawn.seconds
            bar.update(len(part))
            bar.set_postfix({"tokens/s": f"{tokens / seconds:.0f}"})
    answers.finish()
    return tokens, seconds


def _measure(processor: Processor, question: Question, prefill: str) -> buckets.Shape:
    example = question.example()
    try:
        return processor.measure(example, style=BARE, system=question.system, prefill=prefill)
    except ValueError as error:
        raise ValueError(f"{question.place}: {error}") from error
