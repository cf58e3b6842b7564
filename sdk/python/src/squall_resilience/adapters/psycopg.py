"""Pools of psycopg_pool whose sizes change live, by the pools' own `resize`.

It opens more at once. Connections that are too many are let go by the pool itself, one in every `max_idle`, once they are
not used: psycopg_pool has no way to close them sooner that would not open others in their place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from psycopg_pool import AsyncConnectionPool, ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.client import PoolSettings

__all__ = ["resizable"]

RESIZE_SECONDS_MAX = 10.0


def resizable(pool: ConnectionPool[Any] | AsyncConnectionPool[Any]) -> Callable[[PoolSettings], None]:
    """What changes a pool, for `LiveSettings.pool`: `size` is its `min_size`, `size + overflow` its `max_size`.

    For an AsyncConnectionPool call this where its loop runs; what it gives may then be called from any thread: in the loop's own
    the change is made soon after, elsewhere it is waited for.
    """
    if isinstance(pool, ConnectionPool):

        def configure(settings: PoolSettings) -> None:
            pool.resize(settings.size, settings.size + settings.overflow)
            pool.timeout, pool.max_lifetime = settings.wait, settings.recycle

        return configure
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def resize(settings: PoolSettings) -> None:
        await pool.resize(settings.size, settings.size + settings.overflow)
        pool.timeout, pool.max_lifetime = settings.wait, settings.recycle

    def configure_async(settings: PoolSettings) -> None:
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            task = loop.create_task(resize(settings))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            asyncio.run_coroutine_threadsafe(resize(settings), loop).result(RESIZE_SECONDS_MAX)

    return configure_async
