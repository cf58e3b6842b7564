"""The TCP / HTTP fault proxy and its Toxiproxy-compatible API.

Two processes: the data plane (`owned`, an epoll loop and nothing else in the way of bytes) and, for `squall proxy`, the
API beside it (`service`). In experiments a run owns a data plane of its own and talks to it through
`squall.actions.proxy_control`. What the data plane imports is standard library only, so that it starts at once.
Nothing of experiments, targets or journals may enter here.
"""

from __future__ import annotations

__all__: list[str] = []
