"""Faults on TCP connections, as the proxy does them: Toxiproxy's vocabulary with units, filters and correlation.

On a route clients come to the proxy by their configuration; to a service that knows of none they are led by the kernel.
`tcp.delay` needs no proxy: the kernel itself holds the packets.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from squall.faults.base import Fault
from squall.faults.connections import ConnectionFault
from squall.faults.tcp_policy import Policy
from squall.units import Bandwidth, Duration, Ratio, Size, Within

__all__ = [
    "BandwidthLimit",
    "Down",
    "Latency",
    "LimitData",
    "PolicyDelay",
    "Reset",
    "Slicer",
    "SlowClose",
    "TcpFault",
    "Timeout",
]

_TARGETS = ("route", "process", "cgroup", "netns")
_HUNDRED = Ratio.parse("100%")


class TcpFault(ConnectionFault):
    """What the tcp family shares."""

    direction: Literal["upstream", "downstream"] = "downstream"
    """`upstream`: what the client sends to the service; `downstream`: what the service answers."""
    percent: Ratio = _HUNDRED
    """The share of connections that are hit; drawn once a connection, from the experiment's seed."""


class Latency(TcpFault, type="tcp.latency", targets=_TARGETS):
    """All data arrives late by `latency` +- `jitter`; order is kept and nothing is lost."""

    latency: Annotated[Duration, Within("0s", "1h")]
    """How late."""
    jitter: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """The delay is drawn evenly from latency - jitter to latency + jitter, never below zero."""
    correlation: Ratio = Ratio(0)
    """How much each draw depends on the one before: x = correlation * previous + (1 - correlation) * fresh."""


class BandwidthLimit(TcpFault, type="tcp.bandwidth", targets=_TARGETS):
    """Data passes at no more than `rate` in each connection."""

    rate: Annotated[Bandwidth, Within("1B/s", "100gbit")]
    """The limit for one connection and direction."""


class SlowClose(TcpFault, type="tcp.slow_close", targets=_TARGETS):
    """The end of a connection is passed on late: the other side keeps a dead connection for a while."""

    delay: Annotated[Duration, Within("0s", "1h")]
    """How late."""


class Timeout(TcpFault, type="tcp.timeout", targets=_TARGETS):
    """Data vanishes, and the connection is closed after `timeout` without any having passed; 0s never closes (a black hole)."""

    timeout: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """How long until the close; each chunk that arrives starts the clock anew, as in Toxiproxy."""


class Reset(TcpFault, type="tcp.reset", targets=_TARGETS):
    """The connection is reset (RST) once data has flowed, at once or `timeout` later."""

    timeout: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """How long after the first data."""


class Slicer(TcpFault, type="tcp.slicer", targets=_TARGETS):
    """Data arrives in small pieces, so that readers who expect whole messages are found out."""

    average: Annotated[Size, Within("1B", "1MiB")] = Size(64)
    """The average size of a piece."""
    variation: Annotated[Size, Within("0B", "1MiB")] = Size(0)
    """Pieces differ by up to this much; less than `average`."""
    delay: Annotated[Duration, Within("0s", "1m")] = Duration(0)
    """The pause between two pieces."""

    @model_validator(mode="after")
    def _pieces_have_a_size(self) -> Self:
        if self.variation >= self.average:
            raise ValueError(f"`variation` ({self.variation}) must be less than `average` ({self.average})")
        return self


class LimitData(TcpFault, type="tcp.limit_data", targets=_TARGETS):
    """The connection is closed after so many bytes have passed."""

    bytes: Size
    """How many pass."""


class Down(ConnectionFault, type="tcp.down", targets=_TARGETS):
    """The service cannot be reached: the port refuses, and open connections are closed."""


class PolicyDelay(Fault, type="tcp.delay", targets=("process", "cgroup", "netns")):
    """Data that the target sends on established TCP connections leaves late; handshakes and bare acknowledgements do not.

    The target's clients see late answers, and its own calls reach what it depends on late; nothing in it is configured.
    """

    policy: Policy
    """How late, by who is at one of the two ends: "10.0.0.1:8080": 20ms. The most exact entry decides: address and port, address, port,
    any (0.0.0.0:0 and [::]:0, which is 0s unless given); of two the one about the other end."""
