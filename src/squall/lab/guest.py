"""One kernel booted, one command run in it, its exit status handed back.

QEMU reads the kernel's image and an archive from memory; virtiofsd gives the guest this machine's files, read-only; three
ports lead back: what the command prints, what became of it, and one file that it may leave as its result. Both processes
end with the thread that started them, whichever way it ends, and nothing of theirs is on a disk.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from squall.kernel import launch
from squall.lab import initrd
from squall.lab.programs import Programs
from squall.lab.ticks import kilohertz

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from squall.lab.kernels import Kernel

__all__ = ["RESULT", "Guest", "boot"]

RESULT = "/run/squall-lab/result"
"""What the command writes here is handed back as `Guest.result`."""

UP_SECONDS_MAX = 90.0
"""A guest that has not reached its command by then never will; measured: 3 to 7 s on two shared cores."""
MEMORY_MIB = 512
_APPEND = (
    "console=ttyS0 panic=-1 nokaslr mitigations=off nowatchdog no_timer_check noreplace-smp random.trust_cpu=on "
    "tsc=reliable quiet loglevel=3 lsm=lockdown,yama,apparmor,bpf slab_debug=F,kmalloc-*"
)
"""`lsm=`: 5.10 has no BPF among its security modules unless it is named.

`slab_debug=`: kernels from 6.18 on give a program's socket storage from an allocator that needs cmpxchg16b, which guests
have not (see `_command`), or caches that are checked; older ones do not know the word.
"""
_ENVIRONMENT = {
    "HOME": "/run",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "LANG": "C.UTF-8",
    "SQUALL_STATE": "/run/squall-state",
    "SQUALL_GUEST": "1",
}


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What became of one command in one kernel."""

    kernel: Kernel
    status: int | None
    """The command's exit status; None: the time was up, or the guest died."""
    output: bytes
    """What it wrote to its standard output and error."""
    result: bytes
    """What it left in the file RESULT; empty when it was ended."""
    console: str
    """What the kernel said, warnings and worse."""
    ended: str
    """"exited", or how else it ended, in words."""
    seconds_up: float | None
    """From QEMU's start to the command's; None: it never came so far."""
    seconds: float
    boots: int

    def problem(self) -> str:
        """Why the command did not end well; empty when it did."""
        if self.status == 0:
            return ""
        said = (self.console if self.status is None else self.output.decode(errors="replace")).strip().splitlines()
        how = self.ended if self.status is None else f"ended with {self.status}"
        return f"{how}: {said[-1]}" if said else how


def boot(
    kernel: Kernel, command: Sequence[str], timeout: float, *, folder: str = "/", environment: Mapping[str, str] | None = None,
    modules: Sequence[str] = initrd.MODULES, append: str = "", memory_mib: int = MEMORY_MIB, programs: Programs | None = None,
    stop: Event | None = None, log: Path | None = None,
) -> Guest:  # fmt: skip
    """Run a command as root in a folder of this machine's files, seen from another kernel.

    `timeout` in seconds bounds everything; a guest that never comes up is tried once more within it. `append` is added
    to the kernel's command line; when `stop` is set, the guest is ended. What the
    command prints and then the kernel said is written to `log` as it comes.

    Raises:
        CannotInject: QEMU, virtiofsd or busybox is missing, or cannot be started by this user.
        InputError: the kernel lacks a module without which there is no guest.
    """
    began = time.monotonic()
    programs = programs or Programs.find()
    everything = {**_ENVIRONMENT, **(environment or {})}
    archive = initrd.build(kernel, programs.busybox, command, folder, everything, (*initrd.NEEDED, *modules))
    for number in (1, 2):
        with ExitStack() as exits:
            kept = exits.enter_context(log.open("wb", buffering=0)) if log else None
            run = _Run(kernel, archive, f"{_APPEND} tsc_early_khz={kilohertz()} {append}", memory_mib, programs, exits)
            run.watch(began + timeout, stop or Event(), kept)
            guest = run.guest(number)
            if kept:
                kept.write(f"\n{guest.ended}\n{guest.console}\n".encode())
        if guest.seconds_up is not None or (stop and stop.is_set()) or time.monotonic() > began + timeout:
            break
    return guest


class _Run:
    """The processes of one boot, and what they have said so far."""

    def __init__(
        self, kernel: Kernel, archive: bytes, append: str, memory_mib: int, programs: Programs, exits: ExitStack
    ) -> None:
        self._kernel, self._exits = kernel, exits
        self._status, self._result, self._console = (self._memory(name) for name in ("status", "result", "console"))
        self._complaints = self._memory("complaints")
        self._output = bytearray()
        self._ended = ""
        self._seconds_up: float | None = None
        image = self._memory("initrd")
        with open(image, "wb", closefd=False) as file:
            file.write(archive)
        environment = programs.environment()
        link = self._share(programs, environment)
        command = _command(kernel, programs, append, memory_mib, initrd=image, link=link.fileno(), status=self._status,
                           result=self._result, console=self._console)  # fmt: skip
        self._began = time.monotonic()
        kept = (image, link.fileno(), self._status, self._result, self._console)
        self._pipe, output = os.pipe()
        exits.callback(os.close, self._pipe)
        with os.fdopen(output, "wb"):  # QEMU holds the only other end: its end is the end of the pipe
            self._start(command, environment, kept, output)
        link.close()

    def watch(self, deadline: float, stop: Event, log: FileIO | None) -> None:
        """Until the guest is off, or the deadline has come, or it is clear that it will not come up."""
        while not self._ended:
            readable, _, _ = select.select([self._pipe], [], [], 0.1)
            data = os.read(self._pipe, 1 << 16) if readable else b""
            self._output += data
            if log:
                log.write(data)
            if self._seconds_up is None and self._read(self._status):
                self._seconds_up = time.monotonic() - self._began
            now = time.monotonic()
            if readable and not data:
                self._ended = "exited" if self._code() is not None else "the guest died"
            elif stop.is_set():
                self._ended = "ended on request"
            elif now > deadline:
                self._ended = "not done in time"
            elif self._seconds_up is None and now - self._began > UP_SECONDS_MAX:
                self._ended = f"not up after {UP_SECONDS_MAX:.0f} s"

    def guest(self, boots: int) -> Guest:
        """What became of it."""
        code = self._code()
        console = self._read(self._console) + self._read(self._complaints)
        return Guest(
            kernel=self._kernel, status=code, output=bytes(self._output), result=self._read(self._result),
            console=console.decode(errors="replace").replace("\r", "").strip(), ended=self._ended,
            seconds_up=self._seconds_up, seconds=time.monotonic() - self._began, boots=boots,
        )  # fmt: skip

    def _code(self) -> int | None:
        for line in self._read(self._status).decode(errors="replace").splitlines():
            word, *rest = line.split()
            if word == "ended":
                return int(rest[0])
        return None

    def _share(self, programs: Programs, environment: dict[str, str]) -> socket.socket:
        """Start virtiofsd on this machine's root; the socket that QEMU talks to it by.

        The socket has a name only until it is connected, in a folder that is nobody else's: who can reach it reads all.
        """
        listening = self._exits.enter_context(socket.socket(socket.AF_UNIX))
        link = self._exits.enter_context(socket.socket(socket.AF_UNIX))
        with tempfile.TemporaryDirectory(prefix="squall-lab-") as folder:
            place = os.open(folder, os.O_PATH)  # a socket's address has 108 bytes, which some folders' names exceed
            try:
                listening.bind(f"/proc/self/fd/{place}/files")
                listening.listen(1)
                link.connect(f"/proc/self/fd/{place}/files")
            finally:
                os.close(place)
        options = [
            part
            for option in ("source=/", "cache=always", "sandbox=chroot", "log_level=warn")
            for part in ("-o", option)
        ]
        command = ["--read-only", programs.virtiofsd, f"--fd={listening.fileno()}", *options, "--thread-pool-size=1"]
        self._start(command, environment, (listening.fileno(),), self._complaints)
        listening.close()
        return link

    def _start(self, command: list[str], environment: dict[str, str], kept: tuple[int, ...], output: int) -> None:
        """A process that ends with this thread, and at the latest with this run."""
        process = subprocess.Popen(
            launch.command("squall.lab.tied", str(os.getpid()), *command), env=environment, pass_fds=kept,
            stdin=subprocess.DEVNULL, stdout=output, stderr=self._complaints, start_new_session=True,
        )  # fmt: skip
        self._exits.callback(_end, process)

    def _memory(self, name: str) -> int:
        """A file that is in memory only, and gone with its last holder."""
        number = os.memfd_create(f"squall-lab-{name}")
        self._exits.callback(os.close, number)
        return number

    @staticmethod
    def _read(number: int) -> bytes:
        return os.pread(number, os.fstat(number).st_size, 0)


def _command(
    kernel: Kernel, programs: Programs, append: str, memory_mib: int, *, initrd: int, link: int, status: int, result: int, console: int
) -> list[str]:  # fmt: skip
    """QEMU's argv; the numbers are descriptors that it inherits.

    Software emulation with one processor. `-cx16`: QEMU 7.2 loses flags when an interrupt comes right after cmpxchg16b,
    and the kernel's allocator panics of it about once in twenty boots.
    """
    files = {"console": console, "status": status, "result": result, "output": 1}
    chardevs = [f"file,id={name},path=/proc/self/fd/{number}" for name, number in files.items()]
    ports = ("output", "status", "result")
    arguments = {
        "-accel": ["tcg,tb-size=256"],
        "-cpu": ["max"],
        "-M": ["q35,usb=off,smm=off,memory-backend=memory"],
        "-smp": ["1"],
        "-m": [f"{memory_mib}M"],
        "-display": ["none"],
        "-net": ["none"],
        "-L": programs.firmware,
        "-object": [f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on"],
        "-chardev": [*chardevs, f"socket,id=files,fd={link}"],
        "-serial": ["chardev:console"],
        "-device": [
            "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024",
            "virtio-serial-pci",
            *(f"virtserialport,chardev={name},name={name},nr={nr}" for nr, name in enumerate(ports, start=1)),
        ],
        "-kernel": [str(kernel.image)],
        "-initrd": [f"/proc/self/fd/{initrd}"],
        "-append": [append],
    }
    spread = [part for name, values in arguments.items() for value in values for part in (name, value)]
    return [programs.qemu, "-nodefaults", "-no-user-config", "-no-reboot", *spread]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that this one started, if it has not ended by itself."""
    process.kill()
    process.wait()
