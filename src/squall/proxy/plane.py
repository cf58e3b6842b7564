"""The data plane: all proxies of one process, and what can be done with them.

Operations take and give JSON values, are whole or refused, and never block: the control protocol and, through it, the
Toxiproxy API and the actions of experiments call them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall.proxy.flow import COPY_BYTES
from squall.proxy.http.rules import HTTP_KINDS
from squall.proxy.loop import Loop
from squall.proxy.pipes import PipePool
from squall.proxy.refusals import AlreadyExists, Invalid, NotFound
from squall.proxy.resolver import Resolver, read_endpoint
from squall.proxy.route import Proxy
from squall.proxy.toxics import KINDS, Direction, Toxic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.proxy.options import Options
    from squall.proxy.toxics.attributes import Attributes

__all__ = ["Budget", "Plane", "ProxySpec", "defaults_of"]


@dataclass(slots=True)
class Budget:
    """The bytes that all connections together have in hand, and how many they may."""

    limit: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """What a proxy is made from."""

    name: str
    listen: str
    upstream: str
    enabled: bool = True


class Plane:
    """Proxies by name, in order of creation; `seed` decides every draw (one is drawn, and told, when none is given)."""

    def __init__(self, options: Options, seed: int | None = None) -> None:
        self.options = options
        self.seed = int.from_bytes(os.urandom(7)) if seed is None else seed
        self.loop = Loop(options.spin_us, options.busy_poll_us)
        self.pool = PipePool(options.pipes)
        self.budget = Budget(options.total_bytes)
        self.buffer = memoryview(bytearray(COPY_BYTES))
        self.resolver = Resolver(self.loop)
        self.proxies: dict[str, Proxy] = {}

    # Proxies

    def proxy(self, name: str) -> Proxy:
        """The proxy of this name; NotFound."""
        try:
            return self.proxies[name]
        except KeyError:
            raise NotFound("proxy not found") from None

    def create(self, spec: ProxySpec) -> Proxy:
        """A new proxy, listening if enabled; AlreadyExists, CannotListen."""
        if spec.name in self.proxies:
            raise AlreadyExists("proxy already exists")
        proxy = Proxy(self, spec.name, spec.listen, spec.upstream)
        if spec.enabled:
            proxy.enable()
        self.proxies[spec.name] = proxy
        return proxy

    def populate(self, spec: ProxySpec) -> Proxy:
        """A proxy like this: the one that is there when its addresses are the same, else a new one in its place."""
        existing = self.proxies.get(spec.name)
        if existing is not None:
            if not _differs(existing, spec.listen, spec.upstream):
                return existing
            existing.disable()
            del self.proxies[spec.name]
        return self.create(spec)

    def update(self, name: str, spec: ProxySpec) -> Proxy:
        """Change addresses (open connections end) and whether it listens; its name and toxics stay."""
        proxy = self.proxy(name)
        if _differs(proxy, spec.listen, spec.upstream):
            proxy.disable()
            proxy.listen, proxy.upstream = spec.listen, spec.upstream
        if spec.enabled:
            proxy.enable()
        else:
            proxy.disable()
        return proxy

    def delete(self, name: str) -> None:
        """Stop a proxy and forget it; NotFound."""
        self.proxy(name).disable()
        del self.proxies[name]

    def reset(self) -> None:
        """Enable every proxy and take away every toxic."""
        for proxy in self.proxies.values():
            proxy.enable()
        self.clear_toxics()

    def clear_toxics(self) -> None:
        """Take away every toxic."""
        for proxy in self.proxies.values():
            for toxic in list(proxy.toxics):
                proxy.remove_toxic(toxic)

    # Toxics

    def add_toxic(self, proxy_name: str, given: Mapping[str, Any]) -> Toxic:
        """A new toxic from name, type, stream, toxicity and attributes; Invalid, AlreadyExists, NotFound."""
        proxy = self.proxy(proxy_name)
        toxic = new_toxic(given)
        if any(other.name == toxic.name for other in proxy.toxics):
            raise AlreadyExists("toxic already exists")
        toxic.attributes = toxic.attributes.updated(_mapping(given.get("attributes")))
        proxy.add_toxic(toxic)
        return toxic

    def update_toxic(self, proxy_name: str, name: str, given: Mapping[str, Any]) -> Toxic:
        """Change the attributes and toxicity of a toxic without a gap; Invalid, NotFound."""
        proxy = self.proxy(proxy_name)
        toxic = proxy.toxic(name)
        proxy.update_toxic(toxic, _mapping(given.get("attributes")), _toxicity(given.get("toxicity")))
        return toxic

    def remove_toxic(self, proxy_name: str, name: str) -> Toxic:
        """Take a toxic away; NotFound."""
        proxy = self.proxy(proxy_name)
        toxic = proxy.toxic(name)
        proxy.remove_toxic(toxic)
        return toxic

    # Ends

    def stop_listening(self) -> None:
        """Refuse new connections everywhere; open ones go on."""
        for proxy in self.proxies.values():
            proxy.stop_listening()

    def open_connections(self) -> int:
        """How many connections are open."""
        return sum(len(proxy.connections) for proxy in self.proxies.values())

    def close(self) -> None:
        """End everything."""
        for proxy in self.proxies.values():
            proxy.disable()


def new_toxic(given: Mapping[str, Any]) -> Toxic:
    """A toxic with its defaults filled in and the attributes at their defaults; Invalid."""
    stream = _text(given.get("stream"), "stream") or "downstream"
    direction: Direction
    if stream.lower() == "upstream":
        direction = "upstream"
    elif stream.lower() == "downstream":
        direction = "downstream"
    else:
        raise Invalid("stream was invalid, can be either upstream or downstream")
    kind = _text(given.get("type"), "type")
    defaults = defaults_of(kind)
    toxicity = _toxicity(given.get("toxicity"))
    name = _text(given.get("name"), "name") or f"{kind}_{stream}"
    return Toxic(name, kind, direction, 1.0 if toxicity is None else toxicity, defaults, spelling=stream)


def defaults_of(kind: str) -> Attributes:
    """The attributes of a toxic of this type; Invalid for an unknown one."""
    if kind in KINDS:
        return KINDS[kind].defaults
    if kind in HTTP_KINDS:
        return HTTP_KINDS[kind]
    raise Invalid("invalid toxic type")


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"{name}: {value!r} is not a text")
    return value


def _toxicity(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"toxicity: {value!r} is not a number")
    return float(value)


def _mapping(value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid("attributes: an object is needed")
    return value


def _differs(proxy: Proxy, listen: str, upstream: str) -> bool:
    return read_endpoint(proxy.listen) != read_endpoint(listen) or proxy.upstream != upstream
