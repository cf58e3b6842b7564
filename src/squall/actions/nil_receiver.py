"""A Go method that runs a stub of Squall's first."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.errors import ActionFailed, CannotInject, TargetError
from squall.kernel import patching, proc, process_memory, receiver_stub
from squall.kernel.receiver_stub import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.targets.identity import ProcessIdentity

__all__ = ["NilReceiver"]


@dataclass(frozen=True)
class NilReceiver(Action, kind="nil-receiver", recoverability="guarded"):
    """Lead a Go method through a stub that a worker can let make its receiver nil; by itself it changes nothing.

    Undone by compare-and-swap in the process and in all that was forked from it: the method's first bytes are put back
    where ours still are. The stub itself stays, in the unused end of the code's last page or in a page of its own that
    the process was made to map: a thread may be in it.
    """

    token: str
    process: ProcessIdentity
    name: str
    function: str
    entry: int
    stub: int = 0
    """Where the stub lies, an address in the process; prepared, as what follows."""
    data: int = 0
    page: bool = False
    """Whether the stub gets a page of its own, because there is no room behind the code."""
    before: str = ""
    """The bytes that were at the entry, in hex, and those that are written instead."""
    after: str = ""

    @property
    def _token(self) -> bytes:
        return receiver_stub.token_of(self.token)

    @property
    def _place(self) -> Place:
        return Place(self.stub, self.data, self.entry)

    def prepare(self) -> NilReceiver:  # noqa: D102 - as the base says
        pid = self.process.pid
        if not self.process.same_program():
            raise TargetError(f"{self.name} (pid {pid}) has ended, or become another program, since it was selected")
        try:
            _refuse_what_is_not_ours(pid)
            place = receiver_stub.place_for(pid, self.entry)
            first = receiver_stub.first_bytes(pid, self.entry)
            receiver_stub.code(place, first)  # whether it can be moved
        except (CannotInject, OSError) as error:
            raise TargetError(f"{self.function} of {self.name} (pid {pid}) cannot be led elsewhere: {error}") from error
        after = receiver_stub.jump(self.entry, receiver_stub.start_of(place))
        before = first[: receiver_stub.ENTRY_SIZE]
        return replace(self, stub=place.stub, data=place.data, page=place.page, before=before.hex(), after=after.hex())

    def do(self) -> tuple[int, ...]:  # noqa: D102
        pid = self.process.pid
        try:
            if not self.process.same_program():
                raise ActionFailed(f"{self.name} (pid {pid}) has ended, or become another program")
            first = receiver_stub.first_bytes(pid, self.entry)
            if first[: receiver_stub.ENTRY_SIZE].hex() != self.before:
                raise ActionFailed("its code has been changed since it was looked at")
            code = receiver_stub.code(self._place, first)
            if self.page:
                receiver_stub.make_page(pid, self.process.start_ticks, self.stub)
            there = process_memory.read(pid, self.stub, len(code))
            if any(there) and there != code:
                raise ActionFailed("something else lies where the stub should be")
            process_memory.write(pid, self.stub, code)
            process_memory.write(pid, self.data, receiver_stub.Data(self._token, 0, 0, 0, 0).packed())
            patching.exchange(pid, self.process.start_ticks, [self._exchange()], mark=self._mark, whole=True)
        except OSError as error:
            raise ActionFailed(f"the code of {self.name} (pid {pid}) cannot be written: {error.strerror}") from error
        return ()

    @property
    def _mark(self) -> int:
        return self.data + receiver_stub.MARK_AT

    def _exchange(self) -> patching.Exchange:
        return patching.Exchange(self.entry, bytes.fromhex(self.before), bytes.fromhex(self.after))

    def undo(self) -> None:  # noqa: D102
        trouble: dict[int, str] = {}
        for pid in self._carriers():
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
        process_memory.write(pid, self.data + receiver_stub.UNTIL_AT, bytes(8))
        if process_memory.read(pid, self._mark, 1) == b"\x01":  # whoever stopped it for the exchange was killed
            proc.send_signal(pid, stat.start_ticks, signal.SIGCONT)
            process_memory.write(pid, self._mark, b"\x00")
        there = self._exchange()
        back = [patching.Exchange(there.address, there.new, there.expected)]
        patching.exchange(pid, stat.start_ticks, back, mark=self._mark, whole=False)
        process_memory.write(pid, self.data, bytes(receiver_stub.DATA_SIZE))

    def _carriers(self) -> Iterator[int]:
        """The process, first, and all that was forked from it and has its data still."""
        if not self.stub or self.process.boot_id != proc.boot_id():
            return
        for pid in sorted(proc.pids(), key=lambda pid: pid != self.process.pid):
            with contextlib.suppress(OSError):
                if pid != os.getpid() and process_memory.read(pid, self.data, 8) == self._token:
                    yield pid

    def _led(self) -> list[int]:
        """Those in which the method is led to the stub, or that stand still for it."""
        found = []
        for pid in self._carriers():
            with contextlib.suppress(OSError):
                entry = process_memory.read(pid, self.entry, receiver_stub.ENTRY_SIZE)
                if entry == bytes.fromhex(self.after) or process_memory.read(pid, self._mark, 1) == b"\x01":
                    found.append(pid)
        return found

    def verify(self) -> Look:  # noqa: D102
        if led := self._led():
            return Look(
                normal=False, detail=f"the method is still led away in {', '.join(f'pid {pid}' for pid in led)}"
            )
        if not self.process.same_process():
            return Look(normal=True, detail="the process has ended")
        return Look(normal=True, detail="the method's code is its own; the stub that nothing leads to is left")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"{self.process.key}:nil-receiver", f"{self.process.key}:entry:{self.function}")

    def describe(self) -> str:  # noqa: D102
        return f"lead {self.function} of {self.name} (pid {self.process.pid}) through a stub"

    def describe_undo(self) -> str:  # noqa: D102
        return (
            f"write {self.before or 'the first bytes'} back to {self.entry:#x} of pid {self.process.pid}, or restart it"
        )

    def become(self, new: Action, held: object) -> bool:  # noqa: ARG002
        """The stub is the same whatever is drawn."""
        return isinstance(new, NilReceiver) and (new.token, new.process, new.entry) == (
            self.token, self.process, self.entry,
        )  # fmt: skip


def _refuse_what_is_not_ours(pid: int) -> None:
    if debugger := process_memory.tracer(pid):
        raise CannotInject(f"a debugger holds it (pid {debugger})")
    if reason := process_memory.memory_refusal(pid):
        raise CannotInject(reason)
