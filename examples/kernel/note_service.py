"""A service that stores notes in a file: `python3 note_service.py FILE [PORT]`.

POST / appends the body to the file, makes sure that it is on disk and answers 201; 507 where the disk refuses, and then
nothing of the note is stored. GET / answers the notes that are stored, from memory.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

PORT = int((sys.argv[2:] or ["18096"])[0])
FILE = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
notes: list[bytes] = []
lock = Lock()


def store(note: bytes) -> None:
    """Append one line, whole and on disk, or raise OSError and leave the file as it was."""
    with lock:
        end = os.lseek(FILE, 0, os.SEEK_END)
        try:
            os.pwrite(FILE, note + b"\n", end)
            os.fsync(FILE)
        except OSError:
            os.ftruncate(FILE, end)
            raise
        notes.append(note)


class Handler(BaseHTTPRequestHandler):
    """Stores and shows notes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Store the body."""
        note = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            store(note)
        except OSError as error:
            self.answer(507, str(error.strerror).encode())
        else:
            self.answer(201, b"stored")

    def do_GET(self) -> None:
        """Show how many there are, and the last."""
        self.answer(200, b"%d notes" % len(notes))

    def answer(self, status: int, body: bytes) -> None:
        """Send it."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
