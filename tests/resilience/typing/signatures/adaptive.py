"""What a type checker sees of calls through a limit found from the latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from squall_resilience import AdaptiveConcurrency, AdaptiveSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

limited = AdaptiveConcurrency("inventory", AdaptiveSettings())


@limited
def reserve(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@limited
async def reserve_soon(sku: str, *, count: int = 1) -> dict[str, int]:
    return {sku: count}


@limited
def rows(first: int) -> Iterator[str]:
    yield str(first)


@limited
async def rows_soon(first: int) -> AsyncIterator[str]:
    yield str(first)


def plain() -> None:
    assert_type(reserve("a1", count=2), dict[str, int])
    reserve(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for row in rows(1):
        assert_type(row, str)
    with limited.guard():
        assert_type(reserve("a1"), dict[str, int])


async def awaited() -> None:
    assert_type(await reserve_soon("a1"), dict[str, int])
    await reserve_soon(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async for row in rows_soon(1):
        assert_type(row, str)
    async with limited.guard():
        assert_type(await reserve_soon("a1"), dict[str, int])
