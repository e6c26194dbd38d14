"""A judge behind an OpenAI-compatible chat endpoint: vLLM, SGLang, or a hosted one. Text and images.

All requests of a run go through one event loop in a thread of its own, so many under way at once as `concurrency` says.
An attempt has a limit on its whole duration, so that neither a silent nor a trickling server holds a step up. What may
pass (time-outs, 408, 425, 429, 5xx, dropped connections, broken JSON) is tried again, with back-off and jitter and no
sooner than Retry-After says; all the rest fails at once. A request that came to nothing is a judgement without a
verdict. When a server fails many times in a row, it is left alone for a while and further requests fail unasked.

The key comes from the environment, goes into one header, and into nothing else: not into errors, logs or the cache.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import random
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import aiohttp

from fgrpo_jax.rewards.judges import prompts
from fgrpo_jax.rewards.judges.gate import Final, Gate, Passing, retry_after
from fgrpo_jax.rewards.judges.pictures import Pictures
from fgrpo_jax.rewards.judges.protocol import Done, Judgement, Request
from fgrpo_jax.rewards.judges.settings import Server

T = TypeVar("T")

LONGEST_PAUSE = 30.0  # seconds between two attempts, but for what Retry-After asks
MOST_BYTES = 2_000_000  # of an answer; a verdict is one word
IDLE = 4.0  # seconds a connection is kept unused: vLLM closes it after five, and a request must not meet that
AGAIN = frozenset((408, 425, 429, *range(500, 600)))


class ServerJudge:
    """See the module.

    Args:
      settings: how to speak to the endpoint.
      frame: in which the judge reads boxes, see `prompts.UNITS`.
      wording: what it is told.
      concurrency: attempts under way at once.
      processes: that share the endpoint, and its limit of requests a minute.

    Raises:
      ValueError: `key_env` names a variable that is not set, or whose value can't be a key.
    """

    overlaps = True

    def __init__(
        self,
        settings: Server,
        *,
        frame: str = "processed",
        wording: prompts.Wording = prompts.OURS,
        concurrency: int = 32,
        processes: int = 1,
    ) -> None:
        self.settings, self.frame, self.wording, self.concurrency = settings, frame, wording, concurrency
        self._key = _key(settings.key_env)
        self._gate = Gate(settings.requests_per_minute / processes, enough=max(8, 2 * concurrency))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge-server", daemon=True)
        self._thread.start()
        self._client = self._run(self._open()).result()
        self._pictures = Pictures(settings.image)

    @property
    def identity(self) -> Mapping[str, str]:
        """Backend, model, and the settings that a verdict may depend on."""
        s = self.settings
        return {
            "backend": "server",
            "model": s.model,
            "frame": self.frame,
            "image": s.image,
            "max_tokens": str(s.max_tokens),
            "body": json.dumps(s.body, sort_keys=True),
            **self.wording.identity,
        }

    def judge(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Judgement]:
        """A judgement for each request, in order; see `Judge`."""

        async def ask(index: int, request: Request) -> Judgement:
            judgement = await self._judge(request)
            if done is not None:  # in a thread: a cache may wait for its file
                await asyncio.to_thread(done, index, judgement)
            return judgement

        return self._results([ask(index, request) for index, request in enumerate(requests)])

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """(what was said, why there is nothing) to each (system turn, user turn), in order; texts alone."""
        return self._results([self._chat(system, user) for system, user in turns])

    def check(self) -> None:
        """Sees that the server is there and serves the model.

        Raises:
          ValueError: it is not, refuses the key, or serves other models; says which.
        """
        self._run(self._check()).result()

    def close(self) -> None:
        """Breaks off what is under way and ends the thread."""
        if self._loop.is_closed():
            return
        self._run(self._shut()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    # ---------------------------------------------------------------------------------------------------- in the loop
    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _results(self, work: Sequence[Awaitable[T]]) -> list[T]:
        async def gathered() -> list[T]:
            return await asyncio.gather(*work)

        return self._run(gathered()).result()

    async def _open(self) -> aiohttp.ClientSession:
        s = self.settings
        self._free = asyncio.Semaphore(self.concurrency)
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            connector=aiohttp.TCPConnector(limit=self.concurrency, keepalive_timeout=IDLE),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=s.connect_timeout),  # `_attempt` has the total
            cookie_jar=aiohttp.DummyCookieJar(),  # a balancer's cookie would send everything to one replica
            trust_env=True,  # proxies, as other programs find them
        )

    async def _shut(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await asyncio.sleep(0.01)  # connections take a turn of the loop to close
        await self._loop.shutdown_default_executor()

    async def _judge(self, request: Request) -> Judgement:
        """One request, in its turn. Its clock runs from then on: thousands may wait for a few to be through."""
        async with self._free:
            began = time.perf_counter()
            answer, why = await self._attempts(lambda: self._body(request))
            out = Judgement(None, error=why) if why else self._read(answer, request)
            return dataclasses.replace(out, seconds=time.perf_counter() - began)

    async def _chat(self, system: str, user: str) -> tuple[str, str]:
        async def pack() -> bytes:
            return self._packed(system, user)

        async with self._free:
            answer, why = await self._attempts(pack)
        return ("", why) if why else self._text(answer)[:2]

    async def _attempts(self, pack: Callable[[], Awaitable[bytes]]) -> tuple[Any, str]:
        """(the JSON of an answer, '') after as many attempts as it takes and as there may be, or (None, why not)."""
        s, ends, said = self.settings, time.monotonic() + self.settings.deadline, ""
        if (why := self._gate.shut) is not None:
            return None, self._clean(why)
        try:
            body = await pack()
        except ValueError as error:
            return None, self._clean(str(error))
        for attempt in range(s.retries + 1):
            try:
                await self._gate.turn(ends)
                answer = await self._attempt(body, left=ends - time.monotonic())
            except Passing as error:
                said = str(error)
                self._gate.hold(error.wait)
                backoff = min(s.backoff * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
                pause = max(backoff, error.wait)
                if attempt == s.retries or time.monotonic() + pause >= ends:
                    break
                await asyncio.sleep(pause)
            except Final as error:
                self._gate.answered()
                return None, self._clean(str(error))
            else:
                self._gate.answered()
                return answer, ""
        self._gate.failed(said)
        return None, self._clean(f"attempts: {attempt + 1}, the last one: {said}")

    async def _attempt(self, body: bytes, *, left: float) -> Any:
        """The JSON of one answer.

        Raises:
          Passing, Final: there is none.
        """
        limit = min(self.settings.timeout, left)
        if limit <= 0:
            raise Passing("no time was left to ask")
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            async with asyncio.timeout(limit):  # of the whole attempt: bytes that trickle never run into a read limit
                # No redirect is followed: the key and the images are for the address that was named.
                headers = {"Content-Type": "application/json"}
                sent = io.BytesIO(body)  # written in parts: other requests need not wait for one with large images
                async with self._client.post(url, data=sent, headers=headers, allow_redirects=False) as response:
                    text = await _content(response)
        except aiohttp.ConnectionTimeoutError:
            raise Passing(f"no connection within {self.settings.connect_timeout:.3g} s") from None
        except TimeoutError:
            raise Passing(f"no answer within {limit:.3g} s") from None
        except aiohttp.InvalidURL as error:
            raise Final(f"{type(error).__name__}: {error}") from None
        except aiohttp.ClientError as error:
            raise Passing(f"{type(error).__name__}: {error}") from None
        if response.status != 200:
            what = f"status {response.status}: {text[:200].decode(errors='replace')}"
            if response.status in AGAIN:
                raise Passing(what, wait=retry_after(response.headers.get("Retry-After")))
            raise Final(what)
        try:
            return json.loads(text)
        except ValueError:
            raise Passing(f"an answer of {len(text)} bytes that is no JSON") from None

    def _text(self, answer: Any) -> tuple[str, str, dict[str, Any]]:
        """(the text of an answer, why there is none, the tokens of it)."""
        usage = _usage(answer)
        try:
            (choice,) = answer["choices"]
            text, end = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, TypeError, ValueError, AttributeError):
            return "", "an answer without one choice, its message and its content", usage
        if end == "length":
            return "", f"an answer cut off at {self.settings.max_tokens} tokens", usage
        if not isinstance(text, str) or not text.strip():
            return "", "an empty answer", usage
        return text, "", usage

    def _read(self, answer: Any, request: Request) -> Judgement:
        """The verdict of an answer, or why there is none."""
        text, why, usage = self._text(answer)
        verdict = None if why else prompts.read_verdict(text, self.wording.verdicts(request.kind))
        if verdict is None:
            why = why or self._clean(f"no verdict: {text[:80]!r}")
        return Judgement(verdict, error=why, **usage)

    async def _body(self, request: Request) -> bytes:
        """The JSON that is sent.

        Raises:
          ValueError: the request is too long, or its images can't be sent.
        """
        prompt = prompts.render(request, frame=self.frame, wording=self.wording)
        content: Any = prompt.text
        if prompt.images:
            shown = [{"type": "image_url", "image_url": {"url": url}} for url in await self._pictures.of(request)]
            content = [*shown, {"type": "text", "text": prompt.text}]
        return self._packed(prompt.system, content)

    def _packed(self, system: str, content: Any) -> bytes:
        s = self.settings
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": content})
        fields = {"model": s.model, "messages": messages, "max_tokens": s.max_tokens, "temperature": 0, "stream": False}
        return json.dumps({k: v for k, v in (fields | s.body).items() if v is not None}).encode()

    async def _check(self) -> None:
        s, at = self.settings, "config.judge.server"
        url = f"{s.url.rstrip('/')}/models"
        try:
            async with asyncio.timeout(s.timeout), self._client.get(url, allow_redirects=False) as response:
                text = await _content(response)
        except (TimeoutError, aiohttp.ClientError, Passing, Final) as error:
            what = self._clean(str(error)) or type(error).__name__
            raise ValueError(
                f"the judge at {s.url} does not answer ({what}); start the server, or correct {at}.url"
            ) from None
        if response.status in (401, 403):
            named = f"the key in {s.key_env}" if s.key_env else "a request without a key"
            raise ValueError(
                f"the judge at {s.url} refuses {named} (status {response.status}); set the environment variable "
                f"that {at}.key_env names"
            )
        served = _served(text) if response.status == 200 else None
        if not served:
            # Some have no such list, or an empty one; whether the model is there then shows in the first request.
            warnings.warn(f"{url} gives no list of models (status {response.status})", stacklevel=2)
        elif s.model not in served:
            raise ValueError(
                f"the judge at {s.url} does not serve {s.model!r} but {', '.join(served[:8])}; correct {at}.model"
            )

    def _clean(self, text: str) -> str:
        """A text for people, without the key should the server have sent it back."""
        return text.replace(self._key, "***") if self._key else text


# ------------------------------------------------------------------------------------------------------------- details
def _key(name: str) -> str:
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(f"environment variable {name} (config.judge.server.key_env) is not set; put the API key there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"environment variable {name} holds characters that no API key has; set it again")
    return key


async def _content(response: aiohttp.ClientResponse) -> bytes:
    out = bytearray()
    async for chunk in response.content.iter_any():
        out += chunk
        if len(out) > MOST_BYTES:
            raise Final(f"an answer of more than {MOST_BYTES:,} bytes")
    return bytes(out)


def _served(text: bytes) -> list[str] | None:
    """Names of a list of models; None when it is none."""
    try:
        return [str(model["id"]) for model in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError):
        return None


def _usage(answer: Any) -> dict[str, Any]:
    """Tokens read and written, as fields of a `Judgement`; 0 where the server does not say."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    known = {"tokens_in": counts.get("prompt_tokens"), "tokens_out": counts.get("completion_tokens")}
    return {name: count if isinstance(count, int) and count > 0 else 0 for name, count in known.items()}
