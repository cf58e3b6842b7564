"""Each hit is seen: a counter, a span in the request's own trace, a JSON line. Only hits pay for it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from squall_resilience import __version__
from squall_resilience.forking import survive_forks
from squall_resilience.metrics import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall_resilience.chaos.decision import Hit, Seen
    from squall_resilience.metrics import Registry

__all__ = ["Injected", "Telling", "injected", "parent_of"]

logger = logging.getLogger("squall.chaos")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)  # a service whose root logger is at WARNING is to know of its faults all the same

_HELP = "Faults injected into requests by the chaos middleware."
_REFUSED = "Requests whose chaos header was not signed as it must be."
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Injected:
    """How often a service's requests were hit, for its metrics."""

    kind = "chaos"

    def __init__(self, service: str) -> None:
        self.dependency = service
        self.counts = {"delay": 0, "abort": 0}
        self.refused = 0
        self.lock = threading.RLock()
        survive_forks(self)

    def count(self, reason: str | None, *, refused: bool) -> None:
        """One request more that was hit, or whose header was refused."""
        with self.lock:
            self.refused += refused
            if reason is not None:
                self.counts[reason] += 1

    def forked(self) -> None:
        """A child counts on from where it was forked."""

    def samples(self) -> Iterator[Sample]:
        """http_chaos_injected_total by reason, and http_chaos_refused_total."""
        service = ("service", self.dependency)
        for reason, count in self.counts.items():
            yield Sample("http_chaos_injected_total", count, (service, ("reason", reason)), "counter", _HELP)
        yield Sample("http_chaos_refused_total", self.refused, (service,), "counter", _REFUSED)


def injected(service: str, registry: Registry | None) -> Injected:
    """The counts of this service: one for all of its middlewares."""
    found = registry.find(Injected.kind, service) if registry is not None else None
    if isinstance(found, Injected):
        return found
    made = Injected(service)
    if registry is not None:
        registry.add(made)
    return made


def parent_of(traceparent: str) -> tuple[str, str, int] | None:
    """Trace id, span id and flags of a `traceparent` header (W3C Trace Context, level 1); None for one that is none."""
    parts = _TRACEPARENT.fullmatch(traceparent.strip())
    if parts is None or (traceparent.startswith("00") and parts[4]) or not (int(parts[1], 16) and int(parts[2], 16)):
        return None
    return parts[1], parts[2], int(parts[3], 16)


class Telling:
    """Tells of a hit; OpenTelemetry is used where its API is installed, and never asked for otherwise."""

    def __init__(self, service: str) -> None:
        self._service = service
        try:
            from opentelemetry import trace
        except ImportError:
            self._trace: Any = None
        else:
            self._trace = trace
            self._tracer = trace.get_tracer("squall_resilience.chaos", __version__)

    def tell(self, hit: Hit, seen: Seen) -> AbstractContextManager[object]:
        """Log the hit; returns its span, to be entered for as long as the fault lasts."""
        parent = self._parent(seen)
        self._log(hit, seen, parent)
        if self._trace is None:
            return contextlib.nullcontext()
        given: dict[str, str | int | float] = {"chaos.service": self._service, "chaos.reason": hit.reason}
        given |= {"chaos.delay_ms": hit.delay_ns / 1e6} if hit.status is None else {"chaos.status": hit.status}
        given |= {"chaos.fault": hit.rule.fault} if hit.rule.fault else {}
        span: AbstractContextManager[object] = self._tracer.start_as_current_span(
            f"{hit.reason}-injected", context=self._context(parent), attributes=given
        )
        return span

    def _parent(self, seen: Seen) -> tuple[str, str, int] | None:
        if self._trace is not None:
            active = self._trace.get_current_span().get_span_context()
            if active.is_valid:
                return f"{active.trace_id:032x}", f"{active.span_id:016x}", int(active.trace_flags)
        headers = seen.values("traceparent")
        return parent_of(headers[0]) if headers else None

    def _context(self, parent: tuple[str, str, int] | None) -> Any:
        """Where the span hangs: None for the active one, or for a trace of its own."""
        trace = self._trace
        if parent is None or trace.get_current_span().get_span_context().is_valid:
            return None
        found = trace.SpanContext(int(parent[0], 16), int(parent[1], 16), True, trace.TraceFlags(parent[2]))
        return trace.set_span_in_context(trace.NonRecordingSpan(found))

    def _log(self, hit: Hit, seen: Seen, parent: tuple[str, str, int] | None) -> None:
        fields: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": "info",
            "msg": "chaos injected",
            "service": self._service,
            "reason": hit.reason,
            **({"delay_ms": hit.delay_ns / 1e6} if hit.status is None else {"status": hit.status}),
            "method": seen.method,
            "path": seen.path,
        }
        if parent is not None:
            fields |= {"trace_id": parent[0], "span_id": parent[1]}
        if hit.rule.fault:
            fields["fault"] = hit.rule.fault
        line = json.dumps(fields)
        if logger.hasHandlers():
            logger.info("%s", line, extra={"chaos": fields})
        elif logger.isEnabledFor(logging.INFO):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
                sys.stderr.write(line + "\n")
