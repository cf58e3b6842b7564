"""One page a fault, and the table of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from reference_pages.schema import prose, table
from squall.faults import FAULTS, parse_fault
from squall.injectors import INJECTORS

if TYPE_CHECKING:
    from squall.faults import Fault

__all__ = ["pages"]

FAMILIES = {
    "network": "Packets, of programs that know nothing of it: late, lost, doubled, broken, out of order, cut off.",
    "process": "Processes: killed, crashed, paused.",
    "stress": "What a service needs, used up: CPU, memory, file descriptors, disk.",
    "tcp": "TCP connections: those that pass a proxied route, whatever they carry, and (`tcp.delay`) any in the kernel.",
    "dns": "Names that a service looks up.",
    "time": "What a process takes for the time.",
    "http": "HTTP requests and responses that pass Squall's proxy: by a route, or led there by the kernel.",
    "grpc": "gRPC calls that pass Squall's proxy: by a route, or led there by the kernel.",
}
"""What the families are about; one without a line here is listed by its name alone."""


EXAMPLES: dict[str, dict[str, object]] = {
    "network.delay": {"latency": "100ms", "jitter": "20ms", "correlation": "25%", "remotePorts": [5432]},
    "network.loss": {"percent": "5%", "protocol": "udp"},
    "network.duplicate": {"percent": "2%", "direction": "ingress"},
    "network.corrupt": {"percent": "1%", "peers": ["10.0.0.0/8"]},
    "network.reorder": {"percent": "25%", "latency": "20ms"},
    "network.bandwidth": {"rate": "1mbit", "per": "flow"},
    "network.partition": {"peers": ["payment.internal"]},
    "process.pause": {"stopped": "20ms", "every": "100ms"},
    "process.kill": {"signal": "SIGTERM"},
    "stress.cpu": {"load": "80%", "workers": 2},
    "stress.memory": {"amount": "1GiB", "leak": "10MB/s"},
    "stress.fd": {"leave": 3},
    "stress.disk": {"path": "/var/lib/orders", "fill_percent": "98%"},
    "dns.error": {"names": ["*.example.com"], "error": "servfail"},
    "dns.random": {"names": ["db", "db.*"]},
    "dns.fixed": {"names": ["api.example.com"], "addresses": ["192.0.2.1", "2001:db8::1"]},
    "io.error": {"calls": ["write", "sync"], "errno": "ENOSPC", "paths": ["/var/lib/orders"]},
    "io.delay": {"calls": ["sync"], "delay": "200ms", "jitter": "50ms"},
    "io.corrupt": {"paths": ["/var/lib/orders/cache/*"], "percent": "1%"},
    "syscall.error": {"calls": ["connect"], "errno": "ECONNREFUSED", "percent": "30%"},
    "syscall.delay": {"calls": ["accept4"], "delay": "50ms"},
    "time.skew": {"offset": "-1d", "drift": "200ppm"},
    "tcp.delay": {"policy": {"10.0.0.1:8080": "20ms", "0.0.0.0:5432": "50ms"}},
    "tcp.latency": {"latency": "300ms", "jitter": "50ms"},
    "tcp.bandwidth": {"rate": "1mbit"},
    "tcp.slow_close": {"delay": "5s"},
    "tcp.timeout": {"timeout": "3s", "percent": "10%"},
    "tcp.reset": {"percent": "5%"},
    "tcp.slicer": {"average": "16B", "variation": "8B", "delay": "5ms"},
    "tcp.limit_data": {"bytes": "4KiB"},
    "http.delay": {"path": "/orders/*", "delay": "2s", "percent": "20%"},
    "http.degrade": {"delay": "500us"},
    "http.abort": {"method": "POST", "path": "/orders", "status": 503, "response_headers": {"Retry-After": "1"}},
    "http.replace": {"on": "response", "path": "/stock/*", "body": "not what you asked for"},
    "http.patch": {"on": "response", "path": "/stock/*", "body": {"left": 0}},
    "grpc.delay": {"service": "shop.v1.Inventory", "method": "Reserve", "delay": "2s", "percent": "20%"},
    "grpc.abort": {
        "service": "shop.v1.*",
        "status": "RESOURCE_EXHAUSTED",
        "message": "out of stock clerks",
        "percent": "10%",
    },
}
"""What one might write for a fault; each is parsed when its page is made. One that is not here needs no keys."""

TARGETS = {
    "process": "{process: {command: my-service}}",
    "cgroup": "{cgroup: system.slice/my-service.service}",
    "container": "{container: my-service}",
    "netns": "{netns: my-service}",
    "route": '{route: {listen: "127.0.0.1:8081", upstream: "127.0.0.1:8080"}}',
}


def pages() -> dict[str, str]:
    """`faults.md`, and `faults/TYPE.md` for each fault."""
    return {"faults.md": _overview(), **{f"faults/{tag}.md": _page(fault) for tag, fault in FAULTS.items()}}


def _first_sentence(fault: type[Fault]) -> str:
    return prose((fault.__doc__ or "").split("\n\n")[0])


def _overview() -> str:
    parts = [
        "# Faults\n",
        (
            "Each fault is one model in `src/squall/faults`, and this page is made from those models. "
            "`squall faults` lists the same on the command line, `squall faults TYPE` describes one.\n"
        ),
    ]
    for family in dict.fromkeys(tag.partition(".")[0] for tag in FAULTS):
        members = {tag: fault for tag, fault in FAULTS.items() if tag.startswith(f"{family}.")}
        parts += [f"## {family}\n", FAMILIES.get(family, "") + "\n", "| Fault | What happens | On |", "|---|---|---|"]
        parts += [
            f"| [`{tag}`](faults/{tag}.md) | {_first_sentence(fault)} | {', '.join(fault.targets)} |"
            for tag, fault in members.items()
        ]
        parts += ["", "```{toctree}", ":hidden:", *(f"faults/{tag}" for tag in members), "```", ""]
    return "\n".join(parts)


def _example(fault: type[Fault]) -> str:
    """The fault in a document, with the keys as a document spells them."""
    given = parse_fault(fault.type, EXAMPLES.get(fault.type, {}))
    said = given.model_dump(mode="json", by_alias=True, exclude_unset=True)
    keys = "".join(f", {name}: {json.dumps(value) if not _plain(value) else value}" for name, value in said.items())
    target = TARGETS[fault.targets[0]]
    return f"```yaml\nfaults:\n  - {{type: {fault.type}{keys}}}\ntargets: {target}\n```"


def _plain(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.%]*", value) is not None


def _mechanisms(fault: type[Fault]) -> str:
    rows = [
        f"| `{each.mechanism}` | {each.summary} | {each.recoverability} |"
        for each in INJECTORS
        if fault.type in each.faults
    ]
    return "\n".join(["| Mechanism | How | Recovery |", "|---|---|---|", *rows])


def _page(fault: type[Fault]) -> str:
    schema = fault.model_json_schema(by_alias=True)
    kinds = " or ".join(f"`{kind}`" for kind in fault.targets)
    undo = (
        "It ends when the run does, whatever dies meanwhile."
        if fault.reversible
        else "It cannot be taken back: the plan says so before anything is touched, and what is watched is the system's own "
        "recovery."
    )
    parts = [
        f"# {fault.type}",
        prose(fault.__doc__ or ""),
        f"It happens to a target of kind {kinds}. {undo}",
        _example(fault),
        "## Keys",
        table(schema, {}),
        (
            "Beside these stand the keys that every fault of an experiment has: `targets`, `after`, `duration`, `pulse` (see "
            "[FaultStep](../document.md#faultstep)). On the command line the keys are options: "
            f"`squall inject {fault.type} --help`."
        ),
        "## How it is made real",
        (
            "What [recovery](../../../guarantees.md#2-whatever-dies-the-target-returns-to-normal) means is one of the guarantees; "
            "`squall doctor` says which mechanism this machine would use."
        ),
        _mechanisms(fault),
    ]
    return "\n\n".join(parts) + "\n"
