"""Settings of an endpoint that judges or reads answers: a section of the config."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from fgrpo_jax.fields import COUNT, POSITIVE, AtLeast, field


@dataclasses.dataclass(frozen=True)
class Server:
    """An OpenAI-compatible chat endpoint: vLLM, SGLang, hosted."""

    url: str = field("", "Up to /v1, such as http://localhost:8000/v1. There is never a key in it.")
    model: str = field("", "The name under which the endpoint serves it.")
    key_env: str = field("", "NAME of the environment variable that holds the API key. Empty sends none.")
    image: Literal["processed", "original"] = field("processed", "Images are sent as the policy saw them (processed) or as published (original).")
    max_tokens: int = field(16, "Of an answer, which is one word. One that is cut off is a failure.", COUNT)
    extra: str = field("", "JSON object of further fields of each request. null takes a field out.")
    connect_timeout: float = field(10.0, "Seconds to reach the server.", POSITIVE)
    timeout: float = field(60.0, "Seconds of one attempt, however slowly bytes may trickle.", POSITIVE)
    deadline: float = field(180.0, "Seconds of a judgement with all its attempts and waits.", POSITIVE)
    retries: int = field(4, "Further attempts after time-outs, 408, 429, 5xx, dropped connections, broken JSON.", AtLeast(0))
    backoff: float = field(0.5, "Seconds before the first further attempt. They are doubled each time, with jitter, up to 30.", POSITIVE)
    requests_per_minute: int = field(0, "At most, over all processes of the run. 0 is no limit.", AtLeast(0))

    @property
    def body(self) -> dict[str, Any]:
        """`extra` as a JSON object."""
        return json.loads(self.extra) if self.extra else {}
