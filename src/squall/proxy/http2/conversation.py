"""HTTP/2 on one connection: its streams, which rules hit them, and what the two sides call them.

General layout: requests, responses, calls that the proxy ends, streams and their numbers, ends.

While nothing was held, changed or answered here, frames pass untouched. A stream that the service is told of late may
have been overtaken: its number must then be higher there than the client's, and so are those of all that follow.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from squall.proxy.http.chooser import Chooser
from squall.proxy.http.edits import answer_of
from squall.proxy.http.rules import AbortRule, DelayRule, GrpcAbortRule, GrpcDelayRule, PatchRule, ReplaceRule, Rule
from squall.proxy.http2 import frames
from squall.proxy.http2.bodies import begin_edit
from squall.proxy.http2.frames import HEAD_BYTES
from squall.proxy.http2.grpc import Messages, trailers_of
from squall.proxy.http2.heads import fields_of_answer, is_grpc, is_interim, request_of, response_of, without_expectation
from squall.proxy.http2.lanes import Item, Stream
from squall.proxy.http2.side import Side

if TYPE_CHECKING:
    from squall.proxy.connection import Connection
    from squall.proxy.flow import Flow
    from squall.proxy.http.heads import RequestHead, ResponseHead
    from squall.proxy.http2.hpack import Fields
    from squall.proxy.http2.lanes import Lane
    from squall.proxy.toxics import Toxic

__all__ = ["Http2"]

_STREAMS_MOST: Final = 1 << 14
"""Open at once on one connection; one more is refused."""
_INTERIM: Final = 200


class Http2:
    """`changed`: the two sides no longer see the same streams, so what is on an unknown one goes no further."""

    def __init__(self, connection: Connection, up: Flow, down: Flow) -> None:
        most = connection.proxy.plane.options.http_body_bytes
        self.connection, self.proxy = connection, connection.proxy
        self.rules = Chooser(self.proxy, up, down)
        self.requests = Side(self, up, most, is_up=True)
        self.responses = Side(self, down, most, is_up=False)
        self.requests.other, self.responses.other = self.responses, self.requests
        self.gone = self.changed = False
        self.last_client = self._last_server = 0
        self._last_told = frames.STREAM_MOST
        """What the service, going away, said it would still take."""
        self._moved = self._settling = False
        self._said: tuple[AbortRule, tuple[Fields, bytes]] | None = None
        """The answer that was given last, and the rule that it is of."""

    # Requests

    def begin(self, number: int) -> Stream | None:
        """A new stream; None when there are too many: it is refused."""
        self.last_client = number
        if len(self.requests.streams) >= _STREAMS_MOST:
            self.changed = True
            self.responses.emit(frames.number_frame(frames.RST_STREAM, number, frames.REFUSED_STREAM))
            return None
        stream = Stream(number, self.requests, self.responses)
        self.requests.streams[number] = stream
        self.proxy.http["messages"] += 1
        return stream

    def take_request(self, stream: Stream, item: Item, raw: bytes) -> None:
        """A request's head."""
        head = request_of(item.fields) if self.proxy.toxics else None
        chosen = self.rules.chosen(head) if head is not None else []
        if not chosen or head is None:
            self._pass_request(stream, item, raw)
            return
        stream.head = head
        answer: tuple[Fields, bytes] | None = None
        hit: list[tuple[Toxic, Rule]] = []
        for toxic, rule in chosen:
            answer = self._answer(head, rule)
            if answer is not None:
                self.rules.hit(toxic, len(raw))
                hit = [pair for pair in hit if isinstance(pair[1], DelayRule)]
                break
            if toxic.stream == "upstream":
                hit.append((toxic, rule))
            else:
                stream.rules.append((toxic, rule))
        edits = self._plan(stream.up, item, hit, len(raw))
        if answer is not None:
            self._hold_answer(stream, item, answer)
        elif edits:
            self.requests.blocks.rewrite()
            self._edit_request(stream, item, head, edits)
        elif item.late:
            self.requests.pass_head(stream.up, item, raw)
        else:
            self._pass_request(stream, item, raw)
            stream.up.settle()

    def _pass_request(self, stream: Stream, item: Item, raw: bytes) -> None:
        if self.tell_service(stream):
            self.requests.pass_head(stream.up, item, raw)
        else:
            self.requests.flow.left(item.size)

    def _edit_request(
        self, stream: Stream, item: Item, head: RequestHead, edits: list[tuple[Toxic, ReplaceRule | PatchRule]]
    ) -> None:
        waits = b"100-continue" in head.tokens(b"expect") and not item.end
        if waits and any(_needs_body(rule) for _, rule in edits):  # the client sends it only when it is asked
            item.fields = [field for field in item.fields if field[0] != b"expect"]
            head = without_expectation(head)
            stream.down.put(Item("head", fields=[(b":status", b"100")]))
        begin_edit(stream.up, item, head, edits, bodyless=False, keeps_trailers=False)

    def _plan(
        self, lane: Lane, item: Item, hit: list[tuple[Toxic, Rule]], size: int
    ) -> list[tuple[Toxic, ReplaceRule | PatchRule]]:
        """What these rules do to a stream: delays of its head are in the item; the edits."""
        edits: list[tuple[Toxic, ReplaceRule | PatchRule]] = []
        for toxic, rule in hit:
            if isinstance(rule, GrpcDelayRule) and rule.each == "message":
                lane.each.append((toxic, rule))
                lane.messages = lane.messages or Messages()
                continue
            if isinstance(rule, GrpcAbortRule):
                lane.cut = (toxic, rule)
                lane.messages = lane.messages or Messages()
                continue
            self.rules.hit(toxic, size)
            if isinstance(rule, DelayRule):
                item.late[id(toxic)] = self.rules.delay_ns(toxic, rule)
            elif isinstance(rule, (ReplaceRule, PatchRule)):
                edits.append((toxic, rule))
        return edits

    def delay_messages(self, lane: Lane, item: Item, begun: int) -> None:
        """So many messages of a call begin with this item: it is late by what their toxics draw."""
        for toxic, _ in lane.each:
            if self.is_there(toxic) and isinstance(toxic.attributes, GrpcDelayRule):
                for _ in range(begun):
                    self.rules.hit(toxic, len(item.payload) // begun)
                item.late[id(toxic)] = self.rules.delay_ns(toxic, toxic.attributes)

    def is_there(self, toxic: Toxic) -> bool:
        """Whether a toxic has not been removed meanwhile."""
        return toxic in self.proxy.toxics

    # Responses

    def take_response(self, stream: Stream, item: Item, raw: bytes) -> None:
        """A response's head, interim ones included."""
        lane = stream.down
        head = response_of(item.fields) if stream.rules else None
        if head is None or head.status < _INTERIM:
            lane.head_came = not is_interim(item.fields)
            self.responses.pass_head(lane, item, raw)
            return
        lane.head_came = True
        hit = [(toxic, rule) for toxic, rule in stream.rules if self.is_there(toxic)]
        hit = [(toxic, toxic.attributes) for toxic, _ in hit if isinstance(toxic.attributes, Rule)]
        edits = self._plan(lane, item, hit, len(raw))
        if edits and stream.head is not None:
            self.responses.blocks.rewrite()
            begin_edit(lane, item, head, edits, bodyless=stream.head.method == b"HEAD", keeps_trailers=is_grpc(head))
        else:
            self.responses.pass_head(lane, item, raw)
        lane.settle()

    # What the proxy answers or ends

    def _answer(self, head: RequestHead, rule: Rule) -> tuple[Fields, bytes] | None:
        """What a rule answers in the service's place; the body is the same object each time: many may wait with it."""
        if isinstance(rule, AbortRule):
            if self._said is None or self._said[0] is not rule:
                self._said = (rule, fields_of_answer(answer_of(rule, method=b"GET", close=False)))
            fields, body = self._said[1]
            return fields, b"" if head.method == b"HEAD" else body
        if isinstance(rule, GrpcAbortRule) and not rule.after_messages:
            return _trailers_only(head, rule), b""
        return None

    def _hold_answer(self, stream: Stream, item: Item, answer: tuple[Fields, bytes]) -> None:
        """The service never knows of this stream; the client is answered in time."""
        self.changed = stream.aborted = True
        stream.drains = stream.head is None or not is_grpc(stream.head)
        self.requests.blocks.rewrite()
        stream.up.dead = True
        self.requests.flow.left(item.size)

        def act() -> None:
            fields, body = answer
            stream.down.drop()
            stream.down.ours = True
            stream.down.put(Item("head", fields=fields, end=not body))
            if body:
                stream.down.put(Item("data", body, end=True, credited=True))

        stream.up.put(Item("act", call=act, late=item.late, arrived_ns=item.arrived_ns))

    def cut(self, lane: Lane) -> None:
        """A call has had as many messages as it may: it ends with a status."""
        stream, down = lane.stream, lane.stream.down
        if lane.cut is None:
            return
        toxic, rule = lane.cut
        self.rules.hit(toxic, 0)
        self.changed = stream.aborted = True
        if stream.server and not (stream.up.done and down.ended):
            self.requests.emit(frames.number_frame(frames.RST_STREAM, stream.server, frames.CANCEL))
        self.responses.streams.pop(stream.server, None)
        stream.up.drop()
        down.drop()
        if down.done:
            self.forget(stream)
        else:
            down.put(
                Item(
                    "head", fields=trailers_of(rule) if down.head_went else _trailers_only(stream.head, rule), end=True
                )
            )

    # Streams

    def tell_service(self, stream: Stream) -> bool:
        """Give a stream its number there; whether the service takes it."""
        number = stream.client if stream.client > self._last_server else self._last_server + 2
        if number > self._last_told or number > frames.STREAM_MOST:
            self._refuse(stream)
            return False
        if number != stream.client:
            self.changed = self._moved = True
        stream.server = self._last_server = number
        self.responses.streams[number] = stream
        return True

    def _refuse(self, stream: Stream) -> None:
        """The service never saw it: the client may try it elsewhere."""
        self.changed = True
        self.requests.blocks.rewrite()
        self.responses.emit(frames.number_frame(frames.RST_STREAM, stream.client, frames.REFUSED_STREAM))
        self.forget(stream)

    def lane_done(self, lane: Lane) -> None:
        """Something of a stream has come to its end: forget the stream when all of it has."""
        stream = lane.stream
        up, down = stream.up, stream.down
        if stream.aborted:
            if down.done:
                self.connection.loop.later(lambda: self._answered(stream))
        elif up.done and down.done and up.ended and down.ended:
            self.forget(stream)

    def _answered(self, stream: Stream) -> None:
        """The client has the whole of our answer: what it still has to say is not needed (RFC 9113, 8.1).

        A gRPC client is told so; another is let say it.
        """
        if self.gone or self.requests.closed or self.requests.streams.get(stream.client) is not stream:
            return
        if not stream.up.ended:
            if stream.drains:
                return
            self.responses.emit(frames.number_frame(frames.RST_STREAM, stream.client, frames.NO_ERROR))
        self.forget(stream)
        self.settle()

    def forget(self, stream: Stream) -> None:
        """A stream is over on both sides."""
        if not stream.server:
            self.changed = True
        self.requests.streams.pop(stream.client, None)
        self.responses.streams.pop(stream.server, None)
        for lane in (stream.up, stream.down):
            if not lane.done or lane.timer is not None:
                lane.drop()

    def going_away(self, raw: bytes) -> None:
        """The service takes no streams beyond one: say so in the client's numbers, and refuse what it will never see."""
        last = int.from_bytes(raw[HEAD_BYTES : HEAD_BYTES + 4]) & frames.STREAM_MOST
        responses = self.responses
        if last == frames.STREAM_MOST:
            responses.emit(raw)
            responses.flow.left(len(raw))
            return
        self._last_told = min(self._last_told, last)
        waiting = [one for one in self.requests.streams.values() if not one.aborted]
        unseen = [one for one in waiting if not one.server or one.server > last]
        if self._moved:
            taken = [one.client for one in waiting if one.server and one.server <= last]
            told = self.last_client if last >= self._last_server else max(taken, default=0)
            raw_said = told.to_bytes(4) + raw[HEAD_BYTES + 4 :]
        else:
            told, raw_said = last, raw[HEAD_BYTES:]
        for stream in unseen:
            if stream.client <= told:
                self._refuse(stream)
        responses.emit(frames.frame(frames.GOAWAY, 0, 0, raw_said))
        responses.flow.left(len(raw))

    # Toxics that change

    def retime(self, toxic: Toxic, *, removed: bool) -> None:
        """A toxic was changed or removed: what it holds follows at once."""
        rule = toxic.attributes
        delay: partial[int] | None = None
        if isinstance(rule, DelayRule) and not removed:
            delay = partial(self.rules.delay_ns, toxic, rule)
        for side in (self.requests, self.responses):
            for lane in list(side.busy):
                lane.retime(toxic, delay)
        self.settle()

    # Ends

    def settle(self) -> None:
        """Send what has been gathered on both sides."""
        if self._settling:
            return
        self._settling = True
        try:
            sides = (self.requests, self.responses)
            for side in (*sides, *sides):
                if not side.closed and not self.gone:
                    side.flush()
        finally:
            self._settling = False

    def give_up(self) -> None:
        """Stop following this connection; where it was changed it cannot go on by itself, and is closed."""
        if self.gone:
            return
        self.gone = True
        self.proxy.http["not_http"] += 1
        self.connection.let_go_for = "not_http"
        for toxic in self.proxy.toxics:
            self.connection.count_unfollowed(toxic)
        if self.changed or not (self.requests.is_as_it_came() and self.responses.is_as_it_came()):
            self.connection.close()
            return
        for side in (self.requests, self.responses):
            side.let_go()
        self.connection.forget_conversation()

    def dismantle(self) -> None:
        """Let go of all that leads back here, so that it is freed at once."""
        for side in (self.requests, self.responses):
            side.streams.clear()
            del side.other
        self.gone = True
        del self.requests, self.responses, self.rules


def _needs_body(rule: ReplaceRule | PatchRule) -> bool:
    return rule.body is not None


def _trailers_only(head: RequestHead | ResponseHead | None, rule: GrpcAbortRule) -> Fields:
    said = head.all(b"content-type") if head is not None else []
    return [(b":status", b"200"), (b"content-type", said[0] if said else b"application/grpc"), *trailers_of(rule)]
