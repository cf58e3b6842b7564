"""The vDSO is read, its functions' beginnings are understood or refused, and the stub is what its source says."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import platform
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import ActionFailed, CannotInject
from squall.kernel import clock_stub, patching, proc, process_memory, vdso
from squall.kernel.elf import Elf
from tests import specimens
from tests.clocks import needs_writable_code

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64"),
]

STUBS = Path(clock_stub.__file__).parent / "stubs"
MONOTONIC = 1
SLEEPS = "230 "
"""The number of clock_nanosleep(2)."""


def test_the_stub_was_assembled_from_its_source_as_it_is_now() -> None:
    elf = Elf((STUBS / "clock.o").read_bytes())
    source = elf.section(".squall.source")
    assert source is not None
    assert elf.contents(source).decode() == hashlib.sha256((STUBS / "clock.S").read_bytes()).hexdigest(), (
        "run tools/build-stubs"
    )
    assert not any(one.name.startswith(".rel") for one in elf.sections), "it must run wherever it lies"


def test_this_machines_vdso_has_the_functions_and_room_for_the_stub() -> None:
    found = vdso.own()
    assert set(found.entries) == set(vdso.FUNCTIONS)
    assert found.padding % 64 == 0
    assert not any(found.image[found.padding :])
    assert found.spare >= len(clock_stub.image(found.padding))


@pytest.mark.parametrize(
    ("code", "length"),
    [
        ("55 4889e5 4156 53 4883e4f0", 6),  # push rbp; mov rbp,rsp; push r14
        ("f30f1efa", 0),
        ("83ff17 0f87d2000000", 0),  # cmp edi,23; ja: a jump
        ("55 4c8d15e897ffff", 0),  # lea r10,[rip-...]: found from its own address
        ("89f9 4c8d542408 4883e4f0", 7),  # mov ecx,edi; lea r10,[rsp+8]
        ("b8e4000000 0f05", 5),  # mov eax,228
        ("4881ec80000000 90", 7),  # sub rsp,128
        ("e8000000005b", 0),  # call
        ("0f1f440000 55", 5),  # a long nop
        ("488b07 4889c2", 0),  # mov rax,[rdi]: memory, not known to be safe to move
    ],
)
def test_only_instructions_that_run_anywhere_are_moved(code: str, length: int) -> None:
    assert vdso.displaced(bytes.fromhex(code).ljust(16, b"\xcc")) == length


@pytest.mark.parametrize(
    ("code", "jumps"),
    [
        (b"\x90" * 16 + b"\xeb" + struct.pack("<b", -15), True),  # to the 4th byte
        (b"\x90" * 16 + b"\xeb" + struct.pack("<b", -13), False),  # to the 6th
        (b"\x90" * 16 + b"\xeb" + struct.pack("<b", -18), False),  # to the very first: a jump is there then
        (b"\x90" * 300 + b"\x0f\x84" + struct.pack("<i", -305), True),
        (b"\x90" * 300 + b"\xe9" + struct.pack("<i", -304), True),
        (b"\x90" * 300 + b"\xe9" + struct.pack("<i", -300), False),
    ],
)
def test_a_jump_back_among_the_first_bytes_is_seen(code: bytes, jumps: bool) -> None:  # noqa: FBT001 - a parameter
    assert vdso.jumps_into(code) is jumps


def test_the_vdso_of_another_kind_of_program_is_refused() -> None:
    ours = bytearray(vdso.own().image)
    ours[4] = 1  # ELFCLASS32
    with pytest.raises(CannotInject, match="32-bit"):
        clock_stub.survey(bytes(ours))
    with pytest.raises(CannotInject, match="32-bit"):
        vdso.Vdso.parse(bytes(ours))
    with pytest.raises(CannotInject, match="32-bit program, or runs in a sandbox"):
        clock_stub.survey(vdso.own().image[:4096])


class StubHere:
    """The stub in this process: a copy of the vDSO's image, with system calls as its way to the original."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            vdso, "displaced", lambda _: 0
        )  # an unknown beginning; the copy has no clock data beside it
        clock_stub.image.cache_clear()
        self.place = vdso.own().padding
        code = clock_stub.image(self.place)
        clock_stub.image.cache_clear()
        size = -(-len(code) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._map[: len(code)] = code
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        jumps = {at: int.from_bytes(jump[1:], "little", signed=True) for at, _, jump in clock_stub.entries(self.place)}
        self._function = {
            name: self.address + at + vdso.ENTRY_SIZE + jumps[at] - self.place
            for name, at in vdso.own().entries.items()
        }

    def clock_gettime(self, clock: int) -> int:
        """What it says, in ns."""
        spec = (ctypes.c_int64 * 2)()
        call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(self._function["clock_gettime"])
        assert call(clock, ctypes.addressof(spec)) == 0
        assert 0 <= spec[1] < 1_000_000_000
        return spec[0] * 1_000_000_000 + spec[1]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> StubHere:
    """The stub, callable."""
    return StubHere(monkeypatch)


DAY = 86_400_000_000_000


@given(
    shift=st.integers(-36_500 * DAY, 36_500 * DAY) | st.integers(-3_000_000_000, 3_000_000_000),
    drift=st.floats(-500_000, 500_000),
    age=st.integers(0, 30 * DAY),
)
def test_its_sums_are_right(shift: int, drift: float, age: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        here = StubHere(monkeypatch)
    base = time.time_ns() - age
    skew = clock_stub.Skew(time.monotonic_ns() + 10**10, (0, 11), shift, base, drift)
    with clock_stub.StubMemory(os.getpid(), here.address) as memory:
        assert memory.become(skew)
    rounding = 2 + age // 10**13
    for clock, ahead in ((time.CLOCK_REALTIME, 0), (time.CLOCK_TAI, clock_stub.tai_ahead_ns())):
        before, said, after = time.time_ns(), here.clock_gettime(clock) - ahead, time.time_ns()
        assert before + skew.ahead_ns(before) - rounding <= said <= after + skew.ahead_ns(after) + rounding
    assert here.clock_gettime(MONOTONIC) <= time.monotonic_ns()


def test_a_time_before_1970_and_whole_seconds_are_right(here: StubHere) -> None:
    with clock_stub.StubMemory(os.getpid(), here.address) as memory:
        for shift in (-(60 * 365 * DAY), -time.time_ns(), -time.time_ns() - 10**9):
            assert memory.become(clock_stub.Skew(time.monotonic_ns() + 10**10, (0,), shift, time.time_ns(), 0.0))
            before = time.time_ns()
            assert before <= here.clock_gettime(0) - shift <= time.time_ns()


def test_the_clock_is_true_once_the_lease_is_over(here: StubHere) -> None:
    with clock_stub.StubMemory(os.getpid(), here.address) as memory:
        assert memory.become(clock_stub.Skew(time.monotonic_ns() + 50_000_000, (0,), DAY, time.time_ns(), 0.0))
        assert here.clock_gettime(0) > time.time_ns() + DAY // 2
        specimens.wait_for(lambda: here.clock_gettime(0) < time.time_ns() + DAY // 2, "the lease is over", seconds=2)


def test_the_memory_of_a_program_that_is_gone_says_so() -> None:
    with specimens.sleeper() as specimen:
        memory = clock_stub.StubMemory(specimen.pid, vdso.located(specimen.pid)[0])
        assert memory.token() == b""
    assert not memory.become(clock_stub.TRUE)
    memory.close()


@needs_writable_code
def test_a_place_to_which_a_signal_handler_would_return_is_waited_out() -> None:
    """The words of the place lie on a thread's stack, as they do in the frame of a signal: no exchange until they are gone."""
    with specimens.python("import time; print('ready'); time.sleep(600)") as target:
        specimens.wait_for(lambda: Path(f"/proc/{target.pid}/syscall").read_text().startswith(SLEEPS), "it sleeps")
        rows = process_memory.mappings(target.pid)
        code = next(row for row in rows if row.name == "[vdso]")
        start = proc.read_stat(target.pid)
        assert start is not None
        at = code.start + vdso.own().entries["time"]
        expected = process_memory.read(target.pid, at, 5)
        mark = code.start + vdso.own().padding
        with process_memory.stopped(target.pid) as threads:
            sp = threads[0].sp
            below = process_memory.read(target.pid, sp + 512, 8)
            process_memory.write(target.pid, sp + 512, (at + 3).to_bytes(8, "little"))
        wanted = [patching.Exchange(at, expected, b"\x90" * 5)]
        with pytest.raises(ActionFailed, match="never seen outside"):
            patching.exchange(target.pid, start.start_ticks, wanted, mark=mark, whole=True)
        assert process_memory.read(target.pid, at, 5) == expected
        assert process_memory.read(target.pid, mark, 1) == b"\x00"
        with process_memory.stopped(target.pid):
            process_memory.write(target.pid, sp + 512, below)
        assert patching.exchange(target.pid, start.start_ticks, wanted, mark=mark, whole=True) == 1
        assert process_memory.read(target.pid, at, 5) == b"\x90" * 5
        assert patching.exchange(target.pid, start.start_ticks, wanted, mark=mark, whole=True) == 0
        other = [patching.Exchange(at, b"\xcc" * 5, b"\xcd" * 5)]
        with pytest.raises(ActionFailed, match="changed by somebody else"):
            patching.exchange(target.pid, start.start_ticks, other, mark=mark, whole=True)
        assert target.state in "SR"
