"""A service that sells what a file says it costs, while the file is fresh: `python3 rates_service.py FILE [PORT]`.

The file is written anew every second, as a feeder would. GET / is answered 200 with the rates; 503 when the file is
older than a minute by this service's own clock: old prices are not sold.
"""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

FILE, PORT = sys.argv[1], int((sys.argv[2:] or ["18097"])[0])
FRESH_S = 60


def feed() -> None:
    """Write the file every second; its time is the file system's."""
    while True:
        with open(FILE, "w") as file:  # noqa: PTH123 - a small program
            file.write("apples 3\n")
        time.sleep(1)


class Handler(BaseHTTPRequestHandler):
    """Answers with the rates, or not."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Look how old they are."""
        age = time.time() - os.stat(FILE).st_mtime  # noqa: PTH116
        status, body = (200, b"apples 3\n") if age < FRESH_S else (503, b"the rates are %d s old\n" % age)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Thread(target=feed, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
