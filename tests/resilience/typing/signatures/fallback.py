"""What a type checker sees of calls through a fallback; see the runner beside this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from squall_resilience import Fallback, FallbackSettings, staleness

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

fallback = Fallback("inventory", FallbackSettings(ttl=10), preset=None)


@fallback
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@fallback
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


class Client:
    @fallback
    def get(self, path: str) -> bytes:
        return path.encode()

    @fallback
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
    assert_type(fallback.wrap_sync(call)(1), float)
    assert_type(fallback(call)(1), float)


async def by_hand_soon(call: Callable[[int], Coroutine[Any, Any, float]]) -> None:
    assert_type(await fallback.wrap_async(call)(1), float)


def noticed() -> None:
    with staleness() as seen:
        reserve("a1")
    assert_type(seen.age, float)
    assert_type(seen.dependencies, tuple[str, ...])
    assert_type(seen.answers[0].age, float)
