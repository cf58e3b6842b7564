"""Worker threads are bounded, keep their giver's context, outlive errors and go when idle."""

from __future__ import annotations

import contextvars
import os
import threading

import pytest

from squall_resilience import workers as module
from squall_resilience.workers import Workers

SECONDS_MAX = 30


def test_so_many_work_so_many_wait_and_no_more() -> None:
    workers, gate, done = Workers("few", 2, waiting_max=3), threading.Event(), threading.Semaphore(0)

    def job() -> None:
        assert gate.wait(SECONDS_MAX)
        done.release()

    assert [workers.give(job) for _ in range(7)] == [True] * 5 + [False] * 2
    assert workers.count == 2
    gate.set()
    for _ in range(5):
        assert done.acquire(timeout=SECONDS_MAX)
    assert not done.acquire(blocking=False)
    assert workers.count == 2


def test_a_job_has_the_context_it_was_given_in() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    workers, seen, done = Workers("few", 1, 9), [], threading.Semaphore(0)

    def job() -> None:
        seen.append(name.get())
        done.release()

    for each in ("first", "second"):
        name.set(each)
        workers.give(job)
    for _ in range(2):
        assert done.acquire(timeout=SECONDS_MAX)
    assert seen == ["first", "second"]


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_a_job_that_raises_ends_no_worker(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    workers, done = Workers("few", 1, 9), threading.Event()

    def fails() -> None:
        raise error

    workers.give(fails)
    workers.give(done.set)
    assert done.wait(SECONDS_MAX)
    assert "a job of 'few' raised" in caplog.text
    assert workers.count == 1


def test_idle_workers_go_and_new_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    workers = Workers("few", 2)
    for _ in range(20):
        done = threading.Event()
        assert workers.give(done.set)
        assert done.wait(SECONDS_MAX)
        gone = threading.Event()
        for _ in range(1000):
            if workers.count == 0:
                break
            gone.wait(0.01)
        assert workers.count == 0


def test_no_job_is_lost_while_workers_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.0001)
    workers, done, refused = Workers("few", 3, waiting_max=5), threading.Semaphore(0), []

    def giver() -> None:
        refused.extend(1 for _ in range(500) if not workers.give(done.release))

    threads = [threading.Thread(target=giver) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(SECONDS_MAX)
    for _ in range(2000 - len(refused)):
        assert done.acquire(timeout=SECONDS_MAX)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own() -> None:
    workers, gate, begun = Workers("few", 1, waiting_max=1), threading.Event(), threading.Event()

    def holds() -> None:
        begun.set()
        gate.wait(SECONDS_MAX)

    workers.give(holds)
    assert begun.wait(SECONDS_MAX)
    child = os.fork()
    if child == 0:
        done = threading.Event()
        os._exit(0 if workers.give(done.set) and done.wait(10) else 1)
    _, status = os.waitpid(child, 0)
    gate.set()
    assert os.waitstatus_to_exitcode(status) == 0
