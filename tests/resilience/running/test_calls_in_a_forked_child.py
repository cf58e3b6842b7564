"""A child forked while other threads are in the middle of calls makes its own calls, with what its parent had counted."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from squall_resilience import deadline
from squall_resilience.core.group import GroupSettings
from squall_resilience.core.hedge import HedgeSettings
from squall_resilience.fallback import Fallback
from squall_resilience.group import Group
from squall_resilience.hedge import Hedge
from squall_resilience.retry import Retry, RetrySettings
from squall_resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

CHILDREN = 12


class Service:
    """All of these patterns, in one process."""

    def __init__(self) -> None:
        self.timeout = Timeout("stock", registry=None)
        self.retry = Retry("stock", RetrySettings(base=0, cap=0, idempotent=True), registry=None)
        self.fallback = Fallback("stock", registry=None)
        self.hedge = Hedge("stock", HedgeSettings(delay=20, idempotent=True), registry=None)
        self.group = Group("stock", GroupSettings(limit=20), registry=None)
        self.answer: Callable[[int], int] = self.fallback(self.retry(self.hedge(self.timeout(self._answer))))

    def _answer(self, number: int) -> int:
        if number % 10 == 0:
            raise ConnectionError
        return number

    def call(self) -> None:
        """Each of them, a few times."""
        for number in range(1, 30):
            with suppress(ConnectionError):
                assert self.answer(number) == number
        with self.group.called() as calls:
            members = [calls.add(str(number), abs, -number) for number in range(3)]
        assert [each.value for each in members] == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_is_neither_stuck_nor_without_its_counts() -> None:
    service, over = Service(), threading.Event()

    def busy() -> None:
        while not over.is_set():
            service.call()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for each in threads:
        each.start()
    codes = []
    try:
        for _ in range(CHILDREN):
            before = service.retry.calls
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # stuck: ended by this
                try:
                    service.call()
                    os._exit(0 if service.retry.calls > before and deadline.at() is None else 1)
                except BaseException:  # noqa: BLE001 - the parent sees the code
                    os._exit(2)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        over.set()
        for each in threads:
            each.join(60)
    assert codes == [0] * CHILDREN
