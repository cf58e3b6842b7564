"""How actions talk to a proxy that a run owns: the control protocol of `squall.proxy.owned`, one JSON object a line.

Standard library only, since undoing a toxic must work with nothing else installed. Every call opens its own connection
and waits for at most `timeout_s`; saying the same thing twice is harmless.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, TypedDict

from squall.errors import ActionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProxyControl", "ProxyGone", "ProxyRefused", "ToxicState"]

_ANSWER_MOST = 64 << 20


class ProxyGone(ActionFailed):
    """The proxy does not answer: it has ended (its toxics with it), or hangs."""


class ProxyRefused(ActionFailed):
    """The proxy understood and said no; `code` is invalid, not_found, exists or listen."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ToxicState(TypedDict):
    """A toxic as the proxy has it; `hits` counts connections, chunks, bytes, closed, requests, missed."""

    name: str
    type: str
    stream: str
    toxicity: float
    attributes: dict[str, Any]
    hits: dict[str, int]


class ProxyControl:
    """A data plane behind a unix socket at a path of any length; `proxy` names one of several routes.

    Raises ProxyGone when nobody answers within `timeout_s` seconds, ProxyRefused when the proxy says no.
    """

    def __init__(self, socket_path: str, timeout_s: float = 2.0, proxy: str | None = None) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s
        self._proxy = proxy

    def add_toxic(
        self,
        name: str,
        type: str,  # noqa: A002 - the protocol's word
        stream: str = "downstream",
        toxicity: float = 1.0,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Put a toxic on open and new connections; False when the very same one is there already."""
        wanted: ToxicState = {
            "name": name,
            "type": type,
            "stream": stream,
            "toxicity": toxicity,
            "attributes": dict(attributes or {}),
            "hits": {},
        }
        try:
            self._ask("add_toxic", **wanted)
        except ProxyRefused as refused:
            there = self.toxic(name) if refused.code == "exists" else None
            if there is None or not _same(there, wanted):
                raise
            return False
        return True

    def update_toxic(
        self, name: str, toxicity: float | None = None, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Change a toxic without a gap; what is not given stays."""
        self._ask("update_toxic", name=name, toxicity=toxicity, attributes=dict(attributes or {}))

    def remove_toxic(self, name: str) -> bool:
        """Take a toxic away, what it holds goes on at once; False when there is none of that name."""
        try:
            self._ask("remove_toxic", name=name)
        except ProxyRefused as refused:
            if refused.code == "not_found":
                return False
            raise
        return True

    def toxics(self) -> list[ToxicState]:
        """The toxics in order of application, with their hit counters."""
        answer: list[ToxicState] = self._ask("list")
        return answer

    def toxic(self, name: str) -> ToxicState | None:
        """The toxic of this name, if there is one."""
        return next((toxic for toxic in self.toxics() if toxic["name"] == name), None)

    def enable(self) -> None:
        """Listen; harmless when it does."""
        self._ask("enable")

    def disable(self) -> None:
        """Refuse new connections and end the open ones; harmless when it does."""
        self._ask("disable")

    def stats(self) -> dict[str, Any]:
        """name, listen, upstream, enabled, connections, open, seed, received, sent, hits (by toxic), gone (hits of removed toxics)."""
        answer: dict[str, Any] = self._ask("stats")
        return answer

    def ping(self) -> int:
        """The pid of the data plane."""
        return int(self._ask("ping")["pid"])

    def shutdown(self) -> None:
        """End the data plane and its connections at once; harmless when it is gone."""
        try:
            self._ask("shutdown")
        except ProxyGone:
            return

    def _ask(self, op: str, **fields: object) -> Any:
        request: dict[str, object] = {"op": op, **{key: value for key, value in fields.items() if value is not None}}
        if self._proxy is not None:
            request["proxy"] = self._proxy
        try:
            answer = json.loads(self._exchange(json.dumps(request).encode() + b"\n"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ProxyGone(f"the proxy at {self._path} does not answer ({op}): {reason}") from error
        if not answer["ok"]:
            raise ProxyRefused(f"the proxy at {self._path} refused {op}: {answer['error']}", answer["code"])
        return answer["result"]

    def _exchange(self, line: bytes) -> bytes:
        folder, name = os.path.split(self._path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(self._timeout_s)
            folder_fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # a socket's own path may be 107 bytes at most; this one is short whatever the folder's is
                client.connect(f"/proc/self/fd/{folder_fd}/{name}")
            finally:
                os.close(folder_fd)
            client.sendall(line)
            answer = bytearray()
            while not answer.endswith(b"\n"):
                part = client.recv(1 << 16)
                if not part or len(answer) > _ANSWER_MOST:
                    raise OSError("it ended in mid-answer")
                answer += part
        return bytes(answer)


def _same(there: ToxicState, wanted: ToxicState) -> bool:
    if any(there[key] != wanted[key] for key in ("type", "stream", "toxicity")):
        return False
    return all(there["attributes"].get(key, value) == value for key, value in wanted["attributes"].items())
