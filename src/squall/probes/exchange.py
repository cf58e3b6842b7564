"""One HTTP exchange on a connection of its own, for the probes that ask now and then; the load has its own loop."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.probes.names import Names
from squall.probes.outcomes import of_failure
from squall.probes.traceparent import marked
from squall.probes.wire import Answer, Malformed

if TYPE_CHECKING:
    import ssl

    from squall.probes.samples import Outcome
    from squall.probes.wire import Call

__all__ = ["Exchange", "Unanswered", "asked", "open_socket"]

_READ_BYTES = 65_536


async def open_socket(names: Names) -> socket.socket:
    """A connected non-blocking socket to the first address that accepts; the last one's error where none does."""
    loop = asyncio.get_running_loop()
    failure: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    for family, address in await names.look_up():
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


class Exchange:
    """Sends the same request again and again, each on a new connection, so that each answer also tells of connecting."""

    def __init__(self, call: Call, *, body_most: int = 0) -> None:
        self._call, self._body_most = call, body_most
        self._names = Names(call.host, call.port)
        self._context: ssl.SSLContext | None = None
        if call.tls:
            import ssl

            self._context = ssl.create_default_context()

    async def run(self, header: bytes = b"") -> Answer:
        """One answer, whole; `header` is one more header line of the request.

        Raises OSError (TimeoutError and ssl errors among them) or wire.Malformed; has no bound of its own.
        """
        sock = await open_socket(self._names)
        try:
            if self._context is not None:
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=self._context, server_hostname=self._call.host
                )
            else:
                reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        answer = Answer(head=self._call.head, body_most=self._body_most)
        try:
            writer.write(marked(self._call.data, header) if header else self._call.data)
            while not answer.done:
                data = await reader.read(_READ_BYTES)
                if data:
                    answer.feed(data)
                else:
                    answer.end()
        finally:
            writer.transport.abort()  # an orderly goodbye would wait for a service that may be stopped
        return answer


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a look got no answer: as a sample has it, and for people."""

    outcome: Outcome
    detail: int
    reason: str


async def asked(exchange: Exchange, seconds: float) -> Answer | Unanswered:
    """One answer within so many seconds; what the network does instead is told, never raised."""
    try:
        async with asyncio.timeout(seconds):
            return await exchange.run()
    except (OSError, Malformed) as error:
        outcome, detail = of_failure(error)
        return Unanswered(outcome, detail, str(error) or f"no answer within {seconds:g} s")
