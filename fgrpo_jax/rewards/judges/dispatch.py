"""Between the scorer and its judges: rules first, then the cache, then a model. Equal requests are asked once.

What rules can decide costs nothing and is asked of every response. A model is asked only where the verdict counts (see
`Case.kinds`), and not about sentences that claim nothing. Without a model, what the rules leave open is an abstention.
A judgement that failed or was left open has no verdict all the way to the signals, where it is a mask. A response one
of whose sentences has no verdict has no semantic grounding: a share over the others would reward sentences that confuse
the judge.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from fgrpo_jax.data.prompts import EncodedPrompt
from fgrpo_jax.reading.parsing import Parsed
from fgrpo_jax.reading.precheck import precheck
from fgrpo_jax.reading.sentences import Trivial
from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.judges import prompts
from fgrpo_jax.rewards.judges.cache import Cache
from fgrpo_jax.rewards.judges.protocol import Judge, Judgement, Kind, Request
from fgrpo_jax.rewards.judges.tally import Tally

KINDS: frozenset[Kind] = frozenset(("consistency", "semantic"))

ABSTAINED = "the rules abstained and no model stands behind them"


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One response to be judged, with what a `Request` holds of it."""

    example: Example
    parsed: Parsed
    size: ImageSize
    encoded: EncodedPrompt | None = None
    kinds: frozenset[Kind] = KINDS  # the verdicts that count somewhere: only for these is a model asked


@dataclasses.dataclass(frozen=True)
class Opinion:
    """What is known of a response; None where nobody was asked."""

    consistency: Judgement | None
    sentences: tuple[Judgement, ...] | None  # one for each sentence of the reasoning
    unread: int = 0  # sentences that the rules could not read, where they judged

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """All of them."""
        return tuple(one for one in (self.consistency, *(self.sentences or ())) if one is not None)


class Oracle(Protocol):
    """Who knows the truth of some examples, see `world.oracle.Oracle`."""

    def consistency(self, example: Example, parsed: Parsed) -> Verdict | None: ...
    def clear(self, example: Example, parsed: Parsed) -> Verdict | None: ...
    def semantic(self, example: Example, parsed: Parsed, *, size: ImageSize | None = None) -> list[Verdict | None]: ...
    def count_unread(self, parsed: Parsed) -> int: ...


@dataclasses.dataclass(eq=False)
class Dispatcher:
    """Asks whoever can answer. Safe to call from several threads.

    Attributes:
      oracle: who knows what holds in the scenes of some examples, and what their questions ask; None for nobody.
      sentences: whether the oracle judges sentences about known scenes (or else nobody does, or the model).
      model: who is asked what the rules leave open; None for nobody.
      precheck: whether the rules decide clear cases of consistency before a model is asked.
      trivial: whether a sentence claims nothing to be seen: SKIP, and not sent.
      store: verdicts of this and earlier runs; None keeps none.
      key: what tells requests apart, for cache and repetitions: all that the model's verdict depends on. By default no
        two are the same.
      tally: counts of all that went through here.
    """

    oracle: Oracle | None = None
    sentences: bool = True
    model: Judge | None = None
    precheck: bool = True
    trivial: Trivial = dataclasses.field(default_factory=Trivial)
    store: Cache | None = None
    key: Callable[[Request], bytes] = lambda request: str(id(request)).encode()
    tally: Tally = dataclasses.field(default_factory=Tally)
    _asked: dict[bytes, Future[Judgement]] = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def overlaps(self) -> bool:
        """Whether cases may be judged while the sampler draws further rollouts."""
        return self.model is None or self.model.overlaps

    @property
    def about(self) -> dict[str, str]:
        """Who judges, for result files."""
        if self.model is None:
            return {"backend": "rules" if self.sentences else "none"}
        return {**self.model.identity, "prompt_version": prompts.PROMPT_VERSION, "precheck": str(self.precheck)}

    def close(self) -> None:
        """Closes model and cache."""
        for part in (self.model, self.store):
            if part is not None:
                part.close()

    def judge(self, cases: Sequence[Case]) -> list[Opinion]:
        """What is known of each response; a request that went wrong is a judgement without a verdict, no exception."""
        drafts = [self._draft(case) for case in cases]
        answers = iter(self._ask([request for draft in drafts for request in draft.open]))
        opinions = [draft.filled(answers) for draft in drafts]
        for case, opinion in zip(cases, opinions, strict=True):
            if opinion.consistency is not None and "consistency" in case.kinds:
                self.tally.add([opinion.consistency])
            if "semantic" in case.kinds:
                self.tally.add(opinion.sentences or ())
        return opinions

    # ------------------------------------------------------------------------------------------------------- the rules
    def _draft(self, case: Case) -> _Draft:
        """What rules say of a case, and what a model is to be asked about it."""
        consistency = self._consistency(case)
        if self.sentences and self.oracle is not None and case.example.scene is not None:
            sentences = list(map(_ruled, self.oracle.semantic(case.example, case.parsed, size=case.size)))
            return _Draft(consistency, sentences, unread=self.oracle.count_unread(case.parsed))
        if self.model is None or "semantic" not in case.kinds:
            return _Draft(consistency, None)
        return _Draft(consistency, [self._sentence(case, at) for at in range(len(case.parsed.sentences))])

    def _consistency(self, case: Case) -> Judgement | Request | None:
        example, parsed = case.example, case.parsed
        oracle = self.oracle if example.query is not None else None
        if self.model is None:
            return _ruled(precheck(parsed, example.options) if oracle is None else oracle.consistency(example, parsed))
        if not parsed.sentences:  # no reasoning entails nothing: a rule of the method, not of a judge
            return Judgement(Verdict.NO, how="rule")
        verdict = None
        if self.precheck:
            verdict = precheck(parsed, example.options) if oracle is None else oracle.clear(example, parsed)
        if verdict is not None:
            return _ruled(verdict)
        return self._request("consistency", case) if "consistency" in case.kinds else None

    def _sentence(self, case: Case, at: int) -> Judgement | Request:
        sentences = case.parsed.sentences
        if self.trivial(sentences[at], dialect=case.parsed.dialect):
            return Judgement(Verdict.SKIP, how="rule")
        return self._request("semantic", case, before=sentences[:at], sentence=sentences[at])

    def _request(self, kind: Kind, case: Case, **more: Any) -> Request:
        return Request(kind, case.example, case.parsed, case.size, encoded=case.encoded, **more)

    # ------------------------------------------------------------------------------------------------------- the model
    def _ask(self, requests: Sequence[Request]) -> list[Judgement]:
        """A judgement for each; equal ones, here or under way in another thread, are asked once."""
        keys = [self.key(request) for request in requests]
        mine, under_way = self._claim(keys)
        try:
            answers = self._answer({key: requests[at] for key, at in mine.items()})
        except BaseException as error:
            raised = error
            self._settle(mine, lambda _, future: future.set_exception(raised))
            raise
        self._settle(mine, lambda key, future: future.set_result(answers[key]))
        answers |= {key: future.result() for key, future in under_way.items()}
        return [answers[key] if mine.get(key) == at else _repeated(answers[key]) for at, key in enumerate(keys)]

    def _claim(self, keys: Sequence[bytes]) -> tuple[dict[bytes, int], dict[bytes, Future[Judgement]]]:
        """(keys this call must answer, with the place of each; those another thread is answering)."""
        mine: dict[bytes, int] = {}
        under_way: dict[bytes, Future[Judgement]] = {}
        with self._lock:
            for at, key in enumerate(keys):
                if key in mine or key in under_way:
                    continue
                if key in self._asked:
                    under_way[key] = self._asked[key]
                else:
                    self._asked[key], mine[key] = Future(), at
        return mine, under_way

    def _settle(self, keys: dict[bytes, int], how: Callable[[bytes, Future[Judgement]], None]) -> None:
        with self._lock:
            for key in keys:
                how(key, self._asked.pop(key))

    def _answer(self, requests: dict[bytes, Request]) -> dict[bytes, Judgement]:
        """From the cache, and the rest from the model."""
        store = self.store
        out = store.get(list(requests)) if store is not None and requests else {}
        rest = [key for key in requests if key not in out]
        if not rest:
            return out
        assert self.model is not None

        def keep(index: int, judgement: Judgement) -> None:
            if store is not None and not judgement.failed:
                store.put(rest[index], judgement)

        answers = self.model.judge([requests[key] for key in rest], done=None if store is None else keep)
        if len(answers) != len(rest):
            raise ValueError(f"judge {dict(self.model.identity)} gave {len(answers)} judgements for {len(rest)}")
        return out | dict(zip(rest, answers, strict=True))


@dataclasses.dataclass(frozen=True)
class _Draft:
    """An opinion in which requests stand where a model must say."""

    consistency: Judgement | Request | None
    sentences: Sequence[Judgement | Request] | None
    unread: int = 0

    @property
    def open(self) -> list[Request]:
        """The requests, in the order in which `filled` takes their answers."""
        return [part for part in (self.consistency, *(self.sentences or ())) if isinstance(part, Request)]

    def filled(self, answers: Iterator[Judgement]) -> Opinion:
        """The opinion, with the next answers in the places of the requests."""

        def judged(part: Any) -> Any:
            return next(answers) if isinstance(part, Request) else part

        consistency = judged(self.consistency)  # before the sentences: requests and answers come in that order
        sentences = None if self.sentences is None else tuple(map(judged, self.sentences))
        return Opinion(consistency, sentences, unread=self.unread)


def _ruled(verdict: Verdict | None) -> Judgement:
    """What the rules say, or that they say nothing."""
    return Judgement(verdict, how="rule", error=ABSTAINED if verdict is None else "")


def _repeated(judgement: Judgement) -> Judgement:
    """The same for another request that equals the first one: it cost nothing, as a hit of the file."""
    return dataclasses.replace(judgement, how="cache", tokens_in=0, tokens_out=0, seconds=0.0)
