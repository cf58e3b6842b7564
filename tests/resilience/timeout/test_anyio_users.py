"""anyio's scopes and task groups around and inside of a time-out keep their meaning, on both of its backends."""

from __future__ import annotations

import pytest

from squall_resilience.core.group import GroupSettings
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.group import Group
from squall_resilience.hedge import Hedge, HedgeSettings
from squall_resilience.retry import Retry, RetrySettings
from squall_resilience.timeout import Timeout, TimeoutSettings

anyio = pytest.importorskip("anyio", reason="anyio is not here: run tools/setup dev (httpx brings it)")

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@backends
def test_a_scope_around_a_time_out_is_the_one_that_ends_it(backend: str) -> None:
    timeout = Timeout("stock", TimeoutSettings(30), registry=None)

    @timeout
    async def slow() -> None:
        await anyio.sleep(60)

    async def main() -> bool:
        with anyio.move_on_after(0.01) as scope:
            await slow()
        return bool(scope.cancelled_caught)

    assert anyio.run(main, backend=backend)
    assert (timeout.in_time, timeout.timed_out) == (0, 0)


@backends
def test_a_time_out_around_scopes_and_task_groups_ends_them(backend: str) -> None:
    timeout, ended = Timeout("stock", TimeoutSettings(0.05), registry=None), []

    async def member(number: int) -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append(number)

    @timeout
    async def slow() -> None:
        with anyio.move_on_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(member, 1)
                tasks.start_soon(member, 2)

    with pytest.raises(DeadlineExceeded):
        anyio.run(slow, backend=backend)
    assert sorted(ended) == [1, 2]
    assert timeout.timed_out == 1


@backends
def test_a_scope_inside_of_a_time_out_that_ends_first_is_its_own(backend: str) -> None:
    timeout = Timeout("stock", TimeoutSettings(30), registry=None)

    @timeout
    async def partly() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep(60)
        return "went on"

    assert anyio.run(partly, backend=backend) == "went on"
    assert timeout.in_time == 1


@backends
def test_retries_hedges_and_groups_under_a_scope_end_with_it(backend: str) -> None:
    retry = Retry("stock", RetrySettings(base=60, cap=60, idempotent=True), draw=lambda: 1.0, registry=None)
    hedge = Hedge("stock", HedgeSettings(delay=0, idempotent=True), registry=None)
    group, ended = Group("page", GroupSettings(limit=60), registry=None), []

    async def slow() -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append("ended")

    @retry
    async def fails() -> None:
        raise TimeoutError

    async def page() -> None:
        async with group.awaited() as calls:
            calls.add("slow", slow)
            calls.optional("fails", None, fails)
            calls.add("hedged", hedge(slow))

    async def main() -> bool:
        with anyio.move_on_after(0.05) as scope:
            await page()
        return bool(scope.cancelled_caught)

    assert anyio.run(main, backend=backend)
    assert ended == ["ended"] * 3
    assert group.ended == {"won": 0, "lost": 0}
