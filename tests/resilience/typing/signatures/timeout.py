"""What a type checker sees of calls through a time-out; see the runner beside this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from squall_resilience import Timeout, TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

timeout = Timeout("inventory", TimeoutSettings(limit=0.3))


@timeout
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@timeout
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


class Client:
    @timeout
    def get(self, path: str) -> bytes:
        return path.encode()

    @timeout
    async def get_soon(self, path: str) -> bytes:
        return path.encode()


def plain() -> None:
    assert_type(reserve("a1", count=2), dict[str, int])
    reserve(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reserve("a1", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(Client().get("/"), bytes)
    Client().get()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def awaited() -> None:
    assert_type(await reserve_soon("a1"), dict[str, int])
    await reserve_soon(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await Client().get_soon("/"), bytes)


def by_hand(call: Callable[[int], float]) -> None:
    assert_type(timeout.wrap_sync(call)(1), float)
    assert_type(timeout(call)(1), float)


async def by_hand_soon(call: Callable[[int], Coroutine[Any, Any, float]]) -> None:
    assert_type(await timeout.wrap_async(call)(1), float)


@timeout
def rows(first: int) -> Iterator[str]:
    yield str(first)


@timeout
async def rows_soon(first: int) -> AsyncIterator[str]:
    yield str(first)


async def streams() -> None:
    for row in rows(1):
        assert_type(row, str)
    async for row in rows_soon(1):
        assert_type(row, str)
    rows("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with timeout.guard():
        pass
    async with timeout.guard():
        pass
