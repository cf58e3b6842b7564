"""Hears a run and tells it on: the engine's side never waits, everything slow is on the other side of a bounded queue."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from squall.errors import InputError
from squall.events import FaultEnded, FaultHits, RunStarted, Stamped
from squall.telemetry.figures import Figures
from squall.telemetry.lines import line_of
from squall.telemetry.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from squall.probes.samples import Sample
    from squall.telemetry.otlp import Exporter
    from squall.telemetry.page import Page
    from squall.telemetry.spans import Span
    from squall.telemetry.wanted import Wanted

__all__ = ["Telling"]

WAITING_MOST = 10_000
"""Events and batches of samples that have not been told yet: minutes of a usual run."""
END_S = 2.0
"""What the end of a run waits for collectors, disks and readers in all; a scraper may be given longer (`hold_s`)."""
_WAKE_S = 0.05


class Telling:
    """Everything that was asked for, for one run: give `hear` and `take` to it, and leave when it has ended.

    Args:
        asked: What to tell to whom.
        say: Tells a person, once, where the page is and what could not be told.

    Raises InputError where the page cannot be served or the file of lines cannot be opened.
    """

    def __init__(self, asked: Wanted, say: Callable[[str], None]) -> None:
        self._asked, self._say = asked, say
        self._figures, self._spans = Figures(), Spans()
        self._waiting: deque[Stamped | list[Sample]] = deque()
        self._dropped = 0
        self._experiment = ""
        self._ending = threading.Event()
        self._broken = ""
        self._lines_fd = _opened(asked.lines)
        self._page: Page | None = None
        self._exporter: Exporter | None = None
        try:
            self._listen()
        except InputError:
            self._close_lines()
            raise
        self._thread = threading.Thread(target=self._work, name="squall-telemetry", daemon=True)

    def _listen(self) -> None:
        asked, numbers = self._asked, self._figures.numbers
        if asked.listen is not None:
            from squall.telemetry.page import Page

            self._page = Page(*asked.listen, numbers)
            self._say(f"metrics at http://{self._page.address}/metrics")
        if asked.otlp or asked.from_environment:
            from squall.telemetry.otlp import Exporter

            self._exporter = Exporter(asked.otlp, numbers, traces=asked.traces, metrics=asked.metrics)

    @property
    def address(self) -> str:
        """Where the page is, HOST:PORT; empty where there is none."""
        return self._page.address if self._page is not None else ""

    def __enter__(self) -> Self:
        for remark in self._asked.remarks:
            self._say(remark)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the run's side

    def hear(self, stamped: Stamped) -> None:
        """Take in one event; never waits, never raises."""
        self._put(stamped)

    def take(self, samples: list[Sample]) -> None:
        """Take in a batch of samples; never waits, never raises."""
        self._put(samples)

    def _put(self, one: Stamped | list[Sample]) -> None:
        if len(self._waiting) >= WAITING_MOST:
            self._dropped += 1
        else:
            self._waiting.append(one)

    # --- the other side

    def _work(self) -> None:
        while not (self._ending.is_set() and not self._waiting):
            if not self._waiting:
                self._ending.wait(_WAKE_S)
                continue
            one = self._waiting.popleft()
            try:
                self._tell(one) if isinstance(one, Stamped) else self._tell_samples(one)
            except Exception as error:  # noqa: BLE001 - what is told wrongly must not end what is told rightly
                self._broken = self._broken or f"{type(error).__name__}: {error}"

    def _tell(self, stamped: Stamped) -> None:
        if isinstance(stamped.event, RunStarted):
            self._experiment = stamped.event.name
        self._figures.hear(stamped)
        before = self._span_of(stamped)
        self._export(self._spans.hear(stamped))
        if self._lines_fd >= 0:
            span_id = before if isinstance(stamped.event, FaultEnded) else self._span_of(stamped) or before
            line = line_of(stamped, self._experiment, self._spans.trace_id, span_id)
            if line is not None:
                self._write(line.encode("utf-8", "replace") + b"\n")
        if isinstance(stamped.event, FaultHits):
            self._count_what_was_lost()

    def _span_of(self, stamped: Stamped) -> str:
        fault = getattr(stamped.event, "fault", "")
        return self._spans.of_fault(fault) if fault else self._spans.current

    def _tell_samples(self, samples: list[Sample]) -> None:
        self._figures.take(samples)
        self._export(self._spans.take(samples))

    def _export(self, spans: Iterable[Span]) -> None:
        for span in spans:
            if self._exporter is not None:
                self._exporter.add(span)

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._lines_fd, line) :]
        except OSError as error:
            self._broken = self._broken or f"log lines cannot be written to {self._asked.lines}: {error.strerror}"
            self._close_lines()

    def _close_lines(self) -> None:
        fd, self._lines_fd = self._lines_fd, -1
        if fd > 2:  # noqa: PLR2004 - standard error stays open
            with suppress(OSError):
                os.close(fd)

    def _count_what_was_lost(self) -> None:
        numbers = self._figures.numbers
        for what, lost in (
            ("events", self._dropped),
            ("spans", self._exporter.dropped if self._exporter is not None else 0),
            ("series", numbers.left_out),
        ):
            if lost:
                numbers.set("squall_telemetry_dropped_total", (what,), lost)

    # --- the end

    def close(self) -> None:
        """Tell what is left, within END_S (and `hold_s` for a scraper); say once what could not be told. Idempotent."""
        if self._ending.is_set():
            return
        began = time.monotonic()
        self._ending.set()
        self._thread.join(END_S / 2)
        stuck = self._thread.is_alive()
        if not stuck:
            self._export(self._spans.end(time.time_ns(), "the run ended early"))
            self._count_what_was_lost()
            self._close_lines()
        if self._exporter is not None:
            self._exporter.close(began + END_S)
        if self._page is not None:
            self._page.close(began + self._asked.hold_s)
        for line in self._complaints(stuck=stuck):
            self._say(line)

    def _complaints(self, *, stuck: bool) -> list[str]:
        found = [self._broken] if self._broken else []
        if stuck and not self._broken:
            where = self._asked.lines or "its readers"
            found.append(f"telemetry is incomplete: {where} did not take {len(self._waiting) + 1} entries in time")
        if self._dropped:
            found.append(f"telemetry is incomplete: there was no room for {self._dropped} entries")
        if self._exporter is not None and self._exporter.trouble:
            lost = f"; {self._exporter.dropped} spans were not sent" if self._exporter.dropped else ""
            found.append(f"telemetry is incomplete: {self._exporter.trouble}{lost}")
        return found


def _opened(lines: str | None) -> int:
    if lines is None:
        return -1
    if lines == "-":
        return sys.stderr.fileno()
    try:
        fd = os.open(
            lines, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600
        )  # a pipe may wait
        os.set_blocking(fd, True)
    except OSError as error:
        raise InputError(f"--log-json {lines} cannot be opened: {error.strerror}") from error
    return fd
