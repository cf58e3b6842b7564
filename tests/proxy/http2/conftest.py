"""A gRPC service behind a proxy, for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def calls(bench: Any) -> Iterator[Any]:
    """A `GrpcRoute`."""
    from tests.proxy.http2.grpc_route import route_of

    with route_of(bench) as route:
        yield route
        route.settled(bench)
