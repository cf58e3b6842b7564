"""A gRPC service behind a proxy, and a channel through it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

grpc = pytest.importorskip("grpc", reason="needs grpcio: pip install grpcio")

from tests.programs.grpc_service import SERVICE, server  # noqa: E402 - after what it needs

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20.0
ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Stub:
    """The service's methods, with bytes for messages."""

    def __init__(self, channel: Any) -> None:
        path = f"/{SERVICE}/"
        self.channel = channel
        self.reserve = channel.unary_unary(path + "Reserve")
        self.count = channel.unary_unary(path + "Count")
        self.numbers = channel.unary_stream(path + "Numbers")
        self.total = channel.stream_unary(path + "Total")
        self.chat = channel.stream_stream(path + "Chat")


class GrpcRoute:
    """One service, one proxy, and channels to either."""

    def __init__(self, bench: Any, end: contextlib.ExitStack, **options: Any) -> None:
        self._end = end
        self.server, self.inventory, self.port = server()
        end.callback(lambda: self.server.stop(0).wait(PATIENCE_S))
        self.proxy = bench.proxy(f"127.0.0.1:{self.port}", **options)
        self.control = self.proxy.control
        self.address = f"{self.proxy.host}:{self.proxy.port}"
        self.stub = self.connect()

    def connect(self, *options: tuple[str, Any], direct: bool = False) -> Stub:
        """A channel of its own, and so a connection."""
        address = f"127.0.0.1:{self.port}" if direct else self.address
        retries = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
        channel = grpc.insecure_channel(address, options=(*ANY_SIZE, *retries, *options))
        self._end.callback(channel.close)
        return Stub(channel)

    def add(self, kind: str, stream: str = "upstream", name: str = "", **attributes: Any) -> str:
        """A toxic, by the name of its kind unless it is given one."""
        self.control.add_toxic(name or kind, kind, stream, attributes=attributes)
        return name or kind

    def hits(self, name: str) -> int:
        """How many calls or messages a toxic hit."""
        return int(self.proxy.hits(name)["requests"])

    def settled(self, bench: Any) -> None:
        """Nothing is in the proxy's hands."""
        bench.until(lambda: self.control._ask("ping")["held_bytes"] == 0, "the proxy holds nothing")


@contextlib.contextmanager
def route_of(bench: Any, **options: Any) -> Iterator[GrpcRoute]:
    """A route, and its end."""
    with contextlib.ExitStack() as end:
        yield GrpcRoute(bench, end, **options)


def ends(call: Any) -> tuple[list[bytes], Any, str]:
    """The messages that a stream gave, the status that it ended with, and its message."""
    seen: list[bytes] = []
    try:
        seen.extend(call)
    except grpc.RpcError as error:
        return seen, error.code(), error.details()
    return seen, call.code(), call.details() or ""


def fails(call: Any, *args: Any, **kwargs: Any) -> Any:
    """The error of a unary call."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=PATIENCE_S, **kwargs)
    return caught.value


def seconds(call: Any, *args: Any) -> float:
    """How long a call takes that succeeds."""
    began = time.monotonic()
    call(*args, timeout=PATIENCE_S)
    return time.monotonic() - began
