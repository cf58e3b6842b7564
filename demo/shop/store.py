"""Each service's own database: an SQLite file that one connection writes, one statement at a time."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Store"]

Value = str | int | float | None


class Store:
    """An SQLite database in write-ahead mode; every statement is one transaction."""

    def __init__(self, path: Path, schema: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(schema)

    def run(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Run one statement and return its rows (those of RETURNING for a write)."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def together(self, *statements: tuple[str, tuple[Value, ...]]) -> bool:
        """Run writes as one transaction; False, and nothing changed, when one of them changes no row."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    if self._connection.execute(statement, values).rowcount < 1:
                        self._connection.execute("ROLLBACK")
                        return False
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._connection.execute("ROLLBACK")
                raise
            return True
