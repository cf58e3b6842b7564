"""What a type checker sees of calls through a retry; see the runner beside this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from squall_resilience import Retry, RetrySettings, idempotent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

retry = Retry("inventory", RetrySettings(attempts=2), idempotent=True, on=(ConnectionError, TimeoutError))


@retry
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@retry
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


class Client:
    @retry
    def get(self, path: str) -> bytes:
        return path.encode()

    @retry
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
    assert_type(retry.wrap_sync(call)(1), float)
    assert_type(retry(call)(1), float)


async def by_hand_soon(call: Callable[[int], Coroutine[Any, Any, float]]) -> None:
    assert_type(await retry.wrap_async(call)(1), float)


@retry
@idempotent
def marked(sku: str) -> int:
    return len(sku)


async def loops() -> None:
    assert_type(marked("a1"), int)
    marked(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for attempt in retry.attempts(idempotent=True):
        with attempt:
            assert_type(attempt.number, int)
    async for attempt in retry.attempts():
        with attempt:
            pass
