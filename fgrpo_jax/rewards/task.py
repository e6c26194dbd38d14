"""R_acc: is the answer right."""

from __future__ import annotations

from typing import Literal

from fgrpo_jax.reading.answers import named, same_answer
from fgrpo_jax.reading.parsing import Parsed, answer_index, open_answer
from fgrpo_jax.reading.values import plain
from fgrpo_jax.records import Example

Reading = Literal["reader", "strict"]


def accuracy(parsed: Parsed, example: Example, *, reading: Reading = "reader") -> float:
    """1.0 if the response answers with the gold option (letter or text), or as the gold text of an open question does.

    Args:
      reading: 'reader' takes the option that the answer commits to, and open answers that say the same. 'strict' takes
        an answer between answer tags that, without case and outer punctuation, is the gold one to the letter.

    Raises:
      ValueError: the example has no answer, its answer is none of its options, or it is LaTeX that nobody can grade.
    """
    gold = gold_index(example) if example.options else None
    if reading == "strict":
        exact = {plain(_gold_text(example))} if gold is None else {chr(ord("a") + gold), plain(example.options[gold])}
        return float(parsed.answer is not None and plain(parsed.answer) in exact)
    if gold is None:
        return float(same_answer(open_answer(parsed), _gold_text(example)))
    return float(answer_index(parsed, example.options) == gold)


def gold_index(example: Example) -> int:
    """Index of the right option, read as a response is; errors as of `accuracy`."""
    gold = named(_gold_text(example), example.options)
    if gold is None:
        raise ValueError(
            f"example {example.id!r}: answer {example.answer!r} is none of its {len(example.options)} options "
            f"{example.options}; give the letter or the text of one of them"
        )
    return gold


def _gold_text(example: Example) -> str:
    if not example.answer.strip():
        raise ValueError(f"example {example.id!r} has no answer; give the letter or the text of the right one")
    return example.answer
