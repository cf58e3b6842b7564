"""What a failure counts as: one table for every probe and for the load. Standard library only.

A sample's `detail` is the HTTP status (from 200 on) or an errno (below 200), so that the two never meet.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from squall.probes.wire import Malformed

if TYPE_CHECKING:
    from squall.probes.samples import Outcome

__all__ = ["LOCAL_LIMITS", "of_failure"]

_NO_CONNECTION = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENOENT})

LOCAL_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})
"""Errors of opening a connection that say something about the measuring side, not about the service."""


def of_failure(error: BaseException) -> tuple[Outcome, int]:
    """The outcome and the detail of an exchange that ended in this exception.

    refused: no connection could be opened (a host that is not found counts as EHOSTUNREACH); timeout; all else is
    `error`, with EPROTO for an answer that is not HTTP or TLS that cannot be agreed on.
    """
    if isinstance(error, socket.gaierror):
        return "refused", errno.EHOSTUNREACH
    if isinstance(error, TimeoutError):
        return "timeout", errno.ETIMEDOUT
    if isinstance(error, Malformed) or type(error).__module__ == "ssl":
        return "error", errno.EPROTO
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return ("refused" if error.errno in _NO_CONNECTION else "error"), error.errno
    return "error", 0
