"""Orders over HTTP that reserve stock over gRPC: `python3 examples/grpc/shop.py [ORDERS [INVENTORY [THROUGH]]]`.

Orders listens on 18091 and inventory on 18092; orders looks for inventory on 18093, where Squall's proxy listens while an
example runs. Messages are plain bytes, so that nothing has to be generated. Needs grpcio.
"""

from __future__ import annotations

import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

SERVICE, DEADLINE_S = "shop.v1.Inventory", 1.0
RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 5, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}  # fmt: skip
"""gRPC itself tries a call again that was not answered."""


def inventory(port: int) -> grpc.Server:
    """The service: each reservation is granted."""

    def reserve(request: bytes, _context: Any) -> bytes:
        return b"reserved " + request

    server = grpc.server(futures.ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
    handlers = {"Reserve": grpc.unary_unary_rpc_method_handler(reserve)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


class Orders(BaseHTTPRequestHandler):
    """An order is one reservation: 200, or 503 with gRPC's status."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    reserve: Any = None

    def do_POST(self) -> None:
        """Take an order."""
        item = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            said, status = {"said": self.reserve(item, timeout=DEADLINE_S).decode()}, 200
        except grpc.RpcError as error:
            said, status = {"error": error.code().name, "message": error.details()}, 503
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    given = [int(port) for port in sys.argv[1:]]
    orders_port, inventory_port, through = [*given, *(18091, 18092, 18093)[len(given) :]]
    server = inventory(inventory_port)
    channel = grpc.insecure_channel(
        f"127.0.0.1:{through}",
        options=(("grpc.service_config", json.dumps(RETRIES)), ("grpc.max_reconnect_backoff_ms", 200)),
    )
    Orders.reserve = channel.unary_unary(f"/{SERVICE}/Reserve")
    ThreadingHTTPServer(("127.0.0.1", orders_port), Orders).serve_forever()
    server.stop(None)


if __name__ == "__main__":
    main()
