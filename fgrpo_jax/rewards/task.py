"""R_acc: is the answer right."""

from __future__ import annotations

from fgrpo_jax.reading.answers import same_answer
from fgrpo_jax.reading.values import plain
from fgrpo_jax.reading.parsing import Parsed, answer_index, open_answer
from fgrpo_jax.records import Example


def accuracy(parsed: Parsed, example: Example) -> float:
    """1.0 if the response answers with the gold option (letter or text), or as the gold text of an open question does.

    Open answers are the same when their words are (without case and outer punctuation), or both are the same number,
    or the same yes or no.

    Raises:
      ValueError: the example has no answer, or its answer is none of its options.
    """
    if not example.options:
        return float(same_answer(open_answer(parsed), _gold_text(example)))
    return float(answer_index(parsed, example.options) == gold_index(example))


def gold_index(example: Example) -> int:
    """Index of the right option; errors as of `accuracy`."""
    gold, texts = plain(_gold_text(example)), [plain(option) for option in example.options]
    letter = ord(gold) - ord("a") if len(gold) == 1 else -1
    if 0 <= letter < len(texts):
        return letter
    if gold in texts:
        return texts.index(gold)
    raise ValueError(
        f"example {example.id!r}: answer {example.answer!r} is none of its {len(texts)} options {example.options}; "
        "give the letter or the text of one of them"
    )


def _gold_text(example: Example) -> str:
    if not example.answer.strip():
        raise ValueError(f"example {example.id!r} has no answer; give the letter or the text of the right one")
    return example.answer
