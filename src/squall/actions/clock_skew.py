"""A process whose clock functions are Squall's."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.errors import ActionFailed, CannotInject, TargetError
from squall.kernel import clock_stub, patching, proc, process_memory, vdso

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.targets.identity import ProcessIdentity

__all__ = ["ClockSkew"]

_ROUNDS = 10
"""A process that is still skewed may fork while the others are put right."""


@dataclass(frozen=True)
class ClockSkew(Action, kind="clock-skew", recoverability="guarded"):
    """Lead the clock functions of a process's vDSO to a stub that a worker can skew; by itself it changes no time.

    Undone by compare-and-swap in the process and in all that was forked from it (found by the stub's token, whoever
    their parent is now): the functions' first bytes are put back where ours still are. The stub itself stays in the
    padding of the vDSO, unused: a thread may be anywhere in it. It is gone with the next exec.
    """

    token: str
    process: ProcessIdentity
    name: str
    stub: int = 0
    """Where the stub lies, an address in the process; prepared, as what follows."""
    patches: tuple[tuple[int, str, str], ...] = ()
    """For each function an address, the bytes that were there and those that are written instead, in hex."""

    @property
    def _token(self) -> bytes:
        return clock_stub.token_of(self.token)

    def prepare(self) -> ClockSkew:  # noqa: D102 - as the base says
        pid = self.process.pid
        if not self.process.same_program():
            raise TargetError(f"{self.name} (pid {pid}) has ended, or become another program, since it was selected")
        try:
            _refuse_what_cannot_be_patched(pid)
            address, size = vdso.located(pid)
            found = clock_stub.survey(process_memory.read(pid, address, size))
        except (CannotInject, OSError) as error:
            raise TargetError(f"the clock of {self.name} (pid {pid}) cannot be skewed: {error}") from error
        if found.led_to and found.token != self._token and found.lease_ns > time.monotonic_ns():
            raise TargetError(f"the clock of {self.name} (pid {pid}) is skewed by another run of Squall already")
        patches = tuple(
            (address + at, before.hex(), after.hex()) for at, before, after in clock_stub.entries(found.place)
        )
        return replace(self, stub=address + found.place, patches=patches)

    def do(self) -> tuple[int, ...]:  # noqa: D102
        pid, (address, size) = self.process.pid, vdso.located(self.process.pid)
        place = self.stub - address
        try:
            found = clock_stub.survey(process_memory.read(pid, address, size))
            if found.place != place:
                raise ActionFailed("its vDSO has changed since it was looked at")
            if not found.there:  # nobody runs in the padding yet, so it may be written bit by bit
                process_memory.write(pid, self.stub, clock_stub.image(place))
            with clock_stub.StubMemory(pid, self.stub) as memory:
                memory.claim(self._token)
                if memory.token() != self._token:
                    raise ActionFailed("the stub could not be written into its vDSO")
            patching.exchange(pid, self.process.start_ticks, self._exchanges(), mark=self._mark, whole=True)
        except OSError as error:
            raise ActionFailed(f"the vDSO of {self.name} (pid {pid}) cannot be written: {error.strerror}") from error
        return ()

    @property
    def _mark(self) -> int:
        return self.stub + clock_stub.STOPPING_AT

    def _exchanges(self) -> list[patching.Exchange]:
        return [
            patching.Exchange(at, bytes.fromhex(before), bytes.fromhex(after)) for at, before, after in self.patches
        ]

    def undo(self) -> None:  # noqa: D102
        trouble: dict[int, str] = {}
        for _ in range(_ROUNDS):
            left = [pid for pid in self._skewed() if pid not in trouble]
            if not left:
                break
            for pid in left:
                try:
                    self._put_right(pid)
                except ProcessLookupError:
                    continue
                except Exception as error:  # noqa: BLE001 - the others must still be put right
                    trouble[pid] = str(error)
        if trouble:
            raise ActionFailed("; ".join(f"process {pid}: {reason}" for pid, reason in trouble.items()))

    def _put_right(self, pid: int) -> None:
        stat = proc.read_stat(pid)
        if stat is None or stat.gone:
            return
        with clock_stub.StubMemory(pid, self.stub) as memory:
            if memory.token() != self._token:
                return
            memory.become(clock_stub.TRUE)
        if process_memory.read(pid, self._mark, 1) == b"\x01":  # whoever stopped it for the exchange was killed
            proc.send_signal(pid, stat.start_ticks, signal.SIGCONT)
            process_memory.write(pid, self._mark, b"\x00")
        back = [patching.Exchange(at, after, before) for at, before, after in self._exchanges()]
        patching.exchange(pid, stat.start_ticks, back, mark=self._mark, whole=False)

    def _carriers(self) -> Iterator[int]:
        """The process and all that was forked from it and still has its memory; it comes first: then no more are made."""
        if not self.stub or self.process.boot_id != proc.boot_id():
            return
        program = (self.process.exe_device, self.process.exe_inode)
        found = clock_stub.carriers(self.stub, self._token, program)
        yield from sorted(found, key=lambda pid: pid != self.process.pid)

    def _skewed(self) -> list[int]:
        """Those in which a function is led to the stub, or that stand still for it."""
        found = []
        for pid in self._carriers():
            with contextlib.suppress(OSError):
                if process_memory.read(pid, self._mark, 1) == b"\x01" or any(
                    process_memory.read(pid, one.address, len(one.new)) == one.new for one in self._exchanges()
                ):
                    found.append(pid)
        return found

    def verify(self) -> Look:  # noqa: D102
        if left := self._skewed():
            return Look(
                normal=False, detail=f"the clock functions are still ours in {', '.join(f'pid {pid}' for pid in left)}"
            )
        if not self.process.same_process():
            return Look(normal=True, detail="the process has ended")
        return Look(
            normal=True, detail="its clock functions are its own; the unused stub is left in its vDSO's padding"
        )

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"{self.process.key}:clock",)

    def describe(self) -> str:  # noqa: D102
        return f"lead the clock functions of {self.name} (pid {self.process.pid}) to a stub in its vDSO"

    def describe_undo(self) -> str:  # noqa: D102
        return f"write the first bytes of the clock functions back, or restart pid {self.process.pid}"

    def become(self, new: Action, held: object) -> bool:  # noqa: ARG002
        """The stub is the same whatever the skew."""
        return isinstance(new, ClockSkew) and (new.token, new.process) == (self.token, self.process)

    def counters(self) -> dict[str, int]:
        """How many processes carry the stub."""
        return {"processes": sum(1 for _ in self._carriers())}


def _refuse_what_cannot_be_patched(pid: int) -> None:
    if debugger := process_memory.tracer(pid):
        raise CannotInject(f"a debugger holds it (pid {debugger})")
    if reason := process_memory.memory_refusal(pid):
        raise CannotInject(reason)
    if _time_namespace(pid) != _time_namespace(os.getpid()):
        raise CannotInject("it is in a time namespace of its own, whose monotonic clock is not Squall's")


def _time_namespace(pid: int) -> int:
    """The inode of a process's time namespace, 0 where the kernel has none (before 5.6)."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/time").st_ino
    return 0
