"""A judge over HTTP that behaves, or misbehaves, on schedule: an OpenAI-compatible chat endpoint for tests and checks.

    python tools/scripted_judge.py --plan=good,status_500,slow,chatty --latency=0.2

Every request takes the next step of the plan, which goes round. Good answers are a verdict drawn from the words of the
request alone: the same request always gets the same verdict. It prints its address, and at the end nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import email.utils
import http.server
import itertools
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MODEL = "scripted"
Answer = Callable[[dict[str, Any]], str]


def words(body: dict[str, Any]) -> str:
    """All text of the user's turn of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "\n".join(p["text"] for p in content if p["type"] == "text")


def drawn(body: dict[str, Any]) -> str:
    """A verdict drawn from the words of a request."""
    asked = words(body)
    choices = ("CORRECT", "CORRECT", "INCORRECT", "SKIP") if "CORRECT" in asked.splitlines()[-1] else ("YES", "NO")
    return choices[zlib.crc32(asked.encode()) % len(choices)]


@dataclasses.dataclass
class Judge:
    """A server in threads of this process.

    Attributes:
      plan: what each request meets, in turn; names of `BEHAVIOURS`.
      latency: seconds before any answer but a 429, which comes at once.
      pause: seconds of the behaviours that dawdle; more than the time-out of whoever asks.
      retry_after: seconds that a 429 asks for; as a date with `dated`.
      answer: body of a request → text of a good answer.
      bodies: every request so far.
      times: when each came, on the monotonic clock.
      headers: of every request.
      most: most requests that were under way at once.
      connections: so many were opened.
    """

    plan: Sequence[str] = ("good",)
    latency: float = 0.0
    pause: float = 2.0
    retry_after: int = 1
    dated: bool = False
    answer: Answer = drawn
    bodies: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    headers: list[dict[str, str]] = dataclasses.field(default_factory=list)
    most: int = 0
    connections: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.plan if name not in BEHAVIOURS]
        if unknown:
            raise ValueError(f"unknown behaviour {unknown[0]!r}; known: {', '.join(BEHAVIOURS)}")
        self._lock = threading.Lock()
        self._steps = itertools.cycle(self.plan)
        self._now = 0

    def came(self) -> None:
        """A connection was opened."""
        with self._lock:
            self.connections += 1

    def next(self, body: dict[str, Any], headers: dict[str, str]) -> str:
        """The behaviour that this request meets."""
        with self._lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.headers.append(headers)
            self._now += 1
            self.most = max(self.most, self._now)
            return next(self._steps)

    def left(self) -> None:
        """A request has been dealt with."""
        with self._lock:
            self._now -= 1


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms for the first's receipt
    judge: Judge

    def setup(self) -> None:
        super().setup()
        self.judge.came()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.reply(404, b"{}")
        return self.reply(200, json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.judge.next(body, dict(self.headers))
        try:
            time.sleep(0.0 if behaviour == "status_429" else self.judge.latency)
            BEHAVIOURS[behaviour](self, body)
        except OSError:  # whoever asked has gone, as they may
            self.close_connection = True
        finally:
            self.judge.left()

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def say(self, text: Any, *, end: str = "stop") -> None:
        self.reply(200, _completion(text, end=end))


def _completion(text: Any, *, end: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
    return json.dumps({"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}).encode()


def _drop(handler: _Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


def _drop_midway(handler: _Handler, body: dict[str, Any]) -> None:
    whole = _completion(handler.judge.answer(body))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def _no_http(handler: _Handler, body: dict[str, Any]) -> None:
    handler.wfile.write(b"what?\r\n\r\n")
    handler.close_connection = True


def _slow(handler: _Handler, body: dict[str, Any]) -> None:
    time.sleep(handler.judge.pause)
    handler.say(handler.judge.answer(body))


def _trickle(handler: _Handler, body: dict[str, Any]) -> None:
    """The whole answer, a byte at a time: no single read is ever late."""
    whole = _completion(handler.judge.answer(body))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    for byte in whole:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(2 * handler.judge.pause / len(whole))


def _headers_trickle(handler: _Handler, body: dict[str, Any]) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(2 * handler.judge.pause / 200)
    handler.close_connection = True


def _status_429(handler: _Handler, body: dict[str, Any]) -> None:
    seconds = handler.judge.retry_after
    when = email.utils.formatdate(time.time() + seconds, usegmt=True) if handler.judge.dated else str(seconds)
    handler.reply(429, b'{"error": "slow down"}', Retry_After=when)


BEHAVIOURS: dict[str, Callable[[_Handler, dict[str, Any]], None]] = {
    "good": lambda h, body: h.say(h.judge.answer(body)),
    "decorated": lambda h, body: h.say(f"\n**{h.judge.answer(body).capitalize()}.**\n"),
    "slow": _slow,
    "trickle": _trickle,
    "headers_trickle": _headers_trickle,
    "status_429": _status_429,
    "status_500": lambda h, body: h.reply(500, b"oh dear"),
    "status_503": lambda h, body: h.reply(503, b""),
    "status_400": lambda h, body: h.reply(400, b'{"error": "context length exceeded"}'),
    "status_401": lambda h, body: h.reply(401, f'{{"error": "bad {h.headers.get("Authorization")}"}}'.encode()),
    "drop": _drop,
    "drop_midway": _drop_midway,
    "truncated": lambda h, body: h.reply(200, _completion(h.judge.answer(body))[:60]),
    "html": lambda h, body: h.reply(200, b"<html>502 Bad Gateway</html>"),
    "chatty": lambda h, body: h.say(f"The sentence is {h.judge.answer(body)}, since the image shows it."),
    "ambiguous": lambda h, body: h.say("CORRECT or INCORRECT"),
    "empty": lambda h, body: h.say(""),
    "null": lambda h, body: h.say(None),
    "cut_off": lambda h, body: h.say("CORRECT", end="length"),
    "no_choices": lambda h, body: h.reply(200, b'{"choices": []}'),
    "huge": lambda h, body: h.reply(200, b" " * 3_000_000),
    "no_http": _no_http,
    "elsewhere": lambda h, body: h.reply(307, b"", Location=h.judge.url + "/elsewhere"),
    "cookie": lambda h, body: h.reply(200, _completion(h.judge.answer(body)), Set_Cookie="replica=1; Path=/"),
}
"""What a request may meet."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that are killed, or tired of waiting, are what this is for."""


@contextlib.contextmanager
def serve(judge: Judge, *, port: int = 0) -> Iterator[Judge]:
    """Serves while the context lasts; `judge.url` is its address up to '/v1'."""
    handler = type("Handler", (_Handler,), {"judge": judge})
    with _Server(("127.0.0.1", port), handler) as server:
        judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--plan", default="good", help=f"steps with commas between: {', '.join(BEHAVIOURS)} (%(default)s)")
    out.add_argument("--latency", type=float, default=0.0, help="seconds before any answer but a 429 (%(default)s)")
    out.add_argument("--pause", type=float, default=2.0, help="seconds of the behaviours that dawdle (%(default)s)")
    out.add_argument("--port", type=int, default=0, help="0 takes a free one (%(default)s)")
    return out


def main() -> None:
    args = parser().parse_args()
    judge = Judge(plan=args.plan.split(","), latency=args.latency, pause=args.pause)
    with serve(judge, port=args.port), contextlib.suppress(KeyboardInterrupt):
        print(f"{judge.url} serves {MODEL}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
