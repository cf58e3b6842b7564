"""The TCP / HTTP fault proxy and its Toxiproxy-compatible API.

Two processes: the data plane (`owned`, an epoll loop and nothing else in the way of bytes) and, for `squall proxy`, the
API beside it (`service`). In experiments a run owns a data plane of its own and talks to it through
`squall.actions.proxy_control`. What the data plane imports is standard library only, so that it starts at once.
Nothing of experiments, targets or journals may enter here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["serve"]


def serve(
    api_host: str = "127.0.0.1",
    api_port: int = 8474,
    config_path: str | None = None,
    options: Mapping[str, object] | None = None,
    *,
    seed: int | None = None,
    ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve the Toxiproxy API and its proxies until SIGTERM or SIGINT; see `service.serve`."""
    from squall.proxy import service  # an HTTP server is not for the data plane, which imports this package too

    service.serve(api_host, api_port, config_path, options, seed=seed, ready=ready)
