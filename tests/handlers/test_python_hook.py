"""A function of a running Python service fails or is late, on the request's own stack; its own code is put back afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.errors import ActionFailed
from squall.injectors.python_hook import PythonHookInjector
from squall.kernel import proc, process_memory, ptrace, python_process
from tests import services, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Service

pytestmark = [pytest.mark.kernel, specimens.needs_root]

HOOK = PythonHookInjector()
SERVICES = {"threads": "__main__:Handler.answer", "events": "__main__:Shop.order"}


def pythons() -> list[str]:
    """The interpreter of the tests, and the system's own where it is another."""
    found = [sys.executable]
    with contextlib.suppress(OSError):
        system = Path("/usr/bin/python3")
        if system.exists() and system.resolve() != Path(sys.executable).resolve():
            found.append(str(system))
    return found


@pytest.fixture(params=SERVICES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[Service]:
    with services.python_service("threads") as found:
        yield found


def pages(pid: int) -> list[str]:
    """What of Squall's is open in a process."""
    folder = Path(f"/proc/{pid}/fd")
    links = []
    for one in folder.iterdir():
        with contextlib.suppress(OSError):
            links.append(str(one.readlink()))
    return [link for link in links if "squall" in link]


def anonymous(pid: int) -> set[tuple[int, int]]:
    return {(one.start, one.end) for one in process_memory.mappings(pid) if not one.name and one.permissions == "rw-p"}


@pytest.mark.parametrize("python", pythons())
def test_an_exception_surfaces_in_the_handler_and_the_next_request_succeeds(kind: str, python: str) -> None:
    with services.python_service(kind, python=python) as service:
        plan = services.planned(
            HOOK, "process.panic", service.target, function=SERVICES[kind], count=3, exception="ValueError: no luck"
        )
        with services.injected(plan) as fault:
            assert service.asks(20) == [500] * 3 + [200] * 17
            assert fault.until_counted("exceptions", 3)["exceptions"] == 3
            assert pages(service.pid)
        assert service.asks(20) == [200] * 20
        specimens.wait_for(lambda: not pages(service.pid), "nothing of Squall's is open in it")
        assert service.popen.poll() is None


def test_the_exception_is_the_one_that_was_asked_for(threads: Service) -> None:
    plan = services.planned(
        HOOK, "process.panic", threads.target, function=SERVICES["threads"], exception="KeyError: out of luck"
    )
    with services.injected(plan), threads.client() as client:
        client.connection.request("GET", "/")
        assert client.connection.getresponse().read() == b"KeyError: 'out of luck'"


def test_the_handler_is_late_by_what_was_asked(kind: str) -> None:
    with services.python_service(kind) as service, service.client() as client:
        plan = services.planned(HOOK, "http.degrade", service.target, function=SERVICES[kind], delay="20ms")
        with services.injected(plan) as fault:
            assert [client.ask() for _ in range(20)] == [200] * 20
            assert min(client.took_s) >= 0.02
            counts = fault.until_counted("delayed", 20)
            assert counts["delayed"] == 20
            specimens.wait_for(lambda: "injected_p50_us" in fault.counts(), "times are published")
            counts = fault.counts()
            assert 20_000 <= counts["injected_p50_us"] <= counts["injected_max_us"] <= counts["handled_max_us"] + 1000
        client.took_s.clear()
        assert [client.ask() for _ in range(20)] == [200] * 20
        assert min(client.took_s) < 0.02


def test_an_event_loop_goes_on_while_a_handler_of_it_is_late() -> None:
    with services.python_service("events") as service:
        plan = services.planned(HOOK, "http.degrade", service.target, function=SERVICES["events"], delay="1s")
        with services.injected(plan), service.client() as one, service.client() as other:
            assert other.ask() == 200  # armed, whichever comes first
            for client in (one, other):
                client.connection.request("GET", "/x")
            began = os.times().elapsed
            for client in (one, other):
                assert client.connection.getresponse().read()
            assert os.times().elapsed - began < 1.9


def test_the_share_is_drawn_from_the_seed_as_everywhere(threads: Service) -> None:
    rounds = []
    for _ in range(2):
        with services.injected(
            services.planned(HOOK, "process.panic", threads.target, function=SERVICES["threads"], percent="50%")
        ):
            rounds.append(threads.asks(60))
    assert rounds[0] == rounds[1]
    assert 15 < rounds[0].count(500) < 45


def test_it_is_adjusted_while_it_is_on(threads: Service) -> None:
    none, half = (
        services.planned(HOOK, "process.panic", threads.target, function=SERVICES["threads"], percent=share)
        for share in ("0%", "100%")
    )
    with services.injected(none) as fault:
        assert threads.asks(10) == [200] * 10
        fault.become(half)
        specimens.wait_for(lambda: threads.asks(1) == [500], "it fails")


def test_a_killed_worker_lets_every_call_pass_and_the_next_one_puts_the_code_back(threads: Service) -> None:
    plan = services.planned(HOOK, "process.panic", threads.target, function=SERVICES["threads"])
    with services.injected(plan) as fault:
        assert threads.asks(2) == [500] * 2
        (worker,) = surviving(plan.actions[0].token)  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        specimens.wait_for(lambda: threads.asks(1) == [200], "calls pass", 5)
        assert threads.asks(20) == [200] * 20
        specimens.wait_for(lambda: threads.asks(1) and not pages(threads.pid), "nothing of Squall's is open in it")
        assert not fault.actions[0].in_force()  # type: ignore[attr-defined]


FORKS = """
import os, sys, time
def work():
    return "passed"
def told():
    try:
        return work()
    except RuntimeError:
        return "failed"
print("ready", flush=True)
while True:
    own = told()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, told().encode())
        os._exit(0)
    os.close(write)
    childs = os.read(read, 16).decode()
    os.close(read)
    os.waitpid(child, 0)
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(own + " " + childs)
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.002)
"""


def test_forked_children_are_not_hit(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with specimens.python(FORKS, str(said)) as forks:
        specimens.wait_for(lambda: said.exists() and said.read_text() == "passed passed", "it forks")
        plan = services.planned(HOOK, "process.panic", services.target_of(forks.pid), function="__main__:work")
        with services.injected(plan):
            specimens.wait_for(lambda: said.read_text() == "failed passed", "the parent fails, the child does not")
        specimens.wait_for(lambda: said.read_text() == "passed passed", "nobody fails")


def test_another_process_of_the_same_program_is_not_hit() -> None:
    with services.python_service("threads") as other, services.python_service("threads") as service:
        plan = services.planned(HOOK, "process.panic", service.target, function=SERVICES["threads"])
        with services.injected(plan):
            assert other.asks(10) == [200] * 10
            assert service.asks(2) == [500] * 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"function": "__main__:Handler.nothing"}, "has no Handler.nothing"),
        ({"function": "nowhere:f"}, "no module nowhere"),
        ({"function": "os:getpid"}, "not a function written in Python"),
        ({"function": "__main__:Handler.answer", "exception": "NoSuchError"}, "no exception NoSuchError"),
        ({"function": "__main__:Handler.answer", "exception": "SystemExit"}, "no exception SystemExit"),
    ],
)
def test_what_is_not_in_the_service_is_refused_and_nothing_is_left(
    threads: Service, given: dict[str, str], says: str
) -> None:
    plan = services.planned(HOOK, "process.panic", threads.target, **given)
    with pytest.raises(ActionFailed, match=says), services.injected(plan):
        pass
    assert threads.asks(5) == [200] * 5
    specimens.wait_for(lambda: not pages(threads.pid), "nothing of Squall's is open in it")


def test_a_main_thread_that_never_runs_python_is_told() -> None:
    with services.python_service("threads", "apart") as service:
        plan = services.planned(HOOK, "process.panic", service.target, function=SERVICES["threads"])
        with pytest.raises(ActionFailed, match="waits for a lock and runs no Python"), services.injected(plan):
            pass
        assert service.asks(5) == [200] * 5


def test_what_is_no_python_is_refused() -> None:
    with specimens.sleeper() as other:
        target = services.target_of(other.pid)
        assert "no CPython" in services.refused(HOOK, "process.panic", target, function="a:b")
    with services.python_service("threads") as service:
        assert "module:qualified.name" in services.refused(HOOK, "process.panic", service.target)
        assert "is for Go" in services.refused(HOOK, "process.panic", service.target, function="a:b", language="go")


def test_a_held_process_is_refused(threads: Service) -> None:
    stat = proc.read_stat(threads.pid)
    assert stat is not None
    with ptrace.Tracee(threads.pid, stat.start_ticks):
        assert "a debugger holds it" in services.refused(HOOK, "process.panic", threads.target, function="a:b")


def test_memory_that_was_handed_over_is_given_back(threads: Service) -> None:
    """After a first time, which may make the interpreter keep more for itself."""
    assert threads.asks(5) == [200] * 5
    before = len(anonymous(threads.pid))
    for _ in range(5):
        with services.injected(
            services.planned(HOOK, "process.panic", threads.target, function=SERVICES["threads"], percent="0%")
        ):
            assert threads.asks(2) == [200] * 2
    assert len(anonymous(threads.pid)) <= before + 3


def test_a_target_that_ends_in_the_middle_is_no_trouble(threads: Service) -> None:
    with services.injected(
        services.planned(HOOK, "process.panic", threads.target, function=SERVICES["threads"])
    ) as fault:
        threads.popen.kill()
        threads.popen.wait()
        fault.counts()


@pytest.mark.slow
def test_many_times_on_and_off_under_load_without_a_crash(kind: str) -> None:
    with services.python_service(kind) as service, services.load(service.port) as load:
        for _ in range(12):
            plan = services.planned(HOOK, "process.panic", service.target, function=SERVICES[kind], percent="10%")
            with services.injected(plan) as fault:
                fault.until_counted("exceptions", 1)
        answered, failed = load()
        assert answered > 100
        assert failed == 0
        assert service.asks(20) == [200] * 20


BUSY = """
import math, threading
def work():
    while True:
        values = [math.sin(number) * 1.5 for number in range(200)]
        assert abs(sum(values) - EXPECTED) < 1e-9
EXPECTED = sum(math.sin(number) * 1.5 for number in range(200))
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
def sleep_well():
    while True:
        threading.Event().wait(0.001)
threading.Thread(target=sleep_well, daemon=True).start()
hits, kept = [], []
print("ready", flush=True)
while True:
    values = [math.sin(number) * 1.5 for number in range(200)]
    assert abs(sum(values) - EXPECTED) < 1e-9
"""


@pytest.mark.slow
def test_threads_that_are_made_to_call_go_on_as_if_nothing_had_been() -> None:
    """Floating point and all else of them is as it was; nearly all of a hundred pieces of Python have run."""
    with specimens.python(BUSY) as busy:
        where = python_process.interpreter(busy.pid)
        stat = proc.read_stat(busy.pid)
        assert stat is not None
        for number in range(100):
            script = python_process.run(busy.pid, stat.start_ticks, where, f"hits.append({number})\n")
            assert script.size == 4096
        tell = "import os; kept.append(os.memfd_create(f'squall-told-{len(hits)}-'))\n"

        def told() -> int:
            """How many have run: asked again and again, for the interpreter drops calls when many wait to be made."""
            python_process.run(busy.pid, stat.start_ticks, where, tell)
            found = [page.partition("squall-told-")[2] for page in pages(busy.pid) if "squall-told-" in page]
            return max((int(one.partition("-")[0]) for one in found), default=0)

        specimens.wait_for(lambda: told() >= 90, "nearly all hundred have run")
        assert busy.popen.poll() is None
