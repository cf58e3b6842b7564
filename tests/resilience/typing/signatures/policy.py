"""What a type checker sees of calls through a whole chain, and through patterns that are put on by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from squall_resilience import (
    BreakerSettings,
    CircuitBreaker,
    Policy,
    PolicySettings,
    Retry,
    Timeout,
    TimeoutSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

settings = PolicySettings(timeout=TimeoutSettings(0.5), breaker=BreakerSettings())
inventory = Policy("inventory", settings, links=[Retry("inventory", idempotent=True)])


@inventory
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@inventory
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@Retry("stock", idempotent=True)
@CircuitBreaker("stock")
@Timeout("stock")
async def stock(sku: str) -> int:
    return len(sku)


def plain(call: Callable[[int], float]) -> None:
    assert_type(reserve("a1", count=2), dict[str, int])
    reserve(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(inventory.call(call, 1), float)
    inventory.call(call, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited() -> None:
    assert_type(await reserve_soon("a1"), dict[str, int])
    await reserve_soon(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await stock("a1"), int)
    await stock(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
