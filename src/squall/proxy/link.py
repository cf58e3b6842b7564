"""The API's end of the control protocol: one connection to the data plane beside it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from squall.proxy.refusals import AlreadyExists, CannotListen, Invalid, NotFound, Refusal

if TYPE_CHECKING:
    import socket

__all__ = ["Link", "PlaneGone"]

_KINDS: dict[str, type[Refusal]] = {kind.code: kind for kind in (Invalid, NotFound, AlreadyExists, CannotListen)}


class PlaneGone(Refusal):
    """The data plane has ended."""

    code = "gone"
    status = 500


class Link:
    """Asks the data plane, one question at a time, from any thread; refusals come back as they were raised there."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile("rb")
        self._turn = threading.Lock()

    def ask(self, op: str, **fields: object) -> Any:
        """The result of an operation; a Refusal, PlaneGone among them."""
        line = json.dumps({"op": op, **fields}).encode() + b"\n"
        with self._turn:
            try:
                self._end.sendall(line)
                answer = json.loads(self._lines.readline())
            except (OSError, ValueError) as error:
                raise PlaneGone(f"the data plane does not answer: {error}") from error
        if answer["ok"]:
            return answer["result"]
        raise _KINDS.get(answer["code"], Refusal)(answer["error"])

    def close(self) -> None:
        """Let the data plane go."""
        self._lines.close()
        self._end.close()
