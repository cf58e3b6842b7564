"""http.delay and http.abort by the chaos middleware that a service has in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import MiddlewareWorker
from squall.faults.http import Abort, Delay
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.targets import MiddlewareTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["MiddlewareInjector"]

_DELAY_MOST_NS = 3_600_000_000_000
_FILE_MOST = 65_000
"""The file with all that is around it may have 64 KiB."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_FRAMING = ("content-length", "transfer-encoding", "connection")
_LINGER_S = 2.0


class MiddlewareInjector:
    """The service's own middleware does it, in the request's own trace; a worker tells it what, under a lease."""

    mechanism: ClassVar[str] = "middleware"
    faults: ClassVar[tuple[str, ...]] = ("http.delay", "http.abort")
    summary: ClassVar[str] = (
        "the squall-resilience middleware in the service, over TLS and HTTP/2 too; ends with the lease, within a second"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return Capability(works=True)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(target, MiddlewareTarget):
            return Refusal(self.mechanism, f"works inside services that have it, not on a {target.kind}")
        if not isinstance(fault, Delay | Abort):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        told = _told(fault, site)
        reason = _refusal(fault) or ("its file would be too long" if len(json.dumps(told)) > _FILE_MOST else None)
        if reason is not None:
            return Refusal(self.mechanism, reason)
        worker = MiddlewareWorker(
            token=f"{site.run}/{site.fault}.middleware",
            module="squall.workers.middleware",
            purpose=f"let {target.label} {_purpose(fault)}",
            config={"folder": target.folder, "name": target.name, "run": site.run, "fault": told},
            holds=(target.key,),
            linger_s=_LINGER_S,
        )
        return Plan(
            self.mechanism, (worker,), _accuracy(fault), accuracy_ns=1_000_000,
            not_covered=("requests that do not pass the middleware", "WebSockets, and what the service has begun to answer"),
        )  # fmt: skip


def _told(fault: Delay | Abort, site: Site) -> dict[str, Any]:
    """The fault as NAME.json has it."""
    told: dict[str, Any] = {
        "id": site.fault, "require_header": False, "header": "X-Chaos-Enabled", "sample": float(fault.percent),
        "method": fault.method or "", "path": fault.path or "", "headers": dict(fault.headers), "delay_min_ns": 0,
        "delay_max_ns": 0, "abort_status": None, "abort_body": "", "abort_headers": {}, "seed": site.seed,
    }  # fmt: skip
    if isinstance(fault, Abort):
        return told | {
            "abort_status": fault.status, "abort_body": fault.body, "abort_headers": dict(fault.response_headers),
        }  # fmt: skip
    return told | {"delay_min_ns": int(fault.delay - fault.jitter), "delay_max_ns": int(fault.delay + fault.jitter)}


def _refusal(fault: Delay | Abort) -> str | None:
    """What of the fault it cannot honour; all of it."""
    given = fault.selection()
    reasons = [f"it sees requests, not connections: leave out `{'`, `'.join(given)}`"] if given else []
    reasons += _no_tokens(fault.headers, "headers")
    if isinstance(fault, Delay):
        if fault.on == "response":
            reasons.append("it delays requests before the handler: leave out `on: response`, or fault a route")
        if fault.jitter > fault.delay:
            reasons.append(f"it draws evenly and never below zero: give a jitter of at most the delay ({fault.delay})")
        if fault.delay + fault.jitter > _DELAY_MOST_NS:
            reasons.append("it delays by an hour at most, jitter included")
    else:
        reasons += _no_tokens(fault.response_headers, "responseHeaders")
        for name, value in fault.response_headers.items():
            if name.lower() in _FRAMING:
                reasons.append(f"`responseHeaders`: {name} is the server's own matter")
            if _CONTROL_CHARACTERS.search(value):
                reasons.append(f"`responseHeaders`: the value of {name} has control characters in it")
    return "; ".join(reasons) or None


def _no_tokens(headers: Mapping[str, str], where: str) -> list[str]:
    return [f"`{where}`: {name!r} is no header's name" for name in headers if not _TOKEN.fullmatch(name)]


def _purpose(fault: Delay | Abort) -> str:
    what = f"{fault.percent} of {fault.method or 'all'} requests" + (f" to {fault.path}" if fault.path else "")
    if isinstance(fault, Abort):
        return f"answer {what} with {fault.status}"
    return f"delay {what} by {fault.delay}" + (f" +- {fault.jitter}" if fault.jitter else "")


def _accuracy(fault: Delay | Abort) -> str:
    share = "each request is drawn for from the seed"
    return share if isinstance(fault, Abort) else f"never early; as late as the service's own timers are; {share}"
