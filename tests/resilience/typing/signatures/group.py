"""What a type checker sees of the members of a group; see the runner beside this folder."""

from __future__ import annotations

from typing import assert_type

from squall_resilience import Group, GroupSettings, Member

page = Group("page", GroupSettings(limit=0.3))


def price(sku: str, *, currency: str = "eur") -> float:
    return float(len(sku + currency))


async def price_soon(sku: str, *, currency: str = "eur") -> float:
    return price(sku, currency=currency)


async def awaited() -> None:
    async with page.awaited(need=1) as calls:
        one = calls.add("one", price_soon, "a1", currency="usd")
        two = calls.optional("two", None, price_soon, "a1")
        calls.add("three", price_soon)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        calls.add("four", price_soon, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        calls.add("five", price, "a1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(one, Member[float])
    assert_type(one.value, float)
    assert_type(two.value, float | None)
    assert_type(two.ok, bool)


def plain() -> None:
    with page.called() as calls:
        one = calls.add("one", price, "a1", currency="usd")
        two = calls.optional("two", "none", price, "a1")
        calls.add("three", price, price="a1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(one.value, float)
    assert_type(two.value, float | str)
