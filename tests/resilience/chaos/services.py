"""Services with the middleware in them, each a process of its own: `python services.py asgi|wsgi`.

It says its port in one line, and answers every request with what it has seen of it as JSON; it never traces unless
TRACE_TO names a file, which then gets a line of JSON for each span.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def trace_to(path: str) -> None:
    """Write every span that ends as a line of this file."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Lines(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            with Path(path).open("a") as file:
                for span in spans:
                    parent = f"{span.parent.span_id:016x}" if span.parent else None
                    told = {
                        "name": span.name, "trace": f"{span.context.trace_id:032x}", "span": f"{span.context.span_id:016x}",
                        "parent": parent, "attributes": dict(span.attributes), "ns": span.end_time - span.start_time,
                    }  # fmt: skip
                    file.write(json.dumps(told) + "\n")
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines()))
    trace.set_tracer_provider(provider)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers with method, path, headers, or at /metrics with the process's metrics."""
    if scope["type"] == "lifespan":
        for end in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{end}"
            await send({"type": f"lifespan.{end}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    names = sorted(name.decode() for name, _ in scope["headers"])
    body = answer(scope["method"], scope["path"], names)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """The same."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"].read(length)
    names = sorted(name[5:].lower().replace("_", "-") for name in environ if name.startswith("HTTP_"))
    body = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], names)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def answer(method: str, path: str, headers: list[str]) -> bytes:
    """What both say."""
    from squall_resilience.metrics import registry

    if path == "/metrics":
        return registry.render().encode()
    return json.dumps({"method": method, "path": path, "headers": headers, "pid": os.getpid()}).encode()


def serve_asgi() -> None:
    """With uvicorn, on any port."""
    import socket

    import uvicorn

    from squall_resilience.chaos.asgi import ChaosMiddleware

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(ChaosMiddleware(asgi), log_level="warning")
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])


def serve_wsgi() -> None:
    """With the standard library's server, a thread for each connection."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from squall_resilience.chaos.wsgi import ChaosMiddleware

    class Threaded(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = make_server("127.0.0.1", 0, ChaosMiddleware(wsgi), Threaded, Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    if os.environ.get("TRACE_TO"):
        trace_to(os.environ["TRACE_TO"])
    {"asgi": serve_asgi, "wsgi": serve_wsgi}[sys.argv[1]]()
