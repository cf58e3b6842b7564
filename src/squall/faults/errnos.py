"""The errors that a system call can be made to fail with, by their names in errno(3)."""

from __future__ import annotations

import difflib
import errno
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

__all__ = ["Errno"]

_NAMES = frozenset(errno.errorcode.values()) | {"EWOULDBLOCK", "ENOTSUP"}


def _known(name: str) -> str:
    if name in _NAMES:
        return name
    close = difflib.get_close_matches(name.upper()[:20], _NAMES, n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close else "they are spelt as in errno(3): EIO, ENOSPC, EMFILE, ECONNREFUSED"
    )
    raise ValueError(f"there is no error {name[:20]!r}; {hint}")


Errno = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "pattern": "^E[A-Z0-9]+$", "examples": ["EIO", "ENOSPC"]}),
]
"""The name of an error: "EIO"."""
