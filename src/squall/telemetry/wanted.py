"""What telemetry was asked for, by options or by the environment; needs nothing that may not be installed."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.probes.traceparent import Tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "Wanted", "read_address", "wanted"]

HOW_TO_INSTALL = "pip install 'squall[telemetry]'"
_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_PROTOCOLS = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
_PORT_MOST = 65_535

Address = tuple[str, int]


@dataclass(frozen=True)
class Wanted:
    """What is to be told to whom. Nothing of it: nothing is imported, no request carries anything."""

    otlp: str | None = None
    """A collector's base address."""
    from_environment: bool = False
    """Spans and numbers go where OTEL_EXPORTER_OTLP_* says."""
    traces: bool = True
    metrics: bool = True
    listen: Address | None = None
    """Where `/metrics` is served."""
    hold_s: float = 2.0
    """How long the end waits for one more scrape."""
    lines: str | None = None
    """The file that log lines are appended to, `-` for standard error."""
    tracing: Tracing | None = None
    """That the run is a trace; None where nobody would see it."""
    remarks: tuple[str, ...] = ()
    """What of the environment could not be followed."""

    @property
    def anything(self) -> bool:
        """Whether anybody is to be told anything."""
        return bool(self.otlp or self.from_environment or self.listen or self.lines)


def wanted(
    *,
    otlp: str | None = None,
    listen: str | None = None,
    hold_s: float = 2.0,
    lines: str | None = None,
    trace_url: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Wanted:
    """What the options say, then the environment.

    Raises InputError for an address that is none, and where an option needs what is not installed.
    """
    if otlp is not None and not otlp.startswith(("http://", "https://")):
        raise InputError(f"--otlp {otlp!r} is not an address: write it like http://127.0.0.1:4318 (OTLP over HTTP)")
    if trace_url is not None and not trace_url.startswith(("http://", "https://")):
        raise InputError(f"--trace-url {trace_url!r} is not an address that begins with http:// or https://")
    address = read_address(listen) if listen is not None else None
    if otlp is not None:
        _need("--otlp", "opentelemetry.exporter.otlp.proto.http")
    if address is not None:
        _need("--metrics-listen", "prometheus_client")
    follows, remarks = (False, ()) if otlp is not None else _environment(environment)
    caller = environment.get("TRACEPARENT", "")
    anything = bool(otlp or follows or address or lines or caller)
    return Wanted(
        otlp=otlp,
        from_environment=follows,
        traces=environment.get("OTEL_TRACES_EXPORTER", "otlp") != "none",
        metrics=environment.get("OTEL_METRICS_EXPORTER", "otlp") != "none",
        listen=address,
        hold_s=hold_s,
        lines=lines,
        tracing=Tracing(caller, trace_url or "") if anything else None,
        remarks=remarks,
    )


def read_address(text: str) -> Address:
    """HOST:PORT, [V6]:PORT or :PORT (then 127.0.0.1); InputError for anything else."""
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not colon or not 0 <= number <= _PORT_MOST or (":" in host and not host.startswith("[")):
        raise InputError(f"--metrics-listen {text!r} cannot be read: write HOST:PORT, for example 127.0.0.1:9464")
    return host.strip("[]") or "127.0.0.1", number


def _environment(environment: Mapping[str, str]) -> tuple[bool, tuple[str, ...]]:
    """Whether OTEL_EXPORTER_OTLP_* asks for OTLP that can be had, and why not."""
    asked = any(environment.get(name) for name in _ENDPOINTS)
    if not asked or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False, ()
    if any(environment.get(name) == "grpc" for name in _PROTOCOLS):
        return False, (
            "the environment asks for OTLP over gRPC; Squall speaks OTLP over HTTP: --otlp http://HOST:4318",
        )
    if not _there("opentelemetry.exporter.otlp.proto.http"):
        return False, (f"the environment asks for OTLP, which is not installed: {HOW_TO_INSTALL}",)
    return True, ()


def _need(option: str, module: str) -> None:
    if not _there(module):
        raise InputError(f"{option} needs what is not installed here: {HOW_TO_INSTALL}")


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # its parent is missing, or somebody blocked it
        return False
