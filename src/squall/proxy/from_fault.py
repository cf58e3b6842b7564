"""From the vocabulary of faults to toxics: what the proxy is told to make a `tcp.*`, `http.*` or `grpc.*` fault real. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squall.errors import InputError
from squall.faults import grpc, http, tcp
from squall.proxy.http.rules import check_names

if TYPE_CHECKING:
    from squall.faults import Fault
    from squall.units import Duration

__all__ = ["ToxicSpec", "accuracy_of", "toxic_of"]


@dataclass(frozen=True, slots=True)
class ToxicSpec:
    """The arguments of `ProxyControl.add_toxic`, but for the name; `toxicity` is a share, 0 to 1."""

    type: str
    stream: str
    toxicity: float = 1.0
    attributes: dict[str, Any] = field(default_factory=dict)


def toxic_of(fault: Fault) -> ToxicSpec:
    """The toxic that makes this fault real.

    Raises InputError for a fault that is no toxic (`tcp.down` is the proxy being disabled), and for headers that cannot
    be set.
    """
    if isinstance(fault, tcp.TcpFault):
        kind, attributes = _tcp(fault)
        return ToxicSpec(kind, fault.direction, float(fault.percent), attributes)
    if isinstance(fault, http.HttpFault):
        kind, stream, attributes = _http(fault)
        return ToxicSpec(kind, stream, 1.0, {**_match(fault), **attributes})
    if isinstance(fault, grpc.GrpcFault):
        kind, stream, attributes = _grpc(fault)
        return ToxicSpec(kind, stream, 1.0, {**_calls(fault), **attributes})
    raise InputError(f"{fault.type} is not a toxic: those are tcp.*, except tcp.down, http.* and grpc.*")


def accuracy_of(fault: Fault) -> str:
    """What the proxy promises about this fault, for the plan."""
    if isinstance(fault, (tcp.Latency, http.Delay, grpc.Delay)):
        return "never early; median error below 0.3 ms on an idle machine"
    if isinstance(fault, tcp.BandwidthLimit):
        return "the average over a second within 1 %"
    return "exact: each connection, request and byte is counted"


def _tcp(fault: tcp.TcpFault) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 - a table
    match fault:
        case tcp.Latency():
            attributes = {
                **_ns("latency", fault.latency),
                **_ns("jitter", fault.jitter),
                "correlation": float(fault.correlation),
            }
            return "latency", attributes
        case tcp.BandwidthLimit():
            rate, rest = divmod(int(fault.rate), 1000)
            return "bandwidth", {"rate": rate, "rate_bytes": rest}
        case tcp.SlowClose():
            return "slow_close", _ns("delay", fault.delay)
        case tcp.Timeout():
            return "timeout", _ns("timeout", fault.timeout)
        case tcp.Reset():
            return "reset_peer", _ns("timeout", fault.timeout)
        case tcp.Slicer():
            delay_us, rest_ns = divmod(int(fault.delay), 1000)
            return "slicer", {
                "average_size": int(fault.average), "size_variation": int(fault.variation), "delay": delay_us, "delay_ns": rest_ns,
            }  # fmt: skip
        case tcp.LimitData():
            return "limit_data", {"bytes": int(fault.bytes)}
    raise InputError(f"the proxy does not know {fault.type}")


def _ns(name: str, duration: Duration) -> dict[str, int]:
    """Whole milliseconds in Toxiproxy's attribute, the rest in ours."""
    ms, rest_ns = divmod(int(duration), 1_000_000)
    return {name: ms, f"{name}_ns": rest_ns}


def _match(fault: http.HttpFault) -> dict[str, Any]:
    match: dict[str, Any] = {"percent": float(fault.percent) * 100}
    if fault.method is not None:
        match["method"] = fault.method
    if fault.path is not None:
        match["path"] = fault.path
    if fault.headers:
        match["headers"] = dict(fault.headers)
    return match


def _http(fault: http.HttpFault) -> tuple[str, str, dict[str, Any]]:
    match fault:
        case http.Delay():
            return "http_delay", _stream(fault.on), {**_ns("delay", fault.delay), **_ns("jitter", fault.jitter)}
        case http.Abort():
            check_names(fault.response_headers)
            attributes: dict[str, Any] = {
                "status": fault.status,
                "body": fault.body,
                "response_headers": dict(fault.response_headers),
            }
            return "http_abort", "upstream", attributes
        case http.Replace():
            check_names(fault.set_headers or {})
            given = {
                "status": fault.status,
                "new_path": fault.new_path,
                "body": fault.body,
                "set_headers": fault.set_headers,
            }
            return "http_replace", _stream(fault.on), {key: value for key, value in given.items() if value is not None}
        case http.Patch():
            check_names(fault.set_headers)
            check_names(dict.fromkeys(fault.remove_headers, ""))
            attributes = {
                "set_headers": dict(fault.set_headers),
                "remove_headers": list(fault.remove_headers),
                "query": dict(fault.query),
            }
            return (
                "http_patch",
                _stream(fault.on),
                {**attributes, **({} if fault.body is None else {"body": fault.body})},
            )
    raise InputError(f"the proxy does not know {fault.type}")


def _calls(fault: grpc.GrpcFault) -> dict[str, Any]:
    match: dict[str, Any] = {"percent": float(fault.percent) * 100}
    if fault.service is not None:
        match["service"] = fault.service
    if fault.method is not None:
        match["method"] = fault.method
    if fault.metadata:
        match["headers"] = dict(fault.metadata)
    return match


def _grpc(fault: grpc.GrpcFault) -> tuple[str, str, dict[str, Any]]:
    match fault:
        case grpc.Delay():
            attributes: dict[str, Any] = {
                **_ns("delay", fault.delay),
                **_ns("jitter", fault.jitter),
                "each": fault.each,
            }
            return "grpc_delay", _stream(fault.on), attributes
        case grpc.Abort():
            check_names(fault.trailers)
            attributes = {
                "status": 1 + grpc.STATUSES.index(fault.status),
                "message": fault.message,
                "details": dict(fault.details),
                "trailers": dict(fault.trailers),
                "after_messages": fault.after_messages,
            }
            return "grpc_abort", _stream(fault.on) if fault.after_messages else "upstream", attributes
    raise InputError(f"the proxy does not know {fault.type}")


def _stream(on: str) -> str:
    return "upstream" if on == "request" else "downstream"
