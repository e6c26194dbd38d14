"""What a run does beside its steps: rows and files are written and checkpoints saved, in order, by a thread each.

A step may begin before what the step before leaves is on the disk, but its update waits: until the row of the step
before is written, since what watches over a run may stop it there, and until a state that is to be saved was copied,
since the update takes its memory. With several processes all of it happens at once, in the thread that asks for it:
rows and checkpoints are made by all of them together, and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Trouble(Exception):
    """Why a run should stop once the newest state is saved."""


class InOrder:
    """Jobs one after the other: in a thread, or in the caller's, where errors then are the caller's too."""

    def __init__(self, name: str, *, threaded: bool) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name) if threaded else None

    def submit(self, job: Callable[..., T], *args: Any) -> Future[T]:
        """Begins a job when those before have ended."""
        return done(job(*args)) if self._pool is None else self._pool.submit(job, *args)

    def close(self) -> None:
        """Waits until all jobs have ended."""
        if self._pool is not None:
            self._pool.shutdown()


class Beside:
    """What one run does beside its steps.

    Args:
      threaded: whether there are threads for it.
    """

    def __init__(self, *, threaded: bool) -> None:
        self._rows, self._saves = (InOrder(name, threaded=threaded) for name in ("rows", "saves"))
        self._written: Future[str | None] = done(None)
        self._copied: Future[None] = done(None)
        self._saved: Future[None] = done(None)

    def begin(self, job: Callable[..., T], *args: Any) -> Future[T]:
        """Begins what makes a row, after those before."""
        return self._rows.submit(job, *args)

    def write(self, job: Callable[..., str | None], *args: Any) -> None:
        """Begins what brings a step's row to the disk, and says why the run should stop after it; None: it need not."""
        self._written = self._rows.submit(job, *args)

    def save(self, copy: Callable[[], T], write: Callable[[T], None]) -> None:
        """Begins to save a state: first it is copied, then written, once the rows so far are on the disk.

        Args:
          copy: gives what `write` takes; when it returns the state may be donated.
        """
        written, copied = self._written, Future[None]()

        def job() -> None:
            try:
                made = copy()
            except BaseException as error:
                copied.set_exception(error)
                raise
            copied.set_result(None)
            written.result()  # a row that failed stops the run, and no state without its row is saved
            write(made)

        self._copied, self._saved = copied, self._saves.submit(job)

    def written(self) -> str | None:
        """Waits until the row of the last step is on the disk; why the run should stop after it."""
        return self._written.result()

    def settle(self) -> None:
        """Waits for the row of the last step, and raises what went wrong with it, `Trouble` among that."""
        if (trouble := self.written()) is not None:
            raise Trouble(trouble)
        if self._saved.done():
            self._saved.result()

    def before_update(self) -> None:
        """Waits for all that must be before the state of the last step is donated, and before it is improved upon."""
        self._copied.result()
        self.settle()

    def finish(self) -> None:
        """Waits for everything, and raises what went wrong."""
        self.settle()
        self.saved()

    def saved(self) -> None:
        """Waits until the last state that was to be saved is on the disk."""
        self._saved.result()

    def close(self) -> None:
        """Waits for what was begun; what went wrong is not raised."""
        self._rows.close()
        self._saves.close()


def done(result: T) -> Future[T]:
    """What has ended already."""
    out: Future[T] = Future()
    out.set_result(result)
    return out
