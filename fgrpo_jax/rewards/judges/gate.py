"""When the next request to a server may go: its rate, the pauses it asks for, and when it is better left alone."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import time

PATIENCE = 30.0  # seconds a server is left alone after it failed too often in a row


class Passing(Exception):
    """A failure that may be gone at the next attempt, no sooner than `wait` seconds from now."""

    def __init__(self, what: str, *, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class Final(Exception):
    """A failure that another attempt would only repeat."""


class Gate:
    """When the next attempt may go: not faster than the rate, not while the server asked for a pause.

    Used in the event loop alone.

    Args:
      per_minute: most attempts a minute; 0 is no limit.
      enough: requests in a row that came to nothing, after which the server is left alone.
    """

    def __init__(self, per_minute: float, *, enough: int) -> None:
        self._step = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0  # on the monotonic clock, as the two below
        self._held = 0.0
        self._shut_until = 0.0
        self._enough, self._in_a_row, self._last = enough, 0, ""

    async def turn(self, ends: float) -> None:
        """Waits for this attempt's turn.

        Raises:
          Passing: it would come after `ends`.
        """
        now = time.monotonic()
        at = max(now, self._next, self._held)
        if at >= ends:
            raise Passing("the rate limit or Retry-After leaves no time before the deadline", wait=at - now)
        self._next = at + self._step
        if at > now:
            await asyncio.sleep(at - now)

    def hold(self, seconds: float) -> None:
        """No attempt for so long, whoever makes it."""
        if seconds:
            self._held = max(self._held, time.monotonic() + seconds)

    def answered(self) -> None:
        """The server gave an answer."""
        self._in_a_row = 0

    def failed(self, why: str) -> None:
        """A request came to nothing."""
        self._in_a_row += 1
        self._last = why
        if self._in_a_row >= self._enough:
            self._shut_until = time.monotonic() + PATIENCE
            self._in_a_row = self._enough - 1  # one failure after the pause closes it again

    @property
    def shut(self) -> str | None:
        """Why nothing is asked just now; None while it is."""
        if time.monotonic() >= self._shut_until:
            return None
        return f"not asked: the server failed {self._enough} times in a row, the last time: {self._last}"


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); 0 when it holds neither."""
    value = (value or "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    date = date.replace(tzinfo=date.tzinfo or datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
