"""The clock of a running process, in C, static Go and Python, is wrong as was asked, for it alone, and true again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import ClockSkew
from squall.actions.worker import end_workers, surviving
from squall.errors import ActionFailed, TargetError
from squall.kernel import clock_stub, process_memory, vdso
from squall.targets import ProcessIdentity
from tests import specimens
from tests.clocks import ALL_CLOCKS, LANGUAGES, SECOND, Clock, clock, needs_writable_code, skewing, worker_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, specimens.needs_root, needs_writable_code]

HOUR = 3600 * SECOND

FORKS_AND_ENDS = """
import os, signal, time
def fork(*_):
    child = os.fork()
    if child:
        print(child, flush=True)
        os._exit(0)
    while True:
        time.sleep(1)
signal.signal(signal.SIGUSR1, fork)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(params=LANGUAGES)
def reader(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """A program that reads its clock, in each language."""
    with clock(request.param) as found:
        yield found


@pytest.fixture
def in_c() -> Iterator[Clock]:
    """The one in C."""
    with clock("c") as found:
        yield found


def vdso_of(pid: int) -> bytes:
    return process_memory.read(pid, *vdso.located(pid))


def functions(pid: int) -> bytes:
    """All of a process's vDSO but its padding."""
    return vdso_of(pid)[: vdso.own().padding]


@pytest.mark.parametrize("offset_ns", [500_000_000, HOUR, -24 * HOUR, -20 * 365 * 24 * HOUR])
def test_the_wall_clock_is_off_by_so_much_and_the_monotonic_one_is_not(reader: Clock, offset_ns: int) -> None:
    before, began = reader.read(), time.monotonic_ns()
    with skewing(reader.pid, offset_ns):
        assert reader.is_ahead(offset_ns)
        steady = reader.read().monotonic_ns - before.monotonic_ns
        assert 0 < steady <= time.monotonic_ns() - began + SECOND
    assert reader.is_ahead(0)


def test_it_is_changed_while_on_for_all_threads_at_once_and_never_seen_half(reader: Clock) -> None:
    """Each change is one leap for each of the four threads: a value that was read in the midst of one would be two."""
    with skewing(reader.pid, HOUR) as skew:
        specimens.wait_for(lambda: reader.is_ahead(HOUR), "it is an hour ahead")
        worker = surviving(skew.worker.token)
        specimens.wait_for(lambda: reader.read().leaps >= 4, "each thread has seen it")
        leaps = reader.read().leaps
        for number in range(1, 21):
            offset = (-1) ** number * number * HOUR
            skew.become(offset)
            specimens.wait_for(lambda at=offset: reader.is_ahead(at), "it has changed")  # type: ignore[misc]
            specimens.wait_for(lambda at=leaps + 4 * number: reader.read().leaps >= at, "each thread has seen it")  # type: ignore[misc]
        assert reader.read().leaps == leaps + 4 * 20
        assert [stat.pid for stat in surviving(skew.worker.token)] == [stat.pid for stat in worker]


@pytest.mark.parametrize("drift_ppm", [100_000.0, -100_000.0])
def test_a_drift_grows_with_time_and_stays_when_it_ends(in_c: Clock, drift_ppm: float) -> None:
    with skewing(in_c.pid, drift_ppm=drift_ppm) as skew:
        began_ns, first = time.monotonic_ns(), in_c.ahead_ns()
        specimens.wait_for(lambda: abs(in_c.ahead_ns()) > abs(first) + 50_000_000, "it has drifted by 50 ms")
        passed = time.monotonic_ns() - began_ns
        assert in_c.ahead_ns() - first == pytest.approx(passed * drift_ppm / 1e6, rel=0.3, abs=20_000_000)
        leaps = in_c.read().leaps
        skew.become(drift_ppm=-drift_ppm)
        turned = in_c.ahead_ns()
        specimens.wait_for(lambda: abs(in_c.ahead_ns()) < abs(turned) - 20_000_000, "it drifts back")
        assert in_c.read().leaps == leaps, "a clock whose rate changes does not jump"
    assert in_c.is_ahead(0)


def read_all(reader: Clock) -> dict[str, int]:
    return {name: int(value) for name, _, value in (word.partition(":") for word in reader.ask("all").split())}


def test_every_way_to_read_the_wall_clock_agrees(in_c: Clock) -> None:
    zone = read_all(in_c)["west"]
    with skewing(in_c.pid, -24 * HOUR):
        now, said = time.time_ns() - 24 * HOUR, read_all(in_c)
    tai = time.clock_gettime_ns(time.CLOCK_TAI) - time.time_ns()
    for name, expected in (("0", now), ("5", now), ("11", now + tai)):
        assert abs(said[name] - expected) < SECOND // 5, name
    assert abs(said["gettimeofday"] * 1000 - now) < SECOND // 5
    assert abs(said["time"] * SECOND - now) < 2 * SECOND
    assert said["stored"] == said["time"]
    assert said["west"] == zone
    assert abs(said["1"] - time.monotonic_ns()) < 10 * SECOND
    assert abs(said["7"] - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 10 * SECOND
    assert said["8"] == -1 or abs(said["8"] - now) < SECOND // 5


def test_only_the_chosen_clocks_are_wrong(in_c: Clock) -> None:
    with skewing(in_c.pid, HOUR, clocks=[clock_stub.CLOCKS["tai"]]):
        said, now, tai = read_all(in_c), time.time_ns(), time.clock_gettime_ns(time.CLOCK_TAI)
    assert abs(said["11"] - tai - HOUR) < SECOND
    for ns in (said["0"], said["5"], said["gettimeofday"] * 1000, said["time"] * SECOND):
        assert abs(ns - now) < 3 * SECOND


def test_another_process_is_not_touched(in_c: Clock) -> None:
    with clock("python") as other:
        before = vdso_of(other.pid)
        with skewing(in_c.pid, HOUR):
            assert in_c.is_ahead(HOUR)
            assert other.is_ahead(0)
            assert vdso_of(other.pid) == before
        assert other.read().leaps == 0


def test_undo_leaves_the_unused_stub_and_nothing_else(reader: Clock) -> None:
    before = vdso_of(reader.pid)
    with skewing(reader.pid, HOUR) as skew:
        assert functions(reader.pid) != before[: vdso.own().padding]
        place = skew.patch.stub - vdso.located(reader.pid)[0]
        size = len(clock_stub.image(place))
    after = vdso_of(reader.pid)
    assert after[:place] == before[:place]
    assert after[place + size :] == before[place + size :]
    skew.patch.undo()
    assert vdso_of(reader.pid) == after
    with skewing(reader.pid, -HOUR) as again:
        assert again.patch.stub == skew.patch.stub, "the stub that is there is used again"
        assert reader.is_ahead(-HOUR)
    assert reader.is_ahead(0)


def test_a_program_that_is_started_by_exec_has_a_true_clock_and_the_process_goes_on(reader: Clock) -> None:
    with skewing(reader.pid, HOUR):
        assert [reader.ask("exec") for _ in range(5)] == ["ok"] * 5
        assert reader.is_ahead(HOUR)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["c", "python"])
def test_a_forked_child_is_true_within_a_second_and_undone_too(language: str) -> None:
    with clock(language) as parent, skewing(parent.pid, HOUR) as skew:
        assert parent.is_ahead(HOUR)
        child = int(parent.ask("fork"))
        assert functions(child) == functions(parent.pid) != vdso.own().image[: vdso.own().padding]
        specimens.wait_for(lambda: abs(parent.child_ahead_ns(child)) < SECOND, "the child's lease is over", seconds=5)
        assert parent.is_ahead(HOUR)
        end_workers(skew.worker.token)
        skew.patch.undo()
        assert functions(child) == functions(parent.pid) == vdso.own().image[: vdso.own().padding]
        assert abs(parent.child_ahead_ns(child)) < SECOND


@pytest.mark.slow
@pytest.mark.parametrize("language", ["c", "python"])
def test_with_descendants_a_forked_child_stays_skewed_until_it_is_undone(language: str) -> None:
    with clock(language) as parent:
        with skewing(parent.pid, HOUR, forks=True) as skew:
            child = int(parent.ask("fork"))
            specimens.wait_for(lambda: skew.worker.counters() == {"skewed": 2}, "the worker has found the child")
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert abs(parent.child_ahead_ns(child) - HOUR) < SECOND
            skew.become(-HOUR)
            specimens.wait_for(lambda: abs(parent.child_ahead_ns(child) + HOUR) < SECOND, "the child's has changed")
            assert skew.worker.in_force()
        assert functions(child) == functions(parent.pid) == vdso.own().image[: vdso.own().padding]
        assert abs(parent.child_ahead_ns(child)) < SECOND


def test_a_child_whose_parent_is_gone_is_found() -> None:
    """An orphan descends from nobody that is known; it is known by the token in its memory."""
    with ExitStack() as stack:
        parent = stack.enter_context(specimens.python(FORKS_AND_ENDS))
        patch = stack.enter_context(skewing(parent.pid, HOUR)).patch
        assert parent.popen.stdout is not None
        os.kill(parent.pid, signal.SIGUSR1)
        child = int(parent.popen.stdout.readline())
        stack.callback(os.kill, child, signal.SIGKILL)
        parent.popen.wait()
        assert functions(child) != vdso.own().image[: vdso.own().padding]
        assert not patch.verify().normal
        patch.undo()
        assert functions(child) == vdso.own().image[: vdso.own().padding]
        assert patch.verify().normal


@pytest.mark.slow
def test_a_killed_worker_leaves_a_true_clock_within_about_a_second(reader: Clock) -> None:
    with skewing(reader.pid, HOUR) as skew:
        assert reader.is_ahead(HOUR)
        assert skew.worker.in_force()
        (worker,) = surviving(skew.worker.token)
        os.kill(worker.pid, signal.SIGKILL)
        killed = time.monotonic()
        specimens.wait_for(lambda: reader.is_ahead(0), "the lease is over")
        assert time.monotonic() - killed < 3
        assert not skew.worker.in_force()
        assert not skew.patch.verify().normal


@pytest.mark.slow
def test_a_worker_that_was_stopped_lets_the_lease_lapse_and_says_so(in_c: Clock) -> None:
    with skewing(in_c.pid, HOUR) as skew:
        (worker,) = surviving(skew.worker.token)
        os.kill(worker.pid, signal.SIGSTOP)
        specimens.wait_for(lambda: in_c.is_ahead(0), "the lease is over")
        os.kill(worker.pid, signal.SIGCONT)
        specimens.wait_for(lambda: not skew.worker.in_force(), "the worker says that it lapsed")


def test_an_exec_drops_the_skew_and_that_is_seen() -> None:
    script = "import os, signal\nprint('ready', flush=True)\nsignal.sigwait([signal.SIGUSR1])\nos.execv('/bin/sleep', ['sleep', '600'])"
    blocked = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    with specimens.python(blocked + script) as target, skewing(target.pid, HOUR) as skew:
        assert skew.worker.in_force()
        os.kill(target.pid, signal.SIGUSR1)
        specimens.wait_for(lambda: not skew.worker.in_force(), "the worker says that it is no longer in force")
        assert skew.patch.verify().normal


def test_what_somebody_else_wrote_meanwhile_is_left_alone(in_c: Clock) -> None:
    with skewing(in_c.pid, HOUR) as skew:
        at, before, written = skew.patch.patches[-1]
        theirs = bytes.fromhex("e900000000")
        process_memory.write(in_c.pid, at, theirs)
        skew.patch.undo()
        assert process_memory.read(in_c.pid, at, 5) == theirs
        assert skew.patch.verify().normal
        process_memory.write(in_c.pid, at, bytes.fromhex(before))
        assert written != before


def test_a_process_that_was_left_stopped_by_a_death_in_the_midst_goes_on(in_c: Clock) -> None:
    """The byte in the stub says who stopped it: a process that its user stopped is not let go."""
    with skewing(in_c.pid, HOUR) as skew:
        mark = skew.patch.stub + clock_stub.STOPPING_AT
        process_memory.write(in_c.pid, mark, b"\x01")
        os.kill(in_c.pid, signal.SIGSTOP)
        specimens.wait_for(lambda: in_c.state == "T", "it is stopped")
        assert not skew.patch.verify().normal
        skew.patch.undo()
        specimens.wait_for(lambda: in_c.state != "T", "it goes on")
        assert skew.patch.verify().normal


def test_a_process_that_its_user_stopped_stays_so(in_c: Clock) -> None:
    with skewing(in_c.pid, HOUR) as skew:
        os.kill(in_c.pid, signal.SIGSTOP)
        specimens.wait_for(lambda: in_c.state == "T", "it is stopped")
        end_workers(skew.worker.token)
        skew.patch.undo()
        assert skew.patch.verify().normal
        assert in_c.state == "T"
        os.kill(in_c.pid, signal.SIGCONT)


def test_undo_before_do_and_after_the_end_is_harmless() -> None:
    with clock("c") as reader:
        before = vdso_of(reader.pid)
        fresh = ClockSkew("test/0.1", ProcessIdentity.of(reader.pid), "it")
        for patch in (fresh, fresh.prepare()):
            patch.undo()
            assert patch.verify().normal
        assert vdso_of(reader.pid) == before
        done = fresh.prepare()
        done.do()
    done.undo()
    assert done.verify().normal
    with pytest.raises(TargetError, match="has ended"):
        fresh.prepare()


@pytest.mark.slow
def test_two_runs_do_not_skew_the_same_clock_and_what_one_left_is_put_right_by_the_next(in_c: Clock) -> None:
    other = ClockSkew("another/0.1", ProcessIdentity.of(in_c.pid), "it")
    with skewing(in_c.pid, HOUR) as skew:
        with pytest.raises(TargetError, match="skewed by another run"):
            other.prepare()
        end_workers(skew.worker.token)  # it is killed, and nobody undoes it
        specimens.wait_for(lambda: in_c.is_ahead(0), "the lease is over")
        prepared = other.prepare()
        prepared.do()
        skew.patch.undo()
        assert functions(in_c.pid) != vdso.own().image[: vdso.own().padding], "it is another's now"
        prepared.undo()
        assert functions(in_c.pid) == vdso.own().image[: vdso.own().padding]


@pytest.mark.parametrize("word", ["cc", "e9fbffffff"])
def test_a_foreign_patch_is_refused(in_c: Clock, word: str) -> None:
    address, _ = vdso.located(in_c.pid)
    at = address + vdso.own().entries["time"]
    before = process_memory.read(in_c.pid, at, 5)
    process_memory.write(in_c.pid, at, bytes.fromhex(word))
    with pytest.raises(TargetError, match="somebody has patched"):
        ClockSkew("test/0.1", ProcessIdentity.of(in_c.pid), "it").prepare()
    process_memory.write(in_c.pid, at, before)


def test_a_vdso_without_room_is_refused(in_c: Clock) -> None:
    address, size = vdso.located(in_c.pid)
    begin = address + vdso.own().padding
    process_memory.write(in_c.pid, begin, b"\x01" * (address + size - begin))
    with pytest.raises(TargetError, match="has no room"):
        ClockSkew("test/0.1", ProcessIdentity.of(in_c.pid), "it").prepare()


def test_a_worker_refuses_a_process_that_has_no_stub_of_its_step(in_c: Clock) -> None:
    patch = replace(ClockSkew("test/0.1", ProcessIdentity.of(in_c.pid), "it").prepare(), token="other/0.1")
    with pytest.raises(ActionFailed, match="has no stub"):
        worker_for([patch], "test/0", HOUR, 0, ALL_CLOCKS, forks=False).do()
    assert in_c.is_ahead(0)
