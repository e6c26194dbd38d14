"""Signals of your own: a Python function that is given a batch of responses and returns a number for each, or None.

    config.rewards.custom.politeness = "my_pkg.rewards:politeness"

names it by its import path, and is then a signal like any other. The function, plain or async, is called as

    politeness(examples=[...], texts=[...], parsed=[...], metadata=[...])

with lists of one length, an entry a response: `records.Example`, text, `parsing.Parsed`, `Metadata`. None masks a
response. All else that is no finite number of the declared range (`signal`) is an error, as is any exception.
docs/rewards.md has examples. Plain functions may be called from several threads; async ones share one event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import numbers
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from fgrpo_jax.reading.parsing import Parsed
from fgrpo_jax.records import Example, ImageSize
from fgrpo_jax.rewards.signals import NAN, SIGNALS, Judged, Signal

T = TypeVar("T")

LARGEST = float(np.finfo(np.float32).max)  # values are kept in float32

ARGUMENTS = ("examples", "texts", "parsed", "metadata")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What else is known of a response.

    Attributes:
      prompt, member: which prompt of the batch it answers, and which of that prompt's responses it is.
      size: of the first image, as published and as the policy saw it; boxes of the text are in the latter's pixels.
      tokens: length, EOS included; NaN when unknown.
      finished: it ended by itself; None when unknown.
      judged: what the built-in signals found: accuracy, format, consistent, semantic, spatial and the others.
    """

    prompt: int
    member: int
    size: ImageSize
    tokens: float
    finished: bool | None
    judged: Judged


@dataclasses.dataclass(frozen=True)
class Custom:
    """A function with what its numbers mean; what `signal` makes of it. Called, it is the function."""

    function: Callable[..., Any]
    about: str
    low: float
    high: float
    correct_only: bool
    name: str = ""  # the one that a config gives it
    path: str = ""  # where the config finds it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def signal(self) -> Signal:
        """The entry that stands beside `SIGNALS`."""
        read = lambda judged: judged.custom.get(self.name, NAN)  # noqa: E731
        return Signal(self.about, self.low, self.high, read, correct_only=self.correct_only)


def signal(
    about: str, *, low: float = -math.inf, high: float = math.inf, correct_only: bool = False
) -> Callable[[Callable[..., Any]], Custom]:
    """Decorator that declares a signal: what it is, its range, and whether it counts for right answers only.

    Raises:
      ValueError: an empty range.
    """
    if not low < high:
        raise ValueError(f"signal {about!r} is declared to lie in [{low}, {high}], which holds nothing; swap the two")
    return lambda function: Custom(function, about, float(low), float(high), correct_only)


async def gather(awaitables: Iterable[Awaitable[T]], *, limit: int) -> list[T]:
    """The results of all, in order, `limit` of them under way at once: for functions that ask a service."""
    gate = asyncio.Semaphore(limit)

    async def one(awaitable: Awaitable[T]) -> T:
        async with gate:
            return await awaitable

    return list(await asyncio.gather(*map(one, awaitables)))


# ------------------------------------------------------------------------------------------------------ by import path
def resolve(name: str, path: str) -> Custom:
    """The function behind 'package.module:function'.

    Raises:
      ValueError: a name that is taken or no name, a path that leads to no function, a module whose import fails, or a
        function that can't be called with ARGUMENTS; each with the remedy.
    """
    at = f"config.rewards.custom.{name}={path!r}"
    if name in SIGNALS:
        raise ValueError(f"{at}: there is a built-in signal of that name; choose another")
    if not name.isidentifier():
        raise ValueError(f"{at}: a signal's name has letters, digits and _ only, since metrics are named after it")
    module, colon, function = path.partition(":")
    if not (module and colon and function):
        raise ValueError(f"{at} is no import path; write 'package.module:function'")
    found = _attribute(_imported(module, at), function, at)
    declared = found if isinstance(found, Custom) else signal(f"of {path}")(found)
    if not callable(declared.function):
        raise ValueError(f"{at} is a {type(found).__name__}, not a function")
    _require_signature(declared.function, at)
    return dataclasses.replace(declared, name=name, path=path)


def _imported(module: str, at: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise ValueError(
                f"{at}: there is no module '{missing}'; run the command from the folder that holds it, or put that "
                "folder on PYTHONPATH"
            ) from error
        raise ValueError(f"{at}: importing '{module}' failed: it needs '{missing}', which is not installed") from error
    except Exception as error:  # whatever a module of somebody else's does when it is imported
        raise ValueError(f"{at}: importing '{module}' failed: {_described(error)}") from error


def _attribute(module: Any, function: str, at: str) -> Any:
    try:
        return functools.reduce(getattr, function.split("."), module)
    except AttributeError as error:
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(function, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(known)) or 'no functions'}"
        raise ValueError(f"{at}: module '{module.__name__}' has no '{function}'; {hint}") from error


def _require_signature(function: Callable[..., Any], at: str) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return
    try:
        signature.bind(**dict.fromkeys(ARGUMENTS))
    except TypeError as error:
        raise ValueError(
            f"{at} takes {signature}, but is called with {', '.join(f'{name}=' for name in ARGUMENTS)} ({error}); "
            "name those it uses and add **_ for the others"
        ) from error


# ----------------------------------------------------------------------------------------------------------- a batch
@dataclasses.dataclass(frozen=True)
class Responses:
    """A batch as functions are given it: lists of one length, an entry a response."""

    examples: list[Example]
    texts: list[str]
    parsed: list[Parsed]
    metadata: list[Metadata]

    def arguments(self) -> dict[str, Any]:
        """Keywords of a call; the lists are the callee's own."""
        return {name: list(getattr(self, name)) for name in ARGUMENTS}

    def __str__(self) -> str:
        ids = list(dict.fromkeys(example.id for example in self.examples))
        shown = ", ".join(map(repr, ids[:3])) + (", .." if len(ids) > 3 else "")
        return f"a batch of {len(self.texts)} responses to {len(ids)} examples ({shown})"


class _Late(Exception):
    """A call took longer than it may."""


class CustomRewards:
    """The functions of a config, called batch by batch.

    Args:
      concurrency: calls of async functions under way at once.
      timeout: seconds that a call of an async function may take.
    """

    def __init__(self, functions: Iterable[Custom], *, concurrency: int = 8, timeout: float = 600.0) -> None:
        self.functions = {custom.name: custom for custom in functions}
        self._timeout, self._concurrency = timeout, concurrency
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._gate: asyncio.Semaphore | None = None

    @property
    def signals(self) -> Mapping[str, Signal]:
        """All signals there are with these functions: the built-in ones and theirs."""
        return SIGNALS | {name: custom.signal for name, custom in self.functions.items()}

    def values(self, responses: Responses, names: Iterable[str]) -> dict[str, list[float]]:
        """What the functions of these names say of each response, NaN where they say None.

        Raises:
          ValueError: a function raised, took too long, or returned what is no list of numbers or None of its range.
            It names the function, and the response or the batch; of an exception, its line as well.
        """
        if not responses.texts:
            return {name: [] for name in names}
        chosen = [self.functions[name] for name in names]
        under_way = {custom.name: self._begin(custom, responses) for custom in chosen if _is_async(custom)}
        try:
            return {custom.name: self._called(custom, responses, under_way.get(custom.name)) for custom in chosen}
        finally:
            for future in under_way.values():
                future.cancel()

    def close(self) -> None:
        """Ends the event loop, if one was needed. Harmless when called again."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)
            if not thread.is_alive():
                loop.close()

    def _called(self, custom: Custom, responses: Responses, under_way: Future[Any] | None) -> list[float]:
        """The checked result of a function: of the call of it that is under way, or of one made here."""
        function = f"reward function '{custom.path}'"
        try:
            found = custom.function(**responses.arguments()) if under_way is None else under_way.result()
        except _Late as error:
            raise ValueError(
                f"{function} took more than {self._timeout:g} s for {responses}; ask less of it, return None for what "
                "is late, or raise config.rewards.custom_timeout"
            ) from error
        except Exception as error:  # a function of somebody else's may raise anything
            raise ValueError(f"{function} failed on {responses}: {_described(error)}") from error
        return _numbers(custom, responses, found)

    def _begin(self, custom: Custom, responses: Responses) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._awaited(custom, responses), self._running_loop())

    async def _awaited(self, custom: Custom, responses: Responses) -> Any:
        if self._gate is None:
            self._gate = asyncio.Semaphore(self._concurrency)
        async with self._gate:
            began = time.monotonic()
            try:
                return await asyncio.wait_for(custom.function(**responses.arguments()), self._timeout)
            except TimeoutError as error:
                if time.monotonic() - began < self._timeout:  # the function's own
                    raise
                raise _Late from error

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop, self._gate = asyncio.new_event_loop(), None
                self._thread = threading.Thread(target=self._loop.run_forever, name="custom-rewards", daemon=True)
                self._thread.start()
            return self._loop


def _is_async(custom: Custom) -> bool:
    return any(map(inspect.iscoroutinefunction, (custom.function, type(custom.function).__call__)))


def _numbers(custom: Custom, responses: Responses, result: Any) -> list[float]:
    """What a function returned as floats, NaN for None."""
    function = f"reward function '{custom.path}'"
    if not isinstance(result, list | tuple | np.ndarray):
        if inspect.iscoroutine(result):
            result.close()
            raise ValueError(f"{function} returned a coroutine; define it with 'async def'")
        raise ValueError(
            f"{function} returned a {type(result).__name__} for {responses}; return a list with a number or None for "
            "each response"
        )
    if len(result) != len(responses.texts):
        raise ValueError(
            f"{function} returned {len(result)} values for {responses}; return one for each response, None where it "
            "does not apply"
        )
    return [_number(custom, responses, row, value) for row, value in enumerate(result)]


def _number(custom: Custom, responses: Responses, row: int, value: Any) -> float:
    if value is None:
        return NAN
    which = f"response {responses.metadata[row].member} to example {responses.examples[row].id!r}"
    returned = f"reward function '{custom.path}' returned {value!r} for {which}"
    if not isinstance(value, numbers.Real | np.bool_):
        raise ValueError(f"{returned}, a {type(value).__name__}; return a number, or None where it does not apply")
    number = float(value)
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"{returned}, which is not finite in float32; return None where it does not apply")
    if not custom.low <= number <= custom.high:
        raise ValueError(
            f"{returned}, outside its declared range [{custom.low:g}, {custom.high:g}]; correct the function or "
            "the range in @signal"
        )
    return number


def _described(error: Exception) -> str:
    """The error with the place it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def batch(
    examples: Sequence[Example],
    texts: Sequence[Sequence[str]],
    parsed: Sequence[Sequence[Parsed]],
    judged: Sequence[Sequence[Judged]],
    *,
    sizes: Sequence[ImageSize],
) -> Responses:
    """M prompts with G responses each, flat: all of the first prompt, then all of the second."""
    places = [(row, member) for row, group in enumerate(texts) for member in range(len(group))]
    return Responses(
        examples=[examples[row] for row, _ in places],
        texts=[texts[row][member] for row, member in places],
        parsed=[parsed[row][member] for row, member in places],
        metadata=[_metadata(row, member, judged[row][member], sizes[row]) for row, member in places],
    )


def _metadata(prompt: int, member: int, judged: Judged, size: ImageSize) -> Metadata:
    finished = None if math.isnan(judged.truncated) else judged.truncated == 0
    return Metadata(prompt, member, size, tokens=judged.length, finished=finished, judged=judged)
