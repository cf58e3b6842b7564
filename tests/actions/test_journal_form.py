"""Every step survives the journal, and what the journal holds wrongly is refused."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from squall.actions import (
    ACTIONS,
    Action,
    ClockSkew,
    FileLimit,
    GuardianCgroup,
    Hijack,
    KernelWorker,
    MiddlewareWorker,
    NftTable,
    NilReceiver,
    OwnCgroup,
    Pause,
    PauseCycle,
    ProxyRoute,
    PythonHook,
    RootQdisc,
    RouteDown,
    Signal,
    SyscallPatch,
    TcFilter,
    Toxic,
    Worker,
    decode,
    encode,
)
from squall.errors import JournalError
from squall.targets import ProcessIdentity
from tests import specimens

WHO = ProcessIdentity("boot", 4711, 99, 8, 15)

NETNS = {"path": "/run/netns/a", "cookie": 7, "device": 4, "inode": 9}

EVERY: list[Action] = [
    ClockSkew("run/0.4711", WHO, "shop", 140_000_000, ((140_000_100, "554889e541", "e9cb0f0000"),)),
    FileLimit(WHO, "shop", leave=3, soft=20, before=1024),
    GuardianCgroup("/sys/fs/cgroup/squall-guardian-r", WHO),
    Hijack(
        "run/0",
        "squall.proxy.hijacked",
        "lead the connections that it makes to it",
        {"control": "/run/squall/hijack.sock", "doors": [["::1", 80, True]]},
        ("hijack:outbound:x",),
    ),
    KernelWorker("run/0", "squall.workers.network", "lose 30% of its packets", {"share": 1}, ("x:net",)),
    MiddlewareWorker(
        "run/0",
        "squall.workers.middleware",
        "delay requests of orders",
        {"folder": "/run/squall/chaos", "name": "orders", "run": "run"},
        ("middleware:orders",),
    ),
    NftTable(NETNS, "squall_run_0", "chain out {}", 5353, "lead name queries to port 5353"),
    NilReceiver(
        "run/0", WHO, "shop", "main.(*shop).order", 0x401000, 0x402000, 0x500000, page=True, before="55", after="e9"
    ),
    OwnCgroup(WHO, "shop", "run-0.4711", descendants=True, home="/sys/fs/cgroup", folder="/sys/fs/cgroup/squall-own-r"),
    Pause(WHO, "shop"),
    PauseCycle("run/0", WHO, "shop", stopped_ns=2_000_000, every_ns=10_000_000),
    ProxyRoute("run/0", "127.0.0.1:8000", "127.0.0.1:8080", "/run/squall/proxy.sock", 7),
    PythonHook("run/0", "squall.workers.python_hook", "let shop:order of pid 4711 fail", {"pid": 4711}),
    RootQdisc(NETNS, "eth0", 2, (("qdisc", "prio", -1, 0x5C0000, "04"),), "fq_codel"),
    RouteDown("/run/squall/proxy.sock", "route a -> b"),
    Signal(WHO, "shop", "SIGKILL"),
    SyscallPatch(
        "run/0", WHO, "shop", {"numbers": [74], "errno": 5}, 7, "fail sync with EIO", ((140, True),), ((1, "0f05"),)
    ),
    TcFilter("squall:r/0", "network namespace a", NETNS),
    Toxic(
        "/run/squall/proxy.sock",
        "route a -> b",
        "slow",
        "latency",
        "downstream",
        0.5,
        {"latency": 100, "deep": {"a": [1]}},
    ),
    Worker("run/0", "squall.workers.cpu", "burn 50% of a core", {"load": 0.5, "cgroups": ["/a"]}, ("x:cpu",)),
]


def test_every_kind_of_step_is_looked_at_here() -> None:
    assert {action.kind for action in EVERY} == set(ACTIONS)


@pytest.mark.parametrize("action", EVERY, ids=lambda action: action.kind)
def test_a_step_survives_the_journal(action: Action) -> None:
    line = json.dumps(encode(action))
    assert decode(json.loads(line)) == action


@pytest.mark.parametrize("action", EVERY, ids=lambda action: action.kind)
def test_a_step_is_described_for_people(action: Action) -> None:
    for text in (action.describe(), action.describe_undo()):
        assert text
        assert "\n" not in text
        assert text[0] not in " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert "4711" in action.describe() or not any(isinstance(value, ProcessIdentity) for value in vars(action).values()) or (
        action.kind == "guardian-cgroup"
    )  # fmt: skip
    assert all(isinstance(name, str) and name for name in action.objects())
    assert action.recoverability in ("lease", "guarded", "irreversible")


@pytest.mark.parametrize("action", EVERY, ids=lambda action: action.kind)
def test_a_step_cannot_be_changed(action: Action) -> None:
    field = dataclasses.fields(action)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(action, field, "another")


@pytest.mark.parametrize("kind", ["teleport", "", None, 7])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(JournalError, match="unknown kind"):
        decode({"kind": kind, "args": {}})


@pytest.mark.parametrize("args", [{}, {"process": WHO.to_json(), "name": "x", "new": 1}, None, []])
def test_arguments_that_this_squall_does_not_know_are_refused(args: object) -> None:
    with pytest.raises(JournalError, match="step 'pause' that this Squall cannot read"):
        decode({"kind": "pause", "args": args})


def test_a_step_without_arguments_is_refused() -> None:
    with pytest.raises(JournalError):
        decode({"kind": "pause"})


def test_two_kinds_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="two actions are called pause"):
        type("Other", (Pause,), {}, kind="pause", recoverability="lease")


def test_undoing_needs_the_standard_library_only() -> None:
    ran = specimens.elsewhere(
        "import squall.actions, squall.recovery, squall.targets, squall.kernel.launch, importlib, json\n"
        "for name in ('cpu', 'memory', 'disk', 'pause'): importlib.import_module('squall.workers.' + name)\n"
        "roots = {name.partition('.')[0] for name in sys.modules} - {'squall', '__main__'}\n"
        "print(json.dumps(sorted(name for name in roots if name not in sys.stdlib_module_names)))"
    )
    assert json.loads(ran.stdout) == [], ran.stderr
    assert sys.version_info >= (3, 11)
