"""What a proxy counts, in Prometheus's text form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["render_metrics"]


def render_metrics(proxies: Iterable[Mapping[str, Any]]) -> str:
    """Toxiproxy's own counters (live, not only of connections that have ended), and connections and hits beside them."""
    listed = sorted(proxies, key=lambda proxy: str(proxy["name"]))
    lines: list[str] = []
    for name in ("received", "sent"):
        samples = [
            (
                {
                    "direction": direction,
                    "listener": proxy["listen"],
                    "proxy": proxy["name"],
                    "upstream": proxy["upstream"],
                },
                count,
            )
            for proxy in listed
            for direction, count in sorted(proxy["stats"][name].items())
        ]
        lines += _family(f"toxiproxy_proxy_{name}_bytes_total", f"Bytes {name} by a proxy.", "counter", samples)
    accepted = [({"proxy": proxy["name"]}, proxy["stats"]["connections"]) for proxy in listed]
    lines += _family("squall_proxy_connections_total", "Connections accepted by a proxy.", "counter", accepted)
    still = [({"proxy": proxy["name"]}, proxy["stats"]["open"]) for proxy in listed]
    lines += _family("squall_proxy_connections_open", "Connections open on a proxy.", "gauge", still)
    hits = [
        ({"proxy": proxy["name"], "toxic": toxic, "what": what}, count)
        for proxy in listed
        for toxic, counters in proxy["stats"]["hits"].items()
        for what, count in counters.items()
    ]
    lines += _family("squall_proxy_toxic_hits_total", "What a toxic has done since it was added.", "counter", hits)
    return "\n".join(lines) + "\n"


def _family(name: str, text: str, kind: str, samples: list[tuple[dict[str, Any], int]]) -> list[str]:
    if not samples:
        return []
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(str(label))}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
