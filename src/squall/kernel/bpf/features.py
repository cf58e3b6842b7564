"""Whether this kernel takes an object: by really loading it, never by a version, a configuration or a list."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import cache

from squall.errors import SquallError
from squall.kernel.bpf.collection import Collection
from squall.kernel.bpf.library import BpfError

__all__ = ["Answer", "loads", "refusal"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes, no with the reason, or None: it could not be told, with the reason."""

    works: bool | None
    reason: str = ""


@cache
def loads(name: str, programs: tuple[str, ...] | None = None) -> Answer:
    """Whether the kernel verifies these programs of an object (all: None), for this user. Asked once a process."""
    try:
        Collection.load(name, programs).close()
    except BpfError as error:
        return refusal(error)
    except (OSError, SquallError) as error:
        return Answer(works=None, reason=str(error))
    return Answer(works=True)


def refusal(error: BpfError) -> Answer:
    """What a refusal by the kernel means."""
    if error.errno == errno.EPERM and not error.log:
        return Answer(
            works=False,
            reason="EPERM without a word from the verifier: this user may not, or the kernel is locked down for such programs",
        )
    if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN):
        return Answer(works=None, reason=str(error))
    return Answer(works=False, reason=str(error))
