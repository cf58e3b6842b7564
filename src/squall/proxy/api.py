"""Toxiproxy's HTTP API (2.12), route for route: fields, defaults, status codes and the texts of errors.

What is beyond Toxiproxy: `GET /proxies/{name}/hits`, toxic types and attributes of our own, `/metrics` always on.
HTTP itself is in `service`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from squall.proxy.gojson import check_attributes, fields_of, read_body, wrong_shape
from squall.proxy.http.rules import HTTP_KINDS
from squall.proxy.metrics import render_metrics
from squall.proxy.plane import defaults_of
from squall.proxy.refusals import Invalid, NotFound, Refusal
from squall.proxy.toxics import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.proxy.link import Link

__all__ = ["TOXIPROXY_VERSION", "Answer", "Api", "read_specs"]

TOXIPROXY_VERSION: Final = "2.12.0"
"""Whose API this is; `/version` says so, because clients ask in order to know what they can use."""

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_PROXY_FIELDS: Final[dict[str, type]] = {"name": str, "listen": str, "upstream": str, "enabled": bool}
_TOXIC_FIELDS: Final[dict[str, type]] = {
    "name": str,
    "type": str,
    "stream": str,
    "toxicity": float,
    "attributes": object,
}
_UPDATE_FIELDS: Final[dict[str, type]] = {"toxicity": float, "attributes": object}
_UPDATE_TYPE: Final = (
    'struct { Attributes interface {} "json:\\"attributes\\""; Toxicity float32 "json:\\"toxicity\\"" }'
)
_POPULATE_TYPE: Final = '[]struct { toxiproxy.Proxy; Enabled *bool "json:\\"enabled\\"" }'


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, body, content type ("" for none)."""

    status: int
    body: bytes = b""
    content_type: str = ""


def _json(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), _JSON)


def _refused(refusal: Refusal) -> Answer:
    text = json.dumps({"error": str(refusal), "status": refusal.status}, separators=(",", ":"), ensure_ascii=False)
    return Answer(refusal.status, text.encode() + b"\n", _TEXT)


class Api:
    """Answers requests; every operation is the data plane's, reached by `link`."""

    def __init__(self, link: Link) -> None:
        self._ask = link.ask
        name = r"(?P<proxy>[^/]+)"
        routes: list[tuple[str, dict[str, Callable[..., Answer]]]] = [
            (r"/reset", {"POST": self._reset}),
            (r"/proxies", {"GET": self._index, "POST": self._create}),
            (r"/populate", {"POST": self._populate}),
            (
                rf"/proxies/{name}",
                {"GET": self._show, "POST": self._update, "PATCH": self._update, "DELETE": self._delete},
            ),
            (rf"/proxies/{name}/hits", {"GET": self._hits}),
            (rf"/proxies/{name}/toxics", {"GET": self._toxics, "POST": self._add_toxic}),
            (
                rf"/proxies/{name}/toxics/(?P<toxic>[^/]+)",
                {
                    "GET": self._toxic,
                    "POST": self._update_toxic,
                    "PATCH": self._update_toxic,
                    "DELETE": self._remove_toxic,
                },
            ),
            (r"/version", {"GET": self._version}),
            (r"/metrics", {"GET": self._metrics}),
        ]
        self._routes = [(re.compile(pattern), methods) for pattern, methods in routes]

    def answer(self, method: str, path: str, body: bytes, user_agent: str) -> Answer:
        """The response to one request; `path` has no query and is percent-decoded."""
        for pattern, methods in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            operation = methods.get(method)
            if operation is None:
                return Answer(405)
            if user_agent.startswith("Mozilla/"):  # a web page must not be able to cut services off
                return Answer(403, b"User agent not allowed\n", _TEXT)
            try:
                return operation(body, **match.groupdict())
            except Refusal as refusal:
                return _refused(refusal)
        return Answer(404, b"404 page not found\n", _TEXT)

    # Proxies

    def _index(self, _body: bytes) -> Answer:
        proxies = sorted(self._ask("proxies"), key=lambda proxy: proxy["name"])
        return _json(200, {proxy["name"]: _shown(proxy) for proxy in proxies})

    def _create(self, body: bytes) -> Answer:
        given = fields_of(read_body(body), _PROXY_FIELDS, "toxiproxy.Proxy")
        _require(given, "name", "upstream")
        return _json(201, self._ask("create", **given))

    def _show(self, _body: bytes, proxy: str) -> Answer:
        return _json(200, self._ask("get", proxy=proxy))

    def _update(self, body: bytes, proxy: str) -> Answer:
        self._ask("get", proxy=proxy)
        given = fields_of(read_body(body), _PROXY_FIELDS, "toxiproxy.Proxy")
        given.pop("name", None)  # a proxy keeps its name
        return _json(200, self._ask("update", **{**given, "proxy": proxy}))

    def _delete(self, _body: bytes, proxy: str) -> Answer:
        self._ask("delete", proxy=proxy)
        return Answer(204)

    def _populate(self, body: bytes) -> Answer:
        done: list[object] = []
        try:
            for spec in read_specs(body):
                done.append(self._ask("populate", **spec))  # noqa: PERF401 - what was done counts when a later one fails
        except Refusal as refusal:
            return _json(refusal.status, {"error": str(refusal), "status": refusal.status, "proxies": done or None})
        return _json(201, {"proxies": done or None})

    def _reset(self, _body: bytes) -> Answer:
        self._ask("reset")
        return Answer(204)

    def _hits(self, _body: bytes, proxy: str) -> Answer:
        return _json(200, self._ask("stats", proxy=proxy))

    # Toxics

    def _toxics(self, _body: bytes, proxy: str) -> Answer:
        return _json(200, self._ask("get", proxy=proxy)["toxics"])

    def _toxic(self, _body: bytes, proxy: str, toxic: str) -> Answer:
        return _json(200, self._find(proxy, toxic))

    def _find(self, proxy: str, name: str) -> dict[str, Any]:
        toxics: list[dict[str, Any]] = self._ask("get", proxy=proxy)["toxics"]
        for toxic in toxics:
            if toxic["name"] == name:
                return toxic
        raise NotFound("toxic not found")

    def _add_toxic(self, body: bytes, proxy: str) -> Answer:
        self._ask("get", proxy=proxy)
        given = fields_of(read_body(body), _TOXIC_FIELDS, "toxics.ToxicWrapper")
        kind = str(given.get("type"))
        if kind in KINDS or kind in HTTP_KINDS:
            given["attributes"] = check_attributes(kind, given.get("attributes"), defaults_of(kind).kinds())
        return _json(200, self._ask("add_toxic", **{**given, "proxy": proxy}))

    def _update_toxic(self, body: bytes, proxy: str, toxic: str) -> Answer:
        kind = self._find(proxy, toxic)["type"]
        given = fields_of(read_body(body), _UPDATE_FIELDS, _UPDATE_TYPE)
        given["attributes"] = check_attributes(kind, given.get("attributes"), defaults_of(kind).kinds())
        return _json(200, self._ask("update_toxic", proxy=proxy, name=toxic, **given))

    def _remove_toxic(self, _body: bytes, proxy: str, toxic: str) -> Answer:
        self._ask("remove_toxic", proxy=proxy, name=toxic)
        return Answer(204)

    # The rest

    def _version(self, _body: bytes) -> Answer:
        return Answer(200, f'{{"version": "{TOXIPROXY_VERSION}"}}\n'.encode(), "application/json;charset=utf-8")

    def _metrics(self, _body: bytes) -> Answer:
        text = render_metrics(self._ask("proxies"))
        return Answer(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")


def _require(given: dict[str, object], *names: str, at: str = "") -> None:
    for name in names:
        if not given.get(name):
            raise Invalid(f"missing required field: {name}{at}")


def read_specs(body: bytes) -> list[dict[str, object]]:
    """The proxies that a populate request or a configuration file lists; Invalid, naming the first that is wrong."""
    value = read_body(body)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_shape(value, _POPULATE_TYPE)
    specs = [fields_of(item, _PROXY_FIELDS, "toxiproxy.Proxy") for item in value]
    for number, spec in enumerate(specs, start=1):
        _require(spec, "name", "upstream", at=f" at proxy {number}")
    return specs


def _shown(proxy: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in proxy.items() if key != "stats"}
