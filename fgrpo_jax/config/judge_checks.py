"""What the settings of judges may not be together. `checks.check` asks here.

Each function takes checked sections and raises a ValueError that names the fields, their values and the remedy.
"""

from __future__ import annotations

import json
import urllib.parse

from fgrpo_jax.config.sections import Config, JudgeSection
from fgrpo_jax.rewards.judges.settings import Server


def check_judges(config: Config) -> None:
    """Both sections; asked of every door."""
    _check_judge(config.judge, at="config.judge")
    if config.eval.judge.backend != "same":
        _check_judge(config.eval.judge, at="config.eval.judge")
    if config.eval.extractor.backend == "server":
        _check_server(config.eval.extractor.server, at="config.eval.extractor")


def _check_judge(judge: JudgeSection, *, at: str) -> None:
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


def _check_server(server: Server, *, at: str) -> None:
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
