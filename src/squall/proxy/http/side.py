"""One side of an HTTP conversation: messages of one direction, told apart, held, changed or passed on.

General layout: `Message` (one under way), `Side` (bytes in, whole heads found, bodies followed to their end). What is
particular to requests and to responses is in `conversation`.

A body is followed in one of three ways: `pass` (as it comes), `drop` (it is replaced, or its request aborted) and
`collect` (it is to be patched: held, up to a limit, until it is whole).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from squall.proxy.http.bodies import Body, body_of
from squall.proxy.http.edits import apply_edits, with_length
from squall.proxy.http.heads import HEAD_MOST, Framing, NotHttp, RequestHead, ResponseHead
from squall.proxy.http.rules import PatchRule, ReplaceRule
from squall.proxy.toxics.stage import as_bytes

if TYPE_CHECKING:
    from squall.proxy.flow import Flow
    from squall.proxy.http.conversation import Conversation
    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe
    from squall.proxy.toxics import Inlet, Toxic

__all__ = ["Message", "Side"]

_BODYLESS = (204, 304)


@dataclass(slots=True)
class Message:
    """A message under way: as it came, and what is to be done to it, in the order of the toxics."""

    raw: bytes
    head: RequestHead | ResponseHead
    framing: Framing
    method: bytes
    arrived_ns: int
    edits: list[tuple[Toxic, ReplaceRule | PatchRule]] = field(default_factory=list)
    delays: dict[int, int] = field(default_factory=dict)
    """Nanoseconds by id of the toxic."""
    acted: bool = False
    """Its head has gone on, or will never."""


class Side:
    """Messages in one direction; sits nearest to the client in the chain of its flow."""

    takes_pipes = False
    stamped = True
    next: Inlet

    def __init__(self, talk: Conversation, flow: Flow, body_most: int) -> None:
        self.talk, self.flow = talk, flow
        self.capacity = 2 * HEAD_MOST + body_most
        self._body_most = body_most
        self._data = b""
        self._searched = 0
        self._stamp_ns = 0
        self._backlog: list[bytes] = []
        self._message: Message | None = None
        self._body: Body | None = None
        self._mode: Literal["pass", "drop", "collect"] = "pass"
        self._collected: list[bytes] = []
        self._collected_size = 0
        self._timer: Timer | None = None
        self._ended = self._advancing = False

    # In the chain

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        """Take the next bytes."""
        self._stamp_ns = stamp_ns
        if self._timer is not None:
            self._backlog.append(as_bytes(data))
            return
        self._data = self._data + as_bytes(data) if self._data else as_bytes(data)
        self.advance()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        if self._timer is None:
            self._end_now()

    def close(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._data, self._backlog = b"", []

    def take_all(self) -> bytes:
        """What is in hand, not to be followed here any more."""
        data = self._data
        self.close()
        return data

    def at_boundary(self) -> bool:
        """Whether all that went on so far is whole messages."""
        return self._message is None

    def pass_on(self, data: bytes) -> None:
        """Bytes that came go on."""
        if data:
            self.next.feed(data, self._stamp_ns)

    def inject(self, data: bytes) -> None:
        """Bytes of ours go on."""
        if data:
            self.flow.taken(len(data))
            self.next.feed(data, time.monotonic_ns())

    # Finding messages

    def advance(self) -> None:
        """Go as far as the bytes in hand allow."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._data and self._timer is None and not self.talk.gone and self.ready():
                if self._message is None:
                    if not self._take_head():
                        return
                else:
                    self._take_body(self._message)
        except NotHttp:
            self.talk.give_up("not_http")
        finally:
            self._advancing = False

    def ready(self) -> bool:
        """Whether a further message may be begun."""
        return True

    def _take_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._data)
            self.check_beginning(self._data)
            if len(self._data) > HEAD_MOST:
                raise NotHttp
            return False
        self._searched = 0
        raw = self._data[: end + 4]
        self.begin(raw)
        return True

    def check_beginning(self, data: bytes) -> None:
        """Raise NotHttp when no head can begin like this: other protocols must not wait for an empty line."""
        raise NotImplementedError

    def begin(self, raw: bytes) -> None:
        """A whole head is in hand, still in `_data`; call `take` and then `start`, or pass it on."""
        raise NotImplementedError

    def take(self, size: int) -> None:
        """These bytes of `_data` are dealt with."""
        self._data = self._data[size:]

    def start(self, message: Message) -> None:
        """Hold a message for its delays, then act on it."""
        self._message = message
        if message.delays:
            self._hold(message)
        else:
            self._act(message)

    def _hold(self, message: Message) -> None:
        due_ns = message.arrived_ns + sum(message.delays.values())
        self._timer = self.flow.loop.call_at(due_ns, self._due, precise=True)

    def _due(self) -> None:
        self._timer = None
        if self._message is not None:
            self._act(self._message)
        self._data += b"".join(self._backlog)
        self._backlog.clear()
        self.advance()
        if self._ended and not self._is_held() and not self.talk.gone:
            self._end_now()

    def _is_held(self) -> bool:
        return self._timer is not None

    def changed(self, toxic: Toxic, delay_ns: int | None) -> None:
        """A delaying toxic was changed (its new delay) or removed (None): a message that it holds follows."""
        message = self._message
        if message is None or self._timer is None or id(toxic) not in message.delays:
            return
        message.delays[id(toxic)] = delay_ns or 0
        self._timer.cancel()
        self._hold(message)

    # Acting on one

    def _act(self, message: Message) -> None:
        message.acted = True
        self._body = body_of(message.framing)
        if not message.edits:
            self._mode = "pass"
            self.pass_on(message.raw)
        elif any(isinstance(rule, PatchRule) and rule.body is not None for _, rule in message.edits):
            self._mode = "collect"
            message.acted = False
            self._body.collect()
            self.answer_expectation(message)
        else:
            self._rewrite(message, None)
        if self._body.done:
            self._body_over(message)

    def swallow(self, message: Message) -> None:
        """Neither this message nor its body goes on."""
        message.acted = True
        self._message, self._mode, self._body = message, "drop", body_of(message.framing)
        self.flow.left(len(message.raw))
        if self._body.done:
            self._body_over(message)

    def answer_expectation(self, message: Message) -> None:
        """The body is needed here: a client that waits to be asked for it is asked by the proxy."""

    def _take_body(self, message: Message) -> None:
        body = self._body
        assert body is not None  # noqa: S101 - a message under way that is not held has one
        end = body.scan(self._data, 0)
        part = self._data[:end]
        self.take(end)
        if self._mode == "pass":
            self.pass_on(part)
        elif self._mode == "drop":
            self.flow.left(len(part))
        else:
            self._collected.append(part)
            self._collected_size += len(part)
            if self._collected_size > self._body_most and not body.done:
                self._too_large(message)
        if body.done:
            self._body_over(message)

    def _body_over(self, message: Message) -> None:
        if self._mode == "collect" and not message.acted:
            self._rewrite(message, bytes(self._body.payload or b"") if self._body is not None else b"")
        self._message = self._body = None
        self._collected, self._collected_size = [], 0
        self.over(message)

    def over(self, message: Message) -> None:
        """A message has come to its end."""
        raise NotImplementedError

    def _too_large(self, message: Message) -> None:
        """The body is larger than may be held: rules that change it miss, the others apply, the body passes."""
        kept = []
        for toxic, rule in message.edits:
            if isinstance(rule, PatchRule) and rule.body is not None:
                toxic.hits.missed += 1
            else:
                kept.append((toxic, rule))
        message.edits = kept
        self._rewrite(message, None)

    def _rewrite(self, message: Message, collected: bytes | None) -> None:
        """Send the changed head, and the new body if there is one; else what was collected, or is still to come, passes."""
        head, payload = apply_edits(message.edits, message.head, collected)
        head, payload = _framed(message, head, payload)
        message.acted = True
        if payload is None:
            self._mode = "pass"
        else:
            self.answer_expectation(message)
            self._mode = "drop"
            head = self.without_expectation(head)
        new = head.to_bytes() + (
            b"" if message.method == b"HEAD" and isinstance(head, ResponseHead) else payload or b""
        )
        self.inject(new)
        self.flow.left(len(message.raw))
        held = b"".join(self._collected)
        self._collected, self._collected_size = [], 0
        if payload is None:
            self.pass_on(held)
        else:
            self.flow.left(len(held))

    def without_expectation(self, head: Any) -> Any:
        """The head as it goes on when the proxy has asked for the body itself."""
        return head

    # Ends

    def _end_now(self) -> None:
        message = self._message
        if message is not None and not message.acted:
            if message.framing.kind == "close":
                self._body_over(message)
            else:  # cut off in mid-body: as it came
                self.pass_on(message.raw + b"".join(self._collected))
                self._collected = []
        rest, self._data = self._data, b""
        self.pass_on(rest)
        self.at_end(message)
        if not self.talk.closing:
            self.next.end()

    def at_end(self, message: Message | None) -> None:
        """The direction ends, perhaps in mid-message."""

    def can_let_go(self) -> bool:
        """Whether the stream from here on is what the sender means: not in the middle of something replaced."""
        return self._message is None or self._mode != "drop" or not self._message.acted

    def let_go(self) -> None:
        """Stop following: everything in hand goes on as it came."""
        message, held = self._message, self._timer is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if message is not None and (held or not message.acted):
            self.pass_on(message.raw + b"".join(self._collected))
        rest = self._data + b"".join(self._backlog)
        self._data, self._backlog, self._collected, self._message = b"", [], [], None
        self.pass_on(rest)
        if self._ended and held:
            self.next.end()


def _framed(message: Message, head: Any, payload: bytes | None) -> tuple[Any, bytes | None]:
    """The head with the length of its new body; a new status may need one, or none."""
    if isinstance(head, ResponseHead) and isinstance(message.head, ResponseHead):
        if head.status in _BODYLESS and (payload is not None or message.head.status not in _BODYLESS):
            return with_length(head, None), b""
        if payload is None and message.head.status in _BODYLESS and head.status not in _BODYLESS:
            return with_length(head, None if message.method == b"HEAD" else 0), b""
    return (head, None) if payload is None else (with_length(head, len(payload)), payload)
