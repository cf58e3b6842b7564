"""A program that reads its clock in four threads without rest survives being skewed and put right over and over.

`SQUALL_SKEW_CYCLES=1000` asks for as many cycles as are claimed of it; a usual run makes fewer.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest

from squall.actions import ClockSkew
from squall.kernel import clock_stub, process_memory, vdso
from squall.targets import ProcessIdentity
from tests import specimens
from tests.clocks import ALL_CLOCKS, LANGUAGES, SECOND, Clock, clock, needs_writable_code

pytestmark = [pytest.mark.slow, pytest.mark.kernel, specimens.needs_root, needs_writable_code]

CYCLES = int(os.environ.get("SQUALL_SKEW_CYCLES", "60"))
REST_US = 100
HOUR = 3600 * SECOND


def skew(pid: int, patch: ClockSkew, offset_ns: int) -> None:
    """What the worker does, without starting one."""
    with clock_stub.StubMemory(pid, patch.stub) as memory:
        lease = time.monotonic_ns() + 60 * SECOND
        assert memory.become(clock_stub.Skew(lease, ALL_CLOCKS, offset_ns, time.time_ns(), 0.0))


def is_pristine(pid: int) -> bool:
    return process_memory.read(pid, *vdso.located(pid))[: vdso.own().padding] == vdso.own().image[: vdso.own().padding]


def fork_in_between(program: Clock, patch: ClockSkew, language: str) -> None:
    """A child is forked while the parent is skewed, where the language can; undo finds it."""
    child = int(program.ask("fork")) if language != "go" else 0
    patch.undo()
    if child:
        assert is_pristine(child)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_survives(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    with clock(language, REST_US) as program:
        patch = ClockSkew("stress/0.1", ProcessIdentity.of(program.pid), language).prepare()
        began, took = time.monotonic(), []
        for cycle in range(CYCLES):
            offset = (-1) ** cycle * (1 + cycle % 24) * HOUR
            begin = time.monotonic()
            patch.do()
            took.append(time.monotonic() - begin)
            skew(program.pid, patch, offset)
            assert program.is_ahead(offset, SECOND)
            if cycle % 5 == 1:
                assert program.ask("exec") == "ok"
            if cycle % 10 == 3:
                fork_in_between(program, patch, language)
            patch.undo()
            assert is_pristine(program.pid)
            assert program.is_ahead(0, SECOND)
        reads, seconds = program.read().reads, time.monotonic() - began
    with capsys.disabled():
        print(  # noqa: T201 - a report
            f"\n{language}: {CYCLES} cycles in {seconds:.1f} s beside {reads:,} reads; "
            f"doing it took {sorted(took)[len(took) // 2] * 1e3:.1f} ms (median), {max(took) * 1e3:.1f} ms (most)"
        )
