"""Pools of database connections change their size while they are in use, against a real PostgreSQL that is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy import exc, text

from squall_resilience.adapters import psycopg as of_psycopg
from squall_resilience.adapters.sqlalchemy import ResizablePool, resizable
from squall_resilience.client import PoolSettings
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.watching import watch
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import Connection, Engine

    from tests.resilience.adapters.databases import Database

NAME = "orders"


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = sqlalchemy.create_engine(
        f"{database.url}&application_name={NAME}",
        poolclass=ResizablePool,
        pool_size=2,
        max_overflow=0,
        pool_timeout=0.2,
    )
    yield made
    made.dispose()
    wait_for(lambda: database.connections(NAME) == 0, "all connections are closed")


def take(engine: Engine, count: int) -> list[Connection]:
    taken = [engine.connect() for _ in range(count)]
    for each in taken:
        assert each.execute(text("SELECT 1")).scalar() == 1
    return taken


def pool_of(engine: Engine) -> ResizablePool:
    assert isinstance(engine.pool, ResizablePool)
    return engine.pool


def test_growing_lets_those_who_wait_go_on_at_once(engine: Engine, database: Database) -> None:
    pool_of(engine).configure(PoolSettings(size=2, overflow=0, wait=30))
    taken = take(engine, 2)
    late: list[Connection] = []
    threads = [threading.Thread(target=lambda: late.append(engine.connect()), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)  # nothing to wait for: they must not get any
    assert late == []
    began = time.monotonic()
    pool_of(engine).configure(PoolSettings(size=4, overflow=1, wait=30))
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - began < 10
    assert len(late) == 3
    assert database.connections(NAME) == 5
    for each in [*taken, *late]:
        each.close()
    wait_for(lambda: database.connections(NAME) == 4, "the one that was too many is closed")


def test_shrinking_closes_what_is_idle_and_drops_no_connection_in_use(engine: Engine, database: Database) -> None:
    pool_of(engine).configure(PoolSettings(size=6, overflow=2, wait=0.1))
    taken = take(engine, 8)
    for each in taken[:3]:
        each.close()
    pool_of(engine).configure(PoolSettings(size=2, overflow=1, wait=0.1))
    wait_for(lambda: database.connections(NAME) == 5, "what nobody uses is closed")
    assert [each.execute(text("SELECT 7")).scalar() for each in taken[3:]] == [7] * 5
    with pytest.raises(exc.TimeoutError, match=r"no connection within 0\.1 s"):
        engine.connect()
    for still in (4, 3, 3, 3, 2):
        taken.pop().close()
        wait_for(lambda: database.connections(NAME) == still, f"{still} are left")  # noqa: B023 - called at once
    assert pool_of(engine).checkedout() == 0
    assert pool_of(engine).checkedin() == 2
    for each in take(engine, 3):
        each.close()


def test_while_it_turns_there_are_never_more_than_allowed_and_none_is_lost(engine: Engine, database: Database) -> None:
    """Twelve threads at work, sizes turning under them: the pool's own count stays true."""
    most, stop, failed = 6, threading.Event(), list[BaseException]()
    pool_of(engine).configure(PoolSettings(size=3, overflow=0, wait=20))

    def work() -> None:
        try:
            while not stop.is_set():
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not be
            failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    seen = []
    for turn in range(40):
        size = (1, 4, 2, 5, 3)[turn % 5]
        pool_of(engine).configure(PoolSettings(size=size, overflow=turn % 2, wait=20))
        seen.append(pool_of(engine).checkedout())
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert max(seen) <= most
    pool_of(engine).configure(PoolSettings(size=2, overflow=0, wait=1))
    assert pool_of(engine).checkedout() == 0
    assert pool_of(engine).checkedin() <= 2
    wait_for(lambda: database.connections(NAME) == pool_of(engine).checkedin(), "the server sees as many as the pool")
    taken = take(engine, 2)
    with pytest.raises(exc.TimeoutError):
        engine.connect()
    for each in taken:
        each.close()


def test_a_connection_that_cannot_be_opened_leaves_its_place(engine: Engine, database: Database) -> None:
    pool_of(engine).configure(PoolSettings(size=1, overflow=0, wait=0.1))
    fails = True

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        if fails:
            raise RuntimeError("no network")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="no network"):
            engine.connect()
    fails = False
    take(engine, 1)[0].close()
    assert database.connections(NAME) == 1


def test_an_engine_that_was_made_without_it_can_be_given_one(database: Database) -> None:
    engine = sqlalchemy.create_engine(f"{database.url}&application_name={NAME}", pool_size=3, max_overflow=4)
    held = take(engine, 1)[0]
    configure = resizable(engine)
    assert engine.pool.status().startswith("Pool size: 3 ")
    configure(PoolSettings(size=1, overflow=0, wait=0.1, recycle=7))
    taken = take(engine, 1)
    with pytest.raises(exc.TimeoutError):
        engine.connect()
    engine.dispose()
    configure(PoolSettings(size=2, overflow=0, wait=0.1))
    more = take(engine, 2)
    for each in [held, *taken, *more]:
        assert each.execute(text("SELECT 7")).scalar() == 7
        each.close()
    wait_for(lambda: database.connections(NAME) == 2, "what the old pools gave out is closed")
    engine.dispose()


def test_a_pool_without_a_size_is_refused() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(TypeError, match="poolclass=ResizablePool"):
        resizable(engine)


@pytest.mark.parametrize("library", ["sqlalchemy", "psycopg"])
def test_a_mounted_file_changes_the_size(library: str, database: Database, tmp_path: Path) -> None:
    """C4: database pool sizes change live from a mounted ConfigMap."""
    settings = PoolSettings(size=1, overflow=0)
    live = LiveSettings("shop", registry=None)
    path = tmp_path / "settings.json"

    def mount(version: int, content: str) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "settings.json").write_text(content)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    mount(1, "{}")
    path.symlink_to("..data/settings.json")
    close: Callable[[], object]
    if library == "sqlalchemy":
        engine = sqlalchemy.create_engine(database.url, poolclass=ResizablePool)
        live.pool("orders-db", settings, resizable(engine))
        size, close = (lambda: pool_of(engine).size()), engine.dispose
    else:
        pool = psycopg_pool.ConnectionPool(database.conninfo, min_size=1, open=True)
        live.pool("orders-db", settings, of_psycopg.resizable(pool))
        size, close = (lambda: pool.max_size), pool.close
    with watch(path, live, period=0.02):
        assert size() == 1
        mount(2, '{"pools": {"orders-db": {"size": 7}}}')
        wait_for(lambda: size() == 7, "the new size is in force")
    close()


def test_psycopgs_pool_grows_for_those_who_wait(database: Database) -> None:
    with psycopg_pool.ConnectionPool(database.conninfo, min_size=1, max_size=1, open=True) as pool:
        configure = of_psycopg.resizable(pool)
        configure(PoolSettings(size=1, overflow=0, wait=0.1))
        with pool.connection():
            with pytest.raises(psycopg_pool.PoolTimeout), pool.connection():
                pass
            configure(PoolSettings(size=2, overflow=0, wait=10))
            with pool.connection() as second:
                assert second.execute("SELECT 7").fetchone() == (7,)


def test_psycopgs_async_pool_changes_from_another_thread_and_from_its_own(database: Database) -> None:
    async def main() -> None:
        async with psycopg_pool.AsyncConnectionPool(database.conninfo, min_size=1, max_size=1, open=False) as pool:
            configure = of_psycopg.resizable(pool)
            async with pool.connection():
                await asyncio.to_thread(configure, PoolSettings(size=2, overflow=1, wait=10))
                assert (pool.min_size, pool.max_size, pool.timeout) == (2, 3, 10)
                async with pool.connection() as second:
                    row = await (await second.execute("SELECT 7")).fetchone()
                    assert row == (7,)
            configure(PoolSettings(size=1, overflow=0))
            for _ in range(100):
                if pool.max_size == 1:
                    break
                await asyncio.sleep(0.01)
            assert pool.max_size == 1

    asyncio.run(main())
