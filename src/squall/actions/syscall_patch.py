"""A process whose system calls are led through a stub that decides on them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from squall.actions.base import Action, Look
from squall.actions.kernel_worker import published
from squall.actions.worker import TOKEN, dismiss, end_workers, spawn, stand_by, surviving, tell, wait_for_end
from squall.errors import TargetError
from squall.kernel import process_memory, syscall_patch
from squall.kernel.syscall_stub import Rule
from squall.workers.syscall_patch import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.targets.identity import ProcessIdentity

__all__ = ["SyscallPatch"]

_END_S = 0.5
"""It needs a few milliseconds; one that is stopped, or starved, does not keep the target from being put right."""
_HOLDS_S = 2.5
"""A worker may hold the process so long: a thread that is deep in the kernel is waited for 2 s."""


@dataclass(frozen=True)
class SyscallPatch(Action, kind="syscall-patch", recoverability="guarded"):
    """A worker leads the `syscall` instructions of a process through a stub, and takes that back when its owner ends.

    Guarded although the stub has a lease: when the worker is killed everything passes within a second, but the patches
    stay in the code until they are undone, each only where it still is, in forked children too. What stays for good is
    memory that nothing leads to: the stub, and jumps in padding between functions.
    """

    token: str
    process: ProcessIdentity
    name: str
    rule: dict[str, Any]
    """A `kernel.syscall_stub.Rule`."""
    seed: int
    purpose: str
    """What it does, for people: "fail sync with EIO"."""
    regions: tuple[tuple[Any, ...], ...] = ()
    """Where the stubs are to be; prepared."""
    patches: tuple[tuple[Any, ...], ...] = ()
    """Every changed instruction with what it was; prepared."""
    covers: tuple[int, ...] = ()
    """The numbers of the calls that it was prepared for: a new rule is about some of these."""

    def prepare(self) -> SyscallPatch:  # noqa: D102 - as the base says
        if not self.process.same_program():
            raise TargetError(
                f"{self.name} (pid {self.process.pid}) has ended, or become another program, since it was selected"
            )
        if (reason := process_memory.memory_refusal(self.process.pid)) is not None:
            raise TargetError(reason)
        layout = syscall_patch.lay_out(self.process.pid, self.rule["numbers"])
        return replace(
            self, regions=tuple(map(tuple, layout.regions)), patches=tuple(map(tuple, layout.patches)),
            covers=tuple(self.rule["numbers"]),
        )  # fmt: skip

    def adjusted(self, new: Action) -> Action:
        """The new rule on the patches that are there."""
        if not isinstance(new, SyscallPatch):
            return new
        return replace(new, regions=self.regions, patches=self.patches, covers=self.covers)

    def stand_by(self) -> None:
        """Have its worker ready."""
        stand_by("squall.workers.syscall_patch", self.token)

    def dismiss(self) -> None:
        """End the worker that stands by for it."""
        dismiss(self.token)

    def do(self) -> tuple[int, ...]:  # noqa: D102
        life_line, _ = spawn("squall.workers.syscall_patch", self.token, [json.dumps(asdict(self._config()))])
        return (life_line,)

    def _config(self) -> Config:
        who = self.process
        return Config(who.pid, who.start_ticks, self.name, self.regions, self.patches, self.rule, self.seed)

    def undo(self) -> None:  # noqa: D102
        self._let_the_worker_end()
        end_workers(self.token)
        if self.process.boot_id == type(self.process).mine().boot_id:
            syscall_patch.remove_everywhere(self.process.pid, self.process.start_ticks, self._config().layout)

    def _let_the_worker_end(self) -> None:
        """It takes everything out itself, if it is let; while it holds the process, killing it would not be safe."""
        wait_for_end(self.token, _END_S)
        deadline = time.monotonic() + _HOLDS_S
        while time.monotonic() < deadline:
            workers = {stat.pid for stat in surviving(self.token)}
            if process_memory.tracer(self.process.pid) not in workers:
                return
            time.sleep(0.002)

    def verify(self) -> Look:  # noqa: D102
        left = surviving(self.token)
        if left:
            return Look(normal=False, detail=f"its worker still runs (pid {left[0].pid})")
        layout = self._config().layout
        pids = {self.process.pid} if self.process.same_process() else set()
        pids |= set(syscall_patch.carriers(layout))
        changed = [pid for pid in sorted(pids) if syscall_patch.patched(pid, layout.patches)]
        if changed:
            return Look(
                normal=False, detail=f"the code of {', '.join(f'pid {pid}' for pid in changed)} is still patched"
            )
        return Look(normal=True, detail="its code is as before" if pids else "the process has ended")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"{self.process.key}:syscalls",)

    def describe(self) -> str:  # noqa: D102
        return f"patch the system calls of {self.name} (pid {self.process.pid}): {self.purpose}"

    def describe_undo(self) -> str:  # noqa: D102
        return (
            f"end the process with {TOKEN}={self.token} in its environment, then write back the {len(self.patches)} "
            f"instructions of pid {self.process.pid} that the journal names, or restart it"
        )

    def become(self, new: Action, held: Sequence[int]) -> bool:
        """Give the stub another rule, about calls that it was prepared for."""
        if not isinstance(new, SyscallPatch) or not held or not set(new.rule["numbers"]) <= set(self.covers):
            return False
        return tell(held[0], {"rule": asdict(Rule.from_json(new.rule))})

    def in_force(self) -> bool:
        """Whether the worker lives, its lease has never lapsed, and a living process has not become another program."""
        left = surviving(self.token)
        return bool(left) and not any(published(stat.pid).get("lapses") for stat in left)

    def counters(self) -> dict[str, int]:
        """`calls` that fitted, `hits`, and `passed_unseen` where more calls were on at a time than the stub can look at."""
        left = surviving(self.token)
        return {name: count for stat in left for name, count in published(stat.pid).items() if name != "lapses"}
