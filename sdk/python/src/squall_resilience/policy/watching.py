"""A settings file that is watched: what it says is in force within about a second, and only when it is whole and right.

The file is looked at, not subscribed to: a `stat` twice a second costs nothing, and works on every file system, through
every chain of links (a mounted ConfigMap swaps its `..data` link and deletes what the old one led to) and after whatever
an editor does to a file.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Self

from squall_resilience.errors import SettingsError
from squall_resilience.policy.files import BYTES_MAX, Unreadable, parse, reader_of
from squall_resilience.policy.forks import renewed_in_children

if TYPE_CHECKING:
    from types import TracebackType

    from squall_resilience.policy.live import LiveSettings

__all__ = ["Watcher", "watch"]

logger = logging.getLogger("squall_resilience.settings")

PERIOD_SECONDS = 0.5
LOOKS_MAX = 20
"""How often `check_now` looks at a file that does not come to rest."""


class _Mark(NamedTuple):
    """What changes when anything happens to the file."""

    place: str
    """Where all links lead to."""
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class _Look(NamedTuple):
    """One look at the file."""

    mark: _Mark
    content: bytes


def watch(path: str | os.PathLike[str], live: LiveSettings, *, period: float = PERIOD_SECONDS) -> Watcher:
    """Apply a settings file now, and again whenever it changes, from a daemon thread that looks every `period` seconds.

    A file that is wrong or missing when this is called does not stop the service from starting: the code's own
    settings hold, and `watcher.problem` says what is wrong. Raises SettingsError when no file of this name could ever be
    read here (its ending, a missing YAML library). In a forked child the watching goes on.
    """
    watcher = Watcher(path, live, period=period)
    watcher.check_now()
    watcher.start()
    return watcher


class Watcher:
    """Watches one settings file; a context manager that stops at the end of its block."""

    def __init__(self, path: str | os.PathLike[str], live: LiveSettings, *, period: float = PERIOD_SECONDS) -> None:
        self.path = Path(path)
        self.live = live
        self.problem = ""
        """Why what the file holds now is not in force; empty when it is."""
        self._period = min(max(period, 0.01), 60.0)
        self._seen: _Look | None = None
        """The last look, which may be at something that is still being written."""
        self._settled: _Look | None = None
        """What was applied or refused last."""
        self._checking = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        reader_of(self.path.name)
        renewed_in_children(self)

    def start(self) -> None:
        """Begin to look; harmless when it has begun."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"settings {self.path.name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more; what is in force stays."""
        self._ended.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._period + 5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check_now(self, seconds_max: float = 5.0) -> bool:
        """Look until the file has come to rest, at most so long: whether what it holds is in force."""
        until, pause = monotonic() + seconds_max, min(self._period, 0.05)
        for _ in range(LOOKS_MAX):
            if self._look() or monotonic() >= until:
                break
            self._ended.wait(pause)
        return not self.problem

    def _run(self) -> None:
        while not self._ended.wait(self._period):
            try:
                self._look()
            except Exception:
                logger.exception("looking at %s failed; it goes on", self.path)

    def _look(self) -> bool:
        """One look; whether the file is at rest: as it was when it was applied or refused.

        Where a link leads elsewhere now, the file was put there whole, and is believed at once when it can be parsed. Any
        other change is believed when two looks find the same, also in its bytes: a half of a document may well be a
        document too, with half of the settings.
        """
        with self._checking:
            try:
                mark = _mark(self.path)
                if self._settled is not None and mark == self._settled.mark:
                    return True
                look = _Look(mark, _content(mark.place))
            except (OSError, ValueError) as error:
                self._settled = self._seen = None
                self._refuse(f"{self.path} cannot be read: {error}")
                return True
            before, self._seen = self._seen, look
            if look == before or (before is not None and before.mark.place != mark.place):
                return self._take(look, sure=look == before)
            return False

    def _take(self, look: _Look, *, sure: bool) -> bool:
        try:
            changed = self.live.apply(parse(look.content, self.path.name), str(self.path))
        except Unreadable as error:
            if not sure:
                return False
            self._refuse(str(error))
        except SettingsError as error:
            if error.source != str(self.path):  # not refused by `live`, which tells its own
                self.live.refuse(str(error), str(self.path))
            self.problem = str(error)
            logger.error("%s", error)  # noqa: TRY400 - the message is all; where it was raised is of no interest
        else:
            self.problem = ""
            if changed:
                logger.info("%s is in force: %s", self.path, ", ".join(changed))
        self._settled = look
        return True

    def _refuse(self, why: str) -> None:
        """Tell it once for as long as it is so."""
        if why != self.problem:
            self.problem = why
            logger.error("%s; the settings in force stay", why)
            self.live.refuse(why, str(self.path))

    def renew_locks(self) -> None:
        """In a child: the lock may be held, and the thread is gone."""
        self._checking = threading.Lock()
        ended, self._ended = self._ended.is_set(), threading.Event()
        if ended:
            self._ended.set()
        elif self._thread is not None:
            self._thread = None
            self.start()


def _mark(path: Path) -> _Mark:
    place = path.resolve()
    found = place.stat()
    return _Mark(str(place), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _content(place: str) -> bytes:
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe there does not hold it up
    with os.fdopen(descriptor, "rb") as file:
        return file.read(BYTES_MAX + 1)
