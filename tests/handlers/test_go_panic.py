"""A Go handler panics on its own goroutine's stack, so that the service's own recover is what is tested; or it has none."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from squall.actions import NilReceiver
from squall.actions.worker import surviving
from squall.errors import CannotInject, TargetError
from squall.injectors import Host
from squall.injectors.entry_patch import EntryPatchInjector
from squall.injectors.uprobe import UprobePanicInjector
from squall.kernel import process_memory, receiver_stub
from squall.kernel.bpf import loads
from tests import services, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.injectors import Injector
    from tests.services import Injected, Service

pytestmark = [pytest.mark.kernel, specimens.needs_root]

STUB = EntryPatchInjector()
MUX = "net/http.(*ServeMux).ServeHTTP"
BUILDS = {
    "with symbols": (),
    "stripped": services.STRIPPED,
    "position independent, stripped": ("-buildmode=pie", *services.STRIPPED),
}


@pytest.fixture(params=["stub", "uprobe"])
def injector(request: pytest.FixtureRequest) -> Injector:
    """Both mechanisms; the second where the kernel lets uprobes write registers."""
    if request.param == "stub":
        return _stub()
    answer = loads("panic", ("nil_receiver",))
    if not answer.works:
        pytest.skip(f"this kernel lets no uprobe write registers: {answer.reason[:100]}")
    return UprobePanicInjector()


def _stub() -> EntryPatchInjector:
    capability = STUB.capable(Host.look())
    if not capability.works:
        pytest.skip(capability.reason)
    return STUB


@pytest.fixture
def stub() -> EntryPatchInjector:
    """The stub, where the kernel lets code be written."""
    return _stub()


@pytest.fixture
def go() -> Iterator[Service]:
    with services.go_service() as found:
        yield found


def patch_of(fault: Injected) -> NilReceiver:
    (patch,) = (action for action in fault.actions if isinstance(action, NilReceiver))
    return patch


def code_of(pid: int, patch: NilReceiver) -> bytes:
    return process_memory.read(pid, patch.entry - 64, 256)


@pytest.mark.parametrize("flags", BUILDS.values(), ids=BUILDS)
def test_net_https_own_recover_closes_the_connection_and_the_next_request_succeeds(
    injector: Injector, flags: tuple[str, ...]
) -> None:
    with services.go_service(flags=flags) as go:
        with services.injected(services.planned(injector, "process.panic", go.target, count=3)) as fault:
            answers = go.asks(20)
            assert answers == [0, 0, 0] + [200] * 17
            assert fault.until_counted("panics", 3)["panics"] == 3
        assert go.asks(20) == [200] * 20
        log = go.log.read_text()
        assert log.count("http: panic serving") == 3
        assert log.count("nil pointer dereference") == 3
        assert "serverHandler.ServeHTTP" in log


def test_the_services_own_recover_answers_500(injector: Injector) -> None:
    with services.go_service("own") as go:
        with services.injected(services.planned(injector, "process.panic", go.target, function=MUX, count=2)):
            assert go.asks(10) == [500, 500] + [200] * 8
        assert go.asks(5) == [200] * 5
        assert go.log.read_text() == ""


def test_a_service_without_recover_dies_as_it_would(injector: Injector) -> None:
    with services.go_service("none") as go:
        plan = services.planned(injector, "process.panic", go.target, function="main.(*shop).line", count=1)
        with services.injected(plan) as fault:
            assert go.asks(1) == [0]
            assert go.popen.wait(services.TIMEOUT_S) == 2
            specimens.wait_for(lambda: any(fault.counts().get(name) for name in ("panics", "ended")), "it is counted")
        assert "nil pointer dereference" in go.log.read_text()
        assert "main.(*shop).line" in go.log.read_text()


def test_the_share_is_drawn_from_the_seed(go: Service, injector: Injector) -> None:
    with services.injected(services.planned(injector, "process.panic", go.target, percent="30%")) as fault:
        failed = go.asks(300).count(0)
        assert 60 < failed < 120
        assert fault.until_counted("panics", failed)["panics"] == failed


def test_the_same_seed_hits_the_same_calls(go: Service, injector: Injector) -> None:
    rounds = []
    for _ in range(2):
        with services.injected(services.planned(injector, "process.panic", go.target, percent="50%")):
            rounds.append(go.asks(40))
    assert rounds[0] == rounds[1]
    assert set(rounds[0]) == {0, 200}


def test_it_is_adjusted_while_it_is_on(go: Service, injector: Injector) -> None:
    none = services.planned(injector, "process.panic", go.target, percent="0%")
    answer = injector.plan(services.parse_fault("process.panic", {"count": 2}), go.target, none_site(none))
    with services.injected(none) as fault:
        assert go.asks(10) == [200] * 10
        fault.become(answer)  # type: ignore[arg-type]
        specimens.wait_for(lambda: go.asks(1) and fault.counts().get("panics") == 2, "two have panicked")
        assert go.asks(10) == [200] * 10


def none_site(plan: services.Plan) -> services.Site:
    """The run that a plan was made for."""
    run, _, _ = plan.actions[0].token.partition("/")  # type: ignore[attr-defined]
    return services.Site(run, services.Path("/nowhere"), "0-fault", 7)


def test_another_process_that_runs_the_same_program_does_not_panic(go: Service, injector: Injector) -> None:
    with services.go_service() as other, services.injected(services.planned(injector, "process.panic", go.target)):
        assert other.asks(20) == [200] * 20
        assert go.asks(5) == [0] * 5


@pytest.mark.usefixtures("stub")
def test_undone_the_methods_code_is_to_the_byte_what_it_was(go: Service) -> None:
    plan = services.planned(STUB, "process.panic", go.target)
    (before,) = (action.prepare() for action in plan.actions if isinstance(action, NilReceiver))
    was = code_of(go.pid, before)
    with services.injected(plan) as fault:
        assert code_of(go.pid, patch_of(fault)) != was
    assert code_of(go.pid, before) == was
    assert not any(process_memory.read(go.pid, before.data, receiver_stub.DATA_SIZE))


@pytest.mark.usefixtures("stub")
def test_a_killed_worker_leaves_a_stub_that_lets_everything_pass_within_a_second(go: Service) -> None:
    with services.injected(services.planned(STUB, "process.panic", go.target)) as fault:
        assert go.asks(3) == [0] * 3
        worker = fault.actions[1]
        (found,) = surviving(worker.token)  # type: ignore[attr-defined]
        os.kill(found.pid, signal.SIGKILL)
        specimens.wait_for(lambda: go.asks(1) == [200], "calls pass", 5)
        assert go.asks(20) == [200] * 20
        assert not worker.in_force()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("stub")
def test_a_probe_at_the_entry_is_kept_and_the_stub_refused(go: Service) -> None:
    plan = services.planned(STUB, "process.panic", go.target)
    (patch,) = (action for action in plan.actions if isinstance(action, NilReceiver))
    first = process_memory.read(go.pid, patch.entry, 1)
    process_memory.write(go.pid, patch.entry, b"\xcc")  # nobody calls it meanwhile
    try:
        with pytest.raises(TargetError, match="a probe"):
            patch.prepare()
        assert "a probe" in services.refused(STUB, "process.panic", go.target)
    finally:
        process_memory.write(go.pid, patch.entry, first)
    assert go.asks(5) == [200] * 5


def test_what_is_not_known_to_take_a_pointer_is_refused(go: Service) -> None:
    assert "no method of a pointer" in services.refused(STUB, "process.panic", go.target, function="main.main")
    assert "no function main.(*shop).buy" in services.refused(
        STUB, "process.panic", go.target, function="main.(*shop).buy"
    )
    assert "is Python's" in services.refused(STUB, "process.panic", go.target, exception="ValueError")


@pytest.mark.usefixtures("stub")
def test_a_target_that_ends_in_the_middle_is_no_trouble(go: Service) -> None:
    with services.injected(services.planned(STUB, "process.panic", go.target)) as fault:
        go.popen.kill()
        go.popen.wait()
        fault.counts()


@pytest.mark.usefixtures("stub")
@pytest.mark.slow
def test_many_times_on_and_off_under_load_without_a_crash(go: Service) -> None:
    """One client asks without a rest, from another process, while the stub comes and goes."""
    with services.load(go.port) as load:
        for _ in range(12):
            with services.injected(services.planned(STUB, "process.panic", go.target, percent="10%")) as fault:
                fault.until_counted("panics", 1)
        answered, failed = load()
    assert answered > 100
    assert failed >= 12
    assert go.asks(20) == [200] * 20
    log = go.log.read_text()
    assert "fatal error" not in log
    assert "unexpected" not in log


def test_instructions_that_are_not_known_to_be_movable_are_refused() -> None:
    for first in (b"\xe8\0\0\0\0" + bytes(20), b"\x48\x8d\x05" + bytes(20), b"\xcc" + bytes(20)):
        with pytest.raises(CannotInject):
            receiver_stub.displaced(first, 0x1000, 0x2000)


def test_a_short_jump_of_the_prologue_leads_where_it_led() -> None:
    first = b"\x49\x3b\x66\x10\x76\x40\x55\x48\x89\xe5" + bytes(14)
    moved, length = receiver_stub.displaced(first, 0x401000, 0x405000)
    assert length == 6
    assert moved == b"\x49\x3b\x66\x10\x0f\x86" + (0x401046 - (0x405000 + 10)).to_bytes(4, "little", signed=True)
