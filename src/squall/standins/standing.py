"""Starting and ending a stand-in: as a context manager in a test, or until a signal for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from squall.errors import InputError
from squall.standins.report import Call, Report, StandInMismatch
from squall.standins.script import Script, parse_script, read_script
from squall.standins.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = ["ScriptLike", "StandIn", "serve", "standin"]

ScriptLike = Script | Path | str | Mapping[str, Any] | Sequence[Any]
"""A script, the path of one, or what one would hold as plain Python values."""

START_SECONDS_MAX = 10.0
PORT_MAX = 65_535


class StandIn:
    """A stand-in that serves in a thread of its own between `start` and `stop`; as a context manager it also checks.

    Leaving the context raises StandInMismatch when calls were unexpected or expectations unused, unless an exception
    is under way already.
    """

    def __init__(self, script: ScriptLike, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = Server(_script(script))
        self._where = host, port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end: "http://127.0.0.1:38211"."""
        if not self._url:
            raise InputError("a stand-in has no address before it is started: use it as a context manager")
        return self._url

    @property
    def report(self) -> Report:
        """What was seen so far, and what of it was not as expected."""
        return self._server.report()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call so far (the first 10,000), in the order they came in."""
        return self.report.calls

    def check(self) -> None:
        """Raise StandInMismatch unless every call was expected and every expectation was met."""
        report = self.report
        if not report.ok:
            raise StandInMismatch(report)

    def start(self) -> None:
        """Bind and serve; InputError when the address cannot be had."""
        bound = _bound(*self._where)
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(bound, ready), name="squall-standin", daemon=True)
        self._thread.start()
        ready.result(START_SECONDS_MAX)
        self._url = _url(bound)

    def _run(self, bound: socket.socket, ready: Future[None]) -> None:
        async def main() -> None:
            self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
            try:
                await self._server.start(bound)
            except BaseException as error:
                ready.set_exception(error)
                raise
            ready.set_result(None)
            await self._ended.wait()
            await self._server.stop()

        asyncio.run(main())

    def stop(self) -> None:
        """Close the port and every connection; does nothing when that is done."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.check()


@contextlib.contextmanager
def standin(script: ScriptLike, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[StandIn]:
    """Serve a script for the length of a `with` block, then check it.

    Raises DocumentError for a wrong script, InputError for an address that cannot be had, and at the end
    StandInMismatch (an AssertionError) for calls that were unexpected or expectations that were unused.
    """
    with StandIn(script, host=host, port=port) as running:
        yield running


def serve(
    script: ScriptLike,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ready: Callable[[str], None] | None = None,
    watch: Callable[[Call], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Serve a script until SIGINT, SIGTERM or `stop`, then return the report.

    `ready` is told the URL once it answers, `watch` every call as it comes in. Signals are only taken in the main
    thread. Raises DocumentError for a wrong script and InputError for an address that cannot be had.
    """
    server = Server(_script(script), watch)
    bound = _bound(host, port)

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, ended.set)
        await server.start(bound)
        if ready is not None:
            ready(_url(bound))
        while not ended.is_set() and not (stop is not None and stop.is_set()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), None if stop is None else 0.1)
        await server.stop()

    asyncio.run(main())
    return server.report()


def _script(script: ScriptLike) -> Script:
    if isinstance(script, Script):
        return script
    if isinstance(script, (str, Path)):
        return read_script(Path(script))
    return parse_script(script)


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port <= PORT_MAX:
        raise InputError(f"{port} is no port: 0 (any free one) to {PORT_MAX} is allowed")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}:{port} is no address to serve on: {error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)  # now, for only this is sure to find the port taken
    except OSError as error:
        bound.close()
        raise InputError(f"cannot serve on {host}:{port}: {error}; choose another port, 0 is any free one") from None
    return bound


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
