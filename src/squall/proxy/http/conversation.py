"""HTTP/1.1 on one connection: which answer belongs to which request, and which rules hit them.

Both directions are followed from the connection's first byte. A stream that turns out not to be HTTP/1.x, or becomes
something else (an upgrade, CONNECT), is let go: it passes as plain TCP from there on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from squall.proxy.http.chooser import Chooser
from squall.proxy.http.edits import answer_of
from squall.proxy.http.heads import (
    NotHttp,
    RequestHead,
    read_request,
    read_response,
    request_may_begin,
    with_fields,
)
from squall.proxy.http.rules import AbortRule, DelayRule, PatchRule, ReplaceRule, Rule
from squall.proxy.http.side import Message, Side
from squall.proxy.http2.frames import HEAD_BYTES, PREFACE, is_settings

if TYPE_CHECKING:
    from squall.proxy.connection import Connection
    from squall.proxy.flow import Flow
    from squall.proxy.loop import Timer
    from squall.proxy.toxics import Toxic

__all__ = ["Conversation", "Reason"]

Reason = Literal["not_http", "tls", "upgraded"]

_PENDING_MOST = 256
_FIRST_LINE_S = 0.2
"""A first line that is not whole by then is not HTTP: a client of another protocol may be waiting for its answer."""
_TLS_HANDSHAKE = 0x16
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Exchange:
    """A request and what is known of its answer."""

    head: RequestHead
    rules: list[tuple[Toxic, Rule]] = field(default_factory=list)
    """What hits the response."""
    asked: bool = False
    """The client has been, or is about to be, asked for the body by the proxy."""
    prelude: bytes = b""
    """To be sent to the client as soon as all answers before are."""
    answer: bytes | None = None
    """The proxy's own answer, once it may be sent."""
    close: bool = False
    """Close the connection after that."""


class Conversation:
    """The exchanges under way on one connection, oldest first."""

    def __init__(self, connection: Connection, up: Flow, down: Flow) -> None:
        most = connection.proxy.plane.options.http_body_bytes
        self.connection = connection
        self.proxy = connection.proxy
        self.pending: deque[Exchange] = deque()
        self.requests = RequestSide(self, up, most)
        self.responses = ResponseSide(self, down, most)
        self.gone = self.closing = False
        self.rules = Chooser(self.proxy, up, down)

    # Rules

    def retime(self, toxic: Toxic, *, removed: bool) -> None:
        """A toxic was changed or removed: what it holds follows at once."""
        rule = toxic.attributes
        delay_ns = self.rules.delay_ns(toxic, rule) if isinstance(rule, DelayRule) and not removed else None
        for side in (self.requests, self.responses):
            side.changed(toxic, delay_ns)

    # Answers in order

    def emit_ready(self) -> None:
        """Send the proxy's own answers that are next in turn."""
        while self.pending and self.responses.at_boundary() and not self.closing:
            first = self.pending[0]
            if first.prelude:
                prelude, first.prelude = first.prelude, b""
                self.responses.inject(prelude)
            if first.answer is None:
                return
            self.pending.popleft()
            self.responses.inject(first.answer)
            if first.close:
                self.closing = True
                self.responses.flow.close_after(self.responses)

    # Ends

    def speak_http2(self) -> None:
        """One side began as in HTTP/2: it is followed as that, from the bytes in hand on."""
        self.gone = True
        held = [(side, side.take_all()) for side in (self.requests, self.responses)]
        self.connection.speak_http2([data for _, data in held])

    def give_up(self, reason: Reason) -> None:
        """Stop following this connection; if it is in the middle of something replaced, it cannot go on and is closed."""
        if self.gone:
            return
        self.gone = True
        self.proxy.http[reason] += 1
        self.connection.let_go_for = reason
        if reason != "upgraded":
            for toxic in self.proxy.toxics:
                self.connection.count_unfollowed(toxic)
        if any(exchange.answer is not None for exchange in self.pending) or not self._may_let_go():
            self.connection.close()
            return
        for side in (self.requests, self.responses):
            side.let_go()
        self.connection.forget_conversation()

    def dismantle(self) -> None:
        """Let go of both sides, so that they are freed at once."""
        del self.requests, self.responses
        self.pending.clear()

    def _may_let_go(self) -> bool:
        return self.requests.can_let_go() and self.responses.can_let_go()


class RequestSide(Side):
    """Requests on their way to the service."""

    def __init__(self, talk: Conversation, flow: Flow, body_most: int) -> None:
        super().__init__(talk, flow, body_most)
        self._exchange: Exchange | None = None
        self._abort: AbortRule | None = None
        self._seen = False
        self._deadline: Timer | None = None

    def ready(self) -> bool:
        if not self._seen and PREFACE.startswith(self._data[: len(PREFACE)]):
            if len(self._data) >= len(PREFACE):
                self.talk.speak_http2()
            else:
                self._wait_for_a_line()
            return False
        return self._message is not None or len(self.talk.pending) < _PENDING_MOST

    def check_beginning(self, data: bytes) -> None:
        if not self._seen and data[0] == _TLS_HANDSHAKE and data[1:2] in (b"", b"\x03"):
            self.talk.give_up("tls")
            return
        if not request_may_begin(data):
            raise NotHttp
        if not self._seen and b"\r\n" not in data:
            self._wait_for_a_line()

    def _wait_for_a_line(self) -> None:
        if self._deadline is None:
            self._deadline = self.flow.loop.call_later(_FIRST_LINE_S, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._seen and not self.talk.gone and b"\r\n" not in self._data:
            self.talk.give_up("not_http")

    def close(self) -> None:
        super().close()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def begin(self, raw: bytes) -> None:
        if raw.startswith(b"\r\n"):  # an empty line between requests
            self.take(2)
            self.pass_on(b"\r\n")
            return
        if not self._seen:
            self.check_beginning(raw)
            if self.talk.gone:
                return
        head = read_request(raw)
        self.take(len(raw))
        self._seen = True
        self.talk.proxy.http["messages"] += 1
        chosen = self.talk.rules.chosen(head)
        exchange = Exchange(
            head, [item for item in chosen if item[0].stream == "downstream" and not isinstance(item[1], AbortRule)]
        )
        self.talk.pending.append(exchange)
        self._exchange, self._abort = exchange, None
        message = Message(raw, head, head.framing(), head.method, self._stamp_ns)
        for toxic, rule in chosen:
            if isinstance(rule, AbortRule):
                self._abort = rule
                self.talk.rules.hit(toxic, len(raw))
                message.edits = []
                break
            if toxic.stream == "upstream":
                self.talk.rules.hit(toxic, len(raw))
                _plan(message, self.talk, toxic, rule)
        self.start(message)

    def _act(self, message: Message) -> None:
        if self._abort is None:
            super()._act(message)
            return
        exchange, head = self._exchange, message.head
        if exchange is not None and message.framing.kind != "none" and b"100-continue" in head.tokens(b"expect"):
            # the client may send its body or not: only a closed connection is clear to both
            self._answer(exchange, self._abort, close=True)
        self.swallow(message)

    def _answer(self, exchange: Exchange, rule: AbortRule, *, close: bool) -> None:
        exchange.close = close or not exchange.head.keeps_alive()
        exchange.answer = answer_of(rule, method=exchange.head.method, close=exchange.close)
        self.talk.emit_ready()

    def over(self, message: Message) -> None:
        del message
        exchange, rule = self._exchange, self._abort
        self._exchange = self._abort = None
        if rule is not None and exchange is not None and exchange.answer is None and not self.talk.closing:
            self._answer(exchange, rule, close=False)

    def answer_expectation(self, message: Message) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.asked and b"100-continue" in message.head.tokens(b"expect"):
            exchange.asked, exchange.prelude = True, _CONTINUE
            self.talk.emit_ready()

    def without_expectation(self, head: Any) -> Any:
        return replace(head, fields=with_fields(head.fields, {b"Expect": None}))

    def at_end(self, message: Message | None) -> None:
        if message is not None and self._abort is not None:
            self.over(message)


class ResponseSide(Side):
    """Responses on their way to the client."""

    def __init__(self, talk: Conversation, flow: Flow, body_most: int) -> None:
        super().__init__(talk, flow, body_most)
        self._exchange: Exchange | None = None
        self._spoken = False
        self._deadline: Timer | None = None

    def ready(self) -> bool:
        if not self._spoken and not self.talk.pending and is_settings(self._data):
            if len(self._data) >= HEAD_BYTES:
                self.talk.speak_http2()
            elif self._deadline is None:
                self._deadline = self.flow.loop.call_later(_FIRST_LINE_S, self._too_slow)
            return False
        self._spoken = True
        return True

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._spoken and not self.talk.gone:
            self.talk.give_up("not_http")

    def close(self) -> None:
        super().close()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def check_beginning(self, data: bytes) -> None:
        if not self.talk.pending or not b"HTTP/1.".startswith(data[:7]):
            raise NotHttp

    def begin(self, raw: bytes) -> None:
        head = read_response(raw)
        if not self.talk.pending:
            raise NotHttp
        exchange = self.talk.pending[0]
        if head.status == 101 or (exchange.head.method == b"CONNECT" and 200 <= head.status < 300):  # noqa: PLR2004 - statuses
            self.talk.give_up("upgraded")  # from here on, and from the request's end on, it is a stream of bytes
            return
        self.take(len(raw))
        if head.status < 200:  # noqa: PLR2004 - an interim response: the answer is still to come
            self.pass_on(raw)
            return
        self._exchange = exchange
        message = Message(raw, head, head.framing(exchange.head.method), exchange.head.method, self._stamp_ns)
        for toxic, _ in exchange.rules:
            rule = toxic.attributes
            if toxic in self.talk.proxy.toxics and isinstance(rule, Rule):
                self.talk.rules.hit(toxic, len(raw))
                _plan(message, self.talk, toxic, rule)
        self.start(message)

    def over(self, message: Message) -> None:
        del message
        exchange, self._exchange = self._exchange, None
        if exchange is not None and self.talk.pending and self.talk.pending[0] is exchange:
            self.talk.pending.popleft()
        self.talk.emit_ready()
        if not self.talk.closing:
            self.talk.requests.advance()  # it may have waited for room

    def at_end(self, message: Message | None) -> None:
        if message is not None and self._exchange is not None:
            self._message = None
            self.over(message)


def _plan(message: Message, talk: Conversation, toxic: Toxic, rule: Rule) -> None:
    if isinstance(rule, DelayRule):
        message.delays[id(toxic)] = talk.rules.delay_ns(toxic, rule)
    elif isinstance(rule, (ReplaceRule, PatchRule)):
        message.edits.append((toxic, rule))
