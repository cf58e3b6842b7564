"""A SQLAlchemy pool whose size changes while it is in use; no connection that somebody holds is dropped.

SQLAlchemy's own QueuePool has its size for life: replacing it leaves those who wait at the old one, and lets old and new
open more connections together than the database was to see. This one changes in place.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import exc
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util import queue as sa_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from squall_resilience.client import PoolSettings

__all__ = ["ResizablePool", "resizable"]


class _Idle(sa_queue.Queue[Any]):
    """The connections that nobody uses; who waits for one is woken when the size changes."""

    _changes = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - the base's own
        """The next one. Raises Empty also when the size has changed: then there may be room to open one."""
        with self.not_empty:
            changes, until = self._changes, None if timeout is None else monotonic() + timeout
            while self._empty() and block and changes == self._changes:
                left = None if until is None else until - monotonic()
                if left is not None and left <= 0:
                    break
                self.not_empty.wait(left)
            if self._empty():
                raise sa_queue.Empty
            item = self._get()
            self.not_full.notify()
            return item

    def wake(self) -> None:
        """There is room to open one."""
        with self.mutex:
            self._changes += 1
            self.not_empty.notify_all()

    def _full(self) -> bool:
        return 0 < self.maxsize <= len(self.queue)

    def resize(self, size: int, too_many: int) -> list[ConnectionPoolEntry]:
        """From now on keep so many; gives those beyond, and at least `too_many`, the longest unused first."""
        with self.mutex:
            self.maxsize = size
            self._changes += 1
            count = min(len(self.queue), max(0, len(self.queue) - size, too_many))
            surplus = [self.queue.popleft() for _ in range(count)]
            self.not_empty.notify_all()
            self.not_full.notify_all()
            return surplus


class ResizablePool(QueuePool):
    """A QueuePool with `configure(settings)`: `create_engine(url, poolclass=ResizablePool)`, or `resizable(engine)`.

    Growing lets those who wait open connections at once. Shrinking closes connections that nobody uses, and each of the
    others that are too many when it comes back; until then no new one is opened.
    """

    _queue_class = _Idle
    _disposed = False

    def configure(self, settings: PoolSettings) -> None:
        """Take new sizes and times; safe from any thread, at any time."""
        idle = cast("_Idle", self._pool)
        with self._overflow_lock:
            in_all = self._overflow + idle.maxsize
            self._max_overflow = settings.overflow
            surplus = idle.resize(settings.size, in_all - settings.size - settings.overflow)
            self._overflow = in_all - len(surplus) - settings.size
        self._timeout = settings.wait
        self._recycle = round(settings.recycle)
        for entry in surplus:
            entry.close()

    def dispose(self) -> None:
        """Close what nobody uses now, and the rest when it comes back: nobody would look for it here."""
        self._disposed = True
        with suppress(sa_queue.Empty):
            while True:
                self._let_go(self._pool.get(block=False))

    def _do_get(self) -> ConnectionPoolEntry:
        self._disposed = False
        until = monotonic() + self._timeout
        while True:
            with self._overflow_lock:
                room = self._max_overflow < 0 or self._overflow < self._max_overflow
            try:
                found: ConnectionPoolEntry = self._pool.get(not room, max(0.0, until - monotonic()))
            except sa_queue.Empty:
                pass
            else:
                return found
            if self._inc_overflow():
                try:
                    return self._create_connection()
                except BaseException:
                    self._make_room()
                    raise
            if monotonic() >= until:
                raise exc.TimeoutError(
                    f"no connection within {self._timeout:g} s: {self.status()}; at most {self.size()} and"
                    f" {self._max_overflow} more may be open",
                    code="3o7r",
                )

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        with self._overflow_lock:
            too_many = self._disposed or -1 < self._max_overflow < self._overflow
        if too_many:
            self._let_go(record)
            return
        try:
            self._pool.put(record, block=False)
        except sa_queue.Full:
            self._let_go(record)

    def _let_go(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self._make_room()

    def _make_room(self) -> None:
        self._dec_overflow()
        cast("_Idle", self._pool).wake()


def resizable(engine: Engine) -> Callable[[PoolSettings], None]:
    """What changes the pool of an engine, for `LiveSettings.pool`; also after `engine.dispose()`.

    An engine that was made without `poolclass=ResizablePool` is given such a pool, with its old one's settings: what is
    checked out of the old one then is closed when it comes back. Raises TypeError for engines
    whose pool has no size (one connection, or none kept), and for those of asyncio.
    """
    old: Pool = engine.pool
    if not isinstance(old, ResizablePool):
        if type(old) is not QueuePool:
            raise TypeError(
                f"the pool of {engine!r} is a {type(old).__name__}, which has no size that can change here; make the"
                " engine with poolclass=ResizablePool"
            )
        engine.pool = _successor(old)
        _retire(old)

    def configure(settings: PoolSettings) -> None:
        pool = engine.pool
        assert isinstance(pool, ResizablePool)  # noqa: S101 - a pool is recreated as what it was
        pool.configure(settings)

    return configure


class _NoMore(sa_queue.Queue[Any]):
    """Takes nothing back: what comes is closed."""

    def _full(self) -> bool:
        return True


def _retire(old: QueuePool) -> None:
    """Close what nobody uses, and the rest when it comes back: the old pool itself would keep it for ever."""
    idle, old._pool = old._pool, _NoMore(old.size())  # noqa: SLF001
    with suppress(sa_queue.Empty):
        while True:
            idle.get(block=False).close()


def _successor(old: QueuePool) -> ResizablePool:
    """As QueuePool.recreate does it, but of another class."""
    idle = old._pool  # noqa: SLF001 - there is no public way to an engine's own pool arguments
    return ResizablePool(
        old._creator,  # noqa: SLF001
        pool_size=idle.maxsize,
        max_overflow=old._max_overflow,  # noqa: SLF001
        timeout=old._timeout,  # noqa: SLF001
        use_lifo=idle.use_lifo,
        pre_ping=old._pre_ping,  # noqa: SLF001
        recycle=old._recycle,  # noqa: SLF001
        echo=old.echo,
        logging_name=old._orig_logging_name,  # noqa: SLF001
        reset_on_return=old._reset_on_return,  # noqa: SLF001
        _dispatch=old.dispatch,
        dialect=old._dialect,  # noqa: SLF001
    )
