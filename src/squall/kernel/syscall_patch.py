"""System calls of a running process led through the stub: where, how it is put in, how it is taken out again.

A site is patched by changing one instruction, while no thread of the process runs: `mov $number, %eax` in front of a
`syscall` becomes a jump, or the `syscall` itself a short jump into padding near it. So wherever a thread stood, in a
handler of a signal too, it goes on at an instruction. What was put in besides (the region, jumps in padding) is never
taken out: a thread may be in it. It does nothing when no site leads to it.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, NamedTuple

from squall.errors import ActionFailed, TargetError
from squall.kernel import proc, process_memory, syscall_stub
from squall.kernel.ptrace import Tracee
from squall.kernel.syscall_sites import ANY, CAVE, Module, Site, modules
from squall.kernel.syscall_stub import CONTROL, REGION_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from squall.kernel.process_memory import Mapping

__all__ = [
    "OWN_CALLS",
    "Layout",
    "Patch",
    "Region",
    "carriers",
    "install",
    "lay_out",
    "patched",
    "remove_everywhere",
    "uncovered",
]

_SYSCALL = b"\x0f\x05"
_MMAP, _MUNMAP = 9, 11
_READ_EXECUTE, _READ_WRITE = 5, 3
_PRIVATE, _SHARED, _EXACTLY_THERE, _UNRESERVED = 0x22, 0x21, 0x100000, 0x4000
OWN_CALLS: dict[str, tuple[int, ...]] = {
    "mmap": (_MMAP, 0, syscall_stub.BASE_SIZE, _READ_EXECUTE, _PRIVATE | _EXACTLY_THERE, -1 & (1 << 64) - 1),
    "mmap of shared memory": (_MMAP, 0, syscall_stub.CONTROL_SIZE, _READ_WRITE, _SHARED | _EXACTLY_THERE, -1 & (1 << 64) - 1),
    "munmap": (_MUNMAP,), "fstat": (5,), "nanosleep": (35,), "getpid": (39,), "readlink": (89,),
    "clock_gettime": (228, 6), "process_vm_readv": (310,),
}  # fmt: skip
"""What is called in the target's name, with the arguments that a filter may look at."""
_REACH = (1 << 31) - (64 << 20)
_GUARD = 0x10000
_LOWEST, _HIGHEST = 0x100000, 0x7FFF_FFFF_0000
_WIDE_GAP = 8 << 30
_ROOM_TO_GROW = 1 << 30
"""Kept free above the heap and, in wide gaps, below what is mapped: the stack and the kernel's own choices grow down."""
_ATTEMPTS = 20
_ROUNDS = 10


class Patch(NamedTuple):
    """One site: at `address`, `old` bytes become `new`, in hex as all bytes here.

    Before that its `cave` (an address, 0: none) gets `jump` instead of `padding`. It leads to the piece with the number
    `place` of the region.
    """

    address: int
    old: str
    new: str
    cave: int
    padding: str
    jump: str
    region: int
    place: int

    @property
    def instruction(self) -> int:
        """The address of its `syscall` instruction, as long as it is not patched."""
        return self.address + (len(bytes.fromhex(self.old)) if not self.cave else 0)

    def piece(self) -> bytes:
        """The code that the site leads to."""
        load = b"" if self.cave else bytes.fromhex(self.old)
        at = syscall_stub.piece_address(self.region, self.place)
        return syscall_stub.piece(self.region, at, self.instruction + 2, load)


class Region(NamedTuple):
    """Where a stub is, or is to be when it is `new`."""

    base: int
    new: bool


class Layout(NamedTuple):
    """All that is to be put into a process."""

    regions: tuple[Region, ...]
    patches: tuple[Patch, ...]


def _wanted(module: Module, numbers: Iterable[int]) -> list[Site]:
    return [site for site in module.sites if site.number == ANY or site.number in numbers]


def uncovered(found: Sequence[Module], numbers: Sequence[int]) -> int:
    """How many places certainly make one of these calls and cannot be patched."""
    return sum(not site.patchable and site.number != ANY for one in found for site in _wanted(one, numbers))


def lay_out(pid: int, numbers: Sequence[int]) -> Layout:
    """What would lead these calls of a process through a stub; reads only.

    Places that lead to a stub already, because of a fault that is on, count as if they did not: what is planned for
    it anew (to adjust it) is the same. TargetError when no place that makes these calls can be patched.
    """
    maps = process_memory.mappings(pid)
    found = modules(pid)
    planner = _Planner(pid, maps)
    for module in found:
        for site in _wanted(module, numbers):
            if site.patchable:
                planner.add(module, site)
    if not planner.patches:
        raise TargetError(f"nothing in process {pid} makes these system calls in a way that can be patched")
    return Layout(tuple(planner.regions.values()), tuple(planner.patches))


class _Planner:
    def __init__(self, pid: int, maps: list[Mapping]) -> None:
        self._pid, self._maps = pid, maps
        self._pieces = {base: _pieces(pid, base) for base in _stubs(pid, maps)}
        self.regions: dict[int, Region] = {}
        self.patches: list[Patch] = []

    def add(self, module: Module, site: Site) -> None:
        """Patch one site, if its bytes are as in the file, or as a fault that is on has made them."""
        at = site.address + module.bias
        begin = site.loads + module.bias if site.loads else at
        expected = b"\xb8" + struct.pack("<I", site.number) if site.loads else b""
        found = process_memory.read(self._pid, begin, len(expected) + 2)
        original = found == expected + _SYSCALL
        if not original and not any((at + 2, expected) in known for known in self._pieces.values()):
            return
        cave = site.cave + module.bias if site.cave else 0
        if cave and not self._free(cave, site.padding):
            return
        base = self._region(module)
        place = (at + 2, expected)
        index = self._pieces[base].setdefault(place, len(self._pieces[base]))  # the same site has had one before
        if index >= syscall_stub.PIECES_MOST:
            raise TargetError(f"{module.name} makes system calls in more places than the stub has room for")
        target = syscall_stub.piece_address(base, index)
        if cave:
            old, new = _SYSCALL, b"\xeb" + struct.pack("<b", cave - (at + 2))
            jump = b"\xe9" + struct.pack("<i", target - (cave + CAVE))
        else:
            old, new, jump = expected, b"\xe9" + struct.pack("<i", target - (begin + CAVE)), b""
        if original or found.startswith(new):
            self.patches.append(Patch(begin, old.hex(), new.hex(), cave, site.padding.hex(), jump.hex(), base, index))

    def _free(self, cave: int, padding: bytes) -> bool:
        """Whether padding is as in the file, or left over from an earlier fault."""
        data = process_memory.read(self._pid, cave, CAVE)
        return data == padding or (data[:1] == b"\xe9" and _in_a_stub(data, cave, self._pieces))

    def _region(self, module: Module) -> int:
        for base in self._pieces:
            if _reaches(base, module):
                self.regions.setdefault(base, Region(base, new=False))
                return base
        base = _gap_near(module, self._maps, list(self.regions))
        self._pieces[base] = {}
        self.regions[base] = Region(base, new=True)
        return base


def _in_a_stub(jump: bytes, at: int, bases: Iterable[int]) -> bool:
    target = at + CAVE + struct.unpack("<i", jump[1:])[0]
    return any(base <= target < base + CONTROL for base in bases)


def _reaches(base: int, module: Module) -> bool:
    return abs(base - module.start) < _REACH and abs(base + REGION_SIZE - module.end) < _REACH


def _stubs(pid: int, maps: list[Mapping]) -> list[int]:
    """Regions of earlier faults that can be used again."""
    code = syscall_stub.stub()
    return [
        one.start
        for one in maps
        if one.permissions == "r-xp" and not one.inode and one.end - one.start == syscall_stub.BASE_SIZE
        and process_memory.read(pid, one.start, len(code)) == code
    ]  # fmt: skip


def _pieces(pid: int, base: int) -> dict[tuple[int, bytes], int]:
    size = syscall_stub.PIECE_SIZE * syscall_stub.PIECES_MOST
    return syscall_stub.pieces(base, process_memory.read(pid, syscall_stub.piece_address(base, 0), size))


def _gap_near(module: Module, maps: list[Mapping], taken: list[int]) -> int:
    """An address near a module at which nothing is mapped, away from what grows."""
    spans = sorted([(one.start, one.end, one.name) for one in maps] + [(at, at + REGION_SIZE, "") for at in taken])
    best: int | None = None
    low, below = _LOWEST, ""
    for start, end, name in [*spans, (_HIGHEST, _HIGHEST, "")]:
        least = low + (_ROOM_TO_GROW if below == "[heap]" else _GUARD)
        grows = name == "[stack]" or start - low > _WIDE_GAP
        most = min(start, _HIGHEST) - (_ROOM_TO_GROW if grows else _GUARD) - REGION_SIZE
        low, below = max(low, end), name
        if least > most:
            continue
        near = min(max(module.start, least), most) & ~0xFFF
        near = near if near >= least else near + 0x1000
        if best is None or abs(near - module.start) < abs(best - module.start):
            best = near
    if best is None or not _reaches(best, module):
        raise TargetError(f"there is no free memory within reach of {module.name}")
    return best


# ---- in and out


def install(pid: int, start_ticks: int, layout: Layout, block: Callable[[], bytes]) -> None:
    """Put everything in, while the process stands still; `block` gives the control block at the last moment.

    All or nothing: ActionFailed, TargetError or OSError when the process is not as it was when this was laid out.
    """
    for _ in range(_ATTEMPTS):
        with Tracee(pid, start_ticks) as held:
            if _in_the_way(held, layout):
                continue  # a thread stands in what would change: let it go on for a moment
            _check(held, layout)
            _make_regions(held, layout)
            for region in layout.regions:
                held.write(region.base + CONTROL, block())
            _write_sites(held, layout)
            return
    raise ActionFailed(f"the threads of process {pid} never left the code that is to be patched")


def _in_the_way(held: Tracee, layout: Layout) -> bool:
    changed = [(one.cave, one.cave + CAVE) for one in layout.patches if one.cave]
    changed += [(one.address + 1, one.address + len(one.old) // 2) for one in layout.patches]
    return any(begin <= at < end for at in held.next_instructions() for begin, end in changed)


def _check(held: Tracee, layout: Layout) -> None:
    for one in layout.patches:
        if held.read(one.address, len(one.old) // 2).hex() != one.old:
            raise TargetError(f"the code of process {held.pid} at {one.address:#x} has changed since it was read")


def _make_regions(held: Tracee, layout: Layout) -> None:
    syscall = layout.patches[0].instruction
    fixed = _EXACTLY_THERE
    for base, new in layout.regions:
        if new:
            parts = (
                (base, syscall_stub.BASE_SIZE, _READ_EXECUTE, _PRIVATE | fixed),
                (base + CONTROL, syscall_stub.CONTROL_SIZE, _READ_WRITE, _SHARED | fixed),
                (base + syscall_stub.SLOTS, syscall_stub.SLOTS_SIZE, _READ_WRITE, _PRIVATE | fixed | _UNRESERVED),
            )
            for number, (address, size, protection, flags) in enumerate(parts):
                try:
                    held.call(syscall, _MMAP, address, size, protection, flags, -1, 0)
                except OSError as error:
                    for done in parts[:number]:
                        held.call(syscall, _MUNMAP, done[0], done[1])
                    raise ActionFailed(f"process {held.pid} gets no memory for the stub: {error.strerror}") from error
            held.write(base, syscall_stub.stub())
    for one in layout.patches:
        held.write(syscall_stub.piece_address(one.region, one.place), one.piece())


def _write_sites(held: Tracee, layout: Layout) -> None:
    written: list[Patch] = []
    try:
        for one in layout.patches:
            if one.cave:
                held.write(one.cave, bytes.fromhex(one.jump))
            held.write(one.address, bytes.fromhex(one.new))
            written.append(one)
    except OSError:
        for one in written:
            held.write(one.address, bytes.fromhex(one.old))
        raise


def patched(pid: int, patches: Sequence[Patch]) -> list[Patch]:
    """Those of the patches that are in a process's code now; none when it is gone or has become another program."""
    found = []
    for one in patches:
        with contextlib.suppress(OSError):
            if process_memory.read(pid, one.address, len(one.new) // 2).hex() == one.new:
                found.append(one)
    return found


def remove(pid: int, start_ticks: int, patches: Sequence[Patch]) -> None:
    """Take the patches out, each only where it still is; nothing happens when the process is gone."""
    if not patched(pid, patches):
        return
    with contextlib.suppress(ProcessLookupError), Tracee(pid, start_ticks) as held:
        for one in patched(pid, patches):
            held.write(one.address, bytes.fromhex(one.old))


def remove_everywhere(pid: int, start_ticks: int, layout: Layout) -> None:
    """Take the patches out of a process and of all that was forked from it since, whoever their parent is now."""
    remove(pid, start_ticks, layout.patches)
    for _ in range(_ROUNDS):  # one that is still patched may fork while the others are put right
        left = [one for one in carriers(layout) if patched(one, layout.patches)]
        if not left:
            return
        for one in left:
            stat = proc.read_stat(one)
            if stat is not None:
                remove(one, stat.start_ticks, layout.patches)


def carriers(layout: Layout) -> list[int]:
    """Every process that has the stub where this layout puts it: the target and what was forked from it since."""
    found = []
    for pid in proc.pids() if layout.regions else ():
        with contextlib.suppress(OSError):
            if process_memory.read(pid, layout.regions[0].base, len(syscall_stub.MARK)) == syscall_stub.MARK:
                found.append(pid)
    return found
