"""The control protocol of a data plane: one JSON object a line, a request and its answer, on a local socket.

A request is `{"op": ..., "proxy": ..., ...}`; `proxy` may be left out while there is only one. An answer is
`{"ok": true, "result": ...}` or `{"ok": false, "code": ..., "status": ..., "error": ...}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from squall.proxy.loop import ERROR, HANGUP, READ, WRITE
from squall.proxy.plane import ProxySpec
from squall.proxy.refusals import Invalid, Refusal

if TYPE_CHECKING:
    import socket

    from squall.proxy.plane import Plane

__all__ = ["Control", "Operations"]

_LINE_MOST: Final = 8 << 20
_UNSENT_MOST: Final = 64 << 20
_READ: Final = 1 << 16

Request = Mapping[str, Any]


class Operations:
    """What can be asked, by name; `shutdown` calls back."""

    def __init__(self, plane: Plane, shutdown: Callable[[], None]) -> None:
        self._plane = plane
        self._shutdown = shutdown
        self._known: dict[str, Callable[[Request], object]] = {
            "add_toxic": self._add_toxic, "update_toxic": self._update_toxic, "remove_toxic": self._remove_toxic,
            "list": self._list, "enable": self._enable, "disable": self._disable, "stats": self._stats,
            "create": self._create, "populate": self._populate, "update": self._update, "delete": self._delete,
            "proxies": self._proxies, "get": self._get, "reset": self._reset, "ping": self._ping, "shutdown": self._stop,
        }  # fmt: skip

    def answer(self, line: bytes) -> bytes:
        """The answer to one request, with the line's end."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise Invalid("a request is a JSON object")
            operation = self._known.get(str(request.get("op")))
            if operation is None:
                raise Invalid(f"there is no op {request.get('op')!r}; there are {', '.join(self._known)}")
            answer: dict[str, object] = {"ok": True, "result": operation(request)}
        except Refusal as refusal:
            answer = {"ok": False, "code": refusal.code, "status": refusal.status, "error": str(refusal)}
        except ValueError as error:
            answer = {"ok": False, "code": "invalid", "status": 400, "error": f"not a JSON object: {error}"}
        return json.dumps(answer, separators=(",", ":")).encode() + b"\n"

    def _name(self, request: Request) -> str:
        name = request.get("proxy")
        if isinstance(name, str):
            return name
        if len(self._plane.proxies) != 1:
            raise Invalid(f"name the proxy: there are {', '.join(self._plane.proxies) or 'none'}")
        return next(iter(self._plane.proxies))

    def _add_toxic(self, request: Request) -> object:
        return self._plane.add_toxic(self._name(request), request).to_json()

    def _update_toxic(self, request: Request) -> object:
        return self._plane.update_toxic(self._name(request), _required(request, "name"), request).to_json()

    def _remove_toxic(self, request: Request) -> object:
        toxic = self._plane.remove_toxic(self._name(request), _required(request, "name"))
        return {**toxic.to_json(), "hits": toxic.hits.to_json()}

    def _list(self, request: Request) -> object:
        proxy = self._plane.proxy(self._name(request))
        return [{**toxic.to_json(), "hits": toxic.hits.to_json()} for toxic in proxy.in_order()]

    def _enable(self, request: Request) -> object:
        proxy = self._plane.proxy(self._name(request))
        proxy.enable()
        return proxy.to_json()

    def _disable(self, request: Request) -> object:
        proxy = self._plane.proxy(self._name(request))
        proxy.disable()
        return proxy.to_json()

    def _stats(self, request: Request) -> object:
        return self._plane.proxy(self._name(request)).stats()

    def _create(self, request: Request) -> object:
        return self._plane.create(_spec(request)).to_json()

    def _populate(self, request: Request) -> object:
        return self._plane.populate(_spec(request)).to_json()

    def _update(self, request: Request) -> object:
        name = self._name(request)
        now = self._plane.proxy(name)
        spec = _spec(
            {"name": name, "listen": now.listen, "upstream": now.upstream, "enabled": now.enabled, **_given(request)}
        )
        return self._plane.update(name, spec).to_json()

    def _delete(self, request: Request) -> object:
        self._plane.delete(self._name(request))
        return None

    def _proxies(self, _request: Request) -> object:
        return [{**proxy.to_json(), "stats": proxy.stats()} for proxy in self._plane.proxies.values()]

    def _get(self, request: Request) -> object:
        return self._plane.proxy(self._name(request)).to_json()

    def _reset(self, _request: Request) -> object:
        self._plane.reset()
        return None

    def _ping(self, _request: Request) -> object:
        return {"pid": os.getpid(), "seed": self._plane.seed, "held_bytes": self._plane.budget.used}

    def _stop(self, _request: Request) -> object:
        self._shutdown()
        return None


def _required(request: Request, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name}: a text is needed")
    return value


def _given(request: Request) -> dict[str, object]:
    return {key: request[key] for key in ("listen", "upstream", "enabled") if request.get(key) is not None}


def _spec(request: Request) -> ProxySpec:
    enabled = request.get("enabled", True)
    if not isinstance(enabled, bool):
        raise Invalid(f"enabled: {enabled!r} is not true or false")
    listen = request.get("listen") or ""
    if not isinstance(listen, str):
        raise Invalid(f"listen: {listen!r} is not a text")
    return ProxySpec(_required(request, "name"), listen, _required(request, "upstream"), enabled)


class Control:
    """Serves the protocol on a listening unix socket, or on one connected socket, in the data plane's loop."""

    def __init__(self, plane: Plane, operations: Operations) -> None:
        self._loop = plane.loop
        self._operations = operations
        self._in: dict[int, bytearray] = {}
        self._out: dict[int, bytearray] = {}

    def listen(self, listener: socket.socket) -> None:
        """Accept clients from this socket."""
        listener.setblocking(False)

        def accept(_events: int) -> None:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.serve(client)

        self._loop.handle(listener.fileno(), accept)
        self._loop.want(listener.fileno(), READ)

    def serve(self, client: socket.socket, gone: Callable[[], None] | None = None) -> None:
        """Answer this client until it goes; then call `gone`."""
        client.setblocking(False)
        fd = client.fileno()
        self._in[fd], self._out[fd] = bytearray(), bytearray()

        def ready(events: int) -> None:
            if (events & (READ | HANGUP | ERROR) and not self._read(client)) or not self._flush(client):
                del self._in[fd], self._out[fd]
                self._loop.dispose(client)
                if gone is not None:
                    gone()

        self._loop.handle(fd, ready)
        self._loop.want(fd, READ)

    def _read(self, client: socket.socket) -> bool:
        fd = client.fileno()
        try:
            data = client.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        pending = self._in[fd]
        pending += data
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            self._out[fd] += self._operations.answer(line)
        return bool(data) and len(pending) < _LINE_MOST and len(self._out[fd]) < _UNSENT_MOST

    def _flush(self, client: socket.socket) -> bool:
        fd = client.fileno()
        out = self._out[fd]
        try:
            while out:
                del out[: client.send(out)]
        except BlockingIOError:
            self._loop.want(fd, WRITE)
            return True
        except OSError:
            return False
        self._loop.want(fd, 0, WRITE)
        return True
