"""load -> attach -> adjust -> detach -> close: in this order, all or nothing, each as often as one likes."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal, Self

from squall.errors import SquallError
from squall.kernel.bpf.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from squall.kernel.bpf.hooks import Hook

__all__ = ["Lifecycle", "WrongState"]

State = Literal["new", "loaded", "attached", "closed"]


class WrongState(SquallError):  # noqa: N818 - reads as what it says
    """A step was asked for that cannot follow the one before."""


class Lifecycle:
    """The programs of one object from the verifier to the end. Not thread-safe: one owner drives it.

    Whatever state it is in when its owner dies, the kernel closes the descriptors, and nothing is left.
    """

    def __init__(self, name: str, programs: Iterable[str] | None = None, **options: Mapping[str, object]) -> None:
        self.name = name
        self._programs = tuple(programs) if programs is not None else None
        self._options = options
        self._collection: Collection | None = None
        self._links: dict[Hook, tuple[int, ...]] = {}
        self._closed = False

    @property
    def state(self) -> State:
        """How far it has come."""
        if self._closed:
            return "closed"
        if self._collection is None:
            return "new"
        return "attached" if self._links else "loaded"

    @property
    def collection(self) -> Collection:
        """What was loaded; WrongState before and after."""
        if self._collection is None or self._closed:
            raise WrongState(f"{self.name} is {self.state}: there is nothing loaded")
        return self._collection

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where it is attached, in the order it was."""
        return tuple(self._links)

    def load(self) -> None:
        """Have the kernel verify it. BpfError: refused, and the state is as before. WrongState once closed."""
        if self._closed:
            raise WrongState(f"{self.name} is closed: make a new one")
        if self._collection is None:
            self._collection = Collection.load(self.name, self._programs, **self._options)  # type: ignore[arg-type]  # as declared there

    def attach(self, hooks: Iterable[Hook]) -> None:
        """Attach to all of these that it is not attached to yet, or, when one refuses, to none of them; raises its error."""
        collection, fresh = self.collection, []
        try:
            for hook in hooks:
                if hook not in self._links:
                    self._links[hook] = hook.attach(collection)
                    fresh.append(hook)
        except BaseException:
            for hook in reversed(fresh):
                _close(self._links.pop(hook))
            raise

    def adjust(self, map_name: str, key: bytes, value: bytes) -> None:
        """Write one entry of a map: the programs see it with their next look, whole. WrongState unless loaded."""
        self.collection.map(map_name)[key] = value

    def detach(self, hooks: Iterable[Hook] | None = None) -> None:
        """Take it off these hooks, or off all, last first; those it is not attached to are left out."""
        wanted = set(self._links) if hooks is None else set(hooks)
        for hook in reversed([hook for hook in self._links if hook in wanted]):
            _close(self._links.pop(hook))

    def close(self) -> None:
        """Detach and give everything back; final."""
        self.detach()
        if self._collection is not None:
            self._collection.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(descriptors: tuple[int, ...]) -> None:
    """Close the descriptors of a hook; one that is gone already (its interface went) was closed by the kernel's side."""
    for fd in reversed(descriptors):
        with contextlib.suppress(OSError):
            os.close(fd)
