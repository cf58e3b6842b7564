"""A web service of threads, in Python's own http.server; "ready PORT" is its first line. With "apart" main only waits."""

import http.server
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers 200, or 500 where answering fails."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        try:
            status, body = 200, self.answer()
        except Exception as error:  # noqa: BLE001 - as a framework does
            status, body = 500, f"{type(error).__name__}: {error}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, greeting: bytes = b"hello") -> bytes:
        return greeting

    def log_message(self, *_: object) -> None:
        """Say nothing."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("ready", server.server_port, flush=True)
if sys.argv[1:] == ["apart"]:
    threading.Thread(target=server.serve_forever).start()
    threading.Event().wait()
server.serve_forever()
