"""Chaos inside a service that speaks ASGI 3 (Starlette, FastAPI, Django, Quart, Litestar), on asyncio or trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from squall_resilience.chaos.decision import Seen
from squall_resilience.chaos.middleware import Chaos
from squall_resilience.chaos.waiting import wait_async

if TYPE_CHECKING:
    from squall_resilience.chaos.decision import Hit
    from squall_resilience.chaos.settings import ChaosSettings

__all__ = ["ChaosMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODILESS = frozenset({204, 205, 304})


class ChaosMiddleware:
    """Wraps an application; requests that nothing hits reach it as they came. Off until settings or an experiment say otherwise.

    `settings` None: those of the environment (SQUALL_CHAOS_*). Web sockets and the lifespan pass. Raises SettingsError.
    """

    def __init__(self, app: Application, settings: ChaosSettings | None = None, *, chaos: Chaos | None = None) -> None:
        self.app = app
        self.chaos = chaos if chaos is not None else Chaos(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, as ASGI has it."""
        chaos = self.chaos
        if (chaos.off and not chaos.strips) or scope["type"] != "http":
            try:
                await self.app(scope, receive, send)
            finally:
                if scope["type"] == "lifespan":
                    chaos.ended()  # many servers end by a signal, with which nothing else of Python's end runs
            return
        sources = chaos.sources()
        if sources:
            seen = _seen(scope)
            hit = chaos.consider(sources, seen)
            if hit is not None:
                with chaos.tell(hit, seen):
                    if hit.status is not None:
                        await _abort(hit, hit.status, send)
                        return
                    await wait_async(chaos, hit)
        if chaos.strips:
            scope = _without(scope, chaos.strips.encode("latin-1"))
        await self.app(scope, receive, send)


def _seen(scope: Scope) -> Seen:
    headers: list[tuple[bytes, bytes]] = scope["headers"]

    def values(name: str) -> list[str]:
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for one, value in headers if one.lower() == wanted]

    return Seen(scope["method"], scope["path"], values)


def _without(scope: Scope, header: bytes) -> Scope:
    """The scope without a header; the same one where it is not in it."""
    kept = [pair for pair in scope["headers"] if pair[0].lower() != header]
    return scope if len(kept) == len(scope["headers"]) else {**scope, "headers": kept}


async def _abort(hit: Hit, status: int, send: Send) -> None:
    body = hit.rule.abort_body.encode("utf-8", "replace")
    headers = [
        (name.lower().encode(), value.encode("utf-8", "replace")) for name, value in hit.rule.abort_headers.items()
    ]
    if status in _BODILESS:
        body = b""
    else:
        if body and not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", b"text/plain; charset=utf-8"))
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
