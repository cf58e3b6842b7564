"""A hook in a Python function is taken out by whoever reads the journal, and never harms one that is another's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from squall.actions import PythonHook
from squall.actions.base import decode, encode
from squall.errors import ActionFailed
from squall.injectors import Plan
from squall.injectors.python_hook import PythonHookInjector
from tests import services, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Service

pytestmark = [pytest.mark.kernel, specimens.needs_root]


@pytest.fixture
def threads() -> Iterator[Service]:
    with services.python_service("threads") as found:
        yield found


def step(threads: Service) -> PythonHook:
    plan = services.planned(
        PythonHookInjector(), "process.panic", threads.target, function="__main__:Handler.answer", percent="0%"
    )
    (action,) = plan.actions
    assert isinstance(action, PythonHook)
    return action


def test_undo_is_harmless_when_it_was_never_done_and_twice(threads: Service) -> None:
    action = step(threads)
    action.undo()
    with services.injected(Plan("hook", (action,), "exact")):
        assert action.counters()["missed"] == 0
        assert threads.asks(5) == [200] * 5
    action.undo()
    assert action.verify().detail == "the function has its own code again"
    assert threads.asks(5) == [200] * 5


def test_undone_from_the_journal_the_next_call_puts_the_code_back(threads: Service) -> None:
    action = step(threads)
    (life_line,) = action.do()
    try:
        read = decode(encode(action))
        assert read == action
        super(PythonHook, action).undo()  # the worker is killed, as by a guardian that has no time
        assert action.verify().normal
        specimens.wait_for(lambda: threads.asks(1) == [200] and "own code" in action.verify().detail, "it is put back")
    finally:
        os.close(life_line)


def test_the_same_function_is_not_hooked_twice(threads: Service) -> None:
    with services.injected(Plan("hook", (step(threads),), "exact")):
        with pytest.raises(ActionFailed, match="held by another run"):
            step(threads).do()
        assert threads.asks(5) == [200] * 5
