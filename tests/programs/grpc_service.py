"""A gRPC service without a line of generated code: `grpc_service.py PORT` (0: any); it prints `ready PORT`.

shop.v1.Inventory has Reserve (the answer is the request), Count (unary: "0"), Numbers (so many messages), Total (how
many bytes came) and Chat (each message back).
"""

from __future__ import annotations

import sys
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "shop.v1.Inventory"


class Inventory(grpc.GenericRpcHandler):
    """Messages are bytes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """The methods that were called."""
        self.cancelled = 0

    def service(self, details: Any) -> Any:
        """The handler of a method; None for one that there is not."""
        service, _, method = details.method.lstrip("/").partition("/")
        kinds = {
            "Reserve": grpc.unary_unary_rpc_method_handler(self.reserve),
            "Count": grpc.unary_unary_rpc_method_handler(self.count),
            "Numbers": grpc.unary_stream_rpc_method_handler(self.numbers),
            "Total": grpc.stream_unary_rpc_method_handler(self.total),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        self.calls.append(method)
        return kinds.get(method) if service == SERVICE else None

    def reserve(self, request: bytes, context: Any) -> bytes:
        """The request, with the call's metadata back in the trailers."""
        echoed = [(f"echo-{key}", value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata((("x-first-bin", b"\x00\xff"),))
        context.set_trailing_metadata((*echoed, ("x-last-bin", b"\x00\x01\xfe")))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not 100% here")
        return request

    def count(self, request: bytes, context: Any) -> bytes:
        """Nothing is counted."""
        del request, context
        return b"0"

    def numbers(self, request: bytes, context: Any) -> Iterator[bytes]:
        """The first so many."""
        context.add_callback(self._over(context))
        for number in range(int(request)):
            yield b"%d" % number

    def total(self, requests: Iterator[bytes], context: Any) -> bytes:
        """How many bytes came."""
        del context
        return b"%d" % sum(map(len, requests))

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Each message back."""
        context.add_callback(self._over(context))
        yield from requests

    def _over(self, context: Any) -> Any:
        def over() -> None:
            self.cancelled += not context.code()

        return over


def server(port: int = 0, workers: int = 32, options: tuple[tuple[str, Any], ...] = ()) -> tuple[Any, Inventory, int]:
    """A started server, its handler and its port."""
    inventory = Inventory()
    made = grpc.server(
        futures.ThreadPoolExecutor(workers),
        options=(("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0), *options),
    )
    made.add_generic_rpc_handlers((inventory,))
    bound = made.add_insecure_port(f"127.0.0.1:{port}")
    made.start()
    return made, inventory, bound


if __name__ == "__main__":
    running, _, listening = server(int(sys.argv[1]))
    print("ready", listening, flush=True)
    running.wait_for_termination()
