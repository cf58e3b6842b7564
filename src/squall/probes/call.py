"""From a document's `HttpRequest` to the bytes that are sent, secrets filled in. What is wrong is an InputError, at the start."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squall import __version__
from squall.errors import InputError
from squall.probes.spec import Secret
from squall.probes.wire import Call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.probes.spec import HttpRequest

__all__ = ["address", "header_values", "prepare"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_SECRET_MOST = 65_536


def prepare(request: HttpRequest, *, where: str, close: bool) -> Call:
    """The request as it is sent; `close` asks the server to end the connection after its answer.

    Raises InputError, naming `where`, for an address without a host, a header that cannot be sent or a missing secret.
    """
    tls, host, port, path = address(request.url, where=where)
    headers = header_values(request.headers, where=where)
    given = {name.lower() for name in headers}
    for name in sorted(given & _FRAMING):
        raise InputError(f"{where}: the header {name} is set by Squall itself; take it out")
    body, kind = _body(request)
    default_port = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    own = {
        "Host": shown if port == default_port else f"{shown}:{port}",
        "User-Agent": f"squall/{__version__}",
        "Accept": "*/*",
        **({"Content-Type": kind} if kind else {}),
        **({"Connection": "close"} if close else {}),
    }
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in own.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
    return Call(host, port, tls, head + body, request.method == "HEAD", _statuses(request.success))


def address(url: str, *, where: str) -> tuple[bool, str, int, str]:
    """Whether it is TLS, the host, the port, and the path with its query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{where}: {url!r} is not an address: {error}") from error
    if not host:
        raise InputError(f"{where}: {url!r} has no host: write it like http://127.0.0.1:8080/path")
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{where}: credentials do not belong in an address: use a header whose value is a secret,"
            " for example Authorization: {env: NAME, prefix: 'Basic '}"
        )
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return tls, host, port if port is not None else (443 if tls else 80), path


def header_values(headers: Mapping[str, str | Secret], *, where: str) -> dict[str, str]:
    """The headers with secrets filled in; InputError for a missing one, named by its source, never by its value."""
    found = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise InputError(f"{where}: {name!r} cannot be a header's name")
        secret = isinstance(value, Secret)
        text = _secret(value, where=f"{where}: header {name}") if isinstance(value, Secret) else value
        if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in text):  # noqa: PLR2004 - ASCII controls
            shown = "its secret" if secret else repr(text)
            raise InputError(f"{where}: header {name}: {shown} holds a line end or another control character")
        found[name] = text
    return found


def _secret(secret: Secret, *, where: str) -> str:
    if secret.env is not None:
        value = os.environ.get(secret.env)
        if value is None:
            raise InputError(f"{where}: the environment variable {secret.env} is not set")
        return secret.prefix + value
    path = Path(secret.file or "")
    try:
        with path.open("rb") as file:
            data = file.read(_SECRET_MOST + 1)
        if len(data) > _SECRET_MOST:
            raise InputError(f"{where}: the secret's file {path} is longer than {_SECRET_MOST} bytes")
        value = data.decode()
    except OSError as error:
        raise InputError(f"{where}: the secret's file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"{where}: the secret's file {path} is not UTF-8 text") from None
    return secret.prefix + value.removesuffix("\n").removesuffix("\r")


def _body(request: HttpRequest) -> tuple[bytes, str]:
    """The body and its default Content-Type."""
    if request.body is None:
        return b"", ""
    if isinstance(request.body, str):
        return request.body.encode(), "text/plain; charset=utf-8"
    return json.dumps(request.body, separators=(",", ":")).encode(), "application/json"


def _statuses(patterns: Sequence[str]) -> frozenset[int]:
    statuses: set[int] = set()
    for pattern in patterns:
        first = int(pattern[0]) * 100
        statuses.update(range(first, first + 100) if pattern.endswith("xx") else (int(pattern),))
    return frozenset(statuses)
