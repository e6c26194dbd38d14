"""What a judge may say."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """Of a sentence against the image: CORRECT, INCORRECT, SKIP. Of a reasoning and its answer: YES, NO, UNCERTAIN."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    SKIP = "skip"
    YES = "yes"
    NO = "no"
    UNCERTAIN = "uncertain"
