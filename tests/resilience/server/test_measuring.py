"""Request durations and `/metrics`, before real applications on real servers."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from squall_resilience.metrics import Registry
from squall_resilience.server import asgi, wsgi
from squall_resilience.server.metrics import OPENMETRICS, TEXT, MetricsApp, exposition, metrics_wsgi
from tests.resilience.server.http_world import asgi_server, until, wsgi_server

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from starlette.requests import Request

TRACE = "0af7651916cd43dd8448eb211c80319c"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def fine(_: Request) -> PlainTextResponse:
    return PlainTextResponse("fine")


async def fails(_: Request) -> PlainTextResponse:
    raise ValueError("of the application")


def counted(registry: Registry) -> dict[tuple[str, str], float]:
    return {
        (dict(each.labels)["route"], dict(each.labels)["status"]): each.value
        for each in registry.samples()
        if each.name == "http_server_request_duration_seconds_count"
    }


def test_routes_are_templates_and_never_more_than_the_application_has(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a")
    registry = Registry()
    routes = [
        Route("/orders/{id:int}", fine),
        Route("/orders/{id:int}/items/{item}", fine),
        Route("/things/{thing:uuid}", fine),
        Route("/files/{path:path}", fine),
        Route("/fails", fails),
        Mount("/static", StaticFiles(directory=tmp_path)),
        Mount("/inner/{tenant}", routes=[Route("/deep/{name}", fine)]),
    ]
    app = asgi.MeasuringMiddleware(Starlette(routes=routes), "shop", registry=registry)
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for number in range(3):
            client.get(f"/orders/{number}")
            client.get(f"/orders/7/items/{number}")
            client.get(f"/things/{uuid.uuid4()}")
            client.get(f"/things/{str(uuid.uuid4()).upper()}")
            client.get(f"/files/a/b/{number}.txt")
            client.get(f"/static/{'a.css' if number else 'missing'}")
            client.get(f"/inner/t{number}/deep/name-{number}")
            client.get(f"/nowhere/{number}")
            client.get("/fails", headers={"Connection": "close"})
        until(lambda: sum(counted(registry).values()) == 27)
    assert counted(registry) == {
        ("/orders/{id}", "200"): 3,
        ("/orders/{id}/items/{item}", "200"): 3,
        ("/things/{thing}", "200"): 6,
        ("/files/{path}", "200"): 3,
        ("/static/{path}", "200"): 2,
        ("/static/{path}", "404"): 1,
        ("/inner/{tenant}/deep/{name}", "200"): 3,
        ("unmatched", "404"): 3,
        ("/fails", "500"): 3,
    }


@pytest.mark.parametrize(
    ("scope", "route"),
    [
        ({"path": "/orders/7"}, "unmatched"),
        ({"path": "/orders/7", "endpoint": fine, "path_params": {"id": 7}}, "/orders/{id}"),
        ({"path": "/a/b/a", "endpoint": fine, "path_params": {"x": "a", "y": "b", "z": "a"}}, "/{x}/{y}/{z}"),
        ({"path": "/things/ABC", "endpoint": fine, "path_params": {"thing": "abc"}}, "fine"),
        ({"path": "/x//", "endpoint": fine, "path_params": {"rest": ""}}, "fine"),
        ({"path": "/files/whatever", "endpoint": Starlette()}, "mounted"),
    ],
)
def test_where_no_route_is_left_it_is_made_from_the_parameters(scope: dict[str, Any], route: str) -> None:
    assert asgi.route_of(scope) == route


def test_exemplars_lead_to_the_requests_trace_in_openmetrics() -> None:
    registry = Registry()
    app = asgi.MeasuringMiddleware(
        Starlette(routes=[Route("/fine", fine)]), "shop", metrics_path="/metrics", registry=registry
    )
    with asgi_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/fine", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        until(lambda: counted(registry) == {("/fine", "200"): 1})
        scraped = client.get("/metrics", headers={"Accept": PROMETHEUS})
        older = client.get("/metrics")
        assert client.head("/metrics").text == ""
        assert client.post("/metrics").status_code == 405
    assert (scraped.headers["content-type"], older.headers["content-type"]) == (OPENMETRICS, TEXT)
    families = {each.name: each for each in openmetrics(scraped.text)}
    exemplars = [each.exemplar for each in families["http_server_request_duration_seconds"].samples if each.exemplar]
    assert [each.labels["trace_id"] for each in exemplars] == [TRACE]
    assert "trace_id" not in older.text
    assert [each.name for each in plain(older.text)] == ["http_server_request_duration_seconds"]


def test_opentelemetrys_current_span_is_the_trace_where_there_is_one() -> None:
    registry, tracer, seen = Registry(), TracerProvider().get_tracer("test"), []

    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        with tracer.start_as_current_span("handler") as span:
            seen.append(f"{span.get_span_context().trace_id:032x}")
            start_response("200 OK", [("Content-Length", "0")])
        return []

    measured = wsgi.MeasuringMiddleware(app, "shop", registry=registry)
    with wsgi_server(measured) as port:
        httpx.get(f"http://127.0.0.1:{port}/", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    assert re.findall('trace_id="([0-9a-f]+)"', registry.render(openmetrics=True)) == seen


def test_wsgi_answers_are_measured_to_the_end_of_their_bodies() -> None:
    registry = Registry()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["squall.route"] = "/{name}"
        if environ["PATH_INFO"] == "/fails":
            raise ValueError("of the application")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (part for part in (b"a", b"b")) if environ["PATH_INFO"] == "/stream" else [b"ab"]

    measured = wsgi.MeasuringMiddleware(app, "shop", metrics_path="/metrics", registry=registry)
    with wsgi_server(measured) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert [client.get(path).status_code for path in ("/stream", "/list", "/fails")] == [200, 200, 500]
        until(lambda: counted(registry) == {("/{name}", "200"): 2, ("/{name}", "500"): 1})
        assert 'route="/{name}",status="500"' in client.get("/metrics").text


def test_a_streamed_wsgi_answer_that_is_closed_early_is_counted_once() -> None:
    registry = Registry()

    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    measured = wsgi.MeasuringMiddleware(app, "shop", registry=registry)
    body = measured({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)
    assert next(iter(body)) == b"a"
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    assert counted(registry) == {("unmatched", "200"): 1}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        (PROMETHEUS, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.5", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=much", TEXT),
    ],
)
def test_the_format_is_the_one_that_is_preferred(accept: str, kind: str) -> None:
    assert exposition(accept, Registry())[0] == kind


def test_metrics_stand_by_themselves_too() -> None:
    registry = Registry()
    with wsgi_server(metrics_wsgi(registry)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        assert httpx.post(f"http://127.0.0.1:{port}/").status_code == 405
        assert httpx.head(f"http://127.0.0.1:{port}/").text == ""
    with asgi_server(Starlette(routes=[Mount("/metrics", MetricsApp(registry))])) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/metrics/").status_code == 200
