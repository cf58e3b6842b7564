"""The open-loop load, seen from the engine: starts the load's own process, takes in its samples, stops it.

How it sends is in `generator`, what is said over the pipes in `load_order`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from squall.errors import InputError, SquallError
from squall.kernel import launch
from squall.probes.call import prepare
from squall.probes.child import Child
from squall.probes.lateness import LoadReport
from squall.probes.load_order import BEGUN, FRAME, FRAME_BYTES_MOST, REFUSED, REPORT, SAMPLES, Order
from squall.probes.samples import OUTCOMES, RECORD, Sample
from squall.probes.traceparent import unless_given
from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from squall.probes.spec import Load
    from squall.probes.traceparent import Marks

__all__ = ["LoadProcess", "LoadReport"]

BEGIN_SECONDS_MOST = 15.0
"""For the process to start and the host to be looked up."""
_READ_BYTES = 1 << 20
DRAIN = Duration.parse("1s")


@dataclass(slots=True)
class _Running:
    """The process while there is one."""

    child: Child
    stdin: IO[bytes]
    stdout_fd: int
    begun: asyncio.Future[None]
    closed: asyncio.Future[None]
    """Its output is over."""


class LoadProcess:
    """Requests at their intended times, from a process of its own that ends with its owner.

    Args:
        load: What is sent, and how often.
        seed: Decides where in its period the first request falls.
        on_samples: Called in the event loop with each batch, about every 50 ms; an exception from it stops the load and is raised
            by `stop`.
        name: The series of the samples.
        marks: What each request takes along of the run's trace, unless the document sets a `traceparent` of its own.
        drain: How long `stop` waits for answers that are still due; what has not come by then is `report.abandoned`.

    Raises InputError for a request that cannot be sent (address, header, missing secret).
    """

    def __init__(
        self,
        load: Load,
        *,
        seed: int,
        on_samples: Callable[[list[Sample]], None],
        name: str = "load",
        marks: Marks | None = None,
        drain: Duration = DRAIN,
    ) -> None:
        steps = [(float(step.rate), step.ramp.seconds, step.hold.seconds) for step in load.profile]
        if load.rate is not None:
            steps = [(float(load.rate), 0.0, 0.0)]
        self._order = Order(
            call=prepare(load.http, where=name, close=False), steps=steps, phase=random.Random(seed).random(),  # noqa: S311 - replayed from the seed
            timeout_ns=int(load.http.timeout), connections=load.connections, drain_ns=int(drain),
            marks=unless_given(marks, load.http.headers),
        )  # fmt: skip
        self._name, self._on_samples, self._drain = name, on_samples, drain
        self._running: _Running | None = None
        self._input = bytearray()
        self._report = LoadReport()
        self._trouble = ""
        self._error: Exception | None = None
        self._stopping = False

    def series(self) -> tuple[str, ...]:
        """The names of its series."""
        return (self._name,)

    @property
    def report(self) -> LoadReport:
        """The counts so far, at most about 300 ms old."""
        return self._report

    @property
    def behind(self) -> str:
        """Why the load did not do what was asked of it (so that no verdict can be a pass), or nothing."""
        return self._trouble or self._report.behind

    @property
    def pid(self) -> int | None:
        """The load's process, while there is one."""
        return self._running.child.pid if self._running is not None else None

    async def start(self) -> None:
        """Start sending; return when the first request is due.

        Raises InputError where the host cannot be found, SquallError where the process does not begin.
        """
        running = self._running = self._launch()
        try:
            async with asyncio.timeout(BEGIN_SECONDS_MOST):
                await asyncio.to_thread(_write, running.stdin, self._order.encode())
                await running.begun
        except TimeoutError:
            self._end()
            raise SquallError(f"{self._name}: the load did not begin within {BEGIN_SECONDS_MOST:g} s") from None
        except BaseException:
            self._end()
            raise

    async def stop(self) -> LoadReport:
        """Send nothing more, wait (`drain`) for what is due, end the process; the last report. Idempotent."""
        running = self._running
        if running is not None:
            self._stopping = True
            try:
                _write(running.stdin, b"stop\n")
                async with asyncio.timeout(self._drain.seconds + 2.0):
                    await running.closed
                await running.child.wait(1.0)
            except TimeoutError:
                self._trouble = self._trouble or "the load's process did not stop when told to, and was killed"
            finally:
                self._end()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._report

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- the pipes

    def _launch(self) -> _Running:
        child = Child.start(
            launch.command("squall.probes.load_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        stdin, stdout = child.process.stdin, child.process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("both were asked for")
        loop = asyncio.get_running_loop()
        running = _Running(child, stdin, stdout.fileno(), loop.create_future(), loop.create_future())
        os.set_blocking(running.stdout_fd, False)
        loop.add_reader(running.stdout_fd, self._readable, running)
        return running

    def _end(self) -> None:
        """Kill the process if it is still there, reap it, forget it."""
        running, self._running = self._running, None
        if running is not None:
            asyncio.get_running_loop().remove_reader(running.stdout_fd)
            running.child.finish()

    def _readable(self, running: _Running) -> None:
        """Take in what has come; nothing may escape from here but into `stop`."""
        try:
            data = os.read(running.stdout_fd, _READ_BYTES)
            self._input += data
            self._take_frames(running)
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - the reader's own (a full disk) or a broken frame: raised by stop()
            self._error, data = error, b""
            self._trouble = self._trouble or f"its samples could not be taken in: {error}"
        if not data:
            asyncio.get_running_loop().remove_reader(running.stdout_fd)
            self._over(running)

    def _over(self, running: _Running) -> None:
        """Its output has ended."""
        if not self._stopping and not self._trouble:
            self._trouble = "the load's process ended before it was stopped"
        if not running.begun.done():
            error, self._error = self._error, None
            running.begun.set_exception(error or SquallError(f"{self._name}: {self._trouble}"))
        if not running.closed.done():
            running.closed.set_result(None)

    def _take_frames(self, running: _Running) -> None:
        while len(self._input) >= FRAME.size:
            kind, length = FRAME.unpack_from(self._input)
            if length > FRAME_BYTES_MOST:
                raise SquallError(f"{self._name}: the load's process wrote a frame of {length} bytes")
            if len(self._input) < FRAME.size + length:
                return
            data = bytes(self._input[FRAME.size : FRAME.size + length])
            del self._input[: FRAME.size + length]
            self._take(running, kind, data)

    def _take(self, running: _Running, kind: int, data: bytes) -> None:
        if kind == SAMPLES:
            name = self._name
            samples = [
                Sample(name, time, took, OUTCOMES[code], value, detail)
                for time, took, value, _, code, detail in RECORD.iter_unpack(data)
            ]
            marks = self._order.marks
            if marks is not None:
                samples = [one._replace(span=marks.span(one.time_ns)) if one.latency_ns else one for one in samples]
            self._on_samples(samples)
        elif kind == REPORT:
            counts = json.loads(data)
            self._report = LoadReport(**{**counts, "waiting": tuple(counts["waiting"])})
        elif kind == BEGUN and not running.begun.done():
            running.begun.set_result(None)
        elif kind == REFUSED:
            raise InputError(f"{self._name}: {data.decode(errors='replace')}")


def _write(stdin: IO[bytes], data: bytes) -> None:
    """Write all; what came of a process that has ended is told by its output's end."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        while data:
            data = data[stdin.write(data) :]
