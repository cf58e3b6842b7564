"""Faults on gRPC calls that pass the proxy, by a route or led there by the kernel."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from squall.faults.connections import ConnectionFault
from squall.faults.frozen import FrozenDict, FrozenMapping
from squall.units import Duration, Ratio, Within

__all__ = ["STATUSES", "Abort", "Delay", "GrpcFault", "Status"]

_TARGETS = ("route", "process", "cgroup", "netns")
_HUNDRED = Ratio.parse("100%")

Status = Literal[
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip
STATUSES: Final[tuple[Status, ...]] = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""gRPC's status codes from 1 on, in order."""

Metadata = FrozenMapping[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[0-9A-Za-z_.\-]+$")], str]


def _is_base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    return text


class GrpcFault(ConnectionFault):
    """Which calls are hit: all conditions that are given must hold."""

    service: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The service's full name, as in the .proto file ("shop.v1.Inventory"); `*` stands for any characters."""
    method: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The method's name ("Reserve"); `*` stands for any characters."""
    metadata: Metadata = FrozenDict()
    """Metadata that the call must carry; a value may hold `*`. Of binary metadata (`...-bin`) it is the base64 that is sent."""
    percent: Ratio = _HUNDRED
    """The share of matching calls that are hit; drawn for each call from the experiment's seed."""


class Delay(GrpcFault, type="grpc.delay", targets=_TARGETS):
    """Matching calls reach the service late, or their answers, or each message of a stream, come late; other calls do not wait."""

    delay: Annotated[Duration, Within("0s", "1h")]
    """How late."""
    jitter: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """The delay is drawn evenly from delay - jitter to delay + jitter, never below zero."""
    on: Literal["request", "response"] = "request"
    """What is late: what the caller sends, or what the service answers."""
    each: Literal["call", "message"] = "call"
    """The beginning of the call, with all that follows behind it; or every message by itself, in order."""


class Abort(GrpcFault, type="grpc.abort", targets=_TARGETS):
    """Matching calls end with a gRPC status from the proxy: before they reach the service, or after some of their messages."""

    status: Status = "UNAVAILABLE"
    """The status that the caller sees."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """The status's message."""
    details: FrozenMapping[
        Annotated[str, Field(min_length=1, max_length=1024)],
        Annotated[str, Field(max_length=8192), AfterValidator(_is_base64)],
    ] = FrozenDict()
    """Details of the status (google.rpc.Status): the type URL of each, and its message's bytes in base64."""
    trailers: Metadata = FrozenDict()
    """Metadata that comes with the status, for example grpc-retry-pushback-ms."""
    after_messages: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0: the service never sees the call; else so many messages pass first. A call with fewer of them is not hit."""
    on: Literal["request", "response"] = "response"
    """Whose messages are counted: the caller's, or the service's."""
