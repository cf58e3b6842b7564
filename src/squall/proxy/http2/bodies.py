"""A body that is replaced, or collected in order to be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from squall.proxy.http.rules import PatchRule
from squall.proxy.http2.heads import edited
from squall.proxy.http2.lanes import Item

if TYPE_CHECKING:
    from squall.proxy.http.heads import RequestHead, ResponseHead
    from squall.proxy.http2.heads import Edits
    from squall.proxy.http2.lanes import Lane

__all__ = ["EditedBody", "begin_edit"]


def begin_edit(
    lane: Lane, item: Item, head: RequestHead | ResponseHead, edits: Edits, *, bodyless: bool, keeps_trailers: bool
) -> bool:
    """Send a changed head, and see to the body; whether the body is needed here.

    `bodyless`: the answer to HEAD. `keeps_trailers`: the stream ends with the sender's, as a gRPC response must.
    """
    collects = any(isinstance(rule, PatchRule) and rule.body is not None for _, rule in edits)
    if collects and not item.end:
        lane.body = EditedBody(lane, item, head, edits, keeps_trailers=keeps_trailers)
        lane.ours = True
        lane.settle()
        return True
    item.fields, payload = edited(item.fields, head, edits, b"" if collects else None)
    if payload is None or bodyless:
        lane.put(item)
        return False
    lane.body = body = EditedBody(lane, item, head, [], keeps_trailers=keeps_trailers)
    body.replace(payload, ended=item.end)
    return True


class EditedBody:
    """Takes the place of what the sender sends: `collect` it, `drop` it, or `pass` it on through windows of the proxy's own."""

    def __init__(
        self, lane: Lane, item: Item, head: RequestHead | ResponseHead, edits: Edits, *, keeps_trailers: bool
    ) -> None:
        self._lane, self._item, self._head, self._edits = lane, item, head, edits
        self._keeps_trailers = keeps_trailers
        self._mode: Literal["collect", "drop", "pass"] = "collect"
        self._collected: list[bytes] = []
        self._size = 0

    def replace(self, payload: bytes, *, ended: bool) -> None:
        """The head goes, and this body; what comes is dropped."""
        lane, self._mode = self._lane, "drop"
        lane.ours = True
        waits = self._keeps_trailers and not ended
        self._item.end = not payload and not waits
        lane.put(self._item)
        if payload:
            lane.put(Item("data", payload, end=not waits, credited=True))

    def take(self, content: bytes, size: int, *, end: bool) -> None:
        """More of the body, in a frame of so many bytes; its window is the sender's again at once, or when it passes on."""
        lane = self._lane
        if self._mode == "pass":
            lane.put(Item("data", content, end=end, size=size, granting=not end))
            return
        lane.side.flow.left(size)
        lane.side.give_back += len(content)
        if content and not end:
            lane.side.grant(lane.stream, len(content))
        if self._mode == "drop":
            if end and not lane.done and self._keeps_trailers:
                lane.put(Item("data", end=True, credited=True))
            return
        self._collected.append(content)
        self._size += len(content)
        lane.side.collected += len(content)
        if lane.side.collected > lane.side.body_most:
            self._too_large(end=end)
        elif end:
            self._changed(last=True)

    def trailers(self, item: Item) -> None:
        """The sender ends with trailers: they end what goes on, if it has not ended."""
        lane = self._lane
        if self._mode == "collect":
            self._changed(last=False)
        if lane.done:
            lane.side.flow.left(item.size)
        else:
            lane.put(item)

    def forget(self) -> None:
        """What was collected is not in hand any more."""
        self._lane.side.collected -= self._size
        self._collected, self._size = [], 0

    def abandon(self) -> None:
        """The stream is over."""
        self.forget()
        if self._mode == "collect":
            self._lane.side.flow.left(self._item.size)

    def _changed(self, *, last: bool) -> None:
        """The body is whole."""
        lane, collected = self._lane, b"".join(self._collected)
        self.forget()
        self._item.fields, payload = edited(self._item.fields, self._head, self._edits, collected)
        body = collected if payload is None else payload
        self._mode = "drop"
        self._keeps_trailers = self._keeps_trailers or not last
        self._item.end = last and not body
        lane.put(self._item)
        if body:
            lane.side.collected += len(body)
            lane.put(Item("data", body, end=last, credited=True, collected=len(body)))

    def _too_large(self, *, end: bool) -> None:
        """More than may be held: rules that change the body miss, the others apply, the body passes."""
        lane, kept = self._lane, []
        for toxic, rule in self._edits:
            if isinstance(rule, PatchRule) and rule.body is not None:
                toxic.hits.missed += 1
            else:
                kept.append((toxic, rule))
        collected = b"".join(self._collected)
        self.forget()
        self._item.fields, payload = edited(self._item.fields, self._head, kept, None)
        if payload is not None:
            self.replace(payload, ended=end)
            return
        self._mode = "pass"
        lane.put(self._item)
        lane.side.collected += len(collected)
        lane.put(Item("data", collected, end=end, credited=True, collected=len(collected)))
