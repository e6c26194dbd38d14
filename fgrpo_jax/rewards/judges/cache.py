"""Verdicts that were paid for, in a SQLite file: asked once, for this run and all that share the file.

Keys are hashes of everything a verdict depends on (`prompts.fingerprint`), so a file may be shared between runs, judges
and prompt versions. Judgements that failed are never kept. Threads and processes of one machine may use a file together
(write-ahead log); on a network file system each process needs its own.
"""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgrpo_jax.reading.verdict import Verdict
from fgrpo_jax.rewards.judges.protocol import Judgement

FORMAT = 1
WAIT = 30.0  # seconds to wait for another process that is writing
CHUNK = 500  # keys a query; SQLite allows 999 variables in old builds

_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
  key BLOB PRIMARY KEY, verdict TEXT NOT NULL, confidence REAL,
  judge TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID
"""

_INSERT = "INSERT OR REPLACE INTO verdicts (key, verdict, confidence, judge) VALUES (?, ?, ?, ?)"


class Cache:
    """A file of verdicts, opened (and made) at its first use, so that a run that is refused leaves none.

    Args:
      path: of the file; its folder is made.
      judge: what to write beside each verdict for people who look into the file; no key, no secret.
    """

    def __init__(self, path: Path, *, judge: str = "") -> None:
        self.path, self._judge = path, judge
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None
        self._broken = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Judgement]:
        """The judgements that are known of these keys.

        Raises:
          ValueError: the file is no cache of this format.
        """
        rows: list[tuple[bytes, str, float | None]] = []
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            marks = ",".join("?" * len(some))
            rows += self._run(f"SELECT key, verdict, confidence FROM verdicts WHERE key IN ({marks})", some)
        return {bytes(key): Judgement(Verdict(name), how="cache", confidence=sure) for key, name, sure in rows}

    def put(self, key: bytes, judgement: Judgement) -> None:
        """Keeps a verdict, at once and for good.

        Raises:
          ValueError: the judgement has no verdict.
        """
        if judgement.verdict is None:
            raise ValueError(f"a judgement that failed is not kept ({judgement.error})")
        self._run(_INSERT, (key, judgement.verdict.value, judgement.confidence, self._judge))

    def _run(self, query: str, values: Sequence[Any]) -> list[Any]:
        """Rows of a query. A disk that is full or gone costs money, not the run: it gives none, with one warning."""
        with self._lock:
            file = self._open()
            try:
                return file.execute(query, values).fetchall()
            except sqlite3.Error as error:
                if not self._broken:
                    self._broken = True
                    warnings.warn(f"judge cache {self.path} fails ({error}); the run goes on without", stacklevel=3)
                return []

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> sqlite3.Connection:
        if self._file is not None:
            return self._file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False, isolation_level=None)
        try:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")  # safe against kills; a power cut may cost the last verdicts
            file.execute("BEGIN IMMEDIATE")  # of processes that begin together, one makes the table
            (found,) = file.execute("PRAGMA user_version").fetchone()
            (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if found != FORMAT and (found or tables):
                raise sqlite3.DatabaseError(f"it has format {found}, this version reads {FORMAT}")
            file.execute(_TABLE)
            file.execute(f"PRAGMA user_version = {FORMAT}")
            file.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            file.close()
            raise ValueError(
                f"judge cache {self.path} can't be used ({error}); remove it or name another file in config.judge.cache"
            ) from error
        self._file = file
        return file
