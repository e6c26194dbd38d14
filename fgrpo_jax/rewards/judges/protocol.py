"""What a judge is asked, what it answers, and what it must have: the protocol every backend keeps.

A judge gets a batch of requests and gives as many judgements, in the same order. It never raises for a request that
went wrong: such a judgement has no verdict and says why, and is masked and counted by whoever asked, never read as 0.

`dispatch` stands between the scorer and a judge: it asks rules and cache first, asks equal requests once, and counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.reading.parsing import Parsed
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.records import Example, ImageSize

Kind = Literal["consistency", "semantic"]

VERDICTS: Mapping[Kind, tuple[Verdict, ...]] = {
    "consistency": (Verdict.YES, Verdict.NO, Verdict.UNCERTAIN),
    "semantic": (Verdict.CORRECT, Verdict.INCORRECT, Verdict.SKIP),
}
"""What may be answered to a request of each kind."""


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One question to a judge: of a reasoning and its answer, or of one sentence of a reasoning.

    `example` holds what is not for a judge's eyes: `answer`, `boxes`, `scene`, `trace`.
    """

    kind: Kind  # does the reasoning entail the answer (text only), or is `sentence` true of the image
    example: Example  # the question with its images
    parsed: Parsed  # the whole response
    size: ImageSize  # of the first image, as published and as the policy saw it
    before: tuple[str, ...] = ()  # semantic: the sentences of the reasoning that come before, in order
    sentence: str = ""  # semantic: the one that is judged
    encoded: EncodedPrompt | None = None  # the prompt as the policy saw it, patches included, where it is at hand


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What came of a request."""

    verdict: Verdict | None  # one of `VERDICTS` of its kind; None when a model failed or the rules abstained
    how: Literal["rule", "cache", "model"] = "model"  # where it comes from
    confidence: float | None = None  # 0..1, where the backend knows one
    tokens_in: int = 0  # of the model for this request; 0 where none ran or it does not say
    tokens_out: int = 0
    seconds: float = 0.0  # from asking to the answer, waiting and retries included
    error: str = ""  # why there is no verdict; '' where there is one

    def __post_init__(self) -> None:
        if (self.verdict is None) != bool(self.error):
            raise ValueError(f"a judgement has a verdict or an error text, got {self.verdict} and {self.error!r}")

    @property
    def abstained(self) -> bool:
        """Whether rules left it open and nobody else was asked: masked, and counted by itself."""
        return self.verdict is None and self.how == "rule"

    @property
    def failed(self) -> bool:
        """Whether a model was asked and gave no verdict: masked, and counted as a failure."""
        return self.verdict is None and self.how != "rule"


Done = Callable[[int, Judgement], None]


class Judge(Protocol):
    """A backend that answers requests rules can't decide."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All of the judge that its verdicts depend on (backend, model, prompt version, ..): part of cache keys."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether `judge` may run in other threads, several at once, while the sampler draws further rollouts."""
        ...

    def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
        """A judgement for each request, in order; one that went wrong has no verdict but an error text.

        Args:
          done: called with the index of a request and its judgement as soon as that is there, from any thread: what a
            run has paid for is then in the cache even when it is killed before the batch is through.
        """
        ...

    def close(self) -> None:
        """Gives back connections or memory. Harmless when called again."""
