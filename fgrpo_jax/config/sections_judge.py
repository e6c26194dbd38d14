"""Who judges a reasoning: the sections `config.judge` and `config.eval.judge`, and what must not combine in them."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fgrpo_jax.config.schema import AtLeast, Between, MoreThan

if TYPE_CHECKING:
    from fgrpo_jax.config.sections import Config

Fraction = Annotated[float, Between(0.0, 1.0)]
Seconds = Annotated[float, MoreThan(0.0)]
Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]

WORKDIR = "WORKDIR"
"""First part of a path that stands in the workdir of the run."""

FREE = (
    *("max_failure_rate", "min_failures", "window", "concurrency", "cache"),
    *("server.url", "server.key_env", "server.connect_timeout", "server.timeout", "server.deadline"),
    *("server.retries", "server.backoff", "server.requests_per_minute"),
)
"""Fields of a judge that may differ when a run is resumed: no verdict depends on them."""


@dataclasses.dataclass(frozen=True)
class ServerSection:
    url: str
    model: str
    key_env: str
    image: Literal["processed", "original"]
    max_tokens: Count
    extra: str
    connect_timeout: Seconds
    timeout: Seconds
    deadline: Seconds
    retries: CountOrZero
    backoff: Seconds
    requests_per_minute: CountOrZero

    @property
    def body(self) -> dict[str, Any]:
        """`extra` as a JSON object."""
        return json.loads(self.extra) if self.extra else {}


@dataclasses.dataclass(frozen=True)
class LocalSection:
    hf: str
    revision: str
    dtype: Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class JudgeSection:
    backend: Literal["rules", "none", "local", "server"]
    precheck: bool
    unread: Literal["incorrect", "abstain"]
    frame: Literal["processed", "original", "unit", "thousand"]
    max_failure_rate: Fraction
    min_failures: Count
    window: Count
    concurrency: Count
    cache: str
    trivial_prefixes: tuple[str, ...]
    visual_words: tuple[str, ...]
    local: LocalSection
    server: ServerSection

    @property
    def asks_a_model(self) -> bool:
        """Whether a model answers what rules leave open."""
        return self.backend not in ("rules", "none")


@dataclasses.dataclass(frozen=True)
class EvalJudgeSection(JudgeSection):
    backend: Literal["same", "rules", "none", "local", "server"]


@dataclasses.dataclass(frozen=True)
class ExtractorSection:
    backend: Literal["rules", "server"]
    concurrency: Count
    server: ServerSection


def eval_judge(config: Config) -> JudgeSection:
    """The judge of evaluations: `config.eval.judge`, or the training judge where that says 'same'."""
    return config.judge if config.eval.judge.backend == "same" else config.eval.judge


def refuse_moved(raw: Mapping[str, Any]) -> None:
    """A field of earlier versions, by the name of the one that took its place."""
    if isinstance(rewards := raw.get("rewards"), Mapping) and "judge" in rewards:
        raise ValueError(
            f"config.rewards.judge={rewards['judge']!r} has moved: set config.judge.backend to the same value "
            "(rules | none | local | server; docs/judges.md)"
        )


def check_judges(config: Config) -> None:
    """Both sections; asked of every door."""
    check_judge(config.judge, at="config.judge")
    if config.eval.judge.backend != "same":
        check_judge(config.eval.judge, at="config.eval.judge")
    if config.eval.extractor.backend == "server":
        _check_server(config.eval.extractor.server, at="config.eval.extractor")


def check_judge(judge: JudgeSection, *, at: str) -> None:
    if judge.backend == "server":
        _check_server(judge.server, at=at)
        if {judge.frame, judge.server.image} == {"processed", "original"}:
            raise ValueError(
                f"{at}.frame='{judge.frame}' gives boxes in pixels of another image than server.image="
                f"'{judge.server.image}'; use one name for both, or a frame without pixels (unit, thousand)"
            )
    if judge.backend == "local" and not judge.local.hf:
        raise ValueError(f"{at}.backend='local' needs {at}.local.hf, the folder or hub id of a Qwen2.5-VL")
    if judge.backend == "local" and judge.frame != "processed":
        raise ValueError(
            f"{at}.frame='{judge.frame}': a local judge is a Qwen2.5-VL, which speaks 'processed'; use that"
        )
    lists = {"trivial_prefixes": judge.trivial_prefixes, "visual_words": judge.visual_words}
    for name, texts in lists.items():
        if odd := [text for text in texts if not text or text != text.lower().strip()]:
            raise ValueError(f"{at}.{name} holds {odd[0]!r}; give lower-case texts without spaces around them")


def _check_server(server: ServerSection, *, at: str) -> None:
    url = urllib.parse.urlsplit(server.url)
    shown = server.url if "@" not in server.url and "?" not in server.url else "…"  # there may be a key in it
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(
            f"{at}.server.url={shown!r} is no http or https address; give that of an OpenAI-compatible endpoint, "
            "such as http://localhost:8000/v1"
        )
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(
            f"{at}.server.url holds more than host and path; a key has no place in a config, which is stored: put it "
            f"into an environment variable and name that in {at}.server.key_env"
        )
    if not server.model:
        raise ValueError(f"{at}.backend='server' needs {at}.server.model, the name under which the endpoint serves it")
    if server.key_env and not server.key_env.replace("_", "a").isalnum():
        raise ValueError(f"{at}.server.key_env is no name of an environment variable; give the name, never the key")
    if server.deadline < server.timeout:
        raise ValueError(f"{at}.server.deadline={server.deadline} is below timeout={server.timeout}; raise it")
    try:
        body = server.body
    except json.JSONDecodeError as error:
        raise ValueError(f'{at}.server.extra is no JSON ({error.msg}); write {{"name": value}}') from error
    if not isinstance(body, dict) or {"messages", "model", "stream", "n"} & set(body):
        raise ValueError(f"{at}.server.extra must be a JSON object of further fields of a request, got {server.extra}")


def check_constraints(config: Config) -> None:
    """That somebody judges what is constrained."""
    if config.judge.backend == "none" and config.data.source == "world":
        for constraint in config.active_constraints:
            if constraint.signal == "semantic_grounding":
                raise ValueError(
                    "constraint 'semantic_grounding' needs a judge; set config.judge.backend='rules' or "
                    f"config.constraints.{constraint.name}.enabled=False"
                )
