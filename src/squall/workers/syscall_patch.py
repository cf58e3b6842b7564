"""Holds a process whose system calls are led through a stub: put in, kept on its lease, taken out at the end.

The worker traces the process for the moment of each change only. It is a process of its own so that whoever asked for
the fault may die at any instant without leaving the target half changed; should this one be killed, the stub lets
everything pass within a second, and the step's undo takes the patches out.
"""

from __future__ import annotations

import contextlib
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall.errors import SquallError
from squall.kernel import proc, process_memory, syscall_patch, syscall_stub
from squall.kernel.own import be_named
from squall.kernel.syscall_stub import CONTROL, Counts, Rule
from squall.workers.holding import LEASE_NS, hold
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["Config", "main"]

_HEAD_SIZE = 80


@dataclass(frozen=True, slots=True)
class Config:
    """What to hold: the process, where everything goes (`Layout` as nested lists), the rule, the seed."""

    pid: int
    start_ticks: int
    name: str
    regions: tuple[tuple[Any, ...], ...]
    patches: tuple[tuple[Any, ...], ...]
    rule: Mapping[str, Any]
    seed: int

    @property
    def layout(self) -> syscall_patch.Layout:
        """The same as the kernel's side takes it."""
        return syscall_patch.Layout(
            tuple(syscall_patch.Region(*one) for one in self.regions),
            tuple(syscall_patch.Patch(*one) for one in self.patches),
        )


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-syscalls")
    config = Config(**data)
    try:
        held = _Held(config)
    except (OSError, SquallError) as error:
        raise Refused(f"{config.name} (pid {config.pid}): {error}") from error
    hold(line, held)


class _Held:
    """One patched process."""

    def __init__(self, config: Config) -> None:
        self._config, self._layout = config, config.layout
        self._until_ns = 0
        self._lapses = 0
        self._counts = Counts(0, 0, 0)
        syscall_patch.install(config.pid, config.start_ticks, self._layout, self._block)

    def _block(self) -> bytes:
        """The control block with its lease running."""
        rule = Rule.from_json(self._config.rule)
        block = syscall_stub.control_block(rule, proc.innermost_pid(self._config.pid), self._config.seed)
        self._until_ns = time.monotonic_ns() + LEASE_NS
        return struct.pack("<Q", self._until_ns) + block[8:]

    def renew(self) -> None:
        """Let the stub work for another second; a process that is no longer patched but lives has shaken it off."""
        now = time.monotonic_ns()
        self._lapses += now > self._until_ns
        self._until_ns = now + LEASE_NS
        counts = []
        for region in self._layout.regions:
            try:
                process_memory.write(self._config.pid, region.base + CONTROL, struct.pack("<Q", self._until_ns))
                counts.append(Counts.read(process_memory.read(self._config.pid, region.base + CONTROL, _HEAD_SIZE)))
            except OSError:
                stat = proc.read_stat(self._config.pid)
                self._lapses += stat is not None and not stat.gone and stat.start_ticks == self._config.start_ticks
                return
        self._counts = Counts(*map(sum, zip(*counts, strict=True)))

    def counts(self) -> dict[str, int]:
        """As the stub counted; `lapses` as every holder's."""
        found = {"calls": self._counts.calls, "hits": self._counts.hits, "lapses": self._lapses}
        return found | ({"passed_unseen": self._counts.crowded} if self._counts.crowded else {})

    def become(self, config: Mapping[str, Any]) -> None:
        """Take a new rule; the patches stay as they are."""
        rule = Rule.from_json(config["rule"])
        for region in self._layout.regions:
            with contextlib.suppress(OSError):
                control = process_memory.read(self._config.pid, region.base + CONTROL, _HEAD_SIZE)
                for offset, data in syscall_stub.rule_update(control, rule):
                    process_memory.write(self._config.pid, region.base + CONTROL + offset, data)

    def close(self) -> None:
        """End the lease at once, for calls that wait too, and take the patches out."""
        for region in self._layout.regions:
            with contextlib.suppress(OSError):
                process_memory.write(self._config.pid, region.base + CONTROL, bytes(8))
        with contextlib.suppress(OSError, SquallError):  # what stays then is the step's to undo, and to report
            syscall_patch.remove_everywhere(self._config.pid, self._config.start_ticks, self._layout)
