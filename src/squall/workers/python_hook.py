"""Lets a function of a running Python service fail or be late, for as long as it lives: it renews the hook's lease.

What runs in the service is `inside_python`. When this worker is gone, however it ended, every call passes within a
second, and the first one gives the function its own code back; when it ends in order, that is done at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel import proc, python_process
from squall.kernel.own import be_on_time
from squall.workers.holding import LEASE_NS, hold
from squall.workers.latencies import BUCKETS, quantile
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["ALWAYS", "Config", "main", "page_name"]

ALWAYS = 1 << 32
_UNTIL, _SHARE, _MOST, _DELAY, _SEED, _CALLS, _HITS, _STATE, _LONGEST, _DONE = 8, 16, 24, 32, 40, 48, 56, 64, 72, 120
_TEXT, _TEXT_SIZE, _TOOK, _SIZE = 128, 512, 4096, 12288
_ARMED, _RESTORED, _FAILED = 1, 2, 3
_NAMES = ("injected", "handled", "between")
_ARMED_S, _REMOVED_S, _POLL_S, _TABLE_S = 2.5, 0.5, 0.005, 1.0
_ATTEMPTS_LAST = 30
_US = 1000


class Config(NamedTuple):
    """Which function ("module:qualified.name") of which process; what its calls suffer: an exception, or a delay.

    `share` is of 2^32; `most` 0 is no limit. `exception` "" raises none.
    """

    pid: int
    start_ticks: int
    name: str
    token: str
    function: str
    exception: str
    delay_ns: int
    share: int
    most: int
    seed: int


def page_name(token: str) -> str:
    """The name of the memory that a hook shares with its worker, as the service's open files show it."""
    return f"squall-hook-{hashlib.blake2b(token.encode(), digest_size=6).hexdigest()}"


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_on_time()
    try:
        hold(line, _Hooked(Config(**data), line))
    except (OSError, SquallError) as error:
        raise Refused(str(error)) from error


class _Hooked:
    """The hook in one process. Until its main thread has run Python once, there is only what was handed over."""

    def __init__(self, config: Config, line: Lifeline) -> None:
        self._config = config
        self._page: mmap.mmap | None = None
        self._until_ns = self.lapses = 0
        self._removal: python_process.Script | None = None
        self._table: dict[str, int] = {}
        self._table_due = 0.0
        self._where = python_process.interpreter(config.pid)
        self._script = python_process.run(config.pid, config.start_ticks, self._where, self._source())
        try:
            self._wait_until_armed(line)
        except BaseException:
            self.close()
            raise

    def _source(self) -> str:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside_python.py")
        with open(path) as file:
            inside = file.read()
        config = self._config
        module, _, qualified = config.function.partition(":")
        exception = config.exception or "RuntimeError: raised by Squall"
        arguments = (page_name(config.token), module, qualified, exception)
        named = {"raises": bool(config.exception), "words": self._words()}
        return _shielded(f"{inside}\ninstall(*{arguments!r}, **{named!r})\n")

    def _words(self) -> list[tuple[int, int]]:
        config = self._config
        until = time.monotonic_ns() + LEASE_NS + round(_ARMED_S * 1e9)
        return [
            (_UNTIL, until), (_SHARE, _share(config)), (_MOST, config.most), (_DELAY, config.delay_ns),
            (_SEED, config.seed & (1 << 64) - 1),
        ]  # fmt: skip

    def _wait_until_armed(self, line: Lifeline) -> None:
        """Refused when it cannot be; a main thread that waits for events is let wait: it will run Python before any call."""
        deadline = time.monotonic() + _ARMED_S
        while time.monotonic() < deadline:
            self._find_page()
            state = self._get(_STATE) if self._page is not None else 0
            if state == _FAILED and self._page is not None:
                text = self._page[_TEXT : _TEXT + _TEXT_SIZE].rstrip(b"\0").decode(errors="replace")
                raise Refused(f"{self._config.name} (pid {self._config.pid}): {text}")
            if state:
                return
            early = line.wait(_POLL_S)
            if early is not None:
                self.become(early)
        what = python_process.never_runs_python(self._config.pid)
        if what is not None:
            raise Refused(
                f"the main thread of {self._config.name} (pid {self._config.pid}) {what} and runs no Python: only there "
                "can the interpreter be asked"
            )

    def _find_page(self) -> None:
        """Map the page that it shares with the hook, once the hook has made it."""
        if self._page is not None:
            return
        wanted, folder = f"/memfd:{page_name(self._config.token)} ", f"/proc/{self._config.pid}/fd"
        with contextlib.suppress(OSError):
            for number in proc.open_descriptors(self._config.pid):
                path = f"{folder}/{number}"
                with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile, or has no size yet
                    if os.readlink(path).startswith(wanted):
                        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                        try:
                            self._page = mmap.mmap(fd, _SIZE)
                        finally:
                            os.close(fd)
                        return

    def _get(self, at: int) -> int:
        assert self._page is not None  # noqa: S101 - asked by whoever looked
        return int(struct.unpack_from("<Q", self._page, at)[0])

    def _put(self, at: int, value: int) -> None:
        if self._page is not None:
            self._page[at : at + 8] = struct.pack("<Q", value)

    def renew(self) -> None:
        self._find_page()
        now = time.monotonic_ns()
        if self._until_ns and now > self._until_ns:
            self.lapses += 1
        self._until_ns = now + LEASE_NS
        self._put(_UNTIL, self._until_ns)
        self._apply()

    def counts(self) -> Mapping[str, int]:
        if self._page is None:
            return {"waiting": 1, "lapses": self.lapses}
        hits, now = self._get(_HITS), time.monotonic()
        if now >= self._table_due:
            self._table, self._table_due = self._measures(), now + _TABLE_S
        name = "exceptions" if self._config.exception else "delayed"
        return {name: hits, "missed": self._get(_CALLS) - hits, "lapses": self.lapses, **self._table}

    def _measures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        assert self._page is not None  # noqa: S101 - the caller looked
        for number, name in enumerate(_NAMES):
            longest = self._get(_LONGEST + 8 * number)
            if longest:
                counts = struct.unpack_from(f"<{BUCKETS}Q", self._page, _TOOK + 8 * BUCKETS * number)
                for text, share in (("p50", 0.5), ("p99", 0.99)):
                    found[f"{name}_{text}_us"] = round(min(quantile(counts, share), longest) / _US)
                found[f"{name}_max_us"] = round(longest / _US)
        return found

    def become(self, config: Mapping[str, Any]) -> None:
        self._config = Config(**config)
        self._apply()

    def _apply(self) -> None:
        """What is asked of calls, again and again: the page may have come after it was changed."""
        config = self._config
        for at, value in ((_SHARE, _share(config)), (_MOST, config.most), (_DELAY, config.delay_ns)):
            self._put(at, value)

    def close(self) -> None:
        """End the lease, and have the function's own code put back at once where the main thread runs Python."""
        self._put(_UNTIL, 0)
        if self._page is None:
            python_process.withdraw(self._script)
            return
        with contextlib.suppress(OSError, SquallError):
            name = page_name(self._config.token)
            source = f"""
import sys
hook = sys.__dict__.get("_squall_hooks", {{}}).get({name!r})
if hook is not None:
    hook.restore()
for page in sys.__dict__.pop("_squall_failed", []):
    page.put({_DONE}, 1)
if hook is not None:
    hook.page.put({_DONE}, 1)
if not sys.__dict__.get("_squall_hooks", True):
    del sys.__dict__["_squall_hooks"]
"""
            removal = python_process.run(
                self._config.pid, self._config.start_ticks, self._where, _shielded(source), attempts=_ATTEMPTS_LAST
            )
            deadline = time.monotonic() + _REMOVED_S
            while not self._get(_DONE) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if self._get(_DONE):
                time.sleep(_POLL_S)  # it comes back from what it ran
                python_process.give_back(self._script)
                python_process.give_back(removal)


def _shielded(source: str) -> str:
    """A piece of Python that leaves no name behind in __main__, and no exception."""
    return (
        f"try:\n exec({source!r}, {{'__name__': 'squall_inside', '__builtins__': __builtins__}})\n"
        "except BaseException:\n pass\n"
    )


def _share(config: Config) -> int:
    return ALWAYS if config.share == ALWAYS - 1 else config.share
