"""A built object in this kernel: its programs verified and its maps made; attached to nothing yet."""

from __future__ import annotations

import ctypes
import errno
import re
import struct
from typing import TYPE_CHECKING, Self, cast

from squall.kernel.bpf.calls import MAP_DELETE, MAP_LOOKUP, MAP_NEXT_KEY, MAP_UPDATE, map_call
from squall.kernel.bpf.library import BpfError, library, messages
from squall.kernel.bpf.objects import Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

__all__ = ["Collection", "Map"]

_PER_CPU = {5, 6, 10, 21}
"""BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH, _PERCPU_CGROUP_STORAGE: a value for each CPU."""
_LOG_LINES = 12
_KEYS_MOST = 1 << 20


class Map:
    """One map. Keys and values are bytes in the layout that the program declares (`struct.pack("<I", 0)`)."""

    def __init__(self, name: str, fd: int, key_size: int, value_size: int, type_: int) -> None:
        self.name, self.fd, self._key_size = name, fd, key_size
        self._copies = _cpus_possible() if type_ in _PER_CPU else 1
        self._value_size = (value_size + 7 & ~7) * self._copies if self._copies > 1 else value_size

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Write one entry; OSError when the map is full or the value does not fit."""
        if len(key) != self._key_size or len(value) != self._value_size:
            raise ValueError(
                f"{self.name} takes {self._key_size} bytes -> {self._value_size}, not {len(key)} -> {len(value)}"
            )
        map_call(MAP_UPDATE, self.fd, key, ctypes.create_string_buffer(value, len(value)))

    def __getitem__(self, key: bytes) -> bytes:
        """Read one entry (all CPUs' copies one after another); KeyError where there is none."""
        value = ctypes.create_string_buffer(self._value_size)
        try:
            map_call(MAP_LOOKUP, self.fd, key, value)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise KeyError(key) from None
            raise
        return value.raw

    def __delitem__(self, key: bytes) -> None:
        """Take one entry out; KeyError where there is none."""
        try:
            map_call(MAP_DELETE, self.fd, key, None)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise KeyError(key) from None
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Every key, as far as they stay while it is walked."""
        key: bytes | None = None
        for _ in range(_KEYS_MOST):
            following = ctypes.create_string_buffer(self._key_size)
            try:
                map_call(MAP_NEXT_KEY, self.fd, key, following)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key

    def total(self, index: int) -> int:
        """The sum over all CPUs of one 64-bit counter of an array."""
        return sum(struct.unpack(f"<{self._copies}Q", self[struct.pack("<I", index)]))


def _cpus_possible() -> int:
    """How many copies a per-CPU value has: the kernel counts CPUs that may still come."""
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip().split(",")[-1].split("-")[-1]
    return int(last) + 1


class Collection:
    """The programs and maps of one object, held by descriptors: they go when it is closed or its process ends."""

    def __init__(self, handle: int, programs: Mapping[str, int], maps: Mapping[str, Map]) -> None:
        self._handle: int | None = handle
        self._programs, self._maps = dict(programs), dict(maps)

    @classmethod
    def load(
        cls,
        name: str,
        programs: Iterable[str] | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Self:
        """Load an object: only these programs of it, or all.

        `targets` gives tracing programs what they attach to where that is only known now, `sizes` gives maps their
        number of entries. BpfError with the verifier's or libbpf's words when the kernel refuses; nothing stays then.
        """
        ready = _ready.pop((name, _key(programs)), None) if not targets and not sizes else None
        if ready is not None:
            return cast("Self", ready)
        lib = library()
        with messages() as said:
            handle = lib.bpf_object__open_file(Object(name).path.encode(), None)
            if not handle:
                raise BpfError(f"{name}: the object cannot be read", ctypes.get_errno() or errno.EINVAL, _last(said))
            try:
                wanted = set(programs) if programs is not None else None
                _choose(handle, wanted, targets or {}, sizes or {})
                _verify(name, handle, said)
            except BaseException:
                lib.bpf_object__close(handle)
                raise
        loaded = {
            text: lib.bpf_program__fd(program)
            for text, program in _walk(handle, lib.bpf_object__next_program, lib.bpf_program__name)
            if wanted is None or text in wanted
        }
        maps = {
            text: Map(
                text,
                lib.bpf_map__fd(one),
                lib.bpf_map__key_size(one),
                lib.bpf_map__value_size(one),
                lib.bpf_map__type(one),
            )
            for text, one in _walk(handle, lib.bpf_object__next_map, lib.bpf_map__name)
        }
        return cls(handle, loaded, maps)

    @classmethod
    def have_ready(cls, name: str, programs: Iterable[str] | None = None) -> None:
        """Load now what the next `load` of the same will return: the verifier takes its time."""
        loaded = cls.load(name, programs)
        _ready[name, _key(programs)] = loaded

    def program(self, name: str) -> int:
        """A program's descriptor; it belongs to the collection."""
        return self._programs[name]

    def map(self, name: str) -> Map:
        """A map by the name that the source gives it."""
        return self._maps[name]

    def close(self) -> None:
        """Give everything back; once or often. Links that were made go with their own descriptors."""
        if self._handle is not None:
            library().bpf_object__close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_ready: dict[tuple[str, tuple[str, ...] | None], Collection] = {}


def _key(programs: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if programs is None else tuple(sorted(programs))


def _choose(handle: int, wanted: set[str] | None, targets: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    lib = library()
    there = dict(_walk(handle, lib.bpf_object__next_program, lib.bpf_program__name))
    if wanted is not None and not wanted <= set(there):
        raise ValueError(f"there are the programs {', '.join(there)}, not {', '.join(sorted(wanted - set(there)))}")
    for name, program in there.items():
        lib.bpf_program__set_autoload(program, wanted is None or name in wanted)
        if name in targets and lib.bpf_program__set_attach_target(program, 0, targets[name].encode()):
            raise BpfError(f"{name} cannot be attached to {targets[name]}", ctypes.get_errno() or errno.ESRCH)
    for name, one in _walk(handle, lib.bpf_object__next_map, lib.bpf_map__name):
        if name in sizes and lib.bpf_map__set_max_entries(one, sizes[name]):
            raise BpfError(f"the map {name} cannot have {sizes[name]} entries", errno.EINVAL)


def _verify(name: str, handle: int, said: Iterable[str]) -> None:
    refused = -library().bpf_object__load(handle)
    if refused:
        raise BpfError(f"{name}: the kernel does not take it", refused, _last(said))


def _walk(
    handle: int, following: Callable[..., int | None], named: Callable[[int], bytes]
) -> Iterator[tuple[str, int]]:
    one = following(handle, None)
    while one:
        yield named(one).decode(), one
        one = following(handle, one)


_NO_REASON = re.compile(
    r"-- (BEGIN|END) PROG|processed \d+ insns|verification time|failed to load|load failed|ulimit|^$"
    r"|^\d+: |^; |^R\d|^from \d+ to|^func#|^last_idx|^mark_precise|^stack depth|^caller|^arg#"
)
"""What libbpf says of every refusal whatever its reason, and the verifier's account of its way there."""


def _last(said: Iterable[str]) -> str:
    """The words that say why: the verifier's last lines; "" when it said none."""
    telling = [line.strip() for line in said if not _NO_REASON.search(line.strip())]
    return " / ".join(line.removeprefix("libbpf: ") for line in telling[-_LOG_LINES:])[-2000:]
