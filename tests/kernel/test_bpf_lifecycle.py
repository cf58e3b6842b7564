"""load -> attach -> adjust -> detach -> close: whatever order it is asked for, what is attached is what is said."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from squall.kernel.bpf import BpfError, CgroupHook, Collection, Lifecycle, UprobeHook, loads
from squall.kernel.bpf.lifecycle import WrongState
from squall.kernel.cgroups import hierarchies
from squall.kernel.elf import Elf

if TYPE_CHECKING:
    from tests.kernel_world import KernelWorld

pytestmark = pytest.mark.kernel

PROGRAMS = ("loop_looks", "go_collects")
ZERO = struct.pack("<I", 0)
LIBC = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so.6" in line)


def places() -> list[UprobeHook]:
    """Functions that this test itself never calls in between."""
    with Elf.open(LIBC) as libc:
        found = [libc.symbol(name) for name in ("lockf64", "mkfifo", "swab")]
        offsets = [libc.file_offset(one.address) for one in found if one is not None]
    return [UprobeHook(PROGRAMS[number % 2], LIBC, offset, os.getpid()) for number, offset in enumerate(offsets)]


PLACES = places()
NOWHERE = UprobeHook(PROGRAMS[0], LIBC, 1 << 40, os.getpid())


def attached() -> int:
    """How many uprobes this process holds."""
    held = (str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
    return sum(name == "anon_inode:[perf_event]" for name in held)


class Model(RuleBasedStateMachine):
    """What a Lifecycle should be, beside what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Lifecycle("runtime", PROGRAMS)
        self.loaded = self.closed = False
        self.on: list[UprobeHook] = []

    @rule()
    def load(self) -> None:
        if self.closed:
            with pytest.raises(WrongState):
                self.life.load()
        else:
            self.life.load()
            self.loaded = True

    @rule(hooks=st.lists(st.sampled_from(PLACES), max_size=3))
    def attach(self, hooks: list[UprobeHook]) -> None:
        if not self.loaded or self.closed:
            with pytest.raises(WrongState):
                self.life.attach(hooks)
        else:
            self.life.attach(hooks)
            self.on += [hook for hook in dict.fromkeys(hooks) if hook not in self.on]

    @precondition(lambda self: self.loaded and not self.closed)
    @rule(hooks=st.lists(st.sampled_from(PLACES), max_size=3))
    def attach_where_one_refuses(self, hooks: list[UprobeHook]) -> None:
        with pytest.raises(BpfError):
            self.life.attach([*hooks, NOWHERE])

    @rule(hooks=st.none() | st.lists(st.sampled_from(PLACES), max_size=2))
    def detach(self, hooks: list[UprobeHook] | None) -> None:
        self.life.detach(hooks)
        self.on = [hook for hook in self.on if hooks is not None and hook not in hooks]

    @rule(value=st.integers(0, 2**63))
    def adjust(self, value: int) -> None:
        entry = struct.pack("<QQ", value, value)
        if not self.loaded or self.closed:
            with pytest.raises(WrongState):
                self.life.adjust("settings", ZERO, entry)
        else:
            self.life.adjust("settings", ZERO, entry)
            assert self.life.collection.map("settings")[ZERO] == entry

    @rule()
    def close(self) -> None:
        self.life.close()
        self.closed, self.on = True, []

    @invariant()
    def is_as_it_should_be(self) -> None:
        assert list(self.life.hooks) == self.on
        assert attached() == len(self.on)
        assert self.life.state == (
            "closed" if self.closed else "attached" if self.on else "loaded" if self.loaded else "new"
        )

    def teardown(self) -> None:
        self.life.close()
        assert attached() == 0


@pytest.mark.slow
def test_any_order_of_steps_leaves_exactly_what_is_said() -> None:
    checks = [HealthCheck.too_slow]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis has no types for it
        Model, settings=settings(max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    )


def test_a_root_cgroup_is_never_attached_to() -> None:
    [root] = [tree.mount for tree in hierarchies() if tree.v2]
    with Collection.load("runtime", PROGRAMS) as collection, pytest.raises(BpfError, match="root cgroup"):
        CgroupHook("loop_looks", root, "egress").attach(collection)


def test_a_program_is_not_attached_where_it_does_not_belong(kernel_world: KernelWorld) -> None:
    with Collection.load("runtime", PROGRAMS) as collection, pytest.raises(BpfError, match="EINVAL"):
        CgroupHook("loop_looks", str(kernel_world.cgroup), "egress").attach(collection)


def test_maps_are_read_written_and_walked() -> None:
    with Collection.load("runtime", PROGRAMS) as collection:
        waits = collection.map("long_waits")
        entries = {struct.pack("<QQ", n, 0): struct.pack("<QQQ", n, n, n) for n in range(5)}
        for key, value in entries.items():
            waits[key] = value
        assert {key: waits[key] for key in waits} == entries
        del waits[struct.pack("<QQ", 3, 0)]
        with pytest.raises(KeyError):
            waits[struct.pack("<QQ", 3, 0)]
        with pytest.raises(ValueError, match="long_waits takes 16 bytes -> 24"):
            waits[b"short"] = b""


def test_what_the_kernel_takes_is_found_by_trying() -> None:
    assert loads("runtime", PROGRAMS).works


def test_without_the_right_to_load_the_reason_is_said() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # a child that gives up root: the answer is kept once a process, so it must be asked in another
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        loads.cache_clear()
        answer = loads("runtime", PROGRAMS)
        os.write(writer, f"{answer.works} {answer.reason}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    assert said.startswith("False")
    assert "EPERM" in said
