"""The HTTP client that every service of the shop uses, bare on purpose: no time-out, no retry, no breaker.

It is the one place where a call between services can be made to ride out a fault.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "CallFailed", "call"]


@dataclass(frozen=True)
class Answer:
    """What a service answers: a status and a JSON body."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was done: any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - what 2xx means


class CallFailed(Exception):  # noqa: N818 - reads as what it says
    """No answer: the connection was refused or broke, or what came is not an answer."""


def call(method: str, url: str, body: dict[str, Any] | None = None) -> Answer:
    """Call a service, waiting as long as it takes; CallFailed when there is no answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port)
    payload = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json", "Connection": "close"}
    try:
        connection.request(method, parts.path or "/", payload, headers)
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, json.loads(content) if content else {})
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CallFailed(f"{method} {url}: {error!r}") from error
    finally:
        connection.close()
