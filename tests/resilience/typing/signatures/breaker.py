"""What a type checker sees of calls through a breaker; see the runner beside this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from squall_resilience import BreakerSettings, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

breaker = CircuitBreaker("inventory", BreakerSettings(latency=0.3), failures=(ConnectionError, TimeoutError))


@breaker
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@breaker
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@breaker
def rows(first: int) -> Iterator[str]:
    yield str(first)


@breaker
async def rows_soon(first: int) -> AsyncIterator[str]:
    yield str(first)


class Client:
    @breaker
    def get(self, path: str) -> bytes:
        return path.encode()

    @breaker
    async def get_soon(self, path: str) -> bytes:
        return path.encode()


def plain() -> None:
    assert_type(reserve("a1", count=2), dict[str, int])
    reserve(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reserve("a1", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    for row in rows(1):
        assert_type(row, str)
    assert_type(Client().get("/"), bytes)
    Client().get()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def awaited() -> None:
    assert_type(await reserve_soon("a1"), dict[str, int])
    await reserve_soon(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async for row in rows_soon(1):
        assert_type(row, str)
    assert_type(await Client().get_soon("/"), bytes)


def by_hand(call: Callable[[int], float]) -> None:
    assert_type(breaker.wrap_sync(call)(1), float)
    assert_type(breaker(call)(1), float)
    with breaker.guard() as passage:
        passage.failed()


async def by_hand_soon(call: Callable[[int], Coroutine[Any, Any, float]]) -> None:
    assert_type(await breaker.wrap_async(call)(1), float)
    async with breaker.guard() as passage:
        passage.failed()
