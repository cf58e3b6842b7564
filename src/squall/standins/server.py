"""HTTP/1.1 as the script wants it, well formed or not: one task a connection, everything decided in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import h11

from squall.faults.frozen import thaw
from squall.standins.matching import Book, Refusal, Turn
from squall.standins.report import Call, Report, Unexpected, Unused

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.standins.script import Answer, Script

__all__ = ["Server"]

BODY_BYTES_MAX = 1_048_576
BODIES_KEPT_BYTES_MAX = 16 * 1_048_576
CALLS_KEPT_MAX = 10_000
CONNECTIONS_MAX = 4_096
IDLE_SECONDS_MAX = 60.0
READ_BYTES = 65_536
LET_FINISH_SECONDS_MAX = 2.0
QUERY_FIELDS_MAX = 1_000
MALFORMED = b"HTP/1.one OK?\r\n\x00\xff this is not an answer\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close sends a reset."""


class _Over(Exception):  # noqa: N818 - not an error: the script wants it, or the client has left
    """The connection is at its end."""


class Server:
    """Serves a script's answers and records every call; `report` may be asked from any thread."""

    def __init__(self, script: Script, watch: Callable[[Call], None] | None = None) -> None:
        self._script, self._watch = script, watch
        self._book = Book(script)
        self._began = time.monotonic()
        self._lock = Lock()
        self._total = self._unexpected_total = self._kept_bytes = 0
        self._calls: list[Call] = []
        self._unexpected: list[Unexpected] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, bound: socket.socket) -> None:
        """Accept on this bound socket."""
        self._server = await asyncio.start_server(self._connected, sock=bound, limit=READ_BYTES, backlog=1024)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def report(self) -> Report:
        """What was seen so far, and what of it was not as expected."""
        with self._lock:
            met = self._book.met()
            return Report(
                name=self._script.name,
                total=self._total,
                calls=tuple(self._calls),
                unexpected_total=self._unexpected_total,
                unexpected=tuple(self._unexpected),
                unused=tuple(Unused(each.title, each.least, seen) for each, seen in met if seen < each.least),
                met=tuple((each.title, seen) for each, seen in met),
            )

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = _Exchange(reader, writer)
        try:
            while True:
                try:
                    request, body = await exchange.request()
                    call = self._call(request, body)
                except h11.RemoteProtocolError as error:
                    await self._not_http(exchange, error)
                    return
                await self._answer(exchange, call)
                exchange.connection.start_next_cycle()
        except (_Over, h11.LocalProtocolError, OSError, TimeoutError):
            pass  # the connection is at its end: wanted by the script, closed by the client, or not to be kept
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _not_http(self, exchange: _Exchange, error: h11.RemoteProtocolError) -> None:
        status = error.error_status_hint
        call = Call(number=0, at=time.monotonic() - self._began, method="?", path="?", answer=str(status))
        reason = f"it is no request that HTTP/1.1 allows: {error}"
        self._record(call, reason)
        with contextlib.suppress(h11.LocalProtocolError, OSError):
            await exchange.send_json(status, {"error": reason})
            await exchange.let_finish()

    def _call(self, request: h11.Request, body: bytes) -> Call:
        target = request.target.decode("latin-1")
        if "://" in target.partition("?")[0]:  # as a proxy is asked: http://host/path
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        try:
            fields = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError as error:
            raise h11.RemoteProtocolError(f"the query has more than {QUERY_FIELDS_MAX} fields") from error
        return Call(
            number=0,
            at=time.monotonic() - self._began,
            method=request.method.decode("ascii"),
            path=unquote(path),
            query=tuple(fields),
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers),
            body=body,
        )

    async def _answer(self, exchange: _Exchange, call: Call) -> None:
        with self._lock:
            decision = self._book.decide(call)
        if isinstance(decision, Refusal):
            number = self._record(replace(call, answer="501"), decision.reason)
            said: dict[str, object] = {
                "error": f"unexpected call {number}: {call}: {decision.reason}",
                "nearest": decision.nearest,
                "differences": list(decision.differences),
            }
            await exchange.send_json(501, said)
            return
        answer = decision.answer
        number = self._record(
            replace(call, expectation=decision.expectation, answer=answer.failure or str(answer.status))
        )
        try:
            await exchange.play(decision)
        finally:
            if exchange.left_early:
                self._gave_up(number)

    def _record(self, call: Call, reason: str | None = None) -> int:
        """Write a call down; returns its number."""
        with self._lock:
            self._total += 1
            keep = self._kept_bytes + len(call.body) <= BODIES_KEPT_BYTES_MAX
            call = replace(call, number=self._total, body=call.body if keep else b"")
            if len(self._calls) < CALLS_KEPT_MAX:
                self._kept_bytes += len(call.body)
                self._calls.append(call)
            if reason is not None:
                self._unexpected_total += 1
                if len(self._unexpected) < CALLS_KEPT_MAX:
                    self._unexpected.append(Unexpected(call, reason))
        if self._watch is not None:
            self._watch(call)
        return call.number

    def _gave_up(self, number: int) -> None:
        with self._lock:
            if number <= len(self._calls):
                self._calls[number - 1] = replace(self._calls[number - 1], gave_up=True)


class _Exchange:
    """One connection: reads requests, plays answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
        self.left_early = False
        self._reader, self._writer = reader, writer
        self._head_only = False

    async def request(self) -> tuple[h11.Request, bytes]:
        """The next request with its whole body."""
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = self.connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES_MAX:
                    raise h11.RemoteProtocolError(f"a body of more than {BODY_BYTES_MAX} bytes", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                self._head_only = request.method == b"HEAD"
                return request, bytes(body)
            elif event is h11.NEED_DATA:
                await self._read_more()
            else:  # the client has closed, or wants to go on with another protocol
                raise _Over

    async def _read_more(self) -> None:
        if self.connection.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        received = await asyncio.wait_for(self._reader.read(READ_BYTES), IDLE_SECONDS_MAX)
        self.connection.receive_data(received)

    async def let_finish(self) -> None:
        """Read on for a moment, so that a client in the middle of sending sees the answer, not a reset."""
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_FINISH_SECONDS_MAX):
                while await self._reader.read(READ_BYTES):
                    pass

    async def play(self, turn: Turn) -> None:
        """Answer as the script says; _Over when that ends the connection."""
        answer = turn.answer
        if turn.delay:
            await asyncio.sleep(turn.delay.seconds)
        self.left_early = self._client_left()
        if answer.failure == "hang":
            await self._hang()
        elif answer.failure == "close":
            raise _Over
        elif answer.failure == "reset":
            raw: Any = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._writer.transport.abort()
            raise _Over
        elif answer.failure == "malformed":
            self._writer.write(MALFORMED)
            await self._writer.drain()
            raise _Over
        else:
            await self._send_answer(answer)

    def _client_left(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    async def _hang(self) -> None:
        while await self._reader.read(READ_BYTES):
            pass  # what it says meanwhile is not listened to
        self.left_early = True
        raise _Over

    async def _send_answer(self, answer: Answer) -> None:
        body, kind = _encoded(answer)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        if kind and not any(name.lower() == b"content-type" for name, _ in headers):
            headers.append((b"Content-Type", kind))
        if body is not None:
            headers.append((b"Content-Length", str(len(body)).encode()))
        elif answer.status not in (204, 304):
            headers.append((b"Content-Length", b"0"))
        await self._send(h11.Response(status_code=answer.status, headers=headers))
        if body is not None and not self._head_only:
            await self._send_body(answer, body)
        await self._send(h11.EndOfMessage())

    async def _send_body(self, answer: Answer, body: bytes) -> None:
        promised = len(body)
        if answer.failure == "cut":
            body = body[: promised // 2]
        size = int(answer.drip.size) if answer.drip is not None else max(len(body), 1)
        for start in range(0, len(body), size):
            if answer.drip is not None and start:
                await asyncio.sleep(answer.drip.every.seconds)
                if self._client_left():
                    self.left_early = True
                    raise _Over
            await self._send(h11.Data(data=body[start : start + size]))
        if len(body) < promised:
            raise _Over

    async def send_json(self, status: int, value: dict[str, object]) -> None:
        """Answer with this JSON value, outside of the script."""
        body = json.dumps(value).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        await self._send(h11.Response(status_code=status, headers=headers))
        if not self._head_only:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        self._writer.write(self.connection.send(event) or b"")
        await self._writer.drain()


def _encoded(answer: Answer) -> tuple[bytes | None, bytes]:
    """The body's bytes and its content type."""
    if answer.body is None:
        return None, b""
    if isinstance(answer.body, str):
        return answer.body.encode(), b"text/plain; charset=utf-8"
    return json.dumps(thaw(answer.body)).encode(), b"application/json"
