"""The socket in a run's folder through which others look at the run, change it and stop it: one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from squall.errors import CannotInject, InputError, SquallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from squall.recovery import RunFolder, State

__all__ = ["Control", "ask", "running"]

_LINE_MOST = 1 << 20
_PATIENCE_S = 5.0

if TYPE_CHECKING:
    Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def _reachable(path: Path) -> tuple[int, str]:
    """A descriptor of the folder and a path through it: a socket's path is at most 107 bytes long, a folder's is not."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return folder, f"/proc/self/fd/{folder}/{path.name}"


class Control:
    """Serves one run. The handler answers each request with an object; a SquallError becomes `{"error": ...}`."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path, self._handler = path, handler
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, for this user only."""
        listener = socket.socket(socket.AF_UNIX)
        folder, path = _reachable(self._path)
        try:
            listener.bind(path)
            self._path.chmod(0o600)
        finally:
            os.close(folder)
        listener.setblocking(False)
        listener.listen(16)
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=_LINE_MOST)

    async def stop(self) -> None:
        """Listen no more; the socket is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        with contextlib.suppress(OSError):  # gone already, or on a disk that became read-only
            self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    answer = await self._handler(json.loads(line))
                except (ValueError, TypeError, AttributeError) as error:
                    answer = {"error": f"not a request: {error}"}
                except SquallError as error:
                    answer = {"error": str(error), "exit_status": error.exit_status}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # ValueError: a line longer than any request
            pass
        finally:
            writer.close()


def ask(run: RunFolder, request: dict[str, Any], patience_s: float = _PATIENCE_S) -> dict[str, Any]:
    """Ask a run that is on; CannotInject when nobody answers or it refuses, InputError for what it cannot make sense of."""
    if not run.control.exists():
        raise InputError(f"run {run.id} is not on: it has ended")
    folder, path = _reachable(run.control)
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(patience_s)
            link.connect(path)
            link.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                chunk = link.recv(65536)
                if not chunk:
                    raise CannotInject(f"run {run.id} ended before it answered")
                data += chunk
    except OSError as error:
        raise CannotInject(f"run {run.id} does not answer: {error.strerror or error}") from error
    finally:
        os.close(folder)
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        wrong = InputError if answer.get("exit_status") == InputError.exit_status else CannotInject
        raise wrong(f"run {run.id}: {answer['error']}")
    return answer


def running(state: State) -> list[RunFolder]:
    """The runs that are on now, oldest first: those that answer."""
    found = []
    for run in state.open_runs():
        try:
            ask(run, {"op": "ping"}, patience_s=1.0)
        except (CannotInject, InputError, FileNotFoundError):
            continue
        found.append(run)
    return found
