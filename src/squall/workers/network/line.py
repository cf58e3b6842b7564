"""A delay line: packets that a filter sends to a TAP device are held here and go on when their time has come.

One device stands for one interface and direction: the program `back` (bpf/line.bpf.c) knows by the device where a packet
was going. Everything hangs by this process's descriptors: when it ends, however it ends, devices and programs go, and
the filter with them, so that nothing is sent into a hole.

Accuracy: a process is woken late, by tens of microseconds and more the longer its CPU has slept. How late is measured
all the time from the line's own timers, for short and long sleeps apart. It has itself woken as much earlier as is
usual, and waits actively for the rest (200 us at most); a packet that woke it is taken to have come as much earlier as
is the least, so that nearly none leaves before its time, and those that do by some microseconds.
"""

from __future__ import annotations

import errno
import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from squall.kernel import own
from squall.kernel.bpf import Collection
from squall.kernel.bpf.calls import link_create
from squall.kernel.netlink import CLSACT_EGRESS, CLSACT_INGRESS, Netlink, NetlinkError
from squall.workers.network import frames
from squall.workers.network.tap import ETHERNET, FRAME_MOST, Tap

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.kernel.netlink import Link
    from squall.workers.network.schedule import Schedule

__all__ = ["Line", "Origin"]

Direction = Literal["egress", "ingress"]

_WAYS = {"egress": 0, "ingress": 1}
_LOOPBACK_WAY = 2
_LOOPBACK = 1
"""Its ifindex, in every namespace."""
_INGRESS, _EGRESS, _BEFORE = 46, 47, 1 << 3
"""BPF_TCX_INGRESS, BPF_TCX_EGRESS and BPF_F_BEFORE of linux/bpf.h: before all others."""
_MARK = 0x5C00_0000
_MARK_INGRESS = 0x0080_0000
_ORDERS = 1 << 23
_BATCH = 64
"""Frames that are read from one device before what is due is looked at again."""
_FOREIGN = 1
_NOT_SLEPT_NS = 20_000
_SLOW_BYTES_PER_S = 6_250_000
"""At 50 Mbit/s a frame of 64 KiB takes 10 ms: below that rate frames are cut to the MTU, so that they do not come in lumps."""


class Origin(NamedTuple):
    """Where packets come from and go back to."""

    ifindex: int
    direction: Direction


class _Lateness:
    """How late this process is woken, in ns, by the length of its sleeps: what is usual, and what is the least."""

    _MOST = 200_000
    _STEP = 1_000

    def __init__(self) -> None:
        self._usual, self._least = [60_000] * 64, [0] * 64

    def usual(self, slept_ns: int) -> int:
        """Three of four are less late after such a sleep: so much earlier it has itself woken."""
        return self._usual[slept_ns.bit_length()]

    def least(self, slept_ns: int) -> int:
        """One of ten is less late: so much at least a packet has waited that woke it. Never sent early for more than this."""
        return self._least[slept_ns.bit_length()]

    def learn(self, slept_ns: int, late_ns: int) -> None:
        """Move both towards what was seen now."""
        index = slept_ns.bit_length()
        for known, up, down in ((self._usual, 6, 2), (self._least, 1, 9)):
            step = up * self._STEP if late_ns > known[index] else -down * self._STEP
            known[index] = min(self._MOST, max(0, known[index] + step))


@dataclass(slots=True)
class _Way:
    """One device with what it stands for."""

    origin: Origin
    tap: Tap
    schedule: Schedule[tuple[int, bytes]]
    links: tuple[int, ...]
    loopback: bool


class Line:
    """Every device of one line in the calling thread's network namespace. For one thread.

    `schedules` has one for each direction that is held; what comes out carries a mark by which filters know it (see
    network.bpf.c). `policy` gives a frame's own delay in ns, in addition to the schedule's. `filters` is
    as for `Interfaces`: whoever takes the filters of this name away takes `arrive` too; `back` goes with its device anyway.
    """

    def __init__(
        self,
        schedules: dict[Direction, Schedule[tuple[int, bytes]]],
        policy: Callable[[bytes], int] | None = None,
        filters: str = "",
    ) -> None:
        self._schedules, self.policy, self._filters = schedules, policy, filters
        self._collection = Collection.load("line")
        self._ways: dict[int, _Way] = {}
        """By the descriptor of the device."""
        self._lateness = _Lateness()
        self._lost_in_devices = 0
        self._unwritable = 0
        own.be_on_time()

    def divert(self, link: Link, way: Direction, order: int) -> int:
        """A device for the packets of an interface and direction: the ifindex that a filter is to send them to.

        `order` (below 2**23) is the filter's number among those of that interface and direction. The packets must be for
        this host (ingress) or from it. 0 where there is no such device: the interface has no Ethernet headers. OSError or
        BpfError: nothing is there then. Asked again for the same, it answers the same.
        """
        if link.header != ETHERNET:
            return 0
        origin = Origin(link.index, way)
        for one in self._ways.values():
            if one.origin == origin:
                return one.tap.ifindex
        assert 0 <= order < _ORDERS  # noqa: S101 - the caller's own number
        loopback = link.index == _LOOPBACK
        mark = _MARK | order | (_MARK_INGRESS if way == "ingress" else 0)
        schedule = self._schedules[origin.direction]
        tap = Tap(link.mtu, whole=_whole(schedule))
        links: list[int] = []
        try:
            how = _LOOPBACK_WAY if loopback else _WAYS[origin.direction]
            self._collection.map("origins")[tap.ifindex.to_bytes(4, "little")] = (
                b"".join(number.to_bytes(4, "little") for number in (origin.ifindex, how, mark)) + tap.address + b"\0\0"
            )
            links += self._attach_back(tap.ifindex)
            if loopback and not any(one.loopback for one in self._ways.values()):
                links += self._attach_arrive(origin.ifindex)
        except BaseException:
            for fd in links:
                os.close(fd)
            tap.close()
            raise
        self._ways[tap.fd] = _Way(origin, tap, schedule, tuple(links), loopback)
        return tap.ifindex

    def _attach_back(self, ifindex: int) -> tuple[int, ...]:
        """Put `back` on a device of ours: as a filter, which goes with the device and is there in a fraction of the time."""
        program = self._collection.program("back")
        try:
            _add_filter(ifindex, CLSACT_INGRESS, program, self._filters or "squall:line")
        except NetlinkError:
            if self._filters:
                raise
            return (link_create(program, ifindex, _INGRESS),)
        return ()

    def _attach_arrive(self, ifindex: int) -> tuple[int, ...]:
        """Put `arrive` on loopback; the descriptors that hold it, none where it is a filter."""
        program = self._collection.program("arrive")
        if not self._filters:
            return (link_create(program, ifindex, _EGRESS, _BEFORE),)
        _add_filter(ifindex, CLSACT_EGRESS, program, self._filters)
        return ()

    def forget(self, ifindex: int) -> None:
        """The interface is gone: its devices go, with what is held for it."""
        for fd, way in list(self._ways.items()):
            if way.origin.ifindex == ifindex:
                del self._ways[fd]
                self._end(way)

    def reshape(self) -> None:
        """The schedules have other shapes now."""
        for way in self._ways.values():
            way.tap.keep_whole(whole=_whole(way.schedule))

    def run(self, until_ns: int, *others: int) -> bool:
        """Pass packets on until this time of CLOCK_MONOTONIC; True as soon as one of the other descriptors can be read."""
        while True:
            now = self._release(time.monotonic_ns())
            if now >= until_ns:
                return False
            due = min(until_ns, *(when for s in self._schedules.values() if (when := s.next_ns) is not None), until_ns)
            readable = self._sleep(now, due, others)
            if readable is None:
                return True

    def _sleep(self, now: int, due: int, others: tuple[int, ...]) -> list[int] | None:
        """Wait for packets until shortly before something is due and take them in; None: another descriptor can be read."""
        wanted = due - now
        planned = max(0, wanted - self._lateness.usual(wanted)) if wanted > 0 else 0
        readable = select.select([*self._ways, *others], [], [], planned / 1e9)[0]
        woken = time.monotonic_ns()
        if not readable:
            if planned:
                self._lateness.learn(wanted, woken - now - planned)
            return readable
        slept = woken - now
        late = min(self._lateness.least(slept), slept // 2) if slept > _NOT_SLEPT_NS else 0
        for fd in readable:
            if fd in self._ways:
                self._take_in(self._ways[fd], late)
        return None if any(fd in others for fd in readable) else readable

    def _take_in(self, way: _Way, late: int) -> None:
        fd, schedule, policy = way.tap.fd, way.schedule, self.policy
        per_flow = schedule.shape.rate is not None and schedule.shape.rate.per_flow
        for _ in range(_BATCH):
            try:
                frame = os.read(fd, FRAME_MOST)
            except BlockingIOError:
                return
            schedule.put(
                (fd, frame),
                frames.ip_length(frame),
                time.monotonic_ns() - late,
                flow=frames.flow(frame) if per_flow else None,
                extra_ns=policy(frame) if policy is not None else 0,
            )
            late = 0  # those behind the first had not to wait for the waking

    def check(self) -> None:
        """OSError when somebody has taken a device away, or down: then packets get lost in it until this process ends."""
        for way in self._ways.values():
            if not way.tap.works():
                raise OSError(errno.ENODEV, f"somebody took {way.tap.name} away, which a delay line needs")

    def _release(self, now: int) -> int:
        """Write what is due; the time after it. Bounded: what comes due meanwhile has its turn after the reading."""
        for schedule in self._schedules.values():
            for _ in range(_BATCH):
                held = schedule.take(now)
                if held is None:
                    break
                self._write(*held)
                now = time.monotonic_ns()
        return now

    def _write(self, fd: int, frame: bytes) -> None:
        if fd not in self._ways:
            self._unwritable += 1  # its interface went while it was held
            return
        try:
            os.write(fd, frame)
        except OSError:
            self._unwritable += 1

    def flush(self) -> None:
        """Let everything go that is held, in the order of its times; the filter must be off by then."""
        for way in self._ways.values():
            self._take_in(way, 0)
        for schedule in self._schedules.values():
            for _ in range(len(schedule)):
                held = schedule.take(1 << 62)
                if held is not None:
                    self._write(*held)

    def counts(self) -> dict[str, int]:
        """Packets: held ever, lost because a queue was full, not to be written, sent by others over the devices."""
        tallies = [schedule.tally for schedule in self._schedules.values()]
        in_devices = self._lost_in_devices + sum(way.tap.dropped() for way in self._ways.values())
        return {
            "held": sum(tally.held for tally in tallies),
            "reordered": sum(tally.reordered for tally in tallies),
            "overflowed": sum(tally.overflowed for tally in tallies) + in_devices,
            "unwritable": self._unwritable,
            "foreign": self._collection.map("counters").total(_FOREIGN),
        }

    def close(self) -> None:
        """Devices and programs go; what is held is lost (see `flush`)."""
        for way in self._ways.values():
            self._end(way)
        self._ways.clear()
        self._collection.close()

    def _end(self, way: _Way) -> None:
        self._lost_in_devices += way.tap.dropped()
        for fd in way.links:
            os.close(fd)
        way.tap.close()


def _add_filter(ifindex: int, parent: int, program: int, name: str) -> None:
    """Put a program behind the filters that are there already."""
    with Netlink() as netlink:
        netlink.add_clsact(ifindex)
        last = max((one.priority for one in netlink.filters(ifindex, parent)), default=0)
        netlink.add_bpf_filter(ifindex, parent, last + 1, program, name)


def _whole(schedule: Schedule[tuple[int, bytes]]) -> bool:
    rate = schedule.shape.rate
    return rate is None or rate.bytes_per_s >= _SLOW_BYTES_PER_S
