"""A service that looks a name up for each request: `python3 name_service.py NAME [PORT]`.

GET / is answered 200 with the addresses that the name has now, or, where it cannot be looked up, with the last ones
that are known ("X-Stale: 1"); 503 where none are known yet.
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, PORT = sys.argv[1], int((sys.argv[2:] or ["18095"])[0])
known: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Answers each request by a lookup of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Look the name up, and say what is known."""
        stale = False
        try:
            known[:] = sorted({str(found[4][0]) for found in socket.getaddrinfo(NAME, None)})
        except OSError:
            stale = True
        body = " ".join(known).encode()
        self.send_response(200 if known else 503)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Stale", str(int(stale)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
