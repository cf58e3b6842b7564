"""How a service of the shop calls another one: what the call goes through is the settings file's matter.

With no settings it is a bare HTTP client, on purpose: no time-out, no pool, no retry, no breaker.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from squall_resilience.adapters.http_client import HttpClient
from squall_resilience.client import ClientSettings
from squall_resilience.errors import ResilienceError
from squall_resilience.fallback import Fallback
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.settings import PolicySettings

if TYPE_CHECKING:
    from front import Request

    from squall_resilience.policy.live import LiveSettings

__all__ = ["Answer", "CallFailed", "Dependency", "call"]

BARE = ClientSettings(
    connect_timeout=600,
    read_timeout=600,
    write_timeout=600,
    pool_timeout=600,
    connections=10_000,
    per_host=10_000,
    idle=0,
)
SERVER_ERROR = 500
PASSED_ON = ("x-priority", "traceparent")
Instead = Callable[[dict[str, object]], "Answer"]


@dataclass(frozen=True)
class Answer:
    """What a service answers: a status and a JSON body, or text of another kind."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    kind: str = "application/json"

    @property
    def ok(self) -> bool:
        """Whether it was done: any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - what 2xx means

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return (json.dumps(self.body) if self.text is None else self.text).encode()


class CallFailed(Exception):  # noqa: N818 - reads as what it says
    """No answer: the connection was refused or broke, took too long, or was not even tried."""


class Failed(Exception):  # noqa: N818 - as above
    """An answer that says that the service failed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered {answer.status}")
        self.answer = answer


class Dependency:
    """Another service. `instead`, where there is one, answers while it does not (once the settings have a fallback)."""

    def __init__(self, name: str, url: str, live: LiveSettings, instead: Instead | None) -> None:
        self.name, self.url = name, url
        self._http = HttpClient(None, BARE)
        links = [Fallback(name, compute=lambda _path, body, _headers: instead(body))] if instead else []
        self._policy = Policy(name, links=links)
        self._policy.configure(
            PolicySettings()
        )  # bare: also the fallback is off until the settings file says otherwise
        live.pool(name, BARE, self._http.configure)
        live.add(self._policy)
        self._through = self._policy(self._send)

    def post(self, path: str, body: dict[str, object], request: Request) -> Answer:
        """Call it on behalf of a request, whose priority and trace go along. CallFailed when there is no answer."""
        passed_on = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            return self._through(path, body, passed_on)
        except Failed as failed:
            return failed.answer
        except (ResilienceError, OSError, http.client.HTTPException, ValueError) as error:
            raise CallFailed(f"{self.name}: POST {path}: {error!r}") from error

    def _send(self, path: str, body: dict[str, object], headers: dict[str, str]) -> Answer:
        said = self._http.request("POST", f"{self.url}{path}", headers=headers, data=body)
        answer = Answer(said.status, said.json() if said.body else {})
        if answer.status >= SERVER_ERROR:
            raise Failed(answer)
        return answer


def call(method: str, url: str, body: dict[str, Any], *, seconds: float) -> Answer:
    """One call past all settings, on a connection of its own; CallFailed when there is no answer within so many seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=seconds)
    try:
        connection.request(method, parts.path or "/", json.dumps(body).encode(), {"Connection": "close"})
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, json.loads(content) if content else {})
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CallFailed(f"{method} {url}: {error!r}") from error
    finally:
        connection.close()
