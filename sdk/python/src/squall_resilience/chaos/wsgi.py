"""Chaos inside a service that speaks WSGI (Flask, Django, Pyramid, Falcon): PEP 3333."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from squall_resilience.chaos.decision import Seen
from squall_resilience.chaos.middleware import Chaos
from squall_resilience.chaos.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication

    from squall_resilience.chaos.decision import Hit
    from squall_resilience.chaos.settings import ChaosSettings

__all__ = ["ChaosMiddleware"]

_BODILESS = frozenset({204, 205, 304})


class ChaosMiddleware:
    """Wraps an application; requests that nothing hits reach it as they came. Off until settings or an experiment say otherwise.

    A delay holds the worker's thread, as a slow service would. `settings` None: those of the environment
    (SQUALL_CHAOS_*). Raises SettingsError.
    """

    def __init__(
        self,
        app: WSGIApplication,
        settings: ChaosSettings | None = None,
        *,
        chaos: Chaos | None = None,
    ) -> None:
        self.app = app
        self.chaos = chaos if chaos is not None else Chaos(settings)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        chaos = self.chaos
        sources = () if chaos.off else chaos.sources()
        if sources:
            seen = _seen(environ)
            hit = chaos.consider(sources, seen)
            if hit is not None:
                with chaos.tell(hit, seen):
                    if hit.status is not None:
                        return _abort(hit, hit.status, environ["REQUEST_METHOD"], start_response)
                    wait(chaos, hit)
        if chaos.strips:
            environ.pop(_variable(chaos.strips), None)
        return self.app(environ, start_response)


def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def _seen(environ: dict[str, Any]) -> Seen:
    def values(name: str) -> list[str]:
        value = environ.get(_variable(name))
        if value is None:
            return []
        parts = [part.strip() for part in str(value).split(",")]  # a server joins a header that came several times
        return parts if len(parts) == 1 else [*parts, str(value)]

    raw = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return Seen(environ["REQUEST_METHOD"], raw.encode("latin-1", "replace").decode("utf-8", "replace"), values)


def _abort(hit: Hit, status: int, method: str, start_response: StartResponse) -> Iterable[bytes]:
    body = hit.rule.abort_body.encode("utf-8", "replace")
    headers = [
        (name, value.encode("utf-8", "replace").decode("latin-1")) for name, value in hit.rule.abort_headers.items()
    ]
    if status in _BODILESS:
        body = b""
    else:
        if body and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        headers.append(("Content-Length", str(len(body))))
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    start_response(f"{status} {reason}", headers)
    return [] if method == "HEAD" else [body]
