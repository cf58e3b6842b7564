"""Where Squall keeps what must outlive it: runs, the markers of open ones, the halt flag.

STATE/runs/ID/   journal.jsonl events.jsonl samples.bin experiment.yaml control.sock report.*
STATE/open/ID    exists from before a run's journal until everything in it is undone
STATE/halt       exists while `squall halt` is on
STATE/lock       held for a moment while a run looks whether others hold what it is about to touch
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.errors import InputError, SquallError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RunFolder", "State"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id: time, name and two random characters, so that ids sort by time."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """The durable list of steps."""
        return self.path / "journal.jsonl"

    @property
    def events(self) -> Path:
        """The stream of events."""
        return self.path / "events.jsonl"

    @property
    def samples(self) -> Path:
        """All measurements."""
        return self.path / "samples.bin"

    @property
    def document(self) -> Path:
        """The experiment as it was run."""
        return self.path / "experiment.yaml"

    @property
    def control(self) -> Path:
        """The socket that takes stop, adjust and status while the run lives."""
        return self.path / "control.sock"

    def remove_sockets(self) -> None:
        """Remove what listens for nobody any more: a killed process leaves its sockets' names."""
        for path in self.path.glob("*.sock"):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True, slots=True)
class State:
    """The state folder: `$SQUALL_STATE`, else /var/lib/squall for root, else $XDG_STATE_HOME/squall or ~/.local/state/squall."""

    path: Path

    @classmethod
    def default(cls) -> State:
        """Where this user's state is."""
        named = os.environ.get("SQUALL_STATE")
        if named:
            return cls(Path(named).absolute())
        if os.geteuid() == 0:
            return cls(Path("/var/lib/squall"))
        home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local/state")
        return cls(Path(home) / "squall")

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.path / "runs"

    @property
    def _open(self) -> Path:
        return self.path / "open"

    @property
    def halt_flag(self) -> Path:
        """Its existence means: nothing new starts."""
        return self.path / "halt"

    def create(self) -> None:
        """Make the folders, readable by their owner only; SquallError says where that failed and what to do."""
        try:
            for folder in (self.path, self.runs, self._open):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SquallError(
                f"the state folder {self.path} cannot be made: {error.strerror}; set SQUALL_STATE to one that can"
            ) from error

    def new_run(self, name: str) -> RunFolder:
        """A folder for a new run; its marker is durable before its journal can be."""
        self.create()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        for _ in range(100):
            run = RunFolder(self.runs / f"{stamp}-{name[:40]}-{os.urandom(2).hex()}")
            try:
                run.path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise SquallError(f"{run.path} cannot be made: {error.strerror}") from error
            return run
        raise SquallError(f"{self.runs}: no free name for a run called {name}")

    def mark_open(self, run: RunFolder) -> None:
        """Say durably that this run may hold something."""
        marker = self._open / run.id
        fd = os.open(marker, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        os.close(fd)
        _sync_folder(self._open)

    def mark_closed(self, run: RunFolder) -> None:
        """Say that everything of this run is undone."""
        with contextlib.suppress(FileNotFoundError):
            (self._open / run.id).unlink()

    def open_runs(self) -> list[RunFolder]:
        """The runs that are on, or were left, oldest first; one listing of a small folder, so any command can afford it."""
        try:
            names = sorted(os.listdir(self._open))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise _not_yours(self.path, error) from error
        return [RunFolder(self.runs / name) for name in names]

    def all_runs(self) -> list[RunFolder]:
        """Every run, oldest first."""
        try:
            return [RunFolder(self.runs / name) for name in sorted(os.listdir(self.runs))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise _not_yours(self.path, error) from error

    def find_run(self, wanted: str) -> RunFolder:
        """A run by its id, a part of it that only one run has, "last", or its folder's path; InputError otherwise."""
        if "/" in wanted and Path(wanted).is_dir():
            return RunFolder(Path(wanted).absolute())
        runs = self.all_runs()
        if wanted == "last" and runs:
            return runs[-1]
        matches = [run for run in runs if run.id == wanted] or [run for run in runs if wanted in run.id]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            near = f"; the last is {runs[-1].id}" if runs else ""
            raise InputError(f"there is no run {wanted!r} in {self.runs}{near}")
        raise InputError(
            f"{wanted!r} is a part of {len(matches)} runs ({', '.join(run.id for run in matches[-5:])}): say more of it"
        )

    @property
    def halted(self) -> bool:
        """Whether `squall halt` is on; SquallError where that may not be seen."""
        try:
            self.halt_flag.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:
            raise _not_yours(self.path, error) from error
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which runs look at each other; at most 10 s are waited for it."""
        fd = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise SquallError(
                            f"{self.path / 'lock'} has been held for 10 s by another Squall: is it stopped?"
                        ) from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(fd)


def _not_yours(folder: Path, error: PermissionError) -> SquallError:
    return SquallError(f"{folder} may not be read: {error.strerror}; run as its owner, or set SQUALL_STATE")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
