"""Who a process is: a pid alone is soon somebody else's."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from squall.errors import TargetError
from squall.kernel import proc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProcessIdentity"]


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from any other that has or had its pid: boot id, pid, start time (clock ticks since boot).

    The executable's device and inode tell whether it has become another program by exec; (0, 0) where it may not be
    seen. What undoes a fault asks for the same *process* (`same_process`), what begins one for the same *program* too.
    """

    boot_id: str
    pid: int
    start_ticks: int
    exe_device: int
    exe_inode: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this pid now; TargetError when there is none."""
        stat = proc.read_stat(pid)
        if stat is None or stat.gone:
            raise TargetError(f"there is no process {pid}")
        device, inode = proc.executable(pid)
        return cls(proc.boot_id(), pid, stat.start_ticks, device, inode)

    @classmethod
    def mine(cls) -> Self:
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @property
    def key(self) -> str:
        """One word for it."""
        return f"process:{self.boot_id[:8]}:{self.pid}:{self.start_ticks}"

    def stat(self) -> proc.ProcessStat | None:
        """Its state, None when this process is gone, whoever has its pid now."""
        if self.boot_id != proc.boot_id():
            return None
        stat = proc.read_stat(self.pid)
        return stat if stat is not None and stat.start_ticks == self.start_ticks and not stat.gone else None

    def same_process(self) -> bool:
        """Whether this process still runs."""
        return self.stat() is not None

    def same_program(self) -> bool:
        """Whether it still runs and has not become another program by exec."""
        return self.same_process() and (
            self.exe_inode == 0 or proc.executable(self.pid) == (self.exe_device, self.exe_inode)
        )

    def refusal(self) -> str | None:
        """Why this user may not signal or limit it, None when he may or when it is gone."""
        try:
            self.signal(0)
        except TargetError as error:
            return str(error)
        return None

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it is gone; TargetError where that is not permitted."""
        if self.boot_id != proc.boot_id():
            return False
        try:
            return proc.send_signal(self.pid, self.start_ticks, number)
        except PermissionError as error:
            raise TargetError(
                f"not permitted to signal process {self.pid}: it belongs to another user; run as that user or as root"
            ) from error
