"""Host names among the peers of a network fault: resolved again every few seconds, beside the worker's own work."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVERY_S", "Names", "addresses_of"]

EVERY_S = 5.0
"""How often a name is resolved again."""


def addresses_of(name: str) -> tuple[str, ...]:
    """What a name resolves to now, sorted; empty where it does not."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(sorted({str(address[0]).partition("%")[0] for *_, address in found}))


class Names:
    """Begins with what the plan has found. Its thread asks from the network namespace in which it was made, as Squall would.

    A name that does not resolve any more keeps its last addresses.
    """

    def __init__(self, resolved: Mapping[str, tuple[str, ...]]) -> None:
        self._resolved = {name: tuple(found) for name, found in resolved.items()}
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="squall-names", daemon=True).start()

    def resolved(self) -> dict[str, tuple[str, ...]]:
        """The addresses of each name, as last found."""
        return dict(self._resolved)

    def add(self, resolved: Mapping[str, tuple[str, ...]]) -> None:
        """Keep these names as well, beginning with these addresses where one is new."""
        new = {name: tuple(found) for name, found in resolved.items()}
        self._resolved = {**new, **{name: found for name, found in self._resolved.items() if found}}

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(EVERY_S):
            for name in list(self._resolved):
                found = addresses_of(name)
                if found:
                    self._resolved = {**self._resolved, name: found}
